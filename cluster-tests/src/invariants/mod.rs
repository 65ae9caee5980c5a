//! One checker for each invariant of the reliability reference, one file each. A checker sees a
//! history and knows nothing of the simulator.

mod i11_locks;
mod i13_delay;
mod i14_dead_letters;
mod i15_alone;
mod i16_changes;
mod i16_current;
mod i16_group_members;
mod i17_retention;
mod i1_no_acked_lost;
mod i2_log;
mod i3_digest;
mod i4_leader;
mod i5_offsets;
mod i6_order;
mod i6_pipelined;
mod i7_once;
mod i8_consumer_offsets;
mod i8_group_offsets;
mod i9_delivered;

pub use i11_locks::QueueLocks;
pub use i13_delay::Delay;
pub use i14_dead_letters::DeadLetters;
pub use i15_alone::Alone;
pub use i16_changes::Changes;
pub use i16_current::Current;
pub use i16_group_members::GroupMembers;
pub use i17_retention::{Policy, Retention};
pub use i1_no_acked_lost::NoAckedLost;
pub use i2_log::CommittedLog;
pub use i3_digest::SameState;
pub use i4_leader::OneLeader;
pub use i5_offsets::Offsets;
pub use i6_order::Order;
pub use i6_pipelined::Pipelined;
pub use i7_once::Once;
pub use i8_consumer_offsets::ConsumerOffsets;
pub use i8_group_offsets::GroupOffsets;
pub use i9_delivered::DeliveredToGroups;

use crate::seen::{End, Seen};

/// Holds a history to one invariant.
pub trait Checker {
    /// The invariant's id.
    fn id(&self) -> &'static str;
    /// Takes the next observation.
    fn see(&mut self, seen: &Seen) -> Result<(), String>;
    /// Looks at what is left.
    fn end(&mut self, _end: &End) -> Result<(), String> {
        Ok(())
    }
}

/// All checkers, for a shard with this retention policy.
pub fn all(policy: Policy) -> Vec<Box<dyn Checker>> {
    vec![
        Box::<NoAckedLost>::default(),
        Box::<CommittedLog>::default(),
        Box::<SameState>::default(),
        Box::<OneLeader>::default(),
        Box::<Offsets>::default(),
        Box::<Order>::default(),
        Box::<Pipelined>::default(),
        Box::<Once>::default(),
        Box::<ConsumerOffsets>::default(),
        Box::<Delay>::default(),
        Box::<Alone>::default(),
        Box::<Changes>::default(),
        Box::<Current>::default(),
        Box::<GroupOffsets>::default(),
        Box::<DeliveredToGroups>::default(),
        Box::<QueueLocks>::default(),
        Box::new(DeadLetters::new(crate::consumers::MAX_TRIES)),
        Box::<GroupMembers>::default(),
        Box::new(Retention::new(policy)),
    ]
}

#[cfg(test)]
pub(crate) mod histories {
    //! Pieces of hand-made histories.
    use super::*;
    use troupemq::model::{Position, QueueKey, TopicId};

    pub const KEY: QueueKey = QueueKey {
        topic: TopicId(1),
        queue: 0,
    };

    pub fn at(index: u64) -> Position {
        Position { index, ordinal: 0 }
    }
    pub fn sent(uid: u64, sync: bool) -> Seen {
        Seen::Sent {
            uid,
            producer: 1,
            key: KEY,
            sync,
            due_ms: None,
        }
    }
    pub fn delayed(uid: u64, due_ms: i64) -> Seen {
        Seen::Sent {
            uid,
            producer: 1,
            key: KEY,
            sync: true,
            due_ms: Some(due_ms),
        }
    }
    pub fn acked(uid: u64, index: u64, offset: u64) -> Seen {
        Seen::Acked {
            uid,
            at: at(index),
            offset: Some(offset),
        }
    }
    pub fn visible(uid: u64, index: u64, offset: u64) -> Seen {
        Seen::Visible {
            key: KEY,
            offset,
            uid,
            at: at(index),
            store_ts: 1000,
        }
    }
    /// Feeds a history; the first complaint, if any.
    pub fn judge(checker: &mut dyn Checker, history: &[Seen], end: Option<&End>) -> Option<String> {
        for seen in history {
            if let Err(what) = checker.see(seen) {
                return Some(what);
            }
        }
        end.and_then(|end| checker.end(end).err())
    }
    pub fn end(min: u64, max: u64, uids: &[u64]) -> End {
        let mut end = End::default();
        end.state.queues.push((KEY, min, max));
        end.state.topics.push(1);
        end.content
            .push((KEY, (min..).zip(uids.iter().copied()).collect()));
        end
    }
}
