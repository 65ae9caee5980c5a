//! The part of the log raft has at hand: recent entries in memory, up to a limit of bytes beyond
//! those not applied yet. Older ones are on disk and are fetched when a follower needs them; the
//! bytes are shared with the tail cache, not copied.

use crate::storage::{HardState, LogEntry};
use bytes::Bytes;
use raft::eraftpb;
use raft::{Error, GetEntriesContext, RaftState, StorageError};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

/// Peers that may wait for one fetch; whoever is left out asks again with the next heartbeat.
const MAX_WAITING: usize = 16;

/// Entries raft needs from the disk: read `from..to`, and answer with
/// [`super::RaftCore::fetched`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fetch {
    pub from: u64,
    pub to: u64,
    /// Bytes of data after which the read may stop, those of the first entry left out.
    pub max_bytes: u64,
}

impl Fetch {
    /// Reads it by `read`, which gives the entries between two indexes, at least one if there is one,
    /// then up to so many bytes. The first entry of a fetch may be there for its term alone; one
    /// more must come with it, however large both are, or who asks would ask for ever.
    pub fn read<E>(
        &self,
        read: impl Fn(u64, u64, u64) -> Result<Vec<LogEntry>, E>,
    ) -> Result<Vec<LogEntry>, E> {
        let second = self.from.saturating_add(1);
        let mut found = read(self.from, second.min(self.to), self.max_bytes)?;
        if !found.is_empty() && second < self.to {
            found.extend(read(second, self.to, self.max_bytes)?);
        }
        Ok(found)
    }
}

/// What raft asked for and the disk has not answered.
struct Asked {
    fetch: Fetch,
    sent: bool,
    waiting: Vec<GetEntriesContext>,
}

/// See the module text.
pub(super) struct LogWindow {
    /// First index on disk, and the term of the entry before it.
    first: u64,
    trimmed_term: u64,
    /// Index and term of the entry before the window.
    before: (u64, u64),
    entries: VecDeque<eraftpb::Entry>,
    bytes: usize,
    /// Applied entries are kept while the window is not larger.
    keep_bytes: usize,
    hard_state: eraftpb::HardState,
    conf: eraftpb::ConfState,
    /// Entries just fetched; there only while raft is told of them.
    fetched: Vec<eraftpb::Entry>,
    asked: RefCell<Vec<Asked>>,
    /// A snapshot for whoever asks next, and that somebody asked in vain.
    offer: RefCell<Option<eraftpb::Snapshot>>,
    wanted: Cell<bool>,
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

/// Where a window begins.
pub(super) struct WindowStart<'a> {
    /// First index on disk, and the term of the entry before it.
    pub first: (u64, u64),
    /// Index and term of the entry before `entries`.
    pub before: (u64, u64),
    pub entries: &'a [LogEntry],
    pub hard_state: HardState,
    pub conf: eraftpb::ConfState,
    pub keep_bytes: usize,
}

impl LogWindow {
    pub fn new(start: WindowStart<'_>) -> Self {
        let hs = start.hard_state;
        let hard_state = eraftpb::HardState {
            term: hs.term,
            vote: hs.vote,
            commit: hs.commit,
            ..eraftpb::HardState::default()
        };
        Self {
            first: start.first.0.min(start.before.0 + 1),
            trimmed_term: start.first.1,
            before: start.before,
            entries: start.entries.iter().map(to_raft).collect(),
            bytes: start.entries.iter().map(|e| e.data.len()).sum(),
            keep_bytes: start.keep_bytes,
            hard_state,
            conf: start.conf,
            fetched: Vec::new(),
            asked: RefCell::default(),
            offer: RefCell::default(),
            wanted: Cell::new(false),
        }
    }

    /// First index on disk.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// Term of the entry before the window. None before it is of a later one.
    pub fn term_before(&self) -> u64 {
        self.before.1
    }

    fn last(&self) -> u64 {
        self.before.0 + self.entries.len() as u64
    }

    /// Adds entries, replacing what the window holds from the first one's index on: that comes
    /// back.
    pub fn append(&mut self, entries: &[eraftpb::Entry]) -> Vec<LogEntry> {
        let Some(first) = entries.first() else {
            return Vec::new();
        };
        let keep = first.index.saturating_sub(self.before.0 + 1) as usize;
        let mut replaced = Vec::new();
        for gone in self.entries.drain(keep.min(self.entries.len())..) {
            self.bytes -= gone.data.len();
            replaced.push(from_raft(&gone));
        }
        self.bytes += entries.iter().map(|e| e.data.len()).sum::<usize>();
        self.entries.extend(entries.iter().cloned());
        replaced
    }

    /// Forgets entries up to `index`, which must have been applied, but for the newest that fit
    /// the limit.
    pub fn forget(&mut self, index: u64) {
        while let Some(front) = self.entries.front() {
            if front.index > index || (self.keep_bytes > 0 && self.bytes <= self.keep_bytes) {
                break;
            }
            self.before = (front.index, front.term);
            self.bytes -= front.data.len();
            self.entries.pop_front();
        }
    }

    /// How many bytes of applied entries may stay.
    pub fn keep(&mut self, bytes: usize) {
        self.keep_bytes = bytes;
    }

    /// The log was trimmed: it begins at `first` now.
    pub fn trimmed(&mut self, first: u64, term: u64) {
        if first <= self.first {
            return;
        }
        // All of these were applied before the trim was.
        while self.entries.front().is_some_and(|e| e.index < first) {
            if let Some(front) = self.entries.pop_front() {
                self.before = (front.index, front.term);
                self.bytes -= front.data.len();
            }
        }
        if first <= self.before.0 + 1 {
            self.first = first;
            self.trimmed_term = term;
        }
    }

    /// Somebody needs a snapshot, and none was there.
    pub fn wants_snapshot(&self) -> bool {
        self.wanted.get()
    }

    /// A snapshot of the entries trimmed, for whoever asks next.
    pub fn offer_snapshot(&mut self, data: Bytes, conf: eraftpb::ConfState) {
        let mut snapshot = eraftpb::Snapshot::default();
        snapshot.set_data(data);
        let meta = snapshot.mut_metadata();
        (meta.index, meta.term) = (self.first - 1, self.trimmed_term);
        meta.set_conf_state(conf);
        self.offer = RefCell::new(Some(snapshot));
        self.wanted.set(false);
    }

    /// The snapshot that was offered, and that nobody has asked for since, is given to nobody.
    pub fn forget_offer(&mut self) {
        self.offer.get_mut().take();
    }

    /// A snapshot replaced everything up to `index`, and nothing is behind it. Entries not
    /// applied come back.
    pub fn restore(&mut self, index: u64, term: u64, applied: u64) -> Vec<LogEntry> {
        let gone = self.entries.drain(..).filter(|e| e.index > applied);
        let gone = gone.map(|e| from_raft(&e)).collect();
        self.bytes = 0;
        (self.first, self.trimmed_term) = (index + 1, term);
        self.before = (index, term);
        self.fetched.clear();
        self.forget_asked();
        gone
    }

    /// Bytes of entries held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes of the entries behind `index`; `None` when not all of them are here.
    pub fn bytes_behind(&self, index: u64) -> Option<u64> {
        let from = index.checked_sub(self.before.0)? as usize;
        let behind = self.entries.iter().skip(from);
        Some(behind.map(|e| e.data.len() as u64).sum())
    }

    /// What is to be read and was not told yet.
    pub fn new_fetches(&self) -> Vec<Fetch> {
        let mut asked = self.asked.borrow_mut();
        let new = asked.iter_mut().filter(|a| !a.sent);
        new.map(|a| {
            a.sent = true;
            a.fetch
        })
        .collect()
    }

    /// The answer to the fetch from `from`: the entries are at hand until
    /// [`LogWindow::drop_fetched`]. Returns who waits.
    pub fn put_fetched(&mut self, from: u64, entries: &[LogEntry]) -> Vec<GetEntriesContext> {
        let asked = self.asked.get_mut();
        let Some(at) = asked.iter().position(|a| a.fetch.from == from) else {
            return Vec::new();
        };
        let found = asked.swap_remove(at);
        self.fetched = entries.iter().map(to_raft).collect();
        found.waiting
    }

    pub fn drop_fetched(&mut self) {
        self.fetched = Vec::new();
    }

    /// Nobody waits any more.
    pub fn forget_asked(&mut self) {
        self.asked.get_mut().clear();
        self.forget_offer();
        self.wanted.set(false);
    }

    fn fetched_from(&self, low: u64) -> Option<&[eraftpb::Entry]> {
        let first = self.fetched.first()?.index;
        let at = low.checked_sub(first)? as usize;
        self.fetched.get(at..).filter(|rest| !rest.is_empty())
    }

    fn ask(&self, low: u64, high: u64, max_bytes: u64, context: GetEntriesContext) {
        // With the entry before, whose term goes along.
        let from = low.saturating_sub(1).max(self.first);
        let mut asked = self.asked.borrow_mut();
        if let Some(open) = asked.iter_mut().find(|a| a.fetch.from == from) {
            if open.waiting.len() < MAX_WAITING {
                open.waiting.push(context);
            }
        } else if asked.len() < MAX_WAITING {
            let to = high.min(self.before.0 + 1);
            let fetch = Fetch {
                from,
                to,
                max_bytes,
            };
            asked.push(Asked {
                fetch,
                sent: false,
                waiting: vec![context],
            });
        }
    }
}

fn limited<'a>(
    entries: impl Iterator<Item = &'a eraftpb::Entry>,
    count: u64,
    limit: u64,
) -> Vec<eraftpb::Entry> {
    let mut size = 0u64;
    let mut out = Vec::new();
    for e in entries.take(count as usize) {
        size += e.data.len() as u64;
        if !out.is_empty() && size > limit {
            break;
        }
        out.push(e.clone());
    }
    out
}

impl raft::Storage for LogWindow {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState::new(self.hard_state.clone(), self.conf.clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        context: GetEntriesContext,
    ) -> raft::Result<Vec<eraftpb::Entry>> {
        if low < self.first {
            return Err(Error::Store(StorageError::Compacted));
        }
        if high > self.last() + 1 {
            return Err(Error::Store(StorageError::Unavailable));
        }
        let limit = max_size.into().unwrap_or(u64::MAX);
        if low > self.before.0 {
            let from = (low - self.before.0 - 1) as usize;
            return Ok(limited(self.entries.range(from..), high - low, limit));
        }
        if let Some(found) = self.fetched_from(low) {
            return Ok(limited(found.iter(), high - low, limit));
        }
        if context.can_async() {
            self.ask(low, high, limit, context);
            return Err(Error::Store(StorageError::LogTemporarilyUnavailable));
        }
        // Everything not applied is in the window, and nothing else is asked for at once.
        Err(Error::Store(StorageError::Unavailable))
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == self.before.0 {
            return Ok(self.before.1);
        }
        if index + 1 == self.first {
            return Ok(self.trimmed_term);
        }
        if index < self.first {
            return Err(Error::Store(StorageError::Compacted));
        }
        let found = if index > self.before.0 {
            self.entries.get((index - self.before.0 - 1) as usize)
        } else {
            self.fetched_from(index).and_then(<[_]>::first)
        };
        found
            .map(|e| e.term)
            .ok_or(Error::Store(StorageError::Unavailable))
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.first)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    fn snapshot(&self, _: u64, _: u64) -> raft::Result<eraftpb::Snapshot> {
        // Nothing was trimmed: raft met entries that are not at hand now, and asks again.
        if self.first <= 1 {
            return Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        }
        let found = self.offer.borrow_mut().take();
        // Retention may have gone on since it was made.
        if let Some(found) = found.filter(|s| s.get_metadata().index + 1 == self.first) {
            return Ok(found);
        }
        self.wanted.set(true);
        Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fetch_brings_the_entry_behind_however_large_the_one_before_is() {
        const MAX: u64 = 1_000;
        let entry = |index: u64| LogEntry {
            index,
            term: 1,
            kind: 0,
            data: Bytes::from(vec![0; 800]),
        };
        // As a store reads: one at least, then up to the limit.
        let read = |from: u64, to: u64, max: u64| -> Result<Vec<LogEntry>, ()> {
            let (mut out, mut bytes) = (Vec::new(), 0);
            for index in from..to.min(10) {
                bytes += 800;
                if !out.is_empty() && bytes > max {
                    break;
                }
                out.push(entry(index));
            }
            Ok(out)
        };
        let fetch = |from, to| Fetch {
            from,
            to,
            max_bytes: MAX,
        };
        let indexes = |fetch: Fetch| -> Vec<u64> {
            let found = fetch.read(read).unwrap();
            found.iter().map(|e| e.index).collect()
        };
        assert_eq!(indexes(fetch(4, 10)), [4, 5], "4 is there for its term");
        assert_eq!(indexes(fetch(9, 20)), [9]);
        assert_eq!(indexes(fetch(4, 5)), [4]);
        assert!(indexes(fetch(10, 20)).is_empty());
        // What raft finds then.
        let mut window = LogWindow::new(WindowStart {
            first: (1, 0),
            before: (9, 1),
            entries: &[],
            hard_state: HardState::default(),
            conf: eraftpb::ConfState::default(),
            keep_bytes: 0,
        });
        let context = GetEntriesContext::empty(true);
        window.ask(5, 10, MAX, context);
        let asked = window.new_fetches();
        assert_eq!((asked.len(), asked[0].from), (1, 4));
        window.put_fetched(4, &asked[0].read(read).unwrap());
        let found = window.fetched_from(5).unwrap();
        assert_eq!(found.first().map(|e| e.index), Some(5));
    }
}
