//! Figures of topics and groups: 202, 208, 300, 303.

use super::super::ctx::{wire, Ctx};
use super::super::reply::Reply;
use super::super::shared::BrokerSide;
use super::Answer;
use crate::actors::shard::handle::QueueBounds;
use crate::actors::shard::ShardHandle;
use crate::model::topic::TopicConfig;
use crate::model::{QueueKey, TopicId};
use crate::wire::message::names;
use crate::wire::remoting::body::{
    self, ConsumeStats, GroupList, MessageQueue, OffsetWrapper, TopicOffset, TopicStatsTable,
};
use crate::wire::remoting::code::response as rc;
use crate::wire::remoting::requests::{ConsumeStatsRequest, TopicRequest};
use crate::wire::remoting::Command;
use serde::Serialize;
use std::collections::BTreeSet;
use std::sync::Arc;

fn queue_name(ctx: &Ctx, topic: &str, queue: u32) -> MessageQueue {
    MessageQueue {
        broker_name: ctx.shared().broker_name.clone(),
        queue_id: queue as i32,
        topic: topic.to_owned(),
    }
}

/// Bounds of a queue and the store time of its last message.
fn last_stored(shard: &ShardHandle, key: QueueKey) -> (QueueBounds, i64) {
    let bounds = shard.bounds(key);
    let last = bounds.max.checked_sub(1).filter(|last| *last >= bounds.min);
    let at = last.and_then(|last| shard.store_time(key, last).ok().flatten());
    (bounds, at.unwrap_or(0))
}

/// GET_TOPIC_STATS_INFO 202: an entry for each of max(read, write) queues.
pub async fn topic(ctx: &Ctx, broker: &BrokerSide, command: &Command) -> Answer {
    let name = TopicRequest::parse(command)?.topic;
    let topic = ctx.topic(broker, name)?;
    let (shard, id, queues) = (broker.shard.clone(), TopicId(topic.id), topic.queues());
    let figures: Vec<_> = ctx
        .read(move || {
            (0..queues)
                .map(|q| last_stored(&shard, QueueKey::new(id, q)))
                .collect()
        })
        .await?;
    let offset_table = figures
        .iter()
        .zip(0u32..)
        .map(|((bounds, last), q)| {
            let offsets = TopicOffset {
                last_update_timestamp: *last,
                max_offset: wire(bounds.max),
                min_offset: wire(bounds.min),
            };
            (queue_name(ctx, name, q), offsets)
        })
        .collect();
    Ok(Reply::body(
        TopicStatsTable {
            offset_table,
            topic_put_tps: 0.0,
        }
        .encode(),
    ))
}

/// GET_CONSUME_STATS 208: an entry for each read queue of each topic of the group.
pub async fn consume(ctx: &Ctx, broker: &BrokerSide, command: &Command) -> Answer {
    let request = ConsumeStatsRequest::parse(command)?;
    let group = request.consumer_group;
    let empty = ConsumeStats::default();
    if broker.shard.meta().group(group).is_none() {
        return Ok(Reply::body(empty.encode()));
    }
    let offsets = broker.groups.offsets_of(group).await?;
    let topics: Vec<Arc<TopicConfig>> = match (request.topic, request.topic_list) {
        (Some(topic), _) => broker.shard.meta().topic(topic).into_iter().collect(),
        (None, Some(list)) => list
            .split(';')
            .filter_map(|t| broker.shard.meta().topic(t))
            .collect(),
        (None, None) => topics_of(broker, group, offsets.keys().map(|(topic, _)| *topic)),
    };
    let mut stats = empty;
    for topic in topics {
        let id = TopicId(topic.id);
        let asked: Vec<(QueueKey, u64)> = (0..topic.read_queues)
            .map(|q| {
                (
                    QueueKey::new(id, q),
                    offsets.get(&(id.0, q)).copied().unwrap_or(0),
                )
            })
            .collect();
        let shard = broker.shard.clone();
        let figures: Vec<_> = ctx
            .read(move || {
                asked
                    .into_iter()
                    .map(|(key, offset)| {
                        let bounds = shard.bounds(key);
                        let last = offset.checked_sub(1).filter(|o| *o >= bounds.min);
                        let at = last.and_then(|o| shard.store_time(key, o).ok().flatten());
                        (key.queue, bounds.max, offset, at.unwrap_or(0))
                    })
                    .collect()
            })
            .await?;
        for (queue, max, offset, last_timestamp) in figures {
            let wrapper = OffsetWrapper {
                broker_offset: wire(max),
                consumer_offset: wire(offset),
                last_timestamp,
                pull_offset: wire(offset),
            };
            stats
                .offset_table
                .0
                .insert(queue_name(ctx, &topic.name, queue), wrapper);
        }
    }
    Ok(Reply::body(stats.encode()))
}

/// Topics the group subscribes to or has offsets in.
fn topics_of(
    broker: &BrokerSide,
    group: &str,
    with_offsets: impl Iterator<Item = u32>,
) -> Vec<Arc<TopicConfig>> {
    let meta = broker.shard.meta();
    let mut found: Vec<_> = with_offsets
        .filter_map(|id| meta.topic_by_id(TopicId(id)))
        .collect();
    if let Some(members) = broker.groups.members(group) {
        found.extend(
            members
                .subscriptions
                .keys()
                .filter_map(|topic| meta.topic(topic)),
        );
    }
    found.extend(meta.topic(&names::retry_topic(group)));
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found.dedup_by(|a, b| a.name == b.name);
    found
}

/// QUERY_TOPIC_CONSUME_BY_WHO 300: groups online for the topic, and groups with offsets in it.
pub async fn consumed_by(ctx: &Ctx, broker: &BrokerSide, command: &Command) -> Answer {
    let name = TopicRequest::parse(command)?.topic;
    let topic = ctx.topic(broker, name)?;
    let mut groups: BTreeSet<String> = broker.groups.groups_of_topic(name).into_iter().collect();
    for group in broker.shard.meta().groups() {
        if groups.contains(&group.name) {
            continue;
        }
        let offsets = broker.groups.offsets_of(&group.name).await?;
        if offsets.keys().any(|(id, _)| *id == topic.id) {
            groups.insert(group.name.clone());
        }
    }
    let group_list = groups.into_iter().collect();
    Ok(Reply::body(body::encode(&GroupList { group_list })))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct QueueSpan {
    message_queue: MessageQueue,
    min_time_stamp: i64,
    max_time_stamp: i64,
    consume_time_stamp: i64,
    delay_time: i64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TimeSpans {
    consume_time_span_set: Vec<QueueSpan>,
}

/// QUERY_CONSUME_TIME_SPAN 303.
pub async fn time_span(ctx: &Ctx, broker: &BrokerSide, command: &Command) -> Answer {
    let topic = ctx.topic(broker, command.req_str("topic")?)?;
    let group = command.req_str("group")?;
    ctx.group_exists(broker, group)?;
    let offsets = broker.groups.offsets_of(group).await?;
    let (shard, id, queues) = (broker.shard.clone(), TopicId(topic.id), topic.read_queues);
    let times: Vec<(u32, i64, i64, i64)> = ctx
        .read(move || {
            let time = |key, offset: Option<u64>| {
                offset
                    .and_then(|o| shard.store_time(key, o).ok().flatten())
                    .unwrap_or(-1)
            };
            let one = |q| {
                let key = QueueKey::new(id, q);
                let bounds = shard.bounds(key);
                let inside = |o: &u64| *o >= bounds.min && *o < bounds.max;
                let consumed = offsets.get(&(id.0, q)).and_then(|o| o.checked_sub(1));
                let min = time(key, Some(bounds.min).filter(inside));
                let max = time(key, bounds.max.checked_sub(1).filter(inside));
                (q, min, max, time(key, consumed.filter(inside)))
            };
            (0..queues).map(one).collect()
        })
        .await?;
    let spans = times.into_iter().map(|(q, min, max, consumed)| QueueSpan {
        message_queue: queue_name(ctx, &topic.name, q),
        min_time_stamp: min,
        max_time_stamp: max,
        consume_time_stamp: consumed,
        delay_time: if consumed >= 0 {
            max.saturating_sub(consumed).max(0)
        } else {
            0
        },
    });
    match serde_json::to_vec(&TimeSpans {
        consume_time_span_set: spans.collect(),
    }) {
        Ok(json) => Ok(Reply::body(json)),
        Err(e) => Err(Reply::err(rc::SYSTEM_ERROR, e.to_string())),
    }
}
