//! Reads behind the tail: index rows lead to entries of the log, and records are slices of those. What
//! readers that go on need next stays in memory. The store is given to each read.

use super::damage::Damage;
use super::handle::Boundary;
use super::views::{Segment, Views};
use crate::model::append::{ReadBatch, ReadSpec, RecordMeta};
use crate::model::{Position, QueueKey, ShardId};
use crate::raft::entry;
use crate::storage::keys::index::IndexRow;
use crate::storage::{RecordSource, StoreError};
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

/// What reads of one shard's stored records have at hand, from any thread.
pub struct Recent {
    shard: ShardId,
    entries: Mutex<EntryCache>,
    cursors: Mutex<Cursors>,
    damage: Damage,
}

/// What is stored where an entry should be.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Data(Bytes),
    /// Nothing, or retention dropped it.
    Nothing,
    /// Nobody has a good copy of it.
    Lost,
}

/// A scheduled record.
#[derive(Debug, PartialEq, Eq)]
pub enum Scheduled {
    /// Its tag and bytes.
    Record(i32, Bytes),
    /// Not now.
    Later,
    /// Nobody can read it any more.
    Lost,
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

impl Recent {
    /// Nothing is at hand yet.
    pub fn new(shard: ShardId) -> Self {
        Self {
            shard,
            entries: Mutex::default(),
            cursors: Mutex::default(),
            damage: Damage::default(),
        }
    }

    /// What was seen of bad entries.
    pub fn damage(&self) -> &Damage {
        &self.damage
    }

    /// The data of an entry. One that is bad and may be mended is an error, for now.
    fn entry<S: RecordSource>(&self, store: &S, index: u64) -> Result<Found, StoreError> {
        if let Some(data) = self.entries.lock().entries.get(&index) {
            return Ok(Found::Data(data.clone()));
        }
        if self.damage.is_lost(index) {
            return Ok(Found::Lost);
        }
        let data = match store.read_entry(self.shard, index) {
            Ok(Some(found)) => found.data,
            Ok(None) | Err(StoreError::Trimmed(_)) => return Ok(Found::Nothing),
            Err(error) => return Err(error),
        };
        let mut cache = self.entries.lock();
        cache.insert(index, data.clone(), ENTRY_CACHE_BYTES);
        Ok(Found::Data(data))
    }

    /// A read goes past the records of a row that nobody can read.
    fn skip(&self, key: QueueKey, row: &Row) {
        let messages = row.metas.len() as u64;
        if self.damage.skip(row.index, key, messages) {
            tracing::error!(
                event = "lost_messages",
                shard = self.shard.0,
                topic = key.topic.0,
                queue = key.queue,
                first = row.base,
                last = row.end().saturating_sub(1),
                index = row.index,
                "messages in an entry that no replica can read are skipped"
            );
        }
    }

    /// Rows from the one that holds `offset` on, or the next one; empty at the end of the queue.
    fn rows<S: RecordSource>(
        &self,
        store: &S,
        key: QueueKey,
        offset: u64,
    ) -> Result<Rows, StoreError> {
        let limit = (ROWS_PER_READ, RECORDS_PER_READ);
        let rows = store.index_rows_of(self.shard, key, offset, limit)?;
        Ok(rows.into_iter().map(Row::new).collect())
    }

    /// What [`Recent::read`] would give, when all of it is in memory. Does not block for long.
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
    pub fn read<S: RecordSource>(
        &self,
        store: &S,
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
            None => (self.rows(store, key, offset)?, 0),
        };
        while !rows.is_empty() {
            for (at, row) in rows.iter().enumerate().skip(at) {
                // Records that retention dropped meanwhile are skipped.
                out.next_offset = out.next_offset.max(row.base);
                let data = match self.entry(store, row.index) {
                    Ok(Found::Data(data)) => data,
                    Ok(found) => {
                        if found == Found::Lost {
                            self.skip(key, row);
                        }
                        out.next_offset = row.end();
                        continue;
                    }
                    // What comes before it is as good as ever.
                    Err(StoreError::BadEntry { .. }) if out.messages > 0 => return Ok(out),
                    Err(error) => return Err(error),
                };
                let from = out.next_offset;
                if !row.segment(&data)?.collect(from, spec, &mut scan, &mut out) {
                    let mut cursors = self.cursors.lock();
                    cursors.put(key, out.next_offset, rows.clone(), at);
                    drop(cursors);
                    if goes_on {
                        self.read_ahead(store, &rows[at..]);
                    }
                    return Ok(out);
                }
            }
            if out.next_offset >= max {
                break;
            }
            (rows, at) = (self.rows(store, key, out.next_offset)?, 0);
        }
        Ok(out)
    }

    /// Brings the next entries into memory. What cannot be read is told when it is asked for.
    fn read_ahead<S: RecordSource>(&self, store: &S, rows: &[Row]) {
        let mut bytes = 0;
        for row in rows {
            match self.entry(store, row.index) {
                Ok(Found::Data(data)) if bytes + data.len() < READ_AHEAD_BYTES => {
                    bytes += data.len()
                }
                _ => return,
            }
        }
    }

    /// The record at a position that was applied.
    pub fn record<S: RecordSource>(
        &self,
        store: &S,
        position: Position,
    ) -> Result<Option<Bytes>, StoreError> {
        let Found::Data(data) = self.entry(store, position.index)? else {
            return Ok(None);
        };
        if data.is_empty() {
            return Ok(None);
        }
        entry::find_record(position.index, &data, position.ordinal)
            .map_err(|e| StoreError::Corrupt(e.to_string()))
    }

    /// A scheduled record and its tag.
    pub fn scheduled<S: RecordSource>(
        &self,
        store: &S,
        position: Position,
    ) -> Result<Scheduled, StoreError> {
        let data = match self.entry(store, position.index)? {
            Found::Data(data) => data,
            Found::Nothing => return Ok(Scheduled::Later),
            Found::Lost => return Ok(Scheduled::Lost),
        };
        // The entry is what was written: to look again would give the same.
        let found = entry::find_scheduled(position.index, &data, position.ordinal);
        Ok(match found.ok().flatten() {
            Some((tag, record)) => Scheduled::Record(tag, record),
            None => Scheduled::Lost,
        })
    }

    /// See [`super::ShardHandle::store_time`].
    pub fn store_time<S: RecordSource>(
        &self,
        store: &S,
        views: &Views,
        key: QueueKey,
        offset: u64,
    ) -> Result<Option<i64>, StoreError> {
        if let Some(at) = views.get(key).and_then(|view| view.store_time(offset)) {
            return Ok(Some(at));
        }
        let row = store.index_row_at_or_before(self.shard, key, offset)?;
        Ok(row
            .filter(|(base, row)| offset < base + row.items.len() as u64)
            .map(|(_, row)| row.store_ts))
    }

    /// See [`super::ShardHandle::offset_by_time`].
    pub fn offset_by_time<S: RecordSource>(
        &self,
        store: &S,
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
            match self.store_time(store, views, key, mid)? {
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
#[path = "recent_tests.rs"]
mod tests;
