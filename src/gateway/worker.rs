//! One gateway thread: its connections, the requests that wait for a core, and the loop that
//! turns mail into writes.

use super::accept::{Accepted, Service};
use super::connection::Conn;
use super::forward::{self, ForwardMail, Tunnel, Tunnels};
use super::inbox::{conn_id, Inbox, Mail};
use super::relay;
use super::serve;
use super::shared::{now_ms, Shared};
use super::slots::Slots;
use super::{pull, send};
use crate::actors::link::ConnId;
use crate::model::outcome::{Outcome, Token};
use crate::model::TopicId;
use crate::telemetry::TopicMetrics;
use crate::wire::message::ids::UniqKeys;
use bytes::BytesMut;
use rustc_hash::{FxHashMap, FxHashSet};
use std::cell::{Cell, RefCell, RefMut};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Topics whose counters a thread keeps at hand.
const TOPIC_CACHE: usize = 4_096;

/// How often a stopping thread looks whether it is done.
const STOP_POLL: Duration = Duration::from_millis(20);

/// A request that waits for a core.
pub enum Waiting {
    /// A send; see [`send::SendWaiting`].
    Send(Box<send::SendWaiting>),
    /// A parked pull.
    Pull(Box<pull::PullWaiting>),
    /// A task of this thread.
    Task(oneshot::Sender<Outcome>),
}

/// State of one gateway thread. Never leaves it.
pub struct Worker {
    pub shared: Arc<Shared>,
    pub inbox: Arc<Inbox>,
    /// Number of this thread's sink.
    sink: u32,
    index: usize,
    sequence: Cell<u64>,
    slots: RefCell<Slots<Waiting>>,
    conns: RefCell<FxHashMap<ConnId, Rc<Conn>>>,
    dirty: RefCell<Vec<Rc<Conn>>>,
    topics: RefCell<FxHashMap<TopicId, Arc<TopicMetrics>>>,
    keys: UniqKeys,
    random: Cell<u32>,
    /// Where connections without a frame half read read into, one after the other.
    read_buffer: Cell<BytesMut>,
    /// What is added to every message.
    pub broker_props: send::BrokerProps,
    scratch: RefCell<Vec<u8>>,
    /// Clients that are connected to other nodes.
    pub tunnels: Tunnels,
    /// The last term that this thread knows this node served in.
    pub served_term: Cell<u64>,
    /// And since when it knows.
    pub served_since: Cell<Instant>,
    /// When the mail that is handled now was taken: the end of all latencies of one go.
    pub mail_at: Cell<Instant>,
}

impl Worker {
    /// The worker number `index`; its inbox is already registered as sink `sink`.
    pub fn new(shared: Arc<Shared>, inbox: Arc<Inbox>, sink: u32, index: usize) -> Rc<Self> {
        let seed = (now_ms() as u32) ^ ((index as u32 + 1) << 24);
        let ip = shared.broker_ip.unwrap_or(IpAddr::from([127, 0, 0, 1]));
        Rc::new(Self {
            keys: UniqKeys::new(ip, std::process::id(), seed),
            random: Cell::new(seed | 1),
            broker_props: send::BrokerProps::new(&shared.config.cluster_name),
            scratch: RefCell::default(),
            shared,
            inbox,
            sink,
            index,
            sequence: Cell::new(0),
            slots: RefCell::default(),
            conns: RefCell::default(),
            dirty: RefCell::default(),
            topics: RefCell::default(),
            read_buffer: Cell::default(),
            tunnels: Tunnels::default(),
            served_term: Cell::new(0),
            served_since: Cell::new(Instant::now()),
            mail_at: Cell::new(Instant::now()),
        })
    }

    /// Remembers who waits and gives the token a core answers to.
    pub fn token(&self, waiting: Waiting) -> Token {
        Token {
            sink: self.sink,
            slot: self.slots.borrow_mut().insert(waiting),
        }
    }

    /// Forgets a token whose answer is no longer wanted.
    pub fn forget(&self, token: Token) -> Option<Waiting> {
        self.slots.borrow_mut().remove(token.slot)
    }

    /// A token for a pull that parks; the pull has to know its own token.
    pub fn park_token(&self, make: impl FnOnce(Token) -> pull::PullWaiting) -> Token {
        let sink = self.sink;
        let mut slots = self.slots.borrow_mut();
        let slot = slots.insert_with(|slot| Waiting::Pull(Box::new(make(Token { sink, slot }))));
        Token { sink, slot }
    }

    /// Takes the held pulls that `concerned` names.
    pub fn held_pulls(
        &self,
        concerned: impl Fn(&pull::PullWaiting) -> bool,
    ) -> Vec<pull::PullWaiting> {
        let mut slots = self.slots.borrow_mut();
        let found = slots.numbers(|waiting| matches!(waiting, Waiting::Pull(p) if concerned(p)));
        let take = |slot| match slots.remove(slot) {
            Some(Waiting::Pull(pull)) => Some(*pull),
            _ => None,
        };
        found.into_iter().filter_map(take).collect()
    }

    /// A token for a task of this thread, and where its answer comes.
    pub fn task_token(&self) -> (Token, oneshot::Receiver<Outcome>) {
        let (done, outcome) = oneshot::channel();
        (self.token(Waiting::Task(done)), outcome)
    }

    /// A message id for a producer that made none.
    pub fn new_uniq_key(&self) -> String {
        self.keys.next(now_ms().unsigned_abs())
    }

    /// A number that spreads well; nothing may depend on it being hard to guess.
    pub fn next_random(&self) -> u32 {
        let mut x = self.random.get();
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        self.random.set(x);
        x
    }

    /// Room for the properties of one record; not to be held while anything else is called that
    /// encodes one.
    pub fn scratch(&self) -> RefMut<'_, Vec<u8>> {
        self.scratch.borrow_mut()
    }

    /// The counters of a topic.
    pub fn topic_metrics(&self, id: TopicId, name: &str) -> Arc<TopicMetrics> {
        let mut topics = self.topics.borrow_mut();
        if let Some(found) = topics.get(&id) {
            return found.clone();
        }
        if topics.len() >= TOPIC_CACHE {
            topics.clear();
        }
        let made = self.shared.metrics.topic(name);
        topics.insert(id, made.clone());
        made
    }

    /// An empty buffer for one burst. Between bursts a connection holds none, so that idle ones
    /// cost no room.
    pub fn read_buffer(&self) -> BytesMut {
        self.read_buffer.take()
    }

    /// Gives it back, empty.
    pub fn give_read_buffer(&self, buffer: BytesMut) {
        self.read_buffer.set(buffer);
    }

    /// A connection has bytes to write; they go out when the loop has seen all mail.
    pub fn mark_dirty(&self, conn: Rc<Conn>) {
        self.dirty.borrow_mut().push(conn);
        self.inbox.bell.notify_one();
    }

    /// Open connections.
    pub fn connections(&self) -> Vec<Rc<Conn>> {
        self.conns.borrow().values().cloned().collect()
    }

    /// The open connection with this number.
    pub fn connection(&self, id: u64) -> Option<Rc<Conn>> {
        self.conns.borrow().get(&ConnId(id)).cloned()
    }

    /// A closed connection leaves.
    pub fn remove(&self, id: ConnId) {
        self.conns.borrow_mut().remove(&id);
    }

    /// Handles mail, flushing each connection once per round, until the gateway stops and every
    /// request is answered or out of time.
    pub async fn run(self: Rc<Self>) {
        let mut stop_by: Option<Instant> = None;
        loop {
            if stop_by.is_some() {
                let bell = self.inbox.bell.notified();
                let _ = tokio::time::timeout(STOP_POLL, bell).await;
            } else {
                self.inbox.bell.notified().await;
            }
            let mail = self.inbox.take();
            let told = mail.stop_by;
            self.handle(mail);
            if told.is_some() {
                stop_by = told;
                self.release_parked();
            }
            self.flush();
            let Some(end) = stop_by else { continue };
            let late = Instant::now() >= end;
            let mut left = 0;
            for conn in self.connections() {
                if late || conn.stays_quiet() {
                    conn.stop();
                } else {
                    left += 1;
                }
            }
            // The tasks of closed connections clean up before the thread ends.
            tokio::task::yield_now().await;
            if late {
                // Connections and waiting requests hold each other and this worker.
                let waiting = self.slots.take();
                let conns = self.conns.take();
                drop((waiting, conns));
                self.dirty.take();
                return;
            }
            if left == 0 && self.conns.borrow().is_empty() {
                return;
            }
        }
    }

    /// Answers every held pull.
    fn release_parked(&self) {
        for conn in self.connections() {
            for token in conn.parked_tokens() {
                if let Some(Waiting::Pull(waiting)) = self.forget(token) {
                    pull::release(self, *waiting);
                }
            }
        }
    }

    fn handle(self: &Rc<Self>, mail: Mail) {
        self.mail_at.set(Instant::now());
        for accepted in mail.accepted {
            self.accept(accepted);
        }
        for completion in mail.completions {
            self.complete(completion.token, completion.outcome);
        }
        for group in &mail.recheck {
            pull::recheck(self, group);
        }
        let mut told = FxHashSet::default();
        for (id, notice) in &mail.notices {
            if !told.insert((*id, format!("{notice:?}"))) {
                continue;
            }
            let conn = self.conns.borrow().get(id).cloned();
            if let Some(conn) = conn {
                conn.notify(notice);
            }
        }
        if self.shared.forward.is_some() {
            let forwarding = ForwardMail {
                events: mail.forwarding,
                lead_changed: mail.lead_changed,
                sweep: mail.sweep,
            };
            forward::handle(self, forwarding);
        }
        for call in mail.calls {
            let conn = self.conns.borrow().get(&call.conn).cloned();
            if let Some(conn) = conn {
                relay::send_call(&conn, call);
            }
        }
    }

    fn complete(self: &Rc<Self>, token: Token, outcome: Outcome) {
        let Some(waiting) = self.slots.borrow_mut().remove(token.slot) else {
            return;
        };
        match waiting {
            Waiting::Send(waiting) => send::complete(self, waiting, outcome),
            Waiting::Pull(waiting) => pull::woken(self, *waiting, outcome),
            Waiting::Task(task) => {
                let _ = task.send(outcome);
            }
        }
    }

    /// Writes what connections have ready: one write each.
    pub fn flush(&self) {
        let dirty = std::mem::take(&mut *self.dirty.borrow_mut());
        for conn in dirty {
            conn.flush();
        }
    }

    fn new_id(&self) -> ConnId {
        let sequence = self.sequence.get() + 1;
        self.sequence.set(sequence);
        conn_id(self.index, sequence)
    }

    /// A client that is connected to another node.
    pub fn open_tunnel(
        self: &Rc<Self>,
        peer: SocketAddr,
        local: SocketAddr,
        tunnel: Tunnel,
    ) -> Rc<Conn> {
        let conn = Conn::tunnelled(self, self.new_id(), peer, local, tunnel);
        self.conns.borrow_mut().insert(conn.id, conn.clone());
        conn
    }

    fn accept(self: &Rc<Self>, accepted: Accepted) {
        if self.shared.is_stopping() {
            return;
        }
        let service: Service = accepted.service;
        let id = self.new_id();
        match Conn::open(self, id, accepted) {
            Ok(conn) => {
                self.conns.borrow_mut().insert(id, conn.clone());
                tokio::task::spawn_local(serve::serve(conn));
            }
            Err(error) => {
                tracing::debug!(listener = service.name(), %error, "connection lost at once");
            }
        }
    }
}
