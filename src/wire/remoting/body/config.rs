//! Topic and subscription group configuration (17, 18, 21, 103, 200, 201, 351, 352).

use super::lenient;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Version of a broker's tables; the name server reads topics only when it changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DataVersion {
    /// Changes since the start.
    #[serde(deserialize_with = "lenient::i64")]
    pub counter: i64,
    /// 5.x: the master's term.
    #[serde(deserialize_with = "lenient::i64")]
    pub state_version: i64,
    /// Time of the last change, ms.
    #[serde(deserialize_with = "lenient::i64")]
    pub timestamp: i64,
}

/// A topic as brokers describe it. Missing fields take Java's defaults (16 queues, perm 6).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicConfig {
    /// 5.x attributes, such as `message.type`.
    #[serde(deserialize_with = "lenient::nullable")]
    pub attributes: BTreeMap<String, String>,
    /// Ordered topic.
    #[serde(deserialize_with = "lenient::nullable")]
    pub order: bool,
    /// 4 read, 2 write, 1 inherit.
    pub perm: i32,
    /// Queues consumers read.
    pub read_queue_nums: i32,
    /// `SINGLE_TAG` or `MULTI_TAG`.
    pub topic_filter_type: String,
    /// Topic name.
    #[serde(deserialize_with = "lenient::nullable")]
    pub topic_name: String,
    /// System flags of the topic.
    pub topic_sys_flag: i32,
    /// Queues producers write.
    pub write_queue_nums: i32,
}

impl Default for TopicConfig {
    fn default() -> Self {
        TopicConfig::new("", 16, 16, 6)
    }
}

impl TopicConfig {
    /// An ordinary topic.
    pub fn new(name: &str, read: i32, write: i32, perm: i32) -> Self {
        TopicConfig {
            attributes: BTreeMap::new(),
            order: false,
            perm,
            read_queue_nums: read,
            topic_filter_type: "SINGLE_TAG".to_owned(),
            topic_name: name.to_owned(),
            topic_sys_flag: 0,
            write_queue_nums: write,
        }
    }
}

/// Body of the answer to 351. Without `mappingDetail` the topic is an ordinary one.
pub type TopicConfigAndQueueMapping = TopicConfig;

/// Body of 18.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicConfigList {
    /// The topics to create.
    #[serde(deserialize_with = "lenient::nullable")]
    pub topic_config_list: Vec<TopicConfig>,
}

/// Where a static topic's queues are, as one broker knows it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicQueueMappingInfo {
    /// Broker name.
    #[serde(deserialize_with = "lenient::nullable")]
    pub bname: String,
    /// Global queue id to local one.
    #[serde(deserialize_with = "lenient::nullable")]
    pub curr_id_map: BTreeMap<i32, i32>,
    /// Not in use.
    #[serde(deserialize_with = "lenient::nullable")]
    pub dirty: bool,
    /// Version of the mapping.
    #[serde(deserialize_with = "lenient::i64")]
    pub epoch: i64,
    /// `__global__`
    #[serde(deserialize_with = "lenient::nullable")]
    pub scope: String,
    /// Topic name.
    #[serde(deserialize_with = "lenient::nullable")]
    pub topic: String,
    /// Queues over all brokers.
    #[serde(deserialize_with = "lenient::i32")]
    pub total_queues: i32,
}

/// Body of the answer to 21, and the topics in 103.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicConfigWrapper {
    /// Version of the topic table.
    #[serde(deserialize_with = "lenient::nullable")]
    pub data_version: DataVersion,
    /// Version of the static-topic table.
    #[serde(deserialize_with = "lenient::nullable")]
    pub mapping_data_version: DataVersion,
    /// Topics by name.
    #[serde(deserialize_with = "lenient::nullable")]
    pub topic_config_table: BTreeMap<String, TopicConfig>,
    /// Static topics by name.
    #[serde(
        deserialize_with = "lenient::nullable",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub topic_queue_mapping_info_map: BTreeMap<String, TopicQueueMappingInfo>,
}

/// When a failed message is delivered again (5.x).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GroupRetryPolicy {
    /// Custom delays.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub customized_retry_policy: Option<CustomizedRetryPolicy>,
    /// Growing delays.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exponential_retry_policy: Option<ExponentialRetryPolicy>,
    /// `CUSTOMIZED` or `EXPONENTIAL`.
    #[serde(rename = "type")]
    pub kind: String,
}

impl Default for GroupRetryPolicy {
    fn default() -> Self {
        GroupRetryPolicy {
            customized_retry_policy: None,
            exponential_retry_policy: None,
            kind: "CUSTOMIZED".to_owned(),
        }
    }
}

/// Delays in ms, the last one repeated.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CustomizedRetryPolicy {
    /// The delays.
    #[serde(deserialize_with = "lenient::nullable")]
    pub next: Vec<i64>,
}

/// Delays in ms that grow by a factor.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ExponentialRetryPolicy {
    /// First delay.
    pub initial: i64,
    /// Largest delay.
    pub max: i64,
    /// Factor.
    pub multiplier: i64,
}

/// A subscription of a group's own configuration (5.x).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SimpleSubscription {
    /// Expression.
    #[serde(deserialize_with = "lenient::nullable")]
    pub expression: String,
    /// `TAG` or `SQL92`.
    #[serde(deserialize_with = "lenient::nullable")]
    pub expression_type: String,
    /// Topic.
    #[serde(deserialize_with = "lenient::nullable")]
    pub topic: String,
    /// Version.
    #[serde(deserialize_with = "lenient::i64")]
    pub version: i64,
}

/// A consumer group as brokers describe it. Missing fields take Java's defaults.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SubscriptionGroupConfig {
    /// 5.x attributes.
    #[serde(deserialize_with = "lenient::nullable")]
    pub attributes: BTreeMap<String, String>,
    /// Broker id to read from.
    pub broker_id: i64,
    /// Broadcasting allowed.
    pub consume_broadcast_enable: bool,
    /// Consumption allowed at all.
    pub consume_enable: bool,
    /// Unused.
    pub consume_from_min_enable: bool,
    /// FIFO group.
    pub consume_message_orderly: bool,
    /// Timeout of one consumption, minutes.
    pub consume_timeout_minute: i32,
    /// Group name.
    #[serde(deserialize_with = "lenient::nullable")]
    pub group_name: String,
    /// Delays between tries.
    #[serde(deserialize_with = "lenient::nullable")]
    pub group_retry_policy: GroupRetryPolicy,
    /// System flags of the group.
    pub group_sys_flag: i32,
    /// Tell members about joins and leaves.
    pub notify_consumer_ids_changed_enable: bool,
    /// Tries before a message is a dead letter.
    pub retry_max_times: i32,
    /// Queues of the retry topic; 0 drops failed messages.
    pub retry_queue_nums: i32,
    /// Subscriptions fixed by the operator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscription_data_set: Option<Vec<SimpleSubscription>>,
    /// Broker id suggested when consumption is slow.
    pub which_broker_when_consume_slowly: i64,
}

impl Default for SubscriptionGroupConfig {
    fn default() -> Self {
        SubscriptionGroupConfig {
            attributes: BTreeMap::new(),
            broker_id: 0,
            consume_broadcast_enable: true,
            consume_enable: true,
            consume_from_min_enable: true,
            consume_message_orderly: false,
            consume_timeout_minute: 15,
            group_name: String::new(),
            group_retry_policy: GroupRetryPolicy::default(),
            group_sys_flag: 0,
            notify_consumer_ids_changed_enable: true,
            retry_max_times: 16,
            retry_queue_nums: 1,
            subscription_data_set: None,
            which_broker_when_consume_slowly: 1,
        }
    }
}

/// Body of the answer to 201.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SubscriptionGroupWrapper {
    /// Version of the group table.
    #[serde(deserialize_with = "lenient::nullable")]
    pub data_version: DataVersion,
    /// Operations forbidden by group and topic.
    #[serde(deserialize_with = "lenient::nullable")]
    pub forbidden_table: BTreeMap<String, BTreeMap<String, i32>>,
    /// Groups by name.
    #[serde(deserialize_with = "lenient::nullable")]
    pub subscription_group_table: BTreeMap<String, SubscriptionGroupConfig>,
}

/// Body of 225.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GroupConfigList {
    /// The groups to create.
    #[serde(deserialize_with = "lenient::nullable")]
    pub group_config_list: Vec<SubscriptionGroupConfig>,
}
