//! Between the bodies of the wire and the values of the model, the groups and the routes. No I/O.

use crate::actors::group::types as group;
use crate::model::group::GroupConfig;
use crate::model::topic::TopicConfig;
use crate::routing;
use crate::wire::remoting::body;
use std::collections::BTreeMap;
use std::net::IpAddr;

fn wire(n: u32) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

/// A topic as clients and name servers see it.
pub fn topic_body(topic: &TopicConfig) -> body::TopicConfig {
    body::TopicConfig {
        attributes: topic.attributes.clone(),
        order: topic.order,
        perm: wire(topic.perm),
        read_queue_nums: wire(topic.read_queues),
        topic_filter_type: if topic.multi_tag {
            "MULTI_TAG"
        } else {
            "SINGLE_TAG"
        }
        .to_owned(),
        topic_name: topic.name.clone(),
        topic_sys_flag: wire(topic.sys_flag),
        write_queue_nums: wire(topic.write_queues),
    }
}

/// A group as clients see it.
pub fn group_body(group: &GroupConfig) -> body::SubscriptionGroupConfig {
    body::SubscriptionGroupConfig {
        attributes: group.attributes.clone(),
        broker_id: group.broker_id,
        consume_broadcast_enable: group.consume_broadcast_enable,
        consume_enable: group.consume_enable,
        consume_from_min_enable: group.consume_from_min_enable,
        consume_message_orderly: group.consume_message_orderly,
        consume_timeout_minute: group.consume_timeout_minute,
        group_name: group.name.clone(),
        group_retry_policy: serde_json::from_str(&group.retry_policy_json).unwrap_or_default(),
        group_sys_flag: wire(group.group_sys_flag),
        notify_consumer_ids_changed_enable: group.notify_consumer_ids_changed_enable,
        retry_max_times: group.retry_max_times,
        retry_queue_nums: wire(group.retry_queue_nums),
        subscription_data_set: None,
        which_broker_when_consume_slowly: group.which_broker_when_consume_slowly,
    }
}

/// A group as a client wants it, without its attributes; `None` when a number is out of range.
pub fn group_config(body: &body::SubscriptionGroupConfig) -> Option<GroupConfig> {
    Some(GroupConfig {
        name: body.group_name.clone(),
        id: 0,
        consume_enable: body.consume_enable,
        consume_from_min_enable: body.consume_from_min_enable,
        consume_broadcast_enable: body.consume_broadcast_enable,
        consume_message_orderly: body.consume_message_orderly,
        retry_queue_nums: u32::try_from(body.retry_queue_nums)
            .ok()
            .filter(|n| *n <= 1_024)?,
        retry_max_times: body.retry_max_times,
        broker_id: body.broker_id,
        which_broker_when_consume_slowly: body.which_broker_when_consume_slowly,
        notify_consumer_ids_changed_enable: body.notify_consumer_ids_changed_enable,
        group_sys_flag: u32::try_from(body.group_sys_flag).ok()?,
        consume_timeout_minute: body.consume_timeout_minute,
        attributes: BTreeMap::new(),
        retry_policy_json: serde_json::to_string(&body.group_retry_policy).unwrap_or_default(),
        deleted: false,
    })
}

/// One subscription of a heartbeat.
pub fn subscription(data: body::SubscriptionData) -> group::Subscription {
    let mut out = group::Subscription::tags(
        data.topic,
        data.sub_string,
        data.tags_set,
        data.code_set,
        data.sub_version,
    );
    out.expression_type = data.expression_type;
    out.class_filter_mode = data.class_filter_mode;
    out
}

fn subscription_body(sub: &group::Subscription) -> body::SubscriptionData {
    body::SubscriptionData {
        class_filter_mode: sub.class_filter_mode,
        code_set: sub.codes.to_vec(),
        expression_type: match sub.expression_type.as_str() {
            "" => "TAG".to_owned(),
            other => other.to_owned(),
        },
        sub_string: sub.sub_string.clone(),
        sub_version: sub.sub_version,
        tags_set: sub.tags.clone(),
        topic: sub.topic.clone(),
    }
}

/// How a group consumes.
pub fn consume_type(t: body::ConsumeType) -> group::ConsumeType {
    match t {
        body::ConsumeType::Actively => group::ConsumeType::Actively,
        body::ConsumeType::Passively => group::ConsumeType::Passively,
        body::ConsumeType::Pop => group::ConsumeType::Pop,
    }
}

/// How messages are shared.
pub fn message_model(m: body::MessageModel) -> group::MessageModel {
    match m {
        body::MessageModel::Broadcasting => group::MessageModel::Broadcasting,
        body::MessageModel::Clustering => group::MessageModel::Clustering,
        body::MessageModel::LiteSelective => group::MessageModel::LiteSelective,
    }
}

/// Where a new group starts.
pub fn start_from(w: body::ConsumeFromWhere) -> group::StartFrom {
    match w {
        body::ConsumeFromWhere::FirstOffset => group::StartFrom::FirstOffset,
        body::ConsumeFromWhere::Timestamp => group::StartFrom::Timestamp,
        _ => group::StartFrom::LastOffset,
    }
}

/// A connection in 203 and 204.
pub fn connection_body(c: &group::Connection) -> body::Connection {
    body::Connection {
        client_addr: c.client_addr.clone(),
        client_id: c.client_id.clone(),
        language: c.language.clone(),
        version: c.version,
    }
}

/// Body of 203.
pub fn members_body(m: &group::GroupMembers) -> body::ConsumerConnection {
    body::ConsumerConnection {
        connection_set: m.connections.iter().map(connection_body).collect(),
        consume_from_where: match m.start_from {
            group::StartFrom::LastOffset => body::ConsumeFromWhere::LastOffset,
            group::StartFrom::FirstOffset => body::ConsumeFromWhere::FirstOffset,
            group::StartFrom::Timestamp => body::ConsumeFromWhere::Timestamp,
        },
        consume_type: match m.consume_type {
            group::ConsumeType::Actively => body::ConsumeType::Actively,
            group::ConsumeType::Passively => body::ConsumeType::Passively,
            group::ConsumeType::Pop => body::ConsumeType::Pop,
        },
        message_model: match m.message_model {
            group::MessageModel::Broadcasting => body::MessageModel::Broadcasting,
            group::MessageModel::Clustering => body::MessageModel::Clustering,
            group::MessageModel::LiteSelective => body::MessageModel::LiteSelective,
        },
        subscription_table: m
            .subscriptions
            .iter()
            .map(|(topic, sub)| (topic.clone(), subscription_body(sub)))
            .collect(),
    }
}

/// A broker of a route, with the address for a client that reached us at `local`.
pub fn broker_body(b: &routing::BrokerData, local: IpAddr) -> body::BrokerData {
    body::BrokerData {
        broker_addrs: addresses(&b.addrs, local),
        broker_name: b.broker_name.clone(),
        cluster: b.cluster.clone(),
        enable_acting_master: b.enable_acting_master,
        zone_name: b.zone.clone(),
    }
}

/// Addresses for a client that reached us at `local`.
pub fn addresses(
    addrs: &BTreeMap<i64, routing::AdvertisedAddr>,
    local: IpAddr,
) -> BTreeMap<i64, String> {
    addrs
        .iter()
        .map(|(id, addr)| (*id, addr.resolve(local)))
        .collect()
}

/// Body of 105.
pub fn route_body(route: &routing::TopicRoute, local: IpAddr) -> body::TopicRouteData {
    body::TopicRouteData {
        broker_datas: route
            .brokers
            .iter()
            .map(|b| broker_body(b, local))
            .collect(),
        filter_server_table: route.filter_servers.clone(),
        order_topic_conf: route.order_conf.clone(),
        queue_datas: route
            .queues
            .iter()
            .map(|q| body::QueueData {
                broker_name: q.broker_name.clone(),
                perm: wire(q.perm),
                read_queue_nums: wire(q.read_queues),
                topic_sys_flag: wire(q.sys_flag),
                write_queue_nums: wire(q.write_queues),
            })
            .collect(),
    }
}

/// Queues of a topic as 217 sends them; numbers out of range count as none.
pub fn queue_data(q: &body::QueueData) -> routing::QueueData {
    let count = |n: i32| u32::try_from(n).unwrap_or(0);
    routing::QueueData {
        broker_name: q.broker_name.clone(),
        read_queues: count(q.read_queue_nums),
        write_queues: count(q.write_queue_nums),
        perm: count(q.perm),
        sys_flag: count(q.topic_sys_flag),
    }
}

/// A registered topic; numbers out of range count as none.
pub fn route_topic(name: &str, t: &body::TopicConfig) -> routing::RouteTopic {
    let count = |n: i32| u32::try_from(n).unwrap_or(0);
    routing::RouteTopic {
        name: name.into(),
        read_queues: count(t.read_queue_nums),
        write_queues: count(t.write_queue_nums),
        perm: count(t.perm),
        sys_flag: count(t.topic_sys_flag),
        order: t.order,
    }
}

/// Data versions both ways.
pub fn version(v: &body::DataVersion) -> routing::DataVersion {
    routing::DataVersion {
        state_version: v.state_version,
        timestamp: v.timestamp,
        counter: v.counter,
    }
}

/// See [`version`].
pub fn version_body(v: &routing::DataVersion) -> body::DataVersion {
    body::DataVersion {
        counter: v.counter,
        state_version: v.state_version,
        timestamp: v.timestamp,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::AdvertisedAddr;

    #[test]
    fn a_route_shows_each_client_the_address_it_used() {
        let route = routing::TopicRoute {
            brokers: vec![routing::BrokerData {
                cluster: "C".into(),
                broker_name: "b".into(),
                addrs: [(0, AdvertisedAddr::Listening(10911))].into(),
                zone: None,
                enable_acting_master: false,
            }],
            queues: vec![routing::QueueData {
                broker_name: "b".into(),
                read_queues: 8,
                write_queues: 8,
                perm: 6,
                sys_flag: 0,
            }],
            ..Default::default()
        };
        let text = |ip: &str| {
            String::from_utf8(body::encode(&route_body(&route, ip.parse().unwrap()))).unwrap()
        };
        assert!(text("10.0.0.7").contains(r#""brokerAddrs":{"0":"10.0.0.7:10911"}"#));
        assert!(text("127.0.0.1").contains(r#"{"0":"127.0.0.1:10911"}"#));
    }

    #[test]
    fn groups_go_to_the_wire_and_back() {
        let group = GroupConfig::with_defaults("G");
        let back = group_config(&group_body(&group)).unwrap();
        assert_eq!(
            GroupConfig {
                retry_policy_json: String::new(),
                ..back
            },
            group
        );
        let mut bad = group_body(&group);
        bad.retry_queue_nums = -1;
        assert!(group_config(&bad).is_none());
    }
}
