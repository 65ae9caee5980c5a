//! What cores ask for. Every core of a shard returns the same effects, and an effect names the
//! core or the world it goes to: this is the one place that says so, for the product (where
//! effects travel through mailboxes) and for the simulator (where they travel through its queue).

use super::queue::core::QueueInput;
use super::shard::core::{Comparison, ShardInput};
use super::timer::core::TimerInput;
use crate::model::command::{LockedQueue, QueueOffset};
use crate::model::group::GroupConfig;
use crate::model::outcome::{Outcome, Token};
use crate::model::topic::TopicConfig;
use crate::model::{GroupId, QueueKey, ShardId};
use crate::raft::entry::{AppendBlock, TimerKey};
use crate::raft::members::Members;
use crate::raft::{Fetch, Role};
use crate::storage::{Done, HardState, Job, LogAppend, LogEntry, StateBatch, StateOp};
use bytes::Bytes;

/// Work for the disk. Completions come back to the shard core with the same ticket.
#[derive(Debug, Clone)]
pub enum DiskWork {
    /// Append to the log; done means written, and synced when `sync` is set.
    Append { ticket: u64, append: LogAppend },
    /// State rows with the applied index they belong to. Not synced.
    State {
        ticket: u64,
        batch: StateBatch,
        applied: u64,
    },
    /// Make the state rows written so far durable, then forget log entries below `first`.
    Trim { first: u64, term: u64 },
    /// Replace all that is stored of the shard: the log goes on at `first`, whose predecessor had
    /// `term`. Atomic and durable; told done by the next append.
    Install {
        first: u64,
        term: u64,
        hard_state: HardState,
        ops: Vec<StateOp>,
    },
    /// See [`crate::storage::SnapshotStore::forget`]. Nobody is told: the replica ends.
    Forget { hard_state: HardState, reached: u64 },
    /// Rows of a snapshot that comes in, beside the state. Not synced; nobody is told.
    Stage { batch: StateBatch },
    /// Read log entries for a follower that is behind; [`ShardInput::Fetched`] answers.
    Fetch(Fetch),
    /// Make a base of the state rows, for a follower whose next entries are gone; [`ShardInput::Base`]
    /// answers.
    Base {
        /// The members, should no row say so because they never changed.
        members: Members,
    },
    /// Read this entry for another replica, whose own is bad; [`ShardInput::Copied`] answers.
    Copy { to: u64, index: u64 },
    /// Keep this copy of an entry beside the bad one, durably; [`ShardInput::Mended`] answers.
    Mend { entry: LogEntry },
    /// The store is not to be opened again as it is; see [`crate::storage::LogStore::condemn`].
    Condemn(String),
}

/// Who does work for the disk.
#[derive(Debug)]
pub enum Handed {
    ToWriter(Job),
    /// It only reads.
    ToReaders(DiskWork),
}

impl DiskWork {
    /// Who does it.
    pub fn handed(self, shard: ShardId) -> Handed {
        Handed::ToWriter(match self {
            Self::Append { ticket, append } => Job::Append {
                shard,
                ticket,
                append,
            },
            // The ticket that comes back says up to where rows can be read.
            Self::State { batch, applied, .. } => Job::State {
                shard,
                ticket: applied,
                batch,
                applied,
            },
            Self::Stage { batch } => Job::Stage { batch },
            Self::Trim { first, term } => Job::Trim {
                shard,
                ticket: 0,
                first,
                term,
            },
            Self::Install {
                first,
                term,
                hard_state,
                ops,
            } => Job::Install {
                shard,
                first,
                term,
                hard_state,
                ops,
            },
            Self::Forget {
                hard_state,
                reached,
            } => Job::Forget {
                shard,
                hard_state,
                reached,
            },
            Self::Mend { entry } => Job::Mend { shard, entry },
            Self::Condemn(why) => Job::Condemn(why),
            Self::Fetch(_) | Self::Base { .. } | Self::Copy { .. } => {
                return Handed::ToReaders(self);
            }
        })
    }
}

/// What the writer's word is to the shard core; `None`: nothing.
pub fn written(done: Done) -> Option<ShardInput> {
    Some(match done {
        Done::Appended { ticket, .. } => ShardInput::AppendDone { ticket },
        Done::StateWritten { ticket, .. } => ShardInput::StateDone { applied: ticket },
        Done::Trimmed { .. } => return None,
        Done::Mended { index, .. } => ShardInput::Mended { index },
        Done::Failed { error } => ShardInput::DiskFailed(error.to_string()),
    })
}

/// Something that becomes visible outside the shard's cores.
#[derive(Debug, Clone)]
pub enum Publish {
    Role(Role),
    /// The replica leads and has applied its first entry: it serves in this term. `None` when it
    /// stopped serving.
    Serving(Option<u64>),
    /// A majority followed this leader after it asked with this stamp ([`ShardInput::Confirm`]), and
    /// for so long from then no other replica serves: the followers give others no vote that long,
    /// by clocks that may run somewhat differently, or the one they elect waits.
    Confirmed {
        stamp: u64,
        lease_ms: u64,
    },
    /// This replica holds again whatever a crash of its machine or a damaged store may have taken.
    Recovered,
    /// A snapshot replaced the state. Its queues can be read once [`Publish::Filled`] follows.
    Installed,
    /// All rows of the state can be read again: queues, first and next offset.
    Filled(Vec<(QueueKey, u64, u64)>),
    /// The state has this digest after applying this log index.
    Digest {
        index: u64,
        digest: u64,
    },
    /// States of replicas were compared, with another result than before.
    Compared(Comparison),
    /// The stored copy of an entry is bad; a good one is sought.
    BadEntry {
        index: u64,
    },
    /// No replica has a good copy of this entry: reads go on behind it.
    LostEntry {
        index: u64,
    },
    /// A good copy of this entry is there again.
    Mended {
        index: u64,
    },
    /// This replica only learns, and from `first` to `last` its log holds other entries than the group's:
    /// it is emptied.
    OtherLog {
        first: u64,
        last: u64,
    },
    /// Entries of this replica's log that their leader had answered for alone (ASYNC_MASTER) were
    /// replaced by another leader's.
    AckedTruncated(Truncated),
    Topic(TopicConfig),
    TopicDeleted {
        name: String,
        id: u32,
    },
    Group(GroupConfig),
    GroupDeleted {
        name: String,
        id: u32,
    },
    /// Records became visible. `data` is the entry's data, which `block` points into.
    Appended {
        index: u64,
        at_ms: i64,
        block: AppendBlock,
        data: Bytes,
    },
    /// State rows up to this log index can be read from the store.
    Stored {
        index: u64,
    },
    Offsets {
        group: GroupId,
        offsets: Vec<QueueOffset>,
        reset: bool,
    },
    Locks {
        group: GroupId,
        queues: Vec<LockedQueue>,
        at_ms: i64,
    },
    /// The queue now starts at `min`.
    Trimmed {
        key: QueueKey,
        min: u64,
    },
    /// Storage failed or the replica would diverge: stop it. Final.
    Fatal(String),
}

/// See [`Publish::AckedTruncated`]. Messages of the same entries that nobody had answered for yet
/// are counted too.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Truncated {
    /// First and last log index.
    pub first: u64,
    pub last: u64,
    pub entries: u64,
    pub messages: u64,
    /// Queue, first and last offset.
    pub queues: Vec<(QueueKey, u64, u64)>,
}

/// See the module text.
#[derive(Debug, Clone)]
pub enum Effect {
    ToShard(ShardInput),
    ToQueue(QueueKey, QueueInput),
    ToTimer(TimerInput),
    /// Read these scheduled records and hand them to the timer core.
    LoadScheduled(Vec<(TimerKey, QueueKey)>),
    Disk(DiskWork),
    /// To the same shard's replica on node `to`, where it arrives as [`ShardInput::Message`]. May
    /// be lost, late, doubled or reordered.
    Send {
        to: u64,
        bytes: Bytes,
    },
    Answer(Token, Outcome),
    /// The answer to a proposal, by the id it came with.
    Proposal {
        id: u64,
        result: Result<u64, crate::model::outcome::Refusal>,
    },
    Publish(Publish),
}
