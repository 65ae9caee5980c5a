//! Figures of a shard that anybody may read at any time.

use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Written by the shard's thread, read by metrics and health pages.
#[derive(Debug, Default)]
pub struct ShardStatus {
    term: AtomicU64,
    committed: AtomicU64,
    applied: AtomicU64,
    serving: AtomicBool,
    disk_full: AtomicBool,
    failed: Mutex<Option<String>>,
}

impl ShardStatus {
    pub(crate) fn set(&self, term: u64, committed: u64, applied: u64) {
        self.term.store(term, Ordering::Relaxed);
        self.committed.store(committed, Ordering::Relaxed);
        self.applied.store(applied, Ordering::Relaxed);
    }
    pub(crate) fn set_serving(&self, serving: bool) {
        self.serving.store(serving, Ordering::Release);
    }
    pub(crate) fn set_failed(&self, why: String) {
        self.serving.store(false, Ordering::Release);
        *self.failed.lock() = Some(why);
    }
    /// Set by the node's disk watch: producers are refused while it is on; reads, offsets and
    /// retention go on.
    pub fn set_disk_full(&self, full: bool) -> bool {
        self.disk_full.swap(full, Ordering::AcqRel) != full
    }
    /// Producers are refused because the disk is nearly full.
    pub fn disk_full(&self) -> bool {
        self.disk_full.load(Ordering::Acquire)
    }
    /// Raft term.
    pub fn term(&self) -> u64 {
        self.term.load(Ordering::Relaxed)
    }
    /// Raft commit index.
    pub fn committed(&self) -> u64 {
        self.committed.load(Ordering::Relaxed)
    }
    /// Last applied log index.
    pub fn applied(&self) -> u64 {
        self.applied.load(Ordering::Relaxed)
    }
    /// This replica leads and accepts writes.
    pub fn serving(&self) -> bool {
        self.serving.load(Ordering::Acquire)
    }
    /// Why the shard stopped for good.
    pub fn failed(&self) -> Option<String> {
        self.failed.lock().clone()
    }
}
