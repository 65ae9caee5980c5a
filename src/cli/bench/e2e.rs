//! `troupe bench e2e`.

use super::args::{group, Common, Load, Message, Topics};
use super::check::Checks;
use super::consume::print_checks;
use super::measure;
use super::reading::Reading;
use super::report::{self, say, say_counts, say_latencies, Conditions, Outcome, Usage};
use super::send::{connect, options, plan, Sent};
use super::sending::Sending;
use super::stats::{Counts, Percentiles};
use super::topology::{self, Source, Use};
use crate::cli::Failure;
use clap::Args;
use serde::Serialize;
use serde_json::json;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Messages a second when no rate is given.
const DEFAULT_RATE: u64 = 1_000;
/// How long the last messages may take to arrive.
const GRACE: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
pub(in crate::cli) struct E2eArgs {
    #[command(flatten)]
    topics: Topics,
    #[command(flatten)]
    message: Message,
    #[command(flatten)]
    load: Load,
    /// Connections of the consumer to each broker
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    consumer_connections: u16,
    /// Consumer group to read as; its offsets are not changed
    #[arg(long, default_value = "TOOLS_CONSUMER", value_parser = group)]
    group: String,
    /// Messages out of the order in which they were sent are no failure
    #[arg(long)]
    allow_disorder: bool,
    #[command(flatten)]
    common: Common,
}

#[derive(Serialize)]
struct E2eResult {
    bench: &'static str,
    ok: bool,
    interrupted: bool,
    /// Measured messages that arrived.
    received: u64,
    /// Messages of the whole run that arrived.
    received_total: u64,
    /// Acknowledged messages that did not arrive.
    lost: u64,
    e2e_latency_us: Percentiles,
    send: Sent,
    checks: Checks,
    pulls: u64,
    msgs_per_pull: f64,
    consumer_errors: Counts,
    #[serde(flatten)]
    usage: Usage,
    msgs_per_broker_cpu_s: Option<f64>,
    conditions: Conditions,
}

impl Outcome for E2eResult {
    const BENCH: &'static str = "e2e";

    fn conditions(&self) -> &Conditions {
        &self.conditions
    }

    fn print(&self) -> Result<(), Failure> {
        say_latencies("end to end", &self.e2e_latency_us)?;
        self.send.print()?;
        say(&format!(
            "  {} messages arrived, {} acknowledged ones did not; {:.1} a pull",
            self.received_total, self.lost, self.msgs_per_pull
        ))?;
        print_checks(&self.checks)?;
        say_counts("consumer errors", &self.consumer_errors)?;
        self.usage.print()?;
        match self.msgs_per_broker_cpu_s {
            Some(n) => say(&format!("  {n:.0} messages per broker CPU second")),
            None => Ok(()),
        }
    }
}

pub(super) async fn run(mut args: E2eArgs) -> Result<(), Failure> {
    args.load.rate = args.load.rate.or(Some(DEFAULT_RATE));
    let client = connect(&args.common).await?;
    let mut options = options(&args.message, &args.load);
    options.insert("topic", json!(args.topics.topic));
    options.insert("topics", json!(args.topics.topics));
    options.insert("consumer_connections", json!(args.consumer_connections));
    let mut conditions = Conditions::new(&args.common, options);
    let names = args.topics.names();
    let topics = topology::create_missing(&client, &names, args.topics.queues).await?;
    let timeout = Duration::from_millis(args.common.cluster.timeout);
    let write = Source::Routes(topics.clone(), Use::Write);
    let sending = Rc::new(Sending::new(plan(
        &client,
        write,
        &args.message,
        &args.load,
        timeout,
    )));
    sending.lanes().await.map_err(|e| e.to_string())?;
    conditions.set_brokers(&sending.brokers());

    let read = Source::Routes(topics, Use::Read);
    let brokers = read.brokers(&client).await.map_err(|e| e.to_string())?;
    let mut reading = Reading::new(client, read, args.group, timeout);
    reading.follow = true;
    reading.sending = Some(sending.clone());
    let reading = Rc::new(reading);
    let queues = reading.queues(&brokers).await.map_err(|e| e.to_string())?;
    let mut readers = reading.start(queues, &brokers, args.consumer_connections.into());

    let warmup = Duration::from_secs_f64(args.load.warmup);
    let phases = (warmup, args.load.duration());
    let measured = measure::send(&sending, phases, &args.common.report.pids).await?;
    let until = Instant::now() + GRACE;
    let acked = sending.stats.borrow().acked_total;
    while reading.stats.borrow().received < acked && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    readers.shutdown().await;

    let sent = Sent::new(&sending, &measured);
    let stats = reading.stats.borrow();
    let checks = reading.checker.borrow().counts.clone();
    let usage = Usage::new(&measured, stats.received_measured);
    let lost = sent.acked_total.saturating_sub(stats.received);
    let failure = sent.failure().or_else(|| {
        if lost > 0 {
            return Some(format!("{lost} acknowledged messages did not arrive"));
        }
        (!checks.is_good(args.allow_disorder))
            .then(|| "verification failed, see the counts".to_owned())
    });
    let result = E2eResult {
        bench: E2eResult::BENCH,
        ok: failure.is_none(),
        interrupted: measured.interrupted,
        received: stats.received_measured,
        received_total: stats.received,
        lost,
        e2e_latency_us: stats.arrivals.percentiles(),
        send: sent,
        pulls: stats.pulls,
        msgs_per_pull: (checks.messages as f64 * 10.0 / stats.full_pulls.max(1) as f64).round()
            / 10.0,
        checks,
        consumer_errors: stats.errors.clone(),
        msgs_per_broker_cpu_s: usage.per_broker_cpu(stats.received_measured),
        usage,
        conditions,
    };
    report::print(&result, args.common.report.json)?;
    failure.map_or(Ok(()), Err)
}
