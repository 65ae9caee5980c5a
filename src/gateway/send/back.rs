//! CONSUMER_SEND_MSG_BACK 36: a message whose consumption failed goes to the group's retry topic
//! or, after too many tries, to its dead-letter topic (remoting-client §8.6).

use super::super::ctx::Ctx;
use super::super::reply::{Reply, OVERLOAD};
use super::super::shared::BrokerSide;
use super::message::topic_policy;
use crate::actors::shard::handle::ScheduleRequest;
use crate::model::append::{AppendBatch, AppendRequest, RecordMeta};
use crate::model::group::GroupConfig;
use crate::model::outcome::Outcome;
use crate::model::topic::TopicConfig;
use crate::model::{Position, QueueKey, TopicId};
use crate::routing::auto_create;
use crate::wire::message::ids::offset_msg_id;
use crate::wire::message::properties::{self, names as prop};
use crate::wire::message::record::RecordView;
use crate::wire::message::tags::tag_code;
use crate::wire::remoting::code::{response as rc, VERSION_MAX_RECONSUME};
use crate::wire::remoting::requests::SendBack;
use crate::wire::remoting::{Command, Language};
use bytes::BytesMut;

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
    let new_topic = match next {
        Next::DeadLetter => auto_create::dlq_topic(&group.name),
        Next::Retry(_) => auto_create::retry_topic(&group.name, group.retry_queue_nums),
    };
    ctx.shared().ensure_topic(broker, new_topic.clone()).await?;
    let topic = ctx.topic(broker, &new_topic.name)?;
    store(ctx, broker, &failed, &topic, next).await
}

fn retry_properties(failed: &RecordView<'_>, next: Next) -> Vec<u8> {
    let origin = failed.property(prop::ORIGIN_MESSAGE_ID).map(str::to_owned);
    let origin = origin.unwrap_or_else(|| offset_msg_id(failed.store_host(), failed.phys_offset()));
    let mut add = vec![(prop::ORIGIN_MESSAGE_ID, origin.as_str())];
    let retry_topic = failed.property(prop::RETRY_TOPIC).unwrap_or(failed.topic());
    add.push((prop::RETRY_TOPIC, retry_topic));
    if next == Next::DeadLetter {
        add.push((prop::DLQ_ORIGIN_TOPIC, retry_topic));
        add.push((prop::DLQ_ORIGIN_MESSAGE_ID, origin.as_str()));
    }
    let mut out = Vec::with_capacity(failed.properties().len() + 160);
    let remove = [
        prop::ORIGIN_MESSAGE_ID,
        prop::RETRY_TOPIC,
        prop::DELAY,
        prop::DLQ_ORIGIN_TOPIC,
        prop::DLQ_ORIGIN_MESSAGE_ID,
    ];
    properties::rewrite(failed.properties(), &remove, &add, &mut out);
    out
}

async fn store(
    ctx: &Ctx,
    broker: &BrokerSide,
    failed: &RecordView<'_>,
    topic: &TopicConfig,
    next: Next,
) -> Result<Reply, Reply> {
    let shared = ctx.shared();
    let properties = retry_properties(failed, next);
    let queue = ctx.conn.worker.next_random() % topic.write_queues.max(1);
    let mut record = failed.to_input();
    record.topic = &topic.name;
    record.queue_id = queue as i32;
    record.queue_offset = 0;
    record.phys_offset = 0;
    record.store_ts = 0;
    record.store_host = shared.store_host(ctx.conn.local_ip());
    record.reconsume_times = failed.reconsume_times().saturating_add(1);
    record.prepared_txn_offset = 0;
    record.properties = &properties;
    let mut bytes = BytesMut::new();
    let size = record.encode(&mut bytes);
    let size = size.map_err(|e| Reply::err(rc::MESSAGE_ILLEGAL, e.to_string()))?;
    // A small request that stores a large message: counted like a send until it is stored.
    let Some(_permit) = shared.permits.hold(bytes.len() as u64) else {
        return Err(Reply::err(rc::SYSTEM_BUSY, OVERLOAD));
    };
    let tag = properties::get(&properties, prop::TAGS).map_or(0, tag_code);
    let key = QueueKey::new(TopicId(topic.id), queue);
    let policy = topic_policy(shared, topic);
    let (token, outcome) = ctx.conn.worker.task_token();
    let delay = match next {
        Next::Retry(level) => shared.levels.delay_ms(level),
        Next::DeadLetter => None,
    };
    match delay {
        Some(delay) => broker.shard.schedule(ScheduleRequest {
            token,
            policy,
            due_ms: broker.shard.clock().now_ms().saturating_add(delay),
            target: key,
            tag,
            record: bytes.into(),
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
