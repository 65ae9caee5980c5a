//! `troupe bench connections`.

use super::args::{group, seconds, Common};
use super::clock::{self, Alarm};
use super::limits;
use super::measure::{self, Watch};
use super::procs::{self, Memory};
use super::report::{self, say, say_counts, say_latencies, Conditions, Outcome, Usage};
use super::request::FIRST_OPAQUE;
use super::send::connect;
use super::stats::{code_key, count, Counts, Latencies, Percentiles};
use super::topology;
use crate::cli::Failure;
use crate::client::Pipe;
use crate::wire::remoting::code::{request, response};
use crate::wire::remoting::{encode_request, HeaderFormat, RequestHeader};
use bytes::BytesMut;
use clap::{Args, ValueEnum};
use serde::Serialize;
use serde_json::json;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;
use tokio::task::JoinSet;

/// Room offered to a read: an idle connection should cost this process little too.
const CHUNK: usize = 512;

/// As what a connection registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Role {
    /// A producer
    Producer,
    /// A consumer with one subscription
    Consumer,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ConnectionsArgs {
    /// Connections
    #[arg(long, short = 'c', default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    connections: u32,
    /// As what they register
    #[arg(long, value_enum, default_value_t = Role::Producer)]
    role: Role,
    /// Groups that they share
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    groups: u32,
    /// Start of the groups' names
    #[arg(long, default_value = "troupe-bench-idle", value_parser = group)]
    group: String,
    /// Topic that consumers subscribe to
    #[arg(long, default_value = "troupe-bench")]
    topic: String,
    /// Times that all connections send a heartbeat
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    bursts: u32,
    /// Within how many seconds
    #[arg(long, default_value_t = 2.0, value_parser = seconds)]
    burst_seconds: f64,
    /// Seconds between two bursts, and before the first
    #[arg(long, default_value_t = 1.0, value_parser = seconds)]
    pause: f64,
    /// Connections that are made at a time
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=4_096))]
    in_flight: u16,
    #[command(flatten)]
    common: Common,
}

#[derive(Serialize)]
struct ConnectionsResult {
    bench: &'static str,
    ok: bool,
    interrupted: bool,
    /// Connections whose first heartbeat was answered.
    connected: u64,
    /// Of them still there at the end.
    alive: u64,
    connect_s: f64,
    connects_per_s: f64,
    /// From a connection's start to the answer to its first heartbeat.
    register_latency_us: Percentiles,
    heartbeats: u64,
    heartbeats_answered: u64,
    /// From the time a heartbeat was due to its answer.
    heartbeat_latency_us: Percentiles,
    /// Requests that the server sent.
    server_requests: u64,
    errors: Counts,
    last_error: String,
    /// Memory of the processes before the first connection.
    memory_before: Vec<Memory>,
    /// The same with all connections idle.
    memory_connected: Vec<Memory>,
    /// What the connections added to resident memory, KiB, all processes.
    rss_added_kb: Option<i64>,
    /// From the first burst to the last.
    #[serde(flatten)]
    usage: Usage,
    conditions: Conditions,
}

impl Outcome for ConnectionsResult {
    const BENCH: &'static str = "connections";

    fn conditions(&self) -> &Conditions {
        &self.conditions
    }

    fn print(&self) -> Result<(), Failure> {
        say(&format!(
            "  {} connections in {:.2} s ({:.0}/s), {} there at the end",
            self.connected, self.connect_s, self.connects_per_s, self.alive
        ))?;
        say_latencies("connect and register", &self.register_latency_us)?;
        let (all, answered) = (self.heartbeats, self.heartbeats_answered);
        say(&format!("  {answered} of {all} heartbeats answered"))?;
        say_latencies("heartbeat", &self.heartbeat_latency_us)?;
        say_counts("errors", &self.errors)?;
        if let Some(added) = self.rss_added_kb {
            let mib = added as f64 / 1024.0;
            say(&format!(
                "  resident memory added by the connections: {mib:.1} MiB"
            ))?;
        }
        self.usage.print()
    }
}

/// What all connections share.
struct Shared {
    addrs: Vec<String>,
    connections: u32,
    timeout: Duration,
    heartbeat: Box<dyn Fn(u32) -> BytesMut>,
    next: Cell<u32>,
    pipes: RefCell<Vec<Option<Rc<RefCell<Pipe>>>>>,
    /// When the heartbeat under way was due; 0 when there is none.
    due: RefCell<Vec<u64>>,
    register: RefCell<Latencies>,
    latencies: RefCell<Latencies>,
    connected: Cell<u64>,
    alive: Cell<u64>,
    sent: Cell<u64>,
    answered: Cell<u64>,
    server_requests: Cell<u64>,
    errors: RefCell<Counts>,
    last_error: RefCell<String>,
}

fn bump(cell: &Cell<u64>) {
    cell.set(cell.get() + 1);
}

impl Shared {
    fn fail(&self, key: &str, why: String) {
        count(&mut self.errors.borrow_mut(), key, 1);
        *self.last_error.borrow_mut() = why;
    }

    /// Makes connections until all are begun.
    async fn connect(self: Rc<Self>) {
        loop {
            let n = self.next.get();
            if n >= self.connections {
                return;
            }
            self.next.set(n + 1);
            let addr = &self.addrs[n as usize % self.addrs.len()];
            let from = limits::source_address(addr, n, self.connections);
            let before = clock::now();
            match Pipe::connect(addr, from, self.timeout, CHUNK).await {
                Ok(mut pipe) => {
                    pipe.out().extend_from_slice(&(self.heartbeat)(n));
                    self.due.borrow_mut()[n as usize] = before;
                    let pipe = Rc::new(RefCell::new(pipe));
                    let first = self.clone().first_answer(n, pipe.clone(), before);
                    match tokio::time::timeout(self.timeout, first).await {
                        Ok(true) => {
                            bump(&self.connected);
                            bump(&self.alive);
                            self.pipes.borrow_mut()[n as usize] = Some(pipe.clone());
                            tokio::task::spawn_local(self.clone().read(n, pipe));
                        }
                        Ok(false) => {}
                        Err(_) => self.fail("no answer in time", "no answer to a heartbeat".into()),
                    }
                }
                Err(e) => self.fail("no connection", e.to_string()),
            }
        }
    }

    async fn first_answer(self: Rc<Self>, n: u32, pipe: Rc<RefCell<Pipe>>, before: u64) -> bool {
        loop {
            let read = std::future::poll_fn(|cx| pipe.borrow_mut().poll(cx)).await;
            if let Err(e) = read.and_then(|()| self.take(n, &mut pipe.borrow_mut())) {
                self.fail("connection lost", e.to_string());
                return false;
            }
            if self.due.borrow()[n as usize] == 0 {
                let passed = clock::now().saturating_sub(before);
                self.register.borrow_mut().record(passed, 1);
                return true;
            }
        }
    }

    async fn read(self: Rc<Self>, n: u32, pipe: Rc<RefCell<Pipe>>) {
        loop {
            let read = std::future::poll_fn(|cx| pipe.borrow_mut().poll(cx)).await;
            if let Err(e) = read.and_then(|()| self.take(n, &mut pipe.borrow_mut())) {
                self.fail("connection lost", e.to_string());
                self.alive.set(self.alive.get().saturating_sub(1));
                self.pipes.borrow_mut()[n as usize] = None;
                return;
            }
        }
    }

    fn take(&self, n: u32, pipe: &mut Pipe) -> Result<(), crate::client::ClientError> {
        let now = clock::now();
        pipe.drain(|answer, _| {
            if !answer.is_response {
                bump(&self.server_requests);
                return;
            }
            let due = std::mem::take(&mut self.due.borrow_mut()[n as usize]);
            if answer.code != response::SUCCESS {
                self.fail(&code_key(answer.code), answer.remark());
            }
            if due > 0 && self.sent.get() > 0 {
                bump(&self.answered);
                let passed = now.saturating_sub(due);
                self.latencies.borrow_mut().record(passed, 1);
            }
        })
    }

    /// One heartbeat of every connection, evenly spread over `seconds`.
    async fn burst(&self, seconds: f64, alarm: &mut Alarm) -> Result<(), Failure> {
        let start = clock::now();
        for n in 0..self.connections {
            let after = seconds * 1e9 * f64::from(n) / f64::from(self.connections);
            let due = start + after as u64;
            if clock::now() < due {
                std::future::poll_fn(|cx| alarm.poll(due, cx))
                    .await
                    .map_err(|e| format!("the alarm: {e}"))?;
            } else if n % 64 == 63 {
                // Late: answers must be read all the same.
                tokio::task::yield_now().await;
            }
            let Some(pipe) = self.pipes.borrow()[n as usize].clone() else {
                continue;
            };
            if self.due.borrow()[n as usize] != 0 {
                self.fail("heartbeat before the answer to the last", String::new());
                continue;
            }
            self.due.borrow_mut()[n as usize] = due;
            bump(&self.sent);
            let sent = pipe.borrow_mut().send_now(&(self.heartbeat)(n));
            if let Err(e) = sent {
                self.fail("connection lost", e.to_string());
            }
        }
        // Until all are answered, or it takes too long.
        let until = clock::now() + u64::try_from(self.timeout.as_nanos()).unwrap_or(u64::MAX / 2);
        while clock::now() < until {
            let waiting = {
                let due = self.due.borrow();
                let pipes = self.pipes.borrow();
                due.iter()
                    .zip(pipes.iter())
                    .any(|(d, p)| *d != 0 && p.is_some())
            };
            if !waiting {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }
}

/// The heartbeat of connection `n`, in the form of a Java 5.5.0 client.
fn heartbeat(args: &ConnectionsArgs, run: u64, n: u32) -> BytesMut {
    let group = match args.groups {
        1 => args.group.clone(),
        groups => format!("{}-{}", args.group, n % groups),
    };
    let (producers, consumers) = match args.role {
        Role::Producer => (json!([{ "groupName": group }]), json!([])),
        Role::Consumer => (
            json!([]),
            json!([{
                "consumeFromWhere": "CONSUME_FROM_LAST_OFFSET",
                "consumeType": "CONSUME_PASSIVELY",
                "groupName": group,
                "messageModel": "CLUSTERING",
                "subscriptionDataSet": [{
                    "classFilterMode": false, "codeSet": [], "expressionType": "TAG", "subString": "*",
                    "subVersion": run, "tagsSet": [], "topic": args.topic,
                }],
                "unitMode": false,
            }]),
        ),
    };
    let body = json!({
        "clientID": format!("127.0.0.1@{run}#{n}"),
        "consumerDataSet": consumers,
        "heartbeatFingerprint": 0,
        "producerDataSet": producers,
        "withoutSub": false,
    })
    .to_string();
    let header = RequestHeader {
        code: request::HEART_BEAT,
        opaque: FIRST_OPAQUE,
        oneway: false,
        remark: None,
        ext: &[],
    };
    let mut out = BytesMut::new();
    encode_request(&mut out, HeaderFormat::Json, &header, &[body.as_bytes()]);
    out
}

fn memory(pids: &[u32]) -> Vec<Memory> {
    let of = |pid: &u32| procs::sample(*pid).map(|s| s.memory()).unwrap_or_default();
    pids.iter().map(of).collect()
}

pub(super) async fn run(args: ConnectionsArgs) -> Result<(), Failure> {
    let client = connect(&args.common).await?;
    let options = BTreeMap::from([
        ("connections", json!(args.connections)),
        ("role", json!(format!("{:?}", args.role).to_lowercase())),
        ("groups", json!(args.groups)),
        ("bursts", json!(args.bursts)),
        ("burst_seconds", json!(args.burst_seconds)),
        ("pause_s", json!(args.pause)),
        ("in_flight", json!(args.in_flight)),
    ]);
    let conditions = Conditions::new(&args.common, options);
    limits::files_for(args.connections)?;
    let info = client.cluster_info().await.map_err(|e| e.to_string())?;
    let addrs: Vec<String> = topology::masters(&info)
        .into_iter()
        .map(|(_, a)| a)
        .collect();
    limits::check_ports(&addrs, args.connections)?;
    let count = args.connections as usize;
    let run = clock::unix_ms();
    let (bursts, burst_seconds) = (args.bursts, args.burst_seconds);
    let pause = Duration::from_secs_f64(args.pause);
    let (in_flight, report) = (args.in_flight, args.common.report.clone());
    let shared = Rc::new(Shared {
        addrs,
        connections: args.connections,
        timeout: Duration::from_millis(args.common.cluster.timeout),
        heartbeat: Box::new(move |n| heartbeat(&args, run, n)),
        next: Cell::new(0),
        pipes: RefCell::new(vec![None; count]),
        due: RefCell::new(vec![0; count]),
        register: RefCell::new(Latencies::new()),
        latencies: RefCell::new(Latencies::new()),
        connected: Cell::new(0),
        alive: Cell::new(0),
        sent: Cell::new(0),
        answered: Cell::new(0),
        server_requests: Cell::new(0),
        errors: RefCell::default(),
        last_error: RefCell::default(),
    });

    let memory_before = memory(&report.pids);
    let begun = clock::now();
    let mut tasks = JoinSet::new();
    for _ in 0..in_flight {
        tasks.spawn_local(shared.clone().connect());
    }
    let show = tokio::task::spawn_local(show(shared.clone()));
    let mut interrupted = tokio::select! {
        () = async { while tasks.join_next().await.is_some() {} } => false,
        () = measure::interrupt() => true,
    };
    tasks.shutdown().await;
    let connect_s = (clock::now() - begun) as f64 / 1e9;
    let mut alarm = Alarm::new().map_err(|e| format!("cannot start: {e}"))?;
    let mut memory_connected = memory(&report.pids);
    let mut watch = Watch::start(&report.pids);
    if !interrupted {
        let work = async {
            tokio::time::sleep(pause).await;
            memory_connected = memory(&report.pids);
            watch = Watch::start(&report.pids);
            for n in 0..bursts {
                if n > 0 {
                    tokio::time::sleep(pause).await;
                }
                shared.burst(burst_seconds, &mut alarm).await?;
            }
            Ok::<(), Failure>(())
        };
        interrupted = tokio::select! {
            done = work => { done?; false }
            () = measure::interrupt() => true,
        };
    }
    let measured = watch.stop(interrupted);
    show.abort();

    let connected = shared.connected.get();
    let sum = |m: &[Memory]| m.iter().map(|m| m.rss_kb as i64).sum::<i64>();
    let added = sum(&memory_connected) - sum(&memory_before);
    let last_error = shared.last_error.borrow().clone();
    let errors = shared.errors.borrow().clone();
    let failure = (connected == 0).then(|| format!("no connection was made: {last_error}"));
    let result = ConnectionsResult {
        bench: ConnectionsResult::BENCH,
        ok: connected == u64::from(shared.connections) && errors.is_empty(),
        interrupted,
        connected,
        alive: shared.alive.get(),
        connect_s: procs::round(connect_s),
        connects_per_s: (connected as f64 * 10.0 / connect_s.max(1e-9)).round() / 10.0,
        register_latency_us: shared.register.borrow().percentiles(),
        heartbeats: shared.sent.get(),
        heartbeats_answered: shared.answered.get(),
        heartbeat_latency_us: shared.latencies.borrow().percentiles(),
        server_requests: shared.server_requests.get(),
        errors,
        last_error,
        rss_added_kb: (!report.pids.is_empty()).then_some(added),
        memory_before,
        memory_connected,
        usage: Usage::new(&measured, shared.answered.get()),
        conditions,
    };
    report::print(&result, report.json)?;
    failure.map_or(Ok(()), Err)
}

async fn show(shared: Rc<Shared>) {
    let bar = measure::bar(shared.connections.into(), "connecting");
    if bar.is_hidden() {
        return;
    }
    loop {
        tokio::time::sleep(Duration::from_millis(250)).await;
        bar.set_position(shared.connected.get());
        let (answered, sent) = (shared.answered.get(), shared.sent.get());
        bar.set_message(format!("{answered} of {sent} heartbeats answered"));
    }
}
