//! What all gateway threads have in common.

use super::announced::{self, Announced};
use super::forward::Forward;
use super::inbox::GatewayLink;
use super::limits::{BytePermits, ConnectionLimits};
use super::membership::Membership;
use super::operator::{Doing, Operation};
use super::rates::Rates;
use super::read_pool::ReadHandle;
use super::traffic::{Amount, Figure, Of, Traffic, Window};
use crate::actors::clock::boot_ms;
use crate::actors::group::Groups;
use crate::actors::registry::Registry;
use crate::actors::shard::handle::ProposalResult;
use crate::actors::shard::ShardHandle;
use crate::config::Config;
use crate::model::command::MetaOp;
use crate::model::outcome::Refusal;
use crate::model::quota::QuotaKind;
use crate::model::topic::{TopicConfig, PERM_READ, PERM_WRITE};
use crate::routing::delay::DelayLevels;
use crate::telemetry::{Metrics, RateLimited};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::Notify;

/// The broker half of a node: its shard and the groups on it.
#[derive(Clone)]
pub struct BrokerSide {
    pub shard: ShardHandle,
    pub groups: Groups,
    /// Other nodes have replicas of the shard.
    pub clustered: bool,
}

impl BrokerSide {
    /// Whether a quota of the shard leaves room for `more`, by what is applied.
    pub fn room(&self, kind: QuotaKind, more: u64) -> Result<(), Refusal> {
        let status = self.shard.status();
        let room = status.room(kind, more);
        Ok(room.inspect_err(|why| status.quota_refused(why.kind))?)
    }
}

/// See the module text.
pub struct Shared {
    pub config: Arc<Config>,
    /// `None` on a node that is only a name server.
    pub broker: Option<BrokerSide>,
    /// `None` on a node that is only a broker.
    pub registry: Option<Registry>,
    /// The way to the leader, in a cluster.
    pub forward: Option<Arc<Forward>>,
    /// The node as a whole, for the pages.
    pub node: Option<Arc<dyn NodeView>>,
    /// The stored log of a single node.
    pub log: Option<Arc<dyn LogView>>,
    pub link: Arc<GatewayLink>,
    pub metrics: Arc<Metrics>,
    pub reads: ReadHandle,
    pub broker_name: String,
    pub permits: BytePermits,
    pub connections: Arc<ConnectionLimits>,
    pub levels: DelayLevels,
    /// Who may register as a broker of this cluster, where its nodes share a secret.
    pub membership: Option<Membership>,
    /// The configured address to advertise.
    pub broker_ip: Option<IpAddr>,
    /// The broker's port as bound.
    pub broker_port: AtomicU16,
    pub started_ms: i64,
    /// Totals and averages.
    pub rates: Rates,
    /// What topics took in and groups got.
    pub traffic: Traffic,
    /// Rung when the gateway begins to stop.
    pub stop_bell: Notify,
    /// Rung for everybody who waits when a heartbeat was taken in.
    pub heard: Notify,
    /// Topics or groups changed: register with the name servers at once.
    pub meta_changed: Notify,
    /// What the name servers know of this broker.
    pub announced: Announced,
    stopping: AtomicBool,
    bad_input_log: RateLimited,
    error_log: RateLimited,
}

/// What [`Shared::new`] is made of.
pub struct SharedParts {
    pub config: Arc<Config>,
    pub broker: Option<BrokerSide>,
    pub registry: Option<Registry>,
    pub forward: Option<Arc<Forward>>,
    pub node: Option<Arc<dyn NodeView>>,
    /// The stored log of a single node.
    pub log: Option<Arc<dyn LogView>>,
    pub link: Arc<GatewayLink>,
    pub metrics: Arc<Metrics>,
    pub reads: ReadHandle,
    /// Those of the node's other gateways.
    pub connections: Option<Arc<ConnectionLimits>>,
}

/// What the pages tell of a node with several shards.
pub trait NodeView: Send + Sync {
    /// Why it does not serve clients; `None` when it does.
    fn not_ready(&self) -> Option<String>;
    /// For some time it has had no leader in any of its shards, or is one that no majority confirms:
    /// a majority cannot be reached, and what its name server knows of leaders is old.
    fn is_cut_off(&self) -> bool;
    /// Nodes, shards, roles and positions as JSON.
    fn cluster(&self) -> String;
    /// Does what an operator asks. The caller has been checked.
    fn operate(self: Arc<Self>, operation: Operation) -> Doing;
}

/// The stored log of a node without replicas.
pub trait LogView: Send + Sync {
    /// What is corrupt in it, and where its scrub is, as `/cluster` shows both: `damage`, `scrub`.
    fn figures(&self) -> (serde_json::Value, serde_json::Value);
    /// Reads all of it at once; the shards named must be here. What it does, or why not.
    fn scrub(&self, shards: &[String]) -> Result<String, String>;
}

impl Shared {
    /// Everything at its beginning; the broker's port is set once it is bound.
    pub fn new(parts: SharedParts) -> Self {
        let config = parts.config;
        let name_servers = config.namesrv_addrs().len() + usize::from(parts.registry.is_some());
        Self {
            announced: Announced::new(name_servers),
            broker: parts.broker,
            registry: parts.registry,
            forward: parts.forward,
            node: parts.node,
            log: parts.log,
            link: parts.link,
            metrics: parts.metrics,
            reads: parts.reads,
            broker_name: config.broker_name.clone(),
            permits: BytePermits::new(config.max_inflight_bytes),
            connections: parts.connections.unwrap_or_else(|| {
                let per_address = config.connections_per_address();
                Arc::new(ConnectionLimits::new(config.max_connections, per_address))
            }),
            levels: DelayLevels::parse(&config.message_delay_level).unwrap_or_default(),
            membership: Membership::of(&config),
            broker_ip: config.broker_ip.parse().ok(),
            broker_port: AtomicU16::new(config.listen_port),
            started_ms: now_ms(),
            rates: Rates::default(),
            traffic: Traffic::default(),
            stop_bell: Notify::new(),
            heard: Notify::new(),
            meta_changed: Notify::new(),
            stopping: AtomicBool::new(false),
            bad_input_log: RateLimited::new(5, 10_000),
            error_log: RateLimited::new(5, 10_000),
            config,
        }
    }

    /// The broker's port as bound.
    pub fn port(&self) -> u16 {
        self.broker_port.load(Ordering::Relaxed)
    }

    /// The address stamped into records and message ids for a client that reached us at `local`.
    pub fn store_host(&self, local: IpAddr) -> SocketAddr {
        SocketAddr::new(self.broker_ip.unwrap_or(local.to_canonical()), self.port())
    }

    /// No new connections and requests.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }
    pub(super) fn set_stopping(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.stop_bell.notify_one();
        self.meta_changed.notify_one();
    }
    /// Producers may send at all.
    pub fn broker_writable(&self) -> bool {
        self.config.broker_permission & PERM_WRITE != 0
    }
    /// Consumers may pull at all.
    pub fn broker_readable(&self) -> bool {
        self.config.broker_permission & PERM_READ != 0
    }

    /// Counts refused input and logs some of it.
    pub fn bad_input(&self, kind: &'static str, peer: SocketAddr, what: &dyn std::fmt::Display) {
        self.metrics.bad_input(kind).inc();
        if let Some(left_out) = self.bad_input_log.allow(now_ms().unsigned_abs()) {
            let what = what.to_string();
            tracing::warn!(kind, %peer, left_out, "refused input: {}", crate::telemetry::Escaped(&what));
        }
    }

    /// Size and free part of the disk that holds the data, in the words of stock brokers.
    pub fn disk_capacity(&self) -> String {
        let dir = std::path::Path::new(&self.config.data_dir);
        let total = fs4::total_space(dir).unwrap_or(0);
        let free = fs4::available_space(dir).unwrap_or(0);
        format!("Total : {}, Free : {}.", human(total), human(free))
    }

    /// Logs some of the errors that may come in any number.
    pub fn hot_error(&self, what: &'static str, error: &dyn std::fmt::Display) {
        if let Some(left_out) = self.error_log.allow(now_ms().unsigned_abs()) {
            tracing::error!(%error, left_out, "{what}");
        }
    }

    /// Takes samples of what was counted; call it once a second. `now_ms`: a clock that only rises.
    pub fn sample(&self, now_ms: i64) {
        self.rates.sample(now_ms);
        if self.traffic.is_due(now_ms) {
            let topics = self.metrics.written_topics().into_iter();
            let amounts = topics.map(|(topic, counted)| (topic, Amount::stored(&counted)));
            self.traffic.sample(now_ms, amounts.collect());
        }
    }

    /// What producers put into a topic; `None` when they put nothing.
    pub fn topic_put(&self, topic: &str, window: Window, of: Of) -> Option<Figure> {
        let counted = self.metrics.known_topic(topic)?;
        self.traffic
            .put(topic, window, boot_ms(), Amount::stored(&counted), of)
    }

    /// Proposes a change of topics or groups; once applied, the name servers are told.
    pub async fn change(&self, broker: &BrokerSide, op: MetaOp) -> ProposalResult {
        let result = broker.shard.command(op).await;
        if result.is_ok() {
            self.meta_changed.notify_one();
        }
        result
    }

    /// Waits until every name server that can be reached knows the topics that are there now: a client that asks
    /// one of them next is told of what an operator changed.
    pub async fn announce(&self, broker: &BrokerSide) {
        let version = broker.shard.meta().version();
        self.announced.wait(version, announced::PATIENCE).await;
    }

    /// Creates a topic unless it is there.
    pub async fn ensure_topic(&self, broker: &BrokerSide, topic: TopicConfig) -> ProposalResult {
        if broker.shard.meta().topic(&topic.name).is_some() {
            return Ok(0);
        }
        self.change(broker, MetaOp::EnsureTopic(topic)).await
    }
}

/// A size in binary units with one decimal.
fn human(bytes: u64) -> String {
    let mut size = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB", "TiB", "PiB"] {
        if size < 1_024.0 {
            return format!("{size:.1} {unit}");
        }
        size /= 1_024.0;
    }
    format!("{size:.1} EiB")
}

/// The time of the shard's node, ms since 1970: whatever is due some time later is counted from it.
pub fn shard_ms(shared: &Shared) -> i64 {
    let broker = shared.broker.as_ref();
    broker.map_or_else(now_ms, |broker| broker.shard.clock().now_ms())
}

/// Wall clock, ms since 1970: for people and for what needs no right clock.
pub fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
}
