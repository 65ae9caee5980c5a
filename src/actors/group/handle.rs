//! What callers hold of a shard's consumer groups and of the producers that talk to it. Cheap to
//! clone, usable from any thread.
//!
//! A group's actor is started by the first message to it and sleeps again when idle. Reads that a
//! pull or an admin tool needs ([`Groups::subscription`], [`Groups::members`], …) take a published
//! snapshot: no message. A heartbeat's effect is published before its answer.
//!
//! Offsets and locks need the group to exist in the shard's group table: the gateway creates it
//! first (`MetaOp::PutGroup`); else `NotFound("group")`.

use super::actor::{Mail, Reply, SCAN_EVERY};
use super::core::{Answer, Request};
use super::directory::{Clock, GroupStore, Sent, Shared};
use super::types::*;
use crate::actors::clock::boot_ms;
use crate::actors::link::{ClientLink, ConnId};
use crate::actors::shard::handle::QueueBounds;
use crate::actors::shard::ShardHandle;
use crate::model::outcome::Refusal;
use crate::model::QueueKey;
use actix_rt::ArbiterHandle;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

const GONE: Refusal = Refusal::Unavailable("the group's actor stopped");

/// See the module text.
#[derive(Clone)]
pub struct Groups {
    shared: Arc<Shared>,
}

impl Groups {
    /// The groups of one shard; their actors run on `arbiter` (the shard's).
    pub fn new(
        shard: ShardHandle,
        arbiter: ArbiterHandle,
        link: Arc<dyn ClientLink>,
        limits: GroupLimits,
    ) -> Self {
        Self::with_store(
            Arc::new(shard),
            arbiter,
            link,
            limits,
            Arc::new(boot_ms),
            SCAN_EVERY,
        )
    }

    /// The same over any store and clock; `scan_every` is the time between two looks for silent
    /// members.
    pub fn with_store(
        store: Arc<dyn GroupStore>,
        arbiter: ArbiterHandle,
        link: Arc<dyn ClientLink>,
        limits: GroupLimits,
        clock: Clock,
        scan_every: Duration,
    ) -> Self {
        Self {
            shared: Arc::new(Shared::new(store, link, arbiter, limits, clock, scan_every)),
        }
    }

    /// Forgets all members, producers and cached offsets. Call it when this node begins or ceases
    /// to lead the shard: another leader may have changed what groups remember. Never blocks.
    pub fn reset(&self) {
        self.shared.reset();
    }

    /// Group actors that are awake.
    pub fn awake(&self) -> usize {
        self.shared.awake()
    }

    /// Whether the connection, which joins `ahead` other groups first, may join the group.
    pub fn may_join(&self, group: &str, conn: ConnId, ahead: usize) -> Result<(), Refusal> {
        self.shared.may_join(group, conn, ahead)
    }

    /// HEART_BEAT of one consumer group. `Invalid` when it breaks a limit.
    pub async fn heartbeat(
        &self,
        group: &str,
        beat: MemberHeartbeat,
    ) -> Result<HeartbeatReply, Refusal> {
        self.shared.remember_conn(group, &beat)?;
        let (reply, answer) = oneshot::channel();
        self.shared.send(group, Mail::Heartbeat { beat, reply })?;
        answer.await.unwrap_or(Err(GONE))
    }

    /// UNREGISTER_CLIENT, consumer side.
    pub async fn unregister(
        &self,
        group: &str,
        conn: ConnId,
        client_id: &str,
    ) -> Result<(), Refusal> {
        let (reply, answer) = oneshot::channel();
        let mail = Mail::Unregister {
            conn,
            client_id: client_id.to_owned(),
            reply,
        };
        match self.shared.send_awake(group, mail) {
            Sent::Yes => answer.await.map_err(|_| GONE),
            // Asleep: it has no members.
            Sent::Asleep(_) => Ok(()),
            Sent::Refused(refusal) => Err(refusal),
        }
    }

    /// A connection closed: its consumers and producers leave at once. Call
    /// it after the connection's last request was handed over. Never blocks.
    pub fn conn_closed(&self, conn: ConnId) {
        self.conn_ended(conn, false);
    }

    /// A connection went with the node that had it: its consumers stay for a while, because they
    /// are probably there and will be heard by another connection. As [`Groups::conn_closed`].
    pub fn conn_lost(&self, conn: ConnId) {
        self.conn_ended(conn, true);
    }

    fn conn_ended(&self, conn: ConnId, lost: bool) {
        self.shared.producers.lock().conn_closed(conn);
        for group in self.shared.take_conn(conn) {
            // Asleep: it has no members.
            let _ = self
                .shared
                .send_awake(&group, Mail::ConnClosed { conn, lost });
        }
    }

    /// The group was deleted (after `MetaOp::DeleteGroup` was applied): offsets, locks, resets and
    /// members are forgotten. Never blocks.
    pub fn group_deleted(&self, group: &str) {
        let _ = self.shared.send_awake(group, Mail::Deleted);
    }

    /// Members and subscriptions as of now; `None` when nobody is online.
    pub fn members(&self, group: &str) -> Option<Arc<GroupMembers>> {
        self.shared
            .cell(group)
            .map(|c| c.members())
            .filter(|m| !m.connections.is_empty())
    }

    /// GET_CONSUMER_LIST_BY_GROUP 38: every client id once, sorted; empty when nobody is online.
    pub fn consumer_ids(&self, group: &str) -> Vec<String> {
        self.shared
            .cell(group)
            .map(|c| c.members().client_ids.clone())
            .unwrap_or_default()
    }

    /// What the group subscribes to on this topic; `None` is code 24. Hot path.
    pub fn subscription(&self, group: &str, topic: &str) -> Option<Arc<Subscription>> {
        self.shared.cell(group)?.subscription(topic)
    }

    /// Groups that are online and subscribe to the topic, sorted.
    pub fn groups_of_topic(&self, topic: &str) -> Vec<String> {
        let mut found = Vec::new();
        self.shared.for_each(|name, cell| {
            if cell.subscription(topic).is_some() {
                found.push(name.to_owned());
            }
        });
        found.sort_unstable();
        found
    }

    /// Groups with members online, sorted.
    pub fn online(&self) -> Vec<String> {
        let mut found = Vec::new();
        self.shared.for_each(|name, cell| {
            if !cell.members().connections.is_empty() {
                found.push(name.to_owned());
            }
        });
        found.sort_unstable();
        found
    }

    /// Where an operator moved the group in a queue, until a client pulls from there.
    pub fn moved_to(&self, group: &str, queue: QueueKey) -> Option<u64> {
        self.shared
            .cell(group)?
            .reset_of((queue.topic.0, queue.queue))
    }

    /// Where a pull at `offset` has to go instead because an operator reset the queue (code 21
    /// with this offset); `None`: go on. A pull at the new position ends the reset. Hot path.
    pub fn reset_position(&self, group: &str, queue: QueueKey, offset: i64) -> Option<u64> {
        let key = (queue.topic.0, queue.queue);
        let cell = self.shared.cell(group)?;
        let to = cell.reset_of(key)?;
        if u64::try_from(offset) != Ok(to) {
            return Some(to);
        }
        cell.end_reset(key);
        let _ = self
            .shared
            .send_awake(group, Mail::ResetDone { key, offset: to });
        None
    }

    /// An operator reset the queue, as far as this node knows, and nobody has pulled from the new
    /// position yet. Hot path.
    pub fn is_reset(&self, group: &str, queue: QueueKey) -> bool {
        let cell = self.shared.cell(group);
        cell.is_some_and(|cell| cell.reset_of((queue.topic.0, queue.queue)).is_some())
    }

    /// One-way commit (one-way 15, or the commit bit of a pull); coalesced, proposed within about
    /// 200 ms. Negative offsets and those beyond `bounds.max` are dropped. Never blocks.
    pub fn commit_offset(&self, group: &str, queue: QueueKey, offset: i64, bounds: QueueBounds) {
        if offset < 0 || self.shared.store.group_id(group).is_none() {
            return;
        }
        let key = (queue.topic.0, queue.queue);
        // Best effort like the request itself: the client commits again.
        let _ = self.shared.send(
            group,
            Mail::Commit {
                key,
                offset,
                bounds,
                reply: None,
            },
        );
    }

    /// Two-way commit: answered when applied. `Invalid` for offsets out of bounds.
    pub async fn commit_offset_wait(
        &self,
        group: &str,
        queue: QueueKey,
        offset: i64,
        bounds: QueueBounds,
    ) -> Result<Committed, Refusal> {
        let key = (queue.topic.0, queue.queue);
        match self
            .ask(group, |reply| Mail::Commit {
                key,
                offset,
                bounds,
                reply: Some(reply),
            })
            .await?
        {
            Answer::Committed(committed) => Ok(committed),
            _ => Err(GONE),
        }
    }

    /// QUERY_CONSUMER_OFFSET 14: never older than what was committed through this node before.
    pub async fn query_offset(&self, group: &str, queue: QueueKey) -> Result<Option<u64>, Refusal> {
        match self
            .request(
                group,
                Request::Query {
                    key: (queue.topic.0, queue.queue),
                },
            )
            .await?
        {
            Answer::Offset(offset) => Ok(offset),
            _ => Err(GONE),
        }
    }

    /// All offsets of the group, (topic id, queue) → offset, waiting commits included.
    pub async fn offsets_of(&self, group: &str) -> Result<BTreeMap<(u32, u32), u64>, Refusal> {
        match self.request(group, Request::All).await? {
            Answer::Offsets(offsets) => Ok(offsets),
            _ => Err(GONE),
        }
    }

    /// Sets offsets (operator; may go back): `queues` are (queue, new offset) of one topic, already
    /// within bounds. Until a client pulls from the new position its commits are ignored and its
    /// pulls are redirected ([`Groups::reset_position`]). Members get `Notice::OffsetsReset`.
    pub async fn reset_offsets(
        &self,
        group: &str,
        topic: &str,
        topic_id: u32,
        queues: Vec<(u32, u64)>,
    ) -> Result<(), Refusal> {
        let offsets = queues
            .into_iter()
            .map(|(queue, offset)| ((topic_id, queue), offset))
            .collect();
        self.request(
            group,
            Request::Reset {
                topic: topic.to_owned(),
                offsets,
            },
        )
        .await
        .map(|_| ())
    }

    /// LOCK_BATCH_MQ 41: the asked queues that `client_id` now holds, in the order asked.
    pub async fn lock(
        &self,
        group: &str,
        client_id: &str,
        queues: Vec<QueueKey>,
    ) -> Result<Vec<QueueKey>, Refusal> {
        let keys = queues.iter().map(|q| (q.topic.0, q.queue)).collect();
        match self
            .request(
                group,
                Request::Lock {
                    client: client_id.to_owned(),
                    keys,
                },
            )
            .await?
        {
            Answer::Locked(held) => Ok(held
                .into_iter()
                .map(|(topic, queue)| QueueKey::new(crate::model::TopicId(topic), queue))
                .collect()),
            _ => Err(GONE),
        }
    }

    /// UNLOCK_BATCH_MQ 42: releases those that `client_id` holds.
    pub async fn unlock(
        &self,
        group: &str,
        client_id: &str,
        queues: Vec<QueueKey>,
    ) -> Result<(), Refusal> {
        let keys = queues.iter().map(|q| (q.topic.0, q.queue)).collect();
        self.request(
            group,
            Request::Unlock {
                client: client_id.to_owned(),
                keys,
            },
        )
        .await
        .map(|_| ())
    }

    /// Whether a member of the group holds the lock of any queue: the group consumes orderly. Not
    /// known of locks that another leader gave until they are renewed.
    pub async fn holds_locks(&self, group: &str) -> Result<bool, Refusal> {
        match self.request(group, Request::AnyLock).await? {
            Answer::AnyLock(any) => Ok(any),
            _ => Err(GONE),
        }
    }

    async fn request(&self, group: &str, what: Request) -> Result<Answer, Refusal> {
        self.ask(group, |reply| Mail::Request { what, reply }).await
    }

    async fn ask(&self, group: &str, mail: impl FnOnce(Reply) -> Mail) -> Result<Answer, Refusal> {
        // Do not wake an actor for a group that is not there.
        if self.shared.store.group_id(group).is_none() {
            return Err(Refusal::NotFound("group"));
        }
        let (reply, answer) = oneshot::channel();
        self.shared.send(group, mail(reply))?;
        answer.await.unwrap_or(Err(GONE))
    }

    /// HEART_BEAT of one producer group (`last_update_ms` is set here).
    pub fn producer_heartbeat(&self, group: &str, connection: Connection) -> Result<(), Refusal> {
        let now_ms = self.shared.now_ms();
        self.shared
            .producers
            .lock()
            .heartbeat(group, connection, &self.shared.limits, now_ms)
    }

    /// UNREGISTER_CLIENT, producer side.
    pub fn producer_unregister(&self, group: &str, conn: ConnId) {
        self.shared.producers.lock().unregister(group, conn);
    }

    /// GET_PRODUCER_CONNECTION_LIST 204; empty is code 1.
    pub fn producer_connections(&self, group: &str) -> Vec<Connection> {
        let mut producers = self.shared.producers.lock();
        producers.expire(self.shared.now_ms());
        producers.connections(group)
    }

    /// GET_ALL_PRODUCER_INFO 328, sorted by group.
    pub fn producers(&self) -> BTreeMap<String, Vec<Connection>> {
        let mut producers = self.shared.producers.lock();
        producers.expire(self.shared.now_ms());
        producers.all()
    }
}
