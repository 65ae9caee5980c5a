//! Reading, from any thread.

use super::{cf_error, map_error, CF_META, CF_STATE};
use crate::model::{QueueKey, ShardId};
use crate::storage::keys::index::{self, IndexRow};
use crate::storage::{entry, LogEntry, Row, StoreError};
use rocksdb::{ColumnFamily, ReadOptions, DB};
use rustc_hash::FxHashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

/// What the writer has published about one shard's log.
pub(super) struct ShardView {
    pub cf: String,
    pub first: AtomicU64,
    pub last: AtomicU64,
}

/// The database and what readers need to know. The last one to drop it closes the database.
pub(super) struct Shared {
    pub db: DB,
    pub shards: FxHashMap<u32, ShardView>,
    /// Dropped after `db`: the directory stays ours until the database is closed.
    pub dir: super::dir::DataDir,
}

impl Shared {
    pub fn cf(&self, name: &str) -> Result<&ColumnFamily, StoreError> {
        self.db.cf_handle(name).ok_or_else(|| cf_error(name))
    }

    pub fn view(&self, shard: ShardId) -> Result<&ShardView, StoreError> {
        self.shards
            .get(&shard.0)
            .ok_or_else(|| StoreError::Io(format!("shard {} is not open here", shard.0)))
    }
}

/// A handle for reads that may be cloned and used from many threads. It sees what has been
/// written, synced or not; whether a reader may be shown it is the caller's concern.
#[derive(Clone)]
pub struct Reader {
    pub(super) shared: Arc<Shared>,
}

impl Reader {
    /// First and last index of the shard's log, `last = first - 1` when it is empty.
    pub fn log_range(&self, shard: ShardId) -> Result<(u64, u64), StoreError> {
        let view = self.shared.view(shard)?;
        Ok((
            view.first.load(Ordering::Acquire),
            view.last.load(Ordering::Acquire),
        ))
    }

    /// One entry; `None` above the last one, [`StoreError::Trimmed`] below the first one.
    pub fn read_entry(&self, shard: ShardId, index: u64) -> Result<Option<LogEntry>, StoreError> {
        let view = self.shared.view(shard)?;
        check_first(view, index)?;
        if index > view.last.load(Ordering::Acquire) {
            return Ok(None);
        }
        let cf = self.shared.cf(&view.cf)?;
        let mut options = ReadOptions::default();
        // The entry's own checksum covers its index and all that is in it.
        options.set_verify_checksums(false);
        match self
            .shared
            .db
            .get_pinned_cf_opt(cf, index.to_be_bytes(), &options)
            .map_err(map_error)?
        {
            Some(stored) => entry::decode(index, &stored).map(Some),
            None => self.missing(view, shard, index).map(|()| None),
        }
    }

    /// Entries `from..to`, at least one if there is one, then up to `max_bytes` of data. What
    /// lies above the last entry is left out.
    pub fn read_entries(
        &self,
        shard: ShardId,
        from: u64,
        to: u64,
        max_bytes: u64,
    ) -> Result<Vec<LogEntry>, StoreError> {
        if from >= to {
            return Ok(Vec::new());
        }
        let view = self.shared.view(shard)?;
        check_first(view, from)?;
        let end = to.min(view.last.load(Ordering::Acquire).saturating_add(1));
        if from >= end {
            return Ok(Vec::new());
        }
        if end - from == 1 {
            return Ok(self.read_entry(shard, from)?.into_iter().collect());
        }
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(end.to_be_bytes());
        let mut rows = self
            .shared
            .db
            .raw_iterator_cf_opt(self.shared.cf(&view.cf)?, options);
        rows.seek(from.to_be_bytes());
        let mut entries = Vec::new();
        let mut bytes = 0u64;
        for index in from..end {
            let found = rows.item().filter(|(key, _)| *key == index.to_be_bytes());
            let Some((_, stored)) = found else {
                rows.status().map_err(map_error)?;
                self.missing(view, shard, index)?;
                break;
            };
            bytes += stored.len().saturating_sub(entry::HEADER) as u64;
            if bytes > max_bytes && !entries.is_empty() {
                break;
            }
            entries.push(entry::decode(index, stored)?);
            rows.next();
        }
        Ok(entries)
    }

    /// An entry within the bounds was not there. Right when it was trimmed or cut off meanwhile.
    fn missing(&self, view: &ShardView, shard: ShardId, index: u64) -> Result<(), StoreError> {
        check_first(view, index)?;
        if index > view.last.load(Ordering::Acquire) {
            return Ok(());
        }
        Err(StoreError::Corrupt(format!(
            "log of shard {} misses entry {index}",
            shard.0
        )))
    }

    /// The value of a state row.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let cf = self.shared.cf(CF_STATE)?;
        let value = self.shared.db.get_pinned_cf(cf, key).map_err(map_error)?;
        Ok(value.map(|v| v.to_vec()))
    }

    /// Calls `row` with the state rows `from <= key < to`, ascending, until it returns `false`.
    pub fn for_each(
        &self,
        from: &[u8],
        to: &[u8],
        mut row: impl FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        if from >= to {
            return Ok(());
        }
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(to);
        let mut rows = self
            .shared
            .db
            .raw_iterator_cf_opt(self.shared.cf(CF_STATE)?, options);
        rows.seek(from);
        while let Some((key, value)) = rows.item() {
            if !row(key, value) {
                return Ok(());
            }
            rows.next();
        }
        rows.status().map_err(map_error)
    }

    /// Up to `limit` state rows with `from <= key < to`, ascending.
    pub fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Row>, StoreError> {
        let mut out = Vec::new();
        if limit > 0 {
            self.for_each(from, to, |key, value| {
                out.push((key.to_vec(), value.to_vec()));
                out.len() < limit
            })?;
        }
        Ok(out)
    }

    /// The last state row with `from <= key < to`.
    pub fn last(&self, from: &[u8], to: &[u8]) -> Result<Option<Row>, StoreError> {
        if from >= to {
            return Ok(None);
        }
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(from);
        options.set_iterate_upper_bound(to);
        let mut rows = self
            .shared
            .db
            .raw_iterator_cf_opt(self.shared.cf(CF_STATE)?, options);
        rows.seek_to_last();
        let found = rows
            .item()
            .map(|(key, value)| (key.to_vec(), value.to_vec()));
        rows.status().map_err(map_error)?;
        Ok(found)
    }

    /// The index row of the queue with the largest base offset not above `offset`, and that base.
    /// It need not reach up to `offset`.
    pub fn index_row_at_or_before(
        &self,
        shard: ShardId,
        queue: QueueKey,
        offset: u64,
    ) -> Result<Option<(u64, IndexRow)>, StoreError> {
        let (from, end) = index::queue_range(shard, queue);
        let to = offset
            .checked_add(1)
            .map_or(end, |next| index::key(shard, queue, next));
        match self.last(&from, &to)? {
            Some((key, value)) => Ok(Some((base_of(&key)?, IndexRow::decode(&value)?))),
            None => Ok(None),
        }
    }

    /// Up to `limit` index rows of the queue with their base offsets, ascending: the one that
    /// holds `from_offset`, if any, and those above it.
    pub fn index_rows(
        &self,
        shard: ShardId,
        queue: QueueKey,
        from_offset: u64,
        limit: usize,
    ) -> Result<Vec<(u64, IndexRow)>, StoreError> {
        self.index_rows_of(shard, queue, from_offset, (limit, usize::MAX))
    }

    /// [`Reader::index_rows`] until they name so many records.
    pub fn index_rows_of(
        &self,
        shard: ShardId,
        queue: QueueKey,
        from_offset: u64,
        (limit, records): (usize, usize),
    ) -> Result<Vec<(u64, IndexRow)>, StoreError> {
        let mut out = Vec::new();
        let mut named = 0;
        if limit == 0 {
            return Ok(out);
        }
        let (low, end) = index::queue_range(shard, queue);
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(low.as_slice());
        options.set_iterate_upper_bound(end);
        let mut rows = self
            .shared
            .db
            .raw_iterator_cf_opt(self.shared.cf(CF_STATE)?, options);
        rows.seek_for_prev(index::key(shard, queue, from_offset));
        if !rows.valid() {
            rows.status().map_err(map_error)?;
            rows.seek(&low);
        }
        while let Some((key, value)) = rows.item() {
            let base = base_of(key)?;
            let row = IndexRow::decode(value)?;
            if base.saturating_add(row.items.len() as u64) > from_offset {
                named += row.items.len();
                out.push((base, row));
                if out.len() == limit || named >= records {
                    return Ok(out);
                }
            }
            rows.next();
        }
        rows.status().map_err(map_error)?;
        Ok(out)
    }

    /// How many errors RocksDB has met in its background work. Any means that it takes no more
    /// writes.
    pub fn background_errors(&self) -> u64 {
        let errors = self
            .shared
            .db
            .property_int_value(rocksdb::properties::BACKGROUND_ERRORS);
        errors.ok().flatten().unwrap_or(0)
    }

    /// Bytes in the cache of blocks, and in memtables, of the whole store.
    pub fn memory(&self) -> (u64, u64) {
        let db = &self.shared.db;
        let cache = db.property_int_value(rocksdb::properties::BLOCK_CACHE_USAGE);
        let logs = self.shared.shards.values().map(|view| view.cf.as_str());
        let memtables = logs.chain([CF_STATE, CF_META]).filter_map(|name| {
            let cf = self.shared.cf(name).ok()?;
            let size = db.property_int_value_cf(cf, rocksdb::properties::SIZE_ALL_MEM_TABLES);
            size.ok().flatten()
        });
        (cache.ok().flatten().unwrap_or(0), memtables.sum())
    }

    /// Bytes of live files on disk, without the WAL.
    pub fn disk_bytes(&self) -> Result<u64, StoreError> {
        let files = self.shared.db.live_files().map_err(map_error)?;
        Ok(files.iter().map(|f| f.size as u64).sum())
    }

    /// Number and bytes of the shard's live log files.
    pub fn log_files(&self, shard: ShardId) -> Result<(usize, u64), StoreError> {
        let view = self.shared.view(shard)?;
        let files = self.shared.db.live_files().map_err(map_error)?;
        let own = files.iter().filter(|f| f.column_family_name == view.cf);
        Ok(own.fold((0, 0), |(n, bytes), f| (n + 1, bytes + f.size as u64)))
    }

    /// Total and available bytes of the file system that holds the data.
    pub fn space(&self) -> Result<(u64, u64), StoreError> {
        super::dir::disk_space(self.shared.dir.path()).map_err(|e| StoreError::Io(e.to_string()))
    }
}

fn check_first(view: &ShardView, index: u64) -> Result<(), StoreError> {
    let first = view.first.load(Ordering::Acquire);
    if index < first {
        return Err(StoreError::Trimmed(first - 1));
    }
    Ok(())
}

fn base_of(key: &[u8]) -> Result<u64, StoreError> {
    let (_, _, base) =
        index::parse(key).ok_or_else(|| StoreError::Corrupt("queue index key".into()))?;
    Ok(base)
}
