//! The part of the log raft may ask for: a window of recent entries in memory. What lies before
//! it is on disk and was applied; the bytes are shared with the tail cache, not copied.

use crate::storage::{HardState, LogEntry};
use raft::eraftpb;
use raft::{Error, GetEntriesContext, RaftState, StorageError};
use std::collections::VecDeque;

/// See the module text.
pub(super) struct LogWindow {
    /// Index and term of the entry before the window.
    before: (u64, u64),
    entries: VecDeque<eraftpb::Entry>,
    hard_state: eraftpb::HardState,
    voters: Vec<u64>,
}

pub(super) fn to_raft(e: &LogEntry) -> eraftpb::Entry {
    let mut out = eraftpb::Entry {
        index: e.index,
        term: e.term,
        data: e.data.clone(),
        ..eraftpb::Entry::default()
    };
    out.set_entry_type(match e.kind {
        1 => eraftpb::EntryType::EntryConfChange,
        2 => eraftpb::EntryType::EntryConfChangeV2,
        _ => eraftpb::EntryType::EntryNormal,
    });
    out
}

pub(super) fn from_raft(e: &eraftpb::Entry) -> LogEntry {
    LogEntry {
        index: e.index,
        term: e.term,
        kind: e.get_entry_type() as u8,
        data: e.data.clone(),
    }
}

impl LogWindow {
    pub fn new(before: (u64, u64), entries: &[LogEntry], hs: HardState, voters: Vec<u64>) -> Self {
        let hard_state = eraftpb::HardState {
            term: hs.term,
            vote: hs.vote,
            commit: hs.commit,
            ..eraftpb::HardState::default()
        };
        Self {
            before,
            entries: entries.iter().map(to_raft).collect(),
            hard_state,
            voters,
        }
    }

    fn last(&self) -> u64 {
        self.before.0 + self.entries.len() as u64
    }

    /// Adds entries, replacing what the window holds from the first one's index on.
    pub fn append(&mut self, entries: &[eraftpb::Entry]) {
        let Some(first) = entries.first() else { return };
        let keep = first.index.saturating_sub(self.before.0 + 1) as usize;
        self.entries.truncate(keep);
        self.entries.extend(entries.iter().cloned());
    }

    /// Forgets entries up to `index`, which must have been applied.
    pub fn forget(&mut self, index: u64) {
        while let Some(front) = self.entries.front() {
            if front.index > index {
                break;
            }
            self.before = (front.index, front.term);
            self.entries.pop_front();
        }
    }
}

impl raft::Storage for LogWindow {
    fn initial_state(&self) -> raft::Result<RaftState> {
        let conf = eraftpb::ConfState::from((self.voters.clone(), Vec::new()));
        Ok(RaftState::new(self.hard_state.clone(), conf))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<eraftpb::Entry>> {
        if low <= self.before.0 {
            return Err(Error::Store(StorageError::Compacted));
        }
        if high > self.last() + 1 {
            return Err(Error::Store(StorageError::Unavailable));
        }
        let from = (low - self.before.0 - 1) as usize;
        let limit = max_size.into().unwrap_or(u64::MAX);
        let mut size = 0u64;
        let mut out = Vec::new();
        for e in self.entries.iter().skip(from).take((high - low) as usize) {
            size += e.data.len() as u64;
            if !out.is_empty() && size > limit {
                break;
            }
            out.push(e.clone());
        }
        Ok(out)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == self.before.0 {
            return Ok(self.before.1);
        }
        if index < self.before.0 {
            return Err(Error::Store(StorageError::Compacted));
        }
        let at = (index - self.before.0 - 1) as usize;
        self.entries
            .get(at)
            .map(|e| e.term)
            .ok_or(Error::Store(StorageError::Unavailable))
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.before.0 + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    fn snapshot(&self, _: u64, _: u64) -> raft::Result<eraftpb::Snapshot> {
        Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable))
    }
}
