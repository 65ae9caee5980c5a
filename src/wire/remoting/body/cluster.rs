//! Cluster info (106), topic and group lists, KV tables, member groups (901).

use super::lenient::{self, Text};
use super::route::BrokerData;
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;

/// Body of the answer to 106.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterInfo {
    /// By broker name.
    #[serde(deserialize_with = "lenient::nullable")]
    pub broker_addr_table: BTreeMap<String, BrokerData>,
    /// Broker names by cluster.
    #[serde(deserialize_with = "lenient::nullable")]
    pub cluster_addr_table: BTreeMap<String, Vec<String>>,
}

/// Body of the answers to 206, 224, 304, 305, 343.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicList {
    /// 304: the broker to ask next with 305.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broker_addr: Option<String>,
    /// Topic names.
    #[serde(deserialize_with = "lenient::nullable")]
    pub topic_list: Vec<String>,
}

/// Body of the answer to 300.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GroupList {
    /// Group names.
    #[serde(deserialize_with = "lenient::nullable")]
    pub group_list: Vec<String>,
}

fn text_table<'de, D: Deserializer<'de>>(d: D) -> Result<BTreeMap<String, String>, D::Error> {
    let table: BTreeMap<String, Text> = lenient::nullable(d)?;
    Ok(table.into_iter().map(|(k, v)| (k, v.0)).collect())
}

/// Body of the answers to 28, 103 and 219: text to text.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct KvTable {
    /// Values are always written as strings; numbers are read too.
    #[serde(deserialize_with = "text_table")]
    pub table: BTreeMap<String, String>,
}

/// The members of one broker name.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BrokerMemberGroup {
    /// Broker id to address.
    #[serde(deserialize_with = "lenient::nullable")]
    pub broker_addrs: BTreeMap<i64, String>,
    /// Broker name.
    #[serde(deserialize_with = "lenient::nullable")]
    pub broker_name: String,
    /// Cluster name.
    #[serde(deserialize_with = "lenient::nullable")]
    pub cluster: String,
}

/// Body of the answer to 901.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MemberGroupBody {
    /// Empty addresses when the broker name is unknown.
    pub broker_member_group: BrokerMemberGroup,
}
