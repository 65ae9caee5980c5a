//! Where the queues are: from the route, as clients find them, or from the cluster.

use crate::client::{BrokerData, Client, ClientError, ClusterInfo, Route};
use crate::wire::remoting::code::response;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

/// Most queues of one topic on one broker that are looked at.
const MOST_QUEUES: i32 = 65_536;
/// How long a topic that was just created may take to appear in the route.
const ROUTE_TRIES: u32 = 100;
const ROUTE_PAUSE: Duration = Duration::from_millis(50);

/// A queue of a topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Queue {
    /// Topic.
    pub topic: Rc<str>,
    /// Queue id.
    pub id: i32,
}

/// A broker and the queues on it that are used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Broker {
    /// Broker name.
    pub name: String,
    /// `host:port`.
    pub addr: String,
    /// Its queues, neighbours of different topics.
    pub queues: Vec<Queue>,
}

/// Whether queues are looked for to write or to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// Send to them.
    Write,
    /// Pull from them.
    Read,
}

/// Which queues, to be looked up again whenever a connection breaks.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// All queues in the routes of these topics.
    Routes(Vec<Rc<str>>, Use),
    /// These queues, on every broker of the cluster.
    Queues(Vec<Queue>),
}

impl Source {
    /// The brokers as they are now; those without a queue are left out.
    ///
    /// # Errors
    /// When no name server answers, a topic has no route, or no broker is left.
    pub(super) async fn brokers(&self, client: &Client) -> Result<Vec<Broker>, ClientError> {
        let found = match self {
            Self::Routes(topics, usage) => {
                let mut routes = Vec::with_capacity(topics.len());
                for topic in topics {
                    routes.push((topic.clone(), client.route(topic).await?));
                }
                from_routes(&routes, *usage)
            }
            Self::Queues(queues) => masters(&client.cluster_info().await?)
                .into_iter()
                .map(|(name, addr)| Broker {
                    name,
                    addr,
                    queues: queues.clone(),
                })
                .collect(),
        };
        if found.is_empty() {
            let (topic, can) = match self {
                Self::Routes(topics, usage) => (
                    topics.first().map_or("", |t| t),
                    match usage {
                        Use::Write => "can be written",
                        Use::Read => "can be read",
                    },
                ),
                Self::Queues(_) => ("", "is registered"),
            };
            return Err(ClientError::NoBroker {
                topic: topic.to_owned(),
                can,
            });
        }
        Ok(found)
    }
}

/// Names and addresses of the brokers that take changes.
pub(super) fn masters(info: &ClusterInfo) -> Vec<(String, String)> {
    info.broker_addr_table
        .iter()
        .filter_map(|(name, data)| Some((name.clone(), data.master()?.to_owned())))
        .collect()
}

fn from_routes(routes: &[(Rc<str>, Route)], usage: Use) -> Vec<Broker> {
    let (perm, address): (i32, fn(&BrokerData) -> Option<&str>) = match usage {
        Use::Write => (2, BrokerData::master),
        Use::Read => (4, BrokerData::reader),
    };
    let mut brokers: BTreeMap<&str, (&str, Vec<Queue>)> = BTreeMap::new();
    for (topic, route) in routes {
        for data in route.queue_datas.iter().filter(|q| q.perm & perm != 0) {
            let Some(addr) = route.broker(&data.broker_name).and_then(address) else {
                continue;
            };
            let count = match usage {
                Use::Write => data.write_queue_nums,
                Use::Read => data.read_queue_nums,
            };
            let (_, queues) = brokers
                .entry(&data.broker_name)
                .or_insert((addr, Vec::new()));
            queues.extend((0..count.min(MOST_QUEUES)).map(|id| Queue {
                topic: topic.clone(),
                id,
            }));
        }
    }
    let mut found: Vec<Broker> = brokers
        .into_iter()
        .map(|(name, (addr, mut queues))| {
            queues.sort_by(|a, b| (a.id, &a.topic).cmp(&(b.id, &b.topic)));
            Broker {
                name: name.to_owned(),
                addr: addr.to_owned(),
                queues,
            }
        })
        .collect();
    found.retain(|b| !b.queues.is_empty());
    found
}

/// Creates the topics that no name server knows, on every broker, and waits for their routes.
///
/// # Errors
/// When there is no broker, or one refuses.
pub(super) async fn create_missing(
    client: &Client,
    topics: &[String],
    queues: u32,
) -> Result<Vec<Rc<str>>, String> {
    let mut info = None;
    let mut names = Vec::with_capacity(topics.len());
    for topic in topics {
        crate::wire::message::names::check_topic(topic).map_err(|e| format!("{topic}: {e}"))?;
        names.push(Rc::from(topic.as_str()));
        match client.route(topic).await {
            Ok(_) => continue,
            Err(e) if e.code() == Some(response::TOPIC_NOT_EXIST) => {}
            Err(e) => return Err(e.to_string()),
        }
        if info.is_none() {
            info = Some(client.cluster_info().await.map_err(|e| e.to_string())?);
        }
        let masters = info.as_ref().map(masters).unwrap_or_default();
        if masters.is_empty() {
            return Err("no broker is registered with the name server".to_owned());
        }
        for (_, addr) in &masters {
            client
                .create_topic(addr, topic, queues, 6)
                .await
                .map_err(|e| e.to_string())?;
        }
        for tried in 0..=ROUTE_TRIES {
            match client.route(topic).await {
                Ok(route) if route.queue_datas.len() >= masters.len() => break,
                Ok(_) | Err(_) if tried < ROUTE_TRIES => tokio::time::sleep(ROUTE_PAUSE).await,
                Ok(_) => break,
                Err(e) => return Err(e.to_string()),
            }
        }
    }
    Ok(names)
}

/// Waits until a broker is registered with a name server.
///
/// # Errors
/// The last error, when `limit` passes.
pub(super) async fn wait_for_cluster(client: &Client, limit: Duration) -> Result<(), String> {
    let until = tokio::time::Instant::now() + limit;
    loop {
        let why = match client.cluster_info().await {
            Ok(info) if !masters(&info).is_empty() => return Ok(()),
            Ok(_) => "no broker is registered with the name server".to_owned(),
            Err(e) => e.to_string(),
        };
        if tokio::time::Instant::now() >= until {
            return Err(why);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::QueueData;

    fn route(brokers: &[(&str, i64, i32, i32)]) -> Route {
        Route {
            broker_datas: brokers
                .iter()
                .map(|(name, id, _, _)| BrokerData {
                    broker_name: (*name).to_owned(),
                    cluster: "C".to_owned(),
                    broker_addrs: BTreeMap::from([(*id, format!("{name}:1"))]),
                })
                .collect(),
            queue_datas: brokers
                .iter()
                .map(|(name, _, perm, n)| QueueData {
                    broker_name: (*name).to_owned(),
                    read_queue_nums: *n,
                    write_queue_nums: *n,
                    perm: *perm,
                })
                .collect(),
        }
    }

    #[test]
    fn queues_are_grouped_by_broker_and_spread_over_topics() {
        let routes = [
            (Rc::from("A"), route(&[("x", 0, 6, 2), ("y", 1, 6, 1)])),
            (Rc::from("B"), route(&[("x", 0, 6, 2), ("z", 0, 4, 3)])),
        ];
        let written = from_routes(&routes, Use::Write);
        assert_eq!(written.len(), 1);
        let order: Vec<(&str, i32)> = written[0]
            .queues
            .iter()
            .map(|q| (&*q.topic, q.id))
            .collect();
        assert_eq!(order, [("A", 0), ("B", 0), ("A", 1), ("B", 1)]);
        let read = from_routes(&routes, Use::Read);
        let names: Vec<&str> = read.iter().map(|b| b.name.as_str()).collect();
        assert_eq!(names, ["x", "y", "z"]);
        let huge = [(Rc::from("A"), route(&[("x", 0, 6, i32::MAX)]))];
        assert_eq!(from_routes(&huge, Use::Write)[0].queues.len(), 65_536);
        let negative = [(Rc::from("A"), route(&[("x", 0, 6, -1)]))];
        assert!(from_routes(&negative, Use::Write).is_empty());
    }
}
