//! One client connection: reads bursts of frames, keeps the limits, writes once a wake.

use super::accept::{Accepted, Service};
use super::dispatch;
use super::forward::{self, Outward, Tunnel};
use super::outbuf::{OutBuf, MAX_SLICES};
use super::pull::StalePulls;
use super::relay;
use super::reply::Reply;
use super::send::Burst;
use super::shared::{now_ms, Shared};
use super::worker::Worker;
use crate::actors::link::{ConnId, Notice};
use crate::model::outcome::Token;
use crate::model::QueueKey;
use crate::wire::remoting::{split_frame, Command, FrameLimits, Language};
use bytes::BytesMut;
use rustc_hash::FxHashMap;
use std::cell::{Cell, RefCell};
use std::io::{ErrorKind, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::sync::{oneshot, Notify};

/// Bytes asked for by one read.
const READ_CHUNK: usize = 64 * 1024;
/// Reads of one burst: then the burst is handled, so that one connection cannot keep a thread.
const READS_PER_BURST: usize = 4;
/// No more is read while so many bytes of answers wait.
const PAUSE_AT: usize = 1024 * 1024;
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
    way: Way,
    /// What other nodes know of it.
    pub outward: RefCell<Outward>,
    out: RefCell<OutBuf>,
    /// Bytes wait and the connection is in the worker's list already.
    listed: Cell<bool>,
    closed: Cell<bool>,
    /// Requests not answered yet.
    pending: Cell<u32>,
    /// Rings the connection's own task: written, closed, or room for requests again.
    kick: Notify,
    opaque: Cell<i32>,
    calls: RefCell<FxHashMap<i32, oneshot::Sender<Command>>>,
    /// Heartbeats under way, and what the client is told once they are answered.
    heartbeats: Cell<u32>,
    held_notices: RefCell<Vec<Notice>>,
    /// Parked pulls, to be taken back when the connection closes.
    parked: RefCell<FxHashMap<Token, QueueKey>>,
    stale_pulls: RefCell<StalePulls>,
    last_used: Cell<Instant>,
    language: Cell<Language>,
    _permit: Option<super::limits::ConnectionPermit>,
}

/// How its bytes come and go.
enum Way {
    Socket(TcpStream),
    /// By another node, which has the socket.
    Tunnel(Tunnel),
}

/// First number of requests to a tunnelled client; its own node counts from 0.
const TUNNEL_OPAQUE: i32 = 1 << 30;

/// A request that must be answered: dropped unanswered (its task died), it answers 1.
pub struct Ticket {
    conn: Rc<Conn>,
    opaque: i32,
    oneway: bool,
    code: i32,
    started: Instant,
    done: bool,
}

impl Conn {
    /// Takes over an accepted stream.
    pub fn open(worker: &Rc<Worker>, id: ConnId, accepted: Accepted) -> std::io::Result<Rc<Self>> {
        accepted.stream.set_nonblocking(true)?;
        accepted.stream.set_nodelay(true)?;
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
        let conn = Self::new(worker, id, peer, local, Way::Tunnel(tunnel));
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
            out: RefCell::default(),
            listed: Cell::new(false),
            closed: Cell::new(false),
            pending: Cell::new(0),
            kick: Notify::new(),
            opaque: Cell::new(0),
            stale_pulls: Default::default(),
            calls: RefCell::default(),
            heartbeats: Cell::new(0),
            held_notices: RefCell::default(),
            parked: RefCell::default(),
            last_used: Cell::new(Instant::now()),
            language: Cell::new(Language::OTHER),
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

    /// This node does not lead: the node with the socket finds another.
    pub fn refuse_tunnelled(self: &Rc<Self>, command: &Command) {
        if let Way::Tunnel(tunnel) = &self.way {
            if !command.is_oneway() {
                tunnel.refused.borrow_mut().push(command.opaque);
                self.write_soon(|_| {});
            }
        }
    }

    /// A request is with another node.
    pub fn begin_request(&self) {
        self.pending.set(self.pending.get() + 1);
    }

    /// A request begun by [`Conn::begin_request`] was answered.
    pub fn end_request(&self) {
        self.finish_request();
    }

    /// What all threads share.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.worker.shared
    }

    /// The local address the client reached.
    pub fn local_ip(&self) -> IpAddr {
        self.local.ip()
    }

    /// The language of the client's last request.
    pub fn language(&self) -> Language {
        self.language.get()
    }

    /// Requests not answered yet, and bytes not written yet.
    pub fn is_quiet(&self) -> bool {
        self.pending.get() == 0 && self.out.borrow().is_empty()
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
    fn answered(&self, command: Command) -> bool {
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

    /// A request begins.
    pub fn ticket(self: &Rc<Self>, command: &Command) -> Ticket {
        self.pending.set(self.pending.get() + 1);
        Ticket {
            conn: self.clone(),
            opaque: command.opaque,
            oneway: command.is_oneway(),
            code: command.code,
            started: Instant::now(),
            done: false,
        }
    }

    /// Appends to what is waiting to be written.
    pub fn write(&self, append: impl FnOnce(&mut OutBuf)) {
        if self.closed.get() {
            return;
        }
        let mut out = self.out.borrow_mut();
        let limit = self.shared().config.write_buffer_limit_bytes as usize;
        if out.len() > limit {
            drop(out);
            self.close("write_buffer");
            return;
        }
        append(&mut out);
    }

    /// [`Conn::write`], and the bytes go out at the end of this wake.
    pub fn write_soon(self: &Rc<Self>, append: impl FnOnce(&mut OutBuf)) {
        self.write(append);
        if !self.listed.replace(true) {
            self.worker.mark_dirty(self.clone());
        }
    }

    /// Writes what waits, as much as the socket takes.
    pub fn flush(&self) {
        self.listed.set(false);
        if self.closed.get() {
            return;
        }
        let mut out = self.out.borrow_mut();
        let stream = match &self.way {
            Way::Socket(stream) => stream,
            Way::Tunnel(tunnel) => {
                let sent = tunnel.send(out.take());
                drop(out);
                if !sent {
                    self.close("write_buffer");
                }
                return;
            }
        };
        while !out.is_empty() {
            let mut slices: Vec<IoSlice<'_>> = Vec::with_capacity(4);
            out.slices(&mut slices);
            let full = slices.len() == MAX_SLICES;
            let asked: usize = slices.iter().map(|s| s.len()).sum();
            match stream.try_write_vectored(&slices) {
                Ok(0) => {
                    drop(out);
                    return self.close("peer");
                }
                Ok(n) => {
                    out.written(n);
                    self.last_used.set(Instant::now());
                    if n < asked || !full {
                        break;
                    }
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(_) => {
                    drop(out);
                    return self.close("peer");
                }
            }
        }
        let left = !out.is_empty();
        drop(out);
        if left {
            self.kick.notify_one();
        }
    }

    /// Closes it; the task ends at its next step.
    pub fn close(&self, reason: &'static str) {
        if !self.closed.replace(true) {
            self.shared().metrics.connections_closed(reason).inc();
            self.out.borrow_mut().clear();
            if let Way::Tunnel(tunnel) = &self.way {
                tunnel.close();
            }
            self.kick.notify_one();
        }
    }

    /// There is room for another request.
    pub fn may_read(&self) -> bool {
        self.pending.get() < self.shared().config.max_pending_requests
            && self.out.borrow().len() < PAUSE_AT
    }

    fn finish_request(&self) {
        let before = self.pending.get();
        self.pending.set(before.saturating_sub(1));
        if before >= self.shared().config.max_pending_requests {
            self.kick.notify_one();
        }
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

impl Ticket {
    /// The connection the request came from.
    pub fn conn(&self) -> &Rc<Conn> {
        &self.conn
    }

    /// Whether nobody waits for the answer.
    pub fn is_oneway(&self) -> bool {
        self.oneway
    }

    /// When the request was read.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// The wait of a held pull is over: its latency counts from here.
    pub fn restart_clock(&mut self) {
        self.started = Instant::now();
    }

    /// Answers a pull that found nothing: with a code that is no error.
    pub fn answer_found_nothing(mut self, append: impl FnOnce(&mut OutBuf, i32)) {
        self.finish(0, append);
    }

    /// Answers with bytes that `append` writes; `code` is for the counters.
    pub fn answer_with(mut self, code: i32, append: impl FnOnce(&mut OutBuf, i32)) {
        self.finish(code, append);
    }

    fn finish(&mut self, code: i32, append: impl FnOnce(&mut OutBuf, i32)) {
        self.done = true;
        if code != 0 && !self.conn.closed.get() {
            self.conn.shared().metrics.request(self.code).errors.inc();
            self.conn.shared().metrics.error_response(code);
        }
        if !self.oneway {
            self.conn.write_soon(|out| append(out, self.opaque));
            if let Way::Tunnel(tunnel) = &self.conn.way {
                tunnel.done.borrow_mut().push(self.opaque);
            }
        }
        self.conn.finish_request();
    }

    /// Answers.
    pub fn answer(self, reply: Reply) {
        self.answer_with(reply.code, |out, opaque| reply.encode(opaque, out));
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.done {
            let reply = Reply::err(1, "the request was not finished");
            self.finish(1, |out, opaque| reply.encode(opaque, out));
        }
    }
}

/// Serves a connection until it closes, then cleans up after it.
pub async fn serve(conn: Rc<Conn>) {
    let gauge = conn.shared().metrics.connections(conn.service.name());
    gauge.inc();
    if let Way::Socket(stream) = &conn.way {
        run(&conn, stream).await;
    }
    gauge.dec();
    leave(&conn);
}

/// Cleans up after a connection.
pub fn leave(conn: &Rc<Conn>) {
    conn.close("peer");
    forward::closed(conn);
    conn.worker.remove(conn.id);
    conn.calls.borrow_mut().clear();
    let shared = conn.shared().clone();
    if let Some(registry) = &shared.registry {
        registry.conn_closed(conn.id);
    }
    let Some(broker) = &shared.broker else { return };
    broker.groups.conn_closed(conn.id);
    let mut by_queue: FxHashMap<QueueKey, Vec<Token>> = FxHashMap::default();
    for (token, key) in conn.parked.take() {
        conn.worker.forget(token);
        by_queue.entry(key).or_default().push(token);
    }
    for (key, tokens) in by_queue {
        broker.shard.unpark(key, tokens);
    }
}

async fn run(conn: &Rc<Conn>, stream: &TcpStream) {
    let config = conn.shared().config.clone();
    let idle = Duration::from_secs(config.idle_timeout_secs);
    let frame_deadline = Duration::from_secs(config.frame_deadline_secs);
    let tick =
        (idle.min(frame_deadline) / 4).clamp(Duration::from_millis(100), Duration::from_secs(10));
    let mut ticks = tokio::time::interval(tick);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut buf = BytesMut::new();
    // When the frame at the head of `buf` began, as long as it is not complete.
    let mut frame_since: Option<Instant> = None;
    loop {
        if conn.closed.get() {
            return;
        }
        if conn.shared().forward.is_some() {
            Box::pin(forward::drain(conn)).await;
        }
        let may_read = conn.may_read();
        let left = !conn.out.borrow().is_empty() && !conn.listed.get();
        if may_read && !buf.is_empty() {
            // Frames left over from a time without room for requests.
            let before = buf.len();
            if !Box::pin(handle_frames(conn, &mut buf)).await {
                return;
            }
            if buf.len() != before {
                frame_since = (!buf.is_empty()).then(Instant::now);
                continue;
            }
        }
        tokio::select! {
            () = conn.kick.notified() => {}
            ready = stream.writable(), if left => {
                if ready.is_err() {
                    return;
                }
                conn.flush();
            }
            ready = stream.readable(), if may_read => {
                if ready.is_err() {
                    return;
                }
                if buf.is_empty() {
                    buf = conn.worker.read_buffer();
                }
                let open = read_burst(conn, stream, &mut buf);
                let before = buf.len();
                // Boxed: an idle connection need not hold room for a request under way.
                if !Box::pin(handle_frames(conn, &mut buf)).await || !open {
                    return;
                }
                if buf.is_empty() {
                    frame_since = None;
                    conn.worker.give_read_buffer(std::mem::take(&mut buf));
                } else if buf.len() != before || frame_since.is_none() {
                    frame_since = Some(Instant::now());
                }
            }
            _ = ticks.tick() => {
                let now = Instant::now();
                if !may_read {
                    // The client is not to blame for a frame we do not read.
                    frame_since = frame_since.map(|_| now);
                }
                if frame_since.is_some_and(|since| now.duration_since(since) >= frame_deadline) {
                    conn.shared().bad_input("frame_deadline", conn.peer, &"frame not complete in time");
                    return conn.close("frame_deadline");
                }
                if now.duration_since(conn.last_used.get()) >= idle {
                    return conn.close("idle");
                }
                conn.out.borrow_mut().shrink();
            }
        }
    }
}

/// Reads what is there, up to a limit; `false` when the peer closed or the socket failed.
fn read_burst(conn: &Conn, stream: &TcpStream, buf: &mut BytesMut) -> bool {
    for _ in 0..READS_PER_BURST {
        buf.reserve(READ_CHUNK);
        match stream.try_read_buf(buf) {
            Ok(0) => return false,
            Ok(n) => {
                conn.last_used.set(Instant::now());
                if n < READ_CHUNK {
                    return true;
                }
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => return true,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(_) => return false,
        }
    }
    true
}

/// Handles the complete frames in `buf`; `false` closes the connection.
pub async fn handle_frames(conn: &Rc<Conn>, buf: &mut BytesMut) -> bool {
    let limits = FrameLimits {
        max_frame: conn.shared().config.max_frame_bytes as usize,
        ..FrameLimits::default()
    };
    let forward = conn.shared().forward.clone();
    let mut burst = Burst::new(now_ms());
    let mut open = true;
    while conn.pending.get() < conn.shared().config.max_pending_requests {
        let frame = match split_frame(buf, &limits) {
            Ok(Some(frame)) => frame,
            Ok(None) => break,
            Err(error) => {
                conn.shared().bad_input("frame", conn.peer, &error);
                open = false;
                break;
            }
        };
        let raw = forward.is_some().then(|| frame.clone());
        let command = match Command::decode(frame) {
            Ok(command) => command,
            Err(error) => {
                conn.shared().bad_input("header", conn.peer, &error);
                open = false;
                break;
            }
        };
        conn.language.set(command.language);
        if command.is_response() {
            let known = conn.answered(command);
            if let (false, Some(forward), Some(raw)) = (known, &forward, &raw) {
                forward::takes_answer(conn, forward, raw);
            }
            continue;
        }
        if let (Some(forward), Some(raw)) = (&forward, &raw) {
            if forward::takes(conn, forward, &command, raw) {
                continue;
            }
        }
        dispatch::request(conn, command, &mut burst).await;
        if conn.closed.get() {
            break;
        }
    }
    burst.submit();
    if !open {
        conn.flush();
        conn.close("bad_input");
        return false;
    }
    true
}

#[cfg(test)]
mod tests {
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
