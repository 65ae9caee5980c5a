//! Arguments that several benches share.

use super::body::MIN_SIZE;
use crate::cli::Cluster;
use clap::{Args, ValueEnum};
use std::time::Duration;

/// What every bench prints and watches.
#[derive(Clone, Debug, Args)]
pub(super) struct Report {
    /// Print one JSON object on standard output and nothing else
    #[arg(long)]
    pub json: bool,
    /// Process whose CPU time and memory are told, the broker's; may be repeated
    #[arg(long = "pid", value_name = "PID")]
    pub pids: Vec<u32>,
    /// How long to wait for the cluster to come up first, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 0.0, value_parser = seconds)]
    pub wait: f64,
}

/// How request headers are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Headers {
    /// JSON, as clients do unless told otherwise
    Json,
    /// RocketMQ's binary form
    Binary,
}

/// Which topics.
#[derive(Clone, Debug, Args)]
pub(super) struct Topics {
    /// Topic, or the start of the names of several; created when missing
    #[arg(long, default_value = "troupe-bench")]
    pub topic: String,
    /// Number of topics; above 1 their names end in -0, -1, …
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub topics: u32,
    /// Queues of a topic that has to be created, on each broker
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub queues: u32,
}

impl Topics {
    /// The topics' names.
    pub(super) fn names(&self) -> Vec<String> {
        match self.topics {
            1 => vec![self.topic.clone()],
            n => (0..n).map(|i| format!("{}-{i}", self.topic)).collect(),
        }
    }
}

/// What is sent, and how.
#[derive(Clone, Debug, Args)]
pub(super) struct Message {
    /// Bytes of a body, at least 40
    #[arg(long, default_value_t = 1_024, value_parser = clap::value_parser!(u32).range(MIN_SIZE as i64..=4 << 20))]
    pub size: u32,
    /// Messages in a request; above 1 they go as a batch (code 320)
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_024))]
    pub batch: u32,
    /// Form of the request headers
    #[arg(long, value_enum, default_value_t = Headers::Json)]
    pub headers: Headers,
    /// Request code: 310 as Java clients, 10 as Go clients
    #[arg(long, default_value_t = 310, value_parser = send_code)]
    pub code: i32,
    /// Producer group
    #[arg(long, default_value = "troupe-bench-producer", value_parser = group)]
    pub producer_group: String,
    /// How often a message is sent again before it counts as failed
    #[arg(long, default_value_t = 2)]
    pub retries: u16,
}

/// How much is sent, and for how long.
#[derive(Clone, Debug, Args)]
pub(super) struct Load {
    /// Connections
    #[arg(long, short = 'c', default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=60_000))]
    pub connections: u16,
    /// Requests of a connection that may wait for their answers; at a fixed rate only a bound
    /// [default: 64, at a fixed rate 65536]
    #[arg(long, short = 'w', value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub window: Option<u32>,
    /// Messages a second in all, with latencies from the time each was due; without it a request
    /// follows each answer
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub rate: Option<u64>,
    /// Seconds to measure [default: 10, unless --messages is given]
    #[arg(long, short = 'd', value_parser = seconds)]
    pub duration: Option<f64>,
    /// Seconds of the same load before
    #[arg(long, default_value_t = 0.0, value_parser = seconds)]
    pub warmup: f64,
    /// Stop after this many measured messages
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub messages: Option<u64>,
}

impl Load {
    /// Requests under way on a connection.
    pub(super) fn window(&self) -> usize {
        let default = if self.rate.is_some() { 65_536 } else { 64 };
        self.window.unwrap_or(default) as usize
    }

    /// How long to measure at most.
    pub(super) fn duration(&self) -> Option<Duration> {
        match (self.duration, self.messages) {
            (Some(s), _) => Some(Duration::from_secs_f64(s)),
            (None, Some(_)) => None,
            (None, None) => Some(Duration::from_secs(10)),
        }
    }
}

/// The cluster and what is printed.
#[derive(Clone, Debug, Args)]
pub(super) struct Common {
    #[command(flatten)]
    pub cluster: Cluster,
    #[command(flatten)]
    pub report: Report,
}

/// A number of seconds, fractions allowed.
pub(super) fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(s) if (0.0..=1e7).contains(&s) => Ok(s),
        _ => Err("expected a number of seconds".to_owned()),
    }
}

/// The name of a group.
pub(super) fn group(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-%|".contains(c);
    if text.is_empty() || text.len() > 120 || !text.chars().all(plain) {
        return Err("expected up to 120 letters, digits and _ - % |".to_owned());
    }
    Ok(text.to_owned())
}

fn send_code(text: &str) -> Result<i32, String> {
    match text {
        "310" => Ok(310),
        "10" => Ok(10),
        _ => Err("expected 310 or 10".to_owned()),
    }
}
