//! Work for the writer, and what one round does of it in which order. Pure: the writer does the steps, and so
//! does the simulation.

use crate::model::ShardId;
use crate::storage::{keys, HardState, LogAppend, LogEntry, StateBatch, StateOp, StoreError};
use std::collections::VecDeque;

/// Work for the writer. Tickets are the sender's own numbers and come back in [`Done`].
#[derive(Debug)]
pub enum Job {
    Append {
        shard: ShardId,
        ticket: u64,
        append: LogAppend,
    },
    /// Rows changed by applying the log up to `applied`. The writer adds the applied row.
    State {
        shard: ShardId,
        ticket: u64,
        batch: StateBatch,
        applied: u64,
    },
    /// Rows beside the state. Nobody is told.
    Stage { batch: StateBatch },
    /// See [`LogStore::trim`].
    Trim {
        shard: ShardId,
        ticket: u64,
        first: u64,
        term: u64,
    },
    /// See [`SnapshotStore::install`]. Reported by the next append.
    Install {
        shard: ShardId,
        first: u64,
        term: u64,
        hard_state: HardState,
        ops: Vec<StateOp>,
    },
    /// See [`SnapshotStore::forget`]. Nobody is told.
    Forget {
        shard: ShardId,
        hard_state: HardState,
        reached: u64,
    },
    /// See [`LogStore::regained`].
    Regained { shard: ShardId },
    /// See [`LogStore::mend`].
    Mend { shard: ShardId, entry: LogEntry },
    /// See [`LogStore::condemn`].
    Condemn(String),
    /// Make the state rows durable now.
    Flush,
    /// Do what is queued before this, close the store and end.
    Stop,
}

/// What the writer has done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done {
    /// Written, and synced if the append asked for it.
    Appended { shard: ShardId, ticket: u64 },
    /// Written, that is visible to readers; durable only with a later flush.
    StateWritten { shard: ShardId, ticket: u64 },
    /// The new first index is durable.
    Trimmed { shard: ShardId, ticket: u64 },
    /// The good copy of an entry is durable.
    Mended { shard: ShardId, index: u64 },
    /// The store takes no more writes. Reported once; jobs not yet reported will never be.
    Failed { error: StoreError },
}

/// Log appends that share one write and, if any of them wants it, one sync.
#[derive(Debug, Default)]
pub struct Appends {
    pub appends: Vec<LogAppend>,
    /// Told once all of it is done, in this order.
    pub tickets: Vec<(ShardId, u64)>,
    /// Bytes of the entries.
    pub bytes: usize,
}

/// State batches that share one write.
#[derive(Debug, Default)]
pub struct States {
    pub batches: Vec<StateBatch>,
    /// As in [`Appends`].
    pub tickets: Vec<(ShardId, u64)>,
}

/// Something that a round does. What it tells follows before the next one.
#[derive(Debug)]
pub enum Step {
    /// [`Job::Install`] and [`Job::Forget`].
    Replace(Job),
    Append(Appends),
    /// Syncs that nobody waits for begin and end here.
    Sync,
    States(States),
    /// [`Job::Trim`], [`Job::Regained`], [`Job::Condemn`] and [`Job::Mend`].
    Alone(Job),
    /// The last one: a flush when it was asked for or is due, and the end of the store.
    End {
        flush: bool,
        stop: bool,
    },
}

/// What one round has gathered, and has not done yet.
#[derive(Debug, Default)]
pub struct Round {
    replaces: VecDeque<Job>,
    appends: Appends,
    states: States,
    trims: VecDeque<Job>,
    /// Regained, condemned, mended: none of it concerns another.
    others: VecDeque<Job>,
    flush: bool,
    stop: bool,
    synced: bool,
    ended: bool,
}

impl Round {
    /// Takes jobs in their order until the appends have so many bytes.
    pub fn gather(waiting: &mut VecDeque<Job>, max_write_bytes: usize) -> Self {
        let mut round = Self::default();
        while !round.stop && round.appends.bytes < max_write_bytes {
            let Some(job) = waiting.pop_front() else {
                break;
            };
            let replaces = matches!(job, Job::Install { .. } | Job::Forget { .. });
            if replaces && !round.is_empty() {
                // What comes before it concerns what it replaces.
                waiting.push_front(job);
                break;
            }
            round.add(job);
        }
        round
    }

    /// A round of one job.
    pub fn of(job: Job) -> Self {
        let mut round = Self::default();
        round.add(job);
        round
    }

    /// Nothing that writes was gathered.
    fn is_empty(&self) -> bool {
        let writes = [self.appends.appends.len(), self.states.batches.len()];
        writes == [0, 0] && self.trims.is_empty()
    }

    /// The writer ends with this round.
    pub fn stop(&mut self) {
        self.stop = true;
    }

    /// The writer ends with this round.
    pub fn stops(&self) -> bool {
        self.stop
    }

    fn add(&mut self, job: Job) {
        match job {
            Job::Append {
                shard,
                ticket,
                append,
            } => {
                let entries = append.entries.iter();
                self.appends.bytes += entries.map(|e| e.data.len()).sum::<usize>();
                self.appends.appends.push(append);
                self.appends.tickets.push((shard, ticket));
            }
            Job::State {
                shard,
                ticket,
                mut batch,
                applied,
            } => {
                let (key, value) = (keys::applied::key(shard), keys::applied::encode(applied));
                batch.ops.push(StateOp::Put { key, value });
                self.states.batches.push(batch);
                self.states.tickets.push((shard, ticket));
            }
            Job::Stage { batch } => self.states.batches.push(batch),
            Job::Install { .. } | Job::Forget { .. } => self.replaces.push_back(job),
            Job::Trim { .. } => self.trims.push_back(job),
            Job::Regained { .. } | Job::Condemn(_) | Job::Mend { .. } => self.others.push_back(job),
            Job::Flush => self.flush = true,
            Job::Stop => self.stop = true,
        }
    }
}

/// A state batch never needs an append queued behind it, so all appends of the round come before all state
/// batches: the state stays behind the log.
impl Iterator for Round {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        if let Some(job) = self.replaces.pop_front() {
            return Some(Step::Replace(job));
        }
        if !self.appends.appends.is_empty() {
            return Some(Step::Append(std::mem::take(&mut self.appends)));
        }
        if !std::mem::replace(&mut self.synced, true) {
            return Some(Step::Sync);
        }
        if !self.states.batches.is_empty() {
            return Some(Step::States(std::mem::take(&mut self.states)));
        }
        if let Some(job) = self.trims.pop_front().or_else(|| self.others.pop_front()) {
            return Some(Step::Alone(job));
        }
        let (flush, stop) = (self.flush, self.stop);
        (!std::mem::replace(&mut self.ended, true)).then_some(Step::End { flush, stop })
    }
}
