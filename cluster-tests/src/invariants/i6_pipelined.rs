//! I6 of one connection that does not wait for answers: what it sends to a queue is stored in the order in which
//! it was sent, also when leaders change in the middle.

use super::Checker;
use crate::seen::Seen;
use std::collections::BTreeMap;
use troupemq::model::QueueKey;

/// See the module text.
#[derive(Default)]
pub struct Pipelined {
    doors: BTreeMap<u64, u64>,
    /// The last message of each connection in each queue.
    last: BTreeMap<(u64, QueueKey), (u64, u64)>,
}

impl Checker for Pipelined {
    fn id(&self) -> &'static str {
        "I6"
    }

    fn see(&mut self, seen: &Seen) -> Result<(), String> {
        match seen {
            Seen::Pipelined { uid, door } => {
                self.doors.insert(*uid, *door);
            }
            Seen::Visible {
                key, offset, uid, ..
            } => {
                let Some(door) = self.doors.get(uid) else {
                    return Ok(());
                };
                let last = self.last.entry((*door, *key)).or_insert((*uid, *offset));
                if *uid < last.0 && *offset > last.1 {
                    return Err(format!(
                        "connection {door} sent {uid} before {}, and it is stored behind it in {key:?}",
                        last.0
                    ));
                }
                *last = (*last).max((*uid, *offset));
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::histories::{judge, visible};
    use super::*;

    #[test]
    fn a_message_that_overtakes_is_seen() {
        let sent = |uid, door| Seen::Pipelined { uid, door };
        let run = |history: &[Seen]| judge(&mut Pipelined::default(), history, None);
        let two = [sent(1, 7), sent(2, 7)];
        let both = |a: Seen, b: Seen| run(&[&two[..], &[a, b]].concat());
        assert!(both(visible(1, 5, 0), visible(2, 6, 1)).is_none());
        assert!(both(visible(2, 5, 0), visible(1, 6, 1)).is_some());
        let other = [sent(1, 7), sent(2, 8), visible(2, 5, 0), visible(1, 6, 1)];
        assert!(run(&other).is_none(), "of two connections");
    }
}
