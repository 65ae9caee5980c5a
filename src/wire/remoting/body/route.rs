//! GET_ROUTEINFO_BY_TOPIC (105).
//!
//! Always standard JSON with quoted keys and no white space: the Go client cuts `brokerAddrs`
//! with string operations.

use super::lenient;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The addresses of one broker name.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BrokerData {
    /// Broker id to address; 0 is the master. An IPv6 address is `[addr]:port`.
    #[serde(deserialize_with = "lenient::nullable")]
    pub broker_addrs: BTreeMap<i64, String>,
    /// Broker name.
    #[serde(deserialize_with = "lenient::nullable")]
    pub broker_name: String,
    /// Cluster name.
    #[serde(deserialize_with = "lenient::nullable")]
    pub cluster: String,
    /// Only the name server acts on it.
    #[serde(deserialize_with = "lenient::nullable")]
    pub enable_acting_master: bool,
    /// Zone, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone_name: Option<String>,
}

/// A topic's queues on one broker name.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct QueueData {
    /// Broker name.
    #[serde(deserialize_with = "lenient::nullable")]
    pub broker_name: String,
    /// 4 read, 2 write, 1 inherit.
    pub perm: i32,
    /// Queues consumers read.
    pub read_queue_nums: i32,
    /// System flags of the topic.
    pub topic_sys_flag: i32,
    /// Queues producers write.
    pub write_queue_nums: i32,
}

/// Body of the answer to 105.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicRouteData {
    /// Where the brokers are.
    #[serde(deserialize_with = "lenient::nullable")]
    pub broker_datas: Vec<BrokerData>,
    /// Obsolete; kept because clients expect the key.
    #[serde(deserialize_with = "lenient::nullable")]
    pub filter_server_table: BTreeMap<String, Vec<String>>,
    /// `broker-a:4;broker-b:4`, only for ordered topics.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order_topic_conf: Option<String>,
    /// What the brokers hold.
    #[serde(deserialize_with = "lenient::nullable")]
    pub queue_datas: Vec<QueueData>,
}
