//! Commands of the replicated state machine other than message appends.
//!
//! Appends and timers have a hand-checked layout (`crate::raft::entry`), because a pull returns
//! slices of it; everything here is rare and small and is written with prost.

use super::group::GroupConfig;
use super::topic::TopicConfig;

/// One metadata command. Applied by every replica in log order.
#[derive(Clone, PartialEq, prost::Message)]
pub struct MetaCommand {
    #[prost(oneof = "MetaOp", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9")]
    pub op: Option<MetaOp>,
}

/// The operation of a [`MetaCommand`].
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum MetaOp {
    /// Create the topic or replace its configuration (keeps the id of an existing one).
    #[prost(message, tag = "1")]
    PutTopic(TopicConfig),
    /// Delete the topic, its queues and every group's offsets in it. Absent: no effect.
    #[prost(string, tag = "2")]
    DeleteTopic(String),
    /// Create the group or replace its configuration (keeps the id of an existing one). With
    /// [`GroupConfig::deleted`]: delete it, but keep its offsets for whoever makes it again.
    #[prost(message, tag = "3")]
    PutGroup(GroupConfig),
    /// Delete the group and its offsets.
    #[prost(message, tag = "4")]
    DeleteGroup(DeleteGroup),
    /// Commit consumer offsets of one group.
    #[prost(message, tag = "5")]
    CommitOffsets(CommitOffsets),
    /// Grant, renew or release queue locks of one group.
    #[prost(message, tag = "6")]
    Locks(LockChange),
    /// Drop the log and all index rows up to a log index.
    #[prost(message, tag = "7")]
    Trim(Trim),
    /// Create the topic only when it is not there (auto-creation races are harmless).
    #[prost(message, tag = "8")]
    EnsureTopic(TopicConfig),
    /// Create the group only when it is not there, or was deleted: what an operator set meanwhile
    /// stays.
    #[prost(message, tag = "9")]
    EnsureGroup(GroupConfig),
}

/// See [`MetaOp::DeleteGroup`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct DeleteGroup {
    #[prost(string, tag = "1")]
    pub name: String,
    /// Nothing depends on it: whoever wants to keep offsets puts [`GroupConfig::deleted`].
    #[prost(bool, tag = "2")]
    pub clean_offsets: bool,
}

/// One offset of a [`CommitOffsets`].
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct QueueOffset {
    #[prost(uint32, tag = "1")]
    pub topic: u32,
    #[prost(uint32, tag = "2")]
    pub queue: u32,
    #[prost(uint64, tag = "3")]
    pub offset: u64,
}

/// See [`MetaOp::CommitOffsets`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct CommitOffsets {
    #[prost(uint32, tag = "1")]
    pub group: u32,
    #[prost(message, repeated, tag = "2")]
    pub offsets: Vec<QueueOffset>,
    /// An operator's reset: may move offsets back. Otherwise a smaller offset has no effect (I8).
    #[prost(bool, tag = "3")]
    pub reset: bool,
}

/// One queue of a [`LockChange`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct LockedQueue {
    #[prost(uint32, tag = "1")]
    pub topic: u32,
    #[prost(uint32, tag = "2")]
    pub queue: u32,
    /// Holder; empty releases the lock.
    #[prost(string, tag = "3")]
    pub client: String,
}

/// See [`MetaOp::Locks`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct LockChange {
    #[prost(uint32, tag = "1")]
    pub group: u32,
    #[prost(message, repeated, tag = "2")]
    pub queues: Vec<LockedQueue>,
    /// The entry's stamp, ms: when the lock was asked for last, for people. How long it lives is up
    /// to the leader, by a clock that nobody sets: stamps of different clocks do not measure time.
    #[prost(int64, tag = "3")]
    pub at_ms: i64,
}

/// See [`MetaOp::Trim`]. Everything is in it: where segments end is each replica's own affair, and
/// up to the settings of its node.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Trim {
    /// The proposer's last segment to drop. Read by versions that know nothing else, which drop
    /// their own segments up to this number, and where `first` is 0.
    #[prost(uint64, tag = "1")]
    pub segment: u64,
    /// First log index that stays. 0 in entries of those versions; 1 drops no entry.
    #[prost(uint64, tag = "2")]
    pub first: u64,
    /// Raft term of the entry before `first`.
    #[prost(uint64, tag = "3")]
    pub term: u64,
    /// Smallest offset that stays of each queue that had messages below `first`.
    #[prost(message, repeated, tag = "4")]
    pub queues: Vec<QueueOffset>,
}

impl From<MetaOp> for MetaCommand {
    fn from(op: MetaOp) -> Self {
        Self { op: Some(op) }
    }
}
