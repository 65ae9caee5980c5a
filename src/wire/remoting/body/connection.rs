//! Who is connected: 203, 204, 328.

use super::heartbeat::{ConsumeFromWhere, ConsumeType, MessageModel, SubscriptionData};
use super::lenient;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One client connection.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Connection {
    /// `ip:port`
    #[serde(deserialize_with = "lenient::nullable")]
    pub client_addr: String,
    /// Client id.
    #[serde(deserialize_with = "lenient::nullable")]
    pub client_id: String,
    /// A name clients know (see `Language::name`).
    #[serde(deserialize_with = "lenient::nullable")]
    pub language: String,
    /// Version number.
    pub version: i32,
}

/// Body of the answer to 203.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumerConnection {
    /// The members.
    #[serde(deserialize_with = "lenient::nullable")]
    pub connection_set: Vec<Connection>,
    /// Start policy.
    pub consume_from_where: ConsumeFromWhere,
    /// Push, pull or pop.
    pub consume_type: ConsumeType,
    /// Clustering or broadcasting.
    pub message_model: MessageModel,
    /// Subscriptions by topic.
    #[serde(deserialize_with = "lenient::nullable")]
    pub subscription_table: BTreeMap<String, SubscriptionData>,
}

/// Body of the answer to 204.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProducerConnection {
    /// The members.
    #[serde(deserialize_with = "lenient::nullable")]
    pub connection_set: Vec<Connection>,
}

/// One producer in the answer to 328.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProducerInfo {
    /// Client id.
    #[serde(deserialize_with = "lenient::nullable")]
    pub client_id: String,
    /// A name clients know.
    #[serde(deserialize_with = "lenient::nullable")]
    pub language: String,
    /// Last heartbeat, ms.
    pub last_update_timestamp: i64,
    /// `/ip:port`, with the slash.
    #[serde(rename = "remoteIP", deserialize_with = "lenient::nullable")]
    pub remote_ip: String,
    /// Version number.
    pub version: i32,
}

/// Body of the answer to 328.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ProducerTableInfo {
    /// Producers by group.
    #[serde(deserialize_with = "lenient::nullable")]
    pub data: BTreeMap<String, Vec<ProducerInfo>>,
}
