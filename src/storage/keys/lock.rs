//! The client that holds the lock of a queue for orderly consumption in a group.

use super::parts::{put_int, KeyBuf, Parts, ValueReader};
use super::{KeyRange, Kind};
use crate::model::{GroupId, QueueKey, ShardId, TopicId};
use crate::storage::StoreError;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LockRow {
    /// The holder's client id.
    pub client: String,
    /// When it last took or renewed the lock, milliseconds of the leader's clock.
    pub at_ms: i64,
}

impl LockRow {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(10 + self.client.len());
        put_int(&mut out, self.at_ms);
        out.extend_from_slice(self.client.as_bytes());
        out
    }

    pub fn decode(value: &[u8]) -> Result<Self, StoreError> {
        let mut r = ValueReader::new(value, "queue lock");
        let at_ms = r.int()?;
        let client =
            std::str::from_utf8(r.take_rest()).map_err(|_| r.bad("client id is not UTF-8"))?;
        Ok(Self {
            client: client.to_owned(),
            at_ms,
        })
    }
}

pub fn key(shard: ShardId, group: GroupId, queue: QueueKey) -> Vec<u8> {
    KeyBuf::new(shard, Kind::Lock as u8, 12)
        .u32(group.0)
        .u32(queue.topic.0)
        .u32(queue.queue)
        .done()
}

pub fn parse(key: &[u8]) -> Option<(ShardId, GroupId, QueueKey)> {
    let (shard, mut parts) = Parts::open(key, Kind::Lock as u8)?;
    let group = GroupId(parts.u32()?);
    let queue = QueueKey::new(TopicId(parts.u32()?), parts.u32()?);
    parts.end()?;
    Some((shard, group, queue))
}

/// All locks of a group.
pub fn group_range(shard: ShardId, group: GroupId) -> KeyRange {
    KeyBuf::new(shard, Kind::Lock as u8, 4).u32(group.0).range()
}
