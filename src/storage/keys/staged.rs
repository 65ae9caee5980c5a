//! A snapshot that comes in, as far as it is there: a head row that names it, and its bytes, a row
//! a part by offset. Dropped when it is installed, or when another one begins.

use super::parts::{KeyBuf, Parts};
use super::{KeyRange, Kind};
use crate::model::ShardId;
use crate::storage::StoreError;
use bytes::{Buf, BufMut};

pub fn head_key(shard: ShardId) -> Vec<u8> {
    KeyBuf::new(shard, Kind::Staged as u8, 0).done()
}

pub fn part_key(shard: ShardId, offset: u64) -> Vec<u8> {
    KeyBuf::new(shard, Kind::Staged as u8, 8).u64(offset).done()
}

/// The rows of all parts from this offset on.
pub fn parts(shard: ShardId, from: u64) -> KeyRange {
    let (_, to) = super::all_of_kind(shard, Kind::Staged);
    (part_key(shard, from), to)
}

/// The offset of a part's row.
pub fn offset_of(key: &[u8]) -> Option<u64> {
    let (_, mut rest) = Parts::open(key, Kind::Staged as u8)?;
    rest.u64()
}

/// Index and term of the snapshot's last entry, length and CRC-32 of its data.
pub fn encode_head(head: (u64, u64, u64, u32)) -> Vec<u8> {
    let mut out = Vec::with_capacity(28);
    for number in [head.0, head.1, head.2] {
        out.put_u64(number);
    }
    out.put_u32(head.3);
    out
}

pub fn decode_head(mut value: &[u8]) -> Result<(u64, u64, u64, u32), StoreError> {
    if value.len() != 28 {
        return Err(StoreError::Corrupt("head row of a snapshot".into()));
    }
    let numbers = (value.get_u64(), value.get_u64(), value.get_u64());
    Ok((numbers.0, numbers.1, numbers.2, value.get_u32()))
}

/// The bytes behind their CRC-32.
pub fn encode_part(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(4 + bytes.len());
    out.put_u32(crc32fast::hash(bytes));
    out.put_slice(bytes);
    out
}

/// `None` when the checksum is wrong.
pub fn decode_part(mut value: &[u8]) -> Option<&[u8]> {
    if value.len() < 4 {
        return None;
    }
    (value.get_u32() == crc32fast::hash(value)).then_some(value)
}
