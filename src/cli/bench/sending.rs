//! What the connections of a sending run share.

use super::body::{topic_hash, Bodies};
use super::clock;
use super::record::{Ack, Recorder};
use super::request::{Form, Place, Stamp, Template};
use super::stats::{count, Counts, Latencies};
use super::topology::{Broker, Queue, Source};
use crate::client::{Client, ClientError, FieldName};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::Notify;

/// A route younger than this is not read again, ns.
const ROUTE_AGE: u64 = 50_000_000;

/// Where a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The same load, not measured.
    Warmup,
    /// Measured.
    Measured,
    /// Nothing new is begun; answers are awaited.
    Stopping,
}

/// Counts of a sending run.
#[derive(Debug)]
pub(super) struct SendStats {
    /// Messages acknowledged within the measured time.
    pub acked: u64,
    /// Messages acknowledged in the whole run.
    pub acked_total: u64,
    /// Requests acknowledged in the whole run.
    pub requests_total: u64,
    /// Messages given up.
    pub failed: u64,
    /// Latencies of the messages that were due within the measured time.
    pub latencies: Latencies,
    /// Stored, but flush or replica not confirmed (codes 10, 11, 12), by code.
    pub unconfirmed: Counts,
    /// Messages sent again, by the code or break that made it so.
    pub retries: Counts,
    /// Messages given up, by the last code or break.
    pub errors: Counts,
    /// The last text that came with an error.
    pub last_error: String,
    /// Connections made.
    pub connects: u64,
    /// Answers that belong to nothing.
    pub strange: u64,
    /// Requests that the server sent.
    pub server_requests: u64,
    /// When the first message was acknowledged, ms since 1970.
    pub first_ack_unix_ms: Option<u64>,
    /// When the last one was, ns.
    last_ack: u64,
    /// Longest time between two acknowledgements of the run, ns.
    pub longest_gap: u64,
    /// When that time ended, ms since 1970.
    pub longest_gap_end_unix_ms: Option<u64>,
    /// Measured messages begun and not yet acknowledged or given up.
    pub open: u64,
    /// Messages that were due and never sent.
    pub unsent: u64,
}

impl SendStats {
    fn new() -> Self {
        Self {
            acked: 0,
            acked_total: 0,
            requests_total: 0,
            failed: 0,
            latencies: Latencies::new(),
            unconfirmed: Counts::new(),
            retries: Counts::new(),
            errors: Counts::new(),
            last_error: String::new(),
            connects: 0,
            strange: 0,
            server_requests: 0,
            first_ack_unix_ms: None,
            last_ack: 0,
            longest_gap: 0,
            longest_gap_end_unix_ms: None,
            open: 0,
            unsent: 0,
        }
    }

    /// Notes the time of an acknowledgement.
    pub(super) fn acked_at(&mut self, now: u64) {
        if self.first_ack_unix_ms.is_none() {
            self.first_ack_unix_ms = Some(clock::unix_ms());
        } else {
            let gap = now.saturating_sub(self.last_ack);
            if gap > self.longest_gap {
                self.longest_gap = gap;
                self.longest_gap_end_unix_ms = Some(clock::unix_ms());
            }
        }
        self.last_ack = now;
    }

    /// Notes a message that is given up.
    pub(super) fn give_up(&mut self, key: &str, messages: u64, measured: bool) {
        count(&mut self.errors, key, messages);
        self.failed += messages;
        if measured {
            self.open = self.open.saturating_sub(messages);
        }
    }
}

/// A queue with its request.
#[derive(Debug)]
pub(super) struct Target {
    /// The request.
    pub template: Template,
    /// Queue id.
    pub queue: i32,
    /// Hash of the topic.
    pub topic: u32,
    /// Number of the queue in this run.
    pub number: u32,
}

/// A broker with the requests to its queues.
#[derive(Debug)]
pub(super) struct Lane {
    /// `host:port`.
    pub addr: String,
    /// Its queues; never empty.
    pub targets: Vec<Target>,
}

/// A queue of a run, as it is called in records: broker name, topic, queue id.
pub(super) type QueueName = (String, Rc<str>, i32);

/// What a run needs to know at its start.
pub(super) struct Plan {
    /// Finds brokers.
    pub client: Rc<Client>,
    /// Which queues.
    pub source: Source,
    /// What the requests look like.
    pub form: Form,
    /// Size of a body.
    pub size: usize,
    /// Requests under way on each connection.
    pub window: usize,
    /// Messages a second in all.
    pub rate: Option<u64>,
    /// How often a message is sent again.
    pub retries: u16,
    /// Connections.
    pub connections: u16,
    /// Longest wait for an answer.
    pub timeout: Duration,
    /// Measured messages, when they are what ends the run.
    pub messages: Option<u64>,
}

/// A sending run, shared by its connections.
pub(super) struct Sending {
    pub plan: Plan,
    /// Tells this run's messages from others'.
    pub run: u32,
    pub bodies: Bodies,
    pub stamp: RefCell<Stamp>,
    pub stats: RefCell<SendStats>,
    pub queue_offset: FieldName,
    /// Beginning of the run, ns; 0 while the connections are made.
    start: Cell<u64>,
    started: Notify,
    ready: Cell<u16>,
    phase: Cell<Phase>,
    measured: Cell<(u64, u64)>,
    /// Measured messages that may still be begun.
    left: Cell<Option<u64>>,
    /// When connections stop to wait for answers, ns.
    pub give_up_at: Cell<u64>,
    /// Told when the last of a given number of messages is done.
    pub finished: Notify,
    lanes: RefCell<Known>,
    /// Where acknowledgements are written down.
    pub record: RefCell<Option<Recorder>>,
}

#[derive(Default)]
struct Known {
    read_at: u64,
    brokers: Vec<Broker>,
    lanes: Vec<Rc<Lane>>,
    numbers: BTreeMap<QueueName, u32>,
}

impl Sending {
    pub(super) fn new(plan: Plan) -> Self {
        let run = (clock::unix_ms() as u32)
            .rotate_left(8)
            .wrapping_add(std::process::id())
            .wrapping_mul(0x9E37_79B1)
            ^ (clock::now() as u32);
        Self {
            bodies: Bodies::new(plan.size),
            stamp: RefCell::new(Stamp::new(run)),
            stats: RefCell::new(SendStats::new()),
            queue_offset: FieldName::new("queueOffset"),
            start: Cell::new(0),
            started: Notify::new(),
            ready: Cell::new(0),
            phase: Cell::new(Phase::Warmup),
            measured: Cell::new((u64::MAX, u64::MAX)),
            left: Cell::new(plan.messages),
            give_up_at: Cell::new(u64::MAX),
            finished: Notify::new(),
            lanes: RefCell::default(),
            record: RefCell::new(None),
            run,
            plan,
        }
    }

    pub(super) fn phase(&self) -> Phase {
        self.phase.get()
    }

    /// A connection is made for the first time; waits until the run starts and gives that time.
    pub(super) async fn join(&self) -> u64 {
        self.ready.set(self.ready.get().saturating_add(1));
        while self.start.get() == 0 {
            self.started.notified().await;
        }
        self.start.get()
    }

    /// Whether all connections have joined.
    pub(super) fn is_ready(&self) -> bool {
        self.ready.get() >= self.plan.connections
    }

    /// The run starts: the first messages are due.
    pub(super) fn go(&self) {
        self.start.set(clock::now());
        self.started.notify_waiters();
    }

    /// Beginning of the run, ns.
    pub(super) fn start(&self) -> u64 {
        self.start.get()
    }

    /// The measured time begins, after a warm-up or with the run itself.
    pub(super) fn begin(&self, warm: bool) {
        let from = if warm { clock::now() } else { self.start.get() };
        self.measured.set((from, u64::MAX));
        self.phase.set(Phase::Measured);
    }

    /// The measured time ends; what is under way may take `grace` more.
    pub(super) fn end(&self, grace: Duration) {
        let now = clock::now();
        self.measured.set((self.measured.get().0, now));
        self.phase.set(Phase::Stopping);
        let grace = u64::try_from(grace.as_nanos()).unwrap_or(u64::MAX);
        self.give_up_at.set(now.saturating_add(grace));
    }

    /// Whether a message that is due at `due` counts.
    pub(super) fn counts(&self, due: u64) -> bool {
        let (from, to) = self.measured.get();
        due >= from && due < to
    }

    /// The end of the measured time; the far future before it.
    pub(super) fn measured_to(&self) -> u64 {
        self.measured.get().1
    }

    /// How many of `wanted` messages that are due at `due` may be begun.
    pub(super) fn take(&self, due: u64, wanted: u32) -> u32 {
        match (self.left.get(), self.phase()) {
            (Some(left), Phase::Measured) if self.counts(due) => {
                let taken = left.min(u64::from(wanted));
                self.left.set(Some(left - taken));
                u32::try_from(taken).unwrap_or(wanted)
            }
            _ => wanted,
        }
    }

    /// Whether no message of a given number is left to begin.
    pub(super) fn is_used_up(&self) -> bool {
        match (self.left.get(), self.phase()) {
            (Some(left), Phase::Measured) => left == 0,
            (left, Phase::Stopping) => left.is_some(),
            (_, _) => false,
        }
    }

    /// Whether messages are counted out.
    pub(super) fn is_counted_out(&self) -> bool {
        self.plan.messages.is_some()
    }

    /// Tells the controller when a given number of messages is done.
    pub(super) fn check_finished(&self) {
        if self.left.get() == Some(0) && self.stats.borrow().open == 0 {
            self.finished.notify_one();
        }
    }

    /// The brokers with prepared requests, read again unless that was just done. While no name
    /// server answers, the last known ones stay, as in every client.
    pub(super) async fn lanes(&self) -> Result<Vec<Rc<Lane>>, ClientError> {
        let now = clock::now();
        {
            let known = self.lanes.borrow();
            if !known.lanes.is_empty() && now.saturating_sub(known.read_at) < ROUTE_AGE {
                return Ok(known.lanes.clone());
            }
        }
        let read = self.plan.source.brokers(&self.plan.client).await;
        let mut known = self.lanes.borrow_mut();
        let known = &mut *known;
        match read {
            Ok(brokers) => {
                known.read_at = clock::now();
                if known.brokers != brokers {
                    let numbers = &mut known.numbers;
                    known.lanes = brokers.iter().map(|b| self.lane(b, numbers)).collect();
                    known.brokers = brokers;
                }
            }
            Err(e) if known.lanes.is_empty() => return Err(e),
            Err(_) => {}
        }
        Ok(known.lanes.clone())
    }

    fn lane(&self, broker: &Broker, numbers: &mut BTreeMap<QueueName, u32>) -> Rc<Lane> {
        let target = |q: &Queue| {
            let place = Place {
                topic: &q.topic,
                broker: &broker.name,
                queue: q.id,
            };
            let fresh = numbers.len() as u32;
            let name = (broker.name.clone(), q.topic.clone(), q.id);
            Target {
                template: Template::new(&self.plan.form, place),
                queue: q.id,
                topic: topic_hash(&q.topic),
                number: *numbers.entry(name).or_insert(fresh),
            }
        };
        Rc::new(Lane {
            addr: broker.addr.clone(),
            targets: broker.queues.iter().map(target).collect(),
        })
    }

    /// Writes down an acknowledgement, if that is wanted. A full disk ends the record, not the run.
    pub(super) fn write_down(&self, ack: &Ack) {
        let mut record = self.record.borrow_mut();
        let Some(recorder) = record.as_mut() else {
            return;
        };
        let name = || {
            let known = self.lanes.borrow();
            let found = known.numbers.iter().find(|(_, n)| **n == ack.queue);
            found.map_or_else(|| (String::new(), "".into(), -1), |(name, _)| name.clone())
        };
        if let Err(e) = recorder.ack(ack, name) {
            self.stats.borrow_mut().last_error = format!("the record: {e}");
            *record = None;
        }
    }

    /// The brokers as last read.
    pub(super) fn brokers(&self) -> Vec<Broker> {
        self.lanes.borrow().brokers.clone()
    }
}
