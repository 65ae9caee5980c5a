//! The stores in memory, deterministic, with a disk that can crash, tear, fail and lie.
//!
//! [`SimStore`] is the pair as a node uses it: state never survives a crash ahead of the log,
//! because the log is synced before state is written out, by a flush or by the store itself.

mod log;
mod record;
mod rng;
mod source;
mod state;

pub use log::{Found, SimLogStore};
pub use rng::SimRng;
pub use state::SimStateStore;

use super::{
    HardState, LogAppend, LogBounds, LogEntry, LogStore, Row, SnapshotStore, StateBatch, StateOp,
    StateStore, StoreError,
};
use crate::model::ShardId;

/// What can be planted to go wrong, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The next write fails. Whether it reached the disk is open until after a crash.
    WriteError,
    /// The next sync fails; what it covered may be lost in a crash. The kernel forgets the error: another
    /// sync would report success, and what was written behind the lost part is of no use.
    SyncError,
    /// The next write finds no space; nothing of it is written.
    NoSpace,
}

/// Both stores of a node on one simulated disk.
#[derive(Debug, Clone)]
pub struct SimStore {
    log: SimLogStore,
    state: SimStateStore,
    tear_installs: bool,
}

impl SimStore {
    pub fn new(shards: &[ShardId]) -> Self {
        Self {
            log: SimLogStore::new(shards),
            state: SimStateStore::new(),
            tear_installs: false,
        }
    }

    /// Planted defect: installing a snapshot is a write of the log and one of the state.
    pub fn tear_installs(&mut self, tear: bool) {
        self.tear_installs = tear;
    }

    /// See [`SimLogStore::inject`]; write faults hit whichever write comes first, log or state.
    pub fn inject(&mut self, fault: Fault) {
        self.log.inject(fault);
    }

    /// Planted defect: syncs are reported, not done. The rule that state stays behind the log
    /// falls with it.
    pub fn lie_about_sync(&mut self, lie: bool) {
        self.log.lie_about_sync = lie;
    }

    /// Planted defect: what an append overwrites stays behind it.
    pub fn keep_tail(&mut self, keep: bool) {
        self.log.keep_tail = keep;
    }

    /// Planted defect: entries are read whatever their checksum says.
    pub fn read_unchecked(&mut self, unchecked: bool) {
        self.log.unchecked = unchecked;
    }

    /// Planted defect: a failed sync is forgotten, and the next one reports success.
    pub fn retry_syncs(&mut self, retry: bool) {
        self.log.retry_syncs = retry;
    }

    /// So many writes go into one file of the log; 0: any number.
    pub fn write_files_of(&mut self, writes: u64) {
        self.log.writes_per_file = writes;
    }

    /// What crashes did since this was asked last.
    pub fn found(&mut self) -> Found {
        std::mem::take(&mut self.log.found)
    }

    /// Writes that were synced are not there: the log of a stopped store ends at `kept`, which the state rows that
    /// are left do not go beyond.
    pub fn lose_end(&mut self, shard: ShardId, kept: u64) {
        self.log.lose_end(shard, kept);
    }

    /// Planted defect: the directory of a new file is not synced with it.
    pub fn forget_directory(&mut self, forget: bool) {
        self.log.forget_directory = forget;
    }

    /// Planted defect: what is left of a torn write is taken for an entry.
    pub fn accept_torn(&mut self, accept: bool) {
        self.log.accept_torn = accept;
        self.log.unchecked |= accept;
    }

    /// See [`SimLogStore::durable_state`].
    pub fn durable_state(&self, shard: ShardId) -> HardState {
        self.log.durable_state(shard)
    }

    /// See [`SimLogStore::corrupt`].
    pub fn corrupt(&mut self, shard: ShardId, index: u64, bit: usize) {
        self.log.corrupt(shard, index, bit);
    }

    /// A power cut and the restart after it: of the log what was synced survives, and some of the other writes
    /// (see [`SimLogStore`]); of the state what was flushed and a prefix of what followed, but none whose log
    /// writes did not survive.
    pub fn crash(&mut self, rng: &mut SimRng) {
        let needs = self.state.crash_keeping(rng);
        let lies = self.log.lie_about_sync || self.log.forget_directory;
        let needs = if lies { 0 } else { needs };
        self.log.crash_keeping(rng, needs);
    }

    /// As [`SimStore::crash`], and all is gone that may be: of the log what was synced survives, of the state what was
    /// flushed.
    pub fn crash_to_synced(&mut self) {
        self.state.crash_to_flushed();
        self.log.crash_to_synced();
    }

    /// The process is killed and restarts: of the log all that was written is there, of the
    /// state what was flushed and a prefix of what followed.
    pub fn kill(&mut self, rng: &mut SimRng) {
        self.state.crash(rng);
        self.log.kill();
    }
}

impl LogStore for SimStore {
    fn bounds(&self, shard: ShardId) -> Result<LogBounds, StoreError> {
        self.log.bounds(shard)
    }

    fn append(&mut self, appends: &[LogAppend]) -> Result<(), StoreError> {
        self.log.append(appends)
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        self.log.sync()
    }

    fn read(
        &self,
        shard: ShardId,
        from: u64,
        to: u64,
        max_bytes: u64,
    ) -> Result<Vec<LogEntry>, StoreError> {
        self.log.read(shard, from, to, max_bytes)
    }

    fn mend(&mut self, shard: ShardId, entry: &LogEntry) -> Result<(), StoreError> {
        self.log.mend(shard, entry)
    }

    fn trim(&mut self, shard: ShardId, first: u64, term: u64) -> Result<(), StoreError> {
        if first <= self.log.bounds(shard)?.first {
            return self.log.usable();
        }
        self.flush()?;
        self.log.trim(shard, first, term)
    }

    fn health(&self) -> Result<(), StoreError> {
        self.log.health()
    }
}

impl SnapshotStore for SimStore {
    fn install(
        &mut self,
        shard: ShardId,
        at: (u64, u64),
        hard_state: HardState,
        ops: &[StateOp],
    ) -> Result<(), StoreError> {
        self.log.usable()?;
        // One write: all of it or nothing.
        if let Some(fault) = self.log.any_fault() {
            let error = match fault {
                Fault::NoSpace => StoreError::NoSpace,
                _ => StoreError::Io("planted error".into()),
            };
            return Err(self.log.fail(error));
        }
        self.log.install(shard, at, hard_state)?;
        let batch = StateBatch { ops: ops.to_vec() };
        self.state.write_at(&batch, self.log.written());
        match self.tear_installs {
            true => Ok(()),
            false => self.state.flush(),
        }
    }
}

impl StateStore for SimStore {
    fn write(&mut self, batch: &StateBatch) -> Result<(), StoreError> {
        self.log.usable()?;
        match self.log.write_fault() {
            Some(Fault::NoSpace) => return Err(self.log.fail(StoreError::NoSpace)),
            Some(_) => return Err(self.log.fail(StoreError::Io("planted write error".into()))),
            None => {}
        }
        self.state.write_at(batch, self.log.written());
        Ok(())
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        self.log.sync()?;
        // The file of the rows finds no space, or is not written: they stay where they were.
        match self.log.write_fault() {
            Some(Fault::NoSpace) => return Err(self.log.fail(StoreError::NoSpace)),
            Some(_) => return Err(self.log.fail(StoreError::Io("planted write error".into()))),
            None => {}
        }
        self.state.flush()
    }

    fn close(&mut self) -> Result<(), StoreError> {
        self.flush()?;
        self.log.close();
        Ok(())
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.state.get(key)
    }

    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Row>, StoreError> {
        self.state.scan(from, to, limit)
    }

    fn last(&self, from: &[u8], to: &[u8]) -> Result<Option<Row>, StoreError> {
        self.state.last(from, to)
    }
}
