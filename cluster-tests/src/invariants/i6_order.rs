//! I6: messages of one producer to one queue keep the order in which they were sent.

use super::Checker;
use crate::seen::Seen;
use std::collections::BTreeMap;
use troupemq::model::QueueKey;

/// uid, offset and log index.
type Place = (u64, u64, u64);

/// See the module text.
#[derive(Default)]
pub struct Order {
    producers: BTreeMap<u64, u32>,
    /// Visible messages by producer and queue.
    lines: BTreeMap<(u32, QueueKey), Vec<Place>>,
}

impl Checker for Order {
    fn id(&self) -> &'static str {
        "I6"
    }

    fn see(&mut self, seen: &Seen) -> Result<(), String> {
        match seen {
            // Delayed messages take the order of their times.
            Seen::Sent {
                uid,
                producer,
                due_ms: None,
                ..
            } => {
                self.producers.insert(*uid, *producer);
            }
            // Its attempts may overtake what was sent between them.
            Seen::SentAgain { uid } => {
                self.producers.remove(uid);
            }
            Seen::Visible {
                key,
                offset,
                uid,
                at,
                ..
            } => {
                let Some(producer) = self.producers.get(uid) else {
                    return Ok(());
                };
                let line = self.lines.entry((*producer, *key)).or_default();
                if let Some((before, there, _)) = line.last() {
                    if *offset > *there && uid <= before {
                        return Err(format!(
                            "{key:?}: message {uid} of producer {producer} follows {before}"
                        ));
                    }
                    if *offset <= *there {
                        // Shown again after a restart: in its old place.
                        let known = line.binary_search_by_key(offset, |(_, o, _)| *o);
                        return match known {
                            Ok(i) if line[i].0 == *uid => Ok(()),
                            _ => Err(format!("{key:?}: message {uid} appears before {before}")),
                        };
                    }
                }
                line.push((*uid, *offset, at.index));
            }
            Seen::Crashed { last, .. } => {
                for line in self.lines.values_mut() {
                    line.truncate(line.partition_point(|(_, _, index)| index <= last));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::histories::*;
    use super::*;

    #[test]
    fn overtaking_is_seen() {
        let sent = [sent(1, true), sent(2, true)];
        let run = |tail: &[Seen]| judge(&mut Order::default(), &[&sent[..], tail].concat(), None);
        assert!(run(&[visible(1, 5, 0), visible(2, 5, 1)]).is_none());
        assert!(run(&[visible(2, 5, 0), visible(1, 5, 1)]).is_some());
        assert!(run(&[visible(1, 5, 1), visible(2, 5, 0)]).is_some());
        let again = [
            visible(2, 5, 0),
            Seen::Crashed {
                power: true,
                last: 4,
            },
            visible(1, 5, 0),
        ];
        assert!(run(&again).is_none(), "a lost message holds nobody back");
    }
}
