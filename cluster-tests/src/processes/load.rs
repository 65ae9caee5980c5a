//! Load: producers that follow the route and retry as RocketMQ's do, and one prober a shard that
//! measures how long nothing is acknowledged.

use super::nodes::SHARDS;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use troupemq::client::{Client, Outgoing};

pub const TOPIC: &str = "load";
pub const QUEUES: i32 = 4;
/// Attempts of one send, as Java clients make by default: one and two retries.
const ATTEMPTS: usize = 3;
/// A client looks for a new route so often, and after a failure.
const ROUTE_EVERY: Duration = Duration::from_secs(1);

/// An acknowledged message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acked {
    pub shard: usize,
    pub queue: i32,
    pub offset: i64,
    /// Producer and number.
    pub id: (u32, u32),
}

/// What the clients saw.
#[derive(Debug, Default)]
pub struct Ledger {
    pub acked: Vec<Acked>,
    /// Sends that failed after all their attempts.
    pub failed: Vec<String>,
    pub sent: u64,
    /// Attempts that failed and were tried again.
    pub retried: u64,
    /// Per shard: when its prober was acknowledged.
    pub acks: [Vec<Instant>; 3],
}

/// Running load.
pub struct Load {
    stop: Arc<AtomicBool>,
    ledger: Arc<Mutex<Ledger>>,
    tasks: Vec<JoinHandle<()>>,
}

/// The body of a message: its id, and a filler that follows from it.
pub fn body(id: (u32, u32)) -> String {
    format!(
        "{}:{}:{}",
        id.0,
        id.1,
        "x".repeat(1 + (id.1 % 200) as usize)
    )
}

/// The id of a body, when it is exactly as sent.
pub fn id_of(bytes: &[u8]) -> Option<(u32, u32)> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut parts = text.split(':');
    let id = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    (text == body(id)).then_some(id)
}

struct Router {
    client: Client,
    masters: [Option<String>; 3],
    asked: Option<Instant>,
}

impl Router {
    fn new(name_servers: &[String], first: usize, timeout: Duration) -> Self {
        // Each client begins with another name server.
        let mut order = name_servers.to_vec();
        order.rotate_left(first % name_servers.len().max(1));
        Self {
            client: Client::new(order, timeout),
            masters: Default::default(),
            asked: None,
        }
    }

    async fn refresh(&mut self) {
        self.asked = Some(Instant::now());
        if let Ok(route) = self.client.route(TOPIC).await {
            for (shard, name) in SHARDS.iter().enumerate() {
                let master = route.broker(name).and_then(|b| b.master());
                if let Some(master) = master {
                    self.masters[shard] = Some(master.to_owned());
                }
            }
        }
    }

    async fn refresh_when_due(&mut self) {
        if self.asked.is_none_or(|at| at.elapsed() >= ROUTE_EVERY) {
            self.refresh().await;
        }
    }
}

impl Load {
    /// `producers` senders and a prober for each shard.
    pub fn start(name_servers: &[String], producers: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let ledger = Arc::new(Mutex::new(Ledger::default()));
        let mut tasks = Vec::new();
        let numbers = Arc::new(AtomicU32::new(0));
        for n in 0..producers {
            let router = Router::new(name_servers, n as usize, Duration::from_secs(3));
            let work = produce(n, router, stop.clone(), ledger.clone());
            tasks.push(tokio::task::spawn_local(work));
        }
        for shard in 0..SHARDS.len() {
            let router = Router::new(name_servers, shard, Duration::from_millis(300));
            let id = 1_000 + shard as u32;
            let work = probe(
                id,
                shard,
                router,
                stop.clone(),
                ledger.clone(),
                numbers.clone(),
            );
            tasks.push(tokio::task::spawn_local(work));
        }
        Self {
            stop,
            ledger,
            tasks,
        }
    }

    /// Messages acknowledged so far.
    pub fn acked(&self) -> usize {
        self.ledger.lock().map_or(0, |l| l.acked.len())
    }

    /// Ends the load; what was seen.
    pub async fn stop(self) -> Ledger {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            let _ = task.await;
        }
        std::mem::take(&mut *self.ledger.lock().unwrap_or_else(|e| e.into_inner()))
    }
}

async fn send(router: &Router, shard: usize, queue: i32, id: (u32, u32)) -> Result<Acked, String> {
    let Some(addr) = router.masters[shard].clone() else {
        return Err(format!("{} has no address", SHARDS[shard]));
    };
    let body = body(id);
    let message = Outgoing {
        topic: TOPIC,
        body: body.as_bytes(),
        properties: &[],
    };
    match router.client.send(&addr, queue, message).await {
        Ok(result) if result.code == 0 => Ok(Acked {
            shard,
            queue: result.queue_id,
            offset: result.queue_offset,
            id,
        }),
        Ok(result) => Err(format!("code {}", result.code)),
        Err(error) => Err(error.to_string()),
    }
}

/// Sends to each shard in turn; a failed attempt goes to the next shard, as in RocketMQ's clients.
async fn produce(n: u32, mut router: Router, stop: Arc<AtomicBool>, ledger: Arc<Mutex<Ledger>>) {
    let mut number = 0u32;
    let mut shard = n as usize;
    while !stop.load(Ordering::Relaxed) {
        router.refresh_when_due().await;
        let id = (n, number);
        number += 1;
        let mut why = Vec::new();
        for _ in 0..ATTEMPTS {
            shard = (shard + 1) % SHARDS.len();
            match send(&router, shard, (number % QUEUES as u32) as i32, id).await {
                Ok(acked) => {
                    if let Ok(mut ledger) = ledger.lock() {
                        ledger.acked.push(acked);
                    }
                    break;
                }
                Err(error) => why.push(error),
            }
        }
        if let Ok(mut ledger) = ledger.lock() {
            ledger.sent += 1;
            ledger.retried += why.len() as u64;
            if why.len() == ATTEMPTS {
                ledger.failed.push(why.join("; "));
            }
        }
        // Fault handling is under test, not throughput.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// One connection that follows the route of one shard, again and again at once.
async fn probe(
    producer: u32,
    shard: usize,
    mut router: Router,
    stop: Arc<AtomicBool>,
    ledger: Arc<Mutex<Ledger>>,
    numbers: Arc<AtomicU32>,
) {
    while !stop.load(Ordering::Relaxed) {
        router.refresh_when_due().await;
        let id = (producer, numbers.fetch_add(1, Ordering::Relaxed));
        match send(&router, shard, 0, id).await {
            Ok(acked) => {
                if let Ok(mut ledger) = ledger.lock() {
                    ledger.acks[shard].push(Instant::now());
                    ledger.acked.push(acked);
                }
            }
            Err(_) => router.refresh().await,
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
