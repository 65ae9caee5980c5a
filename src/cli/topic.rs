//! `troupe topic …`, on the remoting protocol against any RocketMQ.

use super::{print_line, Cluster, Failure};
use crate::client::{Client, ClientError, ClusterInfo};
use crate::wire::message::names;
use crate::wire::remoting::code::response;
use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(super) enum TopicCommand {
    /// Create a topic, or change its number of queues
    Create(CreateArgs),
    /// List the topics
    List(ListArgs),
    /// Show a topic's brokers, queues and offsets
    Show(ShowArgs),
    /// Delete a topic and its messages
    Delete(DeleteArgs),
}

#[derive(Debug, Args)]
pub(super) struct CreateArgs {
    /// Name of the topic
    topic: String,
    /// Queues on each broker
    #[arg(long, short = 'q', default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    queues: u32,
    /// What clients may do: 2 = write, 4 = read, 6 = both
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(i32).range(0..=7))]
    perm: i32,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Also system, retry and dead letter topics
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    cluster: Cluster,
}

#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    /// Name of the topic
    topic: String,
    #[command(flatten)]
    cluster: Cluster,
}

#[derive(Debug, Args)]
pub(super) struct DeleteArgs {
    /// Name of the topic
    topic: String,
    #[command(flatten)]
    place: Place,
}

/// The brokers that a change is made on.
#[derive(Debug, Args)]
struct Place {
    #[command(flatten)]
    cluster: Cluster,
    /// Only the brokers of this cluster [default: the only cluster there is]
    #[arg(long, value_name = "NAME")]
    cluster_name: Option<String>,
}

pub(super) async fn run(command: TopicCommand) -> Result<(), Failure> {
    match command {
        TopicCommand::Create(args) => create(args).await,
        TopicCommand::List(args) => list(args).await,
        TopicCommand::Show(args) => show(args).await,
        TopicCommand::Delete(args) => delete(args).await,
    }
}

async fn create(args: CreateArgs) -> Result<(), Failure> {
    check_topic(&args.topic)?;
    let client = args.place.cluster.client();
    let (_, masters) = masters(&client, args.place.cluster_name.as_deref()).await?;
    for (broker, addr) in &masters {
        client
            .create_topic(addr, &args.topic, args.queues, args.perm)
            .await
            .map_err(|e| e.to_string())?;
        print_line(&format!(
            "{broker} ({addr}): {} has {} queues",
            args.topic, args.queues
        ))?;
    }
    Ok(())
}

async fn list(args: ListArgs) -> Result<(), Failure> {
    let client = args.cluster.client();
    // Every cluster and every broker has a topic of its own name.
    let info = client.cluster_info().await.map_err(|e| e.to_string())?;
    let is_member = |topic: &str| {
        let cluster = topic.strip_suffix("_REPLY_TOPIC").unwrap_or(topic);
        info.cluster_addr_table.contains_key(cluster) || info.broker_addr_table.contains_key(topic)
    };
    for topic in client.topics().await.map_err(|e| e.to_string())? {
        let internal = names::is_system_topic(&topic)
            || is_member(&topic)
            || names::group_of_retry_topic(&topic).is_some()
            || names::group_of_dlq_topic(&topic).is_some();
        if args.all || !internal {
            print_line(&crate::telemetry::Escaped(&topic).to_string())?;
        }
    }
    Ok(())
}

async fn show(args: ShowArgs) -> Result<(), Failure> {
    let client = args.cluster.client();
    let route = client
        .route(&args.topic)
        .await
        .map_err(|e| explain(e, &args.topic))?;
    for data in &route.queue_datas {
        let Some(broker) = route.broker(&data.broker_name) else {
            continue;
        };
        let can = match data.perm & 6 {
            6 => "read and write",
            4 => "read",
            2 => "write",
            _ => "no access",
        };
        let addrs: Vec<String> = broker
            .broker_addrs
            .iter()
            .map(|(id, addr)| format!("{id}={addr}"))
            .collect();
        print_line(&format!(
            "broker {} of {}  {}  {can}  {} read and {} write queues",
            crate::telemetry::Escaped(&data.broker_name),
            crate::telemetry::Escaped(&broker.cluster),
            crate::telemetry::Escaped(&addrs.join(" ")),
            data.read_queue_nums,
            data.write_queue_nums,
        ))?;
    }
    for (addr, queue) in route.read_queues() {
        let min = client
            .min_offset(&addr, &args.topic, queue)
            .await
            .map_err(|e| e.to_string())?;
        let max = client
            .max_offset(&addr, &args.topic, queue)
            .await
            .map_err(|e| e.to_string())?;
        print_line(&format!(
            "  {addr} queue {queue}: {} messages, offsets {min} to {max}",
            max.saturating_sub(min)
        ))?;
    }
    Ok(())
}

async fn delete(args: DeleteArgs) -> Result<(), Failure> {
    let client = args.place.cluster.client();
    client
        .route(&args.topic)
        .await
        .map_err(|e| explain(e, &args.topic))?;
    let (cluster, masters) = masters(&client, args.place.cluster_name.as_deref()).await?;
    for (broker, addr) in &masters {
        client
            .delete_topic_on_broker(addr, &args.topic)
            .await
            .map_err(|e| e.to_string())?;
        print_line(&format!("{broker} ({addr}): {} is deleted", args.topic))?;
    }
    // Every name server, or one would go on telling clients of it.
    for addr in client.name_servers() {
        client
            .delete_topic_on_name_server(addr, &args.topic, &cluster)
            .await
            .map_err(|e| e.to_string())?;
    }
    Ok(())
}

/// The cluster, and broker names with the addresses that take changes.
async fn masters(
    client: &Client,
    wanted: Option<&str>,
) -> Result<(String, Vec<(String, String)>), Failure> {
    let info = client.cluster_info().await.map_err(|e| e.to_string())?;
    choose(&info, wanted)
}

fn choose(
    info: &ClusterInfo,
    wanted: Option<&str>,
) -> Result<(String, Vec<(String, String)>), Failure> {
    let clusters: Vec<&str> = info.cluster_addr_table.keys().map(String::as_str).collect();
    let cluster = match (wanted, clusters.as_slice()) {
        (Some(name), _) if clusters.contains(&name) => name,
        (Some(name), known) => {
            return Err(format!(
                "there is no cluster {name}; there are: {}",
                known.join(", ")
            ))
        }
        (None, [only]) => only,
        (None, []) => return Err("no broker is registered with the name server".to_owned()),
        (None, several) => {
            return Err(format!(
                "choose a cluster with --cluster-name: {}",
                several.join(", ")
            ))
        }
    };
    let masters: Vec<(String, String)> = info
        .cluster_addr_table
        .get(cluster)
        .into_iter()
        .flatten()
        .filter_map(|name| {
            let addr = info.broker_addr_table.get(name)?.master()?;
            Some((name.clone(), addr.to_owned()))
        })
        .collect();
    if masters.is_empty() {
        return Err(format!("no broker of cluster {cluster} takes changes now"));
    }
    Ok((cluster.to_owned(), masters))
}

/// Says early what a server would say with code 29.
fn check_topic(topic: &str) -> Result<(), Failure> {
    names::check_topic(topic).map_err(|e| format!("{topic}: {e}"))
}

/// "No such topic" in plain words, with the protocol's code.
pub(super) fn explain(error: ClientError, topic: &str) -> Failure {
    match error.code() {
        Some(response::TOPIC_NOT_EXIST) => format!(
            "there is no topic {topic} (code 17 TOPIC_NOT_EXIST); create it: troupe topic create \
             {topic}"
        ),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::BrokerData;
    use std::collections::{BTreeMap, BTreeSet};

    fn info(brokers: &[(&str, &str, i64)]) -> ClusterInfo {
        let mut info = ClusterInfo::default();
        for (cluster, name, id) in brokers {
            let data = BrokerData {
                broker_name: name.to_string(),
                cluster: cluster.to_string(),
                broker_addrs: BTreeMap::from([(*id, format!("{name}:1"))]),
            };
            info.broker_addr_table.insert(name.to_string(), data);
            info.cluster_addr_table
                .entry(cluster.to_string())
                .or_insert_with(BTreeSet::new)
                .insert(name.to_string());
        }
        info
    }

    #[test]
    fn the_only_cluster_is_chosen_and_slaves_are_not() {
        let one = info(&[("C", "a", 0), ("C", "b", 0), ("C", "s", 1)]);
        let masters = vec![("a".into(), "a:1".into()), ("b".into(), "b:1".into())];
        assert_eq!(choose(&one, None), Ok(("C".to_owned(), masters)));
        let two = info(&[("C", "a", 0), ("D", "b", 0)]);
        assert!(choose(&two, None).unwrap_err().contains("C, D"));
        assert_eq!(
            choose(&two, Some("D")).unwrap().1,
            [("b".to_owned(), "b:1".to_owned())]
        );
        assert!(choose(&two, Some("E"))
            .unwrap_err()
            .contains("no cluster E"));
        assert!(choose(&info(&[]), None).unwrap_err().contains("no broker"));
        assert!(choose(&info(&[("C", "a", 1)]), None)
            .unwrap_err()
            .contains("takes changes"));
    }
}
