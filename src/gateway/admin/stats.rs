//! Figures of topics and groups: 202, 208, 300, 303, 317, 343.

use super::super::ctx::{wire, Ctx};
use super::super::reply::Reply;
use super::super::shared::BrokerSide;
use super::super::traffic::Window;
use super::Answer;
use crate::actors::clock::boot_ms;
use crate::actors::shard::handle::QueueBounds;
use crate::actors::shard::ShardHandle;
use crate::model::topic::TopicConfig;
use crate::model::{QueueKey, TopicId};
use crate::wire::remoting::body::{
    self, ConsumeStats, ConsumeStatsList, GroupList, MessageQueue, OffsetWrapper, TopicList,
    TopicOffset, TopicStatsTable,
};
use crate::wire::remoting::code::response as rc;
use crate::wire::remoting::requests::{ConsumeStatsRequest, GroupRequest, TopicRequest};
use crate::wire::remoting::Command;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
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
    let put = ctx.shared().topic_put(name, Window::Minute, |a| a.messages);
    Ok(Reply::body(
        TopicStatsTable {
            offset_table,
            topic_put_tps: put.map_or(0.0, |figure| figure.tps),
        }
        .encode(),
    ))
}

/// GET_CONSUME_STATS 208: an entry for each read queue of each topic that the group committed an
/// offset in, and still subscribes to while it has members. A group that only broadcasts commits
/// nothing here and has no entry: what its members have read is not known, and no lag.
pub async fn consume(ctx: &Ctx, broker: &BrokerSide, command: &Command) -> Answer {
    let request = ConsumeStatsRequest::parse(command)?;
    let group = request.consumer_group;
    let offsets = committed_by(broker, group).await?;
    let meta = broker.shard.meta();
    let named = |list: &str| list.split(';').filter_map(|t| meta.topic(t)).collect();
    let asked = |topic: &&str| !topic.trim().is_empty();
    let topics: Vec<Arc<TopicConfig>> = match request.topic_list.filter(asked) {
        // A list is taken as it is.
        Some(list) => named(list),
        None => {
            let mut topics = match request.topic.filter(asked) {
                Some(topic) => named(topic),
                None => with_offsets(broker, &offsets),
            };
            retain_subscribed(broker, group, &mut topics);
            topics
        }
    };
    let mut stats = ConsumeStats::default();
    for topic in topics {
        let of_topic = progress(ctx, broker, &topic, group, &offsets).await?;
        stats.consume_tps += of_topic.consume_tps;
        stats.offset_table.0.extend(of_topic.offset_table.0);
    }
    Ok(Reply::body(ctx.read(move || stats.encode()).await?))
}

/// How far a group is in one topic: an entry for each read queue.
async fn progress(
    ctx: &Ctx,
    broker: &BrokerSide,
    topic: &TopicConfig,
    group: &str,
    offsets: &Offsets,
) -> Result<ConsumeStats, Reply> {
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
    let wrapper = |(queue, max, offset, last_timestamp): (u32, u64, u64, i64)| {
        let wrapper = OffsetWrapper {
            broker_offset: wire(max),
            consumer_offset: wire(offset),
            last_timestamp,
            pull_offset: wire(offset),
        };
        (queue_name(ctx, &topic.name, queue), wrapper)
    };
    let got = ctx
        .shared()
        .traffic
        .got(&topic.name, group, Window::Minute, boot_ms(), |a| {
            a.messages
        });
    Ok(ConsumeStats {
        consume_tps: got.map_or(0.0, |figure| figure.tps),
        offset_table: figures.into_iter().map(wrapper).collect(),
    })
}

/// GET_BROKER_CONSUME_STATS 317: what 208 says, for every group.
pub async fn of_all_groups(ctx: &Ctx, broker: &BrokerSide, command: &Command) -> Answer {
    // Only topics that are marked as ordered.
    let ordered_only = command.opt_bool("isOrder").unwrap_or(false);
    let mut list = ConsumeStatsList {
        broker_addr: ctx.shared().store_host(ctx.conn.local_ip()).to_string(),
        ..ConsumeStatsList::default()
    };
    for group in broker.shard.meta().groups() {
        let offsets = committed_by(broker, &group.name).await?;
        let mut topics = with_offsets(broker, &offsets);
        retain_subscribed(broker, &group.name, &mut topics);
        topics.retain(|topic| topic.order || !ordered_only);
        let mut of_group = Vec::new();
        for topic in topics {
            of_group.push(progress(ctx, broker, &topic, &group.name, &offsets).await?);
        }
        if !of_group.is_empty() {
            list.groups.push((group.name.clone(), of_group));
        }
    }
    Ok(Reply::body(ctx.read(move || list.encode()).await?))
}

/// QUERY_TOPICS_BY_CONSUMER 343: the topics that a group committed offsets in.
pub async fn topics_of_group(broker: &BrokerSide, command: &Command) -> Answer {
    let group = GroupRequest::parse(command)?.group;
    let topics = with_offsets(broker, &committed_by(broker, group).await?);
    Ok(Reply::body(body::encode(&TopicList {
        topic_list: topics.iter().map(|topic| topic.name.clone()).collect(),
        ..TopicList::default()
    })))
}

/// Offsets that a group committed, (topic id, queue) → offset.
type Offsets = BTreeMap<(u32, u32), u64>;

/// What the group committed, also when it was deleted since and its offsets kept; nothing for an
/// unknown group.
async fn committed_by(broker: &BrokerSide, group: &str) -> Result<Offsets, Reply> {
    let meta = broker.shard.meta();
    if meta.group(group).is_some() {
        return Ok(broker.groups.offsets_of(group).await?);
    }
    match meta.kept_group(group) {
        Some(id) => Ok(broker
            .shard
            .group_state(id)
            .await?
            .offsets
            .into_iter()
            .collect()),
        None => Ok(Offsets::new()),
    }
}

/// Topics with offsets, each once.
fn with_offsets(broker: &BrokerSide, offsets: &Offsets) -> Vec<Arc<TopicConfig>> {
    let ids: BTreeSet<u32> = offsets.keys().map(|(topic, _)| *topic).collect();
    let topic = |id| broker.shard.meta().topic_by_id(TopicId(id));
    ids.into_iter().filter_map(topic).collect()
}

/// Leaves the topics that the group subscribes to; all of them while nobody says what that is.
fn retain_subscribed(broker: &BrokerSide, group: &str, topics: &mut Vec<Arc<TopicConfig>>) {
    let Some(members) = broker.groups.members(group) else {
        return;
    };
    if !members.subscriptions.is_empty() {
        topics.retain(|topic| members.subscriptions.contains_key(&topic.name));
    }
}

/// QUERY_TOPIC_CONSUME_BY_WHO 300: groups online for the topic, and groups with offsets in it.
pub async fn consumed_by(ctx: &Ctx, broker: &BrokerSide, command: &Command) -> Answer {
    let name = TopicRequest::parse(command)?.topic;
    let topic = ctx.topic(broker, name)?;
    let mut groups: BTreeSet<String> = broker.groups.groups_of_topic(name).into_iter().collect();
    let meta = broker.shard.meta();
    let known = meta.groups().into_iter().map(|g| g.name.clone());
    let kept = meta.kept_groups().into_iter();
    let all: Vec<String> = known.chain(kept.map(|(name, _)| (*name).into())).collect();
    for group in all {
        if groups.contains(&group) {
            continue;
        }
        let offsets = committed_by(broker, &group).await?;
        if offsets.keys().any(|(id, _)| *id == topic.id) {
            groups.insert(group);
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

/// QUERY_CONSUME_TIME_SPAN 303, for each write queue: store times of the oldest and the newest
/// message and of the last one that the group consumed (the oldest for a group that consumed none),
/// and how long the next one has waited. -1 where there is no such message.
pub async fn time_span(ctx: &Ctx, broker: &BrokerSide, command: &Command) -> Answer {
    let topic = ctx.topic(broker, command.req_str("topic")?)?;
    let group = command.req_str("group")?;
    let offsets = committed_by(broker, group).await?;
    let (shard, id, queues) = (broker.shard.clone(), TopicId(topic.id), topic.write_queues);
    let now_ms = shard.clock().now_ms();
    let times: Vec<_> = ctx
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
                let next = offsets.get(&(id.0, q)).copied().unwrap_or(0);
                let min = time(key, Some(bounds.min).filter(inside));
                let max = time(key, bounds.max.checked_sub(1).filter(inside));
                let consumed = match next.checked_sub(1) {
                    Some(last) => time(key, Some(last).filter(inside)),
                    None => min,
                };
                let waits = Some(next.max(bounds.min)).filter(inside);
                let delay = waits.map(|_| now_ms.saturating_sub(time(key, waits)));
                (q, min, max, consumed, delay.unwrap_or(0).max(0))
            };
            (0..queues).map(one).collect()
        })
        .await?;
    let span = |(q, min, max, consumed, delay)| QueueSpan {
        message_queue: queue_name(ctx, &topic.name, q),
        min_time_stamp: min,
        max_time_stamp: max,
        consume_time_stamp: consumed,
        delay_time: delay,
    };
    match serde_json::to_vec(&TimeSpans {
        consume_time_span_set: times.into_iter().map(span).collect(),
    }) {
        Ok(json) => Ok(Reply::body(json)),
        Err(e) => Err(Reply::err(rc::SYSTEM_ERROR, e.to_string())),
    }
}
