//! How actors reach connected clients without knowing the protocol, and other nodes without
//! knowing the network.

use crate::model::ShardId;
use bytes::Bytes;

/// One client connection of this node; never reused while the process lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId(pub u64);

/// Something a group tells its members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// Members or subscriptions changed: clients should rebalance now.
    MembersChanged { group: String },
    /// An operator reset offsets of a topic: (queue, offset) pairs.
    OffsetsReset {
        group: String,
        topic: String,
        offsets: Vec<(u32, u64)>,
    },
}

/// Sends notices to clients. Implemented by the gateway; must not block.
pub trait ClientLink: Send + Sync {
    /// Best effort: a closed connection is not an error.
    fn notify(&self, conn: ConnId, notice: &Notice);

    /// A group registered other filters or was deleted, and readers see that: its held pulls that
    /// rest on what was before end, so that their clients ask again. Not for a reset of offsets:
    /// clients that are told of it begin anew by themselves, and would do so twice.
    fn recheck_pulls(&self, group: &str);
}

/// Sends messages to the replicas of a shard on other nodes. Must not block.
pub trait ReplicaLink: Send + Sync {
    /// `false` when it was dropped.
    fn send(&self, shard: ShardId, to: u64, bytes: Bytes) -> bool;
    /// A number that changes, at least once a tick of the shards, while what comes from other nodes
    /// is handed on as it comes. `None`: not known.
    fn pulse(&self) -> Option<u64> {
        None
    }
}

/// A node without others.
pub struct NoReplicas;

impl ReplicaLink for NoReplicas {
    fn send(&self, _: ShardId, _: u64, _: Bytes) -> bool {
        false
    }
}
