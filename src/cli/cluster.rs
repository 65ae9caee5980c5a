//! `troupe cluster`: try one out on this machine, look at one.

use super::server::ServerArgs;
use super::show::{self, get, Show};
use super::{operate, print_line, scrub, text, Failure};
use clap::{Args, Subcommand};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

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
    /// Say that a shard's only replica is on the one node asked: where it waits for others in vain
    Form(operate::Form),
    /// Read the stored logs of all nodes at once, and mend what is corrupt from other replicas
    Scrub(scrub::Scrub),
    /// When a majority of replicas is lost for good: make this stopped node the only member. When a single node's
    /// data are damaged: keep what can be read
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
pub(super) struct Rescue {
    #[command(flatten)]
    server: ServerArgs,
    /// Do it: what this node does not hold is lost, and the others must never come back with their
    /// old data. A single node loses what cannot be read, and all behind it. Without this, only say
    /// what is there
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
                (true, _) if !config.is_cluster() => "; it goes on from there".to_owned(),
                (true, _) => format!("; node {} is the only member now", config.node_id),
                (false, true) => "; no replica here, left as it is".to_owned(),
                (false, false) => String::new(),
            }
        ))?;
        if let Some((reached, why)) = &shard.damage {
            let text = format!(
                "{}: DAMAGED, the log reached {reached} at least: {why}",
                shard.name
            );
            print_line(&crate::telemetry::escape_all(&text))?;
        }
    }
    if !args.accept_loss && !config.is_cluster() {
        print_line(
            "Nothing was changed. With --accept-loss the node starts with what is there now.",
        )?;
    } else if !args.accept_loss {
        print_line("Nothing was changed. Among several nodes that are left take the one whose log goes furthest, by term first.")?;
    }
    Ok(())
}

pub(super) async fn run(command: ClusterCommand) -> Result<(), Failure> {
    match command {
        ClusterCommand::Demo(args) => demo(args).await,
        ClusterCommand::Show(args) => show::show(args).await,
        ClusterCommand::Add(args) => operate::add(args).await,
        ClusterCommand::Remove(args) => operate::remove(args).await,
        ClusterCommand::Replace(args) => operate::replace(args).await,
        ClusterCommand::Transfer(args) => operate::transfer(args).await,
        ClusterCommand::Rebalance(args) => operate::rebalance(args).await,
        ClusterCommand::Form(args) => operate::form(args).await,
        ClusterCommand::Scrub(args) => scrub::scrub(args).await,
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
#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

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
}
