//! The name server as a pure state machine (remoting-admin §6.1, §8).

use super::kv::KvTable;
pub use super::limits::RegistryLimits;
use super::queues::{Queues, TopicQueues};
use crate::actors::link::ConnId;
use crate::model::outcome::Refusal;
use crate::model::topic::{PERM_READ, PERM_WRITE};
use crate::routing::{
    names, AdvertisedAddr, BrokerRegistration, DataVersion, QueueData, RouteTopic,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A broker without its own timeout is dropped after this, ms.
pub const BROKER_TIMEOUT_MS: i64 = 120_000;
/// Brokers are looked through this often, ms.
pub const SCAN_MS: i64 = 5_000;
/// KV namespace that brokers get with every registration.
pub const ORDER_CONF: &str = "ORDER_TOPIC_CONFIG";

/// Answer of REGISTER_BROKER.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RegisterReply {
    /// Set only for a slave whose master is alive.
    pub ha_addr: Option<String>,
    /// See [`RegisterReply::ha_addr`].
    pub master_addr: Option<AdvertisedAddr>,
    /// KV namespace `ORDER_TOPIC_CONFIG` (the answer's body).
    pub order_conf: BTreeMap<String, String>,
}

/// One live address of a broker name.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) addr: AdvertisedAddr,
    ha_addr: String,
    last_ms: i64,
    timeout_ms: i64,
    data_version: DataVersion,
    pub(super) filter_servers: Vec<String>,
    conn: Option<ConnId>,
    term: Option<u64>,
}

/// One broker name.
#[derive(Debug, Default)]
pub(super) struct Broker {
    pub(super) cluster: String,
    pub(super) zone: Option<String>,
    pub(super) enable_acting_master: bool,
    pub(super) troupe: bool,
    pub(super) members: BTreeMap<i64, Member>,
    /// Topics with queues on this broker.
    pub(super) topics: BTreeSet<Arc<str>>,
}

/// See the module text. Reads are in `view.rs`.
#[derive(Debug, Default)]
pub struct RegistryCore {
    pub(super) brokers: BTreeMap<Arc<str>, Broker>,
    pub(super) topics: BTreeMap<Arc<str>, TopicQueues>,
    conns: BTreeMap<ConnId, BTreeSet<(Arc<str>, i64)>>,
    pub(super) kv: KvTable,
    pub(super) limits: RegistryLimits,
    /// `orderMessageEnable`: routes carry the order configuration of their topic.
    pub(super) order_messages: bool,
}

impl RegistryCore {
    /// No brokers yet; the KV table as it was stored.
    pub fn new(kv: KvTable, limits: RegistryLimits, order_messages: bool) -> Self {
        Self {
            kv,
            limits,
            order_messages,
            ..Self::default()
        }
    }

    /// REGISTER_BROKER. What an older state or term sends is answered but changes nothing.
    pub fn register(
        &mut self,
        reg: BrokerRegistration,
        conn: Option<ConnId>,
        now_ms: i64,
    ) -> Result<RegisterReply, Refusal> {
        self.check(&reg)?;
        let reply = RegisterReply {
            order_conf: self.kv.namespace(ORDER_CONF).cloned().unwrap_or_default(),
            ..Default::default()
        };
        let known = self.brokers.get(reg.broker_name.as_str());
        let old = known.and_then(|b| b.members.get(&reg.broker_id));
        if known.is_some_and(|b| b.outranks(&reg)) {
            return Ok(reply);
        }
        let replaced = old.filter(|m| m.addr != reg.addr);
        if replaced.is_some_and(|m| m.data_version.state_version > reg.data_version.state_version) {
            return Ok(reply);
        }
        let topics = reg.topics.as_deref().unwrap_or_default();
        if old.is_none() && topics.len() == 1 {
            return Err(Refusal::Invalid("register broker failed".to_owned()));
        }
        let first = old.is_none();
        let changed = old.is_none_or(|m| m.addr != reg.addr || m.data_version != reg.data_version);
        let name: Arc<str> = reg.broker_name.as_str().into();

        // The same address under another id moved here.
        let moved: Vec<i64> = known
            .map(|b| {
                b.members
                    .iter()
                    .filter(|(id, m)| **id != reg.broker_id && m.addr == reg.addr)
                    .map(|(id, _)| *id)
                    .collect()
            })
            .unwrap_or_default();
        for id in moved.into_iter().chain((!first).then_some(reg.broker_id)) {
            self.unlink_conn(&name, id);
        }
        let broker = self.brokers.entry(name.clone()).or_default();
        broker
            .members
            .retain(|id, m| *id == reg.broker_id || m.addr != reg.addr);
        broker.cluster = reg.cluster;
        broker.zone = reg.zone;
        broker.enable_acting_master = reg.enable_acting_master;
        broker.troupe = reg.troupe;
        let member = Member {
            addr: reg.addr,
            ha_addr: reg.ha_addr,
            last_ms: now_ms,
            timeout_ms: reg
                .heartbeat_timeout_ms
                .filter(|t| *t > 0)
                .unwrap_or(BROKER_TIMEOUT_MS),
            data_version: reg.data_version,
            filter_servers: reg.filter_servers,
            conn,
            term: reg.term,
        };
        broker.members.insert(reg.broker_id, member);
        if let Some(conn) = conn {
            self.conns
                .entry(conn)
                .or_default()
                .insert((name.clone(), reg.broker_id));
        }
        if let Some(topics) = reg.topics {
            self.take_topics(&name, reg.broker_id, topics, first || changed, reg.troupe);
        }
        Ok(self.with_master(&name, reg.broker_id, reply))
    }

    fn with_master(&self, name: &str, broker_id: i64, reply: RegisterReply) -> RegisterReply {
        let master = self
            .brokers
            .get(name)
            .and_then(|b| b.members.get(&0))
            .filter(|_| broker_id != 0);
        match master {
            Some(m) => RegisterReply {
                ha_addr: Some(m.ha_addr.clone()),
                master_addr: Some(m.addr.clone()),
                ..reply
            },
            None => reply,
        }
    }

    /// Queues come from masters, or from the smallest slave when it may act as one. `all` takes
    /// every topic; else only those the table lacks. A TroupeMQ broker always sends its whole
    /// table, so what it does not list is gone; stock brokers also send single changes.
    fn take_topics(
        &mut self,
        name: &Arc<str>,
        broker_id: i64,
        topics: Vec<RouteTopic>,
        all: bool,
        whole: bool,
    ) {
        let Some(broker) = self.brokers.get_mut(name) else {
            return;
        };
        let smallest = broker.members.keys().next() == Some(&broker_id);
        let acting = broker_id != 0 && broker.enable_acting_master && smallest;
        if broker_id != 0 && !acting {
            return;
        }
        if whole && all {
            let listed: BTreeSet<&str> = topics.iter().map(|t| &*t.name).collect();
            let gone: Vec<Arc<str>> = broker
                .topics
                .iter()
                .filter(|t| !listed.contains(&***t))
                .cloned()
                .collect();
            for topic in gone {
                broker.topics.remove(&topic);
                drop_queues(&mut self.topics, &topic, name);
            }
        }
        for topic in topics {
            if !all && broker.topics.contains(&topic.name) {
                continue;
            }
            let key = match self.topics.get_key_value(&topic.name) {
                Some((key, _)) => key.clone(),
                None => topic.name,
            };
            let perm = if acting {
                topic.perm & !PERM_WRITE
            } else {
                topic.perm
            };
            let queues = Queues {
                read: topic.read_queues,
                write: topic.write_queues,
                perm,
                sys_flag: topic.sys_flag,
            };
            broker.topics.insert(key.clone());
            self.topics
                .entry(key)
                .or_default()
                .insert(name.clone(), queues);
        }
    }

    /// UNREGISTER_BROKER: only the very address that registered under this id.
    pub fn unregister(
        &mut self,
        cluster: &str,
        broker_name: &str,
        broker_id: i64,
        addr: &AdvertisedAddr,
    ) {
        let found = self
            .brokers
            .get(broker_name)
            .filter(|b| b.cluster == cluster);
        if found
            .and_then(|b| b.members.get(&broker_id))
            .is_some_and(|m| m.addr == *addr)
        {
            self.drop_member(broker_name, broker_id);
        }
    }

    /// BROKER_HEARTBEAT.
    pub fn heartbeat(
        &mut self,
        cluster: &str,
        broker_name: &str,
        addr: &AdvertisedAddr,
        now_ms: i64,
    ) {
        if let Some(member) = self.member_mut(cluster, broker_name, addr) {
            member.last_ms = now_ms;
        }
    }

    /// QUERY_DATA_VERSION: (changed, the version known here); counts as a heartbeat.
    pub fn query_data_version(
        &mut self,
        cluster: &str,
        broker_name: &str,
        addr: &AdvertisedAddr,
        version: DataVersion,
        now_ms: i64,
    ) -> (bool, Option<DataVersion>) {
        let Some(member) = self.member_mut(cluster, broker_name, addr) else {
            return (true, None);
        };
        member.last_ms = now_ms;
        (member.data_version != version, Some(member.data_version))
    }

    fn member_mut(
        &mut self,
        cluster: &str,
        broker_name: &str,
        addr: &AdvertisedAddr,
    ) -> Option<&mut Member> {
        let broker = self
            .brokers
            .get_mut(broker_name)
            .filter(|b| b.cluster == cluster)?;
        broker.members.values_mut().find(|m| m.addr == *addr)
    }

    /// The connection of brokers closed: they are dropped at once.
    pub fn conn_closed(&mut self, conn: ConnId) {
        for (name, id) in self.conns.remove(&conn).unwrap_or_default() {
            let current = self.brokers.get(&name).and_then(|b| b.members.get(&id));
            if current.is_some_and(|m| m.conn == Some(conn)) {
                self.drop_member(&name, id);
            }
        }
    }

    /// Drops brokers that were silent for longer than their timeout; their names and ids.
    pub fn expire(&mut self, now_ms: i64) -> Vec<(String, i64)> {
        let mut gone = Vec::new();
        for (name, broker) in &self.brokers {
            for (id, m) in &broker.members {
                if now_ms.saturating_sub(m.last_ms) > m.timeout_ms {
                    gone.push((name.to_string(), *id));
                }
            }
        }
        for (name, id) in &gone {
            self.drop_member(name, *id);
        }
        gone
    }

    fn drop_member(&mut self, name: &str, broker_id: i64) {
        self.unlink_conn(name, broker_id);
        let Some(broker) = self.brokers.get_mut(name) else {
            return;
        };
        broker.members.remove(&broker_id);
        if broker.members.is_empty() {
            for topic in std::mem::take(&mut broker.topics) {
                drop_queues(&mut self.topics, &topic, name);
            }
            self.brokers.remove(name);
        } else if broker_id == 0 && broker.enable_acting_master {
            // Whoever acts as master does not take writes.
            for topic in &broker.topics {
                if let Some(queues) = self.topics.get_mut(topic).and_then(|t| t.get_mut(name)) {
                    queues.perm &= !PERM_WRITE;
                }
            }
        }
    }

    fn unlink_conn(&mut self, name: &str, broker_id: i64) {
        let conn = self
            .brokers
            .get(name)
            .and_then(|b| b.members.get(&broker_id))
            .and_then(|m| m.conn);
        if let Some(set) = conn.and_then(|c| self.conns.get_mut(&c)) {
            set.retain(|(n, id)| !(&**n == name && *id == broker_id));
            if set.is_empty() {
                conn.map(|c| self.conns.remove(&c));
            }
        }
    }

    /// WIPE_WRITE_PERM_OF_BROKER: topics of the broker.
    pub fn wipe_write_perm(&mut self, broker_name: &str) -> u32 {
        self.set_perm(broker_name, |perm| perm & !PERM_WRITE)
    }

    /// ADD_WRITE_PERM_OF_BROKER sets read and write, whatever it was: topics of the broker.
    pub fn add_write_perm(&mut self, broker_name: &str) -> u32 {
        self.set_perm(broker_name, |_| PERM_READ | PERM_WRITE)
    }

    fn set_perm(&mut self, broker_name: &str, perm: impl Fn(u32) -> u32) -> u32 {
        let Some(broker) = self.brokers.get(broker_name) else {
            return 0;
        };
        let mut count = 0;
        for topic in &broker.topics {
            if let Some(queues) = self
                .topics
                .get_mut(topic)
                .and_then(|t| t.get_mut(broker_name))
            {
                queues.perm = perm(queues.perm);
                count += 1;
            }
        }
        count
    }

    /// DELETE_TOPIC_IN_NAMESRV.
    pub fn delete_topic(&mut self, topic: &str, cluster: Option<&str>) {
        let Some(queues) = self.topics.get(topic) else {
            return;
        };
        let of_cluster = |name: &Arc<str>| {
            cluster.is_none_or(|c| self.brokers.get(name).is_some_and(|b| b.cluster == c))
        };
        let gone: Vec<Arc<str>> = queues
            .brokers()
            .filter(|name| of_cluster(name))
            .cloned()
            .collect();
        for name in gone {
            if let Some(broker) = self.brokers.get_mut(&name) {
                broker.topics.remove(topic);
            }
            drop_queues(&mut self.topics, topic, &name);
        }
    }

    /// REGISTER_TOPIC_IN_NAMESRV: only brokers that are registered count.
    pub fn register_topic(&mut self, topic: &str, queues: Vec<QueueData>) -> Result<(), Refusal> {
        if !names::valid_topic(topic) {
            return Err(Refusal::Invalid("bad topic name".to_owned()));
        }
        if !self.topics.contains_key(topic) && self.topics.len() >= self.limits.topics {
            return Err(Refusal::Invalid("too many topics".to_owned()));
        }
        let key: Arc<str> = topic.into();
        for data in queues {
            let Some((name, _)) = self.brokers.get_key_value(data.broker_name.as_str()) else {
                continue;
            };
            let name = name.clone();
            if let Some(broker) = self.brokers.get_mut(&name) {
                broker.topics.insert(key.clone());
            }
            let queues = Queues {
                read: data.read_queues,
                write: data.write_queues,
                perm: data.perm,
                sys_flag: data.sys_flag,
            };
            self.topics
                .entry(key.clone())
                .or_default()
                .insert(name, queues);
        }
        Ok(())
    }

    /// Replaces the KV table (once it is stored).
    pub fn set_kv(&mut self, kv: KvTable) {
        self.kv = kv;
    }
}

impl Broker {
    /// A later term holds this id or this address already.
    fn outranks(&self, reg: &BrokerRegistration) -> bool {
        let rivals = self
            .members
            .iter()
            .filter(|(id, m)| **id == reg.broker_id || m.addr == reg.addr);
        rivals.map(|(_, m)| m.term).max().flatten() > reg.term
    }
}

fn drop_queues(topics: &mut BTreeMap<Arc<str>, TopicQueues>, topic: &str, broker_name: &str) {
    if let Some(queues) = topics.get_mut(topic) {
        queues.remove(broker_name);
        if queues.is_empty() {
            topics.remove(topic);
        }
    }
}
