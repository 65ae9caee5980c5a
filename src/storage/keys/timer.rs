//! Messages that wait for a time. Key order is due time, then log order.

use super::parts::{put_uint, KeyBuf, Parts, ValueReader};
use super::{KeyRange, Kind};
use crate::model::{Position, QueueKey, ShardId, TopicId};
use crate::storage::StoreError;

/// The message to be delivered: its real topic and queue, and where its record lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimerRow {
    pub queue: QueueKey,
    /// Byte offset of the record in the entry's data.
    pub records_at: u32,
    /// Size of the record in bytes.
    pub size: u32,
}

impl TimerRow {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(20);
        for v in [
            self.queue.topic.0,
            self.queue.queue,
            self.records_at,
            self.size,
        ] {
            put_uint(&mut out, v.into());
        }
        out
    }

    pub fn decode(value: &[u8]) -> Result<Self, StoreError> {
        let mut r = ValueReader::new(value, "timer");
        let queue = QueueKey::new(TopicId(r.uint32()?), r.uint32()?);
        let row = Self {
            queue,
            records_at: r.uint32()?,
            size: r.uint32()?,
        };
        r.end()?;
        Ok(row)
    }
}

pub fn key(shard: ShardId, due_ms: i64, at: Position) -> Vec<u8> {
    KeyBuf::new(shard, Kind::Timer as u8, 20)
        .i64(due_ms)
        .u64(at.index)
        .u32(at.ordinal)
        .done()
}

pub fn parse(key: &[u8]) -> Option<(ShardId, i64, Position)> {
    let (shard, mut parts) = Parts::open(key, Kind::Timer as u8)?;
    let due = parts.i64()?;
    let at = Position {
        index: parts.u64()?,
        ordinal: parts.u32()?,
    };
    parts.end()?;
    Some((shard, due, at))
}

/// All timers due at `now_ms` or before.
pub fn due_range(shard: ShardId, now_ms: i64) -> KeyRange {
    let (from, _) = KeyBuf::new(shard, Kind::Timer as u8, 0).range();
    (
        from,
        KeyBuf::new(shard, Kind::Timer as u8, 8)
            .i64(now_ms)
            .range()
            .1,
    )
}
