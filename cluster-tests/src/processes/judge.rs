//! What the times of a history say about faults.

use super::check;
use super::history::History;
use super::nodes::{Nodes, SHARDS};
use std::time::Duration;

/// Consumers get something again so soon after a fault.
const DELIVERED_WITHIN: Duration = Duration::from_secs(10);
/// A fault whose effect is measured.
#[derive(Debug, Clone)]
pub struct Fault {
    pub what: String,
    /// The shards that may notice it.
    pub shards: Vec<usize>,
    pub from: u64,
    pub to: u64,
    /// Longest time without an acknowledgement that passes.
    pub limit: Option<Duration>,
}

/// The longest time within a fault without an event.
pub fn gap(events: &[u64], fault: &Fault) -> Duration {
    let mut last = fault.from;
    let mut longest = 0;
    let inside = events
        .iter()
        .filter(|at| (fault.from..fault.to).contains(*at));
    for at in inside.copied().chain([fault.to]) {
        longest = longest.max(at.saturating_sub(last));
        last = at;
    }
    Duration::from_micros(longest)
}

/// Faults after which it took too long, and a median that is too long.
pub fn too_slow(
    faults: &[Fault],
    gaps: &[Duration],
    history: &History,
    median: Option<Duration>,
) -> Vec<String> {
    let mut out = Vec::new();
    let mut received: Vec<Vec<u64>> = vec![Vec::new(); SHARDS.len()];
    for got in history.sessions.iter().flat_map(|s| &s.got) {
        received[usize::from(got.place.shard)].push(got.at);
    }
    received.iter_mut().for_each(|r| r.sort_unstable());
    for (fault, found) in faults.iter().zip(gaps) {
        let Some(limit) = fault.limit else {
            continue;
        };
        let what = &fault.what;
        if *found > limit {
            out.push(format!("{what}: {found:.1?} without an ack, not {limit:?}"));
        }
        for shard in &fault.shards {
            let silent = gap(&received[*shard], fault);
            if silent > DELIVERED_WITHIN.max(limit) {
                out.push(format!("{what}: nothing delivered for {silent:.1?}"));
            }
        }
    }
    let mut sorted = gaps.to_vec();
    sorted.sort();
    if let (Some(limit), Some(middle)) = (median, sorted.get(gaps.len() / 2)) {
        if *middle > limit {
            out.push(format!("median {middle:.1?} without an ack, not {limit:?}"));
        }
    }
    out
}

/// Push consumers of Java go on within 10 s.
pub fn slow_pushes(faults: &[Fault], pushed: &[check::Pushed]) -> Vec<String> {
    let mut out = Vec::new();
    if pushed.is_empty() {
        return out;
    }
    for fault in faults.iter().filter(|f| f.limit.is_some()) {
        for orderly in [false, true] {
            for shard in &fault.shards {
                let here = |p: &&check::Pushed| {
                    p.orderly == orderly && usize::from(p.place.shard) == *shard
                };
                let at: Vec<u64> = pushed.iter().filter(here).map(|p| p.at).collect();
                let silent = gap(&at, fault);
                if silent > DELIVERED_WITHIN {
                    let what = &fault.what;
                    out.push(format!(
                        "{what}: nothing pushed for {silent:.1?}, orderly: {orderly}"
                    ));
                }
            }
        }
    }
    out
}

/// Panics in the nodes' logs.
pub fn panics(nodes: &Nodes) -> Vec<String> {
    let mut out = Vec::new();
    for node in 0..nodes.count() {
        let log = nodes.log(node);
        if let Some(line) = log.lines().find(|l| l.contains("panicked at")) {
            out.push(format!("node {}: {line}", node + 1));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_reach_to_the_ends_of_a_fault() {
        let mut fault = Fault {
            what: "x".into(),
            shards: vec![0],
            from: 100,
            to: 200,
            limit: Some(Duration::from_micros(50)),
        };
        assert_eq!(gap(&[50, 110, 190], &fault), Duration::from_micros(80));
        assert_eq!(gap(&[50, 250], &fault), Duration::from_micros(100));
        assert_eq!(gap(&[170], &fault), Duration::from_micros(70));
        let gaps = [Duration::from_micros(80)];
        let history = History::default();
        let of =
            |fault: &Fault, gaps| too_slow(std::slice::from_ref(fault), gaps, &history, None).len();
        assert_eq!(of(&fault, &gaps), 1);
        fault.limit = Some(Duration::from_micros(80));
        assert_eq!(of(&fault, &gaps), 0);
        let median = Some(Duration::from_micros(79));
        assert_eq!(too_slow(&[fault], &gaps, &history, median).len(), 1);
    }
}
