//! Probers of a shard, and clients that talk to one node whatever the route says.

use super::super::history::{Id, OffsetRead, Place, TOPICS};
use super::super::nodes::SHARDS;
use super::super::rng::Rng;
use super::route::Routes;
use super::{Shared, DIRECT, PROBERS};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use troupemq::client::Client;

/// Between an answer and the next message.
const PAUSE: Duration = Duration::from_millis(10);
/// One acknowledgement in so many is followed by a read of the maximum offset.
const READ_ONE_IN: u32 = 5;
const READ_WITHIN: Duration = Duration::from_millis(500);
/// Between an answer and the next question.
const ASK_EVERY: Duration = Duration::from_millis(5);

/// One connection that follows the route of one shard, again and again at once.
pub async fn probe(shard: usize, routes: Rc<Routes>, shared: Arc<Shared>, mut rng: Rng) {
    let place = Place {
        topic: 0,
        shard: shard as u8,
        queue: 0,
    };
    let reader = Rc::new(Client::new(Vec::new(), READ_WITHIN));
    let mut number = 0;
    while !shared.sending_ends() {
        shared.held().await;
        let id = (PROBERS + shard as u32, number);
        number += 1;
        let sent = match routes.master(shard) {
            Some(addr) => {
                let client = &routes.client;
                shared.attempt(client, &addr, place, &[id], None).await
            }
            None => Err("no address".into()),
        };
        match sent {
            Ok(offset) => {
                let now = shared.now();
                shared.history().acks[shard].push(now);
                shared.probed[shard].store(offset, Ordering::Release);
                if number % READ_ONE_IN == 0 {
                    let node = rng.below(shared.replicas.len());
                    let read = read_max(place, node, offset, reader.clone(), shared.clone());
                    tokio::task::spawn_local(read);
                }
            }
            Err(_) => routes.hurry(),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Whoever is asked after an acknowledgement knows of it.
async fn read_max(place: Place, node: usize, acked: i64, reader: Rc<Client>, shared: Arc<Shared>) {
    let addr = &shared.replicas[node][usize::from(place.shard)];
    let topic = TOPICS[usize::from(place.topic)];
    let read = reader.max_offset(addr, topic, place.queue.into()).await;
    if let Ok(max) = read {
        let at = shared.now();
        shared.history().reads.push(OffsetRead {
            place,
            node: node as u8,
            acked,
            max,
            at,
        });
    }
}

/// Asks all shards of one node, whoever leads; ends when dropped.
#[derive(Debug)]
pub struct Asker {
    _task: Task,
}

/// Sends to all shards of one node; ends when dropped.
#[derive(Debug)]
pub struct Direct {
    _task: Task,
}

#[derive(Debug)]
struct Task {
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Task {
    fn start<F, W>(name: &str, work: W) -> std::io::Result<Self>
    where
        F: std::future::Future<Output = ()>,
        W: FnOnce(Arc<AtomicBool>) -> F + Send + 'static,
    {
        let end = Arc::new(AtomicBool::new(false));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let ended = end.clone();
        let thread = std::thread::Builder::new().name(name.into());
        let thread = thread.spawn(move || runtime.block_on(work(ended)))?;
        Ok(Self {
            end,
            thread: Some(thread),
        })
    }
}

impl Asker {
    pub(super) fn start(shared: Arc<Shared>, node: usize) -> std::io::Result<Self> {
        let _task = Task::start("asker", move |end| ask(node, shared, end))?;
        Ok(Self { _task })
    }
}

async fn ask(node: usize, shared: Arc<Shared>, end: Arc<AtomicBool>) {
    let local = tokio::task::LocalSet::new();
    for shard in 0..SHARDS.len() {
        local.spawn_local(ask_shard(shard, node, shared.clone(), end.clone()));
    }
    local.await;
}

async fn ask_shard(shard: usize, node: usize, shared: Arc<Shared>, end: Arc<AtomicBool>) {
    let reader = Rc::new(Client::new(Vec::new(), READ_WITHIN));
    let place = Place {
        topic: 0,
        shard: shard as u8,
        queue: 0,
    };
    while !end.load(Ordering::Relaxed) {
        let acked = shared.probed[shard].load(Ordering::Acquire);
        if acked >= 0 {
            read_max(place, node, acked, reader.clone(), shared.clone()).await;
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

impl Direct {
    pub(super) fn start(shared: Arc<Shared>, node: usize) -> std::io::Result<Self> {
        // Numbers go on where an earlier sender of this node ended.
        let own = DIRECT + node as u32;
        let of_own = shared
            .history()
            .sent
            .iter()
            .filter(|s| s.id.0 == own)
            .count();
        let work = move |end| send(own, of_own as u32, node, shared, end);
        let _task = Task::start("direct", work)?;
        Ok(Self { _task })
    }
}

async fn send(own: u32, first: u32, node: usize, shared: Arc<Shared>, end: Arc<AtomicBool>) {
    let client = Client::new(Vec::new(), Duration::from_secs(1));
    let mut number = first;
    while !end.load(Ordering::Relaxed) && !shared.sending_ends() {
        for shard in 0..SHARDS.len() {
            let place = Place {
                topic: 1,
                shard: shard as u8,
                queue: 1,
            };
            let id: Id = (own, number);
            number += 1;
            let addr = shared.replicas[node][shard].clone();
            let _ = shared.attempt(&client, &addr, place, &[id], None).await;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
