//! The stores on RocksDB: one column family per shard's log, one for the state rows of all
//! shards, one (`meta`) for bounds, hard states and marks.
//!
//! # What survives a crash
//!
//! * **Log and meta** go through the one WAL. A killed process loses nothing it had written; a
//!   power cut loses a tail of the writes behind the last sync. A write is a batch with a
//!   checksum of its own: it survives wholly or not at all, so entries, the hard state handed
//!   over with them and a conflict overwrite with its deletions are never seen in part.
//! * **State rows** bypass the WAL. What was in the memtable at the crash is gone; what was
//!   written out is a prefix of the batches in the order written. RocksDB writes the memtable out
//!   when it is full, whenever it likes, but begins a new WAL file with it and syncs all older
//!   ones before it installs the result, so the entries those rows came from are durable first.
//!   `flush` syncs the WAL itself before it starts.
//! * **Conflict overwrite**: new entries, deletion of everything above them and the raised epoch
//!   (see `marks`) are one batch.
//! * **Trim**: (1) state rows durable, (2) new bound synced, (3) files deleted. A crash after (1)
//!   changes nothing; after (2) files are left over, their entries are invisible and opening the
//!   store deletes the files again. Entries below the bound that share a file with others stay
//!   on disk and are never served.
//! * **Close**: state out, WAL and marks synced, then the clean marker. At open the marker is
//!   removed, synced, before anything else is written.

mod ahead;
mod dir;
mod errors;
mod found;
mod install;
mod keep;
mod log_tail;
mod marks;
mod meta;
mod open;
mod options;
mod reader;
mod state;

#[cfg(test)]
mod damage_tests;
#[cfg(test)]
mod lost_tests;
#[cfg(test)]
mod tests;

pub use dir::{disk_space, FORMAT_VERSION};
pub use keep::Look;
pub use options::StoreOptions;
pub use reader::{Reader, Scrubbed};

use super::points::{pass, FailPoint};
use super::{
    entry, HardState, LogAppend, LogBounds, LogEntry, LogStore, Loss, Standing, StoreError,
    SyncTask,
};
use crate::model::ShardId;
use ahead::Ahead;
use errors::map_error;
use marks::{Mark, Marks};
use meta::MetaKind;
use parking_lot::Mutex;
use reader::Shared;
use rocksdb::{WriteBatch, WriteOptions};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::Arc;

const CF_STATE: &str = "state";
const CF_META: &str = "meta";

/// Both stores of a node, for its one writer.
pub struct RocksStore {
    shared: Arc<Shared>,
    logs: BTreeMap<ShardId, ShardLog>,
    marks: Marks,
    ahead: Ahead,
    /// Epoch and last index of each log when the sync beside the appends began.
    apart: Vec<(ShardId, u64, u64)>,
    syncs: Syncs,
    scratch: Vec<u8>,
    /// Set by the first failed write or sync; nothing is written any more.
    failed: Option<StoreError>,
    closed: bool,
    life: u64,
    number: u64,
    /// Unsynced entries were written in this life.
    loose: bool,
    standings: BTreeMap<ShardId, Standing>,
    losses: BTreeMap<ShardId, Loss>,
    /// See [`StoreOptions::repair`].
    repair: bool,
}

/// Syncs of the WAL by several threads, one at a time. The kernel reports an error of the disk to one
/// sync only; the next one would succeed without what was lost. So after a failed sync all others fail.
#[derive(Clone, Default)]
struct Syncs(Arc<Mutex<Option<StoreError>>>);

impl Syncs {
    fn one(&self, sync: impl FnOnce() -> Result<(), StoreError>) -> Result<(), StoreError> {
        let mut failed = self.0.lock();
        if let Some(error) = &*failed {
            return Err(error.clone());
        }
        sync().inspect_err(|error| *failed = Some(error.clone()))
    }

    fn have_failed(&self) -> bool {
        self.0.lock().is_some()
    }
}

/// The writer's view of one log.
#[derive(Clone)]
struct ShardLog {
    cf: String,
    bounds: LogBounds,
    epoch: u64,
}

impl RocksStore {
    /// A handle for reads.
    pub fn reader(&self) -> Reader {
        Reader {
            shared: self.shared.clone(),
        }
    }

    /// How often the store was opened, this time included; grows with every start, also after a
    /// crash.
    pub fn life(&self) -> u64 {
        self.life
    }

    /// A number that no other store has; later stores have larger ones.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// What this opening found missing from a shard.
    pub fn loss(&self, shard: ShardId) -> Option<&Loss> {
        self.losses.get(&shard)
    }

    /// The shards this store holds a log for.
    pub fn shards(&self) -> Vec<ShardId> {
        self.logs.keys().copied().collect()
    }

    /// Total and available bytes of the file system that holds the data.
    pub fn space(&self) -> Result<(u64, u64), StoreError> {
        self.reader().space()
    }

    fn usable(&self) -> Result<(), StoreError> {
        match &self.failed {
            Some(e) => Err(e.clone()),
            None if self.closed => Err(StoreError::Io("the store is closed".into())),
            None => Ok(()),
        }
    }

    /// Makes an error of a write final.
    fn settle<T>(&mut self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        if let Err(e) = &result {
            if e.is_corrupt() {
                // Background work met what cannot be read, and would again.
                self.condemn(&e.to_string());
            }
            if self.failed.is_none() && self.loose && self.syncs.have_failed() {
                // The kernel may have dropped what others count on, and the process alone ends.
                self.shared.dir.sync_failed();
            }
            self.failed.get_or_insert_with(|| e.clone());
        }
        result
    }

    fn log(&self, shard: ShardId) -> Result<&ShardLog, StoreError> {
        self.logs
            .get(&shard)
            .ok_or_else(|| StoreError::Io(format!("shard {} is not open here", shard.0)))
    }

    /// Notes that everything in the WAL is on stable storage.
    fn all_synced(&mut self) -> Result<(), StoreError> {
        for (shard, log) in &mut self.logs {
            if log.bounds.synced != log.bounds.last {
                log.bounds.synced = log.bounds.last;
                self.marks.set(
                    *shard,
                    Mark {
                        epoch: log.epoch,
                        index: log.bounds.last,
                    },
                );
            }
        }
        self.marks.write()
    }

    fn sync_wal(&mut self) -> Result<(), StoreError> {
        pass(FailPoint::Sync);
        self.syncs
            .one(|| self.shared.db.flush_wal(true).map_err(map_error))?;
        pass(FailPoint::Synced);
        self.all_synced()
    }

    /// Writes a batch and syncs the WAL.
    fn write_synced(&self, batch: WriteBatch) -> Result<(), StoreError> {
        let mut options = WriteOptions::default();
        options.set_sync(true);
        self.syncs.one(|| {
            let written = self.shared.db.write_opt(batch, &options);
            written.map_err(map_error)
        })
    }

    /// Puts `append` into the batch and into `log`, a copy of the shard's present view.
    fn stage(
        &mut self,
        batch: &mut WriteBatch,
        append: &LogAppend,
        log: &mut ShardLog,
    ) -> Result<(), StoreError> {
        let cf = self.shared.cf(&log.cf)?;
        let meta = self.shared.cf(CF_META)?;
        let commit = append
            .hard_state
            .map_or(log.bounds.hard_state.commit, |h| h.commit);
        for e in &append.entries {
            self.scratch.clear();
            entry::encode(e, commit, &mut self.scratch)?;
            batch.put_cf(cf, e.index.to_be_bytes(), &self.scratch);
        }
        if let (Some(first), Some(last)) = (append.entries.first(), append.entries.last()) {
            let overwrites = first.index <= log.bounds.last;
            if overwrites {
                self.shared
                    .forget_mended(batch, append.shard, first.index..u64::MAX)?;
                for index in last.index + 1..=log.bounds.last {
                    batch.delete_cf(cf, index.to_be_bytes());
                }
                log.epoch += 1;
                log.bounds.synced = log.bounds.synced.min(first.index - 1);
            }
            log.bounds.last = last.index;
            if overwrites || append.sync {
                let mark = Mark {
                    epoch: log.epoch,
                    index: log.bounds.synced,
                };
                batch.put_cf(
                    meta,
                    meta::key(append.shard, MetaKind::Mark),
                    meta::mark(mark),
                );
            }
        }
        if let Some(hard_state) = append.hard_state {
            batch.put_cf(
                meta,
                meta::key(append.shard, MetaKind::HardState),
                meta::hard_state(&hard_state),
            );
            log.bounds.hard_state = hard_state;
        }
        Ok(())
    }

    fn write_log(&mut self, appends: &[LogAppend]) -> Result<(), StoreError> {
        let bytes: usize = appends
            .iter()
            .flat_map(|a| &a.entries)
            .map(|e| e.data.len() + 64)
            .sum();
        let mut batch = WriteBatch::with_capacity_bytes(bytes + 128 * appends.len() + 64);
        let mut changed: BTreeMap<ShardId, ShardLog> = BTreeMap::new();
        for append in appends {
            let mut log = match changed.remove(&append.shard) {
                Some(log) => log,
                None => self.log(append.shard)?.clone(),
            };
            self.stage(&mut batch, append, &mut log)?;
            changed.insert(append.shard, log);
        }
        for (shard, log) in &changed {
            // Readers must not look for entries that this write is about to cut off.
            self.shared
                .view(*shard)?
                .last
                .fetch_min(log.bounds.last, Ordering::AcqRel);
        }
        // An overwrite that a crash took while later entries stayed would bring back what it replaced.
        let overwrites = changed.iter().any(|(shard, log)| {
            let before = self.logs.get(shard);
            before.is_some_and(|before| before.epoch != log.epoch)
        });
        let mut sync = overwrites || appends.iter().any(|a| a.sync);
        if !sync && !self.loose && appends.iter().any(|a| !a.entries.is_empty()) {
            // From here on a stop of the machine may take entries; that much is certain then.
            batch.put_cf(self.shared.cf(CF_META)?, meta::LOOSE, b"1");
            (sync, self.loose) = (true, true);
        }
        self.ahead.wrote(batch.size_in_bytes(), sync);
        pass(FailPoint::Append);
        match sync {
            true => self.write_synced(batch)?,
            false => self.shared.db.write(batch).map_err(map_error)?,
        }
        match overwrites {
            true => pass(FailPoint::OverwriteWritten),
            false => pass(FailPoint::AppendWritten),
        }
        for (shard, log) in changed {
            self.shared
                .view(shard)?
                .last
                .store(log.bounds.last, Ordering::Release);
            self.logs.insert(shard, log);
        }
        pass(FailPoint::AppendVisible);
        if sync {
            self.all_synced()?;
            pass(FailPoint::AppendMarked);
        }
        if self.scratch.capacity() > 8 << 20 {
            self.scratch = Vec::new();
        }
        Ok(())
    }

    fn trim_log(&mut self, shard: ShardId, first: u64, term: u64) -> Result<(), StoreError> {
        self.flush_state(true)?;
        pass(FailPoint::Trim);
        let mut log = self.log(shard)?.clone();
        log.bounds.first = first;
        log.bounds.trimmed_term = term;
        log.bounds.last = log.bounds.last.max(first - 1);
        let mut batch = WriteBatch::default();
        let key = meta::key(shard, MetaKind::Bounds);
        batch.put_cf(self.shared.cf(CF_META)?, key, meta::bounds(first, term));
        self.shared.forget_mended(&mut batch, shard, 0..first)?;
        self.write_synced(batch)?;
        pass(FailPoint::TrimWritten);
        let view = self.shared.view(shard)?;
        view.first.store(first, Ordering::Release);
        view.last.store(log.bounds.last, Ordering::Release);
        self.logs.insert(shard, log);
        self.all_synced()?;
        self.drop_files(shard)?;
        pass(FailPoint::TrimDeleted);
        Ok(())
    }

    /// Deletes the files that hold nothing but trimmed entries.
    fn drop_files(&self, shard: ShardId) -> Result<(), StoreError> {
        let log = self.log(shard)?;
        if log.bounds.first <= 1 {
            return Ok(());
        }
        let cf = self.shared.cf(&log.cf)?;
        let last_trimmed = log.bounds.first - 1;
        self.shared
            .db
            .delete_file_in_range_cf(cf, 0u64.to_be_bytes(), last_trimmed.to_be_bytes())
            .map_err(map_error)
    }
}

impl LogStore for RocksStore {
    fn bounds(&self, shard: ShardId) -> Result<LogBounds, StoreError> {
        Ok(self.log(shard)?.bounds)
    }

    fn append(&mut self, appends: &[LogAppend]) -> Result<(), StoreError> {
        self.usable()?;
        super::traits::check_appends(appends, |shard| self.bounds(shard))?;
        let result = self.write_log(appends);
        self.settle(result)
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        self.usable()?;
        let result = self.sync_wal();
        self.settle(result)
    }

    fn rest(&mut self) {
        if self.ahead.wanted() && self.failed.is_none() && !self.closed {
            self.ahead.extend();
        }
    }

    fn sync_apart(&mut self) -> Option<SyncTask> {
        self.usable().ok()?;
        let ends = self.logs.iter();
        self.apart = ends
            .map(|(shard, log)| (*shard, log.epoch, log.bounds.last))
            .collect();
        let (shared, syncs) = (self.shared.clone(), self.syncs.clone());
        Some(Box::new(move || {
            pass(FailPoint::SyncApart);
            syncs.one(|| shared.db.flush_wal(true).map_err(map_error))?;
            pass(FailPoint::SyncedApart);
            Ok(())
        }))
    }

    fn synced_apart(&mut self, result: Result<(), StoreError>) -> Result<(), StoreError> {
        let result = result.and_then(|()| {
            for (shard, epoch, last) in std::mem::take(&mut self.apart) {
                // Of another epoch: what replaced those entries was synced then.
                let log = self.logs.get_mut(&shard);
                let Some(log) = log.filter(|log| log.epoch == epoch && log.bounds.synced < last)
                else {
                    continue;
                };
                log.bounds.synced = last;
                self.marks.set(shard, Mark { epoch, index: last });
            }
            self.marks.write()
        });
        pass(FailPoint::MarkedApart);
        self.settle(result)
    }

    fn read(
        &self,
        shard: ShardId,
        from: u64,
        to: u64,
        max_bytes: u64,
    ) -> Result<Vec<LogEntry>, StoreError> {
        self.reader().read_entries(shard, from, to, max_bytes)
    }

    fn read_unverified(&self, shard: ShardId, index: u64) -> Option<LogEntry> {
        self.shared.unverified(&log_cf(shard), index)
    }

    fn trim(&mut self, shard: ShardId, first: u64, term: u64) -> Result<(), StoreError> {
        self.usable()?;
        if first <= self.log(shard)?.bounds.first {
            return Ok(());
        }
        let result = self.trim_log(shard, first, term);
        self.settle(result)
    }

    fn mend(&mut self, shard: ShardId, entry: &LogEntry) -> Result<(), StoreError> {
        self.usable()?;
        let bounds = self.log(shard)?.bounds;
        if !(bounds.first..=bounds.last).contains(&entry.index) {
            return Ok(());
        }
        let mut stored = Vec::new();
        entry::encode(entry, bounds.hard_state.commit, &mut stored)?;
        let mut batch = WriteBatch::default();
        let key = meta::mended(shard, entry.index);
        batch.put_cf(self.shared.cf(CF_META)?, key, stored);
        pass(FailPoint::Mend);
        let written = self.write_synced(batch);
        pass(FailPoint::MendWritten);
        self.settle(written)?;
        let result = self.all_synced();
        self.settle(result)
    }

    fn standing(&self, shard: ShardId) -> Standing {
        self.standings.get(&shard).copied().unwrap_or_default()
    }

    fn regained(&mut self, shard: ShardId) -> Result<(), StoreError> {
        self.usable()?;
        let mut batch = WriteBatch::default();
        let key = meta::key(shard, MetaKind::Standing);
        batch.delete_cf(self.shared.cf(CF_META)?, key);
        pass(FailPoint::Regain);
        let written = self.write_synced(batch);
        pass(FailPoint::RegainWritten);
        self.settle(written)?;
        self.standings.insert(shard, Standing::Whole);
        let result = self.all_synced();
        self.settle(result)
    }

    fn condemn(&self, why: &str) -> bool {
        if self.repair {
            self.shared.dir.condemn(why);
        }
        self.repair
    }

    fn health(&self) -> Result<(), StoreError> {
        self.usable()?;
        match self.reader().background_errors() {
            0 => Ok(()),
            n => Err(StoreError::Io(format!(
                "{n} errors in RocksDB's background work"
            ))),
        }
    }
}

impl Drop for RocksStore {
    fn drop(&mut self) {
        // Ends compactions; the database closes with the last reader.
        self.shared.db.cancel_all_background_work(true);
    }
}

fn log_cf(shard: ShardId) -> String {
    format!("log-{}", shard.0)
}

fn default_bounds() -> LogBounds {
    LogBounds {
        first: 1,
        last: 0,
        trimmed_term: 0,
        synced: 0,
        hard_state: HardState::default(),
    }
}
