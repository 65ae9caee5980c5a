//! What cores ask for. Every core of a shard returns the same effects, and an effect names the
//! core or the world it goes to: this is the one place that says so, for the product (where
//! effects travel through mailboxes) and for the simulator (where they travel through its queue).

use super::queue::core::QueueInput;
use super::shard::core::ShardInput;
use super::timer::core::TimerInput;
use crate::model::command::{LockedQueue, QueueOffset};
use crate::model::group::GroupConfig;
use crate::model::outcome::{Outcome, Token};
use crate::model::topic::TopicConfig;
use crate::model::{GroupId, QueueKey};
use crate::raft::entry::{AppendBlock, TimerKey};
use crate::raft::{Fetch, Role};
use crate::storage::{LogAppend, StateBatch};
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
    /// Read log entries for a follower that is behind; [`ShardInput::Fetched`] answers.
    Fetch(Fetch),
}

/// Something that becomes visible outside the shard's cores.
#[derive(Debug, Clone)]
pub enum Publish {
    Role(Role),
    /// The replica leads and has applied its first entry: it serves in this term. `None` when it
    /// stopped serving.
    Serving(Option<u64>),
    /// A majority followed this leader after it asked with this stamp ([`ShardInput::Confirm`]).
    Confirmed {
        stamp: u64,
    },
    /// This replica holds again whatever a crash of its machine may have taken.
    Recovered,
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
