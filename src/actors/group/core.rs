//! One consumer group as a pure state machine: requests, outcomes and time in, effects out.

pub use super::effect::{Answer, Effect, Request};
use super::locks::{Locks, MAX_BATCH, MAX_CLIENT_ID};
use super::members::{Change, Members};
use super::offsets::{Key, Offsets};
use super::proposals::{refuse, request_of, waiting_requests};
use super::types::*;
use crate::actors::link::{ConnId, Notice};
use crate::actors::shard::handle::{GroupState, QueueBounds};
use crate::model::outcome::Refusal;
use crate::model::quota::QuotaExceeded;
use crate::model::GroupId;
use std::collections::BTreeMap;

/// Members are looked through for silence this often, ms.
pub const SCAN_MS: i64 = 10_000;
/// A group without members and work sleeps after this, ms.
pub const SLEEP_AFTER_MS: i64 = 300_000;
/// Requests that wait for the group's state, at most.
pub const MAX_WAITING_FOR_STATE: usize = 10_000;

/// Number of a request that nobody waits for.
const NOBODY: u64 = 0;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StateOf {
    /// Not read yet, or lost by a refusal.
    Unknown,
    /// Being read; the number of the [`Effect::Load`].
    Loading(u64),
    Known,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flight {
    Offsets,
    Locks,
}

/// See the module text.
#[derive(Debug)]
pub struct GroupCore {
    pub(super) name: String,
    limits: GroupLimits,
    pub(super) group: Option<GroupId>,
    pub(super) state: StateOf,
    pub(super) waiting: Vec<(u64, Request)>,
    pub(super) members: Members,
    pub(super) offsets: Offsets,
    pub(super) locks: Locks,
    pub(super) in_flight: BTreeMap<u64, Flight>,
    pub(super) next_id: u64,
    /// Whether the shard has room for offsets and locks in further queues.
    pub(super) room: Result<(), QuotaExceeded>,
    idle_since_ms: i64,
}

impl GroupCore {
    /// A group nobody has spoken to yet.
    pub fn new(name: impl Into<String>, limits: GroupLimits, now_ms: i64) -> Self {
        Self {
            name: name.into(),
            limits,
            group: None,
            state: StateOf::Unknown,
            waiting: Vec::new(),
            members: Members::default(),
            offsets: Offsets::default(),
            locks: Locks::default(),
            in_flight: BTreeMap::new(),
            next_id: 1,
            room: Ok(()),
            idle_since_ms: now_ms,
        }
    }

    /// The group's id as the shard's table has it now; call before every request. Another id than
    /// before means the group was deleted (and perhaps created again): its state is forgotten.
    pub fn identify(&mut self, group: Option<GroupId>, out: &mut Vec<Effect>) {
        if self.group == group {
            return;
        }
        if self.group.is_some() {
            self.forget_state(out);
        }
        self.group = group;
    }

    /// Whether the shard has room for offsets and locks in further queues; call before every request.
    /// What the group has already it may change in any case.
    pub fn set_room(&mut self, room: Result<(), QuotaExceeded>) {
        self.room = room;
    }

    /// The group was deleted.
    pub fn deleted(&mut self, now_ms: i64, out: &mut Vec<Effect>) {
        self.forget_state(out);
        self.group = None;
        let change = self.members.clear();
        self.changed(change, out);
        out.push(Effect::RecheckPulls);
        self.idle_since_ms = now_ms;
    }

    fn forget_state(&mut self, out: &mut Vec<Effect>) {
        let had_resets = !self.offsets.redirects().is_empty();
        let mut failed = waiting_requests(&self.offsets.clear());
        failed.extend(self.locks.clear());
        failed.extend(
            std::mem::take(&mut self.waiting)
                .into_iter()
                .map(|(request, _)| request),
        );
        self.in_flight.clear();
        self.state = StateOf::Unknown;
        refuse(failed, &Refusal::NotFound("group"), out);
        if had_resets {
            out.push(Effect::PublishResets);
        }
    }

    /// Members and subscriptions.
    pub fn members(&self) -> &Members {
        &self.members
    }

    /// Resets that pulls are redirected by.
    pub fn resets(&self) -> BTreeMap<Key, u64> {
        self.offsets.redirects()
    }

    /// Commits of the queue are ignored because of a reset.
    pub fn ignores_commits(&self, key: Key) -> bool {
        self.offsets.ignores_commits(key)
    }

    /// Who holds a live lock, as applied.
    pub fn lock_holder(&self, key: Key, now_ms: i64) -> Option<&str> {
        self.locks.holder(key, now_ms)
    }

    /// A heartbeat.
    pub fn heartbeat(
        &mut self,
        beat: MemberHeartbeat,
        now_ms: i64,
        out: &mut Vec<Effect>,
    ) -> Result<HeartbeatReply, Refusal> {
        let (reply, change) = self.members.heartbeat(beat, &self.limits, now_ms)?;
        self.changed(change, out);
        Ok(reply)
    }

    /// A member unregisters.
    pub fn unregister(
        &mut self,
        conn: ConnId,
        client_id: &str,
        now_ms: i64,
        out: &mut Vec<Effect>,
    ) {
        let change = self.members.unregister(conn, client_id);
        self.left(change, now_ms, out);
    }

    /// A connection closed.
    pub fn conn_closed(&mut self, conn: ConnId, now_ms: i64, out: &mut Vec<Effect>) {
        let change = self.members.conn_closed(conn);
        self.left(change, now_ms, out);
    }

    /// A connection went with the node that had it: see [`Members::conn_lost`].
    pub fn conn_lost(&mut self, conn: ConnId, now_ms: i64, out: &mut Vec<Effect>) {
        let change = self.members.conn_lost(conn, now_ms);
        self.left(change, now_ms, out);
    }

    fn left(&mut self, change: Change, now_ms: i64, out: &mut Vec<Effect>) {
        self.changed(change, out);
        if change.publish && self.members.is_empty() {
            self.idle_since_ms = now_ms;
        }
    }

    fn changed(&mut self, change: Change, out: &mut Vec<Effect>) {
        if change.publish {
            out.push(Effect::PublishMembers);
        }
        if change.filters {
            out.push(Effect::RecheckPulls);
        }
        if change.notify {
            let notice = Notice::MembersChanged {
                group: self.name.clone(),
            };
            out.push(Effect::Notify {
                conns: self.members.conns(),
                notice,
            });
        }
    }

    /// Takes a commit in; `false`: a reset of the queue is pending, it is ignored.
    fn take_commit(&mut self, key: Key, offset: u64, request: Option<u64>, now_ms: i64) -> bool {
        // Who waits for the answer, or owns its position, may go back (decision 6).
        let asked = request.is_some() || self.members.owns_positions();
        // Whether it does is not known before the state is: it is set then.
        let unknown = self.state != StateOf::Known;
        if asked && (unknown || self.offsets.goes_back(key, offset)) {
            self.offsets.set_back(key, offset, request)
        } else {
            self.offsets.commit(key, offset, request, now_ms)
        }
    }

    /// A commit; two-way when `request` is given.
    pub fn commit(
        &mut self,
        key: Key,
        offset: i64,
        bounds: QueueBounds,
        request: Option<u64>,
        now_ms: i64,
        out: &mut Vec<Effect>,
    ) {
        let refused = match u64::try_from(offset) {
            Err(_) => Err(Refusal::Invalid(format!("offset {offset} is negative"))),
            Ok(o) if o > bounds.max => Err(Refusal::Invalid(format!(
                "offset {offset} is beyond the queue's end {}",
                bounds.max
            ))),
            Ok(_) if self.group.is_none() => Err(Refusal::NotFound("group")),
            Ok(o) => Ok(o),
        };
        let answer = match refused {
            Err(refusal) => Err(refusal),
            Ok(offset) if self.room.is_err() => {
                return self.commit_where_known(key, offset, request, now_ms, out);
            }
            Ok(o) if self.take_commit(key, o, request, now_ms) => return self.propose(now_ms, out),
            Ok(_) => Ok(Answer::Committed(Committed::ResetPending)),
        };
        if let Some(request) = request {
            out.push(Effect::Answer { request, answer });
        }
    }

    /// There is room, or the group has an offset in each of the queues.
    fn may_hold(&self, offsets: &[(Key, u64)]) -> bool {
        let mut all = offsets.iter();
        self.room.is_ok() || all.all(|(key, _)| self.offsets.newest(*key).is_some())
    }

    /// A commit while the quota of offsets is used up: whether the group has one in this queue is
    /// seen once its state is known.
    fn commit_where_known(
        &mut self,
        key: Key,
        offset: u64,
        request: Option<u64>,
        now_ms: i64,
        out: &mut Vec<Effect>,
    ) {
        let owed = request.is_some();
        let what = Request::Commit { key, offset, owed };
        self.request(request.unwrap_or(NOBODY), what, now_ms, out);
    }

    /// A client pulled from the new position after a reset.
    pub fn reset_done(&mut self, key: Key, offset: u64, out: &mut Vec<Effect>) {
        self.offsets.reset_done(key, offset);
        out.push(Effect::PublishResets);
    }

    /// A request that needs the group's state; answered by effects, now or later.
    pub fn request(&mut self, request: u64, what: Request, now_ms: i64, out: &mut Vec<Effect>) {
        self.idle_since_ms = now_ms;
        let Some(group) = self.group else {
            return refuse([request], &Refusal::NotFound("group"), out);
        };
        // A reset needs to know nothing, and has to hold against commits from this moment on. Without
        // room it needs to know in which queues the group has an offset.
        let reset = matches!(what, Request::Reset { .. }) && self.room.is_ok();
        let ready = self.state == StateOf::Known || reset;
        match self.state {
            _ if ready => {
                self.serve(request, what, now_ms, out);
                self.propose(now_ms, out);
            }
            _ if self.waiting.len() >= MAX_WAITING_FOR_STATE => {
                refuse([request], &Refusal::Busy, out)
            }
            _ => {
                self.waiting.push((request, what));
                self.load(group, out);
            }
        }
    }

    pub(super) fn load(&mut self, group: GroupId, out: &mut Vec<Effect>) {
        // What is in flight decides what the state is: wait for it.
        if self.state == StateOf::Unknown && self.in_flight.is_empty() {
            let id = self.id();
            self.state = StateOf::Loading(id);
            out.push(Effect::Load { id, group });
        }
    }

    /// The shard's answer to [`Effect::Load`].
    pub fn loaded(
        &mut self,
        id: u64,
        result: Result<GroupState, Refusal>,
        now_ms: i64,
        out: &mut Vec<Effect>,
    ) {
        if self.state != StateOf::Loading(id) {
            return;
        }
        let waiting = std::mem::take(&mut self.waiting);
        match result {
            Ok(state) => {
                self.offsets.restore(state.offsets);
                self.locks.restore(state.locks, now_ms);
                self.state = StateOf::Known;
                for (request, what) in waiting {
                    self.serve(request, what, now_ms, out);
                }
            }
            Err(refusal) => {
                self.state = StateOf::Unknown;
                refuse(
                    waiting.into_iter().map(|(request, _)| request),
                    &refusal,
                    out,
                );
            }
        }
        self.propose(now_ms, out);
    }

    fn serve(&mut self, request: u64, what: Request, now_ms: i64, out: &mut Vec<Effect>) {
        match what {
            Request::Query { key } => {
                if let Some(offset) = self.offsets.query(key, request) {
                    out.push(Effect::Answer {
                        request,
                        answer: Ok(Answer::Offset(offset)),
                    });
                }
            }
            Request::All => {
                let answer = Ok(Answer::Offsets(self.offsets.all()));
                out.push(Effect::Answer { request, answer });
            }
            Request::Reset { offsets, .. } if offsets.len() > self.limits.queues_per_request => {
                self.too_many(request, out);
            }
            Request::Reset { offsets, .. } if !self.may_hold(&offsets) => {
                out.push(Effect::LeftOut(offsets.len() as u64));
                let why = self.room.err().map_or(Refusal::Busy, Refusal::from);
                refuse([request], &why, out);
            }
            Request::Reset { topic, offsets } => {
                for waiter in self.offsets.reset(topic, offsets, request) {
                    let answer = Ok(Answer::Committed(Committed::ResetPending));
                    out.push(Effect::Answer {
                        request: request_of(&waiter),
                        answer,
                    });
                }
            }
            Request::Lock { keys, .. } | Request::Unlock { keys, .. }
                if keys.len() > self.limits.queues_per_request.min(MAX_BATCH) =>
            {
                self.too_many(request, out);
            }
            Request::Lock { client, keys } => self.ask_lock(request, client, keys, false, out),
            Request::Unlock { client, keys } => self.ask_lock(request, client, keys, true, out),
            Request::Commit { key, offset, owed } => {
                if let (Err(why), None) = (self.room, self.offsets.newest(key)) {
                    out.push(Effect::LeftOut(1));
                    return refuse([request], &why.into(), out);
                }
                let asked = owed.then_some(request);
                if !self.take_commit(key, offset, asked, now_ms) {
                    let answer = Ok(Answer::Committed(Committed::ResetPending));
                    out.push(Effect::Answer { request, answer });
                }
            }
            Request::AnyLock => {
                let answer = Ok(Answer::AnyLock(self.locks.any_asked_for(now_ms)));
                out.push(Effect::Answer { request, answer });
            }
        }
    }

    fn ask_lock(
        &mut self,
        request: u64,
        client: String,
        keys: Vec<Key>,
        release: bool,
        out: &mut Vec<Effect>,
    ) {
        if client.is_empty() || client.len() > self.limits.client_id_bytes.min(MAX_CLIENT_ID) {
            refuse(
                [request],
                &Refusal::Invalid("the client id is empty or too long".to_owned()),
                out,
            );
        } else if !self.locks.ask(request, client, keys, release) {
            refuse([request], &Refusal::Busy, out);
        }
    }

    fn too_many(&self, request: u64, out: &mut Vec<Effect>) {
        let text = format!(
            "more than {} queues in one request",
            self.limits.queues_per_request
        );
        refuse([request], &Refusal::Invalid(text), out);
    }

    /// One-way commits wait: call [`GroupCore::propose`] in about 200 ms.
    pub fn wants_flush(&self) -> bool {
        self.offsets.has_waiting()
    }

    /// Every [`SCAN_MS`]: drops silent members. Returns their connections.
    pub fn tick(&mut self, now_ms: i64, out: &mut Vec<Effect>) -> Vec<ConnId> {
        let (gone, change) = self.members.expire(now_ms);
        self.left(change, now_ms, out);
        if !self.quiet() {
            self.idle_since_ms = now_ms;
        }
        self.drop_dead_locks(now_ms, out);
        self.propose(now_ms, out);
        gone
    }

    fn quiet(&self) -> bool {
        self.members.is_empty()
            && self.offsets.is_idle()
            && self.locks.is_idle()
            && self.waiting.is_empty()
            && self.in_flight.is_empty()
            && !matches!(self.state, StateOf::Loading(_))
    }

    /// Nobody needs it: it may be dropped and made again on the next message.
    pub fn may_sleep(&self, now_ms: i64) -> bool {
        self.quiet() && now_ms.saturating_sub(self.idle_since_ms) >= SLEEP_AFTER_MS
    }
}
