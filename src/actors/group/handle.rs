//! What callers hold of a shard's consumer groups and of the producers that talk to it. Cheap to
//! clone, usable from any thread.
//!
//! A group's actor is started by the first message to it and sleeps again when idle. Reads that a
//! pull or an admin tool needs ([`Groups::subscription`], [`Groups::members`], …) take a published
//! snapshot: no message. A heartbeat's effect is published before its answer.
//!
//! Offsets and locks need the group to exist in the shard's group table: the gateway creates it
//! first (`MetaOp::PutGroup`); else `NotFound("group")`.

use super::types::*;
use crate::actors::link::ConnId;
use crate::actors::shard::handle::QueueBounds;
use crate::model::outcome::Refusal;
use crate::model::QueueKey;
use std::collections::BTreeMap;
use std::sync::Arc;

/// See the module text.
#[derive(Clone)]
pub struct Groups {}

impl Groups {
    /// HEART_BEAT of one consumer group. `Invalid` when it breaks a limit.
    pub async fn heartbeat(
        &self,
        _group: &str,
        _beat: MemberHeartbeat,
    ) -> Result<HeartbeatReply, Refusal> {
        todo!()
    }
    /// UNREGISTER_CLIENT, consumer side.
    pub async fn unregister(
        &self,
        _group: &str,
        _conn: ConnId,
        _client_id: &str,
    ) -> Result<(), Refusal> {
        todo!()
    }
    /// A connection closed: its consumers and producers leave at once. Never blocks.
    pub fn conn_closed(&self, _conn: ConnId) {
        todo!()
    }
    /// The group was deleted (after `MetaOp::DeleteGroup` was applied): offsets, locks, resets and
    /// members are forgotten. Never blocks.
    pub fn group_deleted(&self, _group: &str) {
        todo!()
    }

    /// Members and subscriptions as of now; `None` when nobody is online.
    pub fn members(&self, _group: &str) -> Option<Arc<GroupMembers>> {
        todo!()
    }
    /// GET_CONSUMER_LIST_BY_GROUP 38: every client id once, sorted; empty when nobody is online.
    pub fn consumer_ids(&self, _group: &str) -> Vec<String> {
        todo!()
    }
    /// What the group subscribes to on this topic; `None` is code 24. Hot path.
    pub fn subscription(&self, _group: &str, _topic: &str) -> Option<Arc<Subscription>> {
        todo!()
    }
    /// Groups that are online and subscribe to the topic, sorted.
    pub fn groups_of_topic(&self, _topic: &str) -> Vec<String> {
        todo!()
    }
    /// Groups with members online, sorted.
    pub fn online(&self) -> Vec<String> {
        todo!()
    }

    /// Where a pull at `offset` has to go instead because an operator reset the queue (code 21
    /// with this offset); `None`: go on. A pull at the new position ends the reset. Hot path.
    pub fn reset_position(&self, _group: &str, _queue: QueueKey, _offset: i64) -> Option<u64> {
        todo!()
    }

    /// One-way commit (one-way 15, or the commit bit of a pull); coalesced, proposed within about
    /// 200 ms. Negative offsets and those beyond `bounds.max` are dropped. Never blocks.
    pub fn commit_offset(
        &self,
        _group: &str,
        _queue: QueueKey,
        _offset: i64,
        _bounds: QueueBounds,
    ) {
        todo!()
    }
    /// Two-way commit: answered when applied. `Invalid` for offsets out of bounds.
    pub async fn commit_offset_wait(
        &self,
        _group: &str,
        _queue: QueueKey,
        _offset: i64,
        _bounds: QueueBounds,
    ) -> Result<Committed, Refusal> {
        todo!()
    }
    /// QUERY_CONSUMER_OFFSET 14: never older than what was committed through this node before.
    pub async fn query_offset(
        &self,
        _group: &str,
        _queue: QueueKey,
    ) -> Result<Option<u64>, Refusal> {
        todo!()
    }
    /// All offsets of the group, (topic id, queue) → offset, waiting commits included.
    pub async fn offsets_of(&self, _group: &str) -> Result<BTreeMap<(u32, u32), u64>, Refusal> {
        todo!()
    }
    /// Sets offsets (operator; may go back): `queues` are (queue, new offset) of one topic, already
    /// within bounds. Until a client pulls from the new position its commits are ignored and its
    /// pulls are redirected ([`Groups::reset_position`]). Members get `Notice::OffsetsReset`.
    pub async fn reset_offsets(
        &self,
        _group: &str,
        _topic: &str,
        _topic_id: u32,
        _queues: Vec<(u32, u64)>,
    ) -> Result<(), Refusal> {
        todo!()
    }

    /// LOCK_BATCH_MQ 41: the asked queues that `client_id` now holds, in the order asked.
    pub async fn lock(
        &self,
        _group: &str,
        _client_id: &str,
        _queues: Vec<QueueKey>,
    ) -> Result<Vec<QueueKey>, Refusal> {
        todo!()
    }
    /// UNLOCK_BATCH_MQ 42: releases those that `client_id` holds.
    pub async fn unlock(
        &self,
        _group: &str,
        _client_id: &str,
        _queues: Vec<QueueKey>,
    ) -> Result<(), Refusal> {
        todo!()
    }

    /// HEART_BEAT of one producer group (`last_update_ms` is set here).
    pub fn producer_heartbeat(&self, _group: &str, _connection: Connection) -> Result<(), Refusal> {
        todo!()
    }
    /// UNREGISTER_CLIENT, producer side.
    pub fn producer_unregister(&self, _group: &str, _conn: ConnId) {
        todo!()
    }
    /// GET_PRODUCER_CONNECTION_LIST 204; empty is code 1.
    pub fn producer_connections(&self, _group: &str) -> Vec<Connection> {
        todo!()
    }
    /// GET_ALL_PRODUCER_INFO 328, sorted by group.
    pub fn producers(&self) -> BTreeMap<String, Vec<Connection>> {
        todo!()
    }
}
