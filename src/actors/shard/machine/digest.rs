//! A digest of the replicated state that costs little to keep: the sum of a hash of every item.
//! Items that come and go are added and taken away, so that it need not be made anew; after a
//! restart it is, from what the store gave back. Replicas compare it (invariant I3).
//!
//! Change what is hashed, or how, only together with [`VERSION`]: replicas of different versions
//! do not compare.

use super::Machine;
use crate::model::group::GroupConfig;
use crate::model::topic::TopicConfig;
use crate::model::QueueKey;
use crate::raft::entry::TimerKey;
use crate::storage::keys::lock::LockRow;
use crate::storage::keys::queue::QueueMeta;
use crate::storage::keys::Kind;
use prost::Message;

/// Digests of another version mean something else. Those of version 1 kept the locks of a group that
/// was deleted without its offsets, until a restart.
pub const VERSION: u32 = 2;

/// See the module text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Digest(u64);

impl Digest {
    pub fn add(&mut self, item: u64) {
        self.0 = self.0.wrapping_add(item);
    }
    pub fn take(&mut self, item: u64) {
        self.0 = self.0.wrapping_sub(item);
    }
}

/// The hash of an item: its kind and its fields, all of one number of parts or with lengths.
struct Item(u64);

impl Item {
    fn new(kind: Kind) -> Self {
        Self(0x9e37_79b9_7f4a_7c15 ^ kind as u64)
    }
    fn number(mut self, n: u64) -> Self {
        self.0 = mix(self.0 ^ n);
        self
    }
    fn bytes(mut self, bytes: &[u8]) -> Self {
        self = self.number(bytes.len() as u64);
        for chunk in bytes.chunks(8) {
            let word = chunk.iter().fold(0u64, |n, b| n << 8 | u64::from(*b));
            self = self.number(word);
        }
        self
    }
    fn done(self) -> u64 {
        mix(self.0)
    }
}

fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

pub(super) fn topic(topic: &TopicConfig) -> u64 {
    Item::new(Kind::Topic).bytes(&topic.encode_to_vec()).done()
}

pub(super) fn group(group: &GroupConfig) -> u64 {
    Item::new(Kind::Group).bytes(&group.encode_to_vec()).done()
}

/// Without the segment, which is the node's own.
pub(super) fn queue(key: QueueKey, meta: &QueueMeta) -> u64 {
    let item = Item::new(Kind::Queue).number(key.topic.0.into());
    let item = item.number(key.queue.into());
    item.number(meta.min).number(meta.next).done()
}

pub(super) fn offset(at: (u32, u32, u32), offset: u64) -> u64 {
    place(Kind::Offset, at).number(offset).done()
}

pub(super) fn lock(at: (u32, u32, u32), row: &LockRow) -> u64 {
    place(Kind::Lock, at).bytes(&row.encode()).done()
}

fn place(kind: Kind, (group, topic, queue): (u32, u32, u32)) -> Item {
    let item = Item::new(kind).number(group.into());
    item.number(topic.into()).number(queue.into())
}

pub(super) fn timer(timer: TimerKey, queue: QueueKey) -> u64 {
    let item = Item::new(Kind::Timer).number(timer.due_ms as u64);
    let item = item.number(timer.position.index);
    let item = item.number(timer.position.ordinal.into());
    item.number(queue.topic.0.into())
        .number(queue.queue.into())
        .done()
}

impl Machine {
    /// A digest of topics, groups, queues, offsets, locks, timers and counters (invariant I3). Equal
    /// on all replicas that have applied the same entry, but while one is filling. Members are left
    /// out: a rescue changes them on one replica, outside of the log.
    pub fn digest(&self) -> u64 {
        let counters = Item::new(Kind::Counters).bytes(&self.counters.encode());
        self.digest.0.wrapping_add(counters.done())
    }

    /// The part that is kept, made from the whole state.
    pub(super) fn digest_anew(&self) -> Digest {
        let mut digest = Digest::default();
        self.topics.values().for_each(|t| digest.add(topic(t)));
        self.groups.values().for_each(|g| digest.add(group(g)));
        self.queues
            .iter()
            .for_each(|(k, m)| digest.add(queue(*k, m)));
        self.offsets
            .iter()
            .for_each(|(k, o)| digest.add(offset(*k, *o)));
        self.locks.iter().for_each(|(k, l)| digest.add(lock(*k, l)));
        self.timers
            .iter()
            .for_each(|(t, q)| digest.add(timer(*t, *q)));
        digest
    }

    /// What is kept is what the state gives: for tests and the simulation.
    pub fn digest_is_right(&self) -> bool {
        self.digest == self.digest_anew()
    }

    /// (planted) A replica whose state is another.
    pub fn spoil(&mut self) {
        self.counters.next_topic += 1;
    }
}
