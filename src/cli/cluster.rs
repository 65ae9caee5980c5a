//! `troupe cluster`: try one out on this machine, look at one.

use super::server::ServerArgs;
use super::{operate, print_line, text, Failure};
use clap::{Args, Subcommand};
use serde_json::Value;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longest a page may be.
const MAX_PAGE: u64 = 4 << 20;
/// Longest a node may take to stop.
const STOP_WITHIN: Duration = Duration::from_secs(10);

#[derive(Debug, Subcommand)]
pub(super) enum ClusterCommand {
    /// Run three nodes on loopback, for trying out; they end with this command
    Demo(Demo),
    /// Show nodes, shards, who leads, and how far the replicas are
    Show(Show),
    /// Give a node a replica of each shard
    Add(operate::Add),
    /// Take a node's replicas away
    Remove(operate::Remove),
    /// Put one node in the place of another, also of one that is lost
    Replace(operate::Replace),
    /// Hand the lead of a shard to a node
    Transfer(operate::Transfer),
    /// Hand the lead of every shard to its preferred node, or spread it
    Rebalance(operate::Rebalance),
    /// When a majority of replicas is lost for good: make this stopped node the only member
    Rescue(Rescue),
}

#[derive(Debug, Args)]
pub(super) struct Demo {
    /// Directory of the three nodes' data and logs
    #[arg(long, value_name = "DIR", default_value = "./data/demo")]
    data_dir: PathBuf,
    /// Set any key of config/reference.toml on every node. May be repeated
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = text::pair)]
    set: Vec<(String, String)>,
}

#[derive(Debug, Args)]
pub(super) struct Show {
    /// HTTP ports of nodes, as host:port,host:port; those that do not answer are named
    #[arg(long, value_name = "ADDRS", default_value = "127.0.0.1:8080")]
    http: String,
    /// Print what the nodes answer, one JSON object a line
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Rescue {
    #[command(flatten)]
    server: ServerArgs,
    /// Do it: what this node does not hold is lost, and the others must never come back with their
    /// old data. Without it, only say what is there
    #[arg(long)]
    accept_loss: bool,
}

fn rescue(args: Rescue) -> Result<(), Failure> {
    let (config, _) = args.server.load()?;
    let found =
        crate::node::rescue::rescue(&config, args.accept_loss).map_err(|e| e.to_string())?;
    for shard in found {
        let (index, term) = shard.last;
        print_line(&format!(
            "{}: log up to {index} of term {term}, known to be committed up to {}; voters {:?}, learners {:?}{}{}",
            shard.name,
            shard.committed,
            shard.voters,
            shard.learners,
            match shard.pending_change {
                true if shard.rescued => "; a change of members at the end of the log is dropped",
                true => "; a change of members at the end of the log will still be made",
                false => "",
            },
            match (shard.rescued, args.accept_loss) {
                (true, _) => format!("; node {} is the only member now", config.node_id),
                (false, true) => "; no replica here, left as it is".to_owned(),
                (false, false) => String::new(),
            }
        ))?;
    }
    if !args.accept_loss {
        print_line("Nothing was changed. Among several nodes that are left take the one whose log goes furthest, by term first.")?;
    }
    Ok(())
}

pub(super) async fn run(command: ClusterCommand) -> Result<(), Failure> {
    match command {
        ClusterCommand::Demo(args) => demo(args).await,
        ClusterCommand::Show(args) => show(args).await,
        ClusterCommand::Add(args) => operate::add(args).await,
        ClusterCommand::Remove(args) => operate::remove(args).await,
        ClusterCommand::Replace(args) => operate::replace(args).await,
        ClusterCommand::Transfer(args) => operate::transfer(args).await,
        ClusterCommand::Rebalance(args) => operate::rebalance(args).await,
        ClusterCommand::Rescue(args) => rescue(args),
    }
}

/// First of a node's ports; the others follow.
fn base(node: u16) -> u16 {
    9_911 + node * 1_000
}

fn demo_sets(node: u16) -> Vec<String> {
    let all = |of: &dyn Fn(u16) -> String| (1..=3).map(of).collect::<Vec<_>>().join(";");
    vec![
        "cluster_id=troupe-demo".to_owned(),
        format!("node_id={node}"),
        format!(
            "peers={}",
            all(&|n| format!("{n}=127.0.0.1:{}", base(n) + 1))
        ),
        format!(
            "namesrv_addr={}",
            all(&|n| format!("127.0.0.1:{}", 9_875 + n))
        ),
        format!("listen_port={}", base(node)),
        format!("peer_listen_port={}", base(node) + 1),
        format!("namesrv_listen_port={}", 9_875 + node),
        format!("http_listen_port={}", 8_079 + node),
    ]
}

fn start(args: &Demo, node: u16) -> Result<Node, Failure> {
    let name = format!("node-{node}");
    let file = |end: &str| {
        let path = args.data_dir.join(format!("{name}.{end}"));
        std::fs::File::create(&path).map_err(|e| format!("{}: {e}", path.display()))
    };
    let program = std::env::current_exe().map_err(|e| format!("cannot find this program: {e}"))?;
    let mut command = Command::new(program);
    command
        .arg("server")
        .arg("--data-dir")
        .arg(args.data_dir.join(&name));
    let given = args.set.iter().map(|(key, value)| format!("{key}={value}"));
    for set in demo_sets(node).into_iter().chain(given) {
        command.arg("--set").arg(set);
    }
    command
        .stdin(Stdio::null())
        .stdout(file("out")?)
        .stderr(file("log")?)
        // Ctrl-C is for this command, which then stops the nodes in order.
        .process_group(0)
        .spawn()
        .map(Node)
        .map_err(|e| format!("cannot start {name}: {e}"))
}

/// A node's process; it ends with this one.
struct Node(Child);

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn demo(args: Demo) -> Result<(), Failure> {
    use tokio::signal::unix::{signal, SignalKind};
    let failed = |e: std::io::Error| format!("cannot wait for signals: {e}");
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    std::fs::create_dir_all(&args.data_dir)
        .map_err(|e| format!("{}: {e}", args.data_dir.display()))?;
    let mut nodes = Vec::new();
    for node in 1..=3 {
        nodes.push((node, start(&args, node)?));
    }
    let mut ready = 0;
    let mut told = false;
    let why = loop {
        for (node, child) in &mut nodes {
            if let Ok(Some(status)) = child.0.try_wait() {
                let log = args.data_dir.join(format!("node-{node}.log"));
                let log = std::fs::read_to_string(log).unwrap_or_default();
                let last = log.lines().last().unwrap_or("it said nothing");
                let why = format!("node {node} ended ({status}): {last}");
                stop(nodes).await;
                return Err(why);
            }
        }
        if !told {
            ready = 0;
            for node in 1..=3 {
                let page = get(&format!("127.0.0.1:{}", 8_079 + node), "/health/ready").await;
                ready += u32::from(page.is_ok());
            }
        }
        if ready == 3 && !told {
            told = true;
            print_line("three nodes are ready")?;
            print_line("name servers  127.0.0.1:9876;127.0.0.1:9877;127.0.0.1:9878")?;
            print_line("look at it    troupe cluster show --http 127.0.0.1:8080,127.0.0.1:8081,127.0.0.1:8082")?;
            print_line("send          troupe message send TopicTest hello")?;
            print_line(&format!("data and logs {}", args.data_dir.display()))?;
            for (node, child) in &nodes {
                print_line(&format!("node {node}        process {}", child.0.id()))?;
            }
        }
        tokio::select! {
            _ = terminate.recv() => break "stopping",
            _ = interrupt.recv() => break "stopping",
            () = tokio::time::sleep(Duration::from_millis(200)) => {}
        }
    };
    print_line(why)?;
    stop(nodes).await;
    Ok(())
}

/// Asks every node to stop, and ends those that do not.
async fn stop(nodes: Vec<(u16, Node)>) {
    for (_, node) in &nodes {
        if let Ok(id) = libc::pid_t::try_from(node.0.id()) {
            // SAFETY: the child was not waited for since it last ran, so the id is its own.
            unsafe { libc::kill(id, libc::SIGTERM) };
        }
    }
    let until = Instant::now() + STOP_WITHIN;
    for (_, mut node) in nodes {
        while matches!(node.0.try_wait(), Ok(None)) && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// The body of a page that answers with success.
pub(super) async fn get(addr: &str, path: &str) -> Result<String, Failure> {
    let request = format!("GET {path} HTTP/1.1\r\nhost: {addr}\r\nconnection: close\r\n\r\n");
    http(addr, &request, Duration::from_secs(3)).await
}

/// Sends a request and gives the body of an answer of success.
pub(super) async fn http(addr: &str, request: &str, within: Duration) -> Result<String, Failure> {
    let work = async {
        let mut stream = TcpStream::connect(addr).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut text = Vec::new();
        stream.take(MAX_PAGE).read_to_end(&mut text).await?;
        Ok::<_, std::io::Error>(text)
    };
    let text = tokio::time::timeout(within, work)
        .await
        .map_err(|_| "no answer in time".to_owned())?
        .map_err(|e| e.to_string())?;
    let text = String::from_utf8_lossy(&text);
    let (head, body) = text
        .split_once("\r\n\r\n")
        .ok_or("it does not speak HTTP")?;
    let status = head.lines().next().unwrap_or_default();
    match status.split_whitespace().nth(1) {
        Some("200") => Ok(body.to_owned()),
        _ => Err(format!("{status}: {}", body.trim())),
    }
}

async fn show(args: Show) -> Result<(), Failure> {
    let mut pages = Vec::new();
    let mut first_error = None;
    for addr in args.http.split([',', ';']).map(str::trim) {
        let page = get(addr, "/cluster").await;
        let page = page.and_then(|text| {
            serde_json::from_str::<Value>(&text).map_err(|e| format!("a strange answer: {e}"))
        });
        match page {
            Ok(page) if args.json => print_line(&page.to_string())?,
            Ok(page) => pages.push(page),
            Err(why) => {
                let why = format!("{addr}: {why}");
                print_line(&crate::telemetry::escape_all(&why))?;
                first_error.get_or_insert(why);
            }
        }
    }
    for line in lines(&pages) {
        print_line(&crate::telemetry::escape_all(&line))?;
    }
    match first_error {
        Some(why) if pages.is_empty() && !args.json => Err(why),
        _ => Ok(()),
    }
}

pub(super) fn number(value: &Value, key: &str) -> u64 {
    value[key].as_u64().unwrap_or_default()
}

pub(super) fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

/// What a node's own replicas went through.
fn told_by(page: &Value) -> Vec<String> {
    let mut out = Vec::new();
    for shard in list(page, "shards") {
        let name = shard["name"].as_str().unwrap_or("?");
        let mut say = |what: String| {
            let node = number(page, "node_id");
            out.push(format!("node {node}, {name}: {what}"));
        };
        if shard["recovering"] == true {
            say("RECOVERING, does not vote before it holds all again".into());
        }
        let losses = &shard["losses"];
        if number(losses, "unclean_recoveries") > 0 {
            let kept = number(losses, "unclean_kept");
            say(match losses["unclean_last_lost"].as_u64() {
                Some(last) => format!("UNCLEAN RECOVERY, lost {} to {last}", kept + 1),
                None => format!("UNCLEAN RECOVERY, entries behind {kept} may be lost"),
            });
        }
        match number(losses, "acked_truncated_entries") {
            0 => {}
            entries => say(format!(
                "LOST TO ANOTHER LEADER: {entries} entries acknowledged here, {} messages, up to {}",
                number(losses, "acked_truncated_messages"),
                number(losses, "acked_truncated_last")
            )),
        }
    }
    out
}

/// What the pages of several nodes say, each shard by the node that leads it when that answered.
fn lines(pages: &[Value]) -> Vec<String> {
    let mut out = Vec::new();
    for page in pages {
        let up = |node: &Value| match &node["link"] {
            Value::Null => format!("{} here", number(node, "id")),
            link if link["outgoing"] == true && link["incoming"] == true => {
                format!("{} up", number(node, "id"))
            }
            _ => format!("{} DOWN", number(node, "id")),
        };
        let links: Vec<String> = list(page, "nodes").iter().map(up).collect();
        out.push(format!(
            "node {} of cluster {}  links: {}",
            number(page, "node_id"),
            page["cluster_id"].as_str().unwrap_or("?"),
            links.join(", ")
        ));
    }
    let mut shards: Vec<(u64, &Value)> = Vec::new();
    for page in pages {
        for shard in list(page, "shards") {
            let leads = shard["serving"] == true;
            let same = |known: &&mut (u64, &Value)| known.1["id"] == shard["id"];
            match shards.iter_mut().find(same) {
                Some(known) if leads || number(shard, "term") > number(known.1, "term") => {
                    *known = (number(page, "node_id"), shard)
                }
                Some(_) => {}
                None => shards.push((number(page, "node_id"), shard)),
            }
        }
    }
    out.extend(pages.iter().flat_map(told_by));
    shards.sort_by_key(|(_, shard)| number(shard, "id"));
    for (node, shard) in shards {
        let leader = match number(shard, "leader") {
            0 => "no leader".to_owned(),
            leader => format!("leader {leader}"),
        };
        let preferred = match shard["preferred"].as_u64() {
            Some(p) if p != number(shard, "leader") => format!(" (preferred {p})"),
            _ => String::new(),
        };
        out.push(format!(
            "shard {}  {leader}{preferred}  term {}  committed {}  applied {}  seen by node {node}",
            shard["name"].as_str().unwrap_or("?"),
            number(shard, "term"),
            number(shard, "committed"),
            number(shard, "applied"),
        ));
        if let Some(why) = shard["failed"].as_str() {
            out.push(format!("  FAILED: {why}"));
        }
        for replica in list(shard, "replicas") {
            if number(replica, "node") == number(shard, "leader") {
                continue;
            }
            let state = match (replica["active"] == true, replica["snapshot"] == true) {
                (_, true) => match (
                    number(replica, "snapshot_sent"),
                    number(replica, "snapshot_bytes"),
                ) {
                    (_, 0) => "waits for a snapshot".to_owned(),
                    (sent, of) => format!("holds {sent} of {of} bytes of a snapshot"),
                },
                (true, _) => "active".to_owned(),
                (false, _) => "SILENT".to_owned(),
            };
            let behind = match number(replica, "lag_entries") {
                0 => "level".to_owned(),
                entries => format!(
                    "{entries} entries (about {} bytes) behind, level {} ms ago",
                    number(replica, "lag_bytes"),
                    replica["lag_ms"]
                        .as_u64()
                        .map_or("?".to_owned(), |ms| ms.to_string())
                ),
            };
            let part = if replica["voter"] == true {
                ""
            } else {
                "  learner"
            };
            out.push(format!(
                "  replica on node {}{part}  {state}  {behind}",
                number(replica, "node"),
            ));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use serde_json::json;

    #[test]
    fn the_demo_is_a_valid_cluster() {
        for node in 1..=3 {
            let sets = demo_sets(node);
            let flags: Vec<(String, String)> = sets
                .iter()
                .filter_map(|s| s.split_once('='))
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .collect();
            let config = Config::load(None, [], &flags).unwrap().config;
            assert_eq!(config.cluster().unwrap().shards.len(), 3);
        }
    }

    #[test]
    fn each_shard_is_shown_by_its_leader() {
        let shard = |serving: bool, replicas: Value| {
            json!({"id": 1, "name": "broker-a", "leader": 2, "term": 5, "serving": serving,
                   "preferred": 1, "committed": 9, "applied": 8, "replicas": replicas})
        };
        let other = json!([{"node": 1, "active": false, "snapshot": false, "lag_entries": 7,
                            "lag_bytes": 70, "voter": true},
                           {"node": 4, "active": true, "snapshot": true, "lag_entries": 7,
                            "snapshot_sent": 3, "snapshot_bytes": 9},
                           {"node": 2, "active": true, "snapshot": false, "lag_entries": 0}]);
        let lost = json!({"unclean_recoveries": 1, "unclean_kept": 5, "unclean_last_lost": 9,
                          "acked_truncated_entries": 2, "acked_truncated_messages": 3,
                          "acked_truncated_last": 8});
        let page = |node: u64, mut shard: Value| {
            if node == 2 {
                shard["losses"] = lost.clone();
                shard["recovering"] = true.into();
            }
            json!({"node_id": node, "cluster_id": "c", "shards": [shard],
                   "nodes": [{"id": node, "link": null},
                             {"id": 3, "link": {"outgoing": true, "incoming": false}}]})
        };
        let pages = [
            page(1, shard(false, json!([]))),
            page(2, shard(true, other)),
        ];
        let text = lines(&pages).join("\n");
        assert!(text.contains("links: 1 here, 3 DOWN"), "{text}");
        assert!(text.contains("leader 2 (preferred 1)  term 5"), "{text}");
        assert!(text.contains("seen by node 2"), "{text}");
        assert!(
            text.contains("node 1  SILENT  7 entries (about 70 bytes) behind, level ? ms ago"),
            "{text}"
        );
        assert_eq!(text.matches("shard broker-a").count(), 1);
        for said in [
            "node 2, broker-a: RECOVERING",
            "node 2, broker-a: UNCLEAN RECOVERY, lost 6 to 9",
            "2 entries acknowledged here, 3 messages, up to 8",
            "node 4  learner  holds 3 of 9 bytes of a snapshot",
        ] {
            assert!(text.contains(said), "{text}");
        }
        assert_eq!(text.matches("replica on").count(), 2);
    }
}
