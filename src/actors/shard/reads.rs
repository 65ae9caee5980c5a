//! Reads behind the tail from the node's store; what is found bad is told.

use super::core::ShardInput;
use super::damage::Damage;
use super::handle::Boundary;
use super::recent::{Recent, Scheduled};
use super::views::Views;
use crate::model::append::{ReadBatch, ReadSpec};
use crate::model::{Position, QueueKey, ShardId};
use crate::storage::keys::index::IndexRow;
use crate::storage::{LogEntry, Reader, RecordSource, StoreError};
use bytes::Bytes;
use std::sync::OnceLock;

/// Told what was found bad.
type TellBad = Box<dyn Fn(ShardInput) + Send + Sync>;

/// Reader of one shard's stored records.
pub struct Reads {
    shard: ShardId,
    recent: Recent,
    store: Telling,
}

/// A store that tells of what was found bad in it.
struct Telling {
    reader: Reader,
    tell_bad: OnceLock<TellBad>,
}

impl Telling {
    fn told<T>(&self, found: Result<T, StoreError>) -> Result<T, StoreError> {
        let input = match &found {
            Err(StoreError::BadEntry { index, .. }) => ShardInput::BadEntry { index: *index },
            Err(StoreError::Corrupt(why)) => ShardInput::BadState(why.clone()),
            _ => return found,
        };
        if let Some(tell) = self.tell_bad.get() {
            tell(input);
        }
        found
    }
}

impl RecordSource for Telling {
    fn read_entry(&self, shard: ShardId, index: u64) -> Result<Option<LogEntry>, StoreError> {
        self.told(self.reader.read_entry(shard, index))
    }
    fn index_rows_of(
        &self,
        shard: ShardId,
        queue: QueueKey,
        from_offset: u64,
        limit: (usize, usize),
    ) -> Result<Vec<(u64, IndexRow)>, StoreError> {
        self.told(self.reader.index_rows_of(shard, queue, from_offset, limit))
    }
    fn index_row_at_or_before(
        &self,
        shard: ShardId,
        queue: QueueKey,
        offset: u64,
    ) -> Result<Option<(u64, IndexRow)>, StoreError> {
        self.told(self.reader.index_row_at_or_before(shard, queue, offset))
    }
}

impl Reads {
    /// Reads the shard through `reader`.
    pub fn new(shard: ShardId, reader: Reader) -> Self {
        Self {
            shard,
            recent: Recent::new(shard),
            store: Telling {
                reader,
                tell_bad: OnceLock::new(),
            },
        }
    }

    /// See [`Reader::memory`].
    pub fn memory(&self) -> (u64, u64) {
        self.store.reader.memory()
    }

    /// Bytes of the shard's log files.
    pub fn log_bytes(&self) -> Result<u64, StoreError> {
        Ok(self.store.reader.log_files(self.shard)?.1)
    }

    /// What was seen of bad entries.
    pub fn damage(&self) -> &Damage {
        self.recent.damage()
    }

    /// Whoever seeks good copies of bad entries.
    pub(super) fn tell_bad(&self, tell: TellBad) {
        let _ = self.store.tell_bad.set(tell);
    }

    /// See [`Recent::read_cached`].
    pub fn read_cached(&self, key: QueueKey, offset: u64, spec: &ReadSpec) -> Option<ReadBatch> {
        self.recent.read_cached(key, offset, spec)
    }

    /// See [`Recent::read`].
    pub fn read(
        &self,
        key: QueueKey,
        offset: u64,
        max: u64,
        spec: &ReadSpec,
    ) -> Result<ReadBatch, StoreError> {
        self.recent.read(&self.store, key, offset, max, spec)
    }

    /// See [`Recent::record`].
    pub fn record(&self, position: Position) -> Result<Option<Bytes>, StoreError> {
        self.recent.record(&self.store, position)
    }

    /// See [`Recent::scheduled`].
    pub fn scheduled(&self, position: Position) -> Result<Scheduled, StoreError> {
        self.recent.scheduled(&self.store, position)
    }

    /// See [`super::ShardHandle::store_time`].
    pub fn store_time(
        &self,
        views: &Views,
        key: QueueKey,
        offset: u64,
    ) -> Result<Option<i64>, StoreError> {
        self.recent.store_time(&self.store, views, key, offset)
    }

    /// See [`super::ShardHandle::offset_by_time`].
    pub fn offset_by_time(
        &self,
        views: &Views,
        key: QueueKey,
        ts_ms: i64,
        boundary: Boundary,
    ) -> Result<u64, StoreError> {
        self.recent
            .offset_by_time(&self.store, views, key, ts_ms, boundary)
    }
}
