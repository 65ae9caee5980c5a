//! Processes that die: 1 to 4, and the rolling restart, 22.

use super::{Scenario, NOTHING};
use crate::processes::nodes::{Signal, SHARDS};
use crate::processes::stage::Stage;
use std::time::{Duration, Instant};

const BOTH: fn(&mut Stage) -> Result<(), String> = all_at_once;

pub(super) const SCENARIOS: [Scenario; 6] = [
    Scenario {
        number: "1",
        name: "kill follower",
        nodes: 3,
        sets: &[],
        needs: NOTHING,
        smoke: false,
        work: follower,
    },
    Scenario {
        number: "2",
        name: "kill leader",
        nodes: 3,
        sets: &[],
        needs: NOTHING,
        smoke: true,
        work: leader,
    },
    Scenario {
        number: "3a",
        name: "kill all, SYNC_FLUSH",
        nodes: 3,
        sets: &["flush_disk_type=SYNC_FLUSH"],
        needs: NOTHING,
        smoke: false,
        work: BOTH,
    },
    Scenario {
        number: "3b",
        name: "kill all, ASYNC_FLUSH",
        nodes: 3,
        sets: &["flush_disk_type=ASYNC_FLUSH"],
        needs: NOTHING,
        smoke: true,
        work: BOTH,
    },
    Scenario {
        number: "4",
        name: "kill loop",
        nodes: 5,
        sets: &[],
        needs: NOTHING,
        smoke: false,
        work: kill_loop,
    },
    Scenario {
        number: "22",
        name: "rolling restart",
        nodes: 3,
        sets: &[],
        needs: NOTHING,
        smoke: false,
        work: rolling,
    },
];

/// The shards that a node only follows do not notice its end.
fn follower(stage: &mut Stage) -> Result<(), String> {
    while stage.more() {
        let node = stage.rng.below(stage.nodes.count());
        let led = stage.led_by(node);
        let followed: Vec<usize> = (0..SHARDS.len()).filter(|s| !led.contains(s)).collect();
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
