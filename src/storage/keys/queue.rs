//! The bounds of a queue.

use super::parts::{put_uint, KeyBuf, Parts, ValueReader};
use super::{KeyRange, Kind};
use crate::model::{QueueKey, ShardId, TopicId};
use crate::storage::StoreError;

/// Smallest offset kept and next offset to be given out; equal when the queue is empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QueueMeta {
    pub next: u64,
    pub min: u64,
    /// Log segment the last append fell into.
    pub segment: u64,
}

impl QueueMeta {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(20);
        put_uint(&mut out, self.next);
        put_uint(&mut out, self.min);
        put_uint(&mut out, self.segment);
        out
    }

    pub fn decode(value: &[u8]) -> Result<Self, StoreError> {
        let mut r = ValueReader::new(value, "queue");
        let meta = Self {
            next: r.uint()?,
            min: r.uint()?,
            segment: r.uint()?,
        };
        r.end()?;
        if meta.min > meta.next {
            return Err(r.bad("minimum above next offset"));
        }
        Ok(meta)
    }
}

pub fn key(shard: ShardId, queue: QueueKey) -> Vec<u8> {
    KeyBuf::new(shard, Kind::Queue as u8, 8)
        .u32(queue.topic.0)
        .u32(queue.queue)
        .done()
}

pub fn parse(key: &[u8]) -> Option<(ShardId, QueueKey)> {
    let (shard, mut parts) = Parts::open(key, Kind::Queue as u8)?;
    let queue = QueueKey::new(TopicId(parts.u32()?), parts.u32()?);
    parts.end()?;
    Some((shard, queue))
}

/// All queues of a topic.
pub fn topic_range(shard: ShardId, topic: TopicId) -> KeyRange {
    KeyBuf::new(shard, Kind::Queue as u8, 4)
        .u32(topic.0)
        .range()
}
