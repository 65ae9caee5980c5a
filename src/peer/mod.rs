//! Links between the nodes of a cluster: authenticated, in order, bounded in memory.
//!
//! Each node dials every other node; a connection carries messages one way, from the dialer, and
//! answers to pings the other way. So a pair of nodes has a pair of connections, shared by all
//! shards. What waited for a connection while it was being written goes out as one frame: a
//! cluster of many shards sends its heartbeats as one frame a wake and node.
//!
//! Both ends prove that they know the cluster's secret (see [`hello`](self)); with certificates the
//! connection is mutual TLS besides. Nothing is delivered twice or out of order on one
//! connection, and nothing is sent again when a connection breaks: raft repeats what it must, and
//! whoever forwards requests is told by [`PeerEvents::link`].

mod accept;
mod dial;
pub mod frame;
mod hello;
mod outbox;
mod silence;
mod stream;

pub use accept::bind;
pub use stream::{Tls, TlsError};

use bytes::Bytes;
use outbox::Outbox;
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::LocalSet;

/// Which of a node's uses a message is for. Lanes do not wait for each other's queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Raft: dropped when the queue is full, as on any lossy network.
    Raft,
    /// Client requests forwarded to the leader and their answers.
    Forward,
    /// Snapshots and other bulk.
    Bulk,
}

/// A message from another node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerMessage {
    pub lane: Lane,
    /// The shard it is about.
    pub shard: u32,
    pub bytes: Bytes,
}

/// What a link tells. Called on the link's thread; must not block.
pub trait PeerEvents: Send + Sync + 'static {
    /// Messages of one wake, in the order sent.
    fn deliver(&self, from: u64, batch: Vec<PeerMessage>);
    /// The peer's wall clock, ms since 1970, as it was a moment ago: with each ping and its answer.
    fn clock(&self, peer: u64, wall_ms: i64);
    /// [`Peers::send`] refused a message of [`Lane::Forward`] because too much waited, and now half
    /// of that has gone out.
    fn room(&self, peer: u64);
    /// A direction of the link came up or broke. `outgoing`: what this node sends.
    fn link(&self, peer: u64, outgoing: bool, up: bool);
}

/// One other node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerAddr {
    pub id: u64,
    /// `host:port` of its peer port.
    pub addr: String,
}

/// Settings of a node's links.
#[derive(Clone)]
pub struct PeerOptions {
    pub cluster_id: String,
    /// This node, never 0.
    pub node_id: u64,
    /// The others.
    pub peers: Vec<PeerAddr>,
    /// Known to all nodes and nobody else.
    pub secret: Vec<u8>,
    /// A digest of what both ends must agree on; who differs is refused.
    pub agreed: u64,
    /// Mutual TLS, when certificates are configured.
    pub tls: Option<Tls>,
    /// Longest frame. Longer messages are never sent and close the connection when received.
    pub max_frame: usize,
    /// Most bytes that wait for one peer, per lane.
    pub max_queued: usize,
    pub ping_every: Duration,
    /// See [`Peers::pulse`].
    pub pulse_every: Duration,
    /// A peer that is not heard for so long is taken for gone and dialled anew.
    pub silent_after: Duration,
    /// Longest a connection may take to open and to prove itself.
    pub handshake_within: Duration,
    /// Wait after a failed attempt; doubles up to the second.
    pub backoff: (Duration, Duration),
}

impl PeerOptions {
    /// The times and limits of the product.
    pub fn new(cluster_id: impl Into<String>, node_id: u64, peers: Vec<PeerAddr>) -> Self {
        Self {
            cluster_id: cluster_id.into(),
            node_id,
            peers,
            secret: Vec::new(),
            agreed: 0,
            tls: None,
            max_frame: 32 << 20,
            max_queued: 64 << 20,
            ping_every: Duration::from_millis(500),
            pulse_every: Duration::from_millis(10),
            silent_after: Duration::from_secs(2),
            handshake_within: Duration::from_secs(3),
            backoff: (Duration::from_millis(50), Duration::from_secs(1)),
        }
    }
}

/// State of the way to one peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LinkState {
    /// This node can send to the peer.
    pub outgoing: bool,
    /// The peer can send to this node.
    pub incoming: bool,
    /// Connections opened since the start.
    pub connects: u64,
    /// Messages dropped because too many waited.
    pub dropped: u64,
    /// Bytes waiting.
    pub queued: u64,
    /// The newest version of the protocol that the peer speaks; 0 before the first connection.
    pub version: u16,
}

impl Shared {
    fn outbox(&self, peer: u64) -> Option<Arc<Outbox>> {
        self.boxes.read().get(&peer).cloned()
    }
}

struct Shared {
    options: PeerOptions,
    /// Random, so that a restarted process is told from a second one with the same id.
    incarnation: u64,
    boxes: RwLock<BTreeMap<u64, Arc<Outbox>>>,
    added: mpsc::UnboundedSender<PeerAddr>,
    events: Arc<dyn PeerEvents>,
    pulse: AtomicU64,
}

/// The links of one node. Cheap to clone, usable from any thread; [`PeerLinks`] ends them.
#[derive(Clone)]
pub struct Peers {
    shared: Arc<Shared>,
}

/// The thread behind [`Peers`].
pub struct PeerLinks {
    peers: Peers,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
    local: SocketAddr,
}

impl Peers {
    /// Queues a message; it goes out at the next wake of the link. `false` when it was dropped:
    /// the peer is unknown or not connected, or too much waits for it.
    pub fn send(&self, to: u64, lane: Lane, shard: u32, bytes: Bytes) -> bool {
        match self.shared.outbox(to) {
            Some(outbox) => outbox.push(lane, shard, bytes, self.shared.options.max_frame),
            None => false,
        }
    }

    /// Lets in another node and dials it. `false` when it is this node or known already.
    pub fn add(&self, peer: PeerAddr) -> bool {
        let options = &self.shared.options;
        let mut boxes = self.shared.boxes.write();
        if peer.id == 0 || peer.id == options.node_id || boxes.contains_key(&peer.id) {
            return false;
        }
        boxes.insert(peer.id, Arc::new(Outbox::new(options.max_queued)));
        self.shared.added.send(peer).is_ok()
    }

    /// The way to each peer now.
    pub fn states(&self) -> BTreeMap<u64, LinkState> {
        let boxes = self.shared.boxes.read();
        boxes.iter().map(|(id, b)| (*id, b.state())).collect()
    }

    /// The peer, as far as it was met, is of a version that tells about itself when a link opens.
    pub fn has_words(&self, peer: u64) -> bool {
        let state = self.shared.outbox(peer).map(|b| b.state());
        state.is_some_and(|s| s.version >= hello::AGREES)
    }

    /// The peer can be told what versions before did not know: settings, and how far it is.
    pub fn takes_words(&self, peer: u64) -> bool {
        let state = self.shared.outbox(peer).map(|b| b.state());
        state.is_some_and(|s| s.outgoing && s.version >= hello::AGREES)
    }

    /// Counts how often the links' thread has read all that had come. While it stands still, what
    /// peers said may wait here: their silence proves nothing.
    pub fn pulse(&self) -> u64 {
        self.shared.pulse.load(Ordering::Acquire)
    }

    /// Both directions of the link are up.
    pub fn connected(&self, peer: u64) -> bool {
        let state = self.shared.outbox(peer).map(|b| b.state());
        state.is_some_and(|s| s.outgoing && s.incoming)
    }
}

impl PeerLinks {
    /// Accepts on `listener` and dials every peer, until dropped or stopped.
    pub fn start(
        listener: TcpListener,
        options: PeerOptions,
        events: Arc<dyn PeerEvents>,
    ) -> std::io::Result<Self> {
        let local = listener.local_addr()?;
        let boxes = options
            .peers
            .iter()
            .filter(|p| p.id != options.node_id)
            .map(|p| (p.id, Arc::new(Outbox::new(options.max_queued))))
            .collect();
        let mut random = [0u8; 8];
        getrandom::fill(&mut random).map_err(|e| std::io::Error::other(e.to_string()))?;
        let (added, more) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            options,
            incarnation: u64::from_be_bytes(random),
            boxes: RwLock::new(boxes),
            added,
            events,
            pulse: AtomicU64::new(0),
        });
        let peers = Peers {
            shared: shared.clone(),
        };
        let (stop, stopped) = watch::channel(false);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let thread = std::thread::Builder::new()
            .name("peer-links".to_owned())
            .spawn(move || {
                LocalSet::new().block_on(&runtime, run(listener, shared, more, stopped));
                // A name look-up may still run.
                runtime.shutdown_timeout(Duration::from_millis(100));
            })?;
        Ok(Self {
            peers,
            stop,
            thread: Some(thread),
            local,
        })
    }

    /// The handle for senders.
    pub fn peers(&self) -> Peers {
        self.peers.clone()
    }

    /// The peer port as bound.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Closes every connection and joins the thread.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for PeerLinks {
    fn drop(&mut self) {
        self.end();
    }
}

/// What a peer is told of this machine's clock.
fn wall_ms() -> i64 {
    let since = std::time::UNIX_EPOCH.elapsed();
    since.map_or(0, |d| d.as_millis() as i64)
}

/// Beats while the thread runs. Whatever woke together with it is served first.
async fn beat(shared: Arc<Shared>) {
    let mut beats = tokio::time::interval(shared.options.pulse_every);
    beats.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        beats.tick().await;
        tokio::task::yield_now().await;
        shared.pulse.fetch_add(1, Ordering::Release);
    }
}

async fn run(
    listener: TcpListener,
    shared: Arc<Shared>,
    mut more: mpsc::UnboundedReceiver<PeerAddr>,
    mut stop: watch::Receiver<bool>,
) {
    let mut tasks = Vec::new();
    let dial = |peer: PeerAddr| {
        let outbox = shared.outbox(peer.id)?;
        let dial = dial::run(shared.clone(), peer, outbox);
        Some(tokio::task::spawn_local(dial))
    };
    tasks.extend(shared.options.peers.iter().cloned().filter_map(dial));
    tasks.push(tokio::task::spawn_local(beat(shared.clone())));
    let accept = accept::run(listener, shared.clone());
    tasks.push(tokio::task::spawn_local(accept));
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            Some(peer) = more.recv() => tasks.extend(dial(peer)),
        }
    }
    for task in tasks {
        task.abort();
        let _ = task.await;
    }
}
