//! The queue index: one row per queue and log entry. The key carries the queue offset of the
//! first message, the value where the queue's records lie in the entry.

use super::parts::{put_int, put_uint, KeyBuf, Parts, ValueReader};
use super::{KeyRange, Kind};
use crate::model::{position::MAX_ORDINALS, QueueKey, ShardId, TopicId};
use crate::storage::StoreError;

/// Where the records of one queue lie in one log entry. They follow each other without a gap;
/// the `i`-th has queue offset `base + i` and ordinal `first_ordinal + i`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IndexRow {
    pub log_index: u64,
    /// Byte offset of the first record in the entry's data.
    pub records_at: u32,
    pub first_ordinal: u32,
    /// Store time of the records, milliseconds.
    pub store_ts: i64,
    /// Size in bytes and tag hash code of each record; at least one.
    pub items: Vec<(u32, i32)>,
}

impl IndexRow {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(24 + 7 * self.items.len());
        put_uint(&mut out, self.log_index);
        put_uint(&mut out, self.records_at.into());
        put_uint(&mut out, self.first_ordinal.into());
        put_int(&mut out, self.store_ts);
        put_uint(&mut out, self.items.len() as u64);
        for (size, tag_hash) in &self.items {
            put_uint(&mut out, (*size).into());
            out.extend_from_slice(&tag_hash.to_le_bytes());
        }
        out
    }

    pub fn decode(value: &[u8]) -> Result<Self, StoreError> {
        let mut r = ValueReader::new(value, "queue index");
        let log_index = r.uint()?;
        let records_at = r.uint32()?;
        let first_ordinal = r.uint32()?;
        let store_ts = r.int()?;
        let count = r.uint()?;
        // An item takes at least five bytes: a false count cannot ask for more memory than that.
        if count == 0 || count > u64::from(MAX_ORDINALS) || count > r.remaining() as u64 / 5 {
            return Err(r.bad("bad item count"));
        }
        let mut items = Vec::with_capacity(count as usize);
        for _ in 0..count {
            items.push((r.uint32()?, i32::from_le_bytes(r.fixed()?)));
        }
        r.end()?;
        Ok(Self {
            log_index,
            records_at,
            first_ordinal,
            store_ts,
            items,
        })
    }

    /// Byte offset in the entry's data, and size, of the `i`-th record.
    pub fn record(&self, i: usize) -> Option<(u64, u32)> {
        let (size, _) = *self.items.get(i)?;
        let before: u64 = self.items[..i]
            .iter()
            .map(|(size, _)| u64::from(*size))
            .sum();
        Some((u64::from(self.records_at) + before, size))
    }
}

pub fn key(shard: ShardId, queue: QueueKey, base_offset: u64) -> Vec<u8> {
    prefix(shard, queue).u64(base_offset).done()
}

pub fn parse(key: &[u8]) -> Option<(ShardId, QueueKey, u64)> {
    let (shard, mut parts) = Parts::open(key, Kind::Index as u8)?;
    let queue = QueueKey::new(TopicId(parts.u32()?), parts.u32()?);
    let base = parts.u64()?;
    parts.end()?;
    Some((shard, queue, base))
}

/// All index rows of a queue.
pub fn queue_range(shard: ShardId, queue: QueueKey) -> KeyRange {
    prefix(shard, queue).range()
}

/// The index rows of a queue whose base offset is below `offset`.
pub fn below(shard: ShardId, queue: QueueKey, offset: u64) -> KeyRange {
    (key(shard, queue, 0), key(shard, queue, offset))
}

/// All index rows of a topic.
pub fn topic_range(shard: ShardId, topic: TopicId) -> KeyRange {
    KeyBuf::new(shard, Kind::Index as u8, 4)
        .u32(topic.0)
        .range()
}

fn prefix(shard: ShardId, queue: QueueKey) -> KeyBuf {
    KeyBuf::new(shard, Kind::Index as u8, 16)
        .u32(queue.topic.0)
        .u32(queue.queue)
}
