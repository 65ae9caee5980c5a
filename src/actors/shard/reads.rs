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

/// Entries kept after a read: queues that were written together are read together.
const ENTRY_CACHE_BYTES: usize = 16 << 20;
const ROWS_PER_READ: usize = 64;

/// Reader of one shard's stored records.
pub struct Reads {
    shard: ShardId,
    reader: Reader,
    entries: Mutex<EntryCache>,
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

    fn segment(&self, base: u64, row: &IndexRow) -> Result<Option<Segment>, StoreError> {
        let Some(data) = self.entry(row.log_index)? else {
            return Ok(None);
        };
        let metas: Vec<RecordMeta> = row
            .items
            .iter()
            .map(|(size, tag)| RecordMeta {
                size: *size,
                tag: *tag,
            })
            .collect();
        let from = row.records_at as usize;
        let to = from + metas.iter().map(|m| m.size as usize).sum::<usize>();
        if to > data.len() {
            return Err(StoreError::Corrupt(format!(
                "index row of entry {} points past it",
                row.log_index
            )));
        }
        let records = data.slice(from..to);
        Ok(Some(Segment {
            base,
            index: row.log_index,
            store_ts: row.store_ts,
            metas: metas.into(),
            records,
        }))
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
        while out.next_offset < max {
            let from = out.next_offset;
            let rows = self
                .reader
                .index_rows(self.shard, key, from, ROWS_PER_READ)?;
            if rows.is_empty() {
                return Ok(out);
            }
            for (base, row) in &rows {
                // Records that retention dropped meanwhile are skipped.
                if *base > out.next_offset {
                    out.next_offset = *base;
                }
                let Some(segment) = self.segment(*base, row)? else {
                    out.next_offset = base + row.items.len() as u64;
                    continue;
                };
                let at = out.next_offset;
                if !segment.collect(at, spec, &mut scan, &mut out) {
                    return Ok(out);
                }
            }
            if out.next_offset == from {
                return Ok(out);
            }
        }
        Ok(out)
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
    use crate::storage::{LogAppend, LogEntry, LogStore, RocksStore, StoreOptions};

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
