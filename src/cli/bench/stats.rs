//! Latencies and counts.

use hdrhistogram::Histogram;
use serde::Serialize;
use std::collections::BTreeMap;

/// Longest latency told apart, ns: an hour.
const LONGEST: u64 = 3_600_000_000_000;

/// Latencies in nanoseconds, to three digits.
#[derive(Debug)]
pub(super) struct Latencies(Option<Histogram<u64>>);

/// Percentiles in microseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Percentiles {
    /// How many were measured.
    pub samples: u64,
    pub min: f64,
    pub mean: f64,
    pub p50: f64,
    pub p90: f64,
    pub p95: f64,
    pub p99: f64,
    pub p999: f64,
    pub p9999: f64,
    pub max: f64,
}

impl Latencies {
    pub(super) fn new() -> Self {
        // Three digits and these bounds are always accepted.
        Self(Histogram::new_with_bounds(1, LONGEST, 3).ok())
    }

    /// Adds a latency of `ns`, `count` times.
    pub(super) fn record(&mut self, ns: u64, count: u64) {
        if let Some(h) = &mut self.0 {
            h.saturating_record_n(ns.clamp(1, LONGEST), count);
        }
    }

    pub(super) fn percentiles(&self) -> Percentiles {
        let Some(h) = self.0.as_ref().filter(|h| !h.is_empty()) else {
            return Percentiles::default();
        };
        let us = |ns: f64| (ns / 100.0).round() / 10.0;
        let at = |q: f64| us(h.value_at_quantile(q).min(h.max()) as f64);
        Percentiles {
            samples: h.len(),
            min: us(h.min() as f64),
            mean: us(h.mean()),
            p50: at(0.5),
            p90: at(0.9),
            p95: at(0.95),
            p99: at(0.99),
            p999: at(0.999),
            p9999: at(0.9999),
            max: us(h.max() as f64),
        }
    }
}

/// Counts by response code or by the kind of a broken connection.
pub(super) type Counts = BTreeMap<String, u64>;

/// Adds to one of them.
pub(super) fn count(counts: &mut Counts, key: &str, by: u64) {
    match counts.get_mut(key) {
        Some(n) => *n += by,
        None => {
            counts.insert(key.to_owned(), by);
        }
    }
}

/// `2 SYSTEM_BUSY`.
pub(super) fn code_key(code: i32) -> String {
    format!(
        "{code} {}",
        crate::wire::remoting::code::response::name(code)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_in_microseconds() {
        let mut l = Latencies::new();
        assert_eq!(l.percentiles(), Percentiles::default());
        for i in 1..=1_000u64 {
            l.record(i * 1_000, 1);
        }
        let p = l.percentiles();
        assert_eq!((p.samples, p.min), (1_000, 1.0));
        for (got, wanted) in [(p.p50, 500.0), (p.p99, 990.0), (p.max, 1_000.0)] {
            assert!((got - wanted).abs() / wanted < 0.002, "{got} {wanted}");
        }
        l.record(u64::MAX, 3);
        assert_eq!(l.percentiles().samples, 1_003);
        assert_eq!(code_key(2), "2 SYSTEM_BUSY");
    }
}
