//! I8: a committed consumer offset never goes back unless a reset was asked, and is never ahead
//! of the queue. Offsets are metadata: no crash takes them.

use super::Checker;
use crate::seen::{End, Seen, State};
use std::collections::{BTreeMap, BTreeSet};
use troupemq::model::QueueKey;

/// See the module text.
#[derive(Default)]
pub struct ConsumerOffsets {
    offsets: BTreeMap<(u32, QueueKey), u64>,
    /// Resets asked and not seen yet.
    resets: BTreeMap<(u32, QueueKey, u64), u32>,
    /// Log index of visible records by queue.
    queues: BTreeMap<QueueKey, Vec<u64>>,
    deleted: BTreeSet<u32>,
}

impl Checker for ConsumerOffsets {
    fn id(&self) -> &'static str {
        "I8"
    }

    fn see(&mut self, seen: &Seen) -> Result<(), String> {
        match seen {
            Seen::Visible {
                key, offset, at, ..
            } => {
                let queue = self.queues.entry(*key).or_default();
                if *offset == queue.len() as u64 {
                    queue.push(at.index);
                }
            }
            Seen::CommitAsked {
                group,
                key,
                offset,
                reset: true,
            } => {
                *self.resets.entry((*group, *key, *offset)).or_default() += 1;
            }
            Seen::Offset { group, key, offset } => return self.moved(*group, *key, *offset, false),
            Seen::TopicDeleted { id } => {
                self.deleted.insert(*id);
            }
            Seen::Crashed { last, .. } => {
                for queue in self.queues.values_mut() {
                    queue.truncate(queue.partition_point(|index| index <= last));
                }
            }
            Seen::Serving(state) => return self.whole(state),
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, end: &End) -> Result<(), String> {
        self.whole(&end.state)
    }
}

impl ConsumerOffsets {
    /// `restart`: commits and resets may have been applied unseen on the way.
    fn moved(
        &mut self,
        group: u32,
        key: QueueKey,
        offset: u64,
        restart: bool,
    ) -> Result<(), String> {
        let max = self.queues.get(&key).map_or(0, Vec::len) as u64;
        if offset > max {
            return Err(format!(
                "group {group} is at {offset} of {key:?}, which ends at {max}"
            ));
        }
        let before = self.offsets.insert((group, key), offset).unwrap_or(0);
        if offset < before {
            let lowest = if restart { 0 } else { offset };
            let mut asked = self
                .resets
                .range_mut((group, key, lowest)..=(group, key, offset));
            match asked.find(|(_, n)| **n > 0) {
                Some((_, n)) => *n -= 1,
                None => {
                    return Err(format!(
                        "group {group} went back in {key:?} from {before} to {offset}"
                    ))
                }
            }
        }
        Ok(())
    }

    /// The whole state must say at least what was seen.
    fn whole(&mut self, state: &State) -> Result<(), String> {
        let now: BTreeMap<_, _> = state
            .offsets
            .iter()
            .map(|(g, k, o)| ((*g, *k), *o))
            .collect();
        for (at, before) in &self.offsets {
            let gone =
                self.deleted.contains(&at.1.topic.0) || !state.topics.contains(&at.1.topic.0);
            if !gone && !now.contains_key(at) {
                return Err(format!(
                    "group {} lost its offset {before} in {:?}",
                    at.0, at.1
                ));
            }
        }
        for ((group, key), offset) in now {
            self.moved(group, key, offset, true)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::histories::*;
    use super::*;

    #[test]
    fn going_back_ahead_or_away_is_seen() {
        let base = [visible(1, 5, 0), visible(2, 6, 1), visible(3, 7, 2)];
        let run = |tail: &[Seen]| {
            judge(
                &mut ConsumerOffsets::default(),
                &[&base[..], tail].concat(),
                None,
            )
        };
        let to = |offset| Seen::Offset {
            group: 1,
            key: KEY,
            offset,
        };
        let asked = |offset, reset| Seen::CommitAsked {
            group: 1,
            key: KEY,
            offset,
            reset,
        };
        assert!(run(&[to(1), to(3)]).is_none());
        assert!(run(&[to(3), asked(1, false), to(1)]).is_some());
        assert!(run(&[to(3), asked(1, true), to(1)]).is_none());
        assert!(
            run(&[to(3), asked(1, true), to(1), to(3), to(1)]).is_some(),
            "one reset, two steps back"
        );
        assert!(run(&[to(4)]).is_some());
        let state = |offsets: &[u64]| {
            Seen::Serving(State {
                offsets: offsets.iter().map(|o| (1, KEY, *o)).collect(),
                topics: vec![1],
                ..State::default()
            })
        };
        let unseen = [to(3), asked(1, true), asked(2, false), state(&[2])];
        assert!(
            run(&unseen).is_none(),
            "back by a reset and on by a commit, while it was away"
        );
        assert!(run(&[to(2), state(&[2])]).is_none());
        assert!(run(&[to(2), state(&[1])]).is_some());
        assert!(run(&[to(2), state(&[])]).is_some());
    }
}
