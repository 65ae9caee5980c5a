//! A latency histogram whose observation is a few atomic additions.

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::{MetricType, TypedMetric};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::Arc;
use std::time::Duration;

/// Bucket `i` holds values below 2^(i + FIRST) microseconds; the last one everything else.
const FIRST: u32 = 5;
/// 32 µs, 64 µs … 33.6 s, and infinity.
const BUCKETS: usize = 22;

/// Durations in buckets of doubling width, from 32 µs to 33.6 s. Clones share the counts.
#[derive(Clone, Debug, Default)]
pub struct LatencyHistogram(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    buckets: [AtomicU64; BUCKETS],
    sum_micros: AtomicU64,
}

impl LatencyHistogram {
    /// Counts one duration.
    pub fn observe(&self, d: Duration) {
        self.observe_many(d, 1);
    }

    /// Counts `n` events that all took `d`.
    pub fn observe_many(&self, d: Duration, n: u64) {
        let micros = u64::try_from(d.as_micros()).unwrap_or(u64::MAX >> 20);
        self.0.buckets[bucket(micros)].fetch_add(n, Relaxed);
        self.0
            .sum_micros
            .fetch_add(micros.saturating_mul(n), Relaxed);
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.0.buckets.iter().map(|b| b.load(Relaxed)).sum()
    }
}

fn bucket(micros: u64) -> usize {
    let bits = (u64::BITS - micros.leading_zeros()).max(FIRST) - FIRST;
    (bits as usize).min(BUCKETS - 1)
}

impl EncodeMetric for LatencyHistogram {
    fn encode(&self, mut encoder: MetricEncoder) -> Result<(), fmt::Error> {
        let mut buckets = [(f64::INFINITY, 0); BUCKETS];
        let mut count = 0;
        for (i, (upper, n)) in buckets.iter_mut().enumerate() {
            if i < BUCKETS - 1 {
                *upper = (1u64 << (i as u32 + FIRST)) as f64 / 1e6;
            }
            *n = self.0.buckets[i].load(Relaxed);
            count += *n;
        }
        let sum = self.0.sum_micros.load(Relaxed) as f64 / 1e6;
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

impl TypedMetric for LatencyHistogram {
    const TYPE: MetricType = MetricType::Histogram;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_fall_below_their_upper_bound() {
        for micros in [
            0,
            1,
            31,
            32,
            33,
            63,
            64,
            1_000,
            1 << 20,
            (1 << 25) - 1,
            1 << 25,
            u64::MAX,
        ] {
            let i = bucket(micros);
            if i < BUCKETS - 1 {
                assert!(micros < 1 << (i as u32 + FIRST), "{micros}");
            }
            if i > 0 {
                assert!(micros >= 1 << (i as u32 + FIRST - 1), "{micros}");
            }
        }
    }

    #[test]
    fn page_has_cumulative_buckets_sum_and_count() {
        let h = LatencyHistogram::default();
        h.observe(Duration::from_micros(40));
        h.observe_many(Duration::from_millis(2), 3);
        h.observe(Duration::from_secs(100));
        h.observe(Duration::MAX);
        assert_eq!(h.count(), 6);
        let h2 = LatencyHistogram::default();
        h2.observe(Duration::from_micros(40));
        h2.observe_many(Duration::from_millis(2), 3);
        let mut registry = prometheus_client::registry::Registry::default();
        registry.register("lat", "Help", h2);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        assert!(text.contains("lat_sum 0.00604\n"), "{text}");
        assert!(text.contains("lat_count 4\n"), "{text}");
        assert!(text.contains("lat_bucket{le=\"0.000032\"} 0\n"), "{text}");
        assert!(text.contains("lat_bucket{le=\"0.000064\"} 1\n"), "{text}");
        assert!(text.contains("lat_bucket{le=\"0.002048\"} 4\n"), "{text}");
        assert!(text.contains("lat_bucket{le=\"+Inf\"} 4\n"), "{text}");
    }
}
