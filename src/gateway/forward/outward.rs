//! The half that holds the client's socket.

use super::super::accept::Service;
use super::super::connection::Conn;
use super::super::dispatch;
use super::super::namesrv;
use super::super::pull;
use super::super::reply::{Reply, OVERLOAD};
use super::super::send::Burst;
use super::super::shared::shard_ms;
use super::super::worker::Worker;
use super::beat::{decode, split, whole, LastBeat};
use super::book::{is_pull, Book, Pending};
use super::known;
use super::local::{is_current, is_own, Kept};
use super::wire::{Said, Talk};
use super::Forward;
use crate::actors::group::types::Subscription;
use crate::wire::remoting::body::Heartbeat;
use crate::wire::remoting::code::{request as code, response as rc};
use crate::wire::remoting::header::FLAG_ONEWAY;
use crate::wire::remoting::requests::UnregisterClient;
use crate::wire::remoting::{Command, Language, RawFrame};
use bytes::Bytes;
use rustc_hash::FxHashMap;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::Instant;

/// What a connection has outside.
#[derive(Default)]
pub struct Outward {
    /// Requests that are not done.
    pub(super) book: Book,
    /// Nodes that know this connection.
    opened: FxHashMap<u64, Opened>,
    pub(super) beat: LastBeat,
    /// Node, number there and term that heard it last.
    beat_at: (u64, u64, u64),
    /// This node leads now and has not heard the heartbeat itself.
    beat_due: bool,
}

/// How another node knows a connection.
#[derive(Clone, Copy)]
struct Opened {
    /// The number of this opening: what is said of an earlier one means nothing.
    number: u64,
    /// The link by which it was opened.
    link: u64,
    /// It refuses requests until it is told to go on.
    stopped: bool,
}

impl Outward {
    /// Pulls that wait or are with the leader.
    pub fn pulls(&self) -> usize {
        self.book.pulls()
    }

    /// More may be read: what was is not too much for the leader.
    pub fn has_room(&self) -> bool {
        self.book.has_room()
    }

    /// What the client subscribed to in this group and topic by its last full heartbeat.
    pub fn subscription(&mut self, group: &str, topic: &str) -> Option<Subscription> {
        self.beat.subscription(group, topic)
    }
}

fn not_available(why: &'static str) -> Reply {
    Reply::err(rc::SERVICE_NOT_AVAILABLE, why)
}

/// Remembers the client's heartbeat, and takes the request when this node does not lead.
pub fn takes(conn: &Rc<Conn>, forward: &Forward, command: &Command, raw: &RawFrame) -> bool {
    if conn.service != Service::Broker || namesrv::handles(command.code) {
        return false;
    }
    if is_own(command.code) {
        return false;
    }
    match command.code {
        code::HEART_BEAT => remember(conn, whole(raw)),
        code::UNREGISTER_CLIENT => {
            if let Ok(request) = UnregisterClient::parse(command) {
                conn.outward.borrow_mut().beat.leave(&request);
                forward.known.lock().remove(request.client_id);
            }
        }
        _ => {}
    }
    // Read before whether it serves: what changes in between is refused by the core.
    let since = forward.serving_since();
    let serving = forward.serving() && is_current(conn, command.code);
    if conn.is_tunnel() {
        let stale = conn.outward.borrow().book.is_stale_here(since);
        return !conn.admits_tunnelled(command.code, serving && !stale);
    }
    if serving && conn.outward.borrow().book.direct(command.code, since) {
        return false;
    }
    if is_pull(command.code) && !serving {
        let broker = conn.shared().broker.clone();
        if broker.is_some_and(|broker| pull::pull_here(conn, &broker, command)) {
            return true;
        }
    }
    let frame = whole(raw);
    let Some(held) = forward.hold(frame.len() as u64) else {
        conn.ticket(command)
            .answer(Reply::err(rc::SYSTEM_BUSY, OVERLOAD));
        return true;
    };
    let now = Instant::now();
    let mut out = conn.outward.borrow_mut();
    let number = out.book.number();
    out.book.wait(Pending {
        frame,
        code: command.code,
        opaque: command.opaque,
        oneway: command.is_oneway(),
        is_answer: false,
        since: now,
        waits_since: now,
        number,
        _held: Some(held),
    });
    forward.waiting.fetch_add(1, Ordering::Relaxed);
    drop(out);
    conn.begin_request();
    pump(conn, forward);
    true
}

/// A response of the client to a request that this node did not send: the leader did. When there
/// are too many it is dropped, as if the client had not answered.
pub fn takes_answer(conn: &Rc<Conn>, forward: &Forward, raw: &RawFrame) {
    let Some((node, link)) = forward.leader() else {
        return;
    };
    let mut out = conn.outward.borrow_mut();
    let opened = out.opened.get(&node).filter(|o| o.link == link).copied();
    let Some(opened) = opened.filter(|_| out.book.has_room()) else {
        return;
    };
    let frame = whole(raw);
    let Some(held) = forward.hold(frame.len() as u64) else {
        return;
    };
    let number = out.book.number();
    let said = Said::Frame(number, frame.clone());
    if !forward.send(node, opened.number, conn.id.0, said) {
        return;
    }
    let now = Instant::now();
    let answer = Pending {
        frame,
        code: 0,
        opaque: 0,
        oneway: true,
        is_answer: true,
        since: now,
        waits_since: now,
        number,
        _held: Some(held),
    };
    out.book.sent((node, opened.number), answer);
    drop(out);
    conn.begin_request();
}

/// Keeps the last full heartbeat: a short one only confirms it.
pub fn remember(conn: &Conn, frame: Bytes) {
    let beat = decode(&frame).and_then(|command| Heartbeat::parse(&command.body).ok());
    if let Some(beat) = beat.filter(|beat| !beat.is_short()) {
        conn.outward.borrow_mut().beat.set(frame);
        if let Some(forward) = &conn.shared().forward {
            forward.known.lock().remove(&beat.client_id);
        }
    }
}

/// Sends what waits to the leader, when there is one.
pub(super) fn pump(conn: &Rc<Conn>, forward: &Forward) {
    if forward.serving() {
        // The connection's own task hands it to this node's cores.
        return conn.kick();
    }
    let Some((node, link)) = forward.leader() else {
        return;
    };
    let Some(number) = introduce(conn, forward, node, link) else {
        return;
    };
    let way = (node, number);
    let send = |said| forward.send(node, number, conn.id.0, said);
    let mut out = conn.outward.borrow_mut();
    let mut refused = Vec::new();
    let now = Instant::now();
    if out.book.may_send(way, now) {
        while let Some(next) = out.book.take_to_send(now) {
            let opened = out.opened.get_mut(&node);
            let told = opened.filter(|o| o.stopped).is_none_or(|o| {
                o.stopped = !send(Said::GoOn);
                !o.stopped
            });
            if !(told && send(Said::Frame(next.number, next.frame.clone()))) {
                if forward.epoch(node) != Some(link) {
                    // The link broke; we shall hear of it.
                    out.book.wait(next);
                    break;
                }
                refused.push(next);
                continue;
            }
            forward.metrics.forwarded.inc();
            forward.waiting.fetch_sub(1, Ordering::Relaxed);
            out.book.sent(way, next);
        }
    }
    drop(out);
    for request in refused {
        forward.waiting.fetch_sub(1, Ordering::Relaxed);
        answer(conn, &request, Reply::err(rc::SYSTEM_BUSY, OVERLOAD));
    }
}

/// Makes the connection and its last heartbeat known to the leader; the connection's number there.
fn introduce(conn: &Rc<Conn>, forward: &Forward, node: u64, link: u64) -> Option<u64> {
    let mut out = conn.outward.borrow_mut();
    let known = out.opened.get(&node).filter(|o| o.link == link);
    let number = match known {
        Some(opened) => opened.number,
        None => {
            let number = forward.next_number();
            let open = Said::Open {
                peer: conn.peer,
                local: conn.local,
            };
            if !forward.send(node, number, conn.id.0, open) {
                return None;
            }
            let opened = Opened {
                number,
                link,
                stopped: false,
            };
            out.opened.insert(node, opened);
            number
        }
    };
    let at = (node, number, forward.lead().term);
    if out.beat_at != at {
        let said = out.beat.frame().map(Said::Beat);
        if said.is_none_or(|beat| forward.send(node, number, conn.id.0, beat)) {
            out.beat_at = at;
        }
    }
    Some(number)
}

fn answer(conn: &Rc<Conn>, request: &Pending, reply: Reply) {
    if !request.oneway {
        conn.write_soon(|out| reply.encode(request.opaque, out));
    }
    conn.end_request();
}

/// Hands this node's cores what waited, and the last heartbeat, once this node leads.
pub async fn drain(conn: &Rc<Conn>) {
    let Some(forward) = conn.shared().forward.clone() else {
        return;
    };
    let since = forward.serving_since();
    if !forward.serving() {
        return;
    }
    let mut burst = Burst::new(shard_ms(conn.shared()), 0);
    let (may_begin, beat) = {
        let mut out = conn.outward.borrow_mut();
        let due = std::mem::take(&mut out.beat_due);
        let beat = due.then(|| out.beat.frame()).flatten();
        (out.book.may_begin_here(Instant::now()), beat)
    };
    if let Some(mut command) = beat.as_ref().and_then(decode) {
        command.flag |= FLAG_ONEWAY;
        dispatch::request(conn, &command, &mut burst, None).await;
    }
    loop {
        // Those of another time of serving may come back in front of the next one.
        let may_begin = may_begin && forward.serving_since() == since;
        let next = {
            let now = Instant::now();
            let mut out = conn.outward.borrow_mut();
            match out.book.first(now) {
                Some(first) if may_begin && is_current(conn, first.code) => out.book.take(now),
                _ => None,
            }
        };
        let Some(next) = next else { break };
        forward.waiting.fetch_sub(1, Ordering::Relaxed);
        // Dispatching counts it anew.
        conn.end_request();
        let Some(raw) = split(&next.frame) else {
            continue;
        };
        let kept = (!conn.is_tunnel()).then(|| Kept {
            raw: raw.clone(),
            number: next.number,
            since: next.since,
        });
        if let Ok(command) = Command::decode(raw) {
            dispatch::request(conn, &command, &mut burst, kept).await;
        }
    }
    burst.submit();
}

/// This node begins to serve: the connection's heartbeat is news to it.
pub fn became_leader(conn: &Rc<Conn>) {
    let mut out = conn.outward.borrow_mut();
    out.beat_due = out.beat.frame().is_some();
    drop(out);
    conn.kick();
}

/// Another leader, or a way to it.
pub fn lead_changed(worker: &Rc<Worker>, forward: &Arc<Forward>) {
    let lead = forward.lead();
    let here = forward.serving();
    let began = here && worker.served_term.replace(lead.term) != lead.term;
    if began {
        worker.served_since.set(Instant::now());
        known::lead(worker, forward, lead.term);
    }
    for conn in worker.connections() {
        if conn.service != Service::Broker {
            continue;
        }
        if began {
            became_leader(&conn);
        }
        if conn.is_tunnel() {
            if here {
                conn.serves_tunnelled();
            }
            continue;
        }
        if let Some((node, link)) = forward.leader().filter(|_| !here) {
            if conn.outward.borrow().beat.frame().is_some() {
                introduce(&conn, forward, node, link);
            }
        }
        go_on(&conn, forward);
    }
}

/// What waits may perhaps go now.
pub fn go_on(conn: &Rc<Conn>, forward: &Forward) {
    if conn.outward.borrow().book.waiting() > 0 {
        pump(conn, forward);
    }
}

/// A link has room again: what waited to be made known to the leader, or sent to it, may go.
pub fn room(worker: &Rc<Worker>, forward: &Forward) {
    for conn in worker.connections() {
        if !conn.is_tunnel() {
            go_on(&conn, forward);
        }
    }
}

/// A link to a node broke: what went by it goes to the next leader or is answered.
pub fn link_lost(worker: &Rc<Worker>, forward: &Forward, node: u64, link: u64) {
    for conn in worker.connections() {
        let opened = conn.outward.borrow().opened.get(&node).copied();
        if opened.is_some_and(|opened| opened.link <= link) {
            take_back(&conn, forward, node);
        }
    }
}

fn take_back(conn: &Rc<Conn>, forward: &Forward, node: u64) {
    let mut out = conn.outward.borrow_mut();
    out.opened.remove(&node);
    let (back, lost) = out.book.take_back(node, Instant::now());
    forward.waiting.fetch_add(back as u64, Ordering::Relaxed);
    drop(out);
    tell_lost(conn, lost);
    conn.made_room();
    go_on(conn, forward);
}

/// Tells the client that these requests may have been done, or not.
fn tell_lost(conn: &Rc<Conn>, mut lost: Vec<Pending>) {
    lost.sort_unstable_by_key(|r| r.number);
    let java = conn.language() == Language::JAVA && lost.iter().any(|r| !r.oneway);
    if java && !conn.outward.borrow().book.sends_wait() {
        // Its asynchronous sends are retried when the connection breaks, but not for any code.
        // Those that wait for a leader must not fail with it.
        return conn.abort("leader_lost");
    }
    for request in lost {
        let why = "service not available now: the leader was lost, the request may or may not \
                   have been done";
        answer(conn, &request, not_available(why));
    }
}

/// A node that leads, or was thought to, says something about a client of ours.
pub fn said(worker: &Rc<Worker>, forward: &Forward, from: u64, talk: Talk) {
    let Some(conn) = worker.connection(talk.conn) else {
        return;
    };
    let number = conn.outward.borrow().opened.get(&from).map(|o| o.number);
    if number != Some(talk.epoch) {
        return;
    }
    match talk.said {
        Said::Answer {
            done,
            refused,
            frames,
        } => {
            let mut out = conn.outward.borrow_mut();
            let ended = out.book.done(&done).len();
            let (stops, back) = out.book.refused(&refused, Instant::now());
            if let Some(opened) = out.opened.get_mut(&from) {
                opened.stopped |= stops;
            }
            forward.waiting.fetch_add(back as u64, Ordering::Relaxed);
            drop(out);
            if !frames.is_empty() {
                conn.write_soon(|out| out.push(frames));
            }
            for _ in 0..ended {
                conn.end_request();
            }
            conn.made_room();
            // What was refused goes to another leader at once, to this one when it is swept up: it
            // may not serve yet.
            if refused.is_empty() || forward.lead().leader != from {
                go_on(&conn, forward);
            }
        }
        Said::Unsure(which) => {
            let lost = conn.outward.borrow_mut().book.done(&which);
            tell_lost(&conn, lost);
            conn.made_room();
            go_on(&conn, forward);
        }
        Said::Closed => take_back(&conn, forward, from),
        _ => {}
    }
}

/// Tries again what waits, and answers what waited too long.
pub fn sweep(worker: &Rc<Worker>, forward: &Forward) {
    let now = Instant::now();
    for conn in worker.connections() {
        if conn.is_tunnel() || conn.outward.borrow().book.waiting() == 0 {
            continue;
        }
        let stuck = conn.outward.borrow().book.stuck(now);
        if let Some(node) = stuck {
            let opened = conn.outward.borrow().opened.get(&node).map(|o| o.number);
            if let Some(number) = opened {
                forward.tell(node, number, conn.id.0, Said::Close);
            }
            take_back(&conn, forward, node);
        }
        let gone = conn.outward.borrow_mut().book.take_late(now);
        forward
            .waiting
            .fetch_sub(gone.len() as u64, Ordering::Relaxed);
        for request in gone {
            forward.metrics.held_in_vain.inc();
            let why = "service not available now: the shard has no leader";
            answer(&conn, &request, not_available(why));
        }
        pump(&conn, forward);
    }
}

/// The client's connection closed: who knows it is told.
pub fn closed(conn: &Conn) {
    let Some(forward) = &conn.shared().forward else {
        return;
    };
    let out = std::mem::take(&mut *conn.outward.borrow_mut());
    forward
        .waiting
        .fetch_sub(out.book.waiting() as u64, Ordering::Relaxed);
    for (node, opened) in out.opened {
        forward.tell(node, opened.number, conn.id.0, Said::Close);
    }
}
