//! The members of a shard's Raft group as of the applied index; absent until they first change.

use super::parts::KeyBuf;
use super::Kind;
use crate::model::ShardId;
use crate::storage::StoreError;
use prost::Message;
use std::collections::BTreeMap;

/// Who belongs to the group. During joint consensus both sets of voters must agree.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Members {
    #[prost(uint64, repeated, tag = "1")]
    pub voters: Vec<u64>,
    #[prost(uint64, repeated, tag = "2")]
    pub learners: Vec<u64>,
    /// Voters of the configuration being left.
    #[prost(uint64, repeated, tag = "3")]
    pub voters_outgoing: Vec<u64>,
    #[prost(uint64, repeated, tag = "4")]
    pub learners_next: Vec<u64>,
    #[prost(bool, tag = "5")]
    pub auto_leave: bool,
    /// Nodes that were members: what they still say counts no more.
    #[prost(uint64, repeated, tag = "6")]
    pub removed: Vec<u64>,
    /// Nodes that came with a store of their own after the group was formed, and that store: what
    /// the node promised on an earlier one counts no more.
    #[prost(btree_map = "uint64, uint64", tag = "7")]
    pub admitted: BTreeMap<u64, u64>,
    /// Learners that had a vote before their store was lost, and get it back.
    #[prost(uint64, repeated, tag = "8")]
    pub returning: Vec<u64>,
}

pub fn key(shard: ShardId) -> Vec<u8> {
    KeyBuf::new(shard, Kind::Members as u8, 0).done()
}

pub fn encode(members: &Members) -> Vec<u8> {
    members.encode_to_vec()
}

pub fn decode(value: &[u8]) -> Result<Members, StoreError> {
    Members::decode(value).map_err(|_| StoreError::Corrupt("row of members".into()))
}
