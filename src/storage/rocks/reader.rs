//! Reading, from any thread.

use super::errors::{cf_error, map_error};
use super::{CF_META, CF_STATE};
use crate::model::{QueueKey, ShardId};
use crate::storage::keys::index::{self, IndexRow};
use crate::storage::keys::KeyRange;
use crate::storage::{entry, LogEntry, RecordSource, Row, StoreError};
use rocksdb::{ColumnFamily, ReadOptions, WriteBatch, DB};
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

/// What a look at stored entries takes at least, bytes.
const BAD_COSTS: u64 = 32 << 10;

/// What [`Reader::scrub_entries`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scrubbed {
    /// The next index to look at.
    pub next: u64,
    /// Bytes looked at.
    pub bytes: u64,
    /// The log ends before `next`.
    pub ended: bool,
    /// Entries that are neither there as written nor mended.
    pub bad: Vec<(u64, String)>,
}

impl Shared {
    /// The entry with this index: the log's own, or else the mended copy. `None`: there is none.
    pub fn entry(
        &self,
        cf: &str,
        shard: ShardId,
        index: u64,
    ) -> Result<Option<LogEntry>, StoreError> {
        let key = index.to_be_bytes();
        let found = self.db.get_pinned_cf_opt(self.cf(cf)?, key, &unverified());
        let own = match found {
            Ok(Some(stored)) => entry::decode(index, &stored).map(Some),
            Ok(None) => Ok(None),
            Err(error) => Err(unreadable(index, error)),
        };
        match own {
            Ok(None) | Err(StoreError::BadEntry { .. }) => match self.mended(shard, index) {
                Ok(Some(entry)) => Ok(Some(entry)),
                // A bad copy is as good as none: it is mended again.
                Ok(None) | Err(_) => own,
            },
            own => own,
        }
    }

    /// See [`crate::storage::LogStore::read_unverified`].
    pub fn unverified(&self, cf: &str, index: u64) -> Option<LogEntry> {
        let cf = self.cf(cf).ok()?;
        let key = index.to_be_bytes();
        let found = self.db.get_pinned_cf_opt(cf, key, &unverified());
        entry::unverified(index, &found.ok().flatten()?)
    }

    fn mended(&self, shard: ShardId, index: u64) -> Result<Option<LogEntry>, StoreError> {
        let key = super::meta::mended(shard, index);
        let found = self.db.get_pinned_cf(self.cf(CF_META)?, key);
        let found = found.map_err(map_error)?;
        found
            .map(|stored| entry::decode(index, &stored))
            .transpose()
    }

    /// Puts into the batch that mended copies of these entries go.
    pub fn forget_mended(
        &self,
        batch: &mut WriteBatch,
        shard: ShardId,
        range: std::ops::Range<u64>,
    ) -> Result<(), StoreError> {
        let meta = self.cf(CF_META)?;
        let ends = [range.start, range.end].map(|index| super::meta::mended(shard, index));
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(ends[1]);
        let mut rows = self.db.raw_iterator_cf_opt(meta, options);
        rows.seek(ends[0]);
        while let Some(key) = rows.key() {
            batch.delete_cf(meta, key);
            rows.next();
        }
        rows.status().map_err(map_error)
    }

    /// Hands `take` the entries of the range in order until it returns `false`. The first one that is
    /// bad, or missing, is [`StoreError::BadEntry`].
    pub fn walk(
        &self,
        (cf, shard): (&str, ShardId),
        range: std::ops::Range<u64>,
        cache: bool,
        mut take: impl FnMut(LogEntry) -> bool,
    ) -> Result<(), StoreError> {
        let mut options = unverified();
        options.set_iterate_upper_bound(range.end.to_be_bytes());
        options.fill_cache(cache);
        let mut rows = self.db.raw_iterator_cf_opt(self.cf(cf)?, options);
        rows.seek(range.start.to_be_bytes());
        for index in range {
            let found = rows.item().filter(|(key, _)| *key == index.to_be_bytes());
            let own = found.and_then(|(_, stored)| entry::decode(index, stored).ok());
            let entry = match own {
                Some(entry) => {
                    rows.next();
                    entry
                }
                None => {
                    // Its block may be unreadable, or only the order of its keys be lost.
                    let entry = self.entry(cf, shard, index)?;
                    rows.seek((index + 1).to_be_bytes());
                    entry.ok_or_else(|| absent(index))?
                }
            };
            if !take(entry) {
                break;
            }
        }
        Ok(())
    }
}

/// Entries have checksums of their own: a bad one is no reason not to read those around it.
pub(super) fn unverified() -> ReadOptions {
    let mut options = ReadOptions::default();
    options.set_verify_checksums(false);
    options
}

fn absent(index: u64) -> StoreError {
    let why = "missing".into();
    StoreError::BadEntry { index, why }
}

/// A block that cannot be read, for its content or by the disk's word, is bad for its entries alone.
fn unreadable(index: u64, error: rocksdb::Error) -> StoreError {
    let bad = [
        rocksdb::ErrorKind::Corruption,
        rocksdb::ErrorKind::IOError,
        rocksdb::ErrorKind::NotSupported,
    ];
    match bad.contains(&error.kind()) {
        true => StoreError::BadEntry {
            index,
            why: error.to_string(),
        },
        false => map_error(error),
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

    /// Entries `from..to`, at least one if there is one, then up to `max_bytes` of data. What
    /// lies above the last entry is left out, and so is what follows a bad one; when that is the
    /// first, it is [`StoreError::BadEntry`].
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
        let mut entries = Vec::new();
        let mut bytes = 0u64;
        let place = (view.cf.as_str(), shard);
        let walked = self.shared.walk(place, from..end, true, |entry| {
            bytes += entry.data.len() as u64;
            let fits = bytes <= max_bytes || entries.is_empty();
            if fits {
                entries.push(entry);
            }
            fits
        });
        match walked {
            Err(StoreError::BadEntry { .. }) if !entries.is_empty() => Ok(entries),
            // Trimmed or cut off meanwhile.
            Err(StoreError::BadEntry { index, .. }) if self.missing(view, index).is_ok() => {
                Ok(entries)
            }
            Err(error) => {
                check_first(view, from)?;
                Err(error)
            }
            Ok(()) => Ok(entries),
        }
    }

    /// Looks at the entries from `from` on, so many bytes of them, as [`Reader::read_entries`] would,
    /// and keeps nothing of it in memory. Bad ones are named; gives the next index to look at.
    pub fn scrub_entries(
        &self,
        shard: ShardId,
        from: u64,
        max_bytes: u64,
    ) -> Result<Scrubbed, StoreError> {
        let view = self.shared.view(shard)?;
        let from = from.max(view.first.load(Ordering::Acquire));
        let end = view.last.load(Ordering::Acquire).saturating_add(1);
        let mut found = Scrubbed {
            next: from,
            ..Scrubbed::default()
        };
        let place = (view.cf.as_str(), shard);
        while found.next < end && found.bytes < max_bytes {
            let (next, bytes) = (&mut found.next, &mut found.bytes);
            let walked = self.shared.walk(place, *next..end, false, |entry| {
                *next = entry.index + 1;
                *bytes += (entry.data.len() + entry::HEADER) as u64;
                *bytes < max_bytes
            });
            match walked {
                Ok(()) => {}
                Err(StoreError::BadEntry { index, why }) => {
                    if self.missing(view, index).is_err() {
                        found.bad.push((index, why));
                    }
                    found.next = index + 1;
                    // Looking for what cannot be read is work too.
                    found.bytes += BAD_COSTS;
                }
                Err(error) => return Err(error),
            }
        }
        found.ended = found.next >= end;
        Ok(found)
    }

    /// An entry within the bounds was not there. Right when it was trimmed or cut off meanwhile.
    fn missing(&self, view: &ShardView, index: u64) -> Result<(), StoreError> {
        check_first(view, index)?;
        if index > view.last.load(Ordering::Acquire) {
            return Ok(());
        }
        Err(absent(index))
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

    /// Hands `row` the state rows of these ranges, all as they are at this moment. Its error ends it.
    pub fn rows_at_once(
        &self,
        ranges: &[KeyRange],
        mut row: impl FnMut(&[u8], &[u8]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        // One iterator sees one moment, and none of it is wanted again.
        let mut options = ReadOptions::default();
        options.fill_cache(false);
        let cf = self.shared.cf(CF_STATE)?;
        let mut rows = self.shared.db.raw_iterator_cf_opt(cf, options);
        for (from, to) in ranges {
            rows.seek(from);
            while let Some((key, value)) = rows.item().filter(|(key, _)| *key < &to[..]) {
                row(key, value)?;
                rows.next();
            }
            rows.status().map_err(map_error)?;
        }
        Ok(())
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

impl RecordSource for Reader {
    fn read_entry(&self, shard: ShardId, index: u64) -> Result<Option<LogEntry>, StoreError> {
        let view = self.shared.view(shard)?;
        check_first(view, index)?;
        if index > view.last.load(Ordering::Acquire) {
            return Ok(None);
        }
        match self.shared.entry(&view.cf, shard, index) {
            Ok(Some(entry)) => Ok(Some(entry)),
            Ok(None) => self.missing(view, index).map(|()| None),
            Err(error) => Err(error),
        }
    }

    fn index_rows_of(
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

    fn index_row_at_or_before(
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
