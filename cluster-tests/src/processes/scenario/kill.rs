//! Processes that die: 1 to 4, and the rolling restart, 22.

use super::{scenario, Scenario, NOTHING};
use crate::processes::nodes::{Signal, SHARDS};
use crate::processes::stage::Stage;
use std::time::{Duration, Instant};

pub(super) const SCENARIOS: [Scenario; 6] = [
    scenario("1", "kill follower", NOTHING, follower),
    Scenario {
        smoke: true,
        ..scenario("2", "kill leader", NOTHING, leader)
    },
    Scenario {
        sets: &["flush_disk_type=SYNC_FLUSH"],
        ..scenario("3a", "kill all, SYNC_FLUSH", NOTHING, all_at_once)
    },
    Scenario {
        sets: &["flush_disk_type=ASYNC_FLUSH"],
        smoke: true,
        ..scenario("3b", "kill all, ASYNC_FLUSH", NOTHING, all_at_once)
    },
    Scenario {
        nodes: 5,
        ..scenario("4", "kill loop", NOTHING, kill_loop)
    },
    scenario("22", "rolling restart", NOTHING, rolling),
];

/// The shards that a node only follows do not notice its end.
fn follower(stage: &mut Stage) -> Result<(), String> {
    while stage.more() {
        let node = stage.rng.below(stage.nodes.count());
        let followed = stage.followed_by(node);
        let what = format!("kill -9 of node {}, follower of {followed:?}", node + 1);
        stage.fault(what, &followed, Some(Duration::from_millis(200)));
        stage.nodes.kill(node)?;
        stage.sleep(2.0);
        stage.measured();
        stage.nodes.start(node)?;
        stage.recovered(Duration::from_secs(30))?;
        stage.sleep(3.0);
    }
    stage.sends_may_fail = false;
    Ok(())
}

fn leader(stage: &mut Stage) -> Result<(), String> {
    stage.median = Some(Duration::from_secs(2));
    while stage.more() {
        let shard = stage.rng.below(SHARDS.len());
        let node = stage.leader(shard)?;
        let led = stage.led_by(node);
        let what = format!("kill -9 of node {}, leader of {led:?}", node + 1);
        stage.fault(what, &led, Some(Duration::from_secs(5)));
        stage.nodes.kill(node)?;
        stage.sleep(1.0);
        stage.nodes.start(node)?;
        stage.settle(Duration::from_secs(30))?;
    }
    Ok(())
}

fn all_at_once(stage: &mut Stage) -> Result<(), String> {
    stage.sends_may_fail = true;
    while stage.more() {
        let what = "kill -9 of all".to_owned();
        stage.fault(what, &[0, 1, 2], Some(Duration::from_secs(15)));
        for node in 0..stage.nodes.count() {
            stage.nodes.signal(node, Signal::Kill);
        }
        for node in 0..stage.nodes.count() {
            stage.nodes.kill(node)?;
        }
        stage.nodes.start_all()?;
        stage.settle(Duration::from_secs(30))?;
    }
    Ok(())
}

/// A random node every 3 s; it comes back after a second. At least half of the load gets through.
fn kill_loop(stage: &mut Stage) -> Result<(), String> {
    stage.sends_may_fail = true;
    let (begin, before) = (Instant::now(), stage.load.acked());
    stage.sleep(5.0);
    let calm = (stage.load.acked() - before) as f64 / begin.elapsed().as_secs_f64();
    stage.fault(
        "kill loop".into(),
        &[0, 1, 2],
        Some(Duration::from_secs(15)),
    );
    let (begin, before) = (Instant::now(), stage.load.acked());
    while stage.more() || begin.elapsed() < Duration::from_secs(20) {
        let node = stage.rng.below(stage.nodes.count());
        stage.note(&format!("kill -9 of node {}", node + 1));
        stage.nodes.kill(node)?;
        stage.sleep(1.0);
        stage.nodes.start(node)?;
        stage.sleep(2.0);
    }
    let rate = (stage.load.acked() - before) as f64 / begin.elapsed().as_secs_f64();
    stage.note(&format!(
        "{rate:.0} messages a second, {calm:.0} without faults"
    ));
    if rate < calm / 2.0 {
        stage.problem(format!("{rate:.0} messages a second of {calm:.0}"));
    }
    stage.settle(Duration::from_secs(30))
}

/// SIGTERM and a start, one node after the other: no send fails.
fn rolling(stage: &mut Stage) -> Result<(), String> {
    for node in 0..stage.nodes.count() {
        let what = format!("restart of node {}", node + 1);
        stage.fault(what, &[0, 1, 2], Some(Duration::from_secs(1)));
        stage.nodes.signal(node, Signal::Terminate);
        if stage.nodes.wait(node, Duration::from_secs(10)) != Some(true) {
            stage.problem(format!("node {} did not end well", node + 1));
            let _ = stage.nodes.kill(node);
        }
        stage.nodes.start(node)?;
        stage.settle(Duration::from_secs(30))?;
    }
    Ok(())
}
