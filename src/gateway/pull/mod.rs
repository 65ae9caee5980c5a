//! PULL_MESSAGE 11 and LITE_PULL_MESSAGE 361: long polling, tag filter, reads.

mod check;
mod follower;
mod rules;
mod stale;
mod stored;

use super::connection::Conn;
use super::reply::Reply;
use super::shared::BrokerSide;
use super::ticket::Ticket;
use super::traffic::Flow;
use super::worker::Worker;
use crate::actors::clock::boot_ms;
use crate::actors::shard::handle::QueueBounds;
use crate::model::append::{ParkRequest, ReadBatch, ReadSpec};
use crate::model::command::MetaOp;
use crate::model::group::GroupConfig;
use crate::model::outcome::{Outcome, Refusal, Token};
use crate::model::quota::QuotaKind;
use crate::model::{QueueKey, TopicId};
use crate::telemetry::TopicMetrics;
use crate::wire::remoting::code::response as rc;
use crate::wire::remoting::requests::PullRequest;
use crate::wire::remoting::{encode_pull_head, Command, PullReply};
use check::{check, no_group, Checked, Premises, Refused};
pub use follower::pull_here;
use follower::{suggest, Place};
use rules::{hold_ms, remark, Step};
pub use stale::StalePulls;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use stored::read_stored;

/// Index items looked at for one request, at least.
const MIN_SCAN: u32 = 800;

/// A checked pull.
pub struct Pull {
    pub ticket: Ticket,
    key: QueueKey,
    spec: ReadSpec,
    /// Until when it may be held, ms; `None`: not at all (any more).
    hold_until: Option<i64>,
    premises: Premises,
    topic: Arc<TopicMetrics>,
    /// What its group got of the topic.
    flow: Option<Arc<Flow>>,
    place: Place,
}

/// A pull parked in a queue's core.
pub struct PullWaiting {
    pull: Pull,
    offset: u64,
    token: Token,
}

/// Handles a pull.
pub fn pull(conn: &Rc<Conn>, broker: &BrokerSide, command: &Command) {
    let ticket = conn.ticket(command);
    let request = match PullRequest::parse(command) {
        Ok(request) => request,
        Err(e) => return ticket.answer(e.into()),
    };
    match check(conn, broker, &request) {
        Ok(checked) => begin(conn, broker, ticket, &request, checked),
        Err(why) if may_pass(conn, &why) => {
            let (conn, broker, command) = (conn.clone(), broker.clone(), command.clone());
            tokio::task::spawn_local(async move {
                once_it_passed(&conn, &broker, ticket, &command).await;
            });
        }
        Err(Refused::Reply(reply)) => ticket.answer(reply),
        Err(Refused::NotCurrent) => ticket.answer(Refusal::NotLeader.into()),
        Err(Refused::NoGroup) => {
            let (conn, broker, command) = (conn.clone(), broker.clone(), command.clone());
            tokio::task::spawn_local(async move {
                with_new_group(&conn, &broker, ticket, &command).await;
            });
        }
    }
}

/// Longest time in which a new leader hears the clients that other nodes know.
const HEARD_WITHIN: Duration = Duration::from_millis(1_000);
/// Clients are heard one after the other: one look for those of so long.
const GATHER: Duration = Duration::from_millis(10);

/// The group is unknown because this node leads only since a moment.
fn is_new_leader(conn: &Conn, reply: &Reply) -> bool {
    let worker = &conn.worker;
    let forward = conn.shared().forward.as_ref();
    reply.code == rc::SUBSCRIPTION_NOT_EXIST
        && forward.is_some_and(|forward| {
            let term = forward.lead().term;
            worker.served_term.get() != term || worker.served_since.get().elapsed() < HEARD_WITHIN
        })
}

/// It will be otherwise in a moment.
fn may_pass(conn: &Conn, why: &Refused) -> bool {
    match why {
        Refused::Reply(reply) => is_new_leader(conn, reply),
        Refused::NotCurrent => true,
        Refused::NoGroup => false,
    }
}

/// A pull for a new leader, or for one that may have been replaced: looks again whenever clients
/// were heard, and now and then, until its group is known and the node is known to lead.
async fn once_it_passed(conn: &Rc<Conn>, broker: &BrokerSide, ticket: Ticket, command: &Command) {
    let shared = conn.shared().clone();
    let end = tokio::time::Instant::now() + HEARD_WITHIN;
    loop {
        // Made before the look, so that what is heard meanwhile counts.
        let mut heard = std::pin::pin!(shared.heard.notified());
        heard.as_mut().enable();
        let request = match PullRequest::parse(command) {
            Ok(request) => request,
            Err(e) => return ticket.answer(e.into()),
        };
        match check(conn, broker, &request) {
            Ok(checked) => return begin(conn, broker, ticket, &request, checked),
            Err(why) if may_pass(conn, &why) && tokio::time::Instant::now() < end => {}
            Err(Refused::Reply(reply)) => return ticket.answer(reply),
            Err(Refused::NotCurrent) => return ticket.answer(Refusal::NotLeader.into()),
            Err(Refused::NoGroup) => return ticket.answer(no_group(request.consumer_group)),
        }
        let again = end.min(tokio::time::Instant::now() + HEARD_WITHIN / 20);
        if tokio::time::timeout_at(again, heard).await.is_ok() {
            tokio::time::sleep(GATHER).await;
        }
    }
}

/// A pull of an unknown group: creates the group, then goes on.
async fn with_new_group(conn: &Rc<Conn>, broker: &BrokerSide, ticket: Ticket, command: &Command) {
    let request = match PullRequest::parse(command) {
        Ok(request) => request,
        Err(e) => return ticket.answer(e.into()),
    };
    if let Err(refusal) = conn.may_create(QuotaKind::ConnectionAutoGroups, 1) {
        return ticket.answer(refusal.into());
    }
    let group = GroupConfig::with_defaults(request.consumer_group);
    if let Err(refusal) = conn
        .shared()
        .change(broker, MetaOp::EnsureGroup(group))
        .await
    {
        return ticket.answer(refusal.into());
    }
    match check(conn, broker, &request) {
        Ok(checked) => begin(conn, broker, ticket, &request, checked),
        Err(Refused::Reply(reply)) => ticket.answer(reply),
        Err(Refused::NotCurrent) => ticket.answer(Refusal::NotLeader.into()),
        Err(Refused::NoGroup) => ticket.answer(no_group(request.consumer_group)),
    }
}

fn begin(
    conn: &Rc<Conn>,
    broker: &BrokerSide,
    ticket: Ticket,
    request: &PullRequest<'_>,
    checked: Checked,
) {
    let topic = TopicId(checked.premises.topic.id);
    let key = QueueKey::new(topic, request.queue_id as u32);
    let bounds = broker.shard.bounds(key);
    let group = request.consumer_group;
    let moved = broker
        .groups
        .reset_position(group, key, request.queue_offset);
    if let (true, Some(offset)) = (request.commits_offset(), request.commit_offset) {
        if offset >= 0 && moved.is_none() {
            broker.groups.commit_offset(group, key, offset, bounds);
        }
    }
    let asked = request.suspend_timeout_millis.unwrap_or(0);
    let hold = hold_ms(&conn.shared().config, asked);
    let mut pull = Pull::new(ticket, key, request, checked);
    pull.hold_until = (request.may_suspend() && hold > 0).then(|| boot_ms().saturating_add(hold));
    match moved {
        Some(offset) => pull.nothing(rc::PULL_OFFSET_MOVED, offset, bounds),
        None => {
            let step = step(conn, bounds, request.queue_offset);
            pull.step(broker, step, bounds);
        }
    }
}

/// What to do with a pull. Only a node that still leads may send a client to another offset: one
/// that was stopped for a while does not know the end of the queue.
fn step(conn: &Conn, bounds: QueueBounds, asked: i64) -> Step {
    let forward = conn.shared().forward.as_ref();
    match (Step::of(bounds, asked), u64::try_from(asked)) {
        (Step::Moved(_), Ok(asked)) if forward.is_some_and(|f| !f.current()) => Step::Wait(asked),
        (step, _) => step,
    }
}

/// The queue's core says: read again.
pub fn woken(worker: &Rc<Worker>, waiting: PullWaiting, outcome: Outcome) {
    let PullWaiting {
        mut pull,
        offset,
        token,
    } = waiting;
    pull.ticket.conn().unpark(token);
    pull.ticket.restart_clock();
    let Some(broker) = &worker.shared.broker else {
        return;
    };
    match outcome {
        Outcome::Wake { .. } => {
            pull.hold_until = None;
            let bounds = broker.shard.bounds(pull.key);
            if !pull.may_go_on(broker, offset) {
                return pull.ask_again(offset, bounds);
            }
            let asked = i64::try_from(offset).unwrap_or(i64::MAX);
            let step = step(pull.ticket.conn(), bounds, asked);
            pull.step(broker, step, bounds);
        }
        Outcome::Refused(refusal) => pull.ticket.answer(refusal.into()),
        other => {
            tracing::error!(?other, "a core answered a pull with something else");
            pull.ticket
                .answer(Reply::err(rc::SYSTEM_ERROR, "internal error"));
        }
    }
}

/// Something that pulls of the group were begun on may have changed: those that it concerns are
/// answered with nothing, so that their clients ask again.
pub fn recheck(worker: &Worker, group: &str) {
    let Some(broker) = &worker.shared.broker else {
        return;
    };
    let concerned = worker.held_pulls(|held| {
        let pull = &held.pull;
        &*pull.premises.group.name == group && !pull.may_go_on(broker, held.offset)
    });
    for PullWaiting {
        mut pull,
        offset,
        token,
    } in concerned
    {
        pull.ticket.restart_clock();
        pull.ticket.conn().unpark(token);
        broker.shard.unpark(pull.key, vec![token]);
        let bounds = broker.shard.bounds(pull.key);
        pull.ask_again(offset, bounds);
    }
}

/// The node stops: a held pull is answered with what there is, nothing.
pub fn release(worker: &Worker, waiting: PullWaiting) {
    let Some(broker) = &worker.shared.broker else {
        return;
    };
    let bounds = broker.shard.bounds(waiting.pull.key);
    waiting.pull.ticket.conn().unpark(waiting.token);
    waiting
        .pull
        .nothing(rc::PULL_NOT_FOUND, waiting.offset, bounds);
}

impl Pull {
    /// One that is not held.
    fn new(ticket: Ticket, key: QueueKey, request: &PullRequest<'_>, checked: Checked) -> Self {
        let Checked {
            premises,
            tags,
            place,
        } = checked;
        let conn = ticket.conn().clone();
        let config = &conn.shared().config;
        let wanted = u32::try_from(request.max_msg_nums).unwrap_or(1);
        let max_messages = wanted.clamp(1, config.max_transfer_count.max(1));
        Pull {
            ticket,
            key,
            spec: ReadSpec {
                max_messages,
                max_bytes: config.max_transfer_bytes as usize,
                tags,
                max_scan: max_messages.max(MIN_SCAN),
            },
            hold_until: None,
            topic: conn.worker.topic_metrics(key.topic, &premises.topic.name),
            flow: conn
                .shared()
                .traffic
                .flow(&premises.topic.name, request.consumer_group),
            premises,
            place,
        }
    }

    fn step(self, broker: &BrokerSide, step: Step, bounds: QueueBounds) {
        match step {
            Step::Moved(offset) => self.nothing(rc::PULL_OFFSET_MOVED, offset, bounds),
            Step::Read(offset) => self.read(broker, offset, bounds),
            Step::Wait(offset) => match self.hold_until {
                Some(deadline_ms) => self.park(broker, offset, deadline_ms),
                None => self.nothing(rc::PULL_NOT_FOUND, offset, bounds),
            },
        }
    }

    /// What it was begun on holds, and no operator moved the group away from this offset.
    fn may_go_on(&self, broker: &BrokerSide, offset: u64) -> bool {
        let moved = broker.groups.moved_to(&self.premises.group.name, self.key);
        moved.is_none_or(|to| to == offset) && self.premises.hold(self.ticket.conn(), broker)
    }

    /// The filter by which it passed over messages is still that of its group.
    fn filtered_right(&self) -> bool {
        if self.spec.tags.is_none() {
            return true;
        }
        let (group, topic) = (&*self.premises.group.name, &*self.premises.topic.name);
        let conn = self.ticket.conn();
        match (self.place, &conn.shared().broker) {
            (Place::Follower, _) => {
                let now = conn.outward.borrow_mut().subscription(group, topic);
                self.premises.same_filter(now.as_ref())
            }
            (Place::Leader { .. }, Some(broker)) => {
                let now = broker.groups.subscription(group, topic);
                self.premises.same_filter(now.as_deref())
            }
            (Place::Leader { .. }, None) => true,
        }
    }

    /// Nothing, and the same offset: clients ask again at once.
    fn ask_again(self, offset: u64, bounds: QueueBounds) {
        self.nothing(rc::PULL_RETRY_IMMEDIATELY, offset, bounds);
    }

    fn park(self, broker: &BrokerSide, offset: u64, deadline_ms: i64) {
        let conn = self.ticket.conn().clone();
        let (key, tags) = (self.key, self.spec.tags.clone());
        let token = conn.worker.park_token(|token| PullWaiting {
            pull: self,
            offset,
            token,
        });
        conn.park(token, key);
        broker.shard.park(
            key,
            ParkRequest {
                token,
                offset,
                deadline_ms,
                tags,
            },
        );
    }

    fn read(self, broker: &BrokerSide, offset: u64, bounds: QueueBounds) {
        let store = &self.ticket.conn().shared().metrics.store;
        if let Some(batch) = broker.shard.read_tail(self.key, offset, &self.spec) {
            store.tail_cache_hits.inc();
            return self.found(batch, offset, bounds, false);
        }
        store.tail_cache_misses.inc();
        if let Some(batch) = broker.shard.read_cached(self.key, offset, &self.spec) {
            store.entry_cache_hits.inc();
            return self.found(batch, offset, bounds, true);
        }
        let (shard, key, spec) = (broker.shard.clone(), self.key, self.spec.clone());
        tokio::task::spawn_local(async move {
            match read_stored(self.ticket.conn(), shard, key, offset, spec).await {
                Ok(Ok(batch)) => self.found(batch, offset, bounds, true),
                Ok(Err(error)) => {
                    self.ticket
                        .conn()
                        .shared()
                        .hot_error("a stored read failed", &error);
                    self.ticket.answer(Reply::failed(error));
                }
                Err(e) => self.ticket.answer(e.into()),
            }
        });
    }

    fn found(self, batch: ReadBatch, offset: u64, bounds: QueueBounds, stored: bool) {
        // What arrived after another filter was registered must not be passed over by the old one.
        if !self.filtered_right() {
            return self.ask_again(offset, bounds);
        }
        if batch.slices.is_empty() {
            // Filtered out, or deleted meanwhile: go on behind what was looked at.
            let next = batch.next_offset.max(offset);
            let code = if next > offset || self.hold_until.is_some() {
                rc::PULL_RETRY_IMMEDIATELY
            } else {
                rc::PULL_NOT_FOUND
            };
            return self.answer_nothing(code, next, bounds, stored);
        }
        let suggested = self.suggested(stored);
        let Pull {
            ticket,
            topic,
            flow,
            ..
        } = self;
        let metrics = ticket.conn().shared().metrics.clone();
        let started: Instant = ticket.started();
        ticket.conn().shared().rates.pulled(batch.messages.into());
        topic.messages_out.inc_by(batch.messages.into());
        topic.bytes_out.inc_by(batch.bytes as u64);
        if let Some(flow) = flow {
            flow.add(batch.messages.into(), batch.bytes as u64);
        }
        let reply = reply(batch.next_offset, bounds, suggested);
        ticket.answer_with(rc::SUCCESS, |out, opaque| {
            let text = remark(rc::SUCCESS);
            let bytes = batch.slices.iter().map(|s| s.len()).sum();
            out.append(|buf| encode_pull_head(buf, rc::SUCCESS, opaque, Some(text), &reply, bytes));
            for slice in batch.slices {
                out.push(slice);
            }
        });
        metrics.pull_latency.observe(started.elapsed());
    }

    /// The broker id for the client's next pull of this queue.
    fn suggested(&self, stored: bool) -> i64 {
        let shared = self.ticket.conn().shared();
        match &shared.forward {
            Some(forward) if stored && shared.config.slave_read_enable => {
                let readers = forward.readers();
                let (node, queue) = (shared.config.node_id, self.key.queue);
                suggest(self.place, stored, node, &readers, queue)
            }
            _ => 0,
        }
    }

    fn nothing(self, code: i32, next: u64, bounds: QueueBounds) {
        self.answer_nothing(code, next, bounds, false);
    }

    fn answer_nothing(self, code: i32, next: u64, bounds: QueueBounds, stored: bool) {
        let metrics = self.ticket.conn().shared().metrics.clone();
        metrics
            .pull_latency
            .observe(self.ticket.started().elapsed());
        self.ticket.conn().shared().rates.pulled(0);
        let reply = reply(next, bounds, self.suggested(stored));
        self.ticket.answer_found_nothing(|out, opaque| {
            out.append(|buf| encode_pull_head(buf, code, opaque, Some(remark(code)), &reply, 0));
        });
    }
}

fn reply(next: u64, bounds: QueueBounds, suggested: i64) -> PullReply {
    let wire = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    PullReply {
        suggest_which_broker_id: suggested,
        next_begin_offset: wire(next),
        min_offset: wire(bounds.min),
        max_offset: wire(bounds.max),
    }
}
