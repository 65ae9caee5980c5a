//! `troupe cluster add|remove|replace|transfer|rebalance`: asks the nodes over their HTTP ports.
//!
//! Each step is one that may be repeated, so a command that was cut off is given again.

use super::show::{get, http, is_single, list, number};
use super::{print_line, Failure};
use crate::config::operator;
use clap::Args;
use serde_json::{json, Value};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A replica this many entries behind may get a vote.
const CLOSE: u64 = 1_000;
const LOOK: Duration = Duration::from_millis(200);
/// Progress is told so often.
const TELL: Duration = Duration::from_secs(2);
/// Longest wait for leadership to move away.
const MOVE_WITHIN: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
pub(super) struct Nodes {
    /// HTTP ports of nodes, as host:port,host:port; all of the cluster's, so that leaders are found
    #[arg(long, value_name = "ADDRS", default_value = "127.0.0.1:8080")]
    http: String,
    /// File with the cluster's secret; not needed where the cluster has none
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct Shards {
    /// Only these shards (broker names), separated by commas; all when left out
    #[arg(long, value_name = "NAMES")]
    shards: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct Add {
    /// Number of the new node, which runs with `join = true`
    #[arg(long)]
    node: u64,
    /// Its peer port, host:port; not needed when the cluster knows it
    #[arg(long, value_name = "ADDR")]
    peer: Option<String>,
    /// It gets the log and no vote
    #[arg(long)]
    learner: bool,
    /// Longest wait until it holds the log, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 3_600)]
    within: u64,
    #[command(flatten)]
    shards: Shards,
    #[command(flatten)]
    nodes: Nodes,
}

#[derive(Debug, Args)]
pub(super) struct Remove {
    /// Number of the node that is to leave
    #[arg(long)]
    node: u64,
    #[command(flatten)]
    shards: Shards,
    #[command(flatten)]
    nodes: Nodes,
}

#[derive(Debug, Args)]
pub(super) struct Replace {
    /// Number of the node that is to leave; it may be gone already
    #[arg(long)]
    node: u64,
    /// Number of the node that takes its place and runs with `join = true`
    #[arg(long)]
    with: u64,
    /// The new node's peer port, host:port; not needed when the cluster knows it
    #[arg(long, value_name = "ADDR")]
    peer: Option<String>,
    /// Longest wait until it holds the log, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 3_600)]
    within: u64,
    #[command(flatten)]
    shards: Shards,
    #[command(flatten)]
    nodes: Nodes,
}

#[derive(Debug, Args)]
pub(super) struct Transfer {
    /// The shard (broker name)
    #[arg(long)]
    shard: String,
    /// Number of the node that is to lead it
    #[arg(long)]
    to: u64,
    #[command(flatten)]
    nodes: Nodes,
}

#[derive(Debug, Args)]
pub(super) struct Form {
    /// The shard (broker name)
    #[arg(long)]
    shard: String,
    #[command(flatten)]
    nodes: Nodes,
}

#[derive(Debug, Args)]
pub(super) struct Rebalance {
    #[command(flatten)]
    nodes: Nodes,
}

/// The way to the nodes.
pub(super) struct Operator {
    pub(super) addrs: Vec<String>,
    secret: String,
}

impl Operator {
    pub(super) fn new(nodes: &Nodes) -> Result<Self, Failure> {
        let secret = match &nodes.secret_file {
            Some(file) => std::fs::read_to_string(file)
                .map_err(|e| format!("{}: {e}", file.display()))?
                .trim()
                .to_owned(),
            None => String::new(),
        };
        let addrs = nodes.http.split([',', ';']).map(str::trim);
        Ok(Self {
            addrs: addrs.map(str::to_owned).collect(),
            secret,
        })
    }

    /// Asks one node after the other until one does it.
    async fn ask(&self, what: &Value) -> Result<String, Failure> {
        let mut errors = Vec::new();
        for addr in &self.addrs {
            match self.ask_one(addr, what).await {
                Ok(text) => return Ok(text),
                Err(why) => errors.push(why),
            }
        }
        Err(errors.join("; "))
    }

    /// Refuses a node that is no part of a cluster, and addresses where no node answers.
    async fn check(&self) -> Result<(), Failure> {
        let mut errors = Vec::new();
        let mut answered = false;
        for addr in &self.addrs {
            match get(addr, "/cluster").await {
                Ok(page) => {
                    answered = true;
                    let page: Value = serde_json::from_str(&page).unwrap_or_default();
                    if is_single(&page) {
                        return Err(format!(
                            "{addr} is a single node, without members to change or leads to hand over; a \
                             cluster lists its nodes in peers (docs/operating.md)"
                        ));
                    }
                }
                Err(why) => errors.push(format!("{addr}: {why}")),
            }
        }
        match answered {
            true => Ok(()),
            false => Err(errors.join("; ")),
        }
    }

    /// Asks this node.
    pub(super) async fn ask_one(&self, addr: &str, what: &Value) -> Result<String, Failure> {
        let body = what.to_string();
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.map_or(0, |d| d.as_millis() as i64);
        let proof = operator::sign(&self.secret, now, "/operate", body.as_bytes());
        let request = format!(
            "POST /operate HTTP/1.1\r\nhost: {addr}\r\n{}: {proof}\r\ncontent-type: \
             application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            operator::HEADER,
            body.len()
        );
        let answer = http(addr, &request, Duration::from_secs(25)).await;
        let answer = answer.map_err(|why| format!("{addr}: {why}"))?;
        Ok(answer.trim().to_owned())
    }

    /// Each shard as its leader shows it; those without a leader are missing.
    async fn shards(&self) -> BTreeMap<String, Value> {
        let mut found = BTreeMap::new();
        for addr in &self.addrs {
            let Ok(page) = get(addr, "/cluster").await else {
                continue;
            };
            let page: Value = serde_json::from_str(&page).unwrap_or_default();
            for shard in list(&page, "shards") {
                let name = shard["name"].as_str().unwrap_or_default();
                if shard["serving"] == true {
                    found.insert(name.to_owned(), shard.clone());
                }
            }
        }
        found
    }

    async fn chosen(&self, shards: &Shards) -> Result<Vec<String>, Failure> {
        if let Some(names) = &shards.shards {
            return Ok(names.split(',').map(|n| n.trim().to_owned()).collect());
        }
        let mut names = Vec::new();
        for addr in &self.addrs {
            let Ok(page) = get(addr, "/cluster").await else {
                continue;
            };
            let page: Value = serde_json::from_str(&page).unwrap_or_default();
            for shard in list(&page, "shards") {
                let name = shard["name"].as_str().unwrap_or_default().to_owned();
                if !names.contains(&name) {
                    names.push(name);
                }
            }
        }
        match names.is_empty() {
            true => Err("no node of --http has a shard".into()),
            false => Ok(names),
        }
    }

    /// The shard as its leader shows it.
    async fn shard(&self, name: &str) -> Result<Value, Failure> {
        let until = Instant::now() + MOVE_WITHIN;
        loop {
            if let Some(shard) = self.shards().await.remove(name) {
                return Ok(shard);
            }
            if Instant::now() > until {
                return Err(format!("no node of --http leads {name}"));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn let_in(&self, node: u64, peer: Option<&str>) -> Result<(), Failure> {
        if let Some(addr) = peer {
            let text = self
                .ask(&json!({"op": "node", "id": node, "addr": addr}))
                .await?;
            print_line(&format!("node {node}: {text}"))?;
        }
        Ok(())
    }

    /// Makes the node a learner of the shard and waits until it holds the log.
    async fn fill(&self, name: &str, node: u64, within: u64) -> Result<(), Failure> {
        let shard = self.shard(name).await?;
        if !names(&shard, "voters", node) && !names(&shard, "learners", node) {
            let ask = json!({"op": "members", "shard": name, "learners": [node]});
            print_line(&format!("{name}: {}", self.ask(&ask).await?))?;
        }
        let until = Instant::now() + Duration::from_secs(within);
        let mut told = Instant::now();
        loop {
            let shard = self.shard(name).await?;
            let seen = list(&shard, "replicas").iter();
            let seen = seen
                .filter(|r| number(r, "node") == node)
                .collect::<Vec<_>>();
            if let Some(replica) = seen.first() {
                let behind = number(replica, "lag_entries");
                let level = replica["active"] == true && replica["snapshot"] != true;
                if level && behind <= CLOSE && number(replica, "matched") > 0 {
                    return print_line(&format!("{name}: node {node} holds the log"));
                }
                if told.elapsed() >= TELL {
                    told = Instant::now();
                    print_line(&format!("{name}: node {node} is {behind} entries behind"))?;
                }
            }
            if Instant::now() > until {
                return Err(format!(
                    "{name}: node {node} does not hold the log after {within} s; it stays a learner"
                ));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Moves the lead of a shard away from a node.
    async fn away(&self, name: &str, node: u64) -> Result<(), Failure> {
        let until = Instant::now() + MOVE_WITHIN;
        // One that leads only just has not heard of the others yet.
        let to = loop {
            let shard = self.shard(name).await?;
            if number(&shard, "leader") != node {
                return Ok(());
            }
            let others = list(&shard, "replicas").iter();
            let best = others
                .filter(|r| r["voter"] == true && r["active"] == true && number(r, "node") != node)
                .max_by_key(|r| number(r, "matched"))
                .map(|r| number(r, "node"));
            match best {
                Some(to) => break to,
                None if Instant::now() > until => {
                    return Err(format!("{name}: no other node can lead"));
                }
                None => tokio::time::sleep(LOOK).await,
            }
        };
        let ask = json!({"op": "transfer", "shard": name, "to": to});
        print_line(&self.ask(&ask).await?)?;
        let until = Instant::now() + MOVE_WITHIN;
        while number(&self.shard(name).await?, "leader") == node {
            if Instant::now() > until {
                return Err(format!("{name}: the lead stays on node {node}"));
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// Changes members where the node to leave leads no longer.
    async fn change(&self, name: &str, leaves: u64, ask: &Value) -> Result<(), Failure> {
        // The preferred node may take the lead back in between.
        let mut error = String::new();
        for _ in 0..5 {
            self.away(name, leaves).await?;
            match self.ask(ask).await {
                Ok(text) => return print_line(&format!("{name}: {text}")),
                Err(why) => error = why,
            }
            tokio::time::sleep(LOOK).await;
        }
        Err(format!("{name}: {error}"))
    }
}

/// The list `key` of the shard names the node.
fn names(shard: &Value, key: &str, node: u64) -> bool {
    list(shard, key).iter().any(|n| n.as_u64() == Some(node))
}

pub(super) async fn add(args: Add) -> Result<(), Failure> {
    let operator = Operator::new(&args.nodes)?;
    operator.check().await?;
    operator.let_in(args.node, args.peer.as_deref()).await?;
    for name in operator.chosen(&args.shards).await? {
        if names(&operator.shard(&name).await?, "voters", args.node) {
            print_line(&format!("{name}: node {} has a vote already", args.node))?;
            continue;
        }
        operator.fill(&name, args.node, args.within).await?;
        if !args.learner {
            let ask = json!({"op": "members", "shard": name, "voters": [args.node]});
            print_line(&format!("{name}: {}", operator.ask(&ask).await?))?;
        }
    }
    Ok(())
}

pub(super) async fn remove(args: Remove) -> Result<(), Failure> {
    let operator = Operator::new(&args.nodes)?;
    operator.check().await?;
    let mut had_part = false;
    for name in operator.chosen(&args.shards).await? {
        let shard = operator.shard(&name).await?;
        if !names(&shard, "voters", args.node) && !names(&shard, "learners", args.node) {
            continue;
        }
        let ask = json!({"op": "members", "shard": name, "remove": [args.node]});
        operator.change(&name, args.node, &ask).await?;
        had_part = true;
    }
    match had_part {
        true => print_line(&format!("node {} may be stopped now", args.node)),
        false => print_line(&format!("node {} has no part in a shard", args.node)),
    }
}

pub(super) async fn replace(args: Replace) -> Result<(), Failure> {
    let operator = Operator::new(&args.nodes)?;
    operator.check().await?;
    operator.let_in(args.with, args.peer.as_deref()).await?;
    for name in operator.chosen(&args.shards).await? {
        let shard = operator.shard(&name).await?;
        let voter = names(&shard, "voters", args.node);
        if !voter && !names(&shard, "learners", args.node) {
            continue;
        }
        operator.fill(&name, args.with, args.within).await?;
        // One change for both: the number of votes stays as it was.
        let ask = match voter {
            true => {
                json!({"op": "members", "shard": name, "voters": [args.with], "remove": [args.node]})
            }
            false => json!({"op": "members", "shard": name, "remove": [args.node]}),
        };
        operator.change(&name, args.node, &ask).await?;
    }
    print_line(&format!(
        "node {} has taken the place of node {}, which may be stopped now",
        args.with, args.node
    ))
}

pub(super) async fn transfer(args: Transfer) -> Result<(), Failure> {
    let operator = Operator::new(&args.nodes)?;
    operator.check().await?;
    let ask = json!({"op": "transfer", "shard": args.shard, "to": args.to});
    print_line(&operator.ask(&ask).await?)
}

pub(super) async fn form(args: Form) -> Result<(), Failure> {
    let operator = Operator::new(&args.nodes)?;
    if operator.addrs.len() != 1 {
        return Err("--http must name the one node that has the replica".into());
    }
    let ask = json!({"op": "form", "shard": args.shard});
    print_line(&operator.ask(&ask).await?)
}

/// Where each shard's lead should be: its preferred node, or else the one with the fewest.
fn plan(shards: &BTreeMap<String, Value>) -> Vec<(String, u64)> {
    let mut load: BTreeMap<u64, usize> = BTreeMap::new();
    let mut moves = Vec::new();
    let mut free = Vec::new();
    let can = |shard: &Value, node: u64| {
        number(shard, "leader") == node
            || list(shard, "replicas").iter().any(|r| {
                number(r, "node") == node
                    && r["voter"] == true
                    && r["active"] == true
                    && r["snapshot"] != true
            })
    };
    for (name, shard) in shards {
        match shard["preferred"].as_u64().filter(|p| can(shard, *p)) {
            Some(preferred) => {
                *load.entry(preferred).or_default() += 1;
                moves.push((name, shard, preferred));
            }
            None => free.push((name, shard)),
        }
    }
    for (name, shard) in free {
        let voters = list(shard, "voters").iter().filter_map(Value::as_u64);
        let fit = voters.filter(|v| can(shard, *v));
        let leader = number(shard, "leader");
        let least = fit.min_by_key(|v| (load.get(v).copied().unwrap_or(0), *v != leader));
        let to = least.unwrap_or(leader);
        *load.entry(to).or_default() += 1;
        moves.push((name, shard, to));
    }
    let moves = moves.into_iter();
    let needed = moves.filter(|(_, shard, to)| number(shard, "leader") != *to);
    needed.map(|(name, _, to)| (name.clone(), to)).collect()
}

pub(super) async fn rebalance(args: Rebalance) -> Result<(), Failure> {
    let operator = Operator::new(&args.nodes)?;
    operator.check().await?;
    let moves = plan(&operator.shards().await);
    if moves.is_empty() {
        return print_line("every lead is where it should be");
    }
    for (shard, to) in moves {
        let ask = json!({"op": "transfer", "shard": shard, "to": to});
        print_line(&operator.ask(&ask).await?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leads_go_to_preferred_nodes_and_the_rest_is_spread() {
        let replica = |node: u64| json!({"node": node, "voter": true, "active": true});
        let shard = |leader: u64, preferred: u64, voters: &[u64]| {
            let replicas: Vec<Value> = voters.iter().map(|v| replica(*v)).collect();
            json!({"leader": leader, "preferred": preferred, "voters": voters, "replicas": replicas})
        };
        let shards = BTreeMap::from([
            ("a".to_owned(), shard(2, 1, &[1, 2, 3])),
            ("b".to_owned(), shard(2, 2, &[1, 2, 3])),
            // Its preferred node has no part in it any more.
            ("c".to_owned(), shard(2, 9, &[1, 2, 3])),
        ]);
        let moves = plan(&shards);
        assert_eq!(moves, [("a".to_owned(), 1), ("c".to_owned(), 3)]);
        let mut silent = shards.clone();
        silent.get_mut("a").unwrap()["replicas"][0]["active"] = json!(false);
        assert!(!plan(&silent).contains(&("a".to_owned(), 1)));
        assert!(plan(&BTreeMap::new()).is_empty());
    }
}
