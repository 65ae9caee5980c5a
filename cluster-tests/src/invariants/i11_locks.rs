//! I11: no two members of a group take a queue to be their own at the same time.

use super::Checker;
use crate::consumers::seen::GroupSeen;
use crate::seen::Seen;
use std::collections::{BTreeMap, BTreeSet};
use troupemq::model::QueueKey;

/// See the module text.
#[derive(Default)]
pub struct QueueLocks {
    /// Who holds each queue, and up to when.
    holders: BTreeMap<(usize, QueueKey), BTreeMap<String, i64>>,
    /// Locks go with their topic: there is nothing to consume.
    deleted: BTreeSet<u32>,
}

impl Checker for QueueLocks {
    fn id(&self) -> &'static str {
        "I11"
    }

    fn see(&mut self, seen: &Seen) -> Result<(), String> {
        match seen {
            Seen::TopicDeleted { id } => {
                self.deleted.insert(*id);
            }
            Seen::Group(GroupSeen::Holds {
                group,
                key,
                client,
                now_ms,
                until_ms,
            }) if !self.deleted.contains(&key.topic.0) => {
                let holders = self.holders.entry((*group, *key)).or_default();
                holders.retain(|_, until| *until > *now_ms);
                if let Some((other, until)) = holders.iter().find(|(other, _)| *other != client) {
                    return Err(format!(
                        "{client} holds {key:?} of group {group} from {now_ms} on, and {other} up to {until}"
                    ));
                }
                holders.insert(client.clone(), *until_ms);
            }
            Seen::Group(GroupSeen::LetsGo { group, key, client }) => {
                let holders = self.holders.entry((*group, *key)).or_default();
                holders.remove(client);
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::histories::{judge, KEY};
    use super::*;

    #[test]
    fn two_holders_are_seen() {
        let run = |history: &[Seen]| judge(&mut QueueLocks::default(), history, None);
        let holds = |client: &str, now_ms| {
            Seen::Group(GroupSeen::Holds {
                group: 1,
                key: KEY,
                client: client.into(),
                now_ms,
                until_ms: now_ms + 30,
            })
        };
        let lets_go = Seen::Group(GroupSeen::LetsGo {
            group: 1,
            key: KEY,
            client: "a".into(),
        });
        assert!(run(&[holds("a", 0), holds("a", 20), holds("b", 50)]).is_none());
        assert!(run(&[holds("a", 0), holds("a", 20), holds("b", 49)]).is_some());
        assert!(run(&[holds("a", 0), lets_go, holds("b", 1)]).is_none());
        let deleted = Seen::TopicDeleted { id: KEY.topic.0 };
        assert!(run(&[holds("a", 0), deleted, holds("b", 1)]).is_none());
    }
}
