//! CONSUMER_SEND_MSG_BACK 36: a message whose consumption failed goes to the group's retry topic
//! or, after too many tries, to its dead-letter topic (remoting-client §8.6).

use super::super::ctx::Ctx;
use super::super::reply::{Reply, OVERLOAD};
use super::super::shared::BrokerSide;
use super::failed::Failed;
use super::message::topic_policy;
use crate::actors::shard::handle::ScheduleRequest;
use crate::model::append::{AppendBatch, AppendRequest, RecordMeta};
use crate::model::group::GroupConfig;
use crate::model::outcome::Outcome;
use crate::model::topic::TopicConfig;
use crate::model::{Position, QueueKey, TopicId};
use crate::routing::auto_create;
use crate::telemetry::Escaped;
use crate::wire::message::ids::offset_msg_id;
use crate::wire::message::properties::{self, names as prop};
use crate::wire::message::record::RecordView;
use crate::wire::message::tags::tag_code;
use crate::wire::remoting::code::{response as rc, VERSION_MAX_RECONSUME};
use crate::wire::remoting::requests::SendBack;
use crate::wire::remoting::{Command, Language};
use bytes::BytesMut;
use std::sync::Arc;

/// Where a failed message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    DeadLetter,
    /// Again, after this delay level.
    Retry(i32),
}

/// Decides by the limit that holds for the request.
pub fn next(group: &GroupConfig, own_limit: Option<i32>, reconsumed: i32, level: i32) -> Next {
    let limit = own_limit.unwrap_or(group.retry_max_times);
    if reconsumed >= limit || level < 0 {
        return Next::DeadLetter;
    }
    Next::Retry(if level == 0 {
        reconsumed.saturating_add(3)
    } else {
        level
    })
}

/// Handles 36.
pub async fn send_back(ctx: &Ctx, broker: &BrokerSide, command: &Command) -> Result<Reply, Reply> {
    let request = SendBack::parse(command)?;
    let Some(group) = broker.shard.meta().group(request.group) else {
        let text = format!("subscription group not exist, {}", request.group);
        return Err(Reply::err(rc::SUBSCRIPTION_GROUP_NOT_EXIST, text));
    };
    if !ctx.shared().broker_writable() {
        let text = format!(
            "the broker[{}] sending message is forbidden",
            ctx.shared().broker_name
        );
        return Err(Reply::err(rc::NO_PERMISSION, text));
    }
    if group.retry_queue_nums == 0 {
        return Ok(Reply::ok());
    }
    let gone = || {
        let text = format!("look message by offset failed, {}", request.offset);
        Reply::err(rc::SYSTEM_ERROR, text)
    };
    let position = Position::from_physical(request.offset).ok_or_else(gone)?;
    let shard = broker.shard.clone();
    let stored = ctx
        .read(move || shard.read_record(position))
        .await?
        .map_err(Reply::failed)?;
    let stored = stored.ok_or_else(gone)?;
    let failed = RecordView::parse(&stored).map_err(Reply::failed)?;

    // Go fills the field with 0 or -1 when nothing was set.
    let own_limit = request.max_reconsume_times.filter(|n| {
        command.version >= VERSION_MAX_RECONSUME && !(command.language == Language::GO && *n <= 0)
    });
    let next = next(
        &group,
        own_limit,
        failed.reconsume_times(),
        request.delay_level,
    );
    let topic = topic_of(ctx, broker, &group, next).await?;
    if let Some(again) = Again::new(ctx, &failed, &topic, next) {
        return store(ctx, broker, &failed, again).await;
    }
    // A version that left no room stored it: its consumers would not know what it is.
    let topic = topic_of(ctx, broker, &group, Next::DeadLetter).await?;
    tracing::warn!(
        group = %Escaped(&group.name),
        topic = %Escaped(failed.topic()),
        offset = failed.phys_offset(),
        "a failed message has no room for the properties of a retry and becomes a dead letter"
    );
    let gone = || Reply::err(rc::SYSTEM_ERROR, "internal error");
    let again = Again::new(ctx, &failed, &topic, Next::DeadLetter).ok_or_else(gone)?;
    store(ctx, broker, &failed, again).await
}

async fn topic_of(
    ctx: &Ctx,
    broker: &BrokerSide,
    group: &GroupConfig,
    next: Next,
) -> Result<Arc<TopicConfig>, Reply> {
    let new = match next {
        Next::DeadLetter => auto_create::dlq_topic(&group.name),
        Next::Retry(_) => auto_create::retry_topic(&group.name, group.retry_queue_nums),
    };
    ctx.shared().ensure_topic(broker, new.clone()).await?;
    ctx.topic(broker, &new.name)
}

/// Where and how a failed message is stored again.
struct Again<'a> {
    topic: &'a TopicConfig,
    queue: u32,
    properties: Vec<u8>,
    delay_ms: Option<i64>,
}

impl<'a> Again<'a> {
    /// `None` when there is no room for what a retried message must carry.
    fn new(ctx: &Ctx, failed: &RecordView<'_>, topic: &'a TopicConfig, next: Next) -> Option<Self> {
        let levels = &ctx.shared().levels;
        let queue = ctx.conn.worker.next_random() % topic.write_queues.max(1);
        let id = offset_msg_id(failed.store_host(), failed.phys_offset());
        let mut properties = Vec::with_capacity(failed.properties().len() + properties::ROOM);
        let has_topic = Failed {
            props: failed.properties(),
            topic: failed.topic(),
            id: &id,
            again: match next {
                Next::Retry(level) => Some((levels.clamp(level), topic.name.as_str(), queue)),
                Next::DeadLetter => None,
            },
        }
        .stored(&mut properties);
        let delay_ms = match next {
            Next::Retry(level) => levels.delay_ms(level),
            Next::DeadLetter => None,
        };
        (has_topic || next == Next::DeadLetter).then_some(Self {
            topic,
            queue,
            properties,
            delay_ms,
        })
    }
}

async fn store(
    ctx: &Ctx,
    broker: &BrokerSide,
    failed: &RecordView<'_>,
    again: Again<'_>,
) -> Result<Reply, Reply> {
    let shared = ctx.shared();
    let mut record = failed.to_input();
    record.topic = &again.topic.name;
    record.queue_id = again.queue as i32;
    record.queue_offset = 0;
    record.phys_offset = 0;
    record.store_ts = 0;
    record.store_host = shared.store_host(ctx.conn.local_ip());
    record.reconsume_times = failed.reconsume_times().saturating_add(1);
    record.prepared_txn_offset = 0;
    record.properties = &again.properties;
    let mut bytes = BytesMut::new();
    let size = record.encode(&mut bytes);
    let size = size.map_err(|e| Reply::err(rc::MESSAGE_ILLEGAL, e.to_string()))?;
    // A small request that stores a large message: counted like a send until it is stored. It may be
    // larger than what is accepted today.
    let bytes_held = (bytes.len() as u64).min(shared.config.max_inflight_bytes);
    let Some(_permit) = shared.permits.hold(bytes_held) else {
        return Err(Reply::err(rc::SYSTEM_BUSY, OVERLOAD));
    };
    let tag = properties::get(&again.properties, prop::TAGS).map_or(0, tag_code);
    let key = QueueKey::new(TopicId(again.topic.id), again.queue);
    let policy = topic_policy(shared, again.topic);
    let (token, outcome) = ctx.conn.worker.task_token();
    match again.delay_ms {
        Some(delay) => broker.shard.schedule(ScheduleRequest {
            token,
            policy,
            due_ms: broker.shard.clock().now_ms().saturating_add(delay),
            target: key,
            tag,
            record: bytes.into(),
            again: true,
        }),
        None => broker.shard.append(
            key,
            AppendBatch {
                requests: vec![AppendRequest {
                    token,
                    count: 1,
                    policy,
                }],
                metas: vec![RecordMeta {
                    size: size as u32,
                    tag,
                }],
                records: bytes.into(),
            },
        ),
    }
    match outcome.await {
        Ok(Outcome::Refused(refusal)) => Err(refusal.into()),
        Ok(_) => Ok(Reply::ok()),
        Err(_) => Err(Reply::err(
            rc::SERVICE_NOT_AVAILABLE,
            "service not available now: stopping",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_end_at_the_limit_and_the_delay_grows() {
        let group = GroupConfig::with_defaults("g");
        assert_eq!(next(&group, None, 0, 0), Next::Retry(3));
        assert_eq!(next(&group, None, 15, 0), Next::Retry(18));
        assert_eq!(next(&group, None, 16, 0), Next::DeadLetter);
        assert_eq!(next(&group, Some(2), 2, 5), Next::DeadLetter);
        assert_eq!(next(&group, Some(3), 2, 5), Next::Retry(5));
        assert_eq!(next(&group, None, 0, -1), Next::DeadLetter);
        assert_eq!(
            next(&group, Some(i32::MAX), i32::MAX - 1, 0),
            Next::Retry(i32::MAX)
        );
    }
}
