//! How far the state of a shard has got: the index of the last log entry applied to it. Written
//! in the same batch as the rows that entry changed.

use super::parts::{KeyBuf, Parts, ValueReader};
use super::Kind;
use crate::model::ShardId;
use crate::storage::StoreError;

pub fn key(shard: ShardId) -> Vec<u8> {
    KeyBuf::new(shard, Kind::Applied as u8, 0).done()
}

pub fn parse(key: &[u8]) -> Option<ShardId> {
    let (shard, parts) = Parts::open(key, Kind::Applied as u8)?;
    parts.end()?;
    Some(shard)
}

pub fn encode(index: u64) -> Vec<u8> {
    index.to_be_bytes().to_vec()
}

pub fn decode(value: &[u8]) -> Result<u64, StoreError> {
    let mut r = ValueReader::new(value, "applied");
    let index = u64::from_be_bytes(r.fixed()?);
    r.end()?;
    Ok(index)
}
