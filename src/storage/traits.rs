//! The two small traits behind which the log and the state sit, and the values that cross them.
//! Each has a RocksDB and a simulated implementation and one conformance suite.

use crate::model::ShardId;
use bytes::Bytes;

/// One Raft log entry as stored. The store adds and verifies its own checksum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    pub index: u64,
    pub term: u64,
    /// Raft entry type: 0 normal, 1 and 2 configuration changes.
    pub kind: u8,
    pub data: Bytes,
}

/// What Raft must not forget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HardState {
    pub term: u64,
    pub vote: u64,
    pub commit: u64,
}

/// Work for the log of one shard. All appends handed over in one call reach the disk in one
/// atomic write. Entries replace whatever the log holds from the first one's index on.
#[derive(Debug, Clone)]
pub struct LogAppend {
    pub shard: ShardId,
    pub entries: Vec<LogEntry>,
    pub hard_state: Option<HardState>,
    /// Must be on stable storage before the call returns. One such append makes the whole call sync.
    pub sync: bool,
}

/// State of one shard's log as found at start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogBounds {
    /// First index kept; 1 for a log never trimmed.
    pub first: u64,
    /// Last index, `first - 1` when empty.
    pub last: u64,
    /// Term of the entry before `first` (0 when nothing was trimmed).
    pub trimmed_term: u64,
    /// Largest index known to have been synced. A recovered log that ends before it is corrupt.
    pub synced: u64,
    pub hard_state: HardState,
}

/// A key range or row of the state store. Keys start with the shard number (see `storage::keys`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StateOp {
    Put {
        key: Vec<u8>,
        value: Vec<u8>,
    },
    Delete {
        key: Vec<u8>,
    },
    /// Deletes `from <= key < to`.
    DeleteRange {
        from: Vec<u8>,
        to: Vec<u8>,
    },
}

/// Rows that change together with the applied index: all of them or none survive a crash.
#[derive(Debug, Clone, Default)]
pub struct StateBatch {
    pub ops: Vec<StateOp>,
}

/// Errors of both stores.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum StoreError {
    /// Reads or writes failed. Final for this store handle: never retry a failed sync.
    #[error("storage failed: {0}")]
    Io(String),
    /// Bytes on disk do not match their checksum or cannot be what was written.
    #[error("corrupt: {0}")]
    Corrupt(String),
    /// The disk is full (or the reserve is reached).
    #[error("no space left")]
    NoSpace,
    /// The asked entries were trimmed.
    #[error("trimmed up to {0}")]
    Trimmed(u64),
    /// Another process holds the directory, or the directory is of another version.
    #[error("{0}")]
    Open(String),
}

/// The Raft logs of all shards of a node.
pub trait LogStore {
    /// Where the shard's log begins and ends, and its hard state.
    fn bounds(&self, shard: ShardId) -> Result<LogBounds, StoreError>;
    /// Writes all appends at once, then syncs when any of them wants it. An error is final.
    fn append(&mut self, appends: &[LogAppend]) -> Result<(), StoreError>;
    /// Syncs everything appended so far.
    fn sync(&mut self) -> Result<(), StoreError>;
    /// Entries `from..to` (exclusive), at least one if `from < to`, then up to `max_bytes`.
    /// Verifies checksums; a gap or a mismatch is [`StoreError::Corrupt`].
    fn read(
        &self,
        shard: ShardId,
        from: u64,
        to: u64,
        max_bytes: u64,
    ) -> Result<Vec<LogEntry>, StoreError>;
    /// Forgets entries below `first`, whose predecessor had `term`, deleting whole files. Returns
    /// once the new bound is durable.
    fn trim(&mut self, shard: ShardId, first: u64, term: u64) -> Result<(), StoreError>;
}

/// The state rows of all shards of a node: an ordered map from key to value.
pub trait StateStore {
    /// Writes the batch atomically. Not durable before the next [`StateStore::flush`]; after a
    /// crash the store holds a prefix of the batches written, at least up to the last flush.
    fn write(&mut self, batch: &StateBatch) -> Result<(), StoreError>;
    /// Makes every batch written so far durable (and the log with it, so that state never runs
    /// ahead of the log).
    fn flush(&mut self) -> Result<(), StoreError>;
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;
    /// Up to `limit` rows with `from <= key < to`, ascending.
    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Vec<u8>)>, StoreError>;
    /// The last row with `from <= key < to`.
    fn last(&self, from: &[u8], to: &[u8]) -> Result<Option<(Vec<u8>, Vec<u8>)>, StoreError>;
}
