//! The log store in memory.

use super::record::{Record, ShardLog, Stored};
use super::{Fault, SimRng};
use crate::model::ShardId;
use crate::storage::traits::check_appends;
use crate::storage::{entry, HardState, LogAppend, LogBounds, LogEntry, LogStore, StoreError};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};

/// What crashes did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Found {
    /// Files that were gone with their directory entry.
    pub files_gone: u64,
    /// Writes of which a part was there.
    pub torn: u64,
    /// Logs that were cut in front of a missing entry.
    pub holes: u64,
}

/// The logs of all shards in memory, with a simulated disk behind them.
///
/// Writes go into files, one after the other ([`SimLogStore::writes_per_file`]). A crash keeps what was
/// synced. Of each file it keeps an arbitrary prefix of the writes behind that, whatever it keeps of the
/// files before: a reader of a file stops at the first write that is not whole. The write after that prefix may
/// be torn, which its checksums show. A file whose directory was not synced since may be gone. Then the start cuts
/// each log in front of the first entry that is missing, as the real store does.
#[derive(Debug, Clone)]
pub struct SimLogStore {
    /// What a reader sees.
    current: BTreeMap<ShardId, ShardLog>,
    /// What is on the disk for certain, and the writes that may or may not be.
    durable: BTreeMap<ShardId, ShardLog>,
    /// Each with the number of its file.
    pending: VecDeque<(Record, u64)>,
    synced: BTreeMap<ShardId, u64>,
    /// Writes in all.
    written: u64,
    fault: Option<Fault>,
    failed: Option<StoreError>,
    closed: bool,
    /// The file that is written now, and how many writes go into one; 0: any number.
    file: u64,
    /// All of the files up to this one was synced once, with the directory.
    file_synced: u64,
    pub writes_per_file: u64,
    /// Files that a crash took with their directory entry, writes that were torn, and logs cut at a hole.
    pub found: Found,
    /// Planted defect: the directory of a new file is not synced with it.
    pub forget_directory: bool,
    /// Planted defect: what is left of a torn write is taken for an entry.
    pub accept_torn: bool,
    /// Planted defect: syncs are reported, not done.
    pub lie_about_sync: bool,
    /// Planted defect: what an append overwrites stays behind it.
    pub keep_tail: bool,
    /// Planted defect: a failed sync is forgotten, and the next one reports success.
    pub retry_syncs: bool,
    /// A sync has failed since the last start: nothing more becomes durable.
    sync_failed: bool,
    /// Planted defect: entries are read whatever their checksum says.
    pub unchecked: bool,
}

impl SimLogStore {
    pub fn new(shards: &[ShardId]) -> Self {
        let logs: BTreeMap<_, _> = shards.iter().map(|s| (*s, ShardLog::empty())).collect();
        Self {
            current: logs.clone(),
            durable: logs,
            pending: VecDeque::new(),
            synced: shards.iter().map(|s| (*s, 0)).collect(),
            written: 0,
            fault: None,
            failed: None,
            closed: false,
            file: 1,
            file_synced: 0,
            writes_per_file: 0,
            found: Found::default(),
            forget_directory: false,
            accept_torn: false,
            lie_about_sync: false,
            keep_tail: false,
            retry_syncs: false,
            sync_failed: false,
            unchecked: false,
        }
    }

    /// Makes the next write (or, for [`Fault::SyncError`], the next sync) fail.
    pub fn inject(&mut self, fault: Fault) {
        self.fault = Some(fault);
    }

    /// Flips one bit of a stored entry, on the disk and in what readers see.
    pub fn corrupt(&mut self, shard: ShardId, index: u64, bit: usize) {
        for logs in [&mut self.current, &mut self.durable] {
            if let Some(stored) = logs
                .get_mut(&shard)
                .and_then(|log| log.entries.get_mut(&index))
            {
                let mut bytes = stored.to_vec();
                let at = bit / 8 % bytes.len();
                bytes[at] ^= 1 << (bit % 8);
                *stored = bytes.into();
            }
        }
    }

    /// Synced writes are not there, although nobody said so: the log ends at `kept`, and nothing is known of a later
    /// term. For a stopped store.
    pub(super) fn lose_end(&mut self, shard: ShardId, kept: u64) {
        if let Some(log) = self.durable.get_mut(&shard) {
            log.entries.split_off(&(kept + 1));
            let last = log.entries.last_key_value();
            let term = last.and_then(|(index, stored)| entry::decode(*index, stored).ok());
            log.hard_state = HardState {
                term: term.map_or(log.trimmed_term, |e| e.term),
                vote: 0,
                commit: log.hard_state.commit.min(log.last()),
            };
        }
        self.restart(Vec::new());
    }

    /// A power cut and the restart after it.
    pub fn crash(&mut self, rng: &mut SimRng) {
        self.crash_keeping(rng, 0);
    }

    /// The process is killed and restarts: all it had written is there.
    pub fn kill(&mut self) {
        let all = std::mem::take(&mut self.pending);
        self.restart(all.into_iter().map(|(record, _)| record).collect());
    }

    /// See [`crate::storage::SnapshotStore::install`]; the log's part.
    pub(super) fn install(
        &mut self,
        shard: ShardId,
        (first, term): (u64, u64),
        hard_state: HardState,
    ) -> Result<(), StoreError> {
        self.usable()?;
        self.write(Record::Install {
            shard,
            first,
            term,
            hard_state,
        })?;
        self.sync_all()
    }

    /// Term and vote that a power cut now would leave.
    pub fn durable_state(&self, shard: ShardId) -> HardState {
        let log = self.durable.get(&shard);
        log.map_or_else(HardState::default, |log| log.hard_state)
    }

    /// Number of writes so far: a position in the order of the WAL.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// As [`SimLogStore::crash`], but the first `at_least` writes of all survive.
    pub(super) fn crash_keeping(&mut self, rng: &mut SimRng, at_least: u64) -> u64 {
        let pending = self.pending.len() as u64;
        let mut least = at_least.saturating_sub(self.written - pending).min(pending);
        let mut survive = Vec::new();
        if pending == 0 {
            // Lives are the same whether or not something is unsynced.
            rng.between(0, 0);
        }
        let mut rest = std::mem::take(&mut self.pending);
        while let Some(file) = rest.front().map(|(_, file)| *file) {
            let of_file = rest.partition_point(|(_, of)| *of == file);
            let writes: Vec<Record> = rest.drain(..of_file).map(|(record, _)| record).collect();
            let must = least.min(writes.len() as u64);
            least -= must;
            self.keep_of_file(rng, writes, must, file, &mut survive);
        }
        let kept = survive.len() as u64;
        self.restart_after_loss(survive);
        kept
    }

    /// As [`SimLogStore::crash`], and no write survives that was not synced.
    pub(super) fn crash_to_synced(&mut self) {
        self.pending.clear();
        self.restart_after_loss(Vec::new());
    }

    fn restart_after_loss(&mut self, survive: Vec<Record>) {
        self.restart(survive);
        for log in self.durable.values_mut().chain(self.current.values_mut()) {
            // A write with nothing but a commit index may be there where the entries before it are not.
            log.hard_state.commit = log.hard_state.commit.min(log.last());
        }
    }

    /// What a crash leaves of the unsynced writes of one file, of which the first `must` are there.
    fn keep_of_file(
        &mut self,
        rng: &mut SimRng,
        writes: Vec<Record>,
        must: u64,
        file: u64,
        survive: &mut Vec<Record>,
    ) {
        let all = writes.len() as u64;
        // Its first sync is one of the directory, too, and leaves no write of it here.
        let listed = self.file_synced >= file && !self.forget_directory;
        if must == 0 && self.writes_per_file > 0 && !listed && rng.chance(1, 4) {
            self.found.files_gone += 1;
            return;
        }
        // (planted) All of it was synced.
        let keep = match self.forget_directory && self.file_synced >= file {
            true => all,
            false => rng.between(must, all),
        };
        let mut writes = writes.into_iter();
        survive.extend(writes.by_ref().take(keep as usize));
        let Some(torn) = writes.next().filter(|w| w.last_entry().is_some()) else {
            return;
        };
        if rng.chance(1, 2) {
            self.found.torn += 1;
            let torn = torn.torn(rng);
            assert!(!torn.is_whole(), "a torn entry passed its checks");
            if self.accept_torn {
                survive.push(torn);
            }
        }
    }

    /// What survived comes into the logs, which end in front of the first entry that is missing.
    fn restart(&mut self, survive: Vec<Record>) {
        for record in survive {
            record.apply(&mut self.durable, self.keep_tail);
        }
        for log in self.durable.values_mut() {
            let count = log.entries.len() as u64;
            if (log.last() + 1).saturating_sub(log.first) != count {
                self.found.holes += 1;
                let there = (log.first..).zip(log.entries.keys());
                let end = there.take_while(|(index, key)| index == *key).count() as u64;
                log.entries.split_off(&(log.first + end));
            }
        }
        self.current = self.durable.clone();
        for (shard, log) in &self.current {
            self.synced.insert(*shard, log.last());
        }
        self.file += 1;
        self.sync_failed = false;
        self.fault = None;
        self.failed = None;
        self.closed = false;
    }

    pub(super) fn usable(&self) -> Result<(), StoreError> {
        match &self.failed {
            Some(e) => Err(e.clone()),
            None if self.closed => Err(StoreError::Io("the store is closed".into())),
            None => Ok(()),
        }
    }

    pub(super) fn fail(&mut self, error: StoreError) -> StoreError {
        self.failed = Some(error.clone());
        error
    }

    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    /// The error of a planted write fault, if one is planted.
    pub(super) fn write_fault(&mut self) -> Option<Fault> {
        self.fault
            .take_if(|f| matches!(f, Fault::WriteError | Fault::NoSpace))
    }

    /// A planted fault of any kind, if there is one.
    pub(super) fn any_fault(&mut self) -> Option<Fault> {
        self.fault.take()
    }

    fn write(&mut self, record: Record) -> Result<(), StoreError> {
        match self.write_fault() {
            Some(Fault::NoSpace) => return Err(self.fail(StoreError::NoSpace)),
            Some(_) => {
                // Nobody knows whether it reached the disk: it may turn up after a crash.
                self.push(record);
                return Err(self.fail(StoreError::Io("planted write error".into())));
            }
            None => {}
        }
        record.apply(&mut self.current, self.keep_tail);
        for (shard, log) in &self.current {
            if let Some(synced) = self.synced.get_mut(shard) {
                *synced = (*synced).max(log.first - 1).min(log.last());
            }
        }
        self.push(record);
        Ok(())
    }

    fn push(&mut self, record: Record) {
        self.pending.push_back((record, self.file));
        self.written += 1;
        if self.writes_per_file > 0 && self.written.is_multiple_of(self.writes_per_file) {
            self.file += 1;
        }
    }

    fn sync_all(&mut self) -> Result<(), StoreError> {
        if self.fault.take_if(|f| *f == Fault::SyncError).is_some() {
            self.sync_failed = true;
            let error = StoreError::Io("planted sync error".into());
            return Err(match self.retry_syncs {
                true => error,
                false => self.fail(error),
            });
        }
        for (shard, log) in &self.current {
            self.synced.insert(*shard, log.last());
        }
        if !self.lie_about_sync && !self.sync_failed {
            self.file_synced = self.file;
            // (planted) The newest file may go with its directory entry.
            let newest = self.file;
            let kept = |file: u64| self.forget_directory && file == newest;
            let done = self.pending.partition_point(|(_, file)| !kept(*file));
            for (record, _) in self.pending.drain(..done) {
                record.apply(&mut self.durable, self.keep_tail);
            }
        }
        Ok(())
    }

    fn log(&self, shard: ShardId) -> Result<&ShardLog, StoreError> {
        self.current
            .get(&shard)
            .ok_or_else(|| StoreError::Io(format!("shard {} is not open here", shard.0)))
    }
}

impl LogStore for SimLogStore {
    fn bounds(&self, shard: ShardId) -> Result<LogBounds, StoreError> {
        let log = self.log(shard)?;
        Ok(LogBounds {
            first: log.first,
            last: log.last(),
            trimmed_term: log.trimmed_term,
            synced: self.synced.get(&shard).copied().unwrap_or(0),
            hard_state: log.hard_state,
        })
    }

    fn append(&mut self, appends: &[LogAppend]) -> Result<(), StoreError> {
        self.usable()?;
        check_appends(appends, |shard| self.bounds(shard))?;
        let mut stored = Vec::with_capacity(appends.len());
        let mut overwritten = Vec::new();
        let mut sync = appends.iter().any(|a| a.sync);
        let mut ends = BTreeMap::new();
        for append in appends {
            let known = self.log(append.shard)?.hard_state.commit;
            let commit = append.hard_state.map_or(known, |h| h.commit);
            let mut entries = Vec::with_capacity(append.entries.len());
            for e in &append.entries {
                let mut bytes = Vec::new();
                entry::encode(e, commit, &mut bytes)?;
                entries.push((e.index, Bytes::from(bytes)));
            }
            if let Some((first, _)) = entries.first() {
                let end = match ends.get(&append.shard) {
                    Some(end) => *end,
                    None => self.bounds(append.shard)?.last,
                };
                sync |= *first <= end;
                ends.insert(append.shard, first + entries.len() as u64 - 1);
                overwritten.push((append.shard, *first));
            }
            stored.push(Stored {
                shard: append.shard,
                entries,
                hard_state: append.hard_state,
            });
        }
        self.write(Record::Appends(stored))?;
        for (shard, first) in overwritten {
            if let Some(synced) = self.synced.get_mut(&shard) {
                *synced = (*synced).min(first - 1);
            }
        }
        if sync {
            self.sync_all()?;
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        self.usable()?;
        self.sync_all()
    }

    fn read(
        &self,
        shard: ShardId,
        from: u64,
        to: u64,
        max_bytes: u64,
    ) -> Result<Vec<LogEntry>, StoreError> {
        if from >= to {
            return Ok(Vec::new());
        }
        let log = self.log(shard)?;
        if from < log.first {
            return Err(StoreError::Trimmed(log.first - 1));
        }
        let mut entries = Vec::new();
        let mut bytes = 0u64;
        for index in from..to.min(log.last().saturating_add(1)) {
            let found = match log.entries.get(&index) {
                Some(stored) if self.unchecked => Ok((stored, entry::unchecked(index, stored))),
                Some(stored) => entry::decode(index, stored).map(|entry| (stored, entry)),
                None => Err(StoreError::BadEntry {
                    index,
                    why: "missing".into(),
                }),
            };
            let (stored, found) = match found {
                Err(_) if !entries.is_empty() => break,
                found => found?,
            };
            bytes += stored.len().saturating_sub(entry::HEADER) as u64;
            if bytes > max_bytes && !entries.is_empty() {
                break;
            }
            entries.push(found);
        }
        Ok(entries)
    }

    fn trim(&mut self, shard: ShardId, first: u64, term: u64) -> Result<(), StoreError> {
        self.usable()?;
        if first <= self.log(shard)?.first {
            return Ok(());
        }
        self.write(Record::Trim { shard, first, term })?;
        self.sync_all()
    }

    fn mend(&mut self, shard: ShardId, entry: &LogEntry) -> Result<(), StoreError> {
        self.usable()?;
        let log = self.log(shard)?;
        if !(log.first..=log.last()).contains(&entry.index) {
            return Ok(());
        }
        let mut stored = Vec::new();
        entry::encode(entry, log.hard_state.commit, &mut stored)?;
        let stored = Bytes::from(stored);
        self.write(Record::Mend(shard, entry.index, stored))?;
        self.sync_all()
    }

    fn health(&self) -> Result<(), StoreError> {
        self.usable()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: ShardId = ShardId(1);

    fn append(from: u64, to: u64, sync: bool) -> LogAppend {
        let entry = |index| LogEntry {
            index,
            term: 1,
            kind: 0,
            data: Bytes::from_static(b"some bytes"),
        };
        let hard_state = HardState {
            term: 1,
            vote: 1,
            commit: to - 1,
        };
        LogAppend {
            shard: S,
            entries: (from..to).map(entry).collect(),
            hard_state: Some(hard_state),
            sync,
        }
    }

    /// Two files: entries 1 and 2, of which 1 is synced, and 3 to 6.
    fn two_files() -> SimLogStore {
        let mut store = SimLogStore::new(&[S]);
        store.writes_per_file = 2;
        for (from, sync) in [(1, true), (2, false), (3, false), (4, false)] {
            store.append(&[append(from, from + 1, sync)]).unwrap();
        }
        store
    }

    #[test]
    fn a_crash_keeps_what_was_synced_and_loses_an_end_of_the_log() {
        let (mut seen, mut found) = ([0u32; 5], Found::default());
        for seed in 0..400 {
            let mut store = two_files();
            store.crash(&mut SimRng::new(seed));
            let bounds = store.bounds(S).unwrap();
            assert!(bounds.hard_state.commit <= bounds.last, "{bounds:?}");
            let whole = store.read(S, 1, 10, u64::MAX).unwrap();
            assert_eq!(whole.len() as u64, bounds.last);
            seen[bounds.last as usize] += 1;
            found.files_gone += store.found.files_gone;
            found.torn += store.found.torn;
            found.holes += store.found.holes;
        }
        assert!(
            seen[0] == 0 && seen[1..].iter().all(|n| *n > 20),
            "{seen:?}"
        );
        let all = [found.files_gone, found.torn, found.holes];
        assert!(all.iter().all(|n| *n > 20), "{all:?}");
    }

    #[test]
    fn no_sync_after_one_that_failed_makes_anything_durable() {
        let mut store = SimLogStore::new(&[S]);
        store.retry_syncs = true;
        store.append(&[append(1, 3, true)]).unwrap();
        store.append(&[append(3, 4, false)]).unwrap();
        store.inject(Fault::SyncError);
        assert!(LogStore::sync(&mut store).is_err());
        assert_eq!(LogStore::sync(&mut store), Ok(()));
        let left = (0..50).map(|seed| {
            let mut store = store.clone();
            store.crash(&mut SimRng::new(seed));
            store.bounds(S).unwrap().last
        });
        let left: std::collections::BTreeSet<u64> = left.collect();
        assert_eq!(Vec::from_iter(left), [2, 3]);
    }
}
