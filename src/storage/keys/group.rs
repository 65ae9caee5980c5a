//! The configuration of a consumer group, by its number. The value's bytes are the caller's.

use super::parts::{KeyBuf, Parts};
use super::Kind;
use crate::model::{GroupId, ShardId};

pub fn key(shard: ShardId, group: GroupId) -> Vec<u8> {
    KeyBuf::new(shard, Kind::Group as u8, 4).u32(group.0).done()
}

pub fn parse(key: &[u8]) -> Option<(ShardId, GroupId)> {
    let (shard, mut parts) = Parts::open(key, Kind::Group as u8)?;
    let group = GroupId(parts.u32()?);
    parts.end()?;
    Some((shard, group))
}
