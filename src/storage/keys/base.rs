//! Up to which log index a replay only fills in index rows, because the other rows came as a
//! snapshot made there. Absent otherwise. The value is coded as that of [`super::applied`].

use super::parts::KeyBuf;
use super::Kind;
use crate::model::ShardId;

pub fn key(shard: ShardId) -> Vec<u8> {
    KeyBuf::new(shard, Kind::Base as u8, 0).done()
}
