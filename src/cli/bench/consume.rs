//! `troupe bench consume`.

use super::args::{group, Common, Topics};
use super::check::{Checks, Verified, Verifier};
use super::measure::{self, Watch};
use super::reading::Reading;
use super::record::Record;
use super::report::{self, say, say_counts, say_latencies, Conditions, Outcome, Usage};
use super::send::connect;
use super::stats::{Counts, Percentiles};
use super::topology::{Source, Use};
use crate::cli::Failure;
use clap::Args;
use serde::Serialize;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

#[derive(Debug, Args)]
pub(in crate::cli) struct ConsumeArgs {
    #[command(flatten)]
    topics: Topics,
    /// Connections to each broker; the queues are shared out among them
    #[arg(long, short = 'c', default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=60_000))]
    connections: u16,
    /// Most messages of one pull
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=1_024))]
    pull_batch: u32,
    /// Consumer group to read as; its offsets are not changed
    #[arg(long, default_value = "TOOLS_CONSUMER", value_parser = group)]
    group: String,
    /// Hold what is read against a file of `bench send --record`, whose topics are read
    #[arg(long, value_name = "FILE")]
    verify: Option<PathBuf>,
    /// Messages out of the order in which they were sent are no failure
    #[arg(long)]
    allow_disorder: bool,
    #[command(flatten)]
    common: Common,
}

#[derive(Serialize)]
struct ConsumeResult {
    bench: &'static str,
    ok: bool,
    interrupted: bool,
    msgs_per_s: f64,
    mb_per_s: f64,
    queues: usize,
    unread_queues: u64,
    pulls: u64,
    msgs_per_pull: f64,
    pull_latency_us: Percentiles,
    #[serde(flatten)]
    checks: Checks,
    moved_offsets: u64,
    verify: Option<Verified>,
    errors: Counts,
    last_error: String,
    connects: u64,
    #[serde(flatten)]
    usage: Usage,
    msgs_per_broker_cpu_s: Option<f64>,
    conditions: Conditions,
}

impl Outcome for ConsumeResult {
    const BENCH: &'static str = "consume";

    fn conditions(&self) -> &Conditions {
        &self.conditions
    }

    fn print(&self) -> Result<(), Failure> {
        say(&format!(
            "  {} messages of {} queues in {:.2} s: {:.0} msg/s, {:.2} MB/s, {:.1} a pull",
            self.checks.messages,
            self.queues,
            self.usage.seconds,
            self.msgs_per_s,
            self.mb_per_s,
            self.msgs_per_pull
        ))?;
        say_latencies("pull latency", &self.pull_latency_us)?;
        print_checks(&self.checks)?;
        if self.unread_queues > 0 {
            let unread = self.unread_queues;
            say(&format!("  {unread} queues were not read to their ends"))?;
        }
        if let Some(v) = &self.verify {
            say(&format!(
                "  of {} acknowledged messages {} are there once at their offset, {} are missing, {} replaced",
                v.acked, v.found, v.missing, v.mismatched
            ))?;
        }
        say_counts("errors", &self.errors)?;
        self.usage.print()?;
        match self.msgs_per_broker_cpu_s {
            Some(n) => say(&format!("  {n:.0} messages per broker CPU second")),
            None => Ok(()),
        }
    }
}

/// The checks on one line.
pub(super) fn print_checks(c: &Checks) -> Result<(), Failure> {
    say(&format!(
        "  checked: {} bad bodies, {} bad records, {} in a wrong queue, {} offsets missing, {} repeated, \
         {} duplicates, {} out of order ({} foreign, {} copies by retry)",
        c.bad_bodies,
        c.bad_records,
        c.wrong_queue,
        c.missing_offsets,
        c.repeated_offsets,
        c.duplicates,
        c.out_of_order,
        c.foreign,
        c.copies_by_retry
    ))
}

pub(super) async fn run(args: ConsumeArgs) -> Result<(), Failure> {
    let record = args.verify.as_deref().map(Record::read).transpose()?;
    let client = connect(&args.common).await?;
    let mut conditions = Conditions::new(
        &args.common,
        BTreeMap::from([
            ("connections", json!(args.connections)),
            ("pull_batch", json!(args.pull_batch)),
            ("group", json!(args.group)),
            ("topic", json!(args.topics.topic)),
            ("topics", json!(args.topics.topics)),
            ("verify", json!(args.verify)),
        ]),
    );
    let topics: Vec<Rc<str>> = match &record {
        Some(record) => {
            let names: BTreeSet<&Rc<str>> = record.queues.values().map(|(_, t, _)| t).collect();
            names.into_iter().cloned().collect()
        }
        None => args
            .topics
            .names()
            .iter()
            .map(|n| n.as_str().into())
            .collect(),
    };
    if topics.is_empty() {
        return Err("the record holds no acknowledged message".to_owned());
    }
    let source = Source::Routes(topics, Use::Read);
    let brokers = source.brokers(&client).await.map_err(|e| e.to_string())?;
    conditions.set_brokers(&brokers);
    let timeout = Duration::from_millis(args.common.cluster.timeout);
    let mut reading = Reading::new(client, source, args.group, timeout);
    reading.pull_batch = args.pull_batch;
    *reading.verifier.borrow_mut() = record.map(Verifier::new);
    let reading = Rc::new(reading);
    let queues = reading.queues(&brokers).await.map_err(|e| e.to_string())?;
    let total: i64 = queues.iter().map(|q| q.end.saturating_sub(q.next)).sum();
    let count = queues.len();
    let show = tokio::task::spawn_local(show(reading.clone(), u64::try_from(total).unwrap_or(0)));

    let watch = Watch::start(&args.common.report.pids);
    let mut readers = reading.start(queues, &brokers, args.connections.into());
    let interrupted = tokio::select! {
        () = async { while readers.join_next().await.is_some() {} } => false,
        () = measure::interrupt() => true,
    };
    let measured = watch.stop(interrupted);
    readers.shutdown().await;
    show.abort();

    let checks = reading.checker.borrow().counts.clone();
    let verify = reading.verifier.borrow_mut().take().map(Verifier::finish);
    let stats = reading.stats.borrow();
    let usage = Usage::new(&measured, checks.messages);
    let per_second = |n: u64| n as f64 / measured.seconds.max(1e-9);
    let good = checks.is_good(args.allow_disorder)
        && checks.messages > 0
        && stats.unread == 0
        && verify.as_ref().is_none_or(Verified::is_good);
    let failure = failure(&checks, verify.as_ref(), &stats.last_error).filter(|_| !good);
    let result = ConsumeResult {
        bench: ConsumeResult::BENCH,
        ok: good && !interrupted,
        interrupted,
        msgs_per_s: (per_second(checks.messages) * 10.0).round() / 10.0,
        mb_per_s: (per_second(checks.body_bytes) / 1e3).round() / 1e3,
        queues: count,
        unread_queues: stats.unread,
        pulls: stats.pulls,
        msgs_per_pull: (checks.messages as f64 * 10.0 / stats.full_pulls.max(1) as f64).round()
            / 10.0,
        pull_latency_us: stats.pull_latencies.percentiles(),
        msgs_per_broker_cpu_s: usage.per_broker_cpu(checks.messages),
        checks,
        moved_offsets: stats.moved,
        verify,
        errors: stats.errors.clone(),
        last_error: stats.last_error.clone(),
        connects: stats.connects,
        usage,
        conditions,
    };
    report::print(&result, args.common.report.json)?;
    match failure {
        Some(why) if !interrupted => Err(why),
        _ => Ok(()),
    }
}

fn failure(checks: &Checks, verify: Option<&Verified>, last_error: &str) -> Option<Failure> {
    let fault = verify.and_then(|v| v.first_fault.as_deref());
    Some(match fault {
        Some(fault) => format!("verification failed: {fault}"),
        None if checks.messages == 0 && last_error.is_empty() => "no message was read".to_owned(),
        None if last_error.is_empty() => "verification failed, see the counts".to_owned(),
        None => format!("not all messages were read and good: {last_error}"),
    })
}

async fn show(reading: Rc<Reading>, total: u64) {
    let bar = measure::bar(total, "reading");
    if bar.is_hidden() {
        return;
    }
    loop {
        tokio::time::sleep(Duration::from_millis(250)).await;
        let read = reading.checker.borrow().counts.messages;
        bar.set_position(read);
        bar.set_message(format!("{read} messages"));
    }
}
