//! Figures of the store, plain atomics that telemetry reads.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters since start, and the last seen disk figures. All relaxed.
#[derive(Debug, Default)]
pub struct StoreStats {
    /// Log entries written, and the bytes of their data.
    pub entries: AtomicU64,
    pub bytes: AtomicU64,
    /// Log writes (merged appends), those of them that synced, and the time these took.
    pub writes: AtomicU64,
    pub syncs: AtomicU64,
    pub sync_micros_total: AtomicU64,
    pub state_batches: AtomicU64,
    pub flushes: AtomicU64,
    pub trims: AtomicU64,
    /// Total and free bytes of the file system that holds the data; 0 before the first look.
    pub disk_total: AtomicU64,
    pub disk_free: AtomicU64,
    /// Set once the store has failed; it takes no more writes.
    pub failed: std::sync::atomic::AtomicBool,
}

impl StoreStats {
    pub(crate) fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }

    /// Used part of the disk, 0.0 to 1.0; 0.0 when it is not known.
    pub fn disk_used_ratio(&self) -> f64 {
        let total = self.disk_total.load(Ordering::Relaxed);
        let free = self.disk_free.load(Ordering::Relaxed).min(total);
        if total == 0 {
            return 0.0;
        }
        (total - free) as f64 / total as f64
    }

    /// Whether the store has failed for good.
    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }
}
