//! Commit policies. What each class may lose is written in `docs/operating.md`.

/// Whether a reply waits for a majority of the shard (RocketMQ `brokerRole`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum MasterPolicy {
    #[serde(rename = "SYNC_MASTER")]
    Sync,
    #[serde(rename = "ASYNC_MASTER")]
    Async,
}

/// Whether a reply waits for stable storage (RocketMQ `flushDiskType`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum FlushPolicy {
    #[serde(rename = "SYNC_FLUSH")]
    Sync,
    #[serde(rename = "ASYNC_FLUSH")]
    Async,
}

/// The durability class of one write: decided at the edge, carried with the proposal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AckPolicy {
    pub master: MasterPolicy,
    pub flush: FlushPolicy,
}

impl AckPolicy {
    /// The default of a new cluster.
    pub const STRICTEST: Self = Self {
        master: MasterPolicy::Sync,
        flush: FlushPolicy::Sync,
    };
    /// What a message that does not wait (`WAIT=false`) gets.
    pub const LEADER_APPENDED: Self = Self {
        master: MasterPolicy::Async,
        flush: FlushPolicy::Async,
    };
}
