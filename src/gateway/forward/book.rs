//! The requests of one connection that are not done, and in which order they may go on. Pure.
//!
//! A request waits for a leader, is with another node, or is with this node's own cores. What a
//! client sends to one queue keeps its order (design §3.2), also when a leader goes in the middle
//! of it. So requests whose order means something leave for another place only when those before
//! them are not open any more in the place before: a node that refused one refuses all later ones
//! until it is told that everything it refused is back here ([`Judge`]).

use super::local::{in_order, only_once};
use super::Held;
use crate::wire::remoting::code::request as code;
use bytes::Bytes;
use rustc_hash::FxHashMap;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// No more is read from a connection of which so many bytes are with the leader.
const MAX_SENT: u64 = 16 * 1024 * 1024;
/// A node that neither does nor refuses what it was given holds up later requests so long. It was
/// stopped, or cannot be reached, and does not know.
pub const STUCK: Duration = Duration::from_secs(1);
/// A request waits so long for a leader; then the client is told to try elsewhere.
const WAIT: Duration = Duration::from_millis(1_500);
/// A pull may wait longer: it is a long poll anyway.
const WAIT_PULL: Duration = Duration::from_secs(10);
/// Java clients give a lock up after 1 s, and their connection with it.
const WAIT_LOCK: Duration = Duration::from_millis(800);

/// A request that is not answered yet.
pub struct Pending {
    pub frame: Bytes,
    pub code: i32,
    pub opaque: i32,
    pub oneway: bool,
    /// A response of the client, which only counts until it is handed over.
    pub is_answer: bool,
    /// When it was read.
    pub since: Instant,
    /// When it began to wait for a leader, the last time.
    pub waits_since: Instant,
    /// Number in the order of the connection's requests.
    pub number: u64,
    pub _held: Option<Held>,
}

pub fn is_pull(code: i32) -> bool {
    matches!(code, code::PULL_MESSAGE | code::LITE_PULL_MESSAGE)
}

impl Pending {
    fn in_order(&self) -> bool {
        !self.is_answer && in_order(self.code)
    }

    /// It has waited too long.
    fn is_late(&self, now: Instant) -> bool {
        if is_pull(self.code) {
            // However long the leader held it before it died.
            return now.duration_since(self.waits_since) >= WAIT_PULL;
        }
        let limit = match self.code {
            code::LOCK_BATCH_MQ | code::UNLOCK_BATCH_MQ => WAIT_LOCK,
            _ => WAIT,
        };
        now.duration_since(self.since) >= limit
    }
}

/// A connection as another node knows it: the node, and the number under which it was opened there.
pub type Way = (u64, u64);

/// See the module text.
#[derive(Default)]
pub struct Book {
    waiting: VecDeque<Pending>,
    /// Waited too long, and only wait to be answered.
    late: Vec<Pending>,
    sent: FxHashMap<u64, (Way, Pending)>,
    sent_bytes: u64,
    /// Those in `sent` whose order means something; all of them went by `way`.
    sent_in_order: usize,
    way: Way,
    /// `way` refused one of them: nothing goes there before the rest is known.
    refused: bool,
    /// Those with this node's own cores, and in which time of serving they were given.
    here: usize,
    here_since: u64,
    /// Since when requests wait for earlier ones.
    held_up: Option<Instant>,
    next: u64,
}

impl Book {
    /// The number of another request.
    pub fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Requests that wait, for a leader or for the answer that they waited too long.
    pub fn waiting(&self) -> usize {
        self.waiting.len() + self.late.len()
    }

    /// The first one that waits for a leader.
    pub fn first(&mut self, now: Instant) -> Option<&Pending> {
        self.set_late_aside(now);
        self.waiting.front()
    }

    /// A leader is known again, or what another one refused comes back. Clients gave up what is late
    /// by then, and did the same elsewhere: an old offset would go over a newer one.
    fn set_late_aside(&mut self, now: Instant) {
        while self.waiting.front().is_some_and(|r| r.is_late(now)) {
            self.late.extend(self.waiting.pop_front());
        }
    }

    /// Pulls that wait or are with the leader.
    pub fn pulls(&self) -> usize {
        let sent = self.sent.values().map(|(_, request)| request);
        let all = self.waiting.iter().chain(sent);
        all.filter(|r| is_pull(r.code)).count()
    }

    /// A send waits that surely was not done.
    pub fn sends_wait(&self) -> bool {
        let mut all = self.waiting.iter().chain(&self.late);
        all.any(|r| only_once(r.code))
    }

    /// Lets a request wait, before later ones of the same client.
    pub fn wait(&mut self, request: Pending) {
        let at = self.waiting.partition_point(|r| r.number < request.number);
        self.waiting.insert(at, request);
    }

    /// A request just read may go to this node's own cores; `serving`: its present time of
    /// serving.
    pub fn direct(&self, code: i32, serving: u64) -> bool {
        let same = self.here == 0 || self.here_since == serving;
        self.waiting.is_empty() && (!in_order(code) || self.sent_in_order == 0 && same)
    }

    /// A request whose order means something goes to this node's own cores.
    pub fn begins_here(&mut self, serving: u64) {
        self.here += 1;
        self.here_since = serving;
    }

    /// It was answered or refused. Whether others waited for that; and whether it was the last one
    /// of another time of serving, for which later ones were refused.
    pub fn ends_here(&mut self, serving: u64) -> (bool, bool) {
        let stale = self.is_stale_here(serving);
        self.here = self.here.saturating_sub(1);
        let idle = self.here == 0;
        (idle && !self.waiting.is_empty(), idle && stale)
    }

    /// Requests of this client are with this node's cores since another time of serving.
    pub fn is_stale_here(&self, serving: u64) -> bool {
        self.here > 0 && self.here_since != serving
    }

    /// What waits may go to this node's own cores.
    pub fn may_begin_here(&mut self, now: Instant) -> bool {
        let may = self.here == 0 && self.sent_in_order == 0;
        self.note(may, now);
        may
    }

    /// What waits may go to another node.
    pub fn may_send(&mut self, way: Way, now: Instant) -> bool {
        let may = self.here == 0 && (self.sent_in_order == 0 || self.way == way && !self.refused);
        self.note(may, now);
        may
    }

    fn note(&mut self, may: bool, now: Instant) {
        match may || self.waiting.is_empty() {
            true => self.held_up = None,
            false => drop(self.held_up.get_or_insert(now)),
        }
    }

    /// A node that holds up what waits for too long.
    pub fn stuck(&self, now: Instant) -> Option<u64> {
        let since = self.held_up.filter(|_| self.sent_in_order > 0)?;
        (now.duration_since(since) >= STUCK).then_some(self.way.0)
    }

    /// The first one that waits, to be handed to this node's cores.
    pub fn take(&mut self, now: Instant) -> Option<Pending> {
        self.set_late_aside(now);
        self.waiting.pop_front()
    }

    /// The first one that waits, when there is room for it at the leader.
    pub fn take_to_send(&mut self, now: Instant) -> Option<Pending> {
        self.set_late_aside(now);
        match self.has_room() {
            true => self.waiting.pop_front(),
            false => None,
        }
    }

    /// It went out.
    pub fn sent(&mut self, way: Way, request: Pending) {
        self.sent_bytes += request.frame.len() as u64;
        if request.in_order() {
            if self.sent_in_order == 0 {
                (self.way, self.refused) = (way, false);
            }
            self.sent_in_order += 1;
        }
        self.sent.insert(request.number, (way, request));
    }

    /// There is room for another frame at the leader.
    pub fn has_room(&self) -> bool {
        self.sent_bytes < MAX_SENT
    }

    fn forget(&mut self, number: u64) -> Option<Pending> {
        let (_, request) = self.sent.remove(&number)?;
        self.sent_bytes -= request.frame.len() as u64;
        if request.in_order() {
            self.sent_in_order -= 1;
            if self.sent_in_order == 0 {
                self.held_up = None;
            }
        }
        Some(request)
    }

    /// These were answered, or may have been done: nobody waits for them any more.
    pub fn done(&mut self, numbers: &[u64]) -> Vec<Pending> {
        numbers.iter().filter_map(|n| self.forget(*n)).collect()
    }

    /// These were not begun: they wait again. True when the node refuses all later ones now, and
    /// has to be told when to go on; and how many there are.
    pub fn refused(&mut self, numbers: &[u64], now: Instant) -> (bool, usize) {
        let back: Vec<Pending> = numbers.iter().filter_map(|n| self.forget(*n)).collect();
        let stops = back.iter().any(Pending::in_order);
        self.refused |= stops;
        (stops, self.wait_again(back, now))
    }

    fn wait_again(&mut self, back: Vec<Pending>, now: Instant) -> usize {
        let before = self.waiting.len();
        for mut request in back.into_iter().filter(|r| !r.is_answer) {
            request.waits_since = now;
            self.wait(request);
        }
        self.waiting.len() - before
    }

    /// A node is lost with what it was given: what does no harm when done twice waits again (how
    /// many that is), the rest comes out.
    pub fn take_back(&mut self, node: u64, now: Instant) -> (usize, Vec<Pending>) {
        let of_node = self.sent.iter().filter(|(_, (way, _))| way.0 == node);
        let numbers: Vec<u64> = of_node.map(|(number, _)| *number).collect();
        let all = self.done(&numbers);
        let is_lost = |r: &Pending| r.is_answer || only_once(r.code);
        let (lost, back) = all.into_iter().partition::<Vec<_>, _>(is_lost);
        (self.wait_again(back, now), lost)
    }

    /// Those that waited too long.
    pub fn take_late(&mut self, now: Instant) -> Vec<Pending> {
        let all = std::mem::take(&mut self.waiting).into_iter();
        let (late, rest) = all.partition::<Vec<_>, _>(|r| r.is_late(now));
        self.waiting = rest.into();
        let mut all = std::mem::take(&mut self.late);
        all.extend(late);
        all
    }
}

/// What the leader's end of a connection refuses, so that nothing overtakes what it refused.
#[derive(Debug, Default)]
pub struct Judge {
    stopped: bool,
}

impl Judge {
    /// Whether a request may begin; `able`: this node can do it now.
    pub fn admits(&mut self, code: i32, able: bool) -> bool {
        match in_order(code) {
            true => {
                self.stopped |= !able;
                !self.stopped
            }
            false => able,
        }
    }

    /// A core refused a request that was admitted.
    pub fn refused(&mut self, code: i32) {
        self.stopped |= in_order(code);
    }

    /// Everything that was refused is back where the client is.
    pub fn go_on(&mut self) {
        self.stopped = false;
    }
}

#[cfg(test)]
#[path = "book_tests.rs"]
mod tests;
