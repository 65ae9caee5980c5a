//! Consumer-group configuration, as replicated through the log.

use std::collections::BTreeMap;

/// RocketMQ's default `retryMaxTimes`.
pub const DEFAULT_RETRY_MAX_TIMES: i32 = 16;

/// A consumer group on one shard. Field meanings are those of RocketMQ's `SubscriptionGroupConfig`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct GroupConfig {
    #[prost(string, tag = "1")]
    pub name: String,
    /// 0 in a request to create; set when applied.
    #[prost(uint32, tag = "2")]
    pub id: u32,
    #[prost(bool, tag = "3")]
    pub consume_enable: bool,
    #[prost(bool, tag = "4")]
    pub consume_from_min_enable: bool,
    #[prost(bool, tag = "5")]
    pub consume_broadcast_enable: bool,
    #[prost(bool, tag = "6")]
    pub consume_message_orderly: bool,
    #[prost(uint32, tag = "7")]
    pub retry_queue_nums: u32,
    #[prost(int32, tag = "8")]
    pub retry_max_times: i32,
    #[prost(int64, tag = "9")]
    pub broker_id: i64,
    #[prost(int64, tag = "10")]
    pub which_broker_when_consume_slowly: i64,
    #[prost(bool, tag = "11")]
    pub notify_consumer_ids_changed_enable: bool,
    #[prost(uint32, tag = "12")]
    pub group_sys_flag: u32,
    #[prost(int32, tag = "13")]
    pub consume_timeout_minute: i32,
    #[prost(btree_map = "string, string", tag = "14")]
    pub attributes: BTreeMap<String, String>,
    /// JSON text of `groupRetryPolicy`, empty when none was given.
    #[prost(string, tag = "15")]
    pub retry_policy_json: String,
    /// The group was deleted, and its offsets kept: it is there for nobody until it is created
    /// again, under the same id. A replica of an older version goes on with it as it was, with the
    /// same offsets.
    #[prost(bool, tag = "16")]
    pub deleted: bool,
}

impl GroupConfig {
    /// A group with RocketMQ's defaults (remoting-client §9.3).
    pub fn with_defaults(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            consume_enable: true,
            consume_from_min_enable: true,
            consume_broadcast_enable: true,
            retry_queue_nums: 1,
            retry_max_times: DEFAULT_RETRY_MAX_TIMES,
            which_broker_when_consume_slowly: 1,
            notify_consumer_ids_changed_enable: true,
            consume_timeout_minute: 15,
            ..Default::default()
        }
    }
}
