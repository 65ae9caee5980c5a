//! Subscription groups and who is connected: 200, 225, 207, 201, 352, 203, 204, 328, 345.

use super::super::convert::{
    connection_body, group_body, group_config, members_body, version_body,
};
use super::super::ctx::{group_name, Ctx};
use super::super::reply::Reply;
use super::super::shared::BrokerSide;
use super::{attributes, data_version, pages, Answer};
use crate::actors::clock::boot_ms;
use crate::actors::group::offsets::MAX_BATCH;
use crate::model::command::{CommitOffsets, DeleteGroup as DeleteOp, MetaOp, QueueOffset};
use crate::model::group::GroupConfig;
use crate::model::quota::QuotaKind;
use crate::model::GroupId;
use crate::wire::remoting::body::config::GroupConfigList;
use crate::wire::remoting::body::connection::{ProducerInfo, ProducerTableInfo};
use crate::wire::remoting::body::{
    self, ProducerConnection, SubscriptionData, SubscriptionGroupConfig, SubscriptionGroupWrapper,
};
use crate::wire::remoting::code::response as rc;
use crate::wire::remoting::requests::{
    AttributeChange, ConsumerConnectionRequest, DeleteGroup, GroupRequest, GroupSubscription,
    ProducerConnectionRequest,
};
use crate::wire::remoting::Command;
use serde::Serialize;
use std::sync::Arc;

async fn put(
    ctx: &Ctx,
    broker: &BrokerSide,
    wanted: &[SubscriptionGroupConfig],
) -> Result<(), Reply> {
    let mut configs = Vec::new();
    let mut new = 0;
    for group in wanted {
        group_name(&group.group_name)?;
        let mut config = group_config(group).ok_or_else(|| {
            Reply::err(
                rc::INVALID_PARAMETER,
                "a number of the group is out of range",
            )
        })?;
        if config.retry_policy_json.len() > MAX_POLICY {
            let text = format!("groupRetryPolicy has more than {MAX_POLICY} bytes");
            return Err(Reply::err(rc::INVALID_PARAMETER, text));
        }
        let changes: Vec<_> = group
            .attributes
            .iter()
            .map(|(key, value)| AttributeChange::of(key, value))
            .collect();
        let old = broker.shard.meta().group(&group.group_name);
        new += usize::from(old.is_none());
        let old = old.as_deref().map(|g| &g.attributes);
        config.attributes = attributes::change(attributes::GROUP, old, &changes)
            .map_err(|remark| Reply::err(rc::SYSTEM_ERROR, remark))?;
        configs.push(config);
    }
    if new > 0 {
        let kept = configs.iter().filter(|g| is_kept(broker, &g.name)).count();
        broker.room(QuotaKind::Groups, (new - kept) as u64)?;
        ctx.conn.may_create(QuotaKind::ConnectionGroups, new)?;
    }
    for config in configs {
        ctx.shared()
            .change(broker, MetaOp::PutGroup(config))
            .await?;
    }
    Ok(())
}

/// Longest retry policy of a group, bytes of JSON.
const MAX_POLICY: usize = 4_096;

/// The group was deleted and its offsets kept: it counts already.
fn is_kept(broker: &BrokerSide, group: &str) -> bool {
    broker.shard.meta().kept_group(group).is_some()
}

/// UPDATE_AND_CREATE_SUBSCRIPTIONGROUP 200.
pub async fn create(ctx: &Ctx, broker: &BrokerSide, command: &Command) -> Answer {
    let group: SubscriptionGroupConfig = body::decode(&command.body).map_err(Reply::failed)?;
    put(ctx, broker, &[group]).await?;
    Ok(Reply::ok())
}

/// UPDATE_AND_CREATE_SUBSCRIPTIONGROUP_LIST 225.
pub async fn create_list(ctx: &Ctx, broker: &BrokerSide, command: &Command) -> Answer {
    let list: GroupConfigList = body::decode(&command.body).map_err(Reply::failed)?;
    if list.group_config_list.len() > 1_000 {
        return Err(Reply::err(rc::INVALID_PARAMETER, "more than 1000 groups"));
    }
    put(ctx, broker, &list.group_config_list).await?;
    Ok(Reply::ok())
}

/// DELETE_SUBSCRIPTIONGROUP 207. Absent: success. Without `cleanOffset` the group's offsets are
/// kept: created again, it goes on from them.
pub async fn delete(ctx: &Ctx, broker: &BrokerSide, command: &Command) -> Answer {
    let request = DeleteGroup::parse(command)?;
    let (meta, name) = (broker.shard.meta(), request.group_name);
    let there = meta.group(name);
    let op = match &there {
        Some(group) if !request.clean_offset => {
            settle_offsets(ctx, broker, group).await?;
            MetaOp::PutGroup(GroupConfig {
                deleted: true,
                ..(**group).clone()
            })
        }
        None if !request.clean_offset || meta.kept_group(name).is_none() => return Ok(Reply::ok()),
        _ => MetaOp::DeleteGroup(DeleteOp {
            name: name.to_owned(),
            clean_offsets: true,
        }),
    };
    ctx.shared().change(broker, op).await?;
    broker.groups.group_deleted(name);
    Ok(Reply::ok())
}

/// Puts into the log what was committed and still waits to be: it must not go with the group's actor.
async fn settle_offsets(ctx: &Ctx, broker: &BrokerSide, group: &GroupConfig) -> Result<(), Reply> {
    let applied = broker.shard.group_state(GroupId(group.id)).await?.offsets;
    let all = broker.groups.offsets_of(&group.name).await?;
    let waits = all.into_iter().filter(|o| !applied.contains(o));
    let waiting: Vec<QueueOffset> = waits
        .map(|((topic, queue), offset)| QueueOffset {
            topic,
            queue,
            offset,
        })
        .collect();
    for some in waiting.chunks(MAX_BATCH) {
        let op = CommitOffsets {
            group: group.id,
            offsets: some.to_vec(),
            reset: false,
        };
        ctx.shared()
            .change(broker, MetaOp::CommitOffsets(op))
            .await?;
    }
    Ok(())
}

/// GET_ALL_SUBSCRIPTIONGROUP_CONFIG 201: page by page, or everything in one answer.
pub async fn all(ctx: &Ctx, broker: &BrokerSide, command: &Command) -> Answer {
    let version = version_body(&data_version(broker, ctx.shared().started_ms));
    let groups = broker.shard.meta().groups();
    let encode = move |groups: &[Arc<GroupConfig>]| {
        body::encode(&SubscriptionGroupWrapper {
            data_version: version,
            subscription_group_table: groups
                .iter()
                .map(|g| (g.name.clone(), group_body(g)))
                .collect(),
            ..SubscriptionGroupWrapper::default()
        })
    };
    pages::answer(ctx, command, &pages::GROUPS, version, groups, encode).await
}

/// GET_SUBSCRIPTIONGROUP_CONFIG 352.
pub fn get(broker: &BrokerSide, command: &Command) -> Answer {
    let name = GroupRequest::parse(command)?.group;
    let group = broker.shard.meta().group(name).ok_or_else(|| {
        let text = format!("No group in this broker. group: {name}");
        Reply::err(rc::SUBSCRIPTION_GROUP_NOT_EXIST, text)
    })?;
    Ok(Reply::body(body::encode(&group_body(&group))))
}

/// GET_CONSUMER_CONNECTION_LIST 203.
pub fn consumers(broker: &BrokerSide, command: &Command) -> Answer {
    let name = ConsumerConnectionRequest::parse(command)?.consumer_group;
    let members = broker.groups.members(name).ok_or_else(|| {
        let text = format!("the consumer group[{name}] not online");
        Reply::err(rc::CONSUMER_NOT_ONLINE, text)
    })?;
    Ok(Reply::body(body::encode(&members_body(&members))))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OneSubscription<'a> {
    group: &'a str,
    topic: &'a str,
    subscription_data: Option<SubscriptionData>,
}

/// QUERY_SUBSCRIPTION_BY_CONSUMER 345: what the members of a group subscribe to in a topic; null when none does.
pub fn subscription(broker: &BrokerSide, command: &Command) -> Answer {
    let GroupSubscription { group, topic } = GroupSubscription::parse(command)?;
    let members = broker.groups.members(group);
    let mut table = members.map(|members| members_body(&members).subscription_table);
    Ok(Reply::body(body::encode(&OneSubscription {
        group,
        topic,
        subscription_data: table.as_mut().and_then(|table| table.remove(topic)),
    })))
}

/// GET_PRODUCER_CONNECTION_LIST 204.
pub fn producers(broker: &BrokerSide, command: &Command) -> Answer {
    let name = ProducerConnectionRequest::parse(command)?.producer_group;
    let connections = broker.groups.producer_connections(name);
    if connections.is_empty() {
        let text = format!("the producer group[{name}] not exist");
        return Err(Reply::err(rc::SYSTEM_ERROR, text));
    }
    let connection_set = connections.iter().map(connection_body).collect();
    Ok(Reply::body(body::encode(&ProducerConnection {
        connection_set,
    })))
}

/// When a client was heard, as a time of the day.
fn heard_at(broker: &BrokerSide, c: &crate::actors::group::types::Connection) -> i64 {
    broker.shard.clock().now_ms() - boot_ms().saturating_sub(c.last_update_ms)
}

/// GET_ALL_PRODUCER_INFO 328.
pub fn all_producers(broker: &BrokerSide) -> Reply {
    let info = |c: crate::actors::group::types::Connection| ProducerInfo {
        last_update_timestamp: heard_at(broker, &c),
        client_id: c.client_id,
        language: c.language,
        remote_ip: format!("/{}", c.client_addr),
        version: c.version,
    };
    let groups = broker.groups.producers().into_iter();
    let data = groups
        .map(|(g, list)| (g, list.into_iter().map(info).collect()))
        .collect();
    Reply::body(body::encode(&ProducerTableInfo { data }))
}
