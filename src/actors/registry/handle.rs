//! What callers hold of the name server. Cheap to clone, usable from any thread.
//!
//! Changes are async and go through the registry actor, one after the other. Reads
//! ([`Registry::route`] and everything below it) take the published view and send no message.
//! Names in the answers are raw; resolve an [`AdvertisedAddr`](crate::routing::AdvertisedAddr)
//! with the local address of the connection that asked.

use super::core::RegisterReply;
use crate::actors::link::ConnId;
use crate::model::outcome::Refusal;
use crate::routing::{
    BrokerMembers, BrokerRegistration, ClusterInfo, DataVersion, QueueData, TopicRoute,
};
use std::collections::BTreeMap;

/// See the module text.
#[derive(Clone)]
pub struct Registry {}

impl Registry {
    /// REGISTER_BROKER 103. `conn` is `None` for a broker of this process; a closed connection
    /// drops what it registered. `Invalid("register broker failed")` in the stock cases (code 1).
    pub async fn register(
        &self,
        _reg: BrokerRegistration,
        _conn: Option<ConnId>,
    ) -> Result<RegisterReply, Refusal> {
        todo!()
    }
    /// UNREGISTER_BROKER 104. Unknown: no effect.
    pub async fn unregister(
        &self,
        _cluster: String,
        _broker_name: String,
        _broker_id: i64,
    ) -> Result<(), Refusal> {
        todo!()
    }
    /// BROKER_HEARTBEAT 904. `addr` as registered. Unknown: no effect.
    pub async fn heartbeat(
        &self,
        _cluster: String,
        _broker_name: String,
        _addr: String,
    ) -> Result<(), Refusal> {
        todo!()
    }
    /// QUERY_DATA_VERSION 322; counts as a heartbeat. (changed, the version known here).
    pub async fn query_data_version(
        &self,
        _cluster: String,
        _broker_name: String,
        _addr: String,
        _version: DataVersion,
    ) -> Result<(bool, Option<DataVersion>), Refusal> {
        todo!()
    }
    /// WIPE_WRITE_PERM_OF_BROKER 205: topics changed.
    pub async fn wipe_write_perm(&self, _broker_name: String) -> Result<u32, Refusal> {
        todo!()
    }
    /// ADD_WRITE_PERM_OF_BROKER 327: topics changed.
    pub async fn add_write_perm(&self, _broker_name: String) -> Result<u32, Refusal> {
        todo!()
    }
    /// DELETE_TOPIC_IN_NAMESRV 216; with a cluster only its brokers' queues.
    pub async fn delete_topic(
        &self,
        _topic: String,
        _cluster: Option<String>,
    ) -> Result<(), Refusal> {
        todo!()
    }
    /// REGISTER_TOPIC_IN_NAMESRV 217.
    pub async fn register_topic(
        &self,
        _topic: String,
        _queues: Vec<QueueData>,
    ) -> Result<(), Refusal> {
        todo!()
    }
    /// PUT_KV_CONFIG 100; answered once it is on disk.
    pub async fn put_kv(
        &self,
        _namespace: String,
        _key: String,
        _value: String,
    ) -> Result<(), Refusal> {
        todo!()
    }
    /// DELETE_KV_CONFIG 102. Absent: success.
    pub async fn delete_kv(&self, _namespace: String, _key: String) -> Result<(), Refusal> {
        todo!()
    }
    /// Tells that a connection closed; never blocks.
    pub fn conn_closed(&self, _conn: ConnId) {
        todo!()
    }

    /// GET_ROUTEINFO_BY_TOPIC 105; `None` is code 17.
    pub fn route(&self, _topic: &str) -> Option<TopicRoute> {
        todo!()
    }
    /// GET_BROKER_CLUSTER_INFO 106.
    pub fn cluster_info(&self) -> ClusterInfo {
        todo!()
    }
    /// GET_ALL_TOPIC_LIST_FROM_NAMESERVER 206, sorted.
    pub fn topics(&self) -> Vec<String> {
        todo!()
    }
    /// GET_TOPICS_BY_CLUSTER 224, sorted.
    pub fn topics_of_cluster(&self, _cluster: &str) -> Vec<String> {
        todo!()
    }
    /// GET_SYSTEM_TOPIC_LIST_FROM_NS 304: cluster and broker names, and one broker's address.
    pub fn system_topics(&self) -> (Vec<String>, Option<crate::routing::AdvertisedAddr>) {
        todo!()
    }
    /// GET_BROKER_MEMBER_GROUP 901.
    pub fn members(&self, _cluster: &str, _broker_name: &str) -> BrokerMembers {
        todo!()
    }
    /// GET_UNIT_TOPIC_LIST 311.
    pub fn unit_topics(&self) -> Vec<String> {
        todo!()
    }
    /// GET_HAS_UNIT_SUB_TOPIC_LIST 312.
    pub fn unit_sub_topics(&self) -> Vec<String> {
        todo!()
    }
    /// GET_HAS_UNIT_SUB_UNUNIT_TOPIC_LIST 313.
    pub fn unit_sub_ununit_topics(&self) -> Vec<String> {
        todo!()
    }
    /// GET_KV_CONFIG 101; `None` is code 22.
    pub fn kv(&self, _namespace: &str, _key: &str) -> Option<String> {
        todo!()
    }
    /// GET_KVLIST_BY_NAMESPACE 219; `None` is code 22.
    pub fn kv_list(&self, _namespace: &str) -> Option<BTreeMap<String, String>> {
        todo!()
    }
}
