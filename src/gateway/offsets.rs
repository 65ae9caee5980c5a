//! Offsets: 14, 15, 29, 30, 31, 32, and one message by its id: 33.

use super::ctx::{wire, Ctx};
use super::reply::Reply;
use super::shared::BrokerSide;
use crate::actors::group::types::Committed;
use crate::actors::shard::handle::Boundary;
use crate::model::append::ReadSpec;
use crate::model::{Position, QueueKey};
use crate::wire::message::properties::names as prop;
use crate::wire::message::record::RecordView;
use crate::wire::remoting::code::response as rc;
use crate::wire::remoting::requests::{
    QueryConsumerOffset, QueueRequest, SearchOffset, UpdateConsumerOffset, ViewMessage,
};
use crate::wire::remoting::Command;

type Answer = Result<Reply, Reply>;

/// QUERY_CONSUMER_OFFSET 14.
pub async fn query(ctx: &Ctx, broker: &BrokerSide, command: &Command) -> Answer {
    let request = QueryConsumerOffset::parse(command)?;
    let not_found = || {
        Err(Reply::err(
            rc::QUERY_NOT_FOUND,
            "Not found, maybe this group consumer boot first",
        ))
    };
    // Nobody committed anything in a queue that is not there: by 22 a client decides for itself
    // where to begin, any other error stops it.
    let Ok(key) = ctx.queue(broker, request.topic, request.queue_id) else {
        return not_found();
    };
    if let Some(offset) = committed(broker, request.consumer_group, key).await? {
        return Ok(Reply::field("offset", wire(offset)));
    }
    if request.set_zero_if_not_found == Some(false) {
        return not_found();
    }
    // A new group on a young topic starts at 0, also "from last offset", and also a group that is
    // not known yet: pull consumers ask before their first heartbeat. Stock brokers answer 22 for
    // a queue that never had a message; the message that comes between this answer and the
    // question for the end of the queue would be passed over then.
    let bounds = broker.shard.bounds(key);
    let first = ReadSpec {
        max_messages: 1,
        max_bytes: 1,
        tags: None,
        max_scan: 1,
    };
    let young =
        bounds.min == 0 && (bounds.max == 0 || broker.shard.read_tail(key, 0, &first).is_some());
    if young {
        return Ok(Reply::field("offset", 0i64));
    }
    not_found()
}

/// The offset that a group committed, if any.
async fn committed(broker: &BrokerSide, group: &str, key: QueueKey) -> Result<Option<u64>, Reply> {
    if broker.shard.meta().group(group).is_some() {
        return Ok(broker.groups.query_offset(group, key).await?);
    }
    // Deleted, and perhaps about to be created again by the one who asks.
    let Some(id) = broker.shard.meta().kept_group(group) else {
        return Ok(None);
    };
    let kept = broker.shard.group_state(id).await?.offsets;
    let of_queue = kept.iter().find(|(at, _)| *at == (key.topic.0, key.queue));
    Ok(of_queue.map(|(_, offset)| *offset))
}

/// UPDATE_CONSUMER_OFFSET 15.
pub async fn update(ctx: &Ctx, broker: &BrokerSide, command: &Command) -> Answer {
    let request = UpdateConsumerOffset::parse(command)?;
    ctx.group_exists(broker, request.consumer_group)?;
    let key = ctx.queue(broker, request.topic, request.queue_id)?;
    let bounds = broker.shard.bounds(key);
    let (group, offset) = (request.consumer_group, request.commit_offset);
    if command.is_oneway() {
        broker.groups.commit_offset(group, key, offset, bounds);
        return Ok(Reply::ok());
    }
    match broker
        .groups
        .commit_offset_wait(group, key, offset, bounds)
        .await?
    {
        Committed::Applied => Ok(Reply::ok()),
        Committed::ResetPending => Ok(Reply::err(rc::SUCCESS, "Offset has been previously reset")),
    }
}

/// SEARCH_OFFSET_BY_TIMESTAMP 29.
pub async fn search(ctx: &Ctx, broker: &BrokerSide, command: &Command) -> Answer {
    let request = SearchOffset::parse(command)?;
    let key = ctx.queue(broker, request.topic, request.queue_id)?;
    let boundary = if request.is_upper() {
        Boundary::Upper
    } else {
        Boundary::Lower
    };
    let (shard, at) = (broker.shard.clone(), request.timestamp);
    let offset = ctx
        .read(move || shard.offset_by_time(key, at, boundary))
        .await?;
    Ok(Reply::field("offset", wire(offset.map_err(Reply::failed)?)))
}

/// GET_MAX_OFFSET 30.
pub fn max(ctx: &Ctx, broker: &BrokerSide, command: &Command) -> Answer {
    let request = QueueRequest::parse(command)?;
    let key = ctx.queue(broker, request.topic, request.queue_id)?;
    Ok(Reply::field("offset", wire(broker.shard.bounds(key).max)))
}

/// GET_MIN_OFFSET 31.
pub fn min(ctx: &Ctx, broker: &BrokerSide, command: &Command) -> Answer {
    let request = QueueRequest::parse(command)?;
    let key = ctx.queue(broker, request.topic, request.queue_id)?;
    Ok(Reply::field("offset", wire(broker.shard.bounds(key).min)))
}

/// GET_EARLIEST_MSG_STORETIME 32.
pub async fn earliest(ctx: &Ctx, broker: &BrokerSide, command: &Command) -> Answer {
    let request = QueueRequest::parse(command)?;
    let key = ctx.queue(broker, request.topic, request.queue_id)?;
    let bounds = broker.shard.bounds(key);
    if bounds.min >= bounds.max {
        return Ok(Reply::field("timestamp", -1i64));
    }
    let shard = broker.shard.clone();
    let at = ctx
        .read(move || shard.store_time(key, bounds.min))
        .await?
        .map_err(Reply::failed)?;
    Ok(Reply::field("timestamp", at.unwrap_or(-1)))
}

/// VIEW_MESSAGE_BY_ID 33. Only our own store is asked, whatever address the id names. A topic that
/// the client names must be the record's, or one that the record was meant for or came from.
pub async fn view(ctx: &Ctx, broker: &BrokerSide, command: &Command) -> Answer {
    let request = ViewMessage::parse(command)?;
    let missing = || {
        let text = format!("can not find message by the offset, {}", request.offset);
        Reply::err(rc::SYSTEM_ERROR, text)
    };
    let position = Position::from_physical(request.offset).ok_or_else(missing)?;
    let shard = broker.shard.clone();
    let record = ctx
        .read(move || shard.read_record(position))
        .await?
        .map_err(Reply::failed)?;
    let record = record.ok_or_else(missing)?;
    let view = RecordView::parse(&record).map_err(Reply::failed)?;
    // 4.x clients name none.
    let named = request.topic.filter(|topic| !topic.is_empty());
    if named.is_some_and(|topic| !is_of(&view, topic)) {
        return Err(missing());
    }
    Ok(Reply::body(record))
}

/// Whether somebody who received or sent the message knows it under this topic: its consumer shows
/// a retried one as of the topic that it first came from.
fn is_of(record: &RecordView<'_>, topic: &str) -> bool {
    topic == record.topic()
        || [prop::RETRY_TOPIC, prop::REAL_TOPIC]
            .iter()
            .any(|name| record.property(name) == Some(topic))
}
