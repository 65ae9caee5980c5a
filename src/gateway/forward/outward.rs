//! The half that holds the client's socket.

use super::super::accept::Service;
use super::super::connection::Conn;
use super::super::convert;
use super::super::dispatch;
use super::super::namesrv;
use super::super::pull;
use super::super::reply::{Reply, OVERLOAD};
use super::super::send::Burst;
use super::super::shared::shard_ms;
use super::super::worker::Worker;
use super::known;
use super::local::{is_current, Kept};
use super::wire::{Said, Talk};
use super::{Forward, Held};
use crate::actors::group::types::Subscription;
use crate::wire::remoting::body::Heartbeat;
use crate::wire::remoting::code::{request as code, response as rc};
use crate::wire::remoting::frame::HeaderFormat;
use crate::wire::remoting::header::FLAG_ONEWAY;
use crate::wire::remoting::requests::UnregisterClient;
use crate::wire::remoting::{split_frame, Command, FrameLimits, Language, RawFrame};
use bytes::{BufMut, Bytes, BytesMut};
use rustc_hash::FxHashMap;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A request waits so long for a leader; then the client is told to try elsewhere.
const WAIT: Duration = Duration::from_millis(1_500);
/// A pull may wait longer: it is a long poll anyway.
const WAIT_PULL: Duration = Duration::from_secs(10);
/// Most one-way requests of a connection that wait for a leader.
const MAX_WAITING: usize = 4_096;

/// A request that is not answered yet.
pub(super) struct Pending {
    pub frame: Bytes,
    pub code: i32,
    pub opaque: i32,
    pub oneway: bool,
    pub since: Instant,
    /// Number in the order of the connection's requests.
    pub number: u64,
    pub _held: Held,
}

/// What a connection has outside.
#[derive(Default)]
pub struct Outward {
    /// Waits for a leader, in order.
    pub(super) waiting: VecDeque<Pending>,
    /// With the node named, by request number.
    sent: FxHashMap<i32, (u64, Pending)>,
    /// Nodes that know this connection, and the link by which they do.
    opened: FxHashMap<u64, u64>,
    /// The last full heartbeat.
    beat: Option<Bytes>,
    /// What it says, once somebody asked.
    told: Option<Heartbeat>,
    /// Node, link and term that heard it last.
    beat_at: (u64, u64, u64),
    /// This node leads now and has not heard the heartbeat itself.
    beat_due: bool,
    next: u64,
}

pub(super) fn is_pull(code: i32) -> bool {
    matches!(code, code::PULL_MESSAGE | code::LITE_PULL_MESSAGE)
}

impl Outward {
    /// Pulls that wait or are with the leader.
    pub fn pulls(&self) -> usize {
        let sent = self.sent.values().map(|(_, request)| request);
        let all = self.waiting.iter().chain(sent);
        all.filter(|r| is_pull(r.code)).count()
    }

    /// A send waits that surely was not done.
    pub(super) fn sends_wait(&self) -> bool {
        self.waiting.iter().any(|r| only_once(r.code))
    }

    pub(super) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// What the client subscribed to in this group and topic by its last full heartbeat.
    pub fn subscription(&mut self, group: &str, topic: &str) -> Option<Subscription> {
        if self.told.is_none() {
            let command = decode(self.beat.as_ref()?)?;
            self.told = Heartbeat::parse(&command.body).ok();
        }
        let groups = &self.told.as_ref()?.consumer_data_set;
        let group = groups.iter().find(|g| g.group_name == group)?;
        let mut all = group.subscription_data_set.iter();
        let found = all.find(|s| s.topic == topic)?;
        Some(convert::subscription(found.clone()))
    }

    /// The last full heartbeat.
    pub(super) fn beat(&self) -> Option<Bytes> {
        self.beat.clone()
    }

    /// Another heartbeat, or none.
    fn set_beat(&mut self, beat: Option<Bytes>) {
        self.beat = beat;
        self.told = None;
    }

    fn forget_opened(&mut self, node: u64) {
        self.opened.remove(&node);
    }
}

/// The frame as it came.
pub(super) fn whole(raw: &RawFrame) -> Bytes {
    let header = raw.header.len();
    let mut out = BytesMut::with_capacity(8 + header + raw.body.len());
    out.put_u32((4 + header + raw.body.len()) as u32);
    let kind: u32 = match raw.serialize {
        HeaderFormat::Json => 0,
        HeaderFormat::Binary => 1,
    };
    out.put_u32(kind << 24 | header as u32);
    out.put_slice(&raw.header);
    out.put_slice(&raw.body);
    out.freeze()
}

/// Doing it twice is not doing it once.
pub(super) fn only_once(code: i32) -> bool {
    matches!(
        code,
        code::SEND_MESSAGE
            | code::SEND_MESSAGE_V2
            | code::SEND_BATCH_MESSAGE
            | code::CONSUMER_SEND_MSG_BACK
            | code::SEND_REPLY_MESSAGE
            | code::SEND_REPLY_MESSAGE_V2
            | code::END_TRANSACTION
    )
}

fn not_available(why: &'static str) -> Reply {
    Reply::err(rc::SERVICE_NOT_AVAILABLE, why)
}

/// Remembers the client's heartbeat, and takes the request when this node does not lead.
pub fn takes(conn: &Rc<Conn>, forward: &Forward, command: &Command, raw: &RawFrame) -> bool {
    if conn.service != Service::Broker || namesrv::handles(command.code) {
        return false;
    }
    match command.code {
        code::HEART_BEAT => remember(conn, whole(raw)),
        // What it was registered for may be over; its next heartbeat says.
        code::UNREGISTER_CLIENT => {
            conn.outward.borrow_mut().set_beat(None);
            if let Ok(request) = UnregisterClient::parse(command) {
                forward.known.lock().remove(request.client_id);
            }
        }
        _ => {}
    }
    let serving = forward.serving() && is_current(conn, command.code);
    if conn.is_tunnel() {
        if !serving {
            conn.refuse_tunnelled(command.opaque, command.is_oneway());
        }
        return !serving;
    }
    if serving && conn.outward.borrow().waiting.is_empty() {
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
    let mut out = conn.outward.borrow_mut();
    let oneway = command.is_oneway();
    if oneway && out.waiting.len() >= MAX_WAITING {
        return true;
    }
    let number = out.number();
    out.waiting.push_back(Pending {
        frame,
        code: command.code,
        opaque: command.opaque,
        oneway,
        since: Instant::now(),
        number,
        _held: held,
    });
    forward.waiting.fetch_add(1, Ordering::Relaxed);
    drop(out);
    if !oneway {
        conn.begin_request();
    }
    pump(conn, forward);
    true
}

/// A response of the client to a request that this node did not send: the leader did.
pub fn takes_answer(conn: &Rc<Conn>, forward: &Forward, raw: &RawFrame) {
    let known = conn.outward.borrow();
    if let Some((node, epoch)) = forward.leader() {
        if known.opened.get(&node) == Some(&epoch) {
            forward.send(node, epoch, conn.id.0, Said::Frame(whole(raw)));
        }
    }
}

/// Keeps the last full heartbeat: a short one only confirms it.
pub fn remember(conn: &Conn, frame: Bytes) {
    let beat = decode(&frame).and_then(|command| Heartbeat::parse(&command.body).ok());
    if let Some(beat) = beat.filter(|beat| !beat.is_short()) {
        conn.outward.borrow_mut().set_beat(Some(frame));
        if let Some(forward) = &conn.shared().forward {
            forward.known.lock().remove(&beat.client_id);
        }
    }
}

fn split(frame: &Bytes) -> Option<RawFrame> {
    let mut buf = BytesMut::from(&frame[..]);
    split_frame(&mut buf, &FrameLimits::default()).ok()?
}

pub(super) fn decode(frame: &Bytes) -> Option<Command> {
    Command::decode(split(frame)?).ok()
}

/// Sends what waits to the leader, when there is one.
pub(super) fn pump(conn: &Rc<Conn>, forward: &Forward) {
    if forward.serving() {
        // The connection's own task hands it to this node's cores.
        return conn.kick();
    }
    let Some((node, epoch)) = forward.leader() else {
        return;
    };
    introduce(conn, forward, node, epoch);
    let mut out = conn.outward.borrow_mut();
    let mut refused = Vec::new();
    while let Some(next) = out.waiting.pop_front() {
        forward.waiting.fetch_sub(1, Ordering::Relaxed);
        let said = Said::Frame(next.frame.clone());
        if !forward.send(node, epoch, conn.id.0, said) {
            refused.push(next);
            continue;
        }
        forward.metrics.forwarded.inc();
        if !next.oneway {
            if let Some((_, replaced)) = out.sent.insert(next.opaque, (node, next)) {
                // The client uses a number twice: nobody will ask for the first.
                drop(replaced);
                conn.end_request();
            }
        }
    }
    drop(out);
    for request in refused {
        answer(conn, &request, Reply::err(rc::SYSTEM_BUSY, OVERLOAD));
    }
}

/// Makes the connection and its last heartbeat known to the leader.
fn introduce(conn: &Rc<Conn>, forward: &Forward, node: u64, epoch: u64) {
    let mut out = conn.outward.borrow_mut();
    if out.opened.get(&node) != Some(&epoch) {
        let open = Said::Open {
            peer: conn.peer,
            local: conn.local,
        };
        if !forward.send(node, epoch, conn.id.0, open) {
            return;
        }
        out.opened.insert(node, epoch);
    }
    let at = (node, epoch, forward.lead().term);
    if out.beat_at != at {
        if let Some(beat) = out.beat.clone() {
            forward.send(node, epoch, conn.id.0, Said::Beat(beat));
        }
        out.beat_at = at;
    }
}

fn answer(conn: &Rc<Conn>, request: &Pending, reply: Reply) {
    if request.oneway {
        return;
    }
    conn.write_soon(|out| reply.encode(request.opaque, out));
    conn.end_request();
}

/// Hands this node's cores what waited, and the last heartbeat, once this node leads.
pub async fn drain(conn: &Rc<Conn>) {
    let Some(forward) = conn.shared().forward.clone() else {
        return;
    };
    if !forward.serving() {
        return;
    }
    let mut burst = Burst::new(shard_ms(conn.shared()), 0);
    let beat = {
        let mut out = conn.outward.borrow_mut();
        std::mem::take(&mut out.beat_due)
            .then(|| out.beat.clone())
            .flatten()
    };
    if let Some(mut command) = beat.as_ref().and_then(decode) {
        command.flag |= FLAG_ONEWAY;
        dispatch::request(conn, &command, &mut burst, None).await;
    }
    loop {
        let next = {
            let mut out = conn.outward.borrow_mut();
            match out.waiting.front() {
                Some(first) if is_current(conn, first.code) => out.waiting.pop_front(),
                _ => None,
            }
        };
        let Some(next) = next else { break };
        forward.waiting.fetch_sub(1, Ordering::Relaxed);
        if !next.oneway {
            // Dispatching counts it anew.
            conn.end_request();
        }
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
    out.beat_due = out.beat.is_some();
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
            continue;
        }
        if let Some((node, epoch)) = forward.leader().filter(|_| !here) {
            if conn.outward.borrow().beat.is_some() {
                introduce(&conn, forward, node, epoch);
            }
        }
        if !conn.outward.borrow().waiting.is_empty() {
            pump(&conn, forward);
        }
    }
}

/// The link to a node broke: what it had goes to the next leader or is answered.
pub fn link_lost(worker: &Rc<Worker>, forward: &Forward, node: u64) {
    for conn in worker.connections() {
        if !conn.is_tunnel() {
            take_back(&conn, forward, node);
        }
    }
}

fn take_back(conn: &Rc<Conn>, forward: &Forward, node: u64) {
    let mut out = conn.outward.borrow_mut();
    out.forget_opened(node);
    let theirs: Vec<i32> = out
        .sent
        .iter()
        .filter(|(_, (at, _))| *at == node)
        .map(|(opaque, _)| *opaque)
        .collect();
    let mut back = Vec::new();
    let mut lost = Vec::new();
    for opaque in theirs {
        if let Some((_, request)) = out.sent.remove(&opaque) {
            match only_once(request.code) {
                true => lost.push(request),
                false => back.push(request),
            }
        }
    }
    wait_again(&mut out, forward, back);
    drop(out);
    tell_lost(conn, lost);
    if !conn.outward.borrow().waiting.is_empty() {
        pump(conn, forward);
    }
}

/// Tells the client that these requests may have been done, or not.
fn tell_lost(conn: &Rc<Conn>, mut lost: Vec<Pending>) {
    lost.sort_unstable_by_key(|r| r.number);
    let java = conn.language() == Language::JAVA;
    if !lost.is_empty() && java && !conn.outward.borrow().sends_wait() {
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

/// Puts requests back in front of those that wait, in the client's order.
fn wait_again(out: &mut Outward, forward: &Forward, mut back: Vec<Pending>) {
    forward
        .waiting
        .fetch_add(back.len() as u64, Ordering::Relaxed);
    back.sort_unstable_by_key(|r| r.number);
    for request in back.into_iter().rev() {
        out.waiting.push_front(request);
    }
}

/// A node that leads, or was thought to, says something about a client of ours.
pub fn said(worker: &Rc<Worker>, forward: &Forward, from: u64, talk: Talk) {
    let Some(conn) = worker.connection(talk.conn) else {
        return;
    };
    if conn.outward.borrow().opened.get(&from) != Some(&talk.epoch) {
        return;
    }
    match talk.said {
        Said::Answer {
            done,
            refused,
            frames,
        } => {
            let mut out = conn.outward.borrow_mut();
            let mut ended = 0;
            for opaque in done {
                if out.sent.remove(&opaque).is_some() {
                    ended += 1;
                }
            }
            let back: Vec<Pending> = refused
                .iter()
                .filter_map(|opaque| out.sent.remove(opaque))
                .map(|(_, request)| request)
                .collect();
            // They go to the next leader, or to this one when it has begun to serve.
            wait_again(&mut out, forward, back);
            drop(out);
            if !frames.is_empty() {
                conn.write_soon(|out| out.push(frames));
            }
            for _ in 0..ended {
                conn.end_request();
            }
        }
        Said::Unsure(which) => {
            let mut out = conn.outward.borrow_mut();
            let sent = which.iter().filter_map(|opaque| out.sent.remove(opaque));
            let lost = sent.map(|(_, request)| request).collect();
            drop(out);
            tell_lost(&conn, lost);
        }
        Said::Closed => take_back(&conn, forward, from),
        _ => {}
    }
}

/// Tries again what waits, and answers what waited too long.
pub fn sweep(worker: &Rc<Worker>, forward: &Forward) {
    let now = Instant::now();
    for conn in worker.connections() {
        if conn.is_tunnel() || conn.outward.borrow().waiting.is_empty() {
            continue;
        }
        let late = |r: &Pending| {
            let limit = if is_pull(r.code) { WAIT_PULL } else { WAIT };
            now.duration_since(r.since) >= limit
        };
        let mut out = conn.outward.borrow_mut();
        let (mut keep, mut gone) = (VecDeque::new(), Vec::new());
        for request in out.waiting.drain(..) {
            match late(&request) {
                true => gone.push(request),
                false => keep.push_back(request),
            }
        }
        out.waiting = keep;
        drop(out);
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
        .fetch_sub(out.waiting.len() as u64, Ordering::Relaxed);
    for (node, epoch) in out.opened {
        forward.send(node, epoch, conn.id.0, Said::Close);
    }
}
