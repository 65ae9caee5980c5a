//! Name-server codes. Reads take the published view; changes go through the registry's actor.

use super::admin;
use super::connection::Conn;
use super::convert;
use super::membership::{Claim, TERM};
use super::reply::{not_supported, Reply};
use super::shared::now_ms;
use crate::actors::registry::Registry;
use crate::config::Config;
use crate::routing::{AdvertisedAddr, BrokerRegistration};
use crate::wire::message::names;
use crate::wire::remoting::body::cluster::MemberGroupBody;
use crate::wire::remoting::body::{
    self, BrokerMemberGroup, ClusterInfo, KvTable, RegisterBrokerBody, TopicList, TopicRouteData,
};
use crate::wire::remoting::code::{request as code, response as rc};
use crate::wire::remoting::requests::{
    BrokerHeartbeat, BrokerIdentity, ClusterTopics, KvKey, KvNamespace, MemberGroup, PutKv,
    RegisterBroker, TopicRequest, WritePerm,
};
use crate::wire::remoting::Command;
use std::net::IpAddr;
use std::rc::Rc;

type Answer = Result<Reply, Reply>;

/// Longest a broker may ask to be believed without saying anything, ms.
const MAX_EXPIRY_MS: i64 = 600_000;

/// Whether a code belongs to the name server.
pub fn handles(c: i32) -> bool {
    matches!(
        c,
        code::PUT_KV_CONFIG
            | code::GET_KV_CONFIG
            | code::DELETE_KV_CONFIG
            | code::REGISTER_BROKER
            | code::UNREGISTER_BROKER
            | code::GET_ROUTEINFO_BY_TOPIC
            | code::GET_BROKER_CLUSTER_INFO
            | code::WIPE_WRITE_PERM_OF_BROKER
            | code::ADD_WRITE_PERM_OF_BROKER
            | code::GET_ALL_TOPIC_LIST_FROM_NAMESERVER
            | code::DELETE_TOPIC_IN_NAMESRV
            | code::REGISTER_TOPIC_IN_NAMESRV
            | code::GET_KVLIST_BY_NAMESPACE
            | code::GET_TOPICS_BY_CLUSTER
            | code::GET_SYSTEM_TOPIC_LIST_FROM_NS
            | code::GET_UNIT_TOPIC_LIST
            | code::GET_HAS_UNIT_SUB_TOPIC_LIST
            | code::GET_HAS_UNIT_SUB_UNUNIT_TOPIC_LIST
            | code::UPDATE_NAMESRV_CONFIG
            | code::GET_NAMESRV_CONFIG
            | code::QUERY_DATA_VERSION
            | code::GET_BROKER_MEMBER_GROUP
            | code::BROKER_HEARTBEAT
    )
}

/// Answers a name-server request.
pub async fn answer(conn: &Rc<Conn>, registry: &Registry, command: &Command) -> Answer {
    let local = conn.local_ip();
    match command.code {
        code::GET_ROUTEINFO_BY_TOPIC => route(conn, registry, command),
        code::GET_BROKER_CLUSTER_INFO => Ok(cluster_info(registry, local)),
        code::GET_ALL_TOPIC_LIST_FROM_NAMESERVER => Ok(topics(registry.topics())),
        code::GET_TOPICS_BY_CLUSTER => {
            let cluster = ClusterTopics::parse(command)?.cluster;
            Ok(topics(registry.topics_of_cluster(cluster)))
        }
        code::GET_SYSTEM_TOPIC_LIST_FROM_NS => Ok(system_topics(registry, local)),
        code::GET_UNIT_TOPIC_LIST => Ok(topics(registry.unit_topics())),
        code::GET_HAS_UNIT_SUB_TOPIC_LIST => Ok(topics(registry.unit_sub_topics())),
        code::GET_HAS_UNIT_SUB_UNUNIT_TOPIC_LIST => Ok(topics(registry.unit_sub_ununit_topics())),
        code::REGISTER_BROKER => register(conn, registry, command).await,
        code::UNREGISTER_BROKER => {
            let b = BrokerIdentity::parse(command)?;
            from_member(conn, command, &b)?;
            let (cluster, name) = (b.cluster_name.to_owned(), b.broker_name.to_owned());
            registry
                .unregister(cluster, name, b.broker_id, b.broker_addr)
                .await?;
            Ok(Reply::ok())
        }
        code::BROKER_HEARTBEAT => {
            let b = BrokerHeartbeat::parse(command)?;
            let (cluster, name) = (b.cluster_name.to_owned(), b.broker_name.to_owned());
            registry.heartbeat(cluster, name, b.broker_addr).await?;
            Ok(Reply::ok())
        }
        code::QUERY_DATA_VERSION => data_version(registry, command).await,
        code::GET_BROKER_MEMBER_GROUP => {
            let request = MemberGroup::parse(command)?;
            let members = registry.members(request.cluster_name, request.broker_name);
            let group = BrokerMemberGroup {
                broker_addrs: convert::addresses(&members.addrs, local),
                broker_name: members.broker_name,
                cluster: members.cluster,
            };
            Ok(Reply::body(body::encode(&MemberGroupBody {
                broker_member_group: group,
            })))
        }
        code::WIPE_WRITE_PERM_OF_BROKER => {
            let name = WritePerm::parse(command)?.broker_name.to_owned();
            let count = registry.wipe_write_perm(name).await?;
            Ok(Reply::field("wipeTopicCount", i64::from(count)))
        }
        code::ADD_WRITE_PERM_OF_BROKER => {
            let name = WritePerm::parse(command)?.broker_name.to_owned();
            let count = registry.add_write_perm(name).await?;
            Ok(Reply::field("addTopicCount", i64::from(count)))
        }
        code::DELETE_TOPIC_IN_NAMESRV => {
            let request = TopicRequest::parse(command)?;
            let cluster = request.cluster_name.map(str::to_owned);
            registry
                .delete_topic(request.topic.to_owned(), cluster)
                .await?;
            Ok(Reply::ok())
        }
        code::REGISTER_TOPIC_IN_NAMESRV => {
            let topic = TopicRequest::parse(command)?.topic;
            names::check_topic(topic)
                .map_err(|e| Reply::err(rc::INVALID_PARAMETER, e.to_string()))?;
            let route: TopicRouteData = body::decode(&command.body).map_err(Reply::failed)?;
            let queues = route.queue_datas.iter().map(convert::queue_data).collect();
            registry.register_topic(topic.to_owned(), queues).await?;
            Ok(Reply::ok())
        }
        _ => config(conn, registry, command).await,
    }
}

async fn config(conn: &Rc<Conn>, registry: &Registry, command: &Command) -> Answer {
    match command.code {
        code::PUT_KV_CONFIG => {
            let kv = PutKv::parse(command)?;
            let text = |s: &str| s.to_owned();
            registry
                .put_kv(text(kv.namespace), text(kv.key), text(kv.value))
                .await?;
            Ok(Reply::ok())
        }
        code::GET_KV_CONFIG => {
            let kv = KvKey::parse(command)?;
            registry
                .kv(kv.namespace, kv.key)
                .map(|v| Reply::field("value", v))
                .ok_or_else(|| {
                    let text = format!(
                        "No config item, Namespace: {} Key: {}",
                        kv.namespace, kv.key
                    );
                    Reply::err(rc::QUERY_NOT_FOUND, text)
                })
        }
        code::DELETE_KV_CONFIG => {
            let kv = KvKey::parse(command)?;
            registry
                .delete_kv(kv.namespace.to_owned(), kv.key.to_owned())
                .await?;
            Ok(Reply::ok())
        }
        code::GET_KVLIST_BY_NAMESPACE => {
            let namespace = KvNamespace::parse(command)?.namespace;
            let table = registry.kv_list(namespace).ok_or_else(|| {
                let text = format!("No config item, Namespace: {namespace}");
                Reply::err(rc::QUERY_NOT_FOUND, text)
            })?;
            Ok(Reply::body(body::encode(&KvTable { table })))
        }
        code::GET_NAMESRV_CONFIG => {
            let config = &conn.shared().config;
            Ok(Reply::body(format!(
                "listenPort={}\nrocketmqHome=\nclusterTest=false\norderMessageEnable=false\n",
                config.namesrv_listen_port
            )))
        }
        code::UPDATE_NAMESRV_CONFIG => {
            // What a name server calls its port.
            let config = &conn.shared().config;
            let config = Config {
                listen_port: config.namesrv_listen_port,
                ..Config::clone(config)
            };
            admin::update_config(&config, &command.body)
        }
        other => Err(not_supported(other)),
    }
}

fn route(conn: &Rc<Conn>, registry: &Registry, command: &Command) -> Answer {
    let topic = TopicRequest::parse(command)?.topic;
    let node = conn.shared().node.as_ref();
    if !node.is_some_and(|node| node.is_cut_off()) {
        conn.believes_routes();
    } else if conn.believed_routes() {
        // Clients look for another name server when a connection breaks, and for no other reason.
        // One that knows no other comes back, and is told what is known here.
        conn.close("cut off");
        let why = "this node is cut off from its cluster: ask another name server";
        return Err(Reply::err(rc::SERVICE_NOT_AVAILABLE, why));
    }
    let route = registry.route(topic).ok_or_else(|| {
        let text = format!("No topic route info in name server for the topic: {topic}");
        Reply::err(rc::TOPIC_NOT_EXIST, text)
    })?;
    Ok(Reply::body(body::encode(&convert::route_body(
        &route,
        conn.local_ip(),
    ))))
}

fn topics(topic_list: Vec<String>) -> Reply {
    Reply::body(body::encode(&TopicList {
        broker_addr: None,
        topic_list,
    }))
}

fn cluster_info(registry: &Registry, local: IpAddr) -> Reply {
    let info = registry.cluster_info();
    let brokers = info.brokers.iter();
    Reply::body(body::encode(&ClusterInfo {
        broker_addr_table: brokers
            .map(|(name, b)| (name.clone(), convert::broker_body(b, local)))
            .collect(),
        cluster_addr_table: info
            .clusters
            .into_iter()
            .map(|(cluster, names)| (cluster, names.into_iter().collect()))
            .collect(),
    }))
}

/// Cluster and broker names, and one address to ask for the rest.
fn system_topics(registry: &Registry, local: IpAddr) -> Reply {
    let info = registry.cluster_info();
    let first = info.brokers.values().find_map(|b| b.addrs.values().next());
    let mut topic_list: Vec<String> = info.clusters.keys().cloned().collect();
    topic_list.extend(info.brokers.keys().cloned());
    let broker_addr = first.map(|addr| addr.resolve(local));
    Reply::body(body::encode(&TopicList {
        broker_addr,
        topic_list,
    }))
}

/// Whether what a broker says of itself comes from a node of this cluster; see [`Membership`].
/// True too where nobody can prove it.
///
/// [`Membership`]: super::membership::Membership
fn from_member(conn: &Conn, command: &Command, who: &BrokerIdentity<'_>) -> Result<bool, Reply> {
    let Some(membership) = &conn.shared().membership else {
        return Ok(true);
    };
    let claim = Claim {
        code: command.code,
        cluster: who.cluster_name,
        broker_name: who.broker_name,
        broker_id: who.broker_id,
        addr: who.broker_addr,
        term: command.ext(TERM),
        body: &command.body,
    };
    membership.admits(claim, command, now_ms())
}

async fn register(conn: &Rc<Conn>, registry: &Registry, command: &Command) -> Answer {
    let request = RegisterBroker::parse(command)?;
    let member = from_member(conn, command, &BrokerIdentity::parse(command)?)?;
    let term = command.ext(TERM).filter(|_| member);
    for name in [request.broker_name, request.cluster_name] {
        names::check_topic(name).map_err(|e| Reply::err(rc::SYSTEM_ERROR, e.to_string()))?;
    }
    let parsed = RegisterBrokerBody::parse(
        &command.body,
        request.body_crc32.unwrap_or(0),
        command.version,
    )
    .map_err(Reply::failed)?;
    let wrapper = parsed.topic_config_serialize_wrapper;
    let has_body = !command.body.is_empty();
    // A topic with an impossible name would be handed to every client: it is left out.
    let topics = wrapper
        .topic_config_table
        .iter()
        .filter(|(name, _)| names::check_topic(name).is_ok())
        .map(|(name, t)| convert::route_topic(name, t));
    let expiry = conn
        .shared()
        .config
        .broker_expiry_secs
        .saturating_mul(1_000);
    let expiry_ms = i64::try_from(expiry).unwrap_or(i64::MAX);
    let registration = BrokerRegistration {
        cluster: request.cluster_name.to_owned(),
        broker_name: request.broker_name.to_owned(),
        broker_id: request.broker_id,
        addr: AdvertisedAddr::from(request.broker_addr),
        ha_addr: request.ha_server_addr.to_owned(),
        zone: request.zone_name.map(str::to_owned),
        enable_acting_master: request.enable_acting_master,
        heartbeat_timeout_ms: request
            .heartbeat_timeout_millis
            .map(|asked| asked.min(MAX_EXPIRY_MS.max(expiry_ms)))
            .or(Some(expiry_ms)),
        data_version: convert::version(&wrapper.data_version),
        topics: has_body.then(|| topics.collect()),
        filter_servers: parsed.filter_server_list,
        term: term.and_then(|t| t.parse().ok()),
        troupe: term.is_some(),
    };
    let done = registry.register(registration, Some(conn.id)).await;
    let done = done.map_err(|refusal| match refusal {
        crate::model::outcome::Refusal::Invalid(why) => Reply::err(rc::SYSTEM_ERROR, why),
        other => other.into(),
    })?;
    let mut reply = Reply::body(body::encode(&KvTable {
        table: done.order_conf,
    }));
    if let Some(addr) = done.ha_addr {
        reply = reply.with("haServerAddr", addr);
    }
    if let Some(addr) = done.master_addr {
        reply = reply.with("masterAddr", addr.resolve(conn.local_ip()));
    }
    Ok(reply)
}

async fn data_version(registry: &Registry, command: &Command) -> Answer {
    let b = BrokerIdentity::parse(command)?;
    let asked: body::DataVersion = match command.body.is_empty() {
        true => body::DataVersion::default(),
        false => body::decode(&command.body).map_err(Reply::failed)?,
    };
    let (cluster, name) = (b.cluster_name.to_owned(), b.broker_name.to_owned());
    let (changed, known) = registry
        .query_data_version(cluster, name, b.broker_addr, convert::version(&asked))
        .await?;
    let mut reply = Reply::field("changed", changed);
    if let Some(known) = known {
        reply.body = body::encode(&convert::version_body(&known)).into();
    }
    Ok(reply)
}
