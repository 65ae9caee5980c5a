//! What the name server answers from its tables; nothing here changes them.

use super::core::{Broker, RegistryCore, ORDER_CONF};
use super::queues::TopicQueues;
use crate::model::topic::{PERM_READ, PERM_WRITE};
use crate::routing::{
    names, AdvertisedAddr, BrokerData, BrokerMembers, ClusterInfo, QueueData, TopicRoute,
};
use std::collections::{BTreeMap, BTreeSet};

const UNIT: u32 = 1;
const UNIT_SUB: u32 = 2;

impl RegistryCore {
    /// GET_ROUTEINFO_BY_TOPIC. The retry topic of a group has a route on every TroupeMQ broker
    /// before it exists, so that a new group does not wait 30 s for it.
    pub fn route(&self, topic: &str) -> Option<TopicRoute> {
        let queues: Vec<QueueData> = match self.topics.get(topic) {
            Some(queues) => queues.data().collect(),
            None => self.retry_queues(topic),
        };
        let mut route = TopicRoute {
            queues,
            ..Default::default()
        };
        for data in &route.queues {
            let Some(broker) = self.brokers.get(data.broker_name.as_str()) else {
                continue;
            };
            route.brokers.push(broker_data(&data.broker_name, broker));
            for member in broker
                .members
                .values()
                .filter(|m| !m.filter_servers.is_empty())
            {
                if let AdvertisedAddr::Fixed(addr) = &member.addr {
                    route
                        .filter_servers
                        .insert(addr.clone(), member.filter_servers.clone());
                }
            }
        }
        if route.brokers.is_empty() {
            return None;
        }
        if self.order_messages {
            route.order_conf = self.kv.get(ORDER_CONF, topic).cloned();
        }
        Some(route)
    }

    fn retry_queues(&self, topic: &str) -> Vec<QueueData> {
        if !names::retry_group(topic).is_some_and(names::valid_group) {
            return Vec::new();
        }
        let ours = self.brokers.iter().filter(|(_, b)| b.troupe);
        ours.map(|(name, _)| QueueData {
            broker_name: name.to_string(),
            read_queues: 1,
            write_queues: 1,
            perm: PERM_READ | PERM_WRITE,
            sys_flag: 0,
        })
        .collect()
    }

    /// GET_BROKER_CLUSTER_INFO.
    pub fn cluster_info(&self) -> ClusterInfo {
        let mut info = ClusterInfo::default();
        for (name, broker) in &self.brokers {
            info.brokers
                .insert(name.to_string(), broker_data(name, broker));
            info.clusters
                .entry(broker.cluster.clone())
                .or_default()
                .insert(name.to_string());
        }
        info
    }

    /// GET_ALL_TOPIC_LIST_FROM_NAMESERVER, sorted.
    pub fn topic_names(&self) -> Vec<String> {
        self.topics.keys().map(|t| t.to_string()).collect()
    }

    /// GET_TOPICS_BY_CLUSTER, sorted.
    pub fn topics_of_cluster(&self, cluster: &str) -> Vec<String> {
        let mut found = BTreeSet::new();
        for broker in self.brokers.values().filter(|b| b.cluster == cluster) {
            found.extend(broker.topics.iter().map(|t| t.to_string()));
        }
        found.into_iter().collect()
    }

    /// GET_SYSTEM_TOPIC_LIST_FROM_NS: cluster and broker names, and one broker's address.
    pub fn system_topics(&self) -> (Vec<String>, Option<AdvertisedAddr>) {
        let clusters: BTreeSet<&str> = self.brokers.values().map(|b| b.cluster.as_str()).collect();
        let mut found: Vec<String> = clusters.into_iter().map(str::to_owned).collect();
        for name in self.brokers.keys() {
            if !found.iter().any(|f| **f == **name) {
                found.push(name.to_string());
            }
        }
        let addr = self
            .brokers
            .values()
            .find_map(|b| b.members.values().next())
            .map(|m| m.addr.clone());
        (found, addr)
    }

    /// GET_BROKER_MEMBER_GROUP.
    pub fn broker_members(&self, cluster: &str, broker_name: &str) -> BrokerMembers {
        let broker = self
            .brokers
            .get(broker_name)
            .filter(|b| b.cluster == cluster);
        BrokerMembers {
            cluster: cluster.to_owned(),
            broker_name: broker_name.to_owned(),
            addrs: broker.map(addrs).unwrap_or_default(),
        }
    }

    /// GET_UNIT_TOPIC_LIST.
    pub fn unit_topics(&self) -> Vec<String> {
        self.topics_by_flag(|flag| flag & UNIT != 0)
    }

    /// GET_HAS_UNIT_SUB_TOPIC_LIST.
    pub fn unit_sub_topics(&self) -> Vec<String> {
        self.topics_by_flag(|flag| flag & UNIT_SUB != 0)
    }

    /// GET_HAS_UNIT_SUB_UNUNIT_TOPIC_LIST.
    pub fn unit_sub_ununit_topics(&self) -> Vec<String> {
        self.topics_by_flag(|flag| flag & (UNIT | UNIT_SUB) == UNIT_SUB)
    }

    fn topics_by_flag(&self, wanted: impl Fn(u32) -> bool) -> Vec<String> {
        let first = |queues: &TopicQueues| queues.first().is_some_and(|q| wanted(q.sys_flag));
        self.topics
            .iter()
            .filter(|(_, queues)| first(queues))
            .map(|(topic, _)| topic.to_string())
            .collect()
    }

    /// GET_KV_CONFIG.
    pub fn kv(&self, namespace: &str, key: &str) -> Option<String> {
        self.kv.get(namespace, key).cloned()
    }

    /// GET_KVLIST_BY_NAMESPACE.
    pub fn kv_list(&self, namespace: &str) -> Option<BTreeMap<String, String>> {
        self.kv.namespace(namespace).cloned()
    }
}

fn broker_data(name: &str, broker: &Broker) -> BrokerData {
    BrokerData {
        cluster: broker.cluster.clone(),
        broker_name: name.to_owned(),
        addrs: addrs(broker),
        zone: broker.zone.clone(),
        enable_acting_master: broker.enable_acting_master,
    }
}

fn addrs(broker: &Broker) -> BTreeMap<i64, AdvertisedAddr> {
    broker
        .members
        .iter()
        .map(|(id, m)| (*id, m.addr.clone()))
        .collect()
}
