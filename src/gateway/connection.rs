//! One client connection: its limits, what it waits for, and one write a wake.

use super::accept::{Accepted, Service};
use super::flow::Flow;
use super::forward::{Outward, Tunnel};
use super::pull::StalePulls;
use super::quota;
use super::quota::Creations;
use super::relay;
use super::shared::Shared;
use super::ticket::Ticket;
use super::worker::Worker;
use crate::actors::clock::boot_ms;
use crate::actors::link::{ConnId, Notice};
use crate::model::outcome::{Refusal, Token};
use crate::model::quota::QuotaKind;
use crate::model::QueueKey;
use crate::wire::remoting::{Command, Language};
use rustc_hash::FxHashMap;
use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::sync::{oneshot, Notify};

/// Notices held while a heartbeat is under way. More would be from as many groups; those then
/// rebalance by their own clock.
const MAX_HELD: usize = 1_024;
/// Requests to this client that may wait for its answer.
const MAX_CALLS: usize = 1_024;

/// One client connection. Lives on its gateway thread.
pub struct Conn {
    pub id: ConnId,
    pub peer: SocketAddr,
    pub local: SocketAddr,
    pub service: Service,
    pub worker: Rc<Worker>,
    pub(super) way: Way,
    /// What other nodes know of it.
    pub outward: RefCell<Outward>,
    /// What goes out, and whether requests are read.
    pub(super) flow: Flow,
    closed: Cell<bool>,
    lost: Cell<bool>,
    was_quiet: Cell<bool>,
    /// Rings the connection's own task: written, closed, or room for requests again.
    kick: Notify,
    opaque: Cell<i32>,
    /// See [`Conn::reads_tunnelled`].
    reading: Cell<u64>,
    calls: RefCell<FxHashMap<i32, oneshot::Sender<Command>>>,
    /// Heartbeats under way, and what the client is told once they are answered.
    heartbeats: Cell<u32>,
    held_notices: RefCell<Vec<Notice>>,
    /// Parked pulls, to be taken back when the connection closes.
    parked: RefCell<FxHashMap<Token, QueueKey>>,
    stale_pulls: RefCell<StalePulls>,
    last_used: Cell<Instant>,
    language: Cell<Language>,
    routes: Cell<bool>,
    /// Nothing for the many that create nothing.
    creations: RefCell<Option<Box<Creations>>>,
    _permit: Option<super::limits::ConnectionPermit>,
}

/// How its bytes come and go.
pub(super) enum Way {
    Socket(TcpStream),
    /// By another node, which has the socket.
    Tunnel(Box<Tunnel>),
}

/// What happens to unsent bytes when the last handle is dropped; `None`: they are still sent.
fn linger<'a, S>(stream: &'a S, time: Option<Duration>)
where
    socket2::SockRef<'a>: From<&'a S>,
{
    if let Err(error) = socket2::SockRef::from(stream).set_linger(time) {
        tracing::debug!(%error, "SO_LINGER");
    }
}

/// First number of requests to a tunnelled client; its own node counts from 0.
const TUNNEL_OPAQUE: i32 = 1 << 30;

impl Conn {
    /// Takes over an accepted stream.
    pub fn open(worker: &Rc<Worker>, id: ConnId, accepted: Accepted) -> std::io::Result<Rc<Self>> {
        accepted.stream.set_nonblocking(true)?;
        accepted.stream.set_nodelay(true)?;
        // If this process is killed, clients see a reset at once instead of an orderly end: Java
        // clients of 4.9 fail and retry what is under way only on a reset, else they wait for
        // their timeouts. `Conn::close` takes it back.
        linger(&accepted.stream, Some(Duration::ZERO));
        let stream = TcpStream::from_std(accepted.stream)?;
        let canonical = |a: SocketAddr| SocketAddr::new(a.ip().to_canonical(), a.port());
        let local = canonical(stream.local_addr()?);
        let peer = canonical(accepted.peer);
        let mut conn = Self::new(worker, id, peer, local, Way::Socket(stream));
        conn.service = accepted.service;
        conn._permit = Some(accepted.permit);
        Ok(Rc::new(conn))
    }

    /// A connection of a client whose socket another node has.
    pub fn tunnelled(
        worker: &Rc<Worker>,
        id: ConnId,
        peer: SocketAddr,
        local: SocketAddr,
        tunnel: Tunnel,
    ) -> Rc<Self> {
        let conn = Self::new(worker, id, peer, local, Way::Tunnel(Box::new(tunnel)));
        conn.opaque.set(TUNNEL_OPAQUE);
        Rc::new(conn)
    }

    fn new(worker: &Rc<Worker>, id: ConnId, peer: SocketAddr, local: SocketAddr, way: Way) -> Self {
        Self {
            id,
            peer,
            local,
            service: Service::Broker,
            worker: worker.clone(),
            way,
            outward: RefCell::default(),
            flow: Flow::default(),
            closed: Cell::new(false),
            lost: Cell::new(false),
            was_quiet: Cell::new(false),
            kick: Notify::new(),
            opaque: Cell::new(0),
            reading: Cell::new(0),
            stale_pulls: Default::default(),
            calls: RefCell::default(),
            heartbeats: Cell::new(0),
            held_notices: RefCell::default(),
            parked: RefCell::default(),
            last_used: Cell::new(Instant::now()),
            routes: Cell::new(false),
            language: Cell::new(Language::OTHER),
            creations: RefCell::default(),
            _permit: None,
        }
    }

    /// Another node has its socket.
    pub fn is_tunnel(&self) -> bool {
        matches!(self.way, Way::Tunnel(_))
    }

    /// It was closed.
    pub fn is_closed(&self) -> bool {
        self.closed.get()
    }

    /// Wakes the connection's task.
    pub fn kick(&self) {
        self.kick.notify_one();
    }

    /// Waits for [`Conn::kick`].
    pub async fn kicked(&self) {
        self.kick.notified().await;
    }

    /// The next request has this number at the node with the socket; 0: none.
    pub fn reads_tunnelled(&self, number: u64) {
        self.reading.set(number);
    }

    /// The number of the request that is read now.
    pub fn tunnelled_number(&self) -> u64 {
        self.reading.get()
    }

    /// Whether the request that is read now may begin here (`able`: this node can do it). Else the
    /// node with the socket finds another.
    pub fn admits_tunnelled(self: &Rc<Self>, code: i32, able: bool) -> bool {
        let Way::Tunnel(tunnel) = &self.way else {
            return able;
        };
        let admits = tunnel.admits(code, able);
        if !admits {
            self.refuse_tunnelled(code, self.reading.get());
        }
        admits
    }

    /// This request was not begun: the node with the socket finds another that does it.
    pub fn refuse_tunnelled(self: &Rc<Self>, code: i32, number: u64) {
        if let Way::Tunnel(tunnel) = &self.way {
            tunnel.refuse(code, number);
            self.write_soon(|_| {});
        }
    }

    /// What follows is in order again.
    pub fn go_on_tunnelled(&self) {
        if let Way::Tunnel(tunnel) = &self.way {
            tunnel.go_on();
        }
    }

    /// The link that it comes by may take more than it did.
    pub fn unblock_tunnelled(&self) {
        if let Way::Tunnel(tunnel) = &self.way {
            tunnel.unblock();
        }
    }

    /// What this node refused of a tunnelled client may be begun here now.
    pub fn serves_tunnelled(self: &Rc<Self>) {
        match &self.way {
            Way::Tunnel(tunnel) if tunnel.serves() => self.write_soon(|_| {}),
            _ => {}
        }
    }

    /// Only the node with the socket can tell the client that a request may have been done.
    pub fn unsure_tunnelled(&self, number: u64) {
        if let Way::Tunnel(tunnel) = &self.way {
            tunnel.unsure(number);
        }
    }

    /// A request of a tunnelled client is answered.
    pub fn tunnelled_done(self: &Rc<Self>, number: u64) {
        if let (Way::Tunnel(tunnel), 1..) = (&self.way, number) {
            tunnel.done.borrow_mut().push(number);
            self.write_soon(|_| {});
        }
    }

    /// The socket, when this node has it.
    pub fn socket(&self) -> Option<&TcpStream> {
        match &self.way {
            Way::Socket(stream) => Some(stream),
            Way::Tunnel(_) => None,
        }
    }

    /// When bytes came or went last.
    pub fn last_used(&self) -> Instant {
        self.last_used.get()
    }

    /// Bytes came.
    pub fn used(&self) {
        self.last_used.set(Instant::now());
    }

    /// The language of the request that was read last.
    pub fn set_language(&self, language: Language) {
        self.language.set(language);
    }

    /// Nobody answers what this client was asked.
    pub fn forget_calls(&self) {
        self.calls.borrow_mut().clear();
    }

    /// The parked pulls, which are no longer.
    pub fn take_parked(&self) -> FxHashMap<Token, QueueKey> {
        self.parked.take()
    }

    /// What all threads share.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.worker.shared
    }

    /// Whether this client may create so many more in this minute; they count then.
    ///
    /// Decided here, where the request is done, also for a client whose socket another node has: only
    /// the leader knows what is new, and takes of a heartbeat the groups that fit. A tunnel stands for
    /// one connection, so nobody gets more by going to another node; a new leader counts from zero.
    pub fn may_create(&self, kind: QuotaKind, more: usize) -> Result<(), Refusal> {
        let shared = self.shared();
        let limit = quota::limit(&shared.config, kind);
        let mut creations = self.creations.borrow_mut();
        let creations = creations.get_or_insert_default();
        let result = creations.take(kind, more as u64, u64::from(limit), boot_ms());
        if let (Err(why), Some(broker)) = (&result, &shared.broker) {
            broker.shard.status().quota_refused(why.kind);
        }
        Ok(result?)
    }

    /// The local address the client reached.
    pub fn local_ip(&self) -> IpAddr {
        self.local.ip()
    }

    /// The language of the client's last request.
    pub fn language(&self) -> Language {
        self.language.get()
    }

    /// No request waits for its answer, pulls that other nodes hold left out, and no bytes wait.
    pub fn is_quiet(&self) -> bool {
        let open = self.open_requests() as usize;
        self.unsent() == 0 && (open == 0 || open == self.outward.borrow().pulls())
    }

    /// The node stops. In a cluster by a reset: what the client sends in this very moment fails at
    /// once and is tried elsewhere. What was written has left by then: it was quiet before too.
    pub fn stop(&self) {
        match self.shared().forward.is_some() || self.open_requests() > 0 {
            true => self.abort("stop"),
            false => self.close("stop"),
        }
    }

    /// [`Conn::is_quiet`] now, and when this was asked before.
    pub fn stays_quiet(&self) -> bool {
        let quiet = self.is_quiet();
        self.was_quiet.replace(quiet) && quiet
    }

    /// Next number of a request to the client.
    pub fn next_opaque(&self) -> i32 {
        let next = self.opaque.get().wrapping_add(1);
        self.opaque.set(next);
        next
    }

    /// A number under which the client's answer reaches `answer`; `None` when too many wait.
    pub fn expect_answer(&self, answer: oneshot::Sender<Command>) -> Option<i32> {
        let mut calls = self.calls.borrow_mut();
        calls.retain(|_, waiting| !waiting.is_closed());
        if calls.len() >= MAX_CALLS {
            return None;
        }
        let opaque = self.next_opaque();
        calls.insert(opaque, answer);
        Some(opaque)
    }

    /// The client answered a request of ours; `false` when nobody here asked.
    pub fn answered(&self, command: Command) -> bool {
        match self.calls.borrow_mut().remove(&command.opaque) {
            Some(waiting) => {
                let _ = waiting.send(command);
                true
            }
            None => false,
        }
    }

    /// Sends a notice, or holds it while a heartbeat is under way: a Java client that rebalances
    /// while its heartbeat is unanswered cannot send the one that the rebalance asks for, and is
    /// then refused with "subscription not latest" until the next one, 30 s later.
    pub fn notify(self: &Rc<Self>, notice: &Notice) {
        if self.heartbeats.get() == 0 {
            return relay::send_notice(self, &self.shared().broker_name, notice);
        }
        let mut held = self.held_notices.borrow_mut();
        if !held.contains(notice) && held.len() < MAX_HELD {
            held.push(notice.clone());
        }
    }

    /// A heartbeat begins; drop the guard after its answer. See [`Conn::notify`].
    pub fn heartbeat(self: &Rc<Self>) -> HeartbeatGuard {
        self.heartbeats.set(self.heartbeats.get() + 1);
        HeartbeatGuard { conn: self.clone() }
    }

    fn heartbeat_ends(self: &Rc<Self>) {
        self.heartbeats.set(self.heartbeats.get().saturating_sub(1));
        if self.heartbeats.get() == 0 {
            for notice in self.held_notices.take() {
                relay::send_notice(self, &self.shared().broker_name, &notice);
            }
        }
    }

    /// A pull is ahead of its group's subscription; true when it is served all the same.
    pub fn stale_may_pass(&self, group: &str, topic: &str, version: i64) -> bool {
        let mut stale = self.stale_pulls.borrow_mut();
        stale.may_pass(group, topic, version, Instant::now())
    }

    /// A parked pull waits in the core of `key`.
    pub fn park(&self, token: Token, key: QueueKey) {
        self.parked.borrow_mut().insert(token, key);
    }

    /// Pulls parked now.
    pub fn parked_tokens(&self) -> Vec<Token> {
        self.parked.borrow().keys().copied().collect()
    }

    /// A parked pull was answered.
    pub fn unpark(&self, token: Token) {
        self.parked.borrow_mut().remove(&token);
    }

    /// It was told routes when this node knew its leaders.
    pub fn believes_routes(&self) {
        self.routes.set(true);
    }

    /// See [`Conn::believes_routes`].
    pub fn believed_routes(&self) -> bool {
        self.routes.get()
    }

    /// A request begins.
    pub fn ticket(self: &Rc<Self>, command: &Command) -> Ticket {
        Ticket::new(self, command)
    }

    /// Closes it; the task ends at its next step. What was written still reaches the client.
    pub fn close(&self, reason: &'static str) {
        if let (Way::Socket(stream), false) = (&self.way, self.closed.get()) {
            linger(stream, None);
        }
        self.abort(reason);
    }

    /// Closes it by a reset: the client takes everything under way for failed, now.
    pub fn abort(&self, reason: &'static str) {
        if !self.closed.replace(true) {
            self.shared().metrics.connections_closed(reason).inc();
            self.flow.clear();
            if let Way::Tunnel(tunnel) = &self.way {
                tunnel.close();
            }
            self.kick.notify_one();
        }
    }

    /// It goes with the node that has the client's socket: the client has not left.
    pub fn lose(&self) {
        self.lost.set(true);
    }

    /// See [`Conn::lose`].
    pub fn is_lost(&self) -> bool {
        self.lost.get()
    }
}

/// A heartbeat under way.
pub struct HeartbeatGuard {
    conn: Rc<Conn>,
}

impl Drop for HeartbeatGuard {
    fn drop(&mut self) {
        self.conn.heartbeat_ends();
    }
}

#[cfg(test)]
mod tests {
    use super::super::serve::serve;
    use super::*;

    fn size_of_task<F>(_: impl Fn(Rc<Conn>) -> F) -> usize {
        std::mem::size_of::<F>()
    }

    #[test]
    fn an_idle_connection_is_small() {
        assert!(size_of_task(serve) <= 1024, "{}", size_of_task(serve));
        assert!(std::mem::size_of::<Conn>() <= 768);
    }
}
