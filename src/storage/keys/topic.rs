//! The configuration of a topic, by its number. The value's bytes are the caller's.

use super::parts::{KeyBuf, Parts};
use super::Kind;
use crate::model::{ShardId, TopicId};

pub fn key(shard: ShardId, topic: TopicId) -> Vec<u8> {
    KeyBuf::new(shard, Kind::Topic as u8, 4).u32(topic.0).done()
}

pub fn parse(key: &[u8]) -> Option<(ShardId, TopicId)> {
    let (shard, mut parts) = Parts::open(key, Kind::Topic as u8)?;
    let topic = TopicId(parts.u32()?);
    parts.end()?;
    Some((shard, topic))
}
