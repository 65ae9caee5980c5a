//! The offset a consumer group has committed for a queue: the next one to be consumed.

use super::parts::{put_uint, KeyBuf, Parts, ValueReader};
use super::{KeyRange, Kind};
use crate::model::{GroupId, QueueKey, ShardId, TopicId};
use crate::storage::StoreError;

pub fn key(shard: ShardId, group: GroupId, queue: QueueKey) -> Vec<u8> {
    KeyBuf::new(shard, Kind::Offset as u8, 12)
        .u32(group.0)
        .u32(queue.topic.0)
        .u32(queue.queue)
        .done()
}

pub fn parse(key: &[u8]) -> Option<(ShardId, GroupId, QueueKey)> {
    let (shard, mut parts) = Parts::open(key, Kind::Offset as u8)?;
    let group = GroupId(parts.u32()?);
    let queue = QueueKey::new(TopicId(parts.u32()?), parts.u32()?);
    parts.end()?;
    Some((shard, group, queue))
}

/// All offsets of a group.
pub fn group_range(shard: ShardId, group: GroupId) -> KeyRange {
    KeyBuf::new(shard, Kind::Offset as u8, 4)
        .u32(group.0)
        .range()
}

/// The offsets of a group in one topic.
pub fn topic_range(shard: ShardId, group: GroupId, topic: TopicId) -> KeyRange {
    KeyBuf::new(shard, Kind::Offset as u8, 8)
        .u32(group.0)
        .u32(topic.0)
        .range()
}

pub fn encode(offset: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(10);
    put_uint(&mut out, offset);
    out
}

pub fn decode(value: &[u8]) -> Result<u64, StoreError> {
    let mut r = ValueReader::new(value, "consumer offset");
    let offset = r.uint()?;
    r.end()?;
    Ok(offset)
}
