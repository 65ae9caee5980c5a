//! The log store in memory.

use super::{Fault, SimRng};
use crate::model::ShardId;
use crate::storage::traits::check_appends;
use crate::storage::{entry, HardState, LogAppend, LogBounds, LogEntry, LogStore, StoreError};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};

/// Content of one shard's log.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ShardLog {
    first: u64,
    trimmed_term: u64,
    hard_state: HardState,
    /// Index to stored form.
    entries: BTreeMap<u64, Bytes>,
}

impl ShardLog {
    fn empty() -> Self {
        Self {
            first: 1,
            trimmed_term: 0,
            hard_state: HardState::default(),
            entries: BTreeMap::new(),
        }
    }

    fn last(&self) -> u64 {
        self.entries
            .last_key_value()
            .map_or(self.first - 1, |(index, _)| *index)
    }
}

/// One atomic write, in the order of the simulated WAL.
#[derive(Debug, Clone)]
enum Record {
    Appends(Vec<Stored>),
    Trim {
        shard: ShardId,
        first: u64,
        term: u64,
    },
    Install {
        shard: ShardId,
        first: u64,
        term: u64,
        hard_state: HardState,
    },
    Mend(ShardId, u64, Bytes),
}

#[derive(Debug, Clone)]
struct Stored {
    shard: ShardId,
    entries: Vec<(u64, Bytes)>,
    hard_state: Option<HardState>,
}

impl Record {
    fn apply(&self, logs: &mut BTreeMap<ShardId, ShardLog>, keep_tail: bool) {
        match self {
            Record::Appends(appends) => {
                for append in appends {
                    let Some(log) = logs.get_mut(&append.shard) else {
                        continue;
                    };
                    if let Some((first, _)) = append.entries.first() {
                        let tail = log.entries.split_off(first);
                        if keep_tail {
                            log.entries.extend(tail);
                        }
                    }
                    log.entries.extend(append.entries.iter().cloned());
                    log.hard_state = append.hard_state.unwrap_or(log.hard_state);
                }
            }
            Record::Install {
                shard,
                first,
                term,
                hard_state,
            } => {
                if let Some(log) = logs.get_mut(shard) {
                    log.entries.clear();
                    (log.first, log.trimmed_term) = (*first, *term);
                    log.hard_state = *hard_state;
                }
            }
            Record::Mend(shard, index, stored) => {
                let log = logs.get_mut(shard);
                if let Some(own) = log.and_then(|log| log.entries.get_mut(index)) {
                    *own = stored.clone();
                }
            }
            Record::Trim { shard, first, term } => {
                if let Some(log) = logs.get_mut(shard) {
                    log.entries = log.entries.split_off(first);
                    log.first = *first;
                    log.trimmed_term = *term;
                }
            }
        }
    }

    /// The last entry of the write, which is what a torn write has lost a part of.
    fn last_entry(&self) -> Option<&(u64, Bytes)> {
        match self {
            Record::Appends(appends) => appends.iter().rev().find_map(|a| a.entries.last()),
            Record::Trim { .. } | Record::Install { .. } | Record::Mend(..) => None,
        }
    }
}

/// The logs of all shards in memory, with a simulated disk behind them.
///
/// A crash keeps what was synced and an arbitrary prefix of the writes behind it; the write after
/// that prefix may be torn, which its checksum shows, so it is dropped whole.
#[derive(Debug, Clone)]
pub struct SimLogStore {
    /// What a reader sees.
    current: BTreeMap<ShardId, ShardLog>,
    /// What is on the disk for certain, and the writes that may or may not be.
    durable: BTreeMap<ShardId, ShardLog>,
    pending: VecDeque<Record>,
    synced: BTreeMap<ShardId, u64>,
    /// Writes in all.
    written: u64,
    fault: Option<Fault>,
    failed: Option<StoreError>,
    closed: bool,
    /// Planted defect: syncs are reported, not done.
    pub lie_about_sync: bool,
    /// Planted defect: what an append overwrites stays behind it.
    pub keep_tail: bool,
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
            lie_about_sync: false,
            keep_tail: false,
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

    /// A power cut and the restart after it.
    pub fn crash(&mut self, rng: &mut SimRng) {
        self.crash_keeping(rng, 0);
    }

    /// The process is killed and restarts: all it had written is there.
    pub fn kill(&mut self) {
        self.restart(self.pending.len());
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
        let least = at_least.saturating_sub(self.written - pending).min(pending);
        let keep = rng.between(least, pending) as usize;
        if let Some((index, stored)) = self.pending.get(keep).and_then(Record::last_entry) {
            if rng.chance(1, 2) {
                let torn = &stored[..rng.below(stored.len() as u64) as usize];
                assert!(
                    entry::decode(*index, torn).is_err(),
                    "a torn entry passed its checks"
                );
            }
        }
        self.restart(keep);
        keep as u64
    }

    fn restart(&mut self, keep: usize) {
        for record in self.pending.drain(..).take(keep) {
            record.apply(&mut self.durable, self.keep_tail);
        }
        self.pending.clear();
        self.current = self.durable.clone();
        for (shard, log) in &self.current {
            self.synced.insert(*shard, log.last());
        }
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
                self.pending.push_back(record);
                self.written += 1;
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
        self.pending.push_back(record);
        self.written += 1;
        Ok(())
    }

    fn sync_all(&mut self) -> Result<(), StoreError> {
        if self.fault.take_if(|f| *f == Fault::SyncError).is_some() {
            return Err(self.fail(StoreError::Io("planted sync error".into())));
        }
        for (shard, log) in &self.current {
            self.synced.insert(*shard, log.last());
        }
        if !self.lie_about_sync {
            for record in self.pending.drain(..) {
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
