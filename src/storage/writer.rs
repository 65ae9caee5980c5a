//! The one thread that writes: all shards' log appends and state batches go through it, so that
//! appends which arrive together share one write and one sync.
//!
//! Each round takes everything queued and does, in this order (`round`): all appends as one log write (one
//! sync if any of them wants it), their reports in the order of the jobs; all state batches as one
//! write, and reports; trims; a flush when one was asked for or is due.
//!
//! Whoever has a single small job that need not wait for the disk may do it on its own thread
//! instead, when nobody else has work for the store ([`WriterHandle::submit_here`]): waking the
//! writer and being woken by it would take several times as long.
//!
//! What nobody waits for is synced by a thread of its own, beside the appends (`apart`). It begins at
//! half the longest time that appends may stay unsynced; where a sync takes the other half, the writer
//! waits for its end.
//!
//! The first failed write, sync or flush is final: [`Done::Failed`] is reported once, nothing is
//! written any more and later jobs are refused. A sync is never retried: what the kernel dropped
//! it would then report as written.

mod apart;
mod round;

pub use round::{Appends, Done, Job, Round, States, Step};

use super::jobs::{job_queue, JobReceiver, JobSender};
use super::points::{pass, FailPoint};
use super::{SnapshotStore, StoreError, StoreStats};
use apart::Apart;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Limits of the writer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriterOptions {
    /// Log bytes after which state rows are flushed: they bound the replay after a crash.
    pub flush_after_bytes: u64,
    /// Time after which changed state rows are flushed.
    pub flush_after: Duration,
    /// Bytes of entries merged into one write.
    pub max_write_bytes: usize,
    /// Where to look for free space; not looked at when `None`.
    pub disk_path: Option<PathBuf>,
    /// Longest time that unsynced appends stay so: the most a power cut takes from ASYNC_FLUSH.
    pub sync_after: Duration,
    /// How often to look for free space and for background errors.
    pub check_every: Duration,
}

impl Default for WriterOptions {
    fn default() -> Self {
        Self {
            flush_after_bytes: 256 << 20,
            flush_after: Duration::from_secs(30),
            max_write_bytes: 16 << 20,
            disk_path: None,
            sync_after: Duration::from_millis(500),
            check_every: Duration::from_secs(1),
        }
    }
}

/// Called by the writer thread for every [`Done`], in order. Must not block.
pub type OnDone = Box<dyn Fn(Done) + Send>;

/// The running writer thread. Dropping it stops the thread as [`Writer::stop`] does.
pub struct Writer {
    jobs: JobSender<Job>,
    stats: Arc<StoreStats>,
    rounds: Arc<dyn DoHere>,
    thread: Option<JoinHandle<()>>,
}

/// A cloneable handle to hand jobs to the writer.
#[derive(Clone)]
pub struct WriterHandle {
    jobs: JobSender<Job>,
    stats: Arc<StoreStats>,
    rounds: Arc<dyn DoHere>,
}

/// Does a job on the thread of the caller.
trait DoHere: Send + Sync {
    /// Gives the job back when somebody else has the store, or work for it.
    fn do_here(&self, job: Job, jobs: &JobSender<Job>) -> Result<(), Job>;
}

/// The store and who writes to it now; `None` once the writer has ended.
type Place<S> = Mutex<Option<Rounds<S>>>;

impl<S: SnapshotStore + Send> DoHere for Place<S> {
    fn do_here(&self, job: Job, jobs: &JobSender<Job>) -> Result<(), Job> {
        let mut place = self.try_lock();
        let Some(rounds) = place.as_mut().and_then(|place| place.as_mut()) else {
            return Err(job);
        };
        // What was handed over before comes first.
        if rounds.failed || jobs.is_closed() || jobs.waiting() > 0 {
            return Err(job);
        }
        let unsynced = rounds.unsynced_since.is_some();
        if let Err(error) = rounds.write(Round::of(job)) {
            rounds.fail(error);
        }
        if rounds.unsynced_since.is_some() && !unsynced {
            // The writer's clock begins to run.
            drop(place);
            jobs.nudge();
        }
        Ok(())
    }
}

impl WriterHandle {
    /// Queues a job. Fails once the store has failed or the writer was stopped.
    pub fn submit(&self, job: Job) -> Result<(), StoreError> {
        if self.stats.has_failed() {
            return Err(StoreError::Io("the store has failed".into()));
        }
        self.jobs
            .send(job)
            .map_err(|_refused| StoreError::Io("the writer has stopped".into()))
    }

    /// [`WriterHandle::submit`], and the job is done before this returns when nobody else has work
    /// for the store. For a small append or a batch of state rows: what falls due later is the
    /// writer's. Its [`Done`] comes all the same. Whether it was done here.
    pub fn submit_here(&self, job: Job) -> Result<bool, StoreError> {
        match self.rounds.do_here(job, &self.jobs) {
            Ok(()) => Ok(true),
            Err(job) => self.submit(job).map(|()| false),
        }
    }

    /// Jobs waiting.
    pub fn waiting(&self) -> usize {
        self.jobs.waiting()
    }

    pub fn stats(&self) -> &Arc<StoreStats> {
        &self.stats
    }
}

impl Writer {
    /// Starts the thread, which owns `store` from now on.
    pub fn spawn<S>(store: S, options: WriterOptions, on_done: OnDone) -> std::io::Result<Self>
    where
        S: SnapshotStore + Send + 'static,
    {
        let (jobs, queue) = job_queue();
        let stats = Arc::new(StoreStats::default());
        let bell = jobs.clone();
        let apart = Apart::spawn(move || bell.nudge())?;
        let rounds = Rounds::new(store, options, on_done, stats.clone(), apart);
        let place: Arc<Place<S>> = Arc::new(Mutex::new(Some(rounds)));
        let rounds = place.clone();
        let thread = std::thread::Builder::new()
            .name("log-writer".into())
            .spawn(move || {
                // Whoever waits for a write would wait for ever.
                let run = AssertUnwindSafe(|| run(&place, &queue));
                let panicked = catch_unwind(run).is_err();
                if let (Some(mut rounds), true) = (place.lock().take(), panicked) {
                    rounds.fail(StoreError::Io("the writer panicked".into()));
                }
            })?;
        Ok(Self {
            jobs,
            stats,
            rounds,
            thread: Some(thread),
        })
    }

    /// A handle for senders.
    pub fn handle(&self) -> WriterHandle {
        WriterHandle {
            jobs: self.jobs.clone(),
            stats: self.stats.clone(),
            rounds: self.rounds.clone(),
        }
    }

    pub fn submit(&self, job: Job) -> Result<(), StoreError> {
        self.handle().submit(job)
    }

    pub fn stats(&self) -> &Arc<StoreStats> {
        &self.stats
    }

    /// Does what is queued, closes the store cleanly and waits for the thread.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let _ = self.jobs.send(Job::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.end();
    }
}

struct Rounds<S> {
    store: S,
    options: WriterOptions,
    on_done: OnDone,
    stats: Arc<StoreStats>,
    failed: bool,
    /// Log bytes since the last flush, and when the first state row since then was written.
    unflushed_bytes: u64,
    unflushed_since: Option<Instant>,
    /// Since when there are appends that no sync covers, neither done nor under way.
    unsynced_since: Option<Instant>,
    apart: Apart,
    /// The same of those that the sync under way covers.
    apart_since: Option<Instant>,
    next_check: Instant,
}

impl<S: SnapshotStore> Rounds<S> {
    fn new(
        store: S,
        options: WriterOptions,
        on_done: OnDone,
        stats: Arc<StoreStats>,
        apart: Apart,
    ) -> Self {
        let now = Instant::now();
        Self {
            store,
            options,
            on_done,
            stats,
            failed: false,
            unflushed_bytes: 0,
            unflushed_since: None,
            unsynced_since: None,
            apart,
            apart_since: None,
            next_check: now,
        }
    }

    /// Does all that is queued. Returns true when it was told to stop.
    fn turn(&mut self, queue: &JobReceiver<Job>, waiting: &mut VecDeque<Job>) -> bool {
        loop {
            let open = queue.take(waiting);
            let ends = !open && waiting.is_empty();
            let mut round = Round::gather(waiting, self.options.max_write_bytes);
            if ends {
                round.stop();
            }
            let stop = round.stops();
            if !self.failed {
                if let Err(error) = self.round(round) {
                    self.fail(error);
                }
            }
            if stop || waiting.is_empty() {
                if !stop && !self.failed {
                    self.store.rest();
                }
                return stop;
            }
        }
    }

    /// The first failure is reported and final.
    fn fail(&mut self, error: StoreError) {
        if !std::mem::replace(&mut self.failed, true) {
            self.stats.failed.store(true, Ordering::Release);
            (self.on_done)(Done::Failed { error });
        }
    }

    /// How long to wait for work. The end of a sync rings by itself.
    fn wait(&self) -> Duration {
        let (since, after) = match self.apart_since {
            Some(since) => (Some(since), self.options.sync_after),
            None => (self.unsynced_since, self.options.sync_after / 2),
        };
        let left = since.map(|since| after.saturating_sub(since.elapsed()));
        left.map_or(self.options.check_every, |left| {
            left.min(self.options.check_every)
        })
    }

    /// Begins and ends syncs of what nobody waits for.
    fn sync_if_due(&mut self) -> Result<(), StoreError> {
        let after = self.options.sync_after;
        if let Some(since) = self.apart_since {
            let ended = match self.apart.poll() {
                None if since.elapsed() >= after => Some(self.apart.wait()),
                ended => ended,
            };
            if let Some(result) = ended {
                self.end_apart(result)?;
            }
        }
        let age = self.unsynced_since.map(|since| since.elapsed());
        if age.is_some_and(|age| age >= after / 2) && self.apart_since.is_none() {
            match self.store.sync_apart() {
                Some(task) => {
                    self.apart_since = self.unsynced_since.take();
                    self.apart.begin(task);
                }
                None => {
                    self.store.sync()?;
                    self.unsynced_since = None;
                    StoreStats::add(&self.stats.syncs, 1);
                }
            }
        }
        Ok(())
    }

    fn end_apart(&mut self, result: Result<(), StoreError>) -> Result<(), StoreError> {
        self.apart_since = None;
        self.store.synced_apart(result)?;
        StoreStats::add(&self.stats.syncs, 1);
        Ok(())
    }

    /// Appends and state rows, and nothing else.
    fn write(&mut self, round: Round) -> Result<(), StoreError> {
        for step in round {
            match step {
                Step::Append(appends) => self.append(&appends)?,
                Step::States(states) => self.states(states)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn round(&mut self, round: Round) -> Result<(), StoreError> {
        for step in round {
            match step {
                Step::Append(appends) => self.append(&appends)?,
                Step::States(states) => self.states(states)?,
                Step::Sync => self.sync_if_due()?,
                Step::Replace(job) | Step::Alone(job) => self.alone(job)?,
                Step::End { flush, stop } => self.end(flush, stop)?,
            }
        }
        Ok(())
    }

    fn states(&mut self, states: States) -> Result<(), StoreError> {
        self.store.write_all(&states.batches)?;
        StoreStats::add(&self.stats.state_batches, states.batches.len() as u64);
        self.unflushed_since.get_or_insert_with(Instant::now);
        pass(FailPoint::StateTold);
        for (shard, ticket) in states.tickets {
            (self.on_done)(Done::StateWritten { shard, ticket });
        }
        Ok(())
    }

    fn alone(&mut self, job: Job) -> Result<(), StoreError> {
        match job {
            Job::Install {
                shard,
                first,
                term,
                hard_state,
                ops,
            } => {
                self.store.install(shard, (first, term), hard_state, &ops)?;
                self.unsynced_since = None;
            }
            Job::Forget {
                shard,
                hard_state,
                reached,
            } => {
                self.store.forget(shard, hard_state, reached)?;
                self.unsynced_since = None;
            }
            Job::Trim {
                shard,
                ticket,
                first,
                term,
            } => {
                self.store.trim(shard, first, term)?;
                self.flushed();
                StoreStats::add(&self.stats.trims, 1);
                (self.on_done)(Done::Trimmed { shard, ticket });
            }
            Job::Regained { shard } => self.store.regained(shard)?,
            Job::Condemn(why) => {
                self.store.condemn(&why);
            }
            Job::Mend { shard, entry } => {
                self.store.mend(shard, &entry)?;
                let index = entry.index;
                (self.on_done)(Done::Mended { shard, index });
            }
            // Gathered with others of their kind.
            Job::Append { .. } | Job::State { .. } | Job::Stage { .. } | Job::Flush | Job::Stop => {
            }
        }
        Ok(())
    }

    fn end(&mut self, flush: bool, stop: bool) -> Result<(), StoreError> {
        if flush {
            self.store.flush()?;
            self.flushed();
        } else if self.flush_due() {
            self.store.flush_begin()?;
            self.flushed();
        }
        self.check()?;
        if stop {
            if self.apart_since.is_some() {
                let result = self.apart.wait();
                self.end_apart(result)?;
            }
            self.store.close()?;
        }
        Ok(())
    }

    fn append(&mut self, round: &Appends) -> Result<(), StoreError> {
        let begun = Instant::now();
        self.store.append(&round.appends)?;
        let stats = &self.stats;
        StoreStats::add(&stats.writes, 1);
        if round.appends.iter().any(|a| a.sync) {
            self.unsynced_since = None;
            StoreStats::add(&stats.syncs, 1);
            StoreStats::add(&stats.sync_micros_total, begun.elapsed().as_micros() as u64);
        }
        if !round.appends.iter().any(|a| a.sync) {
            self.unsynced_since.get_or_insert(begun);
        }
        StoreStats::add(
            &stats.entries,
            round.appends.iter().map(|a| a.entries.len() as u64).sum(),
        );
        StoreStats::add(&stats.bytes, round.bytes as u64);
        self.unflushed_bytes += round.bytes as u64;
        pass(FailPoint::AppendTold);
        for (shard, ticket) in &round.tickets {
            (self.on_done)(Done::Appended {
                shard: *shard,
                ticket: *ticket,
            });
        }
        Ok(())
    }

    fn flush_due(&self) -> bool {
        self.unflushed_since.is_some_and(|since| {
            self.unflushed_bytes >= self.options.flush_after_bytes
                || since.elapsed() >= self.options.flush_after
        })
    }

    fn flushed(&mut self) {
        StoreStats::add(&self.stats.flushes, 1);
        self.unflushed_bytes = 0;
        self.unflushed_since = None;
    }

    /// Free space and background errors, now and then.
    fn check(&mut self) -> Result<(), StoreError> {
        let now = Instant::now();
        if now < self.next_check {
            return Ok(());
        }
        self.next_check = now + self.options.check_every;
        if let Some(path) = &self.options.disk_path {
            // A failed look leaves the last figures: writing will tell soon enough.
            if let Ok((total, free)) = super::rocks::disk_space(path) {
                self.stats.disk_total.store(total, Ordering::Relaxed);
                self.stats.disk_free.store(free, Ordering::Relaxed);
            }
        }
        self.store.health()
    }
}

fn run<S: SnapshotStore>(place: &Place<S>, queue: &JobReceiver<Job>) {
    let mut waiting = VecDeque::new();
    let mut wait = Duration::ZERO;
    loop {
        queue.wait(wait);
        let mut place = place.lock();
        let Some(rounds) = place.as_mut() else {
            return;
        };
        if rounds.turn(queue, &mut waiting) {
            *place = None;
            return;
        }
        wait = rounds.wait();
    }
}

#[cfg(test)]
mod tests;
