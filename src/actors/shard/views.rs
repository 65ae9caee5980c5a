//! What readers see of a shard's queues without visiting an actor: visible bounds, and a cache of
//! the newest records. Written by the shard's thread only, after an entry was applied.

use super::handle::QueueBounds;
use crate::model::append::{ReadBatch, ReadSpec, RecordMeta};
use crate::model::QueueKey;
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use rustc_hash::FxHashMap;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::Arc;

/// Records of one queue in one entry.
#[derive(Debug, Clone)]
pub struct Segment {
    pub base: u64,
    pub index: u64,
    pub store_ts: i64,
    pub metas: Arc<[RecordMeta]>,
    /// The records, one after the other.
    pub records: Bytes,
}

impl Segment {
    fn end(&self) -> u64 {
        self.base + self.metas.len() as u64
    }

    /// Adds the records from `offset` on that pass the filter. Returns false when a limit was hit.
    pub fn collect(
        &self,
        offset: u64,
        spec: &ReadSpec,
        scan: &mut u32,
        out: &mut ReadBatch,
    ) -> bool {
        let mut at = 0usize;
        // Records that follow each other and pass share one slice.
        let mut run: Option<(usize, usize)> = None;
        let mut more = true;
        for (i, meta) in self.metas.iter().enumerate() {
            let (from, size) = (at, meta.size as usize);
            at += size;
            if self.base + (i as u64) < offset {
                continue;
            }
            let full = out.messages >= spec.max_messages
                || *scan >= spec.max_scan
                || (out.messages > 0 && out.bytes + size > spec.max_bytes);
            let pass = spec
                .tags
                .as_ref()
                .is_none_or(|tags| tags.binary_search(&meta.tag).is_ok());
            if full && (pass || *scan >= spec.max_scan) {
                more = false;
                break;
            }
            *scan += 1;
            out.next_offset = self.base + i as u64 + 1;
            if !pass {
                self.push(run.take(), out);
                continue;
            }
            run = Some((run.map_or(from, |(start, _)| start), at));
            out.messages += 1;
            out.bytes += size;
            out.last_store_ts = self.store_ts;
        }
        self.push(run, out);
        more
    }

    fn push(&self, run: Option<(usize, usize)>, out: &mut ReadBatch) {
        if let Some((from, to)) = run {
            out.slices.push(self.records.slice(from..to));
        }
    }
}

/// One queue as readers see it.
#[derive(Debug, Default)]
pub struct QueueView {
    min: AtomicU64,
    max: AtomicU64,
    tail: Mutex<VecDeque<Segment>>,
}

impl QueueView {
    /// Visible bounds.
    pub fn bounds(&self) -> QueueBounds {
        let max = self.max.load(Ordering::Acquire);
        QueueBounds {
            min: self.min.load(Ordering::Acquire).min(max),
            max,
        }
    }

    /// Reads from the cache; `None` when `offset` is not in it.
    pub fn read(&self, offset: u64, spec: &ReadSpec) -> Option<ReadBatch> {
        let tail = self.tail.lock();
        if tail.front()?.base > offset {
            return None;
        }
        let start = tail.partition_point(|s| s.end() <= offset);
        let mut out = ReadBatch {
            next_offset: offset,
            ..ReadBatch::default()
        };
        let mut scan = 0;
        for segment in tail.iter().skip(start) {
            if !segment.collect(offset, spec, &mut scan, &mut out) {
                break;
            }
        }
        Some(out)
    }

    /// Store time of the record at `offset`; `None` when it is not in the cache.
    pub fn store_time(&self, offset: u64) -> Option<i64> {
        let tail = self.tail.lock();
        let at = tail.partition_point(|s| s.end() <= offset);
        let segment = tail.get(at).filter(|s| s.base <= offset)?;
        Some(segment.store_ts)
    }
}

/// All queues of a shard that ever had a message, and the cache's budget.
#[derive(Default)]
pub struct Views {
    queues: RwLock<FxHashMap<QueueKey, Arc<QueueView>>>,
    order: Mutex<VecDeque<(QueueKey, u64, usize)>>,
    bytes: AtomicUsize,
    limit: usize,
    /// Index rows up to this log index can be read from the store.
    stored: AtomicU64,
    applied: AtomicU64,
}

impl Views {
    /// A cache of about `limit` bytes of records.
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            ..Self::default()
        }
    }

    /// The view of a queue, if it ever had a message.
    pub fn get(&self, key: QueueKey) -> Option<Arc<QueueView>> {
        self.queues.read().get(&key).cloned()
    }

    /// Bounds of all queues, sorted: for whoever compares them.
    pub fn all(&self) -> Vec<(QueueKey, QueueBounds)> {
        let queues = self.queues.read();
        let mut all: Vec<_> = queues.iter().map(|(k, v)| (*k, v.bounds())).collect();
        all.sort_unstable_by_key(|(key, _)| *key);
        all
    }

    /// Bytes of records in the cache.
    pub fn cached_bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Last applied log index.
    pub fn applied(&self) -> u64 {
        self.applied.load(Ordering::Acquire)
    }

    /// Sets bounds as found at start.
    pub fn restore(&self, key: QueueKey, bounds: QueueBounds) {
        let view = self.entry(key);
        view.max.store(bounds.max, Ordering::Release);
        view.min.store(bounds.min, Ordering::Release);
    }

    /// Everything up to `index` was applied.
    pub fn set_applied(&self, index: u64) {
        self.applied.fetch_max(index, Ordering::AcqRel);
    }

    fn entry(&self, key: QueueKey) -> Arc<QueueView> {
        if let Some(view) = self.get(key) {
            return view;
        }
        self.queues.write().entry(key).or_default().clone()
    }

    /// Makes records visible.
    pub fn append(&self, key: QueueKey, segment: Segment) {
        let view = self.entry(key);
        let (end, base, bytes) = (segment.end(), segment.base, segment.records.len());
        self.set_applied(segment.index);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.order.lock().push_back((key, base, bytes));
        view.tail.lock().push_back(segment);
        view.max.store(end, Ordering::Release);
        self.evict();
    }

    /// Rows up to `index` are in the store: the cache may drop them.
    pub fn stored(&self, index: u64) {
        self.stored.fetch_max(index, Ordering::AcqRel);
        self.evict();
    }

    fn evict(&self) {
        let stored = self.stored.load(Ordering::Acquire);
        while self.bytes.load(Ordering::Relaxed) > self.limit {
            let mut order = self.order.lock();
            let Some((key, base, bytes)) = order.front().copied() else {
                return;
            };
            if let Some(view) = self.get(key) {
                let mut tail = view.tail.lock();
                match tail.front() {
                    // Not readable from the store yet: stays whatever the limit says.
                    Some(s) if s.base == base && s.index > stored => return,
                    Some(s) if s.base == base => {
                        tail.pop_front();
                    }
                    _ => {}
                }
            }
            order.pop_front();
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    /// The queue starts later now.
    pub fn trimmed(&self, key: QueueKey, min: u64) {
        if let Some(view) = self.get(key) {
            view.min.fetch_max(min, Ordering::AcqRel);
        }
    }

    /// Forgets all queues and their records.
    pub fn clear(&self) {
        self.queues.write().clear();
    }

    /// The topic is gone.
    pub fn remove_topic(&self, topic: crate::model::TopicId) {
        let mut queues = self.queues.write();
        queues.retain(|key, _| key.topic != topic);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TopicId;

    const KEY: QueueKey = QueueKey {
        topic: TopicId(1),
        queue: 0,
    };

    fn segment(base: u64, index: u64, tags: &[i32]) -> Segment {
        let metas: Vec<_> = tags
            .iter()
            .map(|tag| RecordMeta {
                size: 10,
                tag: *tag,
            })
            .collect();
        let records = Bytes::from(vec![index as u8; 10 * tags.len()]);
        Segment {
            base,
            index,
            store_ts: index as i64,
            metas: metas.into(),
            records,
        }
    }
    fn spec(max_messages: u32, tags: Option<Vec<i32>>) -> ReadSpec {
        ReadSpec {
            max_messages,
            max_bytes: 1000,
            tags: tags.map(Into::into),
            max_scan: 800,
        }
    }

    #[test]
    fn reads_cross_segments_filter_and_stop_at_limits() {
        let views = Views::new(1000);
        views.append(KEY, segment(0, 1, &[1, 2]));
        views.append(KEY, segment(2, 2, &[1, 1, 2]));
        let view = views.get(KEY).unwrap();
        let all = view.read(0, &spec(32, None)).unwrap();
        assert_eq!((all.messages, all.next_offset, all.slices.len()), (5, 5, 2));
        let ones = view.read(0, &spec(32, Some(vec![1]))).unwrap();
        assert_eq!(
            (ones.messages, ones.next_offset, ones.bytes),
            (3, 5, 30),
            "skips the rest too"
        );
        let times = [0, 1, 2, 4, 5].map(|offset| view.store_time(offset));
        assert_eq!(times, [Some(1), Some(1), Some(2), Some(2), None]);
        let two = view.read(1, &spec(2, None)).unwrap();
        assert_eq!((two.messages, two.next_offset), (2, 3));
    }

    #[test]
    fn what_the_store_cannot_serve_yet_stays_cached() {
        let views = Views::new(15);
        views.append(KEY, segment(0, 1, &[1]));
        views.append(KEY, segment(1, 2, &[1]));
        let view = views.get(KEY).unwrap();
        assert!(view.read(0, &spec(1, None)).is_some());
        views.stored(1);
        assert!(view.read(0, &spec(1, None)).is_none());
        assert!(view.read(1, &spec(1, None)).is_some());
        assert_eq!((view.store_time(0), view.store_time(1)), (None, Some(2)));
        assert_eq!(views.cached_bytes(), 10);
    }
}
