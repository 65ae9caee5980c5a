//! `troupe bench topics`.

use super::args::{Common, Load, Message, Topics};
use super::clock;
use super::measure::{self, Watch};
use super::report::{self, say, say_counts, say_latencies, Conditions, Outcome, Usage};
use super::send::{connect, options, plan, Sent};
use super::sending::Sending;
use super::stats::{code_key, count, Counts, Latencies, Percentiles};
use super::topology::{self, Queue, Source};
use crate::cli::Failure;
use crate::client::Client;
use clap::Args;
use serde::Serialize;
use serde_json::json;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;
use tokio::task::JoinSet;

#[derive(Debug, Args)]
pub(in crate::cli) struct TopicsArgs {
    #[command(flatten)]
    topics: Topics,
    /// Topics that are created at a time
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=4_096))]
    in_flight: u16,
    /// Then send to this percentage of the queues
    #[arg(long, value_name = "PERCENT", default_value_t = 0.0, value_parser = percent)]
    active: f64,
    #[command(flatten)]
    message: Message,
    #[command(flatten)]
    load: Load,
    #[command(flatten)]
    common: Common,
}

#[derive(Serialize)]
struct TopicsResult {
    bench: &'static str,
    ok: bool,
    interrupted: bool,
    /// Topics that every broker created.
    created: u64,
    topics_per_s: f64,
    queues: u64,
    create_latency_us: Percentiles,
    create_errors: Counts,
    last_error: String,
    /// CPU and memory while the topics were created.
    #[serde(flatten)]
    usage: Usage,
    broker_cpu_us_per_topic: Option<f64>,
    active_queues: u64,
    /// Sending to the active queues.
    send: Option<Sent>,
    /// CPU and memory meanwhile.
    send_usage: Option<Usage>,
    conditions: Conditions,
}

impl Outcome for TopicsResult {
    const BENCH: &'static str = "topics";

    fn conditions(&self) -> &Conditions {
        &self.conditions
    }

    fn print(&self) -> Result<(), Failure> {
        say(&format!(
            "  {} topics with {} queues created in {:.2} s: {:.0} topics/s",
            self.created, self.queues, self.usage.seconds, self.topics_per_s
        ))?;
        say_latencies("create latency", &self.create_latency_us)?;
        say_counts("errors", &self.create_errors)?;
        self.usage.print()?;
        if let (Some(sent), Some(usage)) = (&self.send, &self.send_usage) {
            say(&format!("  sending to {} queues", self.active_queues))?;
            sent.print()?;
            usage.print()?;
        }
        Ok(())
    }
}

/// What the creators share.
struct Creating {
    client: Rc<Client>,
    names: Vec<String>,
    queues: u32,
    masters: Vec<(String, String)>,
    next: Cell<usize>,
    created: Cell<u64>,
    latencies: RefCell<Latencies>,
    errors: RefCell<Counts>,
    last_error: RefCell<String>,
}

async fn create(shared: Rc<Creating>) {
    loop {
        let n = shared.next.get();
        shared.next.set(n + 1);
        let Some(name) = shared.names.get(n) else {
            return;
        };
        let mut good = true;
        for (_, addr) in &shared.masters {
            let before = clock::now();
            let done = shared
                .client
                .create_topic(addr, name, shared.queues, 6)
                .await;
            let passed = clock::now().saturating_sub(before);
            match done {
                Ok(()) => shared.latencies.borrow_mut().record(passed, 1),
                Err(e) => {
                    good = false;
                    let key = e.code().map_or("connection lost".to_owned(), code_key);
                    count(&mut shared.errors.borrow_mut(), &key, 1);
                    *shared.last_error.borrow_mut() = e.to_string();
                }
            }
        }
        if good {
            shared.created.set(shared.created.get() + 1);
        }
    }
}

/// `percent` of all queues, evenly spread.
fn active(topics: &[String], queues: u32, percent: f64) -> Vec<Queue> {
    let all = topics.len() as u64 * u64::from(queues);
    let wanted = (all as f64 * percent / 100.0).round() as u64;
    let mut found: Vec<Queue> = Vec::new();
    let mut last: Option<(usize, Rc<str>)> = None;
    for n in 0..wanted {
        let at = u128::from(n) * u128::from(all) / u128::from(wanted.max(1));
        let topic = (at / u128::from(queues)) as usize;
        let name = match last {
            Some((t, name)) if t == topic => name,
            _ => Rc::from(topics[topic].as_str()),
        };
        last = Some((topic, name.clone()));
        found.push(Queue {
            topic: name,
            id: (at % u128::from(queues)) as i32,
        });
    }
    found
}

pub(super) async fn run(args: TopicsArgs) -> Result<(), Failure> {
    let client = connect(&args.common).await?;
    let mut options = options(&args.message, &args.load);
    options.insert("topic", json!(args.topics.topic));
    options.insert("topics", json!(args.topics.topics));
    options.insert("queues", json!(args.topics.queues));
    options.insert("in_flight", json!(args.in_flight));
    options.insert("active_percent", json!(args.active));
    let mut conditions = Conditions::new(&args.common, options);
    let info = client.cluster_info().await.map_err(|e| e.to_string())?;
    let names = args.topics.names();
    if let Some(name) = names.first() {
        crate::wire::message::names::check_topic(name).map_err(|e| format!("{name}: {e}"))?;
    }
    let creating = Rc::new(Creating {
        client: client.clone(),
        queues: args.topics.queues,
        masters: topology::masters(&info),
        names,
        next: Cell::new(0),
        created: Cell::new(0),
        latencies: RefCell::new(Latencies::new()),
        errors: RefCell::default(),
        last_error: RefCell::default(),
    });

    let pids = &args.common.report.pids;
    let watch = Watch::start(pids);
    let mut tasks = JoinSet::new();
    for _ in 0..args.in_flight {
        tasks.spawn_local(create(creating.clone()));
    }
    let show = tokio::task::spawn_local(show(creating.clone()));
    let mut interrupted = tokio::select! {
        () = async { while tasks.join_next().await.is_some() {} } => false,
        () = measure::interrupt() => true,
    };
    let measured = watch.stop(interrupted);
    tasks.shutdown().await;
    show.abort();

    let created = creating.created.get();
    let usage = Usage::new(&measured, created);
    let queues = active(&creating.names, creating.queues, args.active);
    let active_queues = queues.len() as u64;
    let (mut send, mut send_usage) = (None, None);
    if !queues.is_empty() && created > 0 && !interrupted {
        let timeout = Duration::from_millis(args.common.cluster.timeout);
        let source = Source::Queues(queues);
        let plan = plan(&client, source, &args.message, &args.load, timeout);
        let sending = Rc::new(Sending::new(plan));
        sending.lanes().await.map_err(|e| e.to_string())?;
        conditions.set_brokers(&sending.brokers());
        let warmup = Duration::from_secs_f64(args.load.warmup);
        let measured = measure::send(&sending, (warmup, args.load.duration()), pids).await?;
        interrupted = measured.interrupted;
        let sent = Sent::new(&sending, &measured);
        send_usage = Some(Usage::new(&measured, sent.acked));
        send = Some(sent);
    }
    let last_error = creating.last_error.borrow().clone();
    let failure = match &send {
        _ if created == 0 => Some(format!("no topic was created: {last_error}")),
        Some(sent) => sent.failure(),
        None => None,
    };
    let create_errors = creating.errors.borrow().clone();
    let cpu = usage.broker_cpu_s.filter(|_| created > 0);
    let result = TopicsResult {
        bench: TopicsResult::BENCH,
        ok: failure.is_none() && create_errors.is_empty(),
        interrupted,
        created,
        topics_per_s: (created as f64 * 10.0 / measured.seconds.max(1e-9)).round() / 10.0,
        queues: created * u64::from(creating.queues),
        create_latency_us: creating.latencies.borrow().percentiles(),
        create_errors,
        last_error,
        usage,
        broker_cpu_us_per_topic: cpu.map(|s| (s * 1e7 / created as f64).round() / 10.0),
        active_queues,
        send,
        send_usage,
        conditions,
    };
    report::print(&result, args.common.report.json)?;
    failure.map_or(Ok(()), Err)
}

fn percent(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(p) if (0.0..=100.0).contains(&p) => Ok(p),
        _ => Err("expected 0 to 100".to_owned()),
    }
}

async fn show(creating: Rc<Creating>) {
    let bar = measure::bar(creating.names.len() as u64, "creating");
    if bar.is_hidden() {
        return;
    }
    loop {
        tokio::time::sleep(Duration::from_millis(250)).await;
        bar.set_position(creating.created.get());
        bar.set_message(format!("{} topics", creating.created.get()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn active_queues_are_spread_evenly() {
        let topics: Vec<String> = (0..100).map(|i| format!("t{i}")).collect();
        let some = active(&topics, 8, 1.0);
        let places: Vec<(&str, i32)> = some.iter().map(|q| (&*q.topic, q.id)).collect();
        assert_eq!(places[..3], [("t0", 0), ("t12", 4), ("t25", 0)]);
        assert_eq!(places.len(), 8);
        let all = active(&topics, 8, 100.0);
        assert_eq!((all.len(), all[799].id), (800, 7));
        assert!(active(&topics, 8, 0.0).is_empty());
        assert!(percent("101").is_err() && percent("x").is_err());
    }
}
