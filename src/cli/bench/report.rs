//! What a bench prints: one JSON object, or the same for people.

use super::args::Common;
use super::clock;
use super::measure::Measured;
use super::procs::{self, Machine, Process};
use super::stats::{Counts, Percentiles};
use super::topology::Broker;
use crate::cli::{print_line, Failure};
use crate::telemetry::escape_all;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// Under what conditions a result came about.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Conditions {
    /// The command line.
    pub command: String,
    /// Version of this program.
    pub version: &'static str,
    /// When it started, ms since 1970.
    pub started_unix_ms: u64,
    /// The generator's machine.
    pub machine: Machine,
    /// Name servers.
    pub namesrv: String,
    /// Brokers and how many queues of each were used.
    pub brokers: Vec<BrokerLine>,
    /// The protocol does not tell what a broker's acknowledgement stands for.
    pub durability: &'static str,
    /// The options that matter for this bench.
    pub options: BTreeMap<&'static str, Value>,
}

/// A broker of the conditions.
#[derive(Clone, Debug, Serialize)]
pub(super) struct BrokerLine {
    pub name: String,
    pub addr: String,
    pub queues: usize,
}

impl Conditions {
    /// The conditions at the start.
    pub(super) fn new(common: &Common, options: BTreeMap<&'static str, Value>) -> Self {
        let args: Vec<String> = std::env::args().collect();
        Self {
            command: args.join(" "),
            version: env!("CARGO_PKG_VERSION"),
            started_unix_ms: clock::unix_ms(),
            machine: procs::machine(),
            namesrv: common.cluster.namesrv.clone(),
            brokers: Vec::new(),
            durability: "as the broker is configured; the protocol does not tell",
            options,
        }
    }

    pub(super) fn set_brokers(&mut self, brokers: &[Broker]) {
        let line = |b: &Broker| BrokerLine {
            name: b.name.clone(),
            addr: b.addr.clone(),
            queues: b.queues.len(),
        };
        self.brokers = brokers.iter().map(line).collect();
    }

    fn print(&self, bench: &str) -> Result<(), Failure> {
        let machine = &self.machine;
        let mut options = String::new();
        for (name, value) in &self.options {
            options.push_str(&format!(" {name}={value}"));
        }
        say(&format!("bench {bench}:{options}"))?;
        say(&format!(
            "  on {} cores, {} {}, load {:.2} at the start",
            machine.cores, machine.kernel, machine.cpu, machine.load_1m
        ))?;
        for b in &self.brokers {
            say(&format!(
                "  broker {} at {}, {} queues; durability {}",
                b.name, b.addr, b.queues, self.durability
            ))?;
        }
        Ok(())
    }
}

/// The measured time, the same for every bench.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Usage {
    /// Length of the measured time.
    pub seconds: f64,
    /// The generator itself.
    pub generator: Generator,
    /// The processes given with `--pid`.
    pub processes: Vec<Process>,
    /// CPU seconds of all of them.
    pub broker_cpu_s: Option<f64>,
}

/// What the generator used itself.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Generator {
    /// CPU seconds within the measured time.
    pub cpu_s: f64,
    /// CPU microseconds for each message.
    pub us_per_message: Option<f64>,
}

impl Usage {
    /// `messages` were handled in that time.
    pub(super) fn new(measured: &Measured, messages: u64) -> Self {
        let processes = measured.processes.clone();
        let sum: Option<f64> = processes.iter().map(|p| p.cpu_s).sum();
        let per_message = measured.own_cpu_s * 1e6 / messages as f64;
        Self {
            seconds: procs::round(measured.seconds),
            generator: Generator {
                cpu_s: measured.own_cpu_s,
                us_per_message: (messages > 0).then(|| (per_message * 1e3).round() / 1e3),
            },
            broker_cpu_s: sum.filter(|_| !processes.is_empty()).map(procs::round),
            processes,
        }
    }

    /// `count` for each CPU second of the watched processes.
    pub(super) fn per_broker_cpu(&self, count: u64) -> Option<f64> {
        let cpu = self.broker_cpu_s.filter(|s| *s > 0.0)?;
        Some((count as f64 / cpu).round())
    }

    pub(super) fn print(&self) -> Result<(), Failure> {
        let per = self.generator.us_per_message;
        say(&format!(
            "  generator: {:.2} CPU s{}",
            self.generator.cpu_s,
            per.map_or(String::new(), |us| format!(", {us:.2} us a message"))
        ))?;
        for p in &self.processes {
            let cpu = p.cpu_s.map_or("unknown".to_owned(), |s| format!("{s:.2}"));
            say(&format!(
                "  process {} {}: {cpu} CPU s, resident {} MiB (anonymous {}, files {}; before {}, peak {}), \
                 {} threads",
                p.pid,
                p.name,
                p.after.rss_kb / 1024,
                p.after.rss_anon_kb / 1024,
                p.after.rss_file_kb / 1024,
                p.before.rss_kb / 1024,
                p.after.peak_kb / 1024,
                p.threads
            ))?;
        }
        Ok(())
    }
}

/// A whole result.
pub(super) trait Outcome: Serialize {
    /// The bench's name.
    const BENCH: &'static str;
    /// Conditions to print.
    fn conditions(&self) -> &Conditions;
    /// The lines for people, after the conditions.
    fn print(&self) -> Result<(), Failure>;
}

/// Prints a result in the form asked for.
pub(super) fn print<R: Outcome>(result: &R, json: bool) -> Result<(), Failure> {
    if json {
        let text = serde_json::to_string(result).map_err(|e| e.to_string())?;
        return print_line(&text);
    }
    result.conditions().print(R::BENCH)?;
    result.print()
}

/// A line whose parts may come from a server.
pub(super) fn say(line: &str) -> Result<(), Failure> {
    print_line(&escape_all(line))
}

/// Latencies on one line.
pub(super) fn say_latencies(what: &str, p: &Percentiles) -> Result<(), Failure> {
    say(&format!(
        "  {what} us: p50 {} p90 {} p99 {} p99.9 {} p99.99 {} max {} (mean {}, {} samples)",
        p.p50, p.p90, p.p99, p.p999, p.p9999, p.max, p.mean, p.samples
    ))
}

/// Counts on one line, nothing when there are none.
pub(super) fn say_counts(what: &str, counts: &Counts) -> Result<(), Failure> {
    if counts.is_empty() {
        return Ok(());
    }
    let each: Vec<String> = counts.iter().map(|(k, n)| format!("{k} × {n}")).collect();
    say(&format!("  {what}: {}", each.join(", ")))
}
