//! What a group's core is asked, answers and wants done.

use super::offsets::Key;
use super::types::Committed;
use crate::actors::link::{ConnId, Notice};
use crate::model::command::MetaOp;
use crate::model::outcome::Refusal;
use crate::model::GroupId;
use std::collections::BTreeMap;

/// Answer to a request that waited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Committed(Committed),
    Offset(Option<u64>),
    Offsets(BTreeMap<Key, u64>),
    Reset,
    Locked(Vec<Key>),
    Unlocked,
    /// Whether any lock of the group lives.
    AnyLock(bool),
}

/// A request that needs the group's replicated state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    Query {
        key: Key,
    },
    All,
    Reset {
        topic: String,
        offsets: Vec<(Key, u64)>,
    },
    Lock {
        client: String,
        keys: Vec<Key>,
    },
    Unlock {
        client: String,
        keys: Vec<Key>,
    },
    /// Whether a member holds a lock. Locks that another leader gave count once they are renewed,
    /// which clients do every 20 s.
    AnyLock,
    /// A commit that is taken only when the group has an offset in the queue: the quota of offsets is
    /// used up. `owed`: somebody waits for the answer.
    Commit {
        key: Key,
        offset: u64,
        owed: bool,
    },
}

/// What the shell has to do, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Propose to the shard and report with [`super::core::GroupCore::proposal_done`].
    Propose { id: u64, op: MetaOp },
    /// Read the group's state from the shard and report with [`super::core::GroupCore::loaded`].
    Load { id: u64, group: GroupId },
    /// Tell members.
    Notify { conns: Vec<ConnId>, notice: Notice },
    /// Publish members and subscriptions for readers.
    PublishMembers,
    /// Publish the pending resets for readers.
    PublishResets,
    /// What held pulls of the group rest on changed: see [`ClientLink::recheck_pulls`].
    ///
    /// [`ClientLink::recheck_pulls`]: crate::actors::link::ClientLink::recheck_pulls
    RecheckPulls,
    /// So many queues were left out because of a quota.
    LeftOut(u64),
    /// Answer a request.
    Answer {
        request: u64,
        answer: Result<Answer, Refusal>,
    },
}
