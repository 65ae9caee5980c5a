//! `troupe bench send`.

use super::args::{Common, Headers, Load, Message, Topics};
use super::measure::{self, Measured};
use super::record::Recorder;
use super::report::{self, say, say_counts, say_latencies, Conditions, Outcome, Usage};
use super::request::Form;
use super::sending::{Plan, Sending};
use super::stats::{Counts, Percentiles};
use super::topology::{self, Source, Use};
use crate::cli::Failure;
use crate::client::Client;
use crate::wire::remoting::HeaderFormat;
use clap::Args;
use serde::Serialize;
use serde_json::{json, Value};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

#[derive(Debug, Args)]
pub(in crate::cli) struct SendArgs {
    #[command(flatten)]
    topics: Topics,
    #[command(flatten)]
    message: Message,
    #[command(flatten)]
    load: Load,
    /// Write the acknowledged messages to this file, for `bench consume --verify`
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
}

/// What came out of sending; also a part of other benches' results.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Sent {
    /// Messages acknowledged within the measured time.
    pub acked: u64,
    /// Messages acknowledged in the whole run, warm-up and end included.
    pub acked_total: u64,
    /// Messages given up.
    pub failed: u64,
    /// Messages that were due and never sent.
    pub unsent: u64,
    /// Acknowledged messages a second.
    pub msgs_per_s: f64,
    /// Their bodies, millions of bytes a second.
    pub mb_per_s: f64,
    /// From the time a message was due (in a closed loop: sent) to its acknowledgement.
    pub latency_us: Percentiles,
    /// Stored, but flush or replica not confirmed.
    pub unconfirmed: Counts,
    /// Messages sent again, by code or break.
    pub retries: Counts,
    /// Messages given up, by code or break.
    pub errors: Counts,
    /// The last text that came with an error.
    pub last_error: String,
    /// Connections made.
    pub connects: u64,
    /// Answers that belong to no request.
    pub strange_answers: u64,
    /// When the first message was acknowledged, ms since 1970.
    pub first_ack_unix_ms: Option<u64>,
    /// Longest time without a confirmed acknowledgement between the first and the last.
    pub longest_gap_ms: f64,
    /// When it ended, ms since 1970.
    pub longest_gap_end_unix_ms: Option<u64>,
}

#[derive(Serialize)]
struct SendResult {
    bench: &'static str,
    ok: bool,
    interrupted: bool,
    #[serde(flatten)]
    sent: Sent,
    /// Messages in the record.
    recorded: Option<u64>,
    #[serde(flatten)]
    usage: Usage,
    msgs_per_broker_cpu_s: Option<f64>,
    conditions: Conditions,
}

impl Sent {
    pub(super) fn new(sending: &Sending, measured: &Measured) -> Self {
        let stats = sending.stats.borrow();
        let per_second = stats.acked as f64 / measured.seconds.max(1e-9);
        let round = |x: f64, digits: f64| (x * digits).round() / digits;
        Self {
            acked: stats.acked,
            acked_total: stats.acked_total,
            failed: stats.failed,
            unsent: stats.unsent,
            msgs_per_s: round(per_second, 10.0),
            mb_per_s: round(per_second * sending.bodies.size() as f64 / 1e6, 1_000.0),
            latency_us: stats.latencies.percentiles(),
            unconfirmed: stats.unconfirmed.clone(),
            retries: stats.retries.clone(),
            errors: stats.errors.clone(),
            last_error: stats.last_error.clone(),
            connects: stats.connects,
            strange_answers: stats.strange,
            first_ack_unix_ms: stats.first_ack_unix_ms,
            longest_gap_ms: round(stats.longest_gap as f64 / 1e6, 1_000.0),
            longest_gap_end_unix_ms: stats.longest_gap_end_unix_ms,
        }
    }

    /// Why there is no result, if there is none.
    pub(super) fn failure(&self) -> Option<Failure> {
        (self.acked_total == 0).then(|| match self.last_error.as_str() {
            "" => "no message was acknowledged".to_owned(),
            why => format!("no message was acknowledged: {why}"),
        })
    }

    pub(super) fn print(&self) -> Result<(), Failure> {
        say(&format!(
            "  {} messages acknowledged ({} with warm-up and end): {:.0} msg/s, {:.2} MB/s",
            self.acked, self.acked_total, self.msgs_per_s, self.mb_per_s
        ))?;
        say_latencies("send latency", &self.latency_us)?;
        if let (Some(end), Some(first)) = (self.longest_gap_end_unix_ms, self.first_ack_unix_ms) {
            let after = end.saturating_sub(first) as f64 / 1e3;
            let gap = self.longest_gap_ms;
            say(&format!("  longest time without an acknowledgement {gap:.1} ms, ended {after:.3} s after the first one"))?;
        }
        if self.failed + self.unsent > 0 {
            let (failed, unsent) = (self.failed, self.unsent);
            say(&format!(
                "  {failed} messages given up, {unsent} never sent"
            ))?;
        }
        say_counts("stored but not confirmed", &self.unconfirmed)?;
        say_counts("sent again", &self.retries)?;
        say_counts("given up", &self.errors)?;
        match self.last_error.as_str() {
            "" => Ok(()),
            why => say(&format!("  last error: {why}")),
        }
    }
}

impl Outcome for SendResult {
    const BENCH: &'static str = "send";

    fn conditions(&self) -> &Conditions {
        &self.conditions
    }

    fn print(&self) -> Result<(), Failure> {
        say(&format!("  measured {:.2} s", self.usage.seconds))?;
        self.sent.print()?;
        self.usage.print()?;
        match self.msgs_per_broker_cpu_s {
            Some(n) => say(&format!("  {n:.0} messages per broker CPU second")),
            None => Ok(()),
        }
    }
}

/// What requests look like.
pub(super) fn form(message: &Message) -> Form {
    Form {
        format: match message.headers {
            Headers::Json => HeaderFormat::Json,
            Headers::Binary => HeaderFormat::Binary,
        },
        code: message.code,
        group: message.producer_group.clone(),
        batch: message.batch,
    }
}

/// The options of a load, for the conditions.
pub(super) fn options(message: &Message, load: &Load) -> BTreeMap<&'static str, Value> {
    let headers = match message.headers {
        Headers::Json => "json",
        Headers::Binary => "binary",
    };
    BTreeMap::from([
        ("size", json!(message.size)),
        ("batch", json!(message.batch)),
        ("headers", json!(headers)),
        (
            "code",
            json!(if message.batch > 1 { 320 } else { message.code }),
        ),
        ("retries", json!(message.retries)),
        ("connections", json!(load.connections)),
        ("window", json!(load.window())),
        ("rate", json!(load.rate)),
        ("warmup_s", json!(load.warmup)),
        (
            "duration_s",
            json!(load.duration().map(|d| d.as_secs_f64())),
        ),
        ("messages", json!(load.messages)),
    ])
}

/// A run from its arguments.
pub(super) fn plan(
    client: &Rc<Client>,
    source: Source,
    message: &Message,
    load: &Load,
    timeout: Duration,
) -> Plan {
    Plan {
        client: client.clone(),
        source,
        form: form(message),
        size: message.size as usize,
        window: load.window(),
        rate: load.rate,
        retries: message.retries,
        connections: load.connections,
        timeout,
        messages: load.messages,
    }
}

/// The client, once the cluster is there.
pub(super) async fn connect(common: &Common) -> Result<Rc<Client>, Failure> {
    let client = Rc::new(common.cluster.client());
    let wait = Duration::from_secs_f64(common.report.wait);
    topology::wait_for_cluster(&client, wait).await?;
    Ok(client)
}

pub(super) async fn run(args: SendArgs) -> Result<(), Failure> {
    let client = connect(&args.common).await?;
    let mut options = options(&args.message, &args.load);
    options.insert("topic", json!(args.topics.topic));
    options.insert("topics", json!(args.topics.topics));
    let mut conditions = Conditions::new(&args.common, options);
    let names = args.topics.names();
    let topics = topology::create_missing(&client, &names, args.topics.queues).await?;
    let timeout = Duration::from_millis(args.common.cluster.timeout);
    let source = Source::Routes(topics, Use::Write);
    let sending = Rc::new(Sending::new(plan(
        &client,
        source,
        &args.message,
        &args.load,
        timeout,
    )));
    sending.lanes().await.map_err(|e| e.to_string())?;
    if let Some(path) = &args.record {
        let shown = path.display();
        let recorder = Recorder::create(path, sending.run).map_err(|e| format!("{shown}: {e}"))?;
        *sending.record.borrow_mut() = Some(recorder);
    }
    let warmup = Duration::from_secs_f64(args.load.warmup);
    let phases = (warmup, args.load.duration());
    let measured = measure::send(&sending, phases, &args.common.report.pids).await?;
    conditions.set_brokers(&sending.brokers());
    let recorded = finish_record(&sending, args.record.is_some())?;
    let sent = Sent::new(&sending, &measured);
    let usage = Usage::new(&measured, sent.acked);
    let failure = sent.failure();
    let result = SendResult {
        bench: SendResult::BENCH,
        ok: failure.is_none(),
        interrupted: measured.interrupted,
        msgs_per_broker_cpu_s: usage.per_broker_cpu(sent.acked),
        sent,
        recorded,
        usage,
        conditions,
    };
    report::print(&result, args.common.report.json)?;
    failure.map_or(Ok(()), Err)
}

/// Ends the record; a record that could not be written is an error.
fn finish_record(sending: &Sending, wanted: bool) -> Result<Option<u64>, Failure> {
    match sending.record.borrow_mut().take() {
        Some(recorder) => recorder
            .finish()
            .map(Some)
            .map_err(|e| format!("the record: {e}")),
        None if wanted => Err(sending.stats.borrow().last_error.clone()),
        None => Ok(None),
    }
}
