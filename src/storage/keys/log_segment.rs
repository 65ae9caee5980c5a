//! Summaries of stretches of the log, by which retention decides what to drop.

use super::parts::{put_int, put_uint, KeyBuf, Parts, ValueReader};
use super::Kind;
use crate::model::ShardId;
use crate::storage::StoreError;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogSegment {
    /// First and last log index, both included.
    pub first_index: u64,
    pub last_index: u64,
    /// Sum of the entries' data in bytes.
    pub bytes: u64,
    /// Smallest and largest store time of its messages, milliseconds.
    pub min_ts: i64,
    pub max_ts: i64,
    /// Raft term of the last entry: needed to trim the log behind it.
    pub last_term: u64,
    /// It takes no more entries, also after a restart with another size of segments.
    pub closed: bool,
}

impl LogSegment {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(48);
        put_uint(&mut out, self.first_index);
        put_uint(&mut out, self.last_index);
        put_uint(&mut out, self.bytes);
        put_int(&mut out, self.min_ts);
        put_int(&mut out, self.max_ts);
        put_uint(&mut out, self.last_term);
        put_uint(&mut out, self.closed.into());
        out
    }

    /// It begins at `first` now, which lies in it. Entries count as equally large.
    pub fn shorten(&mut self, first: u64) {
        let entries = |from: u64| u128::from(self.last_index + 1 - from);
        let all = entries(self.first_index).max(1);
        let left = u128::from(self.bytes) * entries(first) / all;
        self.bytes = u64::try_from(left).unwrap_or(self.bytes);
        self.first_index = first;
    }

    pub fn decode(value: &[u8]) -> Result<Self, StoreError> {
        let mut r = ValueReader::new(value, "log segment");
        let mut segment = Self {
            first_index: r.uint()?,
            last_index: r.uint()?,
            bytes: r.uint()?,
            min_ts: r.int()?,
            max_ts: r.int()?,
            last_term: r.uint()?,
            closed: false,
        };
        // Rows of the first version end here.
        if r.remaining() > 0 {
            segment.closed = r.uint()? != 0;
        }
        r.end()?;
        Ok(segment)
    }
}

pub fn key(shard: ShardId, seq: u64) -> Vec<u8> {
    KeyBuf::new(shard, Kind::LogSegment as u8, 8)
        .u64(seq)
        .done()
}

pub fn parse(key: &[u8]) -> Option<(ShardId, u64)> {
    let (shard, mut parts) = Parts::open(key, Kind::LogSegment as u8)?;
    let seq = parts.u64()?;
    parts.end()?;
    Some((shard, seq))
}
