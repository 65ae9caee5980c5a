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
    /// Answer a request.
    Answer {
        request: u64,
        answer: Result<Answer, Refusal>,
    },
}
