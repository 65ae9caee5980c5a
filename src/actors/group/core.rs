//! One consumer group as a pure state machine: requests, outcomes and time in, effects out.

use super::locks::Locks;
use super::members::{Change, Members};
use super::offsets::{Key, Offsets, Waiter};
use super::types::*;
use crate::actors::link::{ConnId, Notice};
use crate::actors::shard::handle::{GroupState, QueueBounds};
use crate::model::command::{CommitOffsets, LockChange, MetaOp};
use crate::model::outcome::Refusal;
use crate::model::GroupId;
use std::collections::BTreeMap;

/// Members are looked through for silence this often, ms.
pub const SCAN_MS: i64 = 10_000;
/// A group without members and work sleeps after this, ms.
pub const SLEEP_AFTER_MS: i64 = 300_000;
/// Requests that wait for the group's state, at most.
pub const MAX_WAITING_FOR_STATE: usize = 10_000;

/// Answer to a request that waited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Committed(Committed),
    Offset(Option<u64>),
    Offsets(BTreeMap<Key, u64>),
    Reset,
    Locked(Vec<Key>),
    Unlocked,
}

/// A request that needs the group's replicated state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    Query {
        key: Key,
    },
    All,
    Reset {
        topic: String,
        offsets: Vec<(Key, u64)>,
    },
    Lock {
        client: String,
        keys: Vec<Key>,
    },
    Unlock {
        client: String,
        keys: Vec<Key>,
    },
}

/// What the shell has to do, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Propose to the shard and report with [`GroupCore::proposal_done`].
    Propose { id: u64, op: MetaOp },
    /// Read the group's state from the shard and report with [`GroupCore::loaded`].
    Load { id: u64, group: GroupId },
    /// Tell members.
    Notify { conns: Vec<ConnId>, notice: Notice },
    /// Publish members and subscriptions for readers.
    PublishMembers,
    /// Publish the pending resets for readers.
    PublishResets,
    /// Answer a request.
    Answer {
        request: u64,
        answer: Result<Answer, Refusal>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StateOf {
    /// Not read yet, or lost by a refusal.
    Unknown,
    /// Being read; the number of the [`Effect::Load`].
    Loading(u64),
    Known,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flight {
    Offsets,
    Locks,
}

/// See the module text.
#[derive(Debug)]
pub struct GroupCore {
    name: String,
    limits: GroupLimits,
    group: Option<GroupId>,
    state: StateOf,
    waiting: Vec<(u64, Request)>,
    members: Members,
    offsets: Offsets,
    locks: Locks,
    in_flight: BTreeMap<u64, Flight>,
    next_id: u64,
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

    /// The group was deleted.
    pub fn deleted(&mut self, now_ms: i64, out: &mut Vec<Effect>) {
        self.forget_state(out);
        self.group = None;
        let change = self.members.clear();
        self.changed(change, out);
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
            Ok(o) if self.offsets.commit(key, o, request, now_ms) => {
                return self.propose(now_ms, out)
            }
            Ok(_) => Ok(Answer::Committed(Committed::ResetPending)),
        };
        if let Some(request) = request {
            out.push(Effect::Answer { request, answer });
        }
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
        // A reset needs to know nothing, and has to hold against commits from this moment on.
        let ready = self.state == StateOf::Known || matches!(what, Request::Reset { .. });
        match self.state {
            _ if ready => {
                self.serve(request, what, out);
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

    fn load(&mut self, group: GroupId, out: &mut Vec<Effect>) {
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
                self.locks.restore(state.locks);
                self.state = StateOf::Known;
                for (request, what) in waiting {
                    self.serve(request, what, out);
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

    fn serve(&mut self, request: u64, what: Request, out: &mut Vec<Effect>) {
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
                if keys.len() > self.limits.queues_per_request =>
            {
                self.too_many(request, out);
            }
            Request::Lock { client, keys } => self.ask_lock(request, client, keys, false, out),
            Request::Unlock { client, keys } => self.ask_lock(request, client, keys, true, out),
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
        if client.is_empty() || client.len() > self.limits.client_id_bytes {
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

    /// Proposes what can be proposed now. Also the 200 ms tick while [`GroupCore::wants_flush`].
    pub fn propose(&mut self, now_ms: i64, out: &mut Vec<Effect>) {
        let Some(GroupId(group)) = self.group else {
            return;
        };
        // While the state is read, or has to be read first, nothing new starts.
        if self.state != StateOf::Known
            && (self.state != StateOf::Unknown || !self.waiting.is_empty())
        {
            return;
        }
        if let Some(batch) = self.offsets.next_batch(now_ms) {
            let id = self.fly(Flight::Offsets);
            let op = CommitOffsets {
                group,
                offsets: batch.offsets,
                reset: batch.reset,
            };
            out.push(Effect::Propose {
                id,
                op: MetaOp::CommitOffsets(op),
            });
        }
        while let Some(batch) = self.locks.next_batch(now_ms) {
            if batch.changes.is_empty() {
                self.answer_locks(batch.answers, out);
                continue;
            }
            let id = self.fly(Flight::Locks);
            let op = LockChange {
                group,
                queues: batch.changes,
                at_ms: batch.at_ms,
            };
            out.push(Effect::Propose {
                id,
                op: MetaOp::Locks(op),
            });
        }
    }

    fn fly(&mut self, flight: Flight) -> u64 {
        let id = self.id();
        self.in_flight.insert(id, flight);
        id
    }

    fn id(&mut self) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        id
    }

    /// The outcome of [`Effect::Propose`]. One that belongs to a deleted group is ignored.
    pub fn proposal_done(
        &mut self,
        id: u64,
        result: Result<u64, Refusal>,
        now_ms: i64,
        out: &mut Vec<Effect>,
    ) {
        let Some(flight) = self.in_flight.remove(&id) else {
            return;
        };
        match (flight, result) {
            (Flight::Offsets, Ok(_)) => self.offsets_applied(now_ms, out),
            (Flight::Locks, Ok(_)) => {
                let answers = self.locks.applied();
                self.answer_locks(answers, out);
            }
            (flight, Err(refusal)) => self.proposal_refused(flight, &refusal, now_ms, out),
        }
        if let (Some(group), false) = (self.group, self.waiting.is_empty()) {
            self.load(group, out);
        }
        self.propose(now_ms, out);
    }

    fn offsets_applied(&mut self, now_ms: i64, out: &mut Vec<Effect>) {
        let Some(batch) = self.offsets.applied() else {
            return;
        };
        for waiter in &batch.waiters {
            if let (Waiter::Query { request, key }, true) = (waiter, self.state != StateOf::Known) {
                // The rest of the state was lost meanwhile: a smaller commit says nothing.
                self.waiting.push((*request, Request::Query { key: *key }));
                continue;
            }
            let answer = match waiter {
                Waiter::Commit { .. } => Answer::Committed(Committed::Applied),
                Waiter::Query { key, .. } => Answer::Offset(self.offsets.get(*key)),
                Waiter::Reset { .. } => Answer::Reset,
            };
            out.push(Effect::Answer {
                request: request_of(waiter),
                answer: Ok(answer),
            });
        }
        if let Some(topic) = batch.topic {
            out.push(Effect::PublishResets);
            let offsets = batch.offsets.iter().map(|o| (o.queue, o.offset)).collect();
            let notice = Notice::OffsetsReset {
                group: self.name.clone(),
                topic,
                offsets,
                at_ms: now_ms,
            };
            if !self.members.is_empty() {
                out.push(Effect::Notify {
                    conns: self.members.conns(),
                    notice,
                });
            }
        }
    }

    fn proposal_refused(
        &mut self,
        flight: Flight,
        refusal: &Refusal,
        now_ms: i64,
        out: &mut Vec<Effect>,
    ) {
        match flight {
            Flight::Offsets => {
                if let Some(batch) = self.offsets.refused(now_ms) {
                    refuse(waiting_requests(&batch.waiters), refusal, out);
                    if batch.reset {
                        out.push(Effect::PublishResets);
                    }
                }
            }
            Flight::Locks => refuse(self.locks.refused(), refusal, out),
        }
        if matches!(
            refusal,
            Refusal::NotLeader | Refusal::Indeterminate | Refusal::Unavailable(_)
        ) {
            // Somebody else may have changed the state, or this change may still happen: what
            // waits fails, and the state is read again before it is used.
            let had_resets = !self.offsets.redirects().is_empty();
            let mut failed = waiting_requests(&self.offsets.forget_applied());
            failed.extend(self.locks.forget_applied());
            refuse(failed, refusal, out);
            if had_resets {
                out.push(Effect::PublishResets);
            }
            self.state = StateOf::Unknown;
        }
    }

    fn answer_locks(&mut self, answers: Vec<super::locks::LockAnswer>, out: &mut Vec<Effect>) {
        for a in answers {
            let answer = Ok(a.held.map_or(Answer::Unlocked, Answer::Locked));
            out.push(Effect::Answer {
                request: a.request,
                answer,
            });
        }
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

fn request_of(waiter: &Waiter) -> u64 {
    match waiter {
        Waiter::Commit { request } | Waiter::Query { request, .. } | Waiter::Reset { request } => {
            *request
        }
    }
}

fn waiting_requests(waiters: &[Waiter]) -> Vec<u64> {
    waiters.iter().map(request_of).collect()
}

fn refuse(requests: impl IntoIterator<Item = u64>, refusal: &Refusal, out: &mut Vec<Effect>) {
    for request in requests {
        out.push(Effect::Answer {
            request,
            answer: Err(refusal.clone()),
        });
    }
}
