//! The next numbers to give out to a new topic and a new consumer group of a shard.

use super::parts::{put_uint, KeyBuf, Parts, ValueReader};
use super::Kind;
use crate::model::ShardId;
use crate::storage::StoreError;

/// Both counters. Ids are never reused, so they only grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    pub next_topic: u32,
    pub next_group: u32,
}

pub fn key(shard: ShardId) -> Vec<u8> {
    KeyBuf::new(shard, Kind::Counters as u8, 0).done()
}

pub fn parse(key: &[u8]) -> Option<ShardId> {
    let (shard, parts) = Parts::open(key, Kind::Counters as u8)?;
    parts.end()?;
    Some(shard)
}

impl Counters {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(10);
        put_uint(&mut out, self.next_topic.into());
        put_uint(&mut out, self.next_group.into());
        out
    }

    pub fn decode(value: &[u8]) -> Result<Self, StoreError> {
        let mut r = ValueReader::new(value, "id counter");
        let counters = Self {
            next_topic: r.uint32()?,
            next_group: r.uint32()?,
        };
        r.end()?;
        Ok(counters)
    }
}
