//! PULL_MESSAGE 11 and LITE_PULL_MESSAGE 361: long polling, tag filter, reads.

mod follower;
mod rules;
mod stale;

use super::connection::Conn;
use super::reply::Reply;
use super::shared::BrokerSide;
use super::ticket::Ticket;
use super::worker::Worker;
use crate::actors::clock::boot_ms;
use crate::actors::shard::handle::QueueBounds;
use crate::model::append::{ParkRequest, ReadBatch, ReadSpec};
use crate::model::command::MetaOp;
use crate::model::group::GroupConfig;
use crate::model::outcome::{Outcome, Token};
use crate::model::topic::TopicConfig;
use crate::model::{QueueKey, TopicId};
use crate::telemetry::TopicMetrics;
use crate::wire::message::names;
use crate::wire::message::tags::TagFilter;
use crate::wire::remoting::code::response as rc;
use crate::wire::remoting::requests::PullRequest;
use crate::wire::remoting::{encode_pull_head, Command, PullReply};
pub use follower::pull_here;
use follower::{suggest, Place};
use rules::{remark, Step};
pub use stale::StalePulls;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Longest a pull is held, whatever it asks for, ms.
const MAX_HOLD_MS: i64 = 60_000;
/// Index items looked at for one request, at least.
const MIN_SCAN: u32 = 800;
/// Longest expression a pull may bring, bytes.
const MAX_EXPRESSION: usize = 64 * 1024;

/// A checked pull.
pub struct Pull {
    pub ticket: Ticket,
    key: QueueKey,
    spec: ReadSpec,
    /// Until when it may be held, ms; `None`: not at all (any more).
    hold_until: Option<i64>,
    topic: Arc<TopicMetrics>,
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
        Err(Refused::Reply(reply)) if is_new_leader(conn, &reply) => {
            let (conn, broker, command) = (conn.clone(), broker.clone(), command.clone());
            tokio::task::spawn_local(async move {
                once_clients_are_known(&conn, &broker, ticket, &command).await;
            });
        }
        Err(Refused::Reply(reply)) => ticket.answer(reply),
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

/// A pull for a new leader: looks again until its clients are known.
async fn once_clients_are_known(
    conn: &Rc<Conn>,
    broker: &BrokerSide,
    ticket: Ticket,
    command: &Command,
) {
    let began = Instant::now();
    loop {
        tokio::time::sleep(HEARD_WITHIN / 20).await;
        let request = match PullRequest::parse(command) {
            Ok(request) => request,
            Err(e) => return ticket.answer(e.into()),
        };
        match check(conn, broker, &request) {
            Ok(checked) => return begin(conn, broker, ticket, &request, checked),
            Err(Refused::Reply(reply))
                if is_new_leader(conn, &reply) && began.elapsed() < HEARD_WITHIN => {}
            Err(Refused::Reply(reply)) => return ticket.answer(reply),
            Err(Refused::NoGroup) => return ticket.answer(no_group(request.consumer_group)),
        }
    }
}

/// A pull of an unknown group: creates the group, then goes on.
async fn with_new_group(conn: &Rc<Conn>, broker: &BrokerSide, ticket: Ticket, command: &Command) {
    let request = match PullRequest::parse(command) {
        Ok(request) => request,
        Err(e) => return ticket.answer(e.into()),
    };
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
        Err(Refused::NoGroup) => ticket.answer(no_group(request.consumer_group)),
    }
}

enum Refused {
    Reply(Reply),
    /// It does not exist, but may be created.
    NoGroup,
}

impl From<Reply> for Refused {
    fn from(reply: Reply) -> Self {
        Refused::Reply(reply)
    }
}

fn no_group(group: &str) -> Reply {
    let text = format!("subscription group [{group}] does not exist");
    Reply::err(rc::SUBSCRIPTION_GROUP_NOT_EXIST, text)
}

type Tags = Option<Arc<[i32]>>;

/// What a pull may read, which tags pass, and where the group reads what is far behind.
type Checked = (Arc<TopicConfig>, Tags, Place);

fn check(conn: &Conn, broker: &BrokerSide, request: &PullRequest<'_>) -> Result<Checked, Refused> {
    let (topic, group) = allowed(conn, broker, request)?;
    let place = Place::Leader {
        prefers: group.which_broker_when_consume_slowly,
    };
    Ok((topic, tags_of(conn, broker, request)?, place))
}

/// The topic and group of a pull that may read there.
fn allowed(
    conn: &Conn,
    broker: &BrokerSide,
    request: &PullRequest<'_>,
) -> Result<(Arc<TopicConfig>, Arc<GroupConfig>), Refused> {
    let shared = conn.shared();
    if shared.is_stopping() {
        let text = "service not available now: the broker is stopping";
        return Err(Reply::err(rc::SERVICE_NOT_AVAILABLE, text).into());
    }
    if !shared.broker_readable() {
        let text = format!(
            "the broker[{}] pulling message is forbidden",
            shared.broker_name
        );
        return Err(forbidden(text, 1).into());
    }
    let name = request.consumer_group;
    let Some(group) = broker.shard.meta().group(name) else {
        names::check_group(name)
            .map_err(|e| Reply::err(rc::SUBSCRIPTION_GROUP_NOT_EXIST, e.to_string()))?;
        if !shared.config.auto_create_subscription_group {
            return Err(no_group(name).into());
        }
        return Err(Refused::NoGroup);
    };
    if !group.consume_enable {
        let text = format!("subscription group no permission, {name}");
        return Err(forbidden(text, 2).into());
    }
    let topic = broker.shard.meta().topic(request.topic).ok_or_else(|| {
        let text = format!("topic[{}] not exist, apply first please!", request.topic);
        Reply::err(rc::TOPIC_NOT_EXIST, text)
    })?;
    if !topic.readable() {
        let text = format!("the topic[{}] pulling message is forbidden", request.topic);
        return Err(forbidden(text, 3).into());
    }
    if !u32::try_from(request.queue_id).is_ok_and(|q| q < topic.read_queues) {
        let text = format!(
            "queueId[{}] is illegal, topic:[{}] topicConfig.readQueueNums:[{}]",
            request.queue_id, topic.name, topic.read_queues
        );
        return Err(Reply::err(rc::INVALID_PARAMETER, text).into());
    }
    Ok((topic, group))
}

fn forbidden(text: String, kind: i64) -> Reply {
    Reply::err(rc::NO_PERMISSION, text).with("forbiddenType", kind)
}

fn no_sql() -> Reply {
    let text = "The broker does not support consumer to filter message by SQL92";
    Reply::err(rc::SYSTEM_ERROR, text)
}

/// Which tags pass by the request's own expression.
fn requested_tags(request: &PullRequest<'_>) -> Result<Tags, Reply> {
    if !request.is_tag_type() {
        return Err(no_sql());
    }
    let expression = request.subscription.unwrap_or("");
    let filter = (expression.len() <= MAX_EXPRESSION).then(|| TagFilter::parse(expression));
    match filter {
        Some(Ok(TagFilter::All)) => Ok(None),
        Some(Ok(TagFilter::Codes(codes))) => Ok(Some(codes.as_slice().into())),
        _ => {
            let text = "parse the consumer's subscription failed";
            Err(Reply::err(rc::SUBSCRIPTION_PARSE_FAILED, text))
        }
    }
}

/// Which tags pass: the request's expression, else the group's subscription.
fn tags_of(conn: &Conn, broker: &BrokerSide, request: &PullRequest<'_>) -> Result<Tags, Reply> {
    if request.has_subscription() {
        return requested_tags(request);
    }
    let group = request.consumer_group;
    let Some(members) = broker.groups.members(group) else {
        return Err(not_subscribed(format!(
            "the consumer's group info not exist, group: {group}"
        )));
    };
    let Some(subscription) = members.subscriptions.get(request.topic) else {
        let text = format!(
            "the consumer's subscription not exist, topic: {}",
            request.topic
        );
        return Err(not_subscribed(text));
    };
    let version = request.sub_version.unwrap_or(0);
    if subscription.sub_version < version {
        if request.is_tag_type()
            && subscription.is_tag_type()
            && conn.stale_may_pass(group, request.topic, version)
        {
            return Ok(None);
        }
        let text = "the consumer's subscription not latest";
        return Err(Reply::err(rc::SUBSCRIPTION_NOT_LATEST, text));
    }
    if !subscription.is_tag_type() {
        return Err(no_sql());
    }
    Ok(subscription.tag_filter())
}

fn not_subscribed(text: String) -> Reply {
    Reply::err(rc::SUBSCRIPTION_NOT_EXIST, text).with("forbiddenType", 5)
}

fn begin(
    conn: &Rc<Conn>,
    broker: &BrokerSide,
    ticket: Ticket,
    request: &PullRequest<'_>,
    (topic, tags, place): Checked,
) {
    let key = QueueKey::new(TopicId(topic.id), request.queue_id as u32);
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
    let hold = request.suspend_timeout_millis.unwrap_or(0).min(MAX_HOLD_MS);
    let mut pull = Pull::new(conn, ticket, key, request, &topic, tags, place);
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
    fn new(
        conn: &Conn,
        ticket: Ticket,
        key: QueueKey,
        request: &PullRequest<'_>,
        topic: &TopicConfig,
        tags: Tags,
        place: Place,
    ) -> Self {
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
            topic: conn.worker.topic_metrics(key.topic, &topic.name),
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
        let reads = self.ticket.conn().shared().reads.clone();
        let (shard, key, spec) = (broker.shard.clone(), self.key, self.spec.clone());
        tokio::task::spawn_local(async move {
            match reads
                .run(move || shard.read_stored(key, offset, &spec))
                .await
            {
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
        let Pull { ticket, topic, .. } = self;
        let metrics = ticket.conn().shared().metrics.clone();
        let started: Instant = ticket.started();
        ticket.conn().shared().rates.pulled(batch.messages.into());
        topic.messages_out.inc_by(batch.messages.into());
        topic.bytes_out.inc_by(batch.bytes as u64);
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
