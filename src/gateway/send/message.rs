//! SEND_MESSAGE 10, SEND_MESSAGE_V2 310, SEND_BATCH_MESSAGE 320.

use super::super::connection::Conn;
use super::super::reply::{Reply, OVERLOAD};
use super::super::shared::{BrokerSide, Shared};
use super::super::ticket::Ticket;
use super::super::worker::Waiting;
use super::check::is_sent_again;
use super::props::{self, Delivery, Sent};
use super::{check, Burst, SendWaiting, ShortText};
use crate::actors::shard::handle::ScheduleRequest;
use crate::model::append::{AppendRequest, RecordMeta};
use crate::model::policy::{AckPolicy, FlushPolicy, MasterPolicy};
use crate::model::quota::QuotaKind;
use crate::model::record::SYS_MULTI_TAGS;
use crate::model::topic::TopicConfig;
use crate::model::{QueueKey, TopicId};
use crate::routing::auto_create;
use crate::routing::names::special_group;
use crate::wire::message::batch::{self, BatchLimits};
use crate::wire::message::names::group_of_retry_topic;
use crate::wire::message::properties::{self, names as prop, Present};
use crate::wire::message::record::{RecordError, RecordInput};
use crate::wire::message::tags::tag_code;
use crate::wire::remoting::code::{response as rc, VERSION_MAX_RECONSUME};
use crate::wire::remoting::requests::SendRequest;
use crate::wire::remoting::{Command, Language};
use bytes::BytesMut;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Longest a send waits for its topic to be created.
const CREATE_TIMEOUT: Duration = Duration::from_secs(3);
/// Bytes of a record besides body, topic and properties, counted for the permit.
const RECORD_OVERHEAD: usize = 256;

/// Handles a send. Waits only while its topic is created; whatever the connection sent later waits
/// too, so that it cannot overtake.
pub async fn send(
    conn: &Rc<Conn>,
    broker: &BrokerSide,
    ticket: Ticket,
    command: &Command,
    burst: &mut Burst,
) {
    let request = match SendRequest::parse(command) {
        Ok(request) => request,
        Err(e) => return ticket.answer(e.into()),
    };
    if let Err(reply) = admit(conn.shared(), &request) {
        return ticket.answer(reply);
    }
    let (mut request, found) = match find_topic(conn, broker, command, request, burst).await {
        Ok(found) => found,
        Err(reply) => return ticket.answer(reply),
    };
    // The record carries the topic it is stored in.
    request.topic = &found.topic.name;
    store(conn, broker, ticket, command, &request, &found, burst);
}

/// Where a message goes.
struct Target {
    topic: Arc<TopicConfig>,
    /// Its topic is the dead-letter topic, though the retry topic was asked for: nothing delays it.
    dead_letter: bool,
}

fn admit(shared: &Shared, request: &SendRequest<'_>) -> Result<(), Reply> {
    if shared.is_stopping() {
        let text = "service not available now: the broker is stopping";
        return Err(Reply::err(rc::SERVICE_NOT_AVAILABLE, text));
    }
    if !shared.broker_writable() {
        let text = format!(
            "the broker[{}] sending message is forbidden",
            shared.broker_name
        );
        return Err(Reply::err(rc::NO_PERMISSION, text));
    }
    check::topic_name(request.topic)
}

/// The topic to store in: the asked one, created when allowed; the dead-letter topic when a
/// consumer sends to its retry topic once too often.
async fn find_topic<'a>(
    conn: &Rc<Conn>,
    broker: &BrokerSide,
    command: &'a Command,
    request: SendRequest<'a>,
    burst: &mut Burst,
) -> Result<(SendRequest<'a>, Target), Reply> {
    let mut request = request;
    if let Some(group) = group_of_retry_topic(request.topic) {
        // What this connection sent before must not wait for what is looked up.
        burst.submit();
        if given_up(broker, command, &request, group).await? {
            request.queue_id = 0;
            let dlq = auto_create::dlq_topic(group);
            let topic =
                existing_or_new(conn, broker, burst, &dlq.name.clone(), || Some(dlq)).await?;
            let dead_letter = true;
            return Ok((request, Target { topic, dead_letter }));
        }
    }
    let auto = conn.shared().config.auto_create_topic_enable;
    let topic = existing_or_new(conn, broker, burst, request.topic, || {
        if !auto && group_of_retry_topic(request.topic).is_none() {
            return None;
        }
        let template = broker.shard.meta().topic(request.default_topic);
        auto_create::topic_for_send(
            request.topic,
            template.as_deref(),
            request.default_topic_queue_nums,
            request.unit_mode,
        )
    })
    .await?;
    let dead_letter = false;
    Ok((request, Target { topic, dead_letter }))
}

/// Whether a message sent to a retry topic was tried too often (§8.6), or comes from an orderly
/// consumer. Orderly consumers of Java try a message in its place, and send it to the retry topic
/// only when they have given it up: with as many tries as they allow, not with one more. Whoever
/// holds a lock of one of the group's queues is such a consumer.
async fn given_up(
    broker: &BrokerSide,
    command: &Command,
    request: &SendRequest<'_>,
    group: &str,
) -> Result<bool, Reply> {
    let Some(config) = broker.shard.meta().group(group) else {
        let text = format!("subscription group not exist, {group}");
        return Err(Reply::err(rc::SUBSCRIPTION_GROUP_NOT_EXIST, text));
    };
    // Go fills the field with 0 whatever was meant.
    let own = request.max_reconsume_times.filter(|n| {
        command.version >= VERSION_MAX_RECONSUME && !(command.language == Language::GO && *n == 0)
    });
    let limit = own.unwrap_or(config.retry_max_times);
    if request.reconsume_times > 0 && request.reconsume_times > limit {
        return Ok(true);
    }
    Ok(broker.groups.holds_locks(group).await?)
}

async fn existing_or_new(
    conn: &Rc<Conn>,
    broker: &BrokerSide,
    burst: &mut Burst,
    name: &str,
    new: impl FnOnce() -> Option<TopicConfig>,
) -> Result<Arc<TopicConfig>, Reply> {
    if let Some(topic) = broker.shard.meta().topic(name) {
        return Ok(topic);
    }
    let missing = || {
        let text = format!("topic[{name}] not exist, apply first please!");
        Reply::err(rc::TOPIC_NOT_EXIST, text)
    };
    let topic = new().ok_or_else(missing)?;
    burst.submit();
    // Those of a group are counted with the group.
    if !is_of_group(broker, name) {
        conn.may_create(QuotaKind::ConnectionAutoTopics, 1)?;
    }
    let created = conn.shared().ensure_topic(broker, topic);
    match tokio::time::timeout(CREATE_TIMEOUT, created).await {
        Ok(Ok(_)) => broker.shard.meta().topic(name).ok_or_else(missing),
        Ok(Err(refusal)) => Err(refusal.into()),
        Err(_) => Err(Reply::err(rc::SYSTEM_BUSY, super::super::reply::REJECT)),
    }
}

/// What an answer waits for: the topic's own class or the node's, none with `WAIT=false`.
fn policy(shared: &Shared, topic: &TopicConfig, properties: &[u8], present: Present) -> AckPolicy {
    let waits = !present.has(Present::WAIT)
        || properties::get(properties, prop::WAIT).is_none_or(|v| !v.eq_ignore_ascii_case("false"));
    if !waits {
        return AckPolicy::LEADER_APPENDED;
    }
    topic_policy(shared, topic)
}

/// The class of a topic: its attributes `flush.disk.type` and `broker.role`, else the node's.
pub(super) fn topic_policy(shared: &Shared, topic: &TopicConfig) -> AckPolicy {
    let mut policy = shared.config.ack_policy();
    if topic.attributes.is_empty() {
        return policy;
    }
    match topic.attributes.get("flush.disk.type").map(String::as_str) {
        Some("SYNC_FLUSH") => policy.flush = FlushPolicy::Sync,
        Some("ASYNC_FLUSH") => policy.flush = FlushPolicy::Async,
        _ => {}
    }
    match topic.attributes.get("broker.role").map(String::as_str) {
        Some("SYNC_MASTER") => policy.master = MasterPolicy::Sync,
        Some("ASYNC_MASTER") => policy.master = MasterPolicy::Async,
        _ => {}
    }
    policy
}

fn tag_of(properties: &[u8]) -> i32 {
    properties::get(properties, prop::TAGS).map_or(0, tag_code)
}

/// What a checked send stores.
struct Checked<'a> {
    record: RecordInput<'a>,
    delivery: Delivery,
    policy: AckPolicy,
    key: QueueKey,
    permit: u64,
    present: Present,
}

/// It is the retry or dead-letter topic of a group that exists.
fn is_of_group(broker: &BrokerSide, topic: &str) -> bool {
    special_group(topic).is_some_and(|group| broker.shard.meta().group(group).is_some())
}

fn queue_is_new(broker: &BrokerSide, topic: u32, queue: u32) -> bool {
    let full = broker
        .shard
        .status()
        .room(QuotaKind::StateBytes, 1)
        .is_err();
    let key = QueueKey::new(TopicId(topic), queue);
    full && broker.shard.bounds(key).max == 0
}

fn check_all<'a>(
    conn: &Conn,
    broker: &BrokerSide,
    command: &'a Command,
    request: &SendRequest<'a>,
    target: &'a Target,
    now_ms: i64,
) -> Result<Checked<'a>, Reply> {
    let (shared, topic) = (conn.shared(), &*target.topic);
    let props = request.properties.as_bytes();
    let queue = check::queue(topic, request.queue_id, conn.worker.next_random())?;
    let present = Present::scan(props);
    check::content(
        request,
        present,
        command.body.len(),
        shared.config.max_message_size as usize,
    )?;
    // A queue takes memory from its first message on.
    if queue_is_new(broker, topic.id, queue) && !is_sent_again(&topic.name) {
        broker.room(QuotaKind::StateBytes, 1)?;
    }
    let longest = shared.config.timer_max_delay_secs;
    let delivery = match target.dead_letter {
        true => Delivery::DeadLetter,
        false => props::delivery(props, present, &shared.levels, longest, now_ms)?,
    };
    if delivery.due_ms().is_some() && !is_sent_again(&topic.name) {
        conn.may_create(QuotaKind::ConnectionDelayed, 1)?;
    }
    // What was accepted before the limit was made less must still come through.
    let permit = (command.body.len() + props.len() + RECORD_OVERHEAD) as u64;
    let permit = permit.min(shared.config.max_inflight_bytes);
    if !shared.permits.try_take(permit) {
        return Err(Reply::err(rc::SYSTEM_BUSY, OVERLOAD));
    }
    let multi = if topic.multi_tag { SYS_MULTI_TAGS } else { 0 };
    Ok(Checked {
        record: RecordInput {
            topic: &topic.name,
            body: &command.body,
            queue_id: queue as i32,
            flag: request.flag,
            queue_offset: 0,
            phys_offset: 0,
            sys_flag: request.sys_flag | multi,
            born_ts: request.born_timestamp,
            born_host: conn.peer,
            store_ts: 0,
            store_host: shared.store_host(conn.local_ip()),
            reconsume_times: request.reconsume_times.max(0),
            prepared_txn_offset: 0,
            properties: &[],
        },
        delivery,
        policy: policy(shared, topic, props, present),
        present,
        key: QueueKey::new(TopicId(topic.id), queue),
        permit,
    })
}

/// Why an accepted send could not be encoded.
enum Unfit {
    Batch(batch::BatchError),
    Record(RecordError),
}

impl From<Unfit> for Reply {
    fn from(unfit: Unfit) -> Self {
        let text = match unfit {
            Unfit::Batch(e) => e.to_string(),
            Unfit::Record(e) => e.to_string(),
        };
        Reply::err(rc::MESSAGE_ILLEGAL, text)
    }
}

fn store(
    conn: &Rc<Conn>,
    broker: &BrokerSide,
    ticket: Ticket,
    command: &Command,
    request: &SendRequest<'_>,
    target: &Target,
    burst: &mut Burst,
) {
    let topic = &*target.topic;
    let checked = match check_all(conn, broker, command, request, target, burst.now_ms) {
        Ok(checked) => checked,
        Err(reply) => return ticket.answer(reply),
    };
    let Checked {
        mut record,
        delivery,
        policy,
        key,
        permit,
        present,
    } = checked;
    let props = request.properties.as_bytes();
    let own_key = match present.has(Present::UNIQ_KEY) {
        true => properties::get(props, prop::UNIQ_KEY),
        false => None,
    };
    let mut waiting = SendWaiting {
        uniq_key: own_key.map(ShortText::from),
        ticket,
        count: 1,
        queue: key.queue,
        permit,
        body_bytes: command.body.len() as u64,
        store_host: record.store_host,
        topic: conn.worker.topic_metrics(key.topic, &topic.name),
    };
    let unfit = |waiting: SendWaiting, e: Unfit| {
        conn.shared().permits.give(permit);
        waiting.ticket.answer(e.into());
    };
    if request.batch {
        let max_body = conn.shared().config.max_message_size as usize;
        let limits = BatchLimits {
            max_body,
            ..BatchLimits::default()
        };
        let added = burst.records(key, |records, metas| {
            let entries = batch::parse(&command.body, &limits).map_err(Unfit::Batch)?;
            entries.iter().try_for_each(|entry| {
                record.body = entry.body;
                record.flag = entry.flag;
                record.properties = entry.properties;
                encode(&record, tag_of(entry.properties), records, metas)
            })
        });
        match added {
            Ok(count) => waiting.count = count,
            Err(e) => return unfit(waiting, e),
        }
    } else {
        let new_key = match own_key {
            Some(_) => None,
            None => Some(conn.worker.new_uniq_key()),
        };
        if let Some(key) = &new_key {
            waiting.uniq_key = Some(ShortText::from(key.as_str()));
        }
        let mut stored = conn.worker.scratch();
        let own = &conn.worker.broker_props;
        let sent = Sent {
            props,
            present,
            new_key: new_key.as_deref(),
            delivery,
            topic: &topic.name,
            queue: key.queue,
            now_ms: burst.now_ms,
        };
        own.stored(&sent, &mut stored);
        record.properties = &stored;
        let tag = match present.has(Present::TAGS) {
            true => tag_of(props),
            false => 0,
        };
        if let Some(due_ms) = delivery.due_ms() {
            let mut bytes = BytesMut::new();
            if let Err(e) = record.encode(&mut bytes) {
                return unfit(waiting, Unfit::Record(e));
            }
            let token = conn.worker.token(Waiting::Send(Box::new(waiting)));
            let target = key;
            let record = bytes.into();
            let request = ScheduleRequest {
                token,
                policy,
                due_ms,
                target,
                tag,
                record,
                // A consumer that sends on what it failed to consume.
                again: group_of_retry_topic(&topic.name).is_some(),
            };
            return broker.shard.schedule(request);
        }
        let added = burst.records(key, |records, metas| encode(&record, tag, records, metas));
        if let Err(e) = added {
            return unfit(waiting, e);
        }
    }
    let count = waiting.count;
    let token = conn.worker.token(Waiting::Send(Box::new(waiting)));
    burst.request(
        &broker.shard,
        key,
        AppendRequest {
            token,
            count,
            policy,
        },
    );
}

fn encode(
    record: &RecordInput<'_>,
    tag: i32,
    records: &mut BytesMut,
    metas: &mut Vec<RecordMeta>,
) -> Result<(), Unfit> {
    let size = record.encode(records).map_err(Unfit::Record)?;
    metas.push(RecordMeta {
        size: size as u32,
        tag,
    });
    Ok(())
}
