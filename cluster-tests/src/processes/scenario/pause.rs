//! Processes that stand still: 7 and 8.

use super::{scenario, Scenario, NOTHING};
use crate::processes::nodes::{Signal, SHARDS};
use crate::processes::stage::Stage;
use std::time::Duration;

pub(super) const SCENARIOS: [Scenario; 3] = [
    Scenario {
        smoke: true,
        ..scenario("7", "pause leader", NOTHING, leader)
    },
    scenario("8a", "pause follower", NOTHING, follower),
    Scenario {
        nodes: 5,
        ..scenario("8b", "freeze two of five", NOTHING, two_of_five)
    },
];

/// Stopped for longer than any lease; reads of offsets by any replica tell whether it answers
/// from what it knew.
fn leader(stage: &mut Stage) -> Result<(), String> {
    stage.silent = true;
    while stage.more() {
        let shard = stage.rng.below(SHARDS.len());
        let node = stage.leader(shard)?;
        let led = stage.led_by(node);
        let what = format!("SIGSTOP of node {}, leader of {led:?}", node + 1);
        stage.fault(what, &led, Some(Duration::from_secs(6)));
        stage.nodes.signal(node, Signal::Stop);
        stage.sleep(3.0);
        stage.nodes.signal(node, Signal::Continue);
        stage.settle(Duration::from_secs(30))?;
    }
    Ok(())
}

fn follower(stage: &mut Stage) -> Result<(), String> {
    stage.silent = true;
    let node = stage.rng.below(stage.nodes.count());
    let followed = stage.followed_by(node);
    let what = format!("SIGSTOP of node {}, follower of {followed:?}", node + 1);
    stage.fault(what, &followed, Some(Duration::from_millis(500)));
    stage.nodes.signal(node, Signal::Stop);
    let seconds = stage.seconds.min(60) as f64;
    stage.sleep(seconds);
    stage.measured();
    stage.nodes.signal(node, Signal::Continue);
    stage.recovered(Duration::from_secs(60))
}

fn two_of_five(stage: &mut Stage) -> Result<(), String> {
    stage.silent = true;
    while stage.more() {
        let chosen = stage.rng.order(stage.nodes.count());
        let (one, other) = (chosen[0], chosen[1]);
        let what = format!("SIGSTOP of nodes {} and {}", one + 1, other + 1);
        stage.fault(what, &[0, 1, 2], Some(Duration::from_secs(6)));
        for node in [one, other] {
            stage.nodes.signal(node, Signal::Stop);
        }
        stage.sleep(8.0);
        for node in [one, other] {
            stage.nodes.signal(node, Signal::Continue);
        }
        stage.settle(Duration::from_secs(30))?;
    }
    Ok(())
}
