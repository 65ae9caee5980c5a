//! Checkers of recorded histories: pure functions, linear in the size of the history but for the
//! ordered maps.

mod consumers;
mod delays;
mod offsets;
mod push;
mod sends;
mod tail;

pub use consumers::consumers;
pub use delays::{delays, Clocks};
pub use offsets::{expired, holes, minority, same, stale_reads, Isolated};
pub use push::{pushed, Pushed};
pub use sends::{order, sends};
pub use tail::{tail, PowerCut};

use super::history::{Id, Place};
use std::collections::BTreeMap;

/// One queue as it was read, from its minimum to its maximum offset.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Queue {
    pub min: i64,
    pub max: i64,
    /// Offset and content, as the pulls gave them; `None` for a body that nobody sent.
    pub messages: Vec<(i64, Option<Id>)>,
}

/// All queues as they were read.
pub type Stored = BTreeMap<Place, Queue>;

/// Violations, by kind, with a few examples of each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    found: BTreeMap<&'static str, (usize, Vec<String>)>,
}

/// Examples kept of each kind.
const EXAMPLES: usize = 5;

impl Findings {
    /// One more of a kind.
    pub fn add(&mut self, kind: &'static str, example: impl FnOnce() -> String) {
        let (count, examples) = self.found.entry(kind).or_default();
        *count += 1;
        if examples.len() < EXAMPLES {
            examples.push(example());
        }
    }

    /// How many of a kind.
    pub fn count(&self, kind: &str) -> usize {
        self.found.get(kind).map_or(0, |(count, _)| *count)
    }

    /// Takes the findings of another checker.
    pub fn merge(&mut self, other: Findings) {
        for (kind, (count, examples)) in other.found {
            let known = self.found.entry(kind).or_default();
            known.0 += count;
            known.1.extend(examples);
            known.1.truncate(EXAMPLES);
        }
    }

    /// Nothing was found.
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Takes out one kind; how many there were.
    pub fn take(&mut self, kind: &str) -> usize {
        self.found.remove(kind).map_or(0, |(count, _)| count)
    }

    /// Kinds and numbers, as `2 lost, 1 moved`.
    pub fn summary(&self) -> String {
        let all: Vec<String> = self
            .found
            .iter()
            .map(|(kind, (count, _))| format!("{count} {kind}"))
            .collect();
        all.join(", ")
    }

    /// All examples, one a line.
    pub fn lines(&self) -> Vec<String> {
        let of = |(kind, (_, examples)): (&&str, &(usize, Vec<String>))| {
            let line = |e: &String| format!("{kind}: {e}");
            examples.iter().map(line).collect::<Vec<_>>()
        };
        self.found.iter().flat_map(of).collect()
    }
}

/// Where each message is, and the order of what is stored.
pub(super) fn index(stored: &Stored) -> BTreeMap<Id, Vec<(Place, i64)>> {
    let mut out: BTreeMap<Id, Vec<(Place, i64)>> = BTreeMap::new();
    for (place, queue) in stored {
        for (offset, id) in &queue.messages {
            if let Some(id) = id {
                out.entry(*id).or_default().push((*place, *offset));
            }
        }
    }
    out
}

#[cfg(test)]
mod fixtures {
    use super::super::history::{Answer, Sent};
    use super::*;

    pub const PLACE: Place = Place {
        topic: 0,
        shard: 1,
        queue: 2,
    };

    pub fn sent(id: Id, begin: u64, answer: Answer) -> Sent {
        Sent {
            id,
            place: PLACE,
            node: 0,
            begin,
            end: begin + 5,
            delay_ms: 0,
            answer,
        }
    }

    pub fn acked(id: Id, offset: i64) -> Sent {
        sent(id, 10 * offset as u64, Answer::Acked(offset))
    }

    pub fn stored(ids: &[Id]) -> Stored {
        let messages: Vec<_> = (0..).zip(ids).map(|(n, id)| (n, Some(*id))).collect();
        let queue = Queue {
            min: 0,
            max: ids.len() as i64,
            messages,
        };
        BTreeMap::from([(PLACE, queue)])
    }
}
