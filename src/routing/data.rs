//! Route data as the name server keeps and answers it (remoting-admin §6.9, §8).

use super::AdvertisedAddr;
use crate::model::topic::TopicConfig;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Version of a broker's topic table (RocketMQ `DataVersion`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DataVersion {
    pub state_version: i64,
    /// ms.
    pub timestamp: i64,
    pub counter: i64,
}

/// A topic as a broker registers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteTopic {
    /// Shared with the table it comes from, and with the name server's own.
    pub name: Arc<str>,
    pub read_queues: u32,
    pub write_queues: u32,
    pub perm: u32,
    pub sys_flag: u32,
    pub order: bool,
}

impl RouteTopic {
    /// The topic of this configuration, under its own name.
    pub fn new(name: Arc<str>, t: &TopicConfig) -> Self {
        Self {
            name,
            read_queues: t.read_queues,
            write_queues: t.write_queues,
            perm: t.perm,
            sys_flag: t.sys_flag,
            order: t.order,
        }
    }
}

/// One REGISTER_BROKER.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerRegistration {
    pub cluster: String,
    pub broker_name: String,
    /// 0 is the master.
    pub broker_id: i64,
    pub addr: AdvertisedAddr,
    /// Kept and handed to slaves as it is.
    pub ha_addr: String,
    pub zone: Option<String>,
    pub enable_acting_master: bool,
    /// `None`: 120 s.
    pub heartbeat_timeout_ms: Option<i64>,
    pub data_version: DataVersion,
    /// `None`: the frame had no body (data version zero, topics untouched).
    pub topics: Option<Vec<RouteTopic>>,
    pub filter_servers: Vec<String>,
    /// Raft term of a TroupeMQ broker's leadership. A smaller one never replaces a larger one.
    pub term: Option<u64>,
    /// A TroupeMQ broker: answers `%RETRY%` topics it does not know yet.
    pub troupe: bool,
}

/// One broker name in a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerData {
    pub cluster: String,
    pub broker_name: String,
    pub addrs: BTreeMap<i64, AdvertisedAddr>,
    pub zone: Option<String>,
    pub enable_acting_master: bool,
}

/// One broker's queues of one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueData {
    pub broker_name: String,
    pub read_queues: u32,
    pub write_queues: u32,
    pub perm: u32,
    pub sys_flag: u32,
}

/// Answer of GET_ROUTEINFO_BY_TOPIC; brokers and queues sorted by broker name, so that it is
/// stable for clients that compare whole routes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TopicRoute {
    pub order_conf: Option<String>,
    pub queues: Vec<QueueData>,
    pub brokers: Vec<BrokerData>,
    /// Address to filter servers; only foreign brokers have any.
    pub filter_servers: BTreeMap<String, Vec<String>>,
}

/// Answer of GET_BROKER_CLUSTER_INFO.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClusterInfo {
    pub brokers: BTreeMap<String, BrokerData>,
    pub clusters: BTreeMap<String, BTreeSet<String>>,
}

/// Answer of GET_BROKER_MEMBER_GROUP; no addresses when unknown.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BrokerMembers {
    pub cluster: String,
    pub broker_name: String,
    pub addrs: BTreeMap<i64, AdvertisedAddr>,
}
