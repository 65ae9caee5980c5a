//! The two small traits behind which the log and the state sit, and the values that cross them.
//! Each has a RocksDB and a simulated implementation and one conformance suite.

use super::keys::index::IndexRow;
use crate::model::{QueueKey, ShardId};
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

/// What a replica must regain before it counts as one that holds all it ever acknowledged. Kept
/// with the store until [`LogStore::regained`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Standing {
    /// Everything is there.
    #[default]
    Whole,
    /// The machine stopped with unsynced entries written: those behind `kept` may be gone.
    Unsynced { kept: u64 },
    /// The store is new, or lost what had been synced, term and vote perhaps with it. The log ends
    /// at `kept` and once reached `reached` at least.
    Forgotten { kept: u64, reached: u64 },
}

/// What an opening found missing from a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// The log ends here; whatever came behind is gone.
    pub kept: u64,
    /// The last index known to have been there; 0 when it is not known.
    pub reached: u64,
    /// How it was seen.
    pub why: String,
}

/// Key and value of a state row.
pub type Row = (Vec<u8>, Vec<u8>);

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
    /// One entry of a log cannot be read as it was written, and no mended copy is here. Others can.
    #[error("corrupt: log entry {index}: {why}")]
    BadEntry { index: u64, why: String },
    /// The disk is full (or the reserve is reached).
    #[error("no space left")]
    NoSpace,
    /// The asked entries were trimmed: this is the last index that is gone.
    #[error("trimmed up to {0}")]
    Trimmed(u64),
    /// Another process holds the directory, or the directory is of another version.
    #[error("{0}")]
    Open(String),
}

impl StoreError {
    /// What was written is not what is read.
    pub fn is_corrupt(&self) -> bool {
        matches!(self, Self::Corrupt(_) | Self::BadEntry { .. })
    }
}

/// See [`LogStore::sync_apart`].
pub type SyncTask = Box<dyn FnOnce() -> Result<(), StoreError> + Send>;

/// The Raft logs of all shards of a node.
pub trait LogStore {
    /// Where the shard's log begins and ends, and its hard state.
    fn bounds(&self, shard: ShardId) -> Result<LogBounds, StoreError>;
    /// Writes all appends at once, then syncs when any of them wants it or replaces entries. An error is final, but
    /// for appends that cannot follow what is there (a gap, or entries already trimmed): these
    /// are refused with [`StoreError::Io`] before anything is written.
    ///
    /// After a crash a prefix of the appends of all shards survives, at least up to the last
    /// sync, each append wholly or not at all.
    fn append(&mut self, appends: &[LogAppend]) -> Result<(), StoreError>;
    /// Nobody waits for a write: the store may make later ones cheaper.
    fn rest(&mut self) {}
    /// Syncs everything appended so far.
    fn sync(&mut self) -> Result<(), StoreError>;
    /// A sync of everything appended so far, which another thread may do while appends go on; its
    /// result comes to [`LogStore::synced_apart`] before another is asked for. `None`: there are
    /// none such.
    fn sync_apart(&mut self) -> Option<SyncTask> {
        None
    }
    /// The end of a [`LogStore::sync_apart`]. An error is final.
    fn synced_apart(&mut self, result: Result<(), StoreError>) -> Result<(), StoreError> {
        result
    }
    /// Entries `from..to` (exclusive), at least one if `from < to`, then up to `max_bytes` of data.
    /// What lies beyond the last entry is left out.
    /// Verifies checksums: entries before one that is missing or does not match are given, and when it
    /// is the first one asked for, [`StoreError::BadEntry`].
    fn read(
        &self,
        shard: ShardId,
        from: u64,
        to: u64,
        max_bytes: u64,
    ) -> Result<Vec<LogEntry>, StoreError>;
    /// An entry as it lies there, although its checksum does not match; `None` where nothing is found that has
    /// its length.
    fn read_unverified(&self, _shard: ShardId, _index: u64) -> Option<LogEntry> {
        None
    }
    /// Forgets entries below `first`, whose predecessor had `term`, deleting whole files. Returns
    /// once the new bound is durable; nothing happens when `first` is not above the present one.
    /// State rows are made durable before, so that no entry is forgotten that a replay after a
    /// crash would need. With `first` behind the end the log is empty afterwards and goes on there.
    fn trim(&mut self, shard: ShardId, first: u64, term: u64) -> Result<(), StoreError>;
    /// Keeps a copy of a committed entry, got from another replica, for reads that find the own one bad.
    /// Durable once it returns. Ignored outside the log's bounds.
    fn mend(&mut self, shard: ShardId, entry: &LogEntry) -> Result<(), StoreError>;
    /// What the shard's replica has to regain.
    fn standing(&self, _shard: ShardId) -> Standing {
        Standing::Whole
    }
    /// The replica holds everything again.
    fn regained(&mut self, _shard: ShardId) -> Result<(), StoreError> {
        Ok(())
    }
    /// What this store holds cannot be read: the next opening puts it aside. False when nobody else has it.
    fn condemn(&self, _why: &str) -> bool {
        false
    }
    /// Fails when the store is known to take no more writes.
    fn health(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// Both stores of a node, for what concerns them together.
pub trait SnapshotStore: LogStore + StateStore {
    /// Replaces all that is there of a shard, atomically and durably: the log is empty and goes on
    /// at `at.0`, whose predecessor had the term `at.1`; the state consists of what `ops` make.
    fn install(
        &mut self,
        shard: ShardId,
        at: (u64, u64),
        hard_state: HardState,
        ops: &[StateOp],
    ) -> Result<(), StoreError>;

    /// Forgets all that is there of a shard, atomically and durably: its log is another than the group's, and
    /// others fill it anew. What is kept of it is the hard state, as given, and that it reached `reached`.
    fn forget(
        &mut self,
        shard: ShardId,
        hard_state: HardState,
        _reached: u64,
    ) -> Result<(), StoreError> {
        self.install(shard, (1, 0), hard_state, &[all_rows(shard)])
    }
}

/// Where stored records are read from.
pub trait RecordSource {
    /// One entry; `None` above the last one, [`StoreError::Trimmed`] below the first one.
    fn read_entry(&self, shard: ShardId, index: u64) -> Result<Option<LogEntry>, StoreError>;
    /// Index rows of the queue with their base offsets, ascending: the one that holds `from_offset`, if any,
    /// and those above it. They end with the row that makes them `limit.0` or name `limit.1` records.
    fn index_rows_of(
        &self,
        shard: ShardId,
        queue: QueueKey,
        from_offset: u64,
        limit: (usize, usize),
    ) -> Result<Vec<(u64, IndexRow)>, StoreError>;
    /// The index row of the queue with the largest base offset not above `offset`, and that base.
    /// It need not reach up to `offset`.
    fn index_row_at_or_before(
        &self,
        shard: ShardId,
        queue: QueueKey,
        offset: u64,
    ) -> Result<Option<(u64, IndexRow)>, StoreError>;
}

/// Deletes the state rows of a shard.
pub(super) fn all_rows(shard: ShardId) -> StateOp {
    let (from, to) = super::keys::all_of_shard(shard);
    StateOp::DeleteRange { from, to }
}

/// Whether the appends can follow what the logs hold: entries of an append without a gap, not
/// below the first index kept and not behind the next one. `bounds` is asked for each shard once.
pub fn check_appends(
    appends: &[LogAppend],
    bounds: impl Fn(ShardId) -> Result<LogBounds, StoreError>,
) -> Result<(), StoreError> {
    let mut ends: Vec<(ShardId, u64, u64)> = Vec::with_capacity(appends.len().min(64));
    for append in appends {
        let at = match ends.iter().position(|(shard, _, _)| *shard == append.shard) {
            Some(at) => at,
            None => {
                let found = bounds(append.shard)?;
                ends.push((append.shard, found.first, found.last));
                ends.len() - 1
            }
        };
        let (shard, first, last) = &mut ends[at];
        let Some(start) = append.entries.first().map(|e| e.index) else {
            continue;
        };
        if start < *first || start > *last + 1 {
            return Err(StoreError::Io(format!(
                "append of shard {} at {start} does not follow the log {first}..={last}",
                shard.0
            )));
        }
        if append
            .entries
            .iter()
            .zip(start..)
            .any(|(entry, index)| entry.index != index)
        {
            return Err(StoreError::Io(format!(
                "append of shard {} at {start} has a gap",
                shard.0
            )));
        }
        *last = start + append.entries.len() as u64 - 1;
    }
    Ok(())
}

/// The state rows of all shards of a node: an ordered map from key to value.
pub trait StateStore {
    /// Writes the batch atomically. Not durable before the next [`StateStore::flush`]; after a
    /// crash the store holds a prefix of the batches written, at least up to the last flush.
    fn write(&mut self, batch: &StateBatch) -> Result<(), StoreError>;
    /// Writes all batches, atomically together or one after the other.
    fn write_all(&mut self, batches: &[StateBatch]) -> Result<(), StoreError> {
        batches.iter().try_for_each(|batch| self.write(batch))
    }
    /// Makes every batch written so far durable (and the log with it, so that state never runs
    /// ahead of the log).
    fn flush(&mut self) -> Result<(), StoreError>;
    /// Starts what [`StateStore::flush`] does and need not wait for its end.
    fn flush_begin(&mut self) -> Result<(), StoreError> {
        self.flush()
    }
    /// Makes everything durable and refuses writes from then on.
    fn close(&mut self) -> Result<(), StoreError> {
        self.flush()
    }
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;
    /// Up to `limit` rows with `from <= key < to`, ascending.
    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Row>, StoreError>;
    /// The last row with `from <= key < to`.
    fn last(&self, from: &[u8], to: &[u8]) -> Result<Option<Row>, StoreError>;
}
