//! What callers hold of the name server. Cheap to clone, usable from any thread.
//!
//! Changes are async and go through the registry actor, one after the other. Reads
//! ([`Registry::route`] and everything below it) take the published view and send no message.
//! Names in the answers are raw; resolve an [`AdvertisedAddr`](crate::routing::AdvertisedAddr)
//! with the local address of the connection that asked.

use super::actor::{Clock, Mail, RegistryActor, StoreKv};
use super::core::{RegisterReply, RegistryCore};
use crate::actors::clock::boot_ms;
use crate::actors::link::ConnId;
use crate::model::outcome::Refusal;
use crate::routing::{
    AdvertisedAddr, BrokerMembers, BrokerRegistration, ClusterInfo, DataVersion, QueueData,
    TopicRoute,
};
use actix::dev::SendError;
use actix::{Actor, Addr};
use actix_rt::ArbiterHandle;
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::oneshot;

const GONE: Refusal = Refusal::Unavailable("the registry stopped");

/// See the module text.
#[derive(Clone)]
pub struct Registry {
    addr: Addr<RegistryActor>,
    core: Arc<RwLock<RegistryCore>>,
}

impl Registry {
    /// Starts the registry on an arbiter. `store_kv` gets the whole KV table's text
    /// (`super::kv`) and must have it on disk when it returns.
    pub fn start(core: RegistryCore, arbiter: &ArbiterHandle, store_kv: StoreKv) -> Self {
        Self::start_with_clock(core, arbiter, store_kv, Arc::new(boot_ms))
    }

    /// The same with a clock of the caller's.
    pub fn start_with_clock(
        core: RegistryCore,
        arbiter: &ArbiterHandle,
        store_kv: StoreKv,
        clock: Clock,
    ) -> Self {
        let core = Arc::new(RwLock::new(core));
        let published = core.clone();
        let addr = RegistryActor::start_in_arbiter(arbiter, move |_| RegistryActor {
            core: published,
            store_kv,
            clock,
        });
        Self { addr, core }
    }

    async fn ask<T>(
        &self,
        mail: impl FnOnce(oneshot::Sender<Result<T, Refusal>>) -> Mail,
    ) -> Result<T, Refusal> {
        let (reply, answer) = oneshot::channel();
        match self.addr.try_send(mail(reply)) {
            Ok(()) => answer.await.unwrap_or(Err(GONE)),
            Err(SendError::Full(_)) => Err(Refusal::Busy),
            Err(SendError::Closed(_)) => Err(GONE),
        }
    }

    /// REGISTER_BROKER 103. `conn` is `None` for a broker of this process; a closed connection
    /// drops what it registered. `Invalid("register broker failed")` in the stock cases (code 1).
    pub async fn register(
        &self,
        reg: BrokerRegistration,
        conn: Option<ConnId>,
    ) -> Result<RegisterReply, Refusal> {
        self.ask(|reply| Mail::Register {
            reg: Box::new(reg),
            conn,
            reply,
        })
        .await
    }

    /// UNREGISTER_BROKER 104: only the address that registered under this id. Unknown: no effect.
    pub async fn unregister(
        &self,
        cluster: String,
        broker_name: String,
        broker_id: i64,
        addr: impl Into<AdvertisedAddr>,
    ) -> Result<(), Refusal> {
        let addr = addr.into();
        self.ask(|reply| Mail::Unregister {
            cluster,
            broker_name,
            broker_id,
            addr,
            reply,
        })
        .await
    }

    /// BROKER_HEARTBEAT 904. `addr` as registered. Unknown: no effect.
    pub async fn heartbeat(
        &self,
        cluster: String,
        broker_name: String,
        addr: impl Into<AdvertisedAddr>,
    ) -> Result<(), Refusal> {
        let addr = addr.into();
        self.ask(|reply| Mail::Heartbeat {
            cluster,
            broker_name,
            addr,
            reply,
        })
        .await
    }

    /// QUERY_DATA_VERSION 322; counts as a heartbeat. (changed, the version known here).
    pub async fn query_data_version(
        &self,
        cluster: String,
        broker_name: String,
        addr: impl Into<AdvertisedAddr>,
        version: DataVersion,
    ) -> Result<(bool, Option<DataVersion>), Refusal> {
        let addr = addr.into();
        self.ask(|reply| Mail::QueryDataVersion {
            cluster,
            broker_name,
            addr,
            version,
            reply,
        })
        .await
    }

    /// WIPE_WRITE_PERM_OF_BROKER 205: topics changed.
    pub async fn wipe_write_perm(&self, broker_name: String) -> Result<u32, Refusal> {
        self.ask(|reply| Mail::WritePerm {
            broker_name,
            add: false,
            reply,
        })
        .await
    }

    /// ADD_WRITE_PERM_OF_BROKER 327: topics changed.
    pub async fn add_write_perm(&self, broker_name: String) -> Result<u32, Refusal> {
        self.ask(|reply| Mail::WritePerm {
            broker_name,
            add: true,
            reply,
        })
        .await
    }

    /// DELETE_TOPIC_IN_NAMESRV 216; with a cluster only its brokers' queues.
    pub async fn delete_topic(
        &self,
        topic: String,
        cluster: Option<String>,
    ) -> Result<(), Refusal> {
        self.ask(|reply| Mail::DeleteTopic {
            topic,
            cluster,
            reply,
        })
        .await
    }

    /// REGISTER_TOPIC_IN_NAMESRV 217.
    pub async fn register_topic(
        &self,
        topic: String,
        queues: Vec<QueueData>,
    ) -> Result<(), Refusal> {
        self.ask(|reply| Mail::RegisterTopic {
            topic,
            queues,
            reply,
        })
        .await
    }

    /// PUT_KV_CONFIG 100; answered once it is on disk.
    pub async fn put_kv(
        &self,
        namespace: String,
        key: String,
        value: String,
    ) -> Result<(), Refusal> {
        self.ask(|reply| Mail::PutKv {
            namespace,
            key,
            value,
            reply,
        })
        .await
    }

    /// DELETE_KV_CONFIG 102. Absent: success.
    pub async fn delete_kv(&self, namespace: String, key: String) -> Result<(), Refusal> {
        self.ask(|reply| Mail::DeleteKv {
            namespace,
            key,
            reply,
        })
        .await
    }

    /// Tells that a connection closed; never blocks.
    pub fn conn_closed(&self, conn: ConnId) {
        self.addr.do_send(Mail::ConnClosed { conn });
    }

    /// GET_ROUTEINFO_BY_TOPIC 105; `None` is code 17.
    pub fn route(&self, topic: &str) -> Option<TopicRoute> {
        self.core.read().route(topic)
    }

    /// GET_BROKER_CLUSTER_INFO 106.
    pub fn cluster_info(&self) -> ClusterInfo {
        self.core.read().cluster_info()
    }

    /// GET_ALL_TOPIC_LIST_FROM_NAMESERVER 206, sorted.
    pub fn topics(&self) -> Vec<String> {
        self.core.read().topic_names()
    }

    /// GET_TOPICS_BY_CLUSTER 224, sorted.
    pub fn topics_of_cluster(&self, cluster: &str) -> Vec<String> {
        self.core.read().topics_of_cluster(cluster)
    }

    /// GET_SYSTEM_TOPIC_LIST_FROM_NS 304: cluster and broker names, and one broker's address.
    pub fn system_topics(&self) -> (Vec<String>, Option<AdvertisedAddr>) {
        self.core.read().system_topics()
    }

    /// GET_BROKER_MEMBER_GROUP 901.
    pub fn members(&self, cluster: &str, broker_name: &str) -> BrokerMembers {
        self.core.read().broker_members(cluster, broker_name)
    }

    /// GET_UNIT_TOPIC_LIST 311.
    pub fn unit_topics(&self) -> Vec<String> {
        self.core.read().unit_topics()
    }

    /// GET_HAS_UNIT_SUB_TOPIC_LIST 312.
    pub fn unit_sub_topics(&self) -> Vec<String> {
        self.core.read().unit_sub_topics()
    }

    /// GET_HAS_UNIT_SUB_UNUNIT_TOPIC_LIST 313.
    pub fn unit_sub_ununit_topics(&self) -> Vec<String> {
        self.core.read().unit_sub_ununit_topics()
    }

    /// GET_KV_CONFIG 101; `None` is code 22.
    pub fn kv(&self, namespace: &str, key: &str) -> Option<String> {
        self.core.read().kv(namespace, key)
    }

    /// GET_KVLIST_BY_NAMESPACE 219; `None` is code 22.
    pub fn kv_list(&self, namespace: &str) -> Option<BTreeMap<String, String>> {
        self.core.read().kv_list(namespace)
    }
}
