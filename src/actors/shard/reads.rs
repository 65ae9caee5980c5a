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
use std::collections::VecDeque;

/// Entries kept after a read: queues that were written together are read together.
const ENTRY_CACHE_BYTES: usize = 16 << 20;
const ROWS_PER_READ: usize = 64;

/// Reader of one shard's stored records.
pub struct Reads {
    shard: ShardId,
    reader: Reader,
    entries: Mutex<(VecDeque<(u64, Bytes)>, usize)>,
}

impl Reads {
    /// Reads the shard through `reader`.
    pub fn new(shard: ShardId, reader: Reader) -> Self {
        Self {
            shard,
            reader,
            entries: Mutex::default(),
        }
    }

    fn entry(&self, index: u64) -> Result<Option<Bytes>, StoreError> {
        if let Some((_, data)) = self.entries.lock().0.iter().find(|(i, _)| *i == index) {
            return Ok(Some(data.clone()));
        }
        let Some(found) = self.reader.read_entry(self.shard, index)? else {
            return Ok(None);
        };
        let mut cache = self.entries.lock();
        cache.1 += found.data.len();
        cache.0.push_back((index, found.data.clone()));
        while cache.1 > ENTRY_CACHE_BYTES {
            let Some((_, old)) = cache.0.pop_front() else {
                break;
            };
            cache.1 -= old.len();
        }
        Ok(Some(found.data))
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
        if let Some(view) = views.get(key) {
            let hit = view
                .cached()
                .into_iter()
                .find(|s| s.base <= offset && offset < s.base + s.metas.len() as u64);
            if let Some(segment) = hit {
                return Ok(Some(segment.store_ts));
            }
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
