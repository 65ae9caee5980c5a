//! I9: whatever a group has committed beyond was delivered to one of its members, and consumed or sent back and
//! stored again; unless an operator passed over it, or retention was faster.

use super::Checker;
use crate::consumers::seen::GroupSeen;
use crate::seen::{End, Seen};
use std::collections::{BTreeMap, BTreeSet};
use troupemq::model::QueueKey;

/// See the module text.
#[derive(Default)]
pub struct DeliveredToGroups {
    settled: BTreeSet<(usize, u64)>,
    /// An operator may have passed over what is before.
    skipped: BTreeMap<(usize, QueueKey), u64>,
    trimmed: BTreeMap<QueueKey, u64>,
    ids: BTreeMap<u32, usize>,
}

impl Checker for DeliveredToGroups {
    fn id(&self) -> &'static str {
        "I9"
    }

    fn see(&mut self, seen: &Seen) -> Result<(), String> {
        match seen {
            Seen::Group(GroupSeen::Settled { group, uid }) => {
                self.settled.insert((*group, *uid));
            }
            Seen::Group(GroupSeen::Skips { group, key, below }) => {
                let skipped = self.skipped.entry((*group, *key)).or_default();
                *skipped = (*skipped).max(*below);
            }
            Seen::Group(GroupSeen::Id { group, id }) => {
                self.ids.insert(*id, *group);
            }
            Seen::Trimmed { key, min } => {
                let trimmed = self.trimmed.entry(*key).or_default();
                *trimmed = (*trimmed).max(*min);
            }
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, end: &End) -> Result<(), String> {
        let content: BTreeMap<_, _> = end.content.iter().map(|(key, c)| (*key, c)).collect();
        for (id, key, committed) in &end.state.offsets {
            let (Some(group), Some(content)) = (self.ids.get(id), content.get(key)) else {
                continue;
            };
            let skipped = self.skipped.get(&(*group, *key)).copied().unwrap_or(0);
            let trimmed = self.trimmed.get(key).copied().unwrap_or(0);
            let passed = content
                .iter()
                .filter(|(offset, _)| offset < committed && *offset >= skipped.max(trimmed));
            for (offset, uid) in passed {
                if !self.settled.contains(&(*group, *uid)) {
                    return Err(format!(
                        "group {group} is at {committed} of {key:?}, and nobody consumed message {uid} at {offset}"
                    ));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::histories::{end, judge, KEY};
    use super::*;

    #[test]
    fn a_message_that_was_passed_over_is_seen() {
        let id = Seen::Group(GroupSeen::Id { group: 0, id: 4 });
        let settled = |uid| Seen::Group(GroupSeen::Settled { group: 0, uid });
        let mut end = end(0, 3, &[1, 2, 3]);
        end.state.offsets.push((4, KEY, 2));
        let run = |history: &[Seen]| {
            let history = [std::slice::from_ref(&id), history].concat();
            judge(&mut DeliveredToGroups::default(), &history, Some(&end))
        };
        assert!(run(&[settled(1), settled(2)]).is_none());
        assert!(run(&[settled(1), settled(3)]).is_some());
        let skips = Seen::Group(GroupSeen::Skips {
            group: 0,
            key: KEY,
            below: 1,
        });
        assert!(run(&[skips.clone(), settled(2)]).is_none());
        assert!(run(&[skips]).is_some());
        let trimmed = Seen::Trimmed { key: KEY, min: 2 };
        assert!(run(&[trimmed]).is_none());
    }
}
