//! The metric families of one node.
//!
//! Handles ([`TopicMetrics`], [`CodeMetrics`], [`ShardMetrics`] …) are looked up once and kept;
//! counting through a handle is an atomic addition. Label values are bounded: topics by
//! [`MetricsOptions::max_topics`], request codes by the list given at creation, everything else
//! by names in the program.

use super::clock::ClockMetrics;
use super::descriptors::DescriptorMetrics;
use super::histogram::LatencyHistogram;
use super::shards::{PeerLabel, QuotaMetrics, ReplicaLabel, ShardFamilies, ShardMetrics};
use super::topics::{in_order, Codes, Topics};
use parking_lot::RwLock;
use prometheus_client::encoding::{text, EncodeLabelSet};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use rustc_hash::FxHashMap;
use std::sync::Arc;

/// Content type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Label of all topics beyond the limit.
pub const OTHER_TOPIC: &str = "_other";

/// Most distinct response codes with a label of their own.
const MAX_RESPONSE_CODES: usize = 128;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ResponseLabel {
    code: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct NameLabel {
    name: &'static str,
}

/// Messages and bytes of one topic.
#[derive(Clone, Debug, Default)]
pub struct TopicMetrics {
    /// Messages stored for producers.
    pub messages_in: Counter,
    /// Bytes of their bodies.
    pub bytes_in: Counter,
    /// Messages handed to consumers.
    pub messages_out: Counter,
    /// Bytes of their records.
    pub bytes_out: Counter,
}

/// Requests of one code.
#[derive(Clone, Debug, Default)]
pub struct CodeMetrics {
    /// Requests that arrived.
    pub requests: Counter,
    /// Requests answered with a code other than success.
    pub errors: Counter,
}

/// The log and state stores of one node.
#[derive(Clone, Debug, Default)]
pub struct StoreMetrics {
    /// Entries written to the log.
    pub entries_appended: Counter,
    /// Bytes of those entries.
    pub bytes_appended: Counter,
    /// Writes to the store, each of one or more entries.
    pub writes: Counter,
    /// Syncs to disk.
    pub syncs: Counter,
    /// Time spent in syncs, microseconds.
    pub sync_micros: Counter,
    /// Bytes in the cache of blocks of files.
    pub block_cache_bytes: Gauge,
    /// Bytes in memtables.
    pub memtable_bytes: Gauge,
    /// Bytes in the tail cache.
    pub tail_cache_bytes: Gauge,
    /// Reads answered from the tail cache.
    pub tail_cache_hits: Counter,
    /// Reads that the tail cache could not answer.
    pub tail_cache_misses: Counter,
    /// Of them, reads answered from entries that earlier reads left in memory.
    pub entry_cache_hits: Counter,
    /// Bytes of the log on disk.
    pub log_bytes: Gauge,
    /// Used part of the disk that holds the data, in percent.
    pub disk_used_percent: Gauge,
    /// Log files removed by retention.
    pub files_deleted: Counter,
}

/// What [`Metrics::new`] has to know.
#[derive(Clone, Copy, Debug)]
pub struct MetricsOptions<'a> {
    /// Topics with labels of their own.
    pub max_topics: usize,
    /// The request codes this node knows, with their names. All others count as `other`.
    pub request_codes: &'a [(i32, &'static str)],
}

/// All metric families of one node. Not process-wide: share it in an `Arc`.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    topics: Topics,
    codes: Codes,
    responses: Family<ResponseLabel, Counter>,
    response_codes: RwLock<FxHashMap<i32, Counter>>,
    connections: Family<NameLabel, Gauge>,
    connections_opened: Family<NameLabel, Counter>,
    connections_closed: Family<NameLabel, Counter>,
    queue_lengths: Family<NameLabel, Gauge>,
    bad_input: Family<NameLabel, Counter>,
    shards: ShardFamilies,
    /// Time from reading a send request to writing its answer.
    pub send_latency: LatencyHistogram,
    /// Time from reading a pull request to writing its answer, waiting for messages left out.
    pub pull_latency: LatencyHistogram,
    /// The stores.
    pub store: StoreMetrics,
    /// The node's clock.
    pub clock: ClockMetrics,
    /// Files and connections that are open, and may be.
    pub descriptors: DescriptorMetrics,
}

impl StoreMetrics {
    fn register(&self, r: &mut Registry) {
        r.register(
            "entries_appended",
            "Entries written to the log",
            self.entries_appended.clone(),
        );
        let metric = self.bytes_appended.clone();
        r.register_with_unit(
            "appended",
            "Entries written to the log",
            Unit::Bytes,
            metric,
        );
        r.register(
            "writes",
            "Writes of one or more entries",
            self.writes.clone(),
        );
        r.register("syncs", "Syncs to disk", self.syncs.clone());
        r.register(
            "sync_microseconds",
            "Time spent in syncs",
            self.sync_micros.clone(),
        );
        let metric = self.block_cache_bytes.clone();
        r.register_with_unit(
            "block_cache",
            "Size of the block cache",
            Unit::Bytes,
            metric,
        );
        let metric = self.memtable_bytes.clone();
        r.register_with_unit("memtables", "Size of the memtables", Unit::Bytes, metric);
        let metric = self.tail_cache_bytes.clone();
        r.register_with_unit("tail_cache", "Size of the tail cache", Unit::Bytes, metric);
        r.register(
            "tail_cache_hits",
            "Reads from the tail cache",
            self.tail_cache_hits.clone(),
        );
        r.register(
            "tail_cache_misses",
            "Reads that the tail cache could not answer",
            self.tail_cache_misses.clone(),
        );
        r.register(
            "entry_cache_hits",
            "Of them, reads answered from entries read before",
            self.entry_cache_hits.clone(),
        );
        r.register_with_unit(
            "log",
            "Size of the log on disk",
            Unit::Bytes,
            self.log_bytes.clone(),
        );
        r.register(
            "disk_used_percent",
            "Used part of the disk",
            self.disk_used_percent.clone(),
        );
        r.register(
            "files_deleted",
            "Log files removed by retention",
            self.files_deleted.clone(),
        );
    }
}

impl Metrics {
    /// Families for one node, all at zero.
    pub fn new(options: MetricsOptions<'_>) -> Self {
        let mut registry = Registry::with_prefix("troupe");
        let r = &mut registry;

        let topics = Topics::new(options.max_topics);
        r.register_collector(Box::new(topics.clone()));
        let codes = Codes::new(options.request_codes);
        r.register_collector(Box::new(codes.clone()));
        let send_latency = LatencyHistogram::default();
        let help = "Time from a send request to its answer";
        r.register_with_unit("send_latency", help, Unit::Seconds, send_latency.clone());
        let pull_latency = LatencyHistogram::default();
        let help = "Time from a pull request to its answer, waiting for messages left out";
        r.register_with_unit("pull_latency", help, Unit::Seconds, pull_latency.clone());

        let responses = Family::default();
        r.register(
            "error_responses",
            "Answers by code, success left out",
            responses.clone(),
        );
        let connections = Family::default();
        r.register(
            "connections",
            "Open connections by listener",
            connections.clone(),
        );
        let connections_opened = Family::default();
        let help = "Connections accepted by listener";
        r.register("connections_opened", help, connections_opened.clone());
        let connections_closed = Family::default();
        let help = "Connections closed by this node, by reason";
        r.register("connections_closed", help, connections_closed.clone());
        let queue_lengths = Family::default();
        r.register(
            "queue_length",
            "Waiting items of internal queues",
            queue_lengths.clone(),
        );
        let bad_input = Family::default();
        r.register("bad_input", "Refused input by kind", bad_input.clone());
        let store = StoreMetrics::default();
        store.register(r.sub_registry_with_prefix("store"));
        let clock = ClockMetrics::default();
        clock.register(r.sub_registry_with_prefix("clock"));
        let descriptors = DescriptorMetrics::default();
        descriptors.register(r.sub_registry_with_prefix("descriptors"));
        let shards = ShardFamilies::default();
        shards.register(r);

        Self {
            topics,
            codes,
            responses,
            response_codes: RwLock::default(),
            connections,
            connections_opened,
            connections_closed,
            queue_lengths,
            bad_input,
            shards,
            send_latency,
            pull_latency,
            store,
            clock,
            descriptors,
            registry,
        }
    }

    /// The counters of a topic. It gets a row when something was counted, one of its own as long as
    /// there are places, else that of [`OTHER_TOPIC`]. Keep the handle as long as the topic is in use.
    pub fn topic(&self, topic: &str) -> Arc<TopicMetrics> {
        self.topics.topic(topic)
    }

    /// The counters of a topic that was counted so far.
    pub fn known_topic(&self, topic: &str) -> Option<Arc<TopicMetrics>> {
        self.topics.known(topic)
    }

    /// Every topic that took in a message, with its counters.
    pub fn written_topics(&self) -> Vec<(String, Arc<TopicMetrics>)> {
        self.topics.written()
    }

    /// Forgets a deleted topic, so that its label is free for another one.
    pub fn forget_topic(&self, topic: &str) {
        self.topics.forget(topic);
    }

    /// The counters of a request code; it has a row once it came.
    pub fn request(&self, code: i32) -> &CodeMetrics {
        self.codes.get(code)
    }

    /// Counts an answer with a code other than success.
    pub fn error_response(&self, code: i32) {
        if let Some(counter) = self.response_codes.read().get(&code) {
            counter.inc();
            return;
        }
        let mut codes = self.response_codes.write();
        let label = if codes.len() < MAX_RESPONSE_CODES {
            code.to_string()
        } else {
            "other".to_owned()
        };
        let counter = self
            .responses
            .get_or_create_owned(&ResponseLabel { code: label });
        counter.inc();
        if codes.len() < MAX_RESPONSE_CODES {
            codes.insert(code, counter);
        }
    }

    /// Open connections of a listener (`broker`, `registry` …). Keep the handle.
    pub fn connections(&self, listener: &'static str) -> Gauge {
        self.connections
            .get_or_create_owned(&NameLabel { name: listener })
    }

    /// Connections accepted by a listener so far. Keep the handle.
    pub fn connections_opened(&self, listener: &'static str) -> Counter {
        self.connections_opened
            .get_or_create_owned(&NameLabel { name: listener })
    }

    /// Connections closed by this node for a reason (`idle`, `frame_deadline` …).
    pub fn connections_closed(&self, reason: &'static str) -> Counter {
        self.connections_closed
            .get_or_create_owned(&NameLabel { name: reason })
    }

    /// Length of an internal queue (`inflight_bytes`, `parked_pulls` …). Keep the handle.
    pub fn queue_length(&self, queue: &'static str) -> Gauge {
        self.queue_lengths
            .get_or_create_owned(&NameLabel { name: queue })
    }

    /// Refused input of a kind (`frame_length`, `header_json` …; reliability §8).
    pub fn bad_input(&self, kind: &'static str) -> Counter {
        self.bad_input
            .get_or_create_owned(&NameLabel { name: kind })
    }

    /// Raft figures of a shard replica. Keep the handle.
    pub fn shard(&self, shard: &str) -> ShardMetrics {
        self.shards.create(shard)
    }

    /// Figures of a shard's quota, by the name of its setting.
    pub fn quota(&self, shard: &str, name: &'static str) -> QuotaMetrics {
        self.shards.quota(shard, name)
    }

    /// Entries that the replica of a shard on a node is behind.
    pub fn replica_lag(&self, shard: &str, node: u64) -> Gauge {
        let label = ReplicaLabel {
            shard: label_text(shard),
            node,
        };
        self.shards.lag.get_or_create_owned(&label)
    }

    /// Bytes a replica holds of a snapshot that is on its way to it, and of how many.
    pub fn snapshot_progress(&self, shard: &str, node: u64) -> (Gauge, Gauge) {
        let label = ReplicaLabel {
            shard: label_text(shard),
            node,
        };
        let shards = &self.shards;
        (
            shards.snapshot_sent.get_or_create_owned(&label),
            shards.snapshot_len.get_or_create_owned(&label),
        )
    }

    /// 1 while the link to a node is up.
    pub fn peer_link(&self, node: u64) -> Gauge {
        self.shards.links.get_or_create_owned(&PeerLabel { node })
    }

    /// Settings in which a node differs from this one.
    pub fn settings_differ(&self, node: u64) -> Gauge {
        let label = PeerLabel { node };
        self.shards.settings_differ.get_or_create_owned(&label)
    }

    /// The page, in the OpenMetrics text format ([`CONTENT_TYPE`]), always in the same order.
    pub fn encode(&self) -> String {
        let mut page = String::with_capacity(16 * 1024);
        // Writing to a String cannot fail.
        let _ = text::encode(&mut page, &self.registry);
        in_order(&page)
    }
}

/// A label value that cannot leave its quotes.
pub(super) fn label_text(text: &str) -> String {
    let legal = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '\\');
    text.chars()
        .take(255)
        .map(|c| if legal(c) { c } else { '_' })
        .collect()
}

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
