//! The replicated state machine of a shard: `apply(entry)` gives rows for the state store and
//! events for the other cores, and is a pure function of the state before and the entry. Clocks
//! were read by the leader and stand in the entry.

mod apply;
mod base;
mod digest;
mod held;
mod load;
mod segments;
mod stand_in;
mod trim;

pub use base::{Base, BaseOfRows, KINDS as BASE_KINDS};
pub use digest::VERSION as DIGEST_VERSION;
pub use held::Holdings;
pub use load::{load, LoadError};

use crate::model::group::GroupConfig;
use crate::model::topic::TopicConfig;
use crate::model::{QueueKey, ShardId};
use crate::raft::entry::{AppendBlock, TimerKey};
use crate::raft::members::Members;
use crate::storage::keys::counters::Counters;
use crate::storage::keys::lock::LockRow;
use crate::storage::keys::log_segment::LogSegment;
use crate::storage::keys::queue::QueueMeta;
use crate::storage::{keys, StateOp};
use std::collections::{BTreeMap, BTreeSet};

/// An entry that cannot be applied: this replica must stop rather than diverge (design §3.3).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("entry {index} does not follow from the state: {what}")]
pub struct ApplyError {
    pub index: u64,
    pub what: String,
}

/// What applying an entry changed, in order.
#[derive(Debug, Clone)]
pub enum Event {
    Appended(AppendBlock),
    /// The topic was gone when the entry was applied; nothing was stored.
    AppendDropped(AppendBlock),
    TimerAdded {
        timer: TimerKey,
        target: QueueKey,
    },
    TimerFired(TimerKey),
    Topic(TopicConfig),
    TopicDeleted {
        name: String,
        id: u32,
    },
    /// See [`GroupConfig::deleted`].
    Group(GroupConfig),
    GroupDeleted {
        name: String,
        id: u32,
    },
    Offsets {
        group: u32,
        offsets: Vec<crate::model::command::QueueOffset>,
        reset: bool,
    },
    Locks {
        group: u32,
        queues: Vec<crate::model::command::LockedQueue>,
        at_ms: i64,
    },
    /// Queues that start later now, and the first log index still needed, with the term before it;
    /// `None` when no entry goes.
    Trimmed {
        queues: Vec<(QueueKey, u64)>,
        cut: Option<(u64, u64)>,
    },
}

/// What this node's settings say about the rows beside the replicated state. Replicas need not
/// agree on it: nothing of it may reach what [`Machine::digest`] covers.
#[derive(Debug, Clone, Copy)]
pub struct MachineOptions {
    /// A log segment ends with the entry that fills it.
    pub segment_bytes: u64,
}

impl Default for MachineOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
        }
    }
}

/// See the module text.
#[derive(Debug)]
pub struct Machine {
    shard: ShardId,
    options: MachineOptions,
    /// Last applied index and its term.
    pub applied: (u64, u64),
    /// The log index of the snapshot this replica began with; 0 without one. See `base`.
    base_at: u64,
    /// Largest leader time seen: stamps of this shard never go back.
    pub last_at_ms: i64,
    counters: Counters,
    topics: BTreeMap<String, TopicConfig>,
    topic_names: BTreeMap<u32, String>,
    groups: BTreeMap<String, GroupConfig>,
    group_names: BTreeMap<u32, String>,
    queues: BTreeMap<QueueKey, QueueMeta>,
    offsets: BTreeMap<(u32, u32, u32), u64>,
    locks: BTreeMap<(u32, u32, u32), LockRow>,
    timers: BTreeMap<TimerKey, QueueKey>,
    timer_indices: BTreeSet<(u64, u32)>,
    segments: segments::Segments,
    /// Kept with every change of topics, groups, queues, offsets, locks and timers.
    digest: digest::Digest,
    /// Kept with every change of topics and groups.
    held: held::Held,
    /// The members of the group as of the applied entry.
    pub members: Members,
}

impl Machine {
    /// An empty shard.
    pub fn new(shard: ShardId, options: MachineOptions) -> Self {
        Self {
            shard,
            options,
            applied: (0, 0),
            base_at: 0,
            last_at_ms: 0,
            counters: Counters {
                next_topic: 1,
                next_group: 1,
            },
            topics: BTreeMap::new(),
            topic_names: BTreeMap::new(),
            groups: BTreeMap::new(),
            group_names: BTreeMap::new(),
            queues: BTreeMap::new(),
            offsets: BTreeMap::new(),
            locks: BTreeMap::new(),
            timers: BTreeMap::new(),
            timer_indices: BTreeSet::new(),
            segments: segments::Segments::default(),
            digest: digest::Digest::default(),
            held: held::Held::default(),
            members: Members::default(),
        }
    }

    /// The row with the members.
    pub fn members_row(&self) -> StateOp {
        StateOp::Put {
            key: keys::members::key(self.shard),
            value: keys::members::encode(&self.members),
        }
    }
    /// Offsets of a queue; zeros for one that never had a message.
    pub fn queue(&self, key: QueueKey) -> QueueMeta {
        self.queues.get(&key).copied().unwrap_or(QueueMeta {
            next: 0,
            min: 0,
            segment: 0,
        })
    }
    /// All queues that ever had a message.
    pub fn queues(&self) -> impl Iterator<Item = (QueueKey, QueueMeta)> + '_ {
        self.queues.iter().map(|(k, m)| (*k, *m))
    }
    /// The topic with this id exists.
    pub fn has_topic(&self, id: u32) -> bool {
        self.topic_names.contains_key(&id)
    }
    /// All topics by name.
    pub fn topics(&self) -> impl Iterator<Item = &TopicConfig> {
        self.topics.values()
    }
    /// All groups by name, also those that are deleted but for their offsets.
    pub fn groups(&self) -> impl Iterator<Item = &GroupConfig> {
        self.groups.values()
    }
    /// Committed offset of a group in a queue.
    pub fn offset(&self, group: u32, key: QueueKey) -> Option<u64> {
        self.offsets.get(&(group, key.topic.0, key.queue)).copied()
    }
    /// Committed offsets of a group: ((topic id, queue), offset).
    pub fn offsets_of(&self, group: u32) -> Vec<((u32, u32), u64)> {
        self.offsets
            .range((group, 0, 0)..=(group, u32::MAX, u32::MAX))
            .map(|((_, t, q), o)| ((*t, *q), *o))
            .collect()
    }
    /// Locks of a group: ((topic id, queue), client, granted at).
    pub fn locks_of(&self, group: u32) -> Vec<((u32, u32), String, i64)> {
        self.locks
            .range((group, 0, 0)..=(group, u32::MAX, u32::MAX))
            .map(|((_, t, q), l)| ((*t, *q), l.client.clone(), l.at_ms))
            .collect()
    }
    /// Timers not fired yet.
    pub fn timers(&self) -> impl Iterator<Item = (TimerKey, QueueKey)> + '_ {
        self.timers.iter().map(|(k, q)| (*k, *q))
    }
    /// The closed segments and the open one last, oldest first.
    pub fn segments(&self) -> Vec<(u64, LogSegment)> {
        self.segments.all()
    }
    /// The newest segment that retention may drop now: closed, holding no waiting timer, and either
    /// older than `before_ms` or beyond `max_bytes` (0: no limit). `None`: nothing to do.
    pub fn droppable(&self, before_ms: i64, max_bytes: u64) -> Option<u64> {
        self.segments.droppable(before_ms, max_bytes, self.floor())
    }
    /// What [`Machine::digest`] covers, as text.
    pub fn describe(&self) -> String {
        // Segments, and in which of them a queue was touched last, are this node's own.
        let queues: Vec<_> = self
            .queues
            .iter()
            .map(|(k, m)| (k, m.min, m.next))
            .collect();
        format!(
            "{:?}{:?}{:?}{:?}{:?}{:?}{:?}",
            self.topics, self.groups, queues, self.offsets, self.locks, self.timers, self.members
        )
    }
}

/// Rows and events of one entry.
#[derive(Debug, Default)]
pub struct Applied {
    pub rows: Vec<StateOp>,
    pub events: Vec<Event>,
    /// The leader's clock in the entry; 0 for entries without commands.
    pub at_ms: i64,
}

#[cfg(test)]
mod kept_tests;
