//! What a replica has seen of bad entries in its stored log: figures for metrics and health pages, and the
//! entries that reads go past.

use crate::model::QueueKey;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Entries and queues that are named in the log once; beyond them nothing is named.
const MAX_NAMED: usize = 10_000;

/// Counted since the process started.
#[derive(Debug, Default)]
pub struct Damage {
    found: AtomicU64,
    mended: AtomicU64,
    skipped: AtomicU64,
    lost_delayed: AtomicU64,
    last: AtomicU64,
    lost: Mutex<BTreeSet<u64>>,
    /// Length of `lost`.
    lost_len: AtomicU64,
    named: Mutex<BTreeSet<(u64, QueueKey)>>,
    scrubbed: AtomicU64,
    scrubs: AtomicU64,
}

/// [`Damage`] at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DamageFigures {
    /// Entries found bad.
    pub found: u64,
    /// Of these, such as another replica gave a good copy of.
    pub mended: u64,
    /// Of these, such as no replica has a good copy of.
    pub lost: u64,
    /// Messages of lost entries that reads went past, counted for each read.
    pub skipped: u64,
    /// Delayed messages given up with a lost entry.
    pub lost_delayed: u64,
    /// Log index of the last entry found bad; 0 for none.
    pub last: u64,
    /// Bytes of the stored log that the scrub has read, and how often it was through.
    pub scrubbed: u64,
    pub scrubs: u64,
}

impl Damage {
    pub(crate) fn found(&self, index: u64) {
        self.found.fetch_add(1, Relaxed);
        self.last.store(index, Relaxed);
    }
    /// Another replica gave a good copy of it.
    pub fn mended(&self, index: u64) {
        self.mended.fetch_add(1, Relaxed);
        self.lost.lock().remove(&index);
    }
    /// Reads go past an entry that no replica has a good copy of.
    pub fn lose(&self, index: u64) {
        let mut lost = self.lost.lock();
        lost.insert(index);
        self.lost_len.store(lost.len() as u64, Relaxed);
    }
    /// No replica has a good copy of this entry.
    pub fn is_lost(&self, index: u64) -> bool {
        self.lost_len.load(Relaxed) > 0 && self.lost.lock().contains(&index)
    }
    /// Counts messages that a read goes past. True when this is to be told.
    pub(crate) fn skip(&self, index: u64, key: QueueKey, messages: u64) -> bool {
        self.skipped.fetch_add(messages, Relaxed);
        let mut named = self.named.lock();
        named.len() < MAX_NAMED && named.insert((index, key))
    }
    pub(crate) fn lose_delayed(&self, messages: u64) {
        self.lost_delayed.fetch_add(messages, Relaxed);
    }
    pub(crate) fn scrubbed(&self, bytes: u64, through: bool) {
        self.scrubbed.fetch_add(bytes, Relaxed);
        self.scrubs.fetch_add(u64::from(through), Relaxed);
    }
    /// All figures.
    pub fn figures(&self) -> DamageFigures {
        DamageFigures {
            found: self.found.load(Relaxed),
            mended: self.mended.load(Relaxed),
            lost: self.lost_len.load(Relaxed),
            skipped: self.skipped.load(Relaxed),
            lost_delayed: self.lost_delayed.load(Relaxed),
            last: self.last.load(Relaxed),
            scrubbed: self.scrubbed.load(Relaxed),
            scrubs: self.scrubs.load(Relaxed),
        }
    }
}
