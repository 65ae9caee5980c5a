//! The rows of the state store, one file a kind: key builders and parsers, value codecs and the
//! key ranges one scans or deletes.
//!
//! A key is `shard u32 | kind u8 | fields`, everything big-endian, so that the byte order of keys
//! is the order of their fields. Ranges are half open: `from <= key < to`.

pub mod applied;
pub mod base;
pub mod counters;
pub mod group;
pub mod index;
pub mod lock;
pub mod log_segment;
pub mod members;
pub mod offset;
mod parts;
pub mod queue;
pub mod segment_queue;
pub mod staged;
pub mod timer;
pub mod topic;

#[cfg(test)]
mod tests;

use crate::model::ShardId;
use parts::KeyBuf;

/// A half-open key range.
pub type KeyRange = (Vec<u8>, Vec<u8>);

/// The kind byte of a key. Never renumber: they are on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    Applied = 1,
    Index = 2,
    Queue = 3,
    Topic = 4,
    Group = 5,
    Offset = 6,
    Lock = 7,
    Timer = 8,
    LogSegment = 9,
    SegmentQueue = 10,
    Counters = 11,
    Members = 12,
    Base = 13,
    Staged = 14,
}

/// All rows of a kind in a shard.
pub fn all_of_kind(shard: ShardId, kind: Kind) -> KeyRange {
    KeyBuf::new(shard, kind as u8, 0).range()
}

/// All rows of a shard.
pub fn all_of_shard(shard: ShardId) -> KeyRange {
    let from = KeyBuf::new(shard, 0, 0).done();
    (from, KeyBuf::new(shard, u8::MAX, 0).done())
}
