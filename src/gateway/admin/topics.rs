//! Topics: 17, 18, 215, 351, 21, 305.

use super::super::convert::{topic_body, version_body};
use super::super::ctx::Ctx;
use super::super::reply::Reply;
use super::super::shared::BrokerSide;
use super::{attributes, data_version, pages, Answer};
use crate::model::command::MetaOp;
use crate::model::quota::QuotaKind;
use crate::model::topic::{TopicConfig, PERM_INHERIT, PERM_READ, PERM_WRITE};
use crate::routing::names::special_group;
use crate::routing::system;
use crate::wire::message::names;
use crate::wire::remoting::body::config::TopicConfigList;
use crate::wire::remoting::body::{self, DataVersion, TopicConfigWrapper, TopicList};
use crate::wire::remoting::code::response as rc;
use crate::wire::remoting::requests::{
    parse_attributes, AttributeChange, CreateTopic, TopicRequest,
};
use crate::wire::remoting::Command;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Most queues clients may ask for.
const MAX_QUEUES: i32 = 1_024;

fn invalid(text: impl Into<String>) -> Reply {
    Reply::err(rc::INVALID_PARAMETER, text.into())
}

/// A user's topic: a legal name that is not the system's.
fn user_topic(ctx: &Ctx, name: &str) -> Result<(), Reply> {
    names::check_topic(name).map_err(|e| invalid(e.to_string()))?;
    let config = &ctx.shared().config;
    if system::is_system(name, &config.cluster_name, &config.broker_name) {
        return Err(invalid(format!(
            "The topic[{name}] is conflict with system topic."
        )));
    }
    Ok(())
}

fn numbers(topic: &mut TopicConfig, read: i32, write: i32, perm: i32) -> Result<(), Reply> {
    let count = |n: i32, what: &str| match u32::try_from(n) {
        Ok(count) if n <= MAX_QUEUES => Ok(count),
        _ => Err(invalid(format!("{what} must be 0 to {MAX_QUEUES}"))),
    };
    topic.read_queues = count(read, "readQueueNums")?;
    topic.write_queues = count(write, "writeQueueNums")?;
    if topic.queues() == 0 {
        return Err(invalid("the topic has no queue"));
    }
    let all = PERM_READ | PERM_WRITE | PERM_INHERIT;
    topic.perm = u32::try_from(perm)
        .ok()
        .filter(|p| p & !all == 0)
        .ok_or_else(|| invalid("perm must be a sum of 4 (read), 2 (write) and 1 (inherit)"))?;
    Ok(())
}

/// The attributes of `old` after the changes; RocketMQ's code and words for what may not be.
fn attributes_of(
    ctx: &Ctx,
    old: Option<&TopicConfig>,
    changes: &[AttributeChange<'_>],
) -> Result<BTreeMap<String, String>, Reply> {
    let mixed = AttributeChange::Set(attributes::MESSAGE_TYPE, attributes::MIXED);
    if !ctx.shared().config.enable_mixed_message_type && changes.contains(&mixed) {
        return Err(invalid("MIXED message type is not supported."));
    }
    attributes::change(attributes::TOPIC, old.map(|t| &t.attributes), changes)
        .map_err(|remark| Reply::err(rc::SYSTEM_ERROR, remark))
}

async fn put(ctx: &Ctx, broker: &BrokerSide, topic: TopicConfig) -> Result<(), Reply> {
    ctx.shared().change(broker, MetaOp::PutTopic(topic)).await?;
    Ok(())
}

/// UPDATE_AND_CREATE_TOPIC 17.
pub async fn create(ctx: &Ctx, broker: &BrokerSide, command: &Command) -> Answer {
    let request = CreateTopic::parse(command)?;
    user_topic(ctx, request.topic)?;
    let old = broker.shard.meta().topic(request.topic);
    let mut topic = TopicConfig::new(request.topic, 0, 0);
    numbers(
        &mut topic,
        request.read_queue_nums,
        request.write_queue_nums,
        request.perm,
    )?;
    topic.order = request.order;
    topic.multi_tag = request.topic_filter_type == Some("MULTI_TAG");
    topic.sys_flag = u32::try_from(request.topic_sys_flag.unwrap_or(0))
        .map_err(|_| invalid("topicSysFlag must not be negative"))?;
    let changes = parse_attributes(request.attributes.unwrap_or_default())
        .map_err(|remark| Reply::err(rc::SYSTEM_ERROR, remark))?;
    topic.attributes = attributes_of(ctx, old.as_deref(), &changes)?;
    if old.is_none() {
        ctx.conn.may_create(QuotaKind::ConnectionTopics, 1)?;
    }
    put(ctx, broker, topic).await?;
    ctx.shared().announce(broker).await;
    Ok(Reply::ok())
}

/// UPDATE_AND_CREATE_TOPIC_LIST 18: all are checked before one is created.
pub async fn create_list(ctx: &Ctx, broker: &BrokerSide, command: &Command) -> Answer {
    let list: TopicConfigList = body::decode(&command.body).map_err(Reply::failed)?;
    if list.topic_config_list.len() > 1_000 {
        return Err(invalid("more than 1000 topics"));
    }
    let mut topics = Vec::new();
    let (mut new, mut plain) = (0, 0);
    for wanted in &list.topic_config_list {
        user_topic(ctx, &wanted.topic_name)?;
        let mut topic = TopicConfig::new(wanted.topic_name.as_str(), 0, 0);
        numbers(
            &mut topic,
            wanted.read_queue_nums,
            wanted.write_queue_nums,
            wanted.perm,
        )?;
        topic.order = wanted.order;
        topic.multi_tag = wanted.topic_filter_type == "MULTI_TAG";
        topic.sys_flag = u32::try_from(wanted.topic_sys_flag)
            .map_err(|_| invalid("topicSysFlag must not be negative"))?;
        let changes: Vec<_> = wanted
            .attributes
            .iter()
            .map(|(key, value)| AttributeChange::of(key, value))
            .collect();
        let old = broker.shard.meta().topic(&wanted.topic_name);
        topic.attributes = attributes_of(ctx, old.as_deref(), &changes)?;
        new += usize::from(old.is_none());
        let special = special_group(&wanted.topic_name).is_some();
        plain += u64::from(old.is_none() && !special);
        topics.push(topic);
    }
    if new > 0 {
        broker.room(QuotaKind::Topics, plain)?;
        ctx.conn.may_create(QuotaKind::ConnectionTopics, new)?;
    }
    for topic in topics {
        put(ctx, broker, topic).await?;
    }
    ctx.shared().announce(broker).await;
    Ok(Reply::ok())
}

/// DELETE_TOPIC_IN_BROKER 215. Absent: success.
pub async fn delete(ctx: &Ctx, broker: &BrokerSide, command: &Command) -> Answer {
    let topic = TopicRequest::parse(command)?.topic;
    user_topic(ctx, topic)?;
    if broker.shard.meta().topic(topic).is_some() {
        ctx.shared()
            .change(broker, MetaOp::DeleteTopic(topic.to_owned()))
            .await?;
        ctx.shared().metrics.forget_topic(topic);
        ctx.shared().announce(broker).await;
    }
    Ok(Reply::ok())
}

/// GET_TOPIC_CONFIG 351.
pub fn get(broker: &BrokerSide, command: &Command) -> Answer {
    let name = TopicRequest::parse(command)?.topic;
    let topic = broker.shard.meta().topic(name).ok_or_else(|| {
        Reply::err(
            rc::TOPIC_NOT_EXIST,
            format!("No topic in this broker. topic: {name}"),
        )
    })?;
    Ok(Reply::body(body::encode(&topic_body(&topic))))
}

/// All topics, as 21 answers and 103 registers them.
pub fn wrapper(broker: &BrokerSide, started_ms: i64) -> TopicConfigWrapper {
    // Read before the topics: no version may stand for less than it has.
    let version = version_body(&data_version(broker, started_ms));
    table(version, &broker.shard.meta().topics())
}

fn table(data_version: DataVersion, topics: &[Arc<TopicConfig>]) -> TopicConfigWrapper {
    TopicConfigWrapper {
        data_version,
        topic_config_table: topics
            .iter()
            .map(|t| (t.name.clone(), topic_body(t)))
            .collect(),
        ..TopicConfigWrapper::default()
    }
}

/// GET_ALL_TOPIC_CONFIG 21: page by page, or everything in one answer.
pub async fn all(ctx: &Ctx, broker: &BrokerSide, command: &Command) -> Answer {
    let version = version_body(&data_version(broker, ctx.shared().started_ms));
    let topics = broker.shard.meta().topics();
    let encode = move |topics: &[Arc<TopicConfig>]| body::encode(&table(version, topics));
    pages::answer(ctx, command, &pages::TOPICS, version, topics, encode).await
}

/// GET_SYSTEM_TOPIC_LIST_FROM_BROKER 305.
pub fn system(ctx: &Ctx, broker: &BrokerSide) -> Reply {
    let config = &ctx.shared().config;
    let topics = broker.shard.meta().topics();
    let topic_list = topics
        .iter()
        .filter(|t| system::is_system(&t.name, &config.cluster_name, &config.broker_name))
        .map(|t| t.name.clone())
        .collect();
    Reply::body(body::encode(&TopicList {
        broker_addr: None,
        topic_list,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_numbers_are_refused() {
        let mut t = TopicConfig::default();
        assert!(numbers(&mut t, 8, 4, 6).is_ok());
        assert_eq!((t.read_queues, t.write_queues, t.perm), (8, 4, 6));
        for (read, write, perm) in [
            (-1, 8, 6),
            (8, -1, 6),
            (0, 0, 6),
            (1_025, 8, 6),
            (8, i32::MAX, 6),
            (8, 8, 16),
            (8, 8, -1),
        ] {
            let refused = numbers(&mut t, read, write, perm).unwrap_err();
            assert_eq!(refused.code, 29, "{read} {write} {perm}");
        }
    }
}
