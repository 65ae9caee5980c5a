//! How much the machine holds of what clients may add to. Quotas are checked against it by the leader
//! before it proposes; the machine itself refuses nothing, and its digest does not cover it.

use super::Machine;
use crate::model::group::GroupConfig;
use crate::model::topic::TopicConfig;
use crate::routing::names::special_group;
use prost::Message;

/// Memory for one of each, bytes, as measured with all that a node keeps of it; see
/// `docs/operating.md`. Configurations count with their own length besides.
const TOPIC_BYTES: u64 = 1_024;
const GROUP_BYTES: u64 = 1_024;
const QUEUE_BYTES: u64 = 384;
const OFFSET_BYTES: u64 = 96;
const LOCK_BYTES: u64 = 256;
const TIMER_BYTES: u64 = 160;

/// What is counted as it changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Held {
    /// Retry and dead-letter topics.
    special: u64,
    /// Encoded length of all topics and groups.
    configs: u64,
}

impl Held {
    pub fn add_topic(&mut self, topic: &TopicConfig) {
        self.special += u64::from(special_group(&topic.name).is_some());
        self.configs += topic.encoded_len() as u64;
    }
    pub fn take_topic(&mut self, topic: &TopicConfig) {
        self.special -= u64::from(special_group(&topic.name).is_some());
        self.configs -= topic.encoded_len() as u64;
    }
    pub fn add_group(&mut self, group: &GroupConfig) {
        self.configs += group.encoded_len() as u64;
    }
    pub fn take_group(&mut self, group: &GroupConfig) {
        self.configs -= group.encoded_len() as u64;
    }
}

/// See the module text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Holdings {
    /// Topics but for retry and dead-letter topics.
    pub topics: u64,
    /// Retry and dead-letter topics.
    pub special_topics: u64,
    /// Groups, deleted ones whose offsets are kept included.
    pub groups: u64,
    /// Delayed messages that wait.
    pub timers: u64,
    /// Offsets and locks.
    pub offsets: u64,
    /// Memory for all of it, estimated.
    pub bytes: u64,
}

impl Machine {
    /// What it holds now; takes no time.
    pub fn holdings(&self) -> Holdings {
        let [topics, groups, queues, offsets, locks, timers] = [
            self.topics.len() as u64,
            self.groups.len() as u64,
            self.queues.len() as u64,
            self.offsets.len() as u64,
            self.locks.len() as u64,
            self.timers.len() as u64,
        ];
        Holdings {
            topics: topics - self.held.special,
            special_topics: self.held.special,
            groups,
            timers,
            offsets: offsets + locks,
            bytes: self.held.configs
                + topics * TOPIC_BYTES
                + groups * GROUP_BYTES
                + queues * QUEUE_BYTES
                + offsets * OFFSET_BYTES
                + locks * LOCK_BYTES
                + timers * TIMER_BYTES,
        }
    }

    /// The topic of this name exists.
    pub fn has_topic_named(&self, name: &str) -> bool {
        self.topics.contains_key(name)
    }

    /// The group of this name exists, or was deleted and its offsets kept.
    pub fn has_group_named(&self, name: &str) -> bool {
        self.groups.contains_key(name)
    }

    pub(super) fn held_anew(&self) -> Held {
        let mut held = Held::default();
        self.topics.values().for_each(|topic| held.add_topic(topic));
        self.groups.values().for_each(|group| held.add_group(group));
        held
    }
}

#[cfg(test)]
mod tests {
    use super::super::MachineOptions;
    use super::*;
    use crate::model::command::{DeleteGroup, MetaOp};
    use crate::model::ShardId;
    use crate::raft::entry::EntryBuilder;
    use crate::storage::LogEntry;

    #[test]
    fn what_is_held_follows_every_change() {
        let mut machine = Machine::new(ShardId(0), MachineOptions::default());
        let topic = |name: &str, queues| MetaOp::PutTopic(TopicConfig::new(name, queues, 6));
        let group = |deleted| {
            MetaOp::PutGroup(GroupConfig {
                deleted,
                ..GroupConfig::with_defaults("g")
            })
        };
        let gone = DeleteGroup {
            name: "g".into(),
            clean_offsets: true,
        };
        let all = [
            (topic("t", 1), (1, 0, 0)),
            (topic("t", 1_000), (1, 0, 0)),
            (topic("%RETRY%g", 1), (1, 1, 0)),
            (topic("%DLQ%g", 1), (1, 2, 0)),
            (group(false), (1, 2, 1)),
            (group(true), (1, 2, 1)),
            (MetaOp::DeleteGroup(gone.clone()), (1, 2, 0)),
            (MetaOp::DeleteGroup(gone), (1, 2, 0)),
            (MetaOp::DeleteTopic("%RETRY%g".into()), (1, 1, 0)),
            (MetaOp::DeleteTopic("%RETRY%g".into()), (1, 1, 0)),
            (MetaOp::DeleteTopic("%DLQ%g".into()), (1, 0, 0)),
            (MetaOp::DeleteTopic("t".into()), (0, 0, 0)),
        ];
        for (n, (op, (topics, special_topics, groups))) in all.into_iter().enumerate() {
            let index = n as u64 + 1;
            let mut entry = EntryBuilder::new(index, 1, 64);
            entry.meta(&op.into());
            let entry = LogEntry {
                index,
                term: 1,
                kind: 0,
                data: entry.finish().into(),
            };
            machine.apply(&entry).unwrap();
            let now = machine.holdings();
            let counts = (now.topics, now.special_topics, now.groups);
            assert_eq!(counts, (topics, special_topics, groups), "step {n}");
            assert_eq!(machine.held, machine.held_anew(), "step {n}");
        }
        assert_eq!(machine.holdings(), Holdings::default());
    }
}
