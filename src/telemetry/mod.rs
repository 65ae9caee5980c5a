//! Logs and metric families.
//!
//! Nothing here is process-wide except [`logs::init`], which only the binary calls: a
//! [`Metrics`] value is created by whoever builds a node and handed down.

mod clock;
mod descriptors;
pub mod escape;
pub mod histogram;
pub mod limit;
pub mod logs;
mod metrics;
mod shards;
mod topics;

pub use clock::ClockMetrics;
pub use descriptors::DescriptorMetrics;
pub use escape::{escape_all, Escaped};
pub use histogram::LatencyHistogram;
pub use limit::RateLimited;
pub use metrics::{
    CodeMetrics, Metrics, MetricsOptions, StoreMetrics, TopicMetrics, CONTENT_TYPE, OTHER_TOPIC,
};
pub use prometheus_client::metrics::{counter::Counter, gauge::Gauge};
pub use shards::{QuotaMetrics, ShardMetrics};
