//! The node's disk: does the writer's rounds one step at a time, so that a crash falls between any two of them.

use crate::counters::Counters;
use crate::defects::Planted;
use std::collections::VecDeque;
use troupemq::actors::effect::{written, DiskWork, Handed};
use troupemq::actors::shard::core::ShardInput;
use troupemq::actors::shard::machine::BaseOfRows;
use troupemq::model::ShardId;
use troupemq::raft::Fetch;
use troupemq::storage::{
    keys, Done, HardState, Job, LogAppend, LogEntry, LogStore, Round, SimRng, SimStore,
    SnapshotStore, StateBatch, StateOp, StateStore, Step as Planned, StoreError,
};

/// A base is made within so many steps of the disk.
const LONG_STEPS: u64 = 120;
/// Few enough that rounds end with it.
const MAX_WRITE_BYTES: usize = 2_000;

/// A part of the writer's step, or a read: a crash falls between any two of them.
#[derive(Debug)]
enum Step {
    Write(Vec<LogAppend>),
    Sync,
    State(Vec<StateBatch>),
    Trim(u64, u64),
    Read(DiskWork),
    Mend(LogEntry),
    Install((u64, u64), HardState, Vec<StateOp>),
    Forget(HardState, u64),
    Flush,
    Report(ShardInput),
}

/// See the module text.
#[derive(Debug, Default)]
pub struct Disk {
    waiting: VecDeque<Handed>,
    /// A base that was made, and comes after so many steps.
    made: Option<(u64, ShardInput)>,
    round: VecDeque<Step>,
    failed: bool,
    next_flush_us: u64,
    /// The shard was forgotten, and had reached this entry.
    pub forgot: Option<u64>,
    /// State rows are durable up to this log index.
    pub flushed: u64,
    /// A step is scheduled.
    pub busy: bool,
    /// For this time, microseconds.
    pub at_us: u64,
}

impl Disk {
    /// Queues work. Nothing is taken any more after a failure.
    pub fn take(&mut self, work: DiskWork) {
        if !self.failed {
            self.waiting.push_back(work.handed(crate::SHARD));
        }
    }

    /// Work is waiting or under way.
    pub fn has_work(&self) -> bool {
        let idle = self.waiting.is_empty() && self.round.is_empty() && self.made.is_none();
        !(self.failed || idle)
    }

    /// The scheduled step comes now; it may have been brought forward since.
    pub fn is_due(&self, now_us: u64) -> bool {
        self.busy && now_us >= self.at_us
    }

    /// The log is cut next, and state rows wait.
    pub fn cuts_before_rows(&self) -> bool {
        let state = |w: &Handed| matches!(w, Handed::ToWriter(Job::State { .. }));
        matches!(self.round.front(), Some(Step::Trim(..))) && self.waiting.iter().any(state)
    }

    /// A snapshot is the next thing to be installed.
    pub fn installs_next(&self) -> bool {
        match self.round.front() {
            Some(step) => matches!(step, Step::Install(..)),
            None => matches!(
                self.waiting.front(),
                Some(Handed::ToWriter(Job::Install { .. }))
            ),
        }
    }

    /// Does one step; what it has to tell the shard.
    pub fn step(
        &mut self,
        store: &mut SimStore,
        rng: &mut SimRng,
        now_us: u64,
        flush_every_us: u64,
        planted: Option<Planted>,
        counters: &mut Counters,
    ) -> Option<ShardInput> {
        if let Some((_, base)) = self.made.take_if(|(left, _)| *left == 0) {
            return Some(base);
        }
        if let Some((left, _)) = &mut self.made {
            *left -= 1;
        }
        if self.round.is_empty() {
            self.gather(rng, now_us, flush_every_us, planted, counters);
        }
        let done = match self.round.pop_front()? {
            Step::Write(appends) => {
                if appends.len() > 1 {
                    counters.merged_writes += 1;
                }
                store.append(&appends)
            }
            Step::Sync => match LogStore::sync(store) {
                // (planted) The kernel has forgotten the error.
                Err(_) if planted == Some(Planted::SyncRetried) => LogStore::sync(store),
                done => done,
            },
            Step::State(batches) => store.write_all(&batches),
            Step::Trim(first, term) => {
                counters.log_trims += 1;
                trim(store, first, term, planted)
            }
            Step::Install(at, hard_state, ops) => {
                counters.snapshots += 1;
                store.install(crate::SHARD, at, hard_state, &ops)
            }
            Step::Forget(hard_state, reached) => {
                let done = store.forget(crate::SHARD, hard_state, reached);
                self.forgot = done.is_ok().then_some(reached).or(self.forgot);
                done
            }
            Step::Read(work) => return self.read(store, rng, work),
            Step::Mend(entry) => {
                counters.mended += 1;
                store.mend(crate::SHARD, &entry)
            }
            Step::Flush => {
                counters.flushes += 1;
                let row = StateStore::get(store, &keys::applied::key(crate::SHARD));
                let done = StateStore::flush(store);
                let applied = row.ok().flatten();
                let applied = applied.and_then(|row| keys::applied::decode(&row).ok());
                if done.is_ok() {
                    self.flushed = applied.unwrap_or(0);
                }
                done
            }
            Step::Report(input) => return Some(input),
        };
        let error = done.err()?;
        self.failed = true;
        self.waiting.clear();
        self.round.clear();
        Some(ShardInput::DiskFailed(error.to_string()))
    }

    /// Takes some of what waits, in order: the rest comes while the round is done.
    fn gather(
        &mut self,
        rng: &mut SimRng,
        now_us: u64,
        flush_every_us: u64,
        planted: Option<Planted>,
        counters: &mut Counters,
    ) {
        let take = rng.between(1, self.waiting.len().max(1) as u64) as usize;
        let (mut jobs, mut reads) = (VecDeque::new(), Vec::new());
        for work in self.waiting.drain(..take.min(self.waiting.len())) {
            match work {
                Handed::ToWriter(job) => jobs.push_back(job),
                Handed::ToReaders(work) => reads.push(Step::Read(work)),
            }
        }
        for step in Round::gather(&mut jobs, MAX_WRITE_BYTES) {
            self.plan(step, planted, counters);
        }
        for job in jobs.into_iter().rev() {
            self.waiting.push_front(Handed::ToWriter(job));
        }
        self.round.extend(reads);
        if now_us >= self.next_flush_us {
            self.next_flush_us = now_us + rng.between(1, 2 * flush_every_us);
            self.round.push_back(Step::Flush);
        }
    }

    /// The parts of a step of the writer.
    fn plan(&mut self, step: Planned, planted: Option<Planted>, counters: &mut Counters) {
        match step {
            Planned::Append(mut all) => {
                let reports = told(all.tickets, |shard, ticket| Done::Appended {
                    shard,
                    ticket,
                });
                if planted == Some(Planted::DoneBeforeWrite) {
                    self.round.extend(reports.clone().map(Step::Report));
                }
                let sync = all.appends.iter().any(|append| append.sync);
                for append in &mut all.appends {
                    if planted == Some(Planted::VoteForgotten) {
                        append.hard_state = None;
                    }
                    // The sync is a step of its own.
                    append.sync = false;
                }
                self.round.push_back(Step::Write(all.appends));
                if sync {
                    counters.syncs += 1;
                    self.round.push_back(Step::Sync);
                } else {
                    counters.unsynced_writes += 1;
                }
                if planted != Some(Planted::DoneBeforeWrite) {
                    self.round.extend(reports.map(Step::Report));
                }
            }
            Planned::States(all) => {
                self.round.push_back(Step::State(all.batches));
                let done = |shard, ticket| Done::StateWritten { shard, ticket };
                self.round.extend(told(all.tickets, done).map(Step::Report));
            }
            Planned::Replace(job) | Planned::Alone(job) => self.plan_job(job),
            // Flushes come at any time; syncs that nobody waits for are left to the worst case: none.
            Planned::Sync | Planned::End { .. } => {}
        }
    }

    fn plan_job(&mut self, job: Job) {
        let step = match job {
            Job::Trim { first, term, .. } => Step::Trim(first, term),
            Job::Install {
                first,
                term,
                hard_state,
                ops,
                ..
            } => Step::Install((first, term), hard_state, ops),
            Job::Forget {
                hard_state,
                reached,
                ..
            } => Step::Forget(hard_state, reached),
            Job::Mend { entry, .. } => {
                let index = entry.index;
                self.round.push_back(Step::Mend(entry));
                Step::Report(ShardInput::Mended { index })
            }
            // What a condemned store holds is the store's own business, and so are its marks.
            _ => return,
        };
        self.round.push_back(step);
    }
}

/// What the shard is told of these.
fn told<F>(tickets: Vec<(ShardId, u64)>, done: F) -> impl Iterator<Item = ShardInput> + Clone
where
    F: Fn(ShardId, u64) -> Done + Clone,
{
    let all = tickets.into_iter();
    all.filter_map(move |(shard, ticket)| written(done(shard, ticket)))
}

impl Disk {
    fn read(&mut self, store: &SimStore, rng: &mut SimRng, work: DiskWork) -> Option<ShardInput> {
        Some(match work {
            DiskWork::Fetch(fetch) => self.fetched(store, fetch),
            DiskWork::Copy { to, index } => self.copied(store, to, index),
            DiskWork::Base { members } => {
                let base = BaseOfRows::new(crate::SHARD, members).of(store);
                let base = ShardInput::Base(base.ok().flatten());
                // To make one takes long: the log is trimmed and members change meanwhile.
                if rng.chance(1, 3) {
                    self.made = Some((rng.between(1, LONG_STEPS), base));
                    return None;
                }
                base
            }
            _ => return None,
        })
    }

    /// Entries for a follower that is behind.
    fn fetched(&mut self, store: &SimStore, fetch: Fetch) -> ShardInput {
        let from = fetch.from;
        let entries = Vec::new();
        match fetch.read(|from, to, max| store.read(crate::SHARD, from, to, max)) {
            Ok(entries) => ShardInput::Fetched { from, entries },
            Err(StoreError::Trimmed(_)) => ShardInput::Fetched { from, entries },
            Err(StoreError::BadEntry { index, .. }) => {
                let nothing = ShardInput::Fetched { from, entries };
                self.round.push_front(Step::Report(nothing));
                ShardInput::BadEntry { index }
            }
            Err(error) => ShardInput::DiskFailed(error.to_string()),
        }
    }

    /// An entry for a replica whose own is bad.
    fn copied(&mut self, store: &SimStore, to: u64, index: u64) -> ShardInput {
        let copied = |entry| ShardInput::Copied { to, index, entry };
        match store.read(crate::SHARD, index, index + 1, u64::MAX) {
            Ok(found) => copied(found.into_iter().next()),
            Err(StoreError::BadEntry { index, .. }) => {
                self.round.push_front(Step::Report(copied(None)));
                ShardInput::BadEntry { index }
            }
            Err(_) => copied(None),
        }
    }
}

fn trim(
    store: &mut SimStore,
    first: u64,
    term: u64,
    planted: Option<Planted>,
) -> Result<(), StoreError> {
    let shard: ShardId = crate::SHARD;
    if planted != Some(Planted::TrimTooFar) {
        return store.trim(shard, first, term);
    }
    let last = store.bounds(shard)?.last;
    let further = (first + 5).min(last);
    let term = store
        .read(shard, further - 1, further, 1)?
        .first()
        .map_or(term, |e| e.term);
    store.trim(shard, further, term)
}
