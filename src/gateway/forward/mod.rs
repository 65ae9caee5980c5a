//! Any replica takes any request of its shard: one that does not lead hands the client's frames to
//! the node that leads, over the peer link, and gives the answers back as its own.
//!
//! At the leader the client has a connection like any other, only that its bytes come and go by
//! the link; so registrations, locks, long polls and requests to clients work the same. The node
//! that holds the socket keeps each request until it is answered. A request that the other end did
//! not begin goes to the next leader; one that it may have done goes again only when doing it
//! twice is doing it once, and a send is answered "not available" for the client to decide. While
//! nobody leads, requests wait a little.
//!
//! A leader knows its clients by their heartbeats, which come every 30 s. Every connection
//! remembers its last one, and a new leader hears all of them at once; [`known`] has those whose
//! connections went with the nodes that had them.

mod beat;
pub mod book;
mod known;
mod local;
mod outward;
mod tunnel;
pub mod wire;

pub use local::{again, begins, ended, in_order, is_current, keep, only_once, Kept, Refused};
pub use outward::{closed, drain, takes, takes_answer, Outward};
pub use tunnel::{Tunnel, Tunnels};

use super::inbox::{thread_of, Inbox};
use super::worker::Worker;
use crate::actors::shard::status::{Lead, ShardStatus};
use crate::peer::{Lane, Peers};
use crate::telemetry::ShardMetrics;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use wire::{Said, Talk};

/// How often waiting requests are looked at.
pub const SWEEP: Duration = Duration::from_millis(20);

/// What is to be said of a connection: epoch, number, words.
type Owed = (u64, u64, Said);

/// The way to the other replicas of the gateway's shard.
pub struct Forward {
    peers: Peers,
    shard: u32,
    node: u64,
    status: Arc<ShardStatus>,
    /// Per peer: the number of the present link.
    epochs: Mutex<BTreeMap<u64, u64>>,
    next_epoch: AtomicU64,
    /// Per peer: what it has to be told and there was no room for.
    owed: Mutex<BTreeMap<u64, VecDeque<Owed>>>,
    /// Bytes of requests that wait or are with the leader.
    held: Arc<AtomicU64>,
    max_held: u64,
    /// Requests that wait for a leader.
    pub waiting: AtomicU64,
    pub metrics: ShardMetrics,
    known: Mutex<known::KnownClients>,
}

/// What a gateway is given to forward.
#[derive(Clone)]
pub struct ForwardDeps {
    pub peers: Peers,
    pub shard: u32,
    pub node: u64,
    pub status: Arc<ShardStatus>,
}

/// Bytes counted as held; given back when dropped.
pub struct Held {
    of: Arc<AtomicU64>,
    bytes: u64,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.of.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Forward {
    /// `max_held` bounds the bytes of requests that wait.
    pub fn new(deps: ForwardDeps, max_held: u64, now_ms: i64, metrics: ShardMetrics) -> Self {
        Self {
            peers: deps.peers,
            shard: deps.shard,
            node: deps.node,
            status: deps.status,
            epochs: Mutex::default(),
            // Later starts of the process have larger numbers.
            next_epoch: AtomicU64::new((now_ms.max(1) as u64) << 16),
            owed: Mutex::default(),
            held: Arc::default(),
            max_held,
            waiting: AtomicU64::new(0),
            metrics,
            known: Mutex::default(),
        }
    }

    /// This node leads the shard and serves.
    pub fn serving(&self) -> bool {
        self.status.serving()
    }

    /// This node has a part in the shard.
    pub fn is_member(&self) -> bool {
        self.status.is_member()
    }

    /// This node leads and knows that nobody else can.
    pub fn current(&self) -> bool {
        self.status.current()
    }

    /// A number for each time of serving of this node.
    fn serving_since(&self) -> u64 {
        self.status.times_served()
    }

    /// Who leads.
    pub fn lead(&self) -> Lead {
        *self.status.lead().borrow()
    }

    /// Nodes whose followers hold nearly everything; known to the leader.
    pub fn readers(&self) -> Vec<u64> {
        self.status.readers()
    }

    /// Told of every change of leader.
    pub fn watch(&self) -> watch::Receiver<Lead> {
        self.status.lead()
    }

    /// The link to this peer as numbered now; `None` when it is not up.
    fn epoch(&self, peer: u64) -> Option<u64> {
        // Held while the link is looked at: one that breaks then takes its number along.
        let mut epochs = self.epochs.lock();
        if !self.peers.connected(peer) {
            return None;
        }
        Some(*epochs.entry(peer).or_insert_with(|| self.next_number()))
    }

    /// A number that is larger than all before.
    fn next_number(&self) -> u64 {
        self.next_epoch.fetch_add(1, Ordering::Relaxed)
    }

    /// The other node that leads and can be reached, with its link.
    fn leader(&self) -> Option<(u64, u64)> {
        let lead = self.lead();
        if lead.leader == 0 || lead.leader == self.node {
            return None;
        }
        self.epoch(lead.leader).map(|epoch| (lead.leader, epoch))
    }

    fn send(&self, to: u64, epoch: u64, conn: u64, said: Said) -> bool {
        self.try_send(to, epoch, conn, said).is_ok()
    }

    /// Gives back what the link does not take: it has too much already, and will say when it has
    /// room ([`ForwardInput::room`]), or it is down, and will say when it is up.
    fn try_send(&self, to: u64, epoch: u64, conn: u64, said: Said) -> Result<(), Said> {
        let talk = Talk { epoch, conn, said };
        let bytes = talk.encode();
        match self.peers.send(to, Lane::Forward, self.shard, bytes) {
            true => Ok(()),
            false => Err(talk.said),
        }
    }

    /// Says what the other node has to know: when the link has no room, once it has. A link that
    /// breaks tells it all the same.
    fn tell(&self, to: u64, epoch: u64, conn: u64, said: Said) {
        // Held while it is tried: no word of room comes in between.
        let mut owed = self.owed.lock();
        let waits = owed.get(&to).is_some_and(|owed| !owed.is_empty());
        let kept = match waits {
            true => Err(said),
            false => self.try_send(to, epoch, conn, said),
        };
        if let (Err(said), true) = (kept, self.peers.connected(to)) {
            owed.entry(to).or_default().push_back((epoch, conn, said));
        }
    }

    /// The link to a node has room.
    fn pay(&self, to: u64) {
        let mut owed = self.owed.lock();
        let Some(waiting) = owed.get_mut(&to) else {
            return;
        };
        while let Some((epoch, conn, said)) = waiting.pop_front() {
            if let Err(said) = self.try_send(to, epoch, conn, said) {
                waiting.push_front((epoch, conn, said));
                return;
            }
        }
        owed.remove(&to);
    }

    fn hold(&self, bytes: u64) -> Option<Held> {
        let before = self.held.fetch_add(bytes, Ordering::Relaxed);
        let held = Held {
            of: self.held.clone(),
            bytes,
        };
        (before + bytes <= self.max_held).then_some(held)
    }
}

/// Takes in what other nodes say to this shard's gateway. Cheap to clone, usable from any thread.
#[derive(Clone)]
pub struct ForwardInput {
    pub(super) forward: Arc<Forward>,
    pub(super) inboxes: Arc<Vec<Arc<Inbox>>>,
    pub(super) thread_base: usize,
}

impl ForwardInput {
    /// A message of node `from`. Nonsense is dropped: it is authenticated, so it is a defect.
    pub fn deliver(&self, from: u64, bytes: Bytes) {
        let Some(talk) = Talk::decode(bytes) else {
            tracing::error!(from, "a forwarded message makes no sense");
            return;
        };
        let thread = if talk.to_leader() {
            // All of one connection go to one thread.
            (talk.conn ^ (talk.conn >> 48)) as usize % self.inboxes.len().max(1)
        } else {
            match thread_of(talk.conn).checked_sub(self.thread_base) {
                Some(thread) => thread,
                None => return,
            }
        };
        if let Some(inbox) = self.inboxes.get(thread) {
            inbox.put(|mail| mail.forwarding.push(Event::Said(from, talk)));
        }
    }

    /// The queue of the link to `peer` has room again, after it had too little.
    pub fn room(&self, peer: u64) {
        self.forward.pay(peer);
        for inbox in self.inboxes.iter() {
            inbox.put(|mail| mail.forwarding.push(Event::Room(peer)));
        }
    }

    /// A direction of the link to `peer` came up or broke.
    pub fn link(&self, peer: u64, up: bool) {
        if !up {
            self.forward.owed.lock().remove(&peer);
        }
        let broken = match up {
            true => None,
            false => self.forward.epochs.lock().remove(&peer),
        };
        for (n, inbox) in self.inboxes.iter().enumerate() {
            inbox.put(|mail| match up {
                true => {
                    mail.lead_changed = true;
                    mail.forwarding.push(Event::Up(peer, n == 0));
                }
                false => mail.forwarding.push(Event::Lost(peer, broken)),
            });
        }
    }
}

/// What happened on the links to other nodes.
pub enum Event {
    /// A node says something.
    Said(u64, Talk),
    /// The link to a node broke, and the number under which it was used from here.
    Lost(u64, Option<u64>),
    /// A link to a node came up; whether this thread speaks for the whole node.
    Up(u64, bool),
    /// The queue of the link to a node has room again.
    Room(u64),
}

/// A thread's mail about forwarding.
#[derive(Default)]
pub struct ForwardMail {
    /// In the order in which it happened.
    pub events: Vec<Event>,
    pub lead_changed: bool,
    pub sweep: bool,
}

/// Handles it.
pub fn handle(worker: &Rc<Worker>, mail: ForwardMail) {
    let Some(forward) = worker.shared.forward.clone() else {
        return;
    };
    for event in mail.events {
        match event {
            Event::Lost(peer, link) => {
                tunnel::link_lost(worker, peer);
                if let Some(link) = link {
                    outward::link_lost(worker, &forward, peer, link);
                }
            }
            Event::Up(peer, all) => {
                known::tell(worker, &forward, peer, all);
                tunnel::room(worker, peer);
            }
            Event::Room(peer) => {
                tunnel::room(worker, peer);
                outward::room(worker, &forward);
            }
            Event::Said(_, talk) if matches!(talk.said, Said::Known { .. }) => {
                known::told(worker, &forward, talk);
            }
            Event::Said(from, talk) if talk.to_leader() => tunnel::said(worker, from, talk),
            Event::Said(from, talk) => outward::said(worker, &forward, from, talk),
        }
    }
    if mail.lead_changed {
        outward::lead_changed(worker, &forward);
    }
    if mail.sweep {
        outward::sweep(worker, &forward);
    }
}
