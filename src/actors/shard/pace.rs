//! How fast followers that are far behind are filled: as fast as the disk and the processor can do
//! it, everybody else would wait behind them.

use parking_lot::Mutex;
use std::time::{Duration, Instant};

/// What was not used is not saved up beyond this.
const BURST: Duration = Duration::from_millis(20);

/// A follower must come nearer also while much is written: so many times what is written may be
/// read for followers, however little is allowed.
const OF_WRITTEN: u64 = 2;

/// Spreads the bytes that one node reads for followers over time.
#[derive(Debug)]
pub struct Pace {
    per_second: u64,
    /// When all that was read has had its time.
    free_at: Mutex<Option<Instant>>,
}

impl Pace {
    /// So many bytes a second, and twice what is written besides; 0: no limit.
    pub fn new(per_second: u64) -> Self {
        Self {
            per_second,
            free_at: Mutex::new(None),
        }
    }

    /// How long to wait before more is read.
    pub fn wait(&self, now: Instant) -> Duration {
        let free_at = *self.free_at.lock();
        free_at.map_or(Duration::ZERO, |at| at.saturating_duration_since(now))
    }

    /// `bytes` were read.
    pub fn read(&self, bytes: u64, now: Instant) {
        if let Some(time) = self.time_of(bytes) {
            let mut free_at = self.free_at.lock();
            let earliest = now.checked_sub(BURST).unwrap_or(now);
            let from = free_at.unwrap_or(earliest).max(earliest);
            *free_at = from.checked_add(time).or(Some(from));
        }
    }

    /// `bytes` were written.
    pub fn written(&self, bytes: u64) {
        if let Some(time) = self.time_of(bytes.saturating_mul(OF_WRITTEN)) {
            let mut free_at = self.free_at.lock();
            *free_at = free_at.and_then(|at| at.checked_sub(time));
        }
    }

    /// The time in which so much may be read; nothing without a limit.
    fn time_of(&self, bytes: u64) -> Option<Duration> {
        let nanos = (u128::from(bytes) * 1_000_000_000).checked_div(self.per_second.into())?;
        Some(Duration::from_nanos(nanos.try_into().unwrap_or(u64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn bytes_are_spread_over_time_and_little_is_saved_up() {
        let pace = Pace::new(1_000_000);
        let start = Instant::now() + MS(60_000);
        assert_eq!(pace.wait(start), MS(0));
        // 100 ms for each 100 kB, less the burst of 20 ms.
        pace.read(100_000, start);
        assert_eq!(pace.wait(start), MS(80));
        pace.read(100_000, start);
        assert_eq!(pace.wait(start + MS(100)), MS(80));
        // A minute without any is no minute's worth of bytes.
        let later = start + MS(60_000);
        assert_eq!(pace.wait(later), MS(0));
        pace.read(100_000, later);
        assert_eq!(pace.wait(later), MS(80));
    }

    #[test]
    fn twice_what_is_written_may_be_read_besides() {
        let pace = Pace::new(1_000_000);
        let now = Instant::now() + MS(60_000);
        pace.read(520_000, now);
        assert_eq!(pace.wait(now), MS(500));
        pace.written(100_000);
        assert_eq!(pace.wait(now), MS(300));
        pace.written(10_000_000);
        assert_eq!(pace.wait(now), MS(0));
        // What was written is not saved up either.
        pace.read(120_000, now);
        assert_eq!(pace.wait(now), MS(100));
    }

    #[test]
    fn without_a_limit_nobody_waits() {
        let pace = Pace::new(0);
        let now = Instant::now();
        pace.read(u64::MAX, now);
        pace.written(u64::MAX);
        assert_eq!(pace.wait(now), MS(0));
        // A wait beyond all time is no overflow.
        let slow = Pace::new(1);
        slow.read(u64::MAX, now);
        slow.read(u64::MAX, now);
        slow.written(u64::MAX);
    }
}
