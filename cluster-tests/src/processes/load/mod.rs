//! Load: producers that follow the route and retry as RocketMQ's do, consumers with committed
//! offsets, and one prober a shard that measures how long nothing is acknowledged.
//!
//! It runs in a thread of its own, so that a scenario may block.

mod consume;
mod probe;
mod produce;
mod route;

pub use probe::{Asker, Direct};

use super::history::{Answer, History, Id, Place, Sent, TOPICS};
use super::nodes::SHARDS;
use super::rng::Rng;
use route::Routes;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use troupemq::client::{Client, ClientError, Outgoing};
use troupemq::wire::remoting::Val;

/// Delays of delay levels 1 and 2 as the nodes have them, in milliseconds.
pub const DELAYS: [u32; 2] = [1_000, 5_000];
/// A refusal with this text leaves open whether the request was done.
const OPEN: &str = "may or may not have been done";
/// First producer number of the probers, and of [`Direct`] senders.
const PROBERS: u32 = 1_000;
const DIRECT: u32 = 2_000;

/// What all tasks share.
#[derive(Debug)]
pub struct Shared {
    begin: Instant,
    /// The same on the monotonic clock, as Java counts.
    begin_ns: i64,
    history: Mutex<History>,
    acked: AtomicUsize,
    /// Producers end.
    end_sending: AtomicBool,
    /// Producers hold still.
    hold: AtomicBool,
    /// Consumers commit nothing.
    uncommitted: AtomicBool,
    /// Consumers end.
    end: AtomicBool,
    positions: Mutex<BTreeMap<Place, i64>>,
    /// Offset of the last acknowledgement of each shard's prober; -1 for none.
    probed: Vec<AtomicI64>,
    name_servers: Vec<String>,
    replicas: Vec<Vec<String>>,
}

/// What the load looks like.
#[derive(Debug, Clone)]
pub struct Plan {
    pub name_servers: Vec<String>,
    /// Addresses by node and shard.
    pub replicas: Vec<Vec<String>>,
    /// Messages a second of all producers but the probers.
    pub rate: u32,
    pub seed: u64,
}

/// Running load.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Shared {
    /// Microseconds since the beginning.
    fn now(&self) -> u64 {
        self.begin.elapsed().as_micros() as u64
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn positions(&self) -> MutexGuard<'_, BTreeMap<Place, i64>> {
        self.positions.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn node_of(&self, addr: &str) -> u8 {
        let holds = |n: &Vec<String>| n.iter().any(|a| a == addr);
        self.replicas.iter().position(holds).unwrap_or(255) as u8
    }

    fn sending_ends(&self) -> bool {
        self.end_sending.load(Ordering::Relaxed)
    }

    /// Waits while producers hold still.
    async fn held(&self) {
        while self.hold.load(Ordering::Relaxed) && !self.sending_ends() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn failed(&self, why: String) {
        let at = self.now();
        self.history().failed.push((at, why));
    }

    /// Sends one message or a batch, once, and records it.
    async fn attempt(
        &self,
        client: &Client,
        addr: &str,
        place: Place,
        ids: &[Id],
        delay_level: Option<usize>,
    ) -> Result<i64, String> {
        let begin = self.now();
        let sent = produce::send(client, addr, place, ids, delay_level).await;
        let end = self.now();
        let answer = match &sent {
            Ok((_, offset)) => Answer::Acked(*offset),
            Err(ClientError::Connect { .. }) => Answer::NotSent,
            Err(ClientError::Refused { remark, .. }) if remark.contains(OPEN) => Answer::Unknown,
            Err(error) => error.code().map_or(Answer::Unknown, Answer::Refused),
        };
        let node = self.node_of(addr);
        let mut history = self.history();
        for (n, id) in ids.iter().enumerate() {
            let place = Place {
                queue: sent.as_ref().map_or(place.queue, |(queue, _)| *queue),
                ..place
            };
            let answer = match answer {
                Answer::Acked(first) => Answer::Acked(first + n as i64),
                other => other,
            };
            history.sent.push(Sent {
                id: *id,
                place,
                node,
                begin,
                end,
                delay_ms: delay_level.map_or(0, |l| DELAYS[l]),
                answer,
            });
        }
        drop(history);
        if sent.is_ok() {
            self.acked.fetch_add(ids.len(), Ordering::Relaxed);
        }
        sent.map(|(_, offset)| offset).map_err(|e| e.to_string())
    }
}

impl Load {
    /// Starts producers, probers and consumers.
    pub fn start(plan: Plan) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            begin: Instant::now(),
            begin_ns: super::sys::monotonic_ns(),
            history: Mutex::new(History {
                acks: vec![Vec::new(); SHARDS.len()],
                ..History::default()
            }),
            acked: AtomicUsize::new(0),
            end_sending: AtomicBool::new(false),
            hold: AtomicBool::new(false),
            uncommitted: AtomicBool::new(false),
            end: AtomicBool::new(false),
            positions: Mutex::default(),
            probed: SHARDS.iter().map(|_| AtomicI64::new(-1)).collect(),
            name_servers: plan.name_servers.clone(),
            replicas: plan.replicas.clone(),
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let own = shared.clone();
        let thread = std::thread::Builder::new().name("load".into());
        let thread = thread.spawn(move || {
            tokio::task::LocalSet::new().block_on(&runtime, run(own, plan));
        })?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Microseconds since the beginning: the times in the history.
    pub fn now(&self) -> u64 {
        self.shared.now()
    }

    /// The beginning on the monotonic clock.
    pub fn begin_ns(&self) -> i64 {
        self.shared.begin_ns
    }

    /// Messages acknowledged so far.
    pub fn acked(&self) -> usize {
        self.shared.acked.load(Ordering::Relaxed)
    }

    /// When the prober of a shard was last acknowledged.
    pub fn last_ack(&self, shard: usize) -> u64 {
        let history = self.shared.history();
        history.acks[shard].last().copied().unwrap_or(0)
    }

    /// What one in a hundred probes of these shards took at least, since then.
    pub fn p99(&self, shards: &[usize], since: u64) -> Duration {
        let history = self.shared.history();
        let probe = |s: &&Sent| {
            (PROBERS..DIRECT).contains(&s.id.0)
                && s.begin >= since
                && shards.contains(&s.place.shard.into())
        };
        let mut took: Vec<u64> = history
            .sent
            .iter()
            .filter(probe)
            .map(|s| s.end - s.begin)
            .collect();
        took.sort_unstable();
        let at = took.len() * 99 / 100;
        Duration::from_micros(took.get(at).copied().unwrap_or(0))
    }

    /// Messages that a node acknowledged that were sent since then.
    pub fn acked_by(&self, node: usize, since: u64) -> usize {
        let history = self.shared.history();
        let acked = |s: &&Sent| {
            usize::from(s.node) == node && s.begin >= since && matches!(s.answer, Answer::Acked(_))
        };
        history.sent.iter().filter(acked).count()
    }

    /// Producers and probers hold still, or go on.
    pub fn hold(&self, hold: bool) {
        self.shared.hold.store(hold, Ordering::Relaxed);
    }

    /// Consumers commit nothing from now on, or do again: an offset is synced in every class, and with it what
    /// stands before it in the log.
    pub fn leave_uncommitted(&self, uncommitted: bool) {
        self.shared
            .uncommitted
            .store(uncommitted, Ordering::Relaxed);
    }

    /// A client that sends to all shards of one node and follows no route, until it is dropped.
    pub fn direct(&self, node: usize) -> std::io::Result<Direct> {
        Direct::start(self.shared.clone(), node)
    }

    /// A client that asks one node for the end of the queues that are probed, again and again, until
    /// it is dropped. What it is told is judged with all other reads.
    pub fn ask(&self, node: usize) -> std::io::Result<Asker> {
        Asker::start(self.shared.clone(), node)
    }

    /// Ends producers and probers.
    pub fn end_sending(&self) {
        self.shared.end_sending.store(true, Ordering::Relaxed);
        // What is under way is answered or times out.
        let mut before = usize::MAX;
        let until = Instant::now() + Duration::from_secs(8);
        loop {
            let now = self.shared.history().sent.len();
            if now == before || Instant::now() > until {
                return;
            }
            before = now;
            std::thread::sleep(Duration::from_millis(700));
        }
    }

    /// Whether consumers of all queues have come so far.
    pub fn drained(&self, ends: &BTreeMap<Place, i64>) -> Result<(), String> {
        let positions = self.shared.positions();
        let behind = |(place, end): (&Place, &i64)| {
            let at = positions.get(place).copied().unwrap_or(0);
            (at < *end).then(|| format!("{place:?} consumed up to {at} of {end}"))
        };
        match ends.iter().find_map(behind) {
            Some(why) => Err(why),
            None => Ok(()),
        }
    }

    /// Ends everything; what was seen.
    pub fn stop(mut self) -> History {
        self.end();
        std::mem::take(&mut *self.shared.history())
    }

    fn end(&mut self) {
        self.shared.end_sending.store(true, Ordering::Relaxed);
        self.shared.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.end();
    }
}

async fn run(shared: Arc<Shared>, plan: Plan) {
    let mut tasks = Vec::new();
    let mut clients = 0;
    let mut new_routes = |timeout_ms: u64| {
        // Each client begins with another name server.
        clients += 1;
        Rc::new(Routes::new(
            shared.clone(),
            clients,
            Duration::from_millis(timeout_ms),
        ))
    };
    let mut all_routes = Vec::new();
    for (n, kind) in produce::kinds(plan.rate).into_iter().enumerate() {
        let routes = new_routes(3_000);
        all_routes.push(routes.clone());
        let rng = Rng::new(plan.seed, 100 + n as u64);
        let work = produce::produce(n as u32, kind, routes, shared.clone(), rng);
        tasks.push(tokio::task::spawn_local(work));
    }
    for shard in 0..SHARDS.len() {
        // Its first name server is on the node that prefers to lead: the one that faults hit.
        let limit = Duration::from_millis(300);
        let routes = Rc::new(Routes::new(shared.clone(), shard, limit));
        all_routes.push(routes.clone());
        let rng = Rng::new(plan.seed, 200 + shard as u64);
        let work = probe::probe(shard, routes, shared.clone(), rng);
        tasks.push(tokio::task::spawn_local(work));
    }
    for topic in 0..TOPICS.len() as u8 {
        let routes = new_routes(2_000);
        all_routes.push(routes.clone());
        for place in places_of(topic) {
            let salt = 1_000 + u64::from(place.topic) * 100 + u64::from(place.shard * 10);
            let rng = Rng::new(plan.seed, salt + u64::from(place.queue));
            let work = consume::consume(place, routes.clone(), shared.clone(), rng);
            tasks.push(tokio::task::spawn_local(work));
        }
    }
    let refresh: Vec<_> = all_routes
        .into_iter()
        .map(|routes| tokio::task::spawn_local(routes.keep_fresh()))
        .collect();
    for task in tasks {
        let _ = task.await;
    }
    for task in refresh {
        task.abort();
    }
}

/// The queues of a topic on all shards.
pub fn places_of(topic: u8) -> Vec<Place> {
    let of_shard = |shard| {
        (0..super::history::QUEUES).map(move |queue| Place {
            topic,
            shard,
            queue,
        })
    };
    (0..SHARDS.len() as u8).flat_map(of_shard).collect()
}

/// Ext fields that name a queue.
fn queue_ext(place: Place) -> [(&'static str, Val<'static>); 2] {
    [
        ("topic", Val::Str(TOPICS[usize::from(place.topic)])),
        ("queueId", Val::Int(place.queue.into())),
    ]
}

/// A message as the client library wants it.
fn outgoing<'a>(
    place: Place,
    body: &'a [u8],
    properties: &'a [(&'a str, &'a str)],
) -> Outgoing<'a> {
    Outgoing {
        topic: TOPICS[usize::from(place.topic)],
        body,
        properties,
    }
}
