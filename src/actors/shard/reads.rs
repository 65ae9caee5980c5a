//! Reads behind the tail: index rows lead to entries of the log, and records are slices of those.

use super::handle::Boundary;
use super::views::{Segment, Views};
use crate::model::append::{ReadBatch, ReadSpec, RecordMeta};
use crate::model::{Position, QueueKey, ShardId};
use crate::raft::entry;
use crate::storage::keys::index::IndexRow;
use crate::storage::{Reader, StoreError};
use bytes::Bytes;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use std::collections::VecDeque;
use std::sync::Arc;

/// Entries kept after a read: queues that were written together are read together.
const ENTRY_CACHE_BYTES: usize = 16 << 20;
/// Index rows read at a time, and the records they may name: enough for several reads.
const ROWS_PER_READ: usize = 64;
const RECORDS_PER_READ: usize = 1_024;
/// Places of readers that are kept: each holds the rows of one read at most.
const MAX_CURSORS: usize = 512;
/// A reader that goes on finds so much at hand when it comes again.
const READ_AHEAD_BYTES: usize = 512 << 10;

/// Reader of one shard's stored records.
pub struct Reads {
    shard: ShardId,
    reader: Reader,
    entries: Mutex<EntryCache>,
    cursors: Mutex<Cursors>,
}

/// An index row as reads use it.
#[derive(Debug)]
struct Row {
    base: u64,
    index: u64,
    store_ts: i64,
    records_at: usize,
    metas: Arc<[RecordMeta]>,
}

impl Row {
    fn new((base, row): (u64, IndexRow)) -> Self {
        let items = row.items.iter();
        let metas = items.map(|(size, tag)| RecordMeta {
            size: *size,
            tag: *tag,
        });
        Self {
            base,
            index: row.log_index,
            store_ts: row.store_ts,
            records_at: row.records_at as usize,
            metas: metas.collect(),
        }
    }

    fn end(&self) -> u64 {
        self.base.saturating_add(self.metas.len() as u64)
    }

    /// Its records as slices of the entry's data.
    fn segment(&self, data: &Bytes) -> Result<Segment, StoreError> {
        let bytes: usize = self.metas.iter().map(|m| m.size as usize).sum();
        let to = self.records_at.saturating_add(bytes);
        if to > data.len() {
            return Err(StoreError::Corrupt(format!(
                "index row of entry {} points past it",
                self.index
            )));
        }
        Ok(Segment {
            base: self.base,
            index: self.index,
            store_ts: self.store_ts,
            metas: self.metas.clone(),
            records: data.slice(self.records_at..to),
        })
    }
}

/// Rows of one queue in the order of their offsets, as applied: they never change. What retention
/// dropped meanwhile is no longer in the log.
type Rows = Arc<[Row]>;

/// Where readers stopped, and the rows they had left: who goes on from there need not read them
/// again. The oldest places go first.
#[derive(Default)]
struct Cursors {
    places: FxHashMap<(QueueKey, u64), (Rows, usize)>,
    order: VecDeque<(QueueKey, u64)>,
}

impl Cursors {
    fn get(&self, key: QueueKey, offset: u64) -> Option<(Rows, usize)> {
        self.places.get(&(key, offset)).cloned()
    }

    /// A reader stopped at `offset`, which is in the row number `at` or comes before it.
    fn put(&mut self, key: QueueKey, offset: u64, rows: Rows, at: usize) {
        if self.places.insert((key, offset), (rows, at)).is_none() {
            self.order.push_back((key, offset));
        }
        while self.order.len() > MAX_CURSORS {
            if let Some(oldest) = self.order.pop_front() {
                self.places.remove(&oldest);
            }
        }
    }
}

/// The entries read last, up to a limit of bytes.
#[derive(Default)]
struct EntryCache {
    entries: FxHashMap<u64, Bytes>,
    order: VecDeque<u64>,
    bytes: usize,
}

impl EntryCache {
    fn insert(&mut self, index: u64, data: Bytes, limit: usize) {
        // Two threads may have read the same entry.
        if self.entries.contains_key(&index) {
            return;
        }
        self.bytes += data.len();
        self.entries.insert(index, data);
        self.order.push_back(index);
        while self.bytes > limit {
            let Some(oldest) = self.order.pop_front() else {
                return;
            };
            let gone = self.entries.remove(&oldest).map_or(0, |data| data.len());
            self.bytes = self.bytes.saturating_sub(gone);
        }
    }
}

impl Reads {
    /// See [`Reader::memory`].
    pub fn memory(&self) -> (u64, u64) {
        self.reader.memory()
    }

    /// Bytes of the shard's log files.
    pub fn log_bytes(&self) -> Result<u64, StoreError> {
        Ok(self.reader.log_files(self.shard)?.1)
    }

    /// Reads the shard through `reader`.
    pub fn new(shard: ShardId, reader: Reader) -> Self {
        Self {
            shard,
            reader,
            entries: Mutex::default(),
            cursors: Mutex::default(),
        }
    }

    /// The data of an entry; `None` when there is none, or retention dropped it.
    fn entry(&self, index: u64) -> Result<Option<Bytes>, StoreError> {
        if let Some(data) = self.entries.lock().entries.get(&index) {
            return Ok(Some(data.clone()));
        }
        let data = match self.reader.read_entry(self.shard, index) {
            Ok(Some(found)) => found.data,
            Ok(None) | Err(StoreError::Trimmed(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut cache = self.entries.lock();
        cache.insert(index, data.clone(), ENTRY_CACHE_BYTES);
        Ok(Some(data))
    }

    /// Rows from the one that holds `offset` on, or the next one; empty at the end of the queue.
    fn rows(&self, key: QueueKey, offset: u64) -> Result<Rows, StoreError> {
        let limit = (ROWS_PER_READ, RECORDS_PER_READ);
        let rows = self.reader.index_rows_of(self.shard, key, offset, limit)?;
        Ok(rows.into_iter().map(Row::new).collect())
    }

    /// What [`Reads::read`] would give, when all of it is in memory. Does not block for long.
    pub fn read_cached(&self, key: QueueKey, offset: u64, spec: &ReadSpec) -> Option<ReadBatch> {
        let (rows, at) = self.cursors.lock().get(key, offset)?;
        let mut out = ReadBatch {
            next_offset: offset,
            ..ReadBatch::default()
        };
        let mut scan = 0;
        let entries = self.entries.lock();
        for (at, row) in rows.iter().enumerate().skip(at) {
            out.next_offset = out.next_offset.max(row.base);
            let segment = row.segment(entries.entries.get(&row.index)?).ok()?;
            let from = out.next_offset;
            if !segment.collect(from, spec, &mut scan, &mut out) {
                drop(entries);
                let mut cursors = self.cursors.lock();
                cursors.put(key, out.next_offset, rows.clone(), at);
                return Some(out);
            }
        }
        None
    }

    /// Records from `offset` on, which must be below the queue's visible end.
    pub fn read(
        &self,
        key: QueueKey,
        offset: u64,
        max: u64,
        spec: &ReadSpec,
    ) -> Result<ReadBatch, StoreError> {
        let mut out = ReadBatch {
            next_offset: offset,
            ..ReadBatch::default()
        };
        let mut scan = 0;
        let known = self.cursors.lock().get(key, offset);
        let goes_on = known.is_some();
        let (mut rows, mut at) = match known {
            Some(found) => found,
            None => (self.rows(key, offset)?, 0),
        };
        while !rows.is_empty() {
            for (at, row) in rows.iter().enumerate().skip(at) {
                // Records that retention dropped meanwhile are skipped.
                out.next_offset = out.next_offset.max(row.base);
                let Some(data) = self.entry(row.index)? else {
                    out.next_offset = row.end();
                    continue;
                };
                let from = out.next_offset;
                if !row.segment(&data)?.collect(from, spec, &mut scan, &mut out) {
                    let mut cursors = self.cursors.lock();
                    cursors.put(key, out.next_offset, rows.clone(), at);
                    drop(cursors);
                    if goes_on {
                        self.read_ahead(&rows[at..]);
                    }
                    return Ok(out);
                }
            }
            if out.next_offset >= max {
                break;
            }
            (rows, at) = (self.rows(key, out.next_offset)?, 0);
        }
        Ok(out)
    }

    /// Brings the next entries into memory. What cannot be read is told when it is asked for.
    fn read_ahead(&self, rows: &[Row]) {
        let mut bytes = 0;
        for row in rows {
            match self.entry(row.index) {
                Ok(Some(data)) if bytes + data.len() < READ_AHEAD_BYTES => bytes += data.len(),
                _ => return,
            }
        }
    }

    /// The record at a position that was applied.
    pub fn record(&self, position: Position) -> Result<Option<Bytes>, StoreError> {
        let Some(data) = self.entry(position.index)? else {
            return Ok(None);
        };
        if data.is_empty() {
            return Ok(None);
        }
        entry::find_record(position.index, &data, position.ordinal)
            .map_err(|e| StoreError::Corrupt(e.to_string()))
    }

    /// A scheduled record and its tag.
    pub fn scheduled(&self, position: Position) -> Result<Option<(i32, Bytes)>, StoreError> {
        let Some(data) = self.entry(position.index)? else {
            return Ok(None);
        };
        entry::find_scheduled(position.index, &data, position.ordinal)
            .map_err(|e| StoreError::Corrupt(e.to_string()))
    }

    /// See [`super::ShardHandle::store_time`].
    pub fn store_time(
        &self,
        views: &Views,
        key: QueueKey,
        offset: u64,
    ) -> Result<Option<i64>, StoreError> {
        if let Some(at) = views.get(key).and_then(|view| view.store_time(offset)) {
            return Ok(Some(at));
        }
        let row = self
            .reader
            .index_row_at_or_before(self.shard, key, offset)?;
        Ok(row
            .filter(|(base, row)| offset < base + row.items.len() as u64)
            .map(|(_, row)| row.store_ts))
    }

    /// See [`super::ShardHandle::offset_by_time`].
    pub fn offset_by_time(
        &self,
        views: &Views,
        key: QueueKey,
        ts_ms: i64,
        boundary: Boundary,
    ) -> Result<u64, StoreError> {
        let Some(view) = views.get(key) else {
            return Ok(0);
        };
        let bounds = view.bounds();
        // First offset whose store time is not before (lower) or is after (upper) the asked time.
        let beyond = |at: i64| match boundary {
            Boundary::Lower => at >= ts_ms,
            Boundary::Upper => at > ts_ms,
        };
        let (mut low, mut high) = (bounds.min, bounds.max);
        while low < high {
            let mid = low + (high - low) / 2;
            match self.store_time(views, key, mid)? {
                Some(at) if beyond(at) => high = mid,
                Some(_) => low = mid + 1,
                // Dropped by retention meanwhile: what is left is newer.
                None => low = mid + 1,
            }
        }
        Ok(match boundary {
            Boundary::Lower => low,
            Boundary::Upper if low > bounds.min => low - 1,
            Boundary::Upper => bounds.min,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TopicId;
    use crate::storage::keys::index;
    use crate::storage::{LogAppend, LogEntry, LogStore, RocksStore, StoreOptions};
    use crate::storage::{StateBatch, StateOp, StateStore};

    const SHARD: ShardId = ShardId(1);

    #[test]
    fn a_trimmed_entry_is_absent_and_no_error() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = RocksStore::open(dir.path(), StoreOptions::default(), &[SHARD]).unwrap();
        let entries = (1..=3).map(|index| LogEntry {
            index,
            term: 1,
            kind: 0,
            data: Bytes::from(vec![index as u8; 4]),
        });
        let append = LogAppend {
            shard: SHARD,
            entries: entries.collect(),
            hard_state: None,
            sync: false,
        };
        store.append(&[append]).unwrap();
        store.trim(SHARD, 3, 1).unwrap();
        let reads = Reads::new(SHARD, store.reader());
        assert_eq!(reads.entry(1), Ok(None));
        assert_eq!(reads.entry(3), Ok(Some(Bytes::from_static(&[3; 4]))));
        assert_eq!(reads.entry(4), Ok(None));
        let gone = Position {
            index: 2,
            ordinal: 0,
        };
        assert_eq!(reads.record(gone), Ok(None));
    }

    /// A queue of 40 records of 10 bytes, 4 in each of 10 entries but the fourth, which retention
    /// dropped. Record n is full of n, its tag is n % 2.
    fn filled(store: &mut RocksStore, key: QueueKey) {
        let bytes = |i: u64| (0..4u64).flat_map(move |n| [(i * 4 + n) as u8; 10]);
        let entries = (0..10u64).map(|i| LogEntry {
            index: i + 1,
            term: 1,
            kind: 0,
            data: bytes(i).collect(),
        });
        let append = LogAppend {
            shard: SHARD,
            entries: entries.collect(),
            hard_state: None,
            sync: false,
        };
        store.append(&[append]).unwrap();
        let rows = (0..10u64).filter(|i| *i != 3).map(|i| StateOp::Put {
            key: index::key(SHARD, key, i * 4),
            value: IndexRow {
                log_index: i + 1,
                items: vec![(10, 0), (10, 1), (10, 0), (10, 1)],
                ..IndexRow::default()
            }
            .encode(),
        });
        let batch = StateBatch {
            ops: rows.collect(),
        };
        store.write(&batch).unwrap();
    }

    #[test]
    fn a_reader_that_goes_on_gets_from_memory_what_the_store_holds() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = RocksStore::open(dir.path(), StoreOptions::default(), &[SHARD]).unwrap();
        let key = QueueKey::new(TopicId(1), 2);
        filled(&mut store, key);
        for tags in [None, Some(Arc::from([1]))] {
            let wanted = |n: &u8| !(12..16).contains(n) && (tags.is_none() || n % 2 == 1);
            let want: Vec<u8> = (0..40).filter(wanted).collect();
            for max_messages in [1, 3, 7, 100] {
                let spec = ReadSpec {
                    max_messages,
                    max_bytes: 1 << 20,
                    tags: tags.clone(),
                    max_scan: 800,
                };
                let reads = Reads::new(SHARD, store.reader());
                let (mut got, mut at, mut cached) = (Vec::new(), 0, 0);
                while at < 40 {
                    let batch = match reads.read_cached(key, at, &spec) {
                        Some(batch) => {
                            cached += 1;
                            batch
                        }
                        None => reads.read(key, at, 40, &spec).unwrap(),
                    };
                    let records = batch.slices.iter().flat_map(|s| s.chunks(10));
                    got.extend(records.map(|r| r[0]));
                    assert!(batch.next_offset > at && batch.messages <= max_messages);
                    at = batch.next_offset;
                }
                assert_eq!(got, want, "{max_messages} at a time");
                assert!(max_messages > 3 || cached > 0, "{max_messages} at a time");
            }
        }
    }

    #[test]
    fn the_oldest_places_are_forgotten() {
        let key = QueueKey::new(TopicId(1), 0);
        let mut cursors = Cursors::default();
        let rows: Rows = Arc::from([]);
        for offset in 0..=MAX_CURSORS as u64 {
            cursors.put(key, offset, rows.clone(), 0);
            cursors.put(key, offset, rows.clone(), 0);
        }
        assert_eq!(cursors.places.len(), MAX_CURSORS);
        assert_eq!(cursors.order.len(), MAX_CURSORS);
        assert!(cursors.get(key, 0).is_none() && cursors.get(key, 1).is_some());
    }

    #[test]
    fn the_entry_cache_forgets_the_oldest_and_counts_right() {
        let mut cache = EntryCache::default();
        for index in [1, 2, 2, 3] {
            cache.insert(index, Bytes::from(vec![0; 10]), 25);
        }
        assert_eq!((cache.bytes, cache.order.len()), (20, 2));
        assert!(!cache.entries.contains_key(&1) && cache.entries.contains_key(&3));
        cache.insert(4, Bytes::from(vec![0; 100]), 25);
        assert_eq!((cache.bytes, cache.entries.len()), (0, 0));
    }
}
