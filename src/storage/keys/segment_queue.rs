//! For each queue with messages in a log segment, its next offset at the end of the segment: the
//! queue's new minimum once the segment is dropped.

use super::parts::{put_uint, KeyBuf, Parts, ValueReader};
use super::{KeyRange, Kind};
use crate::model::{QueueKey, ShardId, TopicId};
use crate::storage::StoreError;

pub fn key(shard: ShardId, seq: u64, queue: QueueKey) -> Vec<u8> {
    KeyBuf::new(shard, Kind::SegmentQueue as u8, 16)
        .u64(seq)
        .u32(queue.topic.0)
        .u32(queue.queue)
        .done()
}

pub fn parse(key: &[u8]) -> Option<(ShardId, u64, QueueKey)> {
    let (shard, mut parts) = Parts::open(key, Kind::SegmentQueue as u8)?;
    let seq = parts.u64()?;
    let queue = QueueKey::new(TopicId(parts.u32()?), parts.u32()?);
    parts.end()?;
    Some((shard, seq, queue))
}

/// All queues of a segment.
pub fn segment_range(shard: ShardId, seq: u64) -> KeyRange {
    KeyBuf::new(shard, Kind::SegmentQueue as u8, 8)
        .u64(seq)
        .range()
}

pub fn encode(next_offset: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(10);
    put_uint(&mut out, next_offset);
    out
}

pub fn decode(value: &[u8]) -> Result<u64, StoreError> {
    let mut r = ValueReader::new(value, "segment queue");
    let next = r.uint()?;
    r.end()?;
    Ok(next)
}
