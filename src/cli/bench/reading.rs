//! Reading by pull: one request under way for each queue, several queues on a connection.

use super::body::{self, topic_hash};
use super::check::{Checker, Verifier};
use super::clock;
use super::request::FIRST_OPAQUE;
use super::sending::Sending;
use super::stats::{code_key, count, Counts, Latencies};
use super::topology::{Broker, Source};
use crate::client::{Answer, Client, ClientError, FieldName, Pipe};
use crate::wire::message::record;
use crate::wire::remoting::code::{request, response};
use crate::wire::remoting::{encode_request, HeaderFormat, RequestHeader, Val};
use bytes::BytesMut;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{sleep, Instant};

/// A consumer's pull may be held by the broker for so long.
pub(super) const SUSPEND: Duration = Duration::from_secs(15);
/// Pause before a refused or fruitless pull is repeated, ns.
const PAUSE: u64 = 20_000_000;
/// How often pauses and time limits are looked at.
const TICK: Duration = Duration::from_millis(10);
/// Fruitless pulls one after the other before a queue is given up: half a minute.
const MAX_FRUITLESS: u32 = 1_500;
const RECONNECT_PAUSE: Duration = Duration::from_millis(50);
/// After this long without a connection it is given up.
const PATIENCE: Duration = Duration::from_secs(60);

/// A queue to read.
#[derive(Clone, Debug)]
pub(super) struct ReadQueue {
    /// Broker name.
    pub broker: String,
    /// Topic.
    pub topic: Rc<str>,
    /// Queue id.
    pub id: i32,
    /// Next offset.
    pub next: i64,
    /// First offset that is not read.
    pub end: i64,
    /// Number of the queue for the checks.
    pub number: usize,
    /// The same for the record, when the record knows the queue.
    pub expected: Option<usize>,
    state: State,
    fruitless: u32,
    hash: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// May be asked for, from this time on (ns).
    Ready(u64),
    /// A request is under way since then.
    Asked(u64),
    Done,
}

impl ReadQueue {
    pub(super) fn new(broker: &str, topic: Rc<str>, id: i32, (next, end): (i64, i64)) -> Self {
        Self {
            broker: broker.to_owned(),
            hash: topic_hash(&topic),
            topic,
            id,
            next,
            end,
            number: 0,
            expected: None,
            state: State::Ready(0),
            fruitless: 0,
        }
    }
}

/// What the readers of a run share.
pub(super) struct Reading {
    pub client: Rc<Client>,
    pub source: Source,
    pub group: String,
    pub pull_batch: u32,
    /// Wait for new messages instead of ending at the queues' ends.
    pub follow: bool,
    pub timeout: Duration,
    pub checker: RefCell<Checker>,
    pub verifier: RefCell<Option<Verifier>>,
    pub stats: RefCell<ReadStats>,
    /// For latencies from the time due: the sender in this process.
    pub sending: Option<Rc<Sending>>,
    pub stop: Cell<bool>,
    next_begin: FieldName,
}

/// Counts of a reading run.
#[derive(Debug)]
pub(super) struct ReadStats {
    /// Pulls answered.
    pub pulls: u64,
    /// Pulls answered with messages.
    pub full_pulls: u64,
    /// From a pull to its answer, when there were messages.
    pub pull_latencies: Latencies,
    /// From the time due to the arrival here.
    pub arrivals: Latencies,
    /// Messages of the sender in this process.
    pub received: u64,
    /// Of them those that were due within the measured time.
    pub received_measured: u64,
    /// Answers other than success, by code; "nothing new" is not counted.
    pub errors: Counts,
    pub last_error: String,
    /// Offsets that were no longer there.
    pub moved: u64,
    /// Queues not read to their ends.
    pub unread: u64,
    pub connects: u64,
    pub notifications: u64,
}

impl Reading {
    pub(super) fn new(
        client: Rc<Client>,
        source: Source,
        group: String,
        timeout: Duration,
    ) -> Self {
        Self {
            client,
            source,
            group,
            pull_batch: 32,
            follow: false,
            timeout,
            checker: RefCell::default(),
            verifier: RefCell::new(None),
            stats: RefCell::new(ReadStats {
                pulls: 0,
                full_pulls: 0,
                pull_latencies: Latencies::new(),
                arrivals: Latencies::new(),
                received: 0,
                received_measured: 0,
                errors: Counts::new(),
                last_error: String::new(),
                moved: 0,
                unread: 0,
                connects: 0,
                notifications: 0,
            }),
            sending: None,
            stop: Cell::new(false),
            next_begin: FieldName::new("nextBeginOffset"),
        }
    }

    /// The queues as they are: from the lowest offset, or from the end when `follow` is set.
    ///
    /// # Errors
    /// Any error of the client.
    pub(super) async fn queues(&self, brokers: &[Broker]) -> Result<Vec<ReadQueue>, ClientError> {
        let mut found = Vec::new();
        for b in brokers {
            for q in &b.queues {
                let max = self.client.max_offset(&b.addr, &q.topic, q.id).await?;
                let range = match self.follow {
                    true => (max, i64::MAX),
                    false => (self.client.min_offset(&b.addr, &q.topic, q.id).await?, max),
                };
                found.push(ReadQueue::new(&b.name, q.topic.clone(), q.id, range));
            }
        }
        Ok(found)
    }

    /// Numbers the queues and starts `connections` readers for each broker.
    pub(super) fn start(
        self: &Rc<Self>,
        mut queues: Vec<ReadQueue>,
        brokers: &[Broker],
        connections: usize,
    ) -> JoinSet<()> {
        for (number, q) in queues.iter_mut().enumerate() {
            q.number = number;
            let verifier = self.verifier.borrow();
            let name = (q.broker.clone(), q.topic.clone(), q.id);
            q.expected = verifier.as_ref().and_then(|v| v.queue(&name));
        }
        *self.checker.borrow_mut() = Checker::new(queues.len());
        let mut readers = JoinSet::new();
        for b in brokers {
            let mut parts = vec![Vec::new(); connections.max(1)];
            for (i, q) in queues.iter().filter(|q| q.broker == b.name).enumerate() {
                parts[i % connections.max(1)].push(q.clone());
            }
            for queues in parts.into_iter().filter(|p| !p.is_empty()) {
                let reader = Reader {
                    shared: self.clone(),
                    addr: b.addr.clone(),
                    queues,
                };
                readers.spawn_local(reader.run());
            }
        }
        readers
    }
}

/// One connection and its queues.
struct Reader {
    shared: Rc<Reading>,
    addr: String,
    queues: Vec<ReadQueue>,
}

impl Reader {
    async fn run(mut self) {
        let mut alive = Instant::now();
        loop {
            let wait = self.shared.timeout;
            let failed = match Pipe::connect(&self.addr, None, wait, 256 * 1024).await {
                Ok(mut pipe) => {
                    self.shared.stats.borrow_mut().connects += 1;
                    let ended = self.drive(&mut pipe).await;
                    alive = Instant::now();
                    ended.err()
                }
                Err(e) => Some(e),
            };
            let Some(error) = failed else { break };
            {
                let mut stats = self.shared.stats.borrow_mut();
                count(&mut stats.errors, "connection lost", 1);
                stats.last_error = error.to_string();
            }
            if alive.elapsed() > PATIENCE || self.shared.stop.get() {
                break;
            }
            for q in &mut self.queues {
                if q.state != State::Done {
                    q.state = State::Ready(0);
                }
            }
            sleep(RECONNECT_PAUSE).await;
            self.find_broker().await;
        }
        let left = self.queues.iter().filter(|q| q.state != State::Done);
        self.shared.stats.borrow_mut().unread += left.count() as u64;
    }

    /// The broker may have come back at another address.
    async fn find_broker(&mut self) {
        let name = self.queues.first().map(|q| q.broker.as_str());
        if let Ok(brokers) = self.shared.source.brokers(&self.shared.client).await {
            let found = brokers.into_iter().find(|b| Some(b.name.as_str()) == name);
            if let Some(broker) = found {
                self.addr = broker.addr;
            }
        }
    }

    async fn drive(&mut self, pipe: &mut Pipe) -> Result<(), ClientError> {
        let mut tick = Box::pin(sleep(TICK));
        let shared = self.shared.clone();
        loop {
            let now = clock::now();
            let mut open = 0;
            let mut limit = shared.timeout;
            if shared.follow {
                limit += SUSPEND;
            }
            for at in 0..self.queues.len() {
                match self.queues[at].state {
                    State::Ready(from) if from <= now => self.pull(at, now, pipe.out()),
                    State::Asked(since)
                        if Duration::from_nanos(now.saturating_sub(since)) > limit =>
                    {
                        return Err(ClientError::Timeout {
                            addr: self.addr.clone(),
                            request: request::PULL_MESSAGE,
                            ms: u64::try_from(limit.as_millis()).unwrap_or(u64::MAX),
                        });
                    }
                    _ => {}
                }
                open += usize::from(self.queues[at].state != State::Done);
            }
            if open == 0 || shared.stop.get() {
                return Ok(());
            }
            // Until a tick, only answers are looked at: there may be many queues.
            loop {
                let mut ticked = false;
                std::future::poll_fn(|cx| match pipe.poll(cx) {
                    Poll::Ready(read) => Poll::Ready(read),
                    Poll::Pending => match tick.as_mut().poll(cx) {
                        Poll::Ready(()) => {
                            ticked = true;
                            Poll::Ready(Ok(()))
                        }
                        Poll::Pending => Poll::Pending,
                    },
                })
                .await?;
                let now = clock::now();
                let mut done = false;
                pipe.drain(|answer, out| done |= self.answer(&answer, now, out))?;
                if ticked {
                    tick.as_mut().reset(Instant::now() + TICK);
                }
                if ticked || done || shared.stop.get() {
                    break;
                }
            }
        }
    }

    fn pull(&mut self, at: usize, now: u64, out: &mut BytesMut) {
        /// The broker may hold the request; the expression in the request counts.
        const MAY_WAIT: i32 = 1 << 1;
        const EXPRESSION: i32 = 1 << 2;
        let shared = &self.shared;
        let q = &mut self.queues[at];
        if q.next >= q.end {
            q.state = State::Done;
            return;
        }
        let flag = EXPRESSION | if shared.follow { MAY_WAIT } else { 0 };
        let ext = [
            ("consumerGroup", Val::Str(&shared.group)),
            ("topic", Val::Str(&q.topic)),
            ("queueId", q.id.into()),
            ("queueOffset", q.next.into()),
            ("maxMsgNums", Val::Int(shared.pull_batch.into())),
            ("sysFlag", flag.into()),
            ("commitOffset", Val::Int(0)),
            ("suspendTimeoutMillis", Val::Int(SUSPEND.as_millis() as i64)),
            ("subscription", Val::Str("*")),
            ("subVersion", Val::Int(0)),
            ("expressionType", Val::Str("TAG")),
            ("bname", Val::Str(&q.broker)),
        ];
        let header = RequestHeader {
            code: request::PULL_MESSAGE,
            opaque: FIRST_OPAQUE + at as i32,
            oneway: false,
            remark: None,
            ext: &ext,
        };
        encode_request(out, HeaderFormat::Json, &header, &[]);
        q.state = State::Asked(now);
    }

    /// Takes an answer and asks for more; whether the queue came to its end.
    fn answer(&mut self, answer: &Answer<'_>, now: u64, out: &mut BytesMut) -> bool {
        let shared = self.shared.clone();
        let mut stats = shared.stats.borrow_mut();
        if !answer.is_response {
            stats.notifications += 1;
            return false;
        }
        let at = usize::try_from(answer.opaque.wrapping_sub(FIRST_OPAQUE)).unwrap_or(usize::MAX);
        let Some(q) = self.queues.get_mut(at) else {
            return false;
        };
        let State::Asked(since) = q.state else {
            return false;
        };
        stats.pulls += 1;
        let next = answer.int(&shared.next_begin);
        match (answer.code, next) {
            (response::SUCCESS, Some(next)) if next > q.next => {
                stats.full_pulls += 1;
                stats.pull_latencies.record(now.saturating_sub(since), 1);
                q.fruitless = 0;
                shared.take(q, answer.body, now, &mut stats);
                q.next = next;
            }
            (response::PULL_NOT_FOUND | response::PULL_RETRY_IMMEDIATELY, Some(next)) => {
                q.fruitless = if next > q.next || shared.follow {
                    0
                } else {
                    q.fruitless + 1
                };
                q.next = q.next.max(next);
                // A broker that does not hold the request must not be asked in a loop.
                let held = now.saturating_sub(since) > PAUSE;
                if !held && q.next < q.end {
                    q.state = State::Ready(now + PAUSE);
                }
            }
            (response::PULL_OFFSET_MOVED, Some(next)) => {
                stats.moved += next.abs_diff(q.next);
                shared.checker.borrow_mut().moved(q.number, next);
                q.next = next;
                q.fruitless += 1;
            }
            (code, _) => {
                let key = match code {
                    response::SUCCESS => "answer without a new offset".to_owned(),
                    code => code_key(code),
                };
                count(&mut stats.errors, &key, 1);
                stats.last_error = format!("{key}: {}", answer.remark());
                q.fruitless += 1;
                q.state = State::Ready(now + PAUSE);
            }
        }
        if q.fruitless > MAX_FRUITLESS {
            stats.unread += 1;
            q.state = State::Done;
            return true;
        }
        drop(stats);
        if q.next >= q.end {
            q.state = State::Done;
        } else if let State::Asked(_) = q.state {
            self.pull(at, now, out);
            return false;
        }
        self.queues[at].state == State::Done
    }
}

impl Reading {
    fn take(&self, q: &ReadQueue, body: &[u8], now: u64, stats: &mut ReadStats) {
        let mut checker = self.checker.borrow_mut();
        let mut verifier = self.verifier.borrow_mut();
        for parsed in record::records(body) {
            let view = match parsed {
                Ok(view) => view,
                Err(e) => {
                    checker.counts.bad_records += 1;
                    stats.last_error = format!("{} queue {}: {e}", q.topic, q.id);
                    break;
                }
            };
            let offset = view.queue_offset();
            if offset >= q.end {
                break;
            }
            let sent = body::check(view.body());
            if let (Some(verifier), Some(number)) = (verifier.as_mut(), q.expected) {
                verifier.message(number, offset, sent.as_ref().ok());
            }
            if let (Some(sending), Ok(id)) = (&self.sending, &sent) {
                if id.run == sending.run {
                    stats.received += 1;
                    if sending.counts(id.due) {
                        stats.received_measured += 1;
                        stats.arrivals.record(now.saturating_sub(id.due), 1);
                    }
                }
            }
            let place = (q.id, q.hash);
            checker.message(q.number, offset, place, sent, view.body().len());
        }
    }
}
