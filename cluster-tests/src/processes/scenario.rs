//! Scenarios: a fault on the node that leads a shard, again for each shard, under load.

use super::check::{check, Stored, Verdict};
use super::load::{id_of, Ledger, Load, QUEUES, TOPIC};
use super::nodes::{Nodes, Signal, SHARDS};
use std::path::Path;
use std::time::{Duration, Instant};
use troupemq::client::{Client, ClientError};

/// What happens to a leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// `kill -9`, and a start 1 s later.
    KillLeader,
    /// Stopped for 3 s by SIGSTOP: nothing closes.
    PauseLeader,
    /// SIGTERM and a start, one node after the other.
    RollingRestart,
}

impl Fault {
    pub const ALL: [Fault; 3] = [Fault::KillLeader, Fault::PauseLeader, Fault::RollingRestart];

    /// Its name in reports and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Fault::KillLeader => "kill-leader",
            Fault::PauseLeader => "pause-leader",
            Fault::RollingRestart => "rolling-restart",
        }
    }

    /// Longest time without an acknowledgement that passes. Wider than the figures in
    /// `docs/performance.md`, which are measured on a quiet machine.
    fn limit(self) -> Duration {
        match self {
            Fault::KillLeader => Duration::from_secs(4),
            Fault::PauseLeader => Duration::from_secs(6),
            Fault::RollingRestart => Duration::from_secs(3),
        }
    }
}

/// The outcome of a scenario.
#[derive(Debug)]
pub struct Report {
    pub fault: Fault,
    pub verdict: Verdict,
    /// Longest time without an acknowledgement after each fault.
    pub gaps: Vec<Duration>,
    pub failed_sends: usize,
    pub retried: u64,
    /// Nodes that did not end well.
    pub bad_ends: usize,
}

impl Report {
    pub fn passed(&self) -> bool {
        let slow = self.gaps.iter().any(|gap| *gap > self.fault.limit());
        self.verdict.passed() && self.failed_sends == 0 && self.bad_ends == 0 && !slow
    }

    /// A row of the report.
    pub fn row(&self) -> String {
        let ms: Vec<String> = self
            .gaps
            .iter()
            .map(|g| g.as_millis().to_string())
            .collect();
        format!(
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            self.fault.name(),
            self.verdict.acked,
            self.verdict.lost.len(),
            self.verdict.duplicated,
            self.verdict.reordered,
            self.failed_sends,
            self.retried,
            ms.join(" "),
            if self.passed() { "passed" } else { "FAILED" }
        )
    }

    /// The head of the report.
    pub const HEAD: &'static str =
        "| scenario | acked | lost | duplicated | reordered | failed sends | retried | ms without an ack | verdict |\n\
         |---|---|---|---|---|---|---|---|---|";
}

/// Runs one scenario with data below `dir`.
pub async fn run(
    binary: &Path,
    dir: &Path,
    fault: Fault,
    sets: &[String],
) -> Result<Report, String> {
    let io = |e: std::io::Error| e.to_string();
    let mut nodes = Nodes::new(binary, dir, sets).map_err(io)?;
    for node in 0..3 {
        nodes.start(node).map_err(io)?;
    }
    nodes.ready(Duration::from_secs(20))?;
    let admin = Client::new(nodes.name_servers(), Duration::from_secs(3));
    for shard in 0..SHARDS.len() {
        // By any replica: it hands the request to the leader.
        retry(|| async {
            let node = nodes.replica((shard + 1) % 3, shard);
            admin.create_topic(&node, TOPIC, QUEUES as u32, 6).await
        })
        .await?;
    }
    wait_for_route(&admin).await?;
    let load = Load::start(&nodes.name_servers(), 6);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut faults = Vec::new();
    let mut bad_ends = 0;
    for shard in 0..SHARDS.len() {
        let before = load.acked();
        let node = match fault {
            Fault::RollingRestart => shard,
            _ => leader_of(&admin, &nodes, shard).await?,
        };
        let at = Instant::now();
        match fault {
            Fault::KillLeader => {
                nodes.signal(node, Signal::Kill);
                let _ = nodes.wait(node, Duration::from_secs(5));
                tokio::time::sleep(Duration::from_secs(1)).await;
                nodes.start(node).map_err(io)?;
            }
            Fault::PauseLeader => {
                nodes.signal(node, Signal::Stop);
                tokio::time::sleep(Duration::from_secs(3)).await;
                nodes.signal(node, Signal::Continue);
            }
            Fault::RollingRestart => {
                nodes.signal(node, Signal::Terminate);
                let until = Instant::now() + Duration::from_secs(10);
                let ended = loop {
                    if let Some(ended) = nodes.wait(node, Duration::ZERO) {
                        break Some(ended);
                    }
                    if Instant::now() > until {
                        break None;
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                };
                bad_ends += usize::from(ended != Some(true));
                nodes.start(node).map_err(io)?;
            }
        }
        let until = Instant::now() + Duration::from_secs(20);
        while !(0..3).all(|n| nodes.page(n, "/health/ready").is_some()) {
            if Instant::now() > until {
                return Err(format!("node {} did not come back", node + 1));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        // Long enough for leadership to go back to the preferred node.
        tokio::time::sleep(Duration::from_secs(4)).await;
        faults.push((at, Instant::now()));
        if load.acked() == before {
            return Err("nothing was acknowledged after the fault".into());
        }
    }
    let ledger = load.stop().await;
    let stored = read_all(&nodes).await?;
    for why in ledger.failed.iter().take(5) {
        eprintln!("failed send: {why}");
    }
    let verdict = check(&ledger.acked, &stored);
    for lost in verdict.lost.iter().take(5) {
        eprintln!("lost: {lost:?}");
    }
    Ok(Report {
        fault,
        gaps: faults.iter().map(|f| longest_gap(&ledger, *f)).collect(),
        failed_sends: ledger.failed.len(),
        retried: ledger.retried,
        verdict,
        bad_ends,
    })
}

/// The longest time within `from..to` without an acknowledgement on any one shard.
fn longest_gap(ledger: &Ledger, (from, to): (Instant, Instant)) -> Duration {
    let of_shard = |acks: &Vec<Instant>| {
        let mut last = from;
        let mut longest = Duration::ZERO;
        let inside = acks.iter().filter(|at| **at > from && **at < to);
        for at in inside.copied().chain([to]) {
            longest = longest.max(at.duration_since(last));
            last = at;
        }
        longest
    };
    ledger.acks.iter().map(of_shard).max().unwrap_or_default()
}

async fn retry<T, F>(work: impl Fn() -> F) -> Result<T, String>
where
    F: std::future::Future<Output = Result<T, ClientError>>,
{
    let until = Instant::now() + Duration::from_secs(15);
    loop {
        match work().await {
            Ok(done) => return Ok(done),
            Err(error) if Instant::now() > until => return Err(error.to_string()),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn wait_for_route(admin: &Client) -> Result<(), String> {
    let until = Instant::now() + Duration::from_secs(15);
    loop {
        if let Ok(route) = admin.route(TOPIC).await {
            let all = |name: &str| route.broker(name).and_then(|b| b.master()).is_some();
            if SHARDS.iter().all(|name| all(name)) {
                return Ok(());
            }
        }
        if Instant::now() > until {
            return Err("the route does not name all shards' leaders".into());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn leader_of(admin: &Client, nodes: &Nodes, shard: usize) -> Result<usize, String> {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        if let Ok(route) = admin.route(TOPIC).await {
            let master = route.broker(SHARDS[shard]).and_then(|b| b.master());
            if let Some(node) = master.and_then(|m| nodes.node_of(m)) {
                return Ok(node);
            }
        }
        if Instant::now() > until {
            return Err(format!("no leader of {} in the route", SHARDS[shard]));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Reads every queue from its first to its last offset, each shard by another replica.
async fn read_all(nodes: &Nodes) -> Result<Stored, String> {
    let client = Client::new(nodes.name_servers(), Duration::from_secs(5));
    let mut stored = Stored::new();
    for shard in 0..SHARDS.len() {
        for queue in 0..QUEUES {
            let addr = nodes.replica((shard + queue as usize) % 3, shard);
            let first = retry(|| client.min_offset(&addr, TOPIC, queue)).await?;
            let end = retry(|| client.max_offset(&addr, TOPIC, queue)).await?;
            let mut messages = Vec::new();
            let mut next = first;
            while next < end {
                let place = (TOPIC, queue, next);
                let pulled =
                    retry(|| client.pull(&addr, "checker", place, "*", Duration::ZERO)).await?;
                if pulled.messages.is_empty() {
                    return Err(format!("queue {queue} of {addr} ends at {next}, not {end}"));
                }
                for message in pulled.messages {
                    if message.queue_offset != next {
                        let at = message.queue_offset;
                        return Err(format!("offset {at} of {addr} where {next} was due"));
                    }
                    messages.push(id_of(&message.body));
                    next += 1;
                }
            }
            stored.insert((shard, queue), (first, messages));
        }
    }
    Ok(stored)
}
