//! The node's disk: takes work in rounds as the writer thread does (appends as one write and one
//! sync, then state rows, then trims, then a flush when due), one step at a time, so that a crash
//! falls between any two of them.

use crate::counters::Counters;
use crate::defects::Planted;
use std::collections::VecDeque;
use troupemq::actors::effect::DiskWork;
use troupemq::actors::shard::core::ShardInput;
use troupemq::actors::shard::machine::BaseOfRows;
use troupemq::model::ShardId;
use troupemq::raft::members::Members;
use troupemq::raft::Fetch;
use troupemq::storage::{
    keys, HardState, LogAppend, LogEntry, LogStore, SimRng, SimStore, SnapshotStore, StateBatch,
    StateOp, StateStore, StoreError,
};

#[derive(Debug)]
enum Step {
    Write(Vec<LogAppend>),
    Sync,
    State(Vec<StateBatch>),
    Trim(u64, u64),
    Fetch(Fetch),
    Copy(u64, u64),
    Base(Members),
    Mend(LogEntry),
    Install((u64, u64), HardState, Vec<StateOp>),
    Forget(HardState, u64),
    Flush,
    Report(ShardInput),
}

/// See the module text.
#[derive(Debug, Default)]
pub struct Disk {
    waiting: VecDeque<DiskWork>,
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
            self.waiting.push_back(work);
        }
    }

    /// Work is waiting or under way.
    pub fn has_work(&self) -> bool {
        let idle = self.waiting.is_empty() && self.round.is_empty();
        !(self.failed || idle)
    }

    /// The scheduled step comes now; it may have been brought forward since.
    pub fn is_due(&self, now_us: u64) -> bool {
        self.busy && now_us >= self.at_us
    }

    /// A snapshot is the next thing to be installed.
    pub fn installs_next(&self) -> bool {
        match self.round.front() {
            Some(step) => matches!(step, Step::Install(..)),
            None => matches!(self.waiting.front(), Some(DiskWork::Install { .. })),
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
            Step::Fetch(fetch) => return Some(self.fetched(store, fetch)),
            Step::Copy(to, index) => return Some(self.copied(store, to, index)),
            Step::Base(members) => {
                let base = BaseOfRows::new(crate::SHARD, members).of(store);
                return Some(ShardInput::Base(base.ok().flatten()));
            }
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

    /// Takes some of what waits, in order.
    fn gather(
        &mut self,
        rng: &mut SimRng,
        now_us: u64,
        flush_every_us: u64,
        planted: Option<Planted>,
        counters: &mut Counters,
    ) {
        let take = rng.between(1, self.waiting.len().max(1) as u64) as usize;
        let (mut appends, mut states, mut trims) = (Vec::new(), Vec::new(), Vec::new());
        let (mut sync, mut append_reports, mut state_reports) = (false, Vec::new(), Vec::new());
        // What stands before it concerns what it replaces.
        let install =
            |work: &DiskWork| matches!(work, DiskWork::Install { .. } | DiskWork::Forget { .. });
        let take = match self.waiting.iter().position(install) {
            Some(0) => 1,
            Some(at) => take.min(at),
            None => take,
        };
        for work in self.waiting.drain(..take.min(self.waiting.len())) {
            match work {
                DiskWork::Append { ticket, mut append } => {
                    sync |= append.sync;
                    // (planted)
                    if planted == Some(Planted::VoteForgotten) {
                        append.hard_state = None;
                    }
                    // The sync is a step of its own.
                    append.sync = false;
                    appends.push(append);
                    append_reports.push(Step::Report(ShardInput::AppendDone { ticket }));
                }
                DiskWork::State {
                    mut batch, applied, ..
                } => {
                    let (key, value) = (
                        keys::applied::key(crate::SHARD),
                        keys::applied::encode(applied),
                    );
                    batch.ops.push(StateOp::Put { key, value });
                    states.push(batch);
                    state_reports.push(Step::Report(ShardInput::StateDone { applied }));
                }
                DiskWork::Stage { batch } => {
                    counters.snapshot_parts += batch.ops.len() as u64;
                    states.push(batch);
                }
                DiskWork::Trim { first, term } => trims.push(Step::Trim(first, term)),
                DiskWork::Fetch(fetch) => trims.push(Step::Fetch(fetch)),
                DiskWork::Copy { to, index } => trims.push(Step::Copy(to, index)),
                DiskWork::Base { members } => trims.push(Step::Base(members)),
                // Its bits are the store's own business.
                DiskWork::Condemn(_) => {}
                DiskWork::Mend { entry } => {
                    let index = entry.index;
                    trims.push(Step::Mend(entry));
                    trims.push(Step::Report(ShardInput::Mended { index }));
                }
                DiskWork::Forget {
                    hard_state,
                    reached,
                } => trims.push(Step::Forget(hard_state, reached)),
                DiskWork::Install {
                    first,
                    term,
                    hard_state,
                    ops,
                } => trims.push(Step::Install((first, term), hard_state, ops)),
            }
        }
        if planted == Some(Planted::DoneBeforeWrite) {
            self.round.extend(append_reports.drain(..));
        }
        if !appends.is_empty() {
            self.round.push_back(Step::Write(appends));
            if sync {
                counters.syncs += 1;
                self.round.push_back(Step::Sync);
            } else {
                counters.unsynced_writes += 1;
            }
            self.round.extend(append_reports);
        }
        if !states.is_empty() {
            self.round.push_back(Step::State(states));
            self.round.extend(state_reports);
        }
        self.round.extend(trims);
        if now_us >= self.next_flush_us {
            self.next_flush_us = now_us + rng.between(1, 2 * flush_every_us);
            self.round.push_back(Step::Flush);
        }
    }
}

impl Disk {
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
