//! The actix shell of one consumer group: runs the core, performs its effects, and goes to sleep
//! when nobody needs the group.

use super::core::{Answer, Effect, GroupCore, Request, SCAN_MS};
use super::directory::{Cell, Shared};
use super::offsets::{Key, COALESCE_MS};
use super::types::*;
use crate::actors::link::ConnId;
use crate::actors::shard::handle::{GroupState, ProposalResult, QueueBounds};
use crate::model::outcome::Refusal;
use actix::prelude::*;
use rustc_hash::FxHashMap;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// Where the answer to a request goes.
pub type Reply = oneshot::Sender<Result<Answer, Refusal>>;

/// What handles send. Counted, so that an actor with mail never goes to sleep.
#[derive(Message)]
#[rtype(result = "()")]
pub enum Mail {
    Heartbeat {
        beat: MemberHeartbeat,
        reply: oneshot::Sender<Result<HeartbeatReply, Refusal>>,
    },
    Unregister {
        conn: ConnId,
        client_id: String,
        reply: oneshot::Sender<()>,
    },
    ConnClosed {
        /// It went with another node.
        lost: bool,
        conn: ConnId,
    },
    Deleted,
    /// The actor ends; who waits is told that it is gone.
    Closed,
    Commit {
        key: Key,
        offset: i64,
        bounds: QueueBounds,
        reply: Option<Reply>,
    },
    ResetDone {
        key: Key,
        offset: u64,
    },
    Request {
        what: Request,
        reply: Reply,
    },
}

/// The shard's answers.
#[derive(Message)]
#[rtype(result = "()")]
enum FromShard {
    Done {
        id: u64,
        result: ProposalResult,
    },
    Loaded {
        id: u64,
        result: Result<GroupState, Refusal>,
    },
}

/// See the module text.
pub struct GroupActor {
    name: Arc<str>,
    core: GroupCore,
    cell: Arc<Cell>,
    shared: Arc<Shared>,
    replies: FxHashMap<u64, Reply>,
    next_request: u64,
    flush_armed: bool,
    /// The time of serving that it belongs to: it ends with that.
    epoch: u64,
}

impl GroupActor {
    /// Starts the actor on the shard's arbiter; returns at once.
    pub(super) fn launch(name: Arc<str>, cell: Arc<Cell>, shared: Arc<Shared>) -> Addr<Self> {
        let arbiter = shared.arbiter.clone();
        // Here, under the directory's lock: whoever is made before a change is ended by it.
        let epoch = shared.store.epoch();
        Self::start_in_arbiter(&arbiter, move |_| {
            let core = GroupCore::new(&*name, shared.limits, shared.now_ms());
            Self {
                name,
                core,
                cell,
                shared,
                replies: FxHashMap::default(),
                next_request: 1,
                flush_armed: false,
                epoch,
            }
        })
    }

    fn register(&mut self, reply: Reply) -> u64 {
        let request = self.next_request;
        self.next_request += 1;
        self.replies.insert(request, reply);
        request
    }

    fn perform(&mut self, effects: Vec<Effect>, ctx: &mut Context<Self>) {
        for effect in effects {
            match effect {
                Effect::Propose { id, op } => {
                    let addr = ctx.address();
                    let done = Box::new(move |result| addr.do_send(FromShard::Done { id, result }));
                    self.shared.store.propose(self.epoch, op, done);
                }
                Effect::Load { id, group } => {
                    let state = self.shared.store.load(group);
                    let addr = ctx.address();
                    ctx.spawn(
                        async move {
                            let result = state.await;
                            addr.do_send(FromShard::Loaded { id, result });
                        }
                        .into_actor(self),
                    );
                }
                Effect::Notify { conns, notice } => {
                    if self.shared.store.notices_enabled(&self.name) {
                        for conn in conns {
                            self.shared.link.notify(conn, &notice);
                        }
                    }
                }
                Effect::PublishMembers => self.cell.publish_members(self.core.members().snapshot()),
                Effect::PublishResets => self.cell.publish_resets(self.core.resets()),
                Effect::RecheckPulls => self.shared.link.recheck_pulls(&self.name),
                Effect::LeftOut(queues) => self.shared.store.left_out(queues),
                Effect::Answer { request, answer } => {
                    if let Some(reply) = self.replies.remove(&request) {
                        // Nobody may wait any more: not an error.
                        let _ = reply.send(answer);
                    }
                }
            }
        }
        if self.core.wants_flush() && !self.flush_armed {
            self.flush_armed = true;
            ctx.run_later(
                Duration::from_millis(COALESCE_MS as u64 + 2),
                |actor, ctx| {
                    actor.flush_armed = false;
                    let mut out = Vec::new();
                    actor.core.propose(actor.shared.now_ms(), &mut out);
                    actor.perform(out, ctx);
                },
            );
        }
    }

    fn tick(&mut self, ctx: &mut Context<Self>) {
        let now_ms = self.shared.now_ms();
        let mut out = Vec::new();
        self.core
            .identify(self.shared.store.group_id(&self.name), &mut out);
        self.core.set_room(self.shared.store.room_for_offsets());
        let gone = self.core.tick(now_ms, &mut out);
        self.shared.forget_conns(&self.name, &gone);
        self.perform(out, ctx);
        if self.core.may_sleep(now_ms) && self.shared.remove_if_no_mail(&self.name, &self.cell) {
            ctx.stop();
        }
    }
}

impl Actor for GroupActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        // Mail is bounded by the handle (`GroupLimits::mailbox`).
        ctx.run_interval(self.shared.scan_every, |actor, ctx| actor.tick(ctx));
    }
}

impl Handler<Mail> for GroupActor {
    type Result = ();

    fn handle(&mut self, mail: Mail, ctx: &mut Self::Context) {
        let now_ms = self.shared.now_ms();
        let mut out = Vec::new();
        self.core
            .identify(self.shared.store.group_id(&self.name), &mut out);
        self.core.set_room(self.shared.store.room_for_offsets());
        let mut heartbeat = None;
        let mut unregistered = None;
        match mail {
            Mail::Heartbeat { beat, reply } => {
                let conn = beat.conn;
                let answer = self.core.heartbeat(beat, now_ms, &mut out);
                if answer.is_err() && !self.core.members().contains(conn) {
                    self.shared.forget_conns(&self.name, &[conn]);
                }
                heartbeat = Some((reply, answer));
            }
            Mail::Unregister {
                conn,
                client_id,
                reply,
            } => {
                self.core.unregister(conn, &client_id, now_ms, &mut out);
                if !self.core.members().contains(conn) {
                    self.shared.forget_conns(&self.name, &[conn]);
                }
                unregistered = Some(reply);
            }
            Mail::ConnClosed { conn, lost: false } => {
                self.core.conn_closed(conn, now_ms, &mut out);
            }
            Mail::ConnClosed { conn, lost: true } => {
                self.core.conn_lost(conn, now_ms, &mut out);
            }
            Mail::Closed => {
                self.cell.handled.fetch_add(1, Ordering::Release);
                return ctx.stop();
            }
            Mail::Deleted => {
                let conns = self.core.members().conns();
                self.core.deleted(now_ms, &mut out);
                self.shared.forget_conns(&self.name, &conns);
            }
            Mail::Commit {
                key,
                offset,
                bounds,
                reply,
            } => {
                let request = reply.map(|reply| self.register(reply));
                self.core
                    .commit(key, offset, bounds, request, now_ms, &mut out);
            }
            Mail::ResetDone { key, offset } => self.core.reset_done(key, offset, &mut out),
            Mail::Request { what, reply } => {
                let request = self.register(reply);
                self.core.request(request, what, now_ms, &mut out);
            }
        }
        self.perform(out, ctx);
        // Answered after publishing: what a client was told is visible.
        if let Some((reply, answer)) = heartbeat {
            let _ = reply.send(answer);
        }
        if let Some(reply) = unregistered {
            let _ = reply.send(());
        }
        self.cell.handled.fetch_add(1, Ordering::Release);
    }
}

impl Handler<FromShard> for GroupActor {
    type Result = ();

    fn handle(&mut self, answer: FromShard, ctx: &mut Self::Context) {
        let now_ms = self.shared.now_ms();
        let mut out = Vec::new();
        match answer {
            FromShard::Done { id, result } => self.core.proposal_done(id, result, now_ms, &mut out),
            FromShard::Loaded { id, result } => self.core.loaded(id, result, now_ms, &mut out),
        }
        self.perform(out, ctx);
    }
}

/// How often a group looks for silent members.
pub(super) const SCAN_EVERY: Duration = Duration::from_millis(SCAN_MS as u64);
