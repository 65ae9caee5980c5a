//! Nodes with other settings, as in a rolling change half done: 31.

use super::{scenario, Scenario, NETWORK};
use crate::processes::nodes::Signal;
use crate::processes::space::{cut_both, nodes};
use crate::processes::stage::Stage;
use std::time::Duration;

pub(super) const SCENARIOS: [Scenario; 1] = [scenario(
    "31t",
    "unequal election timeouts",
    NETWORK,
    unequal_timeouts,
)];

/// The longest time without an acknowledgement once a leader with a timeout of 3 s is cut off.
const ALONE: Duration = Duration::from_secs(6);

/// A leader that would hold on to its lease for long is cut off from followers that elect another
/// soon. It is asked for the ends of its queues all the time, and may not answer with old ones.
///
/// A client that asked it waits out its own 2 s, and perhaps once more where the old leader's name
/// server still names the old leader: hence [`ALONE`].
fn unequal_timeouts(stage: &mut Stage) -> Result<(), String> {
    stage.silent = true;
    for node in 0..stage.nodes.count() {
        let own = match node {
            0 => "election_timeout_ms=3000",
            _ => "election_timeout_ms=250",
        };
        stage.nodes.set(node, &[own]);
        stage.nodes.signal(node, Signal::Terminate);
        if stage.nodes.wait(node, Duration::from_secs(10)) != Some(true) {
            return Err(format!("node {} did not end well", node + 1));
        }
        stage.nodes.start(node)?;
        // One node at a time, as in a rolling change: the next waits until all lead what they should.
        stage.settle(Duration::from_secs(30))?;
    }
    stage.sleep(4.0);
    while stage.more() {
        let led = stage.led_by(0);
        if led.is_empty() {
            return Err("node 1 leads nothing".into());
        }
        let what = format!("node 1, leader of {led:?}, is cut from its peers");
        stage.fault(what, &led, Some(ALONE));
        let asker = stage.load.ask(0).map_err(|e| e.to_string())?;
        stage.sleep(0.3);
        stage.network(cut_both(&nodes(&[0]), &nodes(&stage.others(&[0]))))?;
        stage.sleep(4.0);
        stage.network(Vec::new())?;
        drop(asker);
        // Until it has its shards back.
        stage.settle(Duration::from_secs(30))?;
        let begun = stage.load.now();
        while stage.led_by(0).len() < led.len() && stage.load.now() < begun + 20_000_000 {
            stage.sleep(0.5);
        }
    }
    Ok(())
}
