//! One sending connection: fills its window or follows its schedule, sends again what was refused
//! or lost, and finds the broker again when the connection breaks.

use super::body::BodyId;
use super::clock::{self, Alarm};
use super::record::Ack;
use super::request::FIRST_OPAQUE;
use super::schedule::Schedule;
use super::sending::{Lane, Phase, Sending};
use super::stats::{code_key, count};
use crate::client::{Answer, ClientError, Pipe};
use crate::wire::remoting::code::{request, response};
use bytes::BytesMut;
use slab::Slab;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;
use tokio::time::{sleep, Instant, Sleep};

/// How often time limits are looked at.
const TICK: Duration = Duration::from_millis(50);
/// Bytes that wait for the socket before no more is written.
const MAX_UNSENT: usize = 4 << 20;
/// Slots of a connection and generations of a slot, both part of the opaque.
const SLOTS: i32 = 1_000_000;
const GENERATIONS: i32 = 1_000;
/// First and longest pause before the next try to connect.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);
/// After this long without a connection it is given up.
const PATIENCE: Duration = Duration::from_secs(60);
/// Pause before a refused message is sent again, ns; doubled with every try.
const AGAIN_PAUSE: u64 = 1_000_000;

/// A request, wherever it is.
#[derive(Clone, Copy, Debug)]
struct Job {
    /// When it should have been sent first, ns.
    due: u64,
    /// Number of its first message.
    seq: u64,
    /// Messages in it.
    count: u32,
    attempt: u16,
    measured: bool,
}

#[derive(Debug)]
struct Slot {
    job: Job,
    opaque: i32,
    sent: u64,
    target: u32,
}

/// A connection of a run.
pub(super) struct Producer {
    shared: Rc<Sending>,
    index: u16,
    next_seq: u64,
    next_queue: usize,
    generation: i32,
    schedule: Option<Schedule>,
    joined: bool,
    pending: Slab<Slot>,
    /// To be sent again, with the time from which on.
    again: VecDeque<(u64, Job)>,
    alarm: Alarm,
    tick: Pin<Box<Sleep>>,
}

impl Producer {
    /// Connection `index` of a run.
    pub(super) fn new(shared: Rc<Sending>, index: u16) -> std::io::Result<Self> {
        Ok(Self {
            index,
            next_seq: 0,
            next_queue: usize::from(index),
            generation: 0,
            schedule: None,
            joined: false,
            pending: Slab::new(),
            again: VecDeque::new(),
            alarm: Alarm::new()?,
            tick: Box::pin(sleep(TICK)),
            shared,
        })
    }

    /// Sends until the run stops and all answers are there, or nobody waits for them any more.
    pub(super) async fn run(mut self) {
        let mut pause = FIRST_PAUSE;
        let mut shift = 0;
        let mut alive = Instant::now();
        loop {
            match self.connect(shift).await {
                Ok((mut pipe, lane)) => {
                    self.shared.stats.borrow_mut().connects += 1;
                    self.join().await;
                    let connected = Instant::now();
                    match self.drive(&mut pipe, &lane).await {
                        Ok(()) => break,
                        Err(e) => self.lost(&e),
                    }
                    alive = Instant::now();
                    if connected.elapsed() > LONGEST_PAUSE {
                        pause = FIRST_PAUSE;
                    }
                }
                Err(e) => {
                    self.shared.stats.borrow_mut().last_error = e.to_string();
                    shift += 1;
                }
            }
            let stopping = self.shared.phase() == Phase::Stopping;
            if (stopping && self.again.is_empty() && !self.owes(clock::now()))
                || clock::now() >= self.shared.give_up_at.get()
                || alive.elapsed() > PATIENCE
            {
                break;
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        self.leave();
    }

    /// Waits for the others before the first message.
    async fn join(&mut self) {
        if std::mem::replace(&mut self.joined, true) {
            return;
        }
        let start = self.shared.join().await;
        let plan = &self.shared.plan;
        let batch = u64::from(plan.form.batch);
        self.schedule = plan.rate.map(|rate| {
            let of = u64::from(plan.connections) * batch;
            Schedule::new(start, rate, u64::from(self.index) * batch, of)
        });
    }

    /// Connects to this connection's broker, or after failures to another one.
    async fn connect(&mut self, shift: usize) -> Result<(Pipe, Rc<Lane>), ClientError> {
        let lanes = self.shared.lanes().await?;
        let lane = lanes[(usize::from(self.index) + shift) % lanes.len()].clone();
        let pipe = Pipe::connect(&lane.addr, None, self.shared.plan.timeout, 32 * 1024).await?;
        // Connections begin at different queues.
        let apart = lane.targets.len() / usize::from(self.shared.plan.connections).max(1);
        if self.next_seq == 0 {
            self.next_queue = usize::from(self.index) * apart.max(1);
        }
        Ok((pipe, lane))
    }

    async fn drive(&mut self, pipe: &mut Pipe, lane: &Lane) -> Result<(), ClientError> {
        loop {
            let now = clock::now();
            self.fill(now, pipe.out(), lane);
            if self.shared.phase() == Phase::Stopping
                && self.pending.is_empty()
                && self.again.is_empty()
                && !self.owes(now)
                || now >= self.shared.give_up_at.get()
            {
                return Ok(());
            }
            let wake = self.wake_at(pipe.out().len());
            let (alarm, tick) = (&mut self.alarm, &mut self.tick);
            let mut ticked = false;
            std::future::poll_fn(|cx| {
                if let Poll::Ready(read) = pipe.poll(cx) {
                    return Poll::Ready(read);
                }
                if tick.as_mut().poll(cx).is_ready() {
                    ticked = true;
                    return Poll::Ready(Ok(()));
                }
                match wake.map(|at| alarm.poll(at, cx)) {
                    Some(Poll::Ready(_)) => Poll::Ready(Ok(())),
                    _ => Poll::Pending,
                }
            })
            .await?;
            let now = clock::now();
            pipe.drain(|answer, _| self.answer(&answer, now, lane))?;
            if ticked {
                self.tick.as_mut().reset(Instant::now() + TICK);
                self.check_timeouts(now, pipe.addr())?;
            }
        }
    }

    /// Whether the schedule has messages that were due within the measured time.
    fn owes(&self, now: u64) -> bool {
        let to = self.shared.measured_to().min(now);
        self.schedule.as_ref().is_some_and(|s| s.due() < to) && !self.shared.is_used_up()
    }

    /// When something is to be done although no answer comes.
    fn wake_at(&self, unsent: usize) -> Option<u64> {
        if self.pending.len() >= self.shared.plan.window || unsent >= MAX_UNSENT {
            return None;
        }
        let again = self.again.front().map(|(at, _)| *at);
        let due = self.schedule.as_ref().map(Schedule::due);
        let due = due.filter(|d| *d < self.shared.measured_to() && !self.shared.is_used_up());
        match (again, due) {
            (Some(a), Some(d)) => Some(a.min(d)),
            (a, d) => a.or(d),
        }
    }

    fn fill(&mut self, now: u64, out: &mut BytesMut, lane: &Lane) {
        let shared = self.shared.clone();
        shared.stamp.borrow_mut().set_time(clock::unix_ms());
        let room = |p: &Self, out: &BytesMut| {
            p.pending.len() < shared.plan.window && out.len() < MAX_UNSENT
        };
        while room(self, out) && self.again.front().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, job)) = self.again.pop_front() {
                self.send(job, now, out, lane);
            }
        }
        let stopping = shared.phase() == Phase::Stopping;
        while room(self, out) {
            let due = match &self.schedule {
                None if stopping => break,
                None => now,
                Some(s) if s.due() > now || s.due() >= shared.measured_to() => break,
                Some(s) => s.due(),
            };
            if shared.is_used_up() {
                break;
            }
            let count = shared.take(due, shared.plan.form.batch);
            if let Some(s) = &mut self.schedule {
                s.advance();
            }
            let measured = shared.counts(due);
            if measured {
                shared.stats.borrow_mut().open += u64::from(count);
            }
            let job = Job {
                due,
                seq: self.next_seq,
                count,
                attempt: 0,
                measured,
            };
            self.next_seq += u64::from(count);
            self.send(job, now, out, lane);
        }
    }

    fn send(&mut self, job: Job, now: u64, out: &mut BytesMut, lane: &Lane) {
        let at = self.next_queue % lane.targets.len();
        self.next_queue = at + 1;
        let target = &lane.targets[at];
        self.generation = (self.generation + 1) % GENERATIONS;
        let entry = self.pending.vacant_entry();
        let opaque = FIRST_OPAQUE + self.generation * SLOTS + entry.key() as i32;
        entry.insert(Slot {
            job,
            opaque,
            sent: now,
            target: at as u32,
        });
        let id = BodyId {
            run: self.shared.run,
            connection: self.index,
            attempt: job.attempt,
            seq: job.seq,
            due: job.due,
            queue: target.queue,
            topic: target.topic,
        };
        let mut stamp = self.shared.stamp.borrow_mut();
        let bodies = &self.shared.bodies;
        target
            .template
            .put(out, opaque, &mut stamp, bodies, (id, job.count));
    }

    fn answer(&mut self, answer: &Answer<'_>, now: u64, lane: &Lane) {
        let shared = self.shared.clone();
        let mut stats = shared.stats.borrow_mut();
        if !answer.is_response {
            stats.server_requests += 1;
            return;
        }
        let key = usize::try_from(answer.opaque.wrapping_sub(FIRST_OPAQUE) % SLOTS);
        let known = key.ok().filter(|k| {
            let slot = self.pending.get(*k);
            slot.is_some_and(|s| s.opaque == answer.opaque)
        });
        let Some(key) = known else {
            stats.strange += 1;
            return;
        };
        let slot = self.pending.remove(key);
        let (job, messages) = (slot.job, u64::from(slot.job.count));
        let stored = matches!(
            answer.code,
            response::SUCCESS
                | response::FLUSH_DISK_TIMEOUT
                | response::SLAVE_NOT_AVAILABLE
                | response::FLUSH_SLAVE_TIMEOUT
        );
        if !stored {
            let key = code_key(answer.code);
            stats.last_error = format!("{key}: {}", answer.remark());
            if is_retryable(answer.code) && job.attempt < shared.plan.retries {
                count(&mut stats.retries, &key, messages);
                let pause = AGAIN_PAUSE << job.attempt.min(8);
                self.push_again(now.saturating_add(pause), job);
            } else {
                stats.give_up(&key, messages, job.measured);
                drop(stats);
                shared.check_finished();
            }
            return;
        }
        let Some(offset) = answer.int(&shared.queue_offset) else {
            stats.last_error = "an answer without a queue offset".to_owned();
            stats.give_up("answer without offset", messages, job.measured);
            drop(stats);
            shared.check_finished();
            return;
        };
        let confirmed = answer.code == response::SUCCESS;
        if !confirmed {
            count(&mut stats.unconfirmed, &code_key(answer.code), messages);
        }
        if confirmed {
            stats.acked_at(now);
        }
        stats.acked_total += messages;
        stats.requests_total += 1;
        let in_time = shared.phase() == Phase::Measured;
        if in_time && (job.measured || !shared.is_counted_out()) {
            stats.acked += messages;
        }
        if job.measured {
            stats.open = stats.open.saturating_sub(messages);
            stats
                .latencies
                .record(now.saturating_sub(job.due), messages);
        }
        drop(stats);
        // What was stored but not confirmed is no promise.
        let target = lane.targets.get(slot.target as usize);
        if let Some(target) = target.filter(|_| confirmed) {
            shared.write_down(&Ack {
                queue: target.number,
                connection: self.index,
                seq: job.seq,
                attempt: job.attempt,
                offset,
                count: job.count,
            });
        }
        shared.check_finished();
    }

    fn push_again(&mut self, at: u64, mut job: Job) {
        job.attempt += 1;
        // Almost always the latest; the queue is sorted by time.
        let place = self.again.partition_point(|(other, _)| *other <= at);
        self.again.insert(place, (at, job));
    }

    /// A connection on which the server has not answered for too long is closed, as Java clients do.
    fn check_timeouts(&self, now: u64, addr: &str) -> Result<(), ClientError> {
        let limit = self.shared.plan.timeout;
        let oldest = self.pending.iter().map(|(_, s)| s.sent).min();
        let waited = Duration::from_nanos(oldest.map_or(0, |s| now.saturating_sub(s)));
        if waited > limit {
            return Err(ClientError::Timeout {
                addr: addr.to_owned(),
                request: request::SEND_MESSAGE_V2,
                ms: u64::try_from(limit.as_millis()).unwrap_or(u64::MAX),
            });
        }
        Ok(())
    }

    /// The connection broke: everything under way is sent again, or given up.
    fn lost(&mut self, error: &ClientError) {
        let key = match error {
            ClientError::Timeout { .. } => "no answer in time",
            _ => "connection lost",
        };
        let shared = self.shared.clone();
        let mut stats = shared.stats.borrow_mut();
        stats.last_error = error.to_string();
        let mut slots: Vec<Slot> = self.pending.drain().collect();
        slots.sort_by_key(|s| s.job.seq);
        let now = clock::now();
        for slot in slots {
            let messages = u64::from(slot.job.count);
            if slot.job.attempt < shared.plan.retries {
                count(&mut stats.retries, key, messages);
                self.push_again(now, slot.job);
            } else {
                stats.give_up(key, messages, slot.job.measured);
            }
        }
        drop(stats);
        shared.check_finished();
    }

    /// Counts what is left when nobody waits any more.
    fn leave(mut self) {
        let shared = self.shared.clone();
        let mut stats = shared.stats.borrow_mut();
        let unanswered: Vec<Job> = self.pending.drain().map(|s| s.job).collect();
        for job in &unanswered {
            stats.give_up(
                "not answered before the end",
                job.count.into(),
                job.measured,
            );
        }
        for (_, job) in &self.again {
            stats.give_up(
                "not sent again before the end",
                job.count.into(),
                job.measured,
            );
        }
        if let Some(schedule) = &self.schedule {
            if !shared.is_counted_out() {
                let late = schedule.behind(shared.measured_to().min(clock::now()));
                stats.unsent += late * u64::from(shared.plan.form.batch);
            }
        }
        drop(stats);
        shared.check_finished();
    }
}

/// Codes after which clients try another queue.
fn is_retryable(code: i32) -> bool {
    matches!(
        code,
        response::SYSTEM_ERROR
            | response::SYSTEM_BUSY
            | response::SERVICE_NOT_AVAILABLE
            | response::NO_PERMISSION
            | response::TOPIC_NOT_EXIST
            | response::NO_BUYER_ID
            | response::NOT_IN_CURRENT_UNIT
            | response::FLOW_CONTROL
            | response::GO_AWAY
    )
}
