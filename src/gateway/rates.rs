//! Totals of a broker and their averages over 10 s, 1 min and 10 min, for GET_BROKER_RUNTIME_INFO.

use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

/// Samples kept: 10 minutes, one a second, and one more.
const SAMPLES: usize = 601;

/// Counters since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Messages stored.
    pub put: u64,
    /// Bytes of their bodies.
    pub put_bytes: u64,
    /// Sends refused.
    pub put_failed: u64,
    /// Pulls that found messages.
    pub found: u64,
    /// Pulls that found none.
    pub missed: u64,
    /// Messages handed to consumers.
    pub transferred: u64,
}

/// Which of the [`Totals`] an average is of.
pub type Pick = fn(&Totals) -> u64;

#[derive(Debug, Default)]
struct Live {
    put: AtomicU64,
    put_bytes: AtomicU64,
    put_failed: AtomicU64,
    found: AtomicU64,
    missed: AtomicU64,
    transferred: AtomicU64,
}

/// See the module text.
#[derive(Debug, Default)]
pub struct Rates {
    live: Live,
    samples: Mutex<VecDeque<(i64, Totals)>>,
}

impl Rates {
    /// A send was stored.
    pub fn put(&self, messages: u64, bytes: u64) {
        self.live.put.fetch_add(messages, Ordering::Relaxed);
        self.live.put_bytes.fetch_add(bytes, Ordering::Relaxed);
    }
    /// A send was refused by the store.
    pub fn put_failed(&self) {
        self.live.put_failed.fetch_add(1, Ordering::Relaxed);
    }
    /// A pull was answered with `messages`; 0 when it found none.
    pub fn pulled(&self, messages: u64) {
        let counter = if messages > 0 {
            &self.live.found
        } else {
            &self.live.missed
        };
        counter.fetch_add(1, Ordering::Relaxed);
        self.live.transferred.fetch_add(messages, Ordering::Relaxed);
    }

    /// The totals now.
    pub fn totals(&self) -> Totals {
        let get = |c: &AtomicU64| c.load(Ordering::Relaxed);
        Totals {
            put: get(&self.live.put),
            put_bytes: get(&self.live.put_bytes),
            put_failed: get(&self.live.put_failed),
            found: get(&self.live.found),
            missed: get(&self.live.missed),
            transferred: get(&self.live.transferred),
        }
    }

    /// Takes a sample; call it once a second.
    pub fn sample(&self, now_ms: i64) {
        let totals = self.totals();
        let mut samples = self.samples.lock();
        if samples.len() >= SAMPLES {
            samples.pop_front();
        }
        samples.push_back((now_ms, totals));
    }

    /// Averages a second over 10 s, 60 s and 600 s, as stock brokers write them; a window longer
    /// than the node lives counts what there is.
    pub fn averages(&self, pick: Pick) -> String {
        let samples = self.samples.lock();
        let one = |window: usize| {
            let (Some(newest), Some(oldest)) = (
                samples.back(),
                samples.get(samples.len().saturating_sub(window + 1)),
            ) else {
                return 0.0;
            };
            let ms = newest.0.saturating_sub(oldest.0);
            if ms <= 0 {
                return 0.0;
            }
            pick(&newest.1).saturating_sub(pick(&oldest.1)) as f64 * 1_000.0 / ms as f64
        };
        format!("{:.2} {:.2} {:.2}", one(10), one(60), one(600))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn averages_are_over_their_own_windows() {
        let rates = Rates::default();
        assert_eq!(rates.averages(|t| t.put), "0.00 0.00 0.00");
        for second in 0..700 {
            rates.sample(second * 1_000);
            rates.put(if second >= 689 { 100 } else { 10 }, 1);
        }
        assert_eq!(rates.averages(|t| t.put), "100.00 25.00 11.50");
        assert_eq!(rates.samples.lock().len(), SAMPLES);
        rates.pulled(0);
        rates.pulled(3);
        let totals = rates.totals();
        assert_eq!((totals.found, totals.missed, totals.transferred), (1, 1, 3));
    }
}
