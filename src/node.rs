//! Wiring of one node: opens the store, restores the shard, starts actors and gateway in order,
//! and stops them in the reverse order. Also the embedder's door: [`Broker`].

use crate::actors::group::{GroupLimits, Groups};
use crate::actors::registry::core::{RegistryCore, RegistryLimits};
use crate::actors::registry::kv::KvTable;
use crate::actors::registry::Registry;
use crate::actors::shard::start::{start_shard, RunningShard, StartShard, StartShardError};
use crate::actors::shard::ShardHandle;
use crate::actors::sinks::Sinks;
use crate::config::Config;
pub use crate::gateway::Listening;
use crate::gateway::{BrokerSide, Gateway, GatewayDeps, GatewayError, GatewayLink};
use crate::model::command::MetaOp;
use crate::model::ShardId;
use crate::raft::RaftOptions;
use crate::routing::system::{startup_topics, BrokerTraits, TRACE};
use crate::storage::{RocksStore, StoreError, StoreOptions, StoreStats, WriterOptions};
use crate::telemetry::{Metrics, MetricsOptions};
use actix_rt::Arbiter;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The one shard a node holds today.
const SHARD: ShardId = ShardId(1);
const NODE: u64 = 1;
/// Longest wait for leadership at start: a single voter needs one write.
const LEAD_WITHIN: Duration = Duration::from_secs(30);
/// Requests under way get this long at a stop, of the 5 s a stop may take.
const DRAIN: Duration = Duration::from_secs(2);
/// One-way offset commits, which are gathered for 200 ms, reach the log within this time.
const COMMITS_WITHIN: Duration = Duration::from_millis(300);
const WATCH_EVERY: Duration = Duration::from_secs(1);

/// Why a node did not start. One clear line each.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("{0}")]
    Config(String),
    #[error("data directory {dir}: {error}")]
    Store { dir: String, error: StoreError },
    #[error(
        "data directory {dir}: the disk is nearly full ({used} % used, {free} bytes free); {hint}"
    )]
    DiskFull {
        dir: String,
        used: u64,
        free: u64,
        hint: &'static str,
    },
    #[error(transparent)]
    Shard(#[from] StartShardError),
    #[error("name server configuration: {0}")]
    Registry(String),
    #[error(transparent)]
    Gateway(#[from] GatewayError),
    #[error("the shard did not become writable: {0}")]
    NotServing(String),
    #[error("{0}")]
    Runtime(#[from] std::io::Error),
}

/// Builds a node that runs inside the caller's actix System.
#[derive(Debug, Clone, Default)]
pub struct BrokerBuilder {
    config: Config,
}

/// A running node: name server, broker and gateway, as the configured roles say. Owns no
/// process-wide state; stop it with [`Broker::stop`].
pub struct Broker {
    config: Arc<Config>,
    gateway: Option<Gateway>,
    shard: Option<RunningShard>,
    groups: Option<Groups>,
    registry: Option<Registry>,
    arbiters: Vec<Arbiter>,
    sinks: Sinks,
    metrics: Arc<Metrics>,
    watch: Option<tokio::task::JoinHandle<()>>,
}

impl BrokerBuilder {
    /// Uses this configuration instead of the defaults.
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Where everything is kept.
    pub fn data_dir(mut self, dir: impl Into<String>) -> Self {
        self.config.data_dir = dir.into();
        self
    }

    /// Starts the node. Must run inside an actix System; returns once clients can connect.
    pub async fn start(self) -> Result<Broker, StartError> {
        let config = Arc::new(self.config);
        let mut broker = Broker {
            metrics: Arc::new(Metrics::new(MetricsOptions {
                max_topics: config.metrics_max_topics as usize,
                request_codes: &crate::wire::remoting::code::request::all(),
            })),
            config: config.clone(),
            gateway: None,
            shard: None,
            groups: None,
            registry: None,
            arbiters: Vec::new(),
            sinks: Sinks::default(),
            watch: None,
        };
        match broker.start_parts(&config).await {
            Ok(()) => Ok(broker),
            Err(error) => {
                broker.stop().await;
                Err(error)
            }
        }
    }
}

impl Broker {
    /// A node with the default configuration: everything on loopback, data in `./data`.
    pub fn builder() -> BrokerBuilder {
        BrokerBuilder::default()
    }

    /// The shard: append, read, metadata. `None` on a node that is only a name server.
    pub fn shard(&self) -> Option<&ShardHandle> {
        self.shard.as_ref().map(|s| &s.handle)
    }
    /// Consumer groups and producers.
    pub fn groups(&self) -> Option<&Groups> {
        self.groups.as_ref()
    }
    /// The name server.
    pub fn registry(&self) -> Option<&Registry> {
        self.registry.as_ref()
    }
    /// Where answers to an embedder's own requests go.
    pub fn sinks(&self) -> &Sinks {
        &self.sinks
    }
    /// The node's metrics.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }
    /// Addresses as bound.
    pub fn listening(&self) -> Listening {
        self.gateway
            .as_ref()
            .map(Gateway::listening)
            .unwrap_or_default()
    }
    /// Why the node can do no more writes, once storage failed.
    pub fn failed(&self) -> Option<String> {
        self.shard()?.status().failed()
    }

    async fn start_parts(&mut self, config: &Arc<Config>) -> Result<(), StartError> {
        let dir = PathBuf::from(&config.data_dir);
        std::fs::create_dir_all(&dir)
            .map_err(|e| StartError::Config(format!("data directory {}: {e}", dir.display())))?;
        let link = GatewayLink::new();
        if config.roles.registry {
            let arbiter = Arbiter::new();
            self.registry = Some(start_registry(&dir, &arbiter)?);
            self.arbiters.push(arbiter);
        }
        let mut side = None;
        if config.roles.broker {
            let arbiter = Arbiter::new();
            let shard = self.start_shard(config, &arbiter).await?;
            let groups = Groups::new(
                shard.handle.clone(),
                arbiter.handle(),
                link.clone(),
                GroupLimits::default(),
            );
            self.arbiters.push(arbiter);
            side = Some(BrokerSide {
                shard: shard.handle.clone(),
                groups: groups.clone(),
            });
            self.groups = Some(groups);
            self.watch = Some(watch(&shard, config, self.metrics.clone()));
            self.shard = Some(shard);
        }
        let deps = GatewayDeps {
            config: config.clone(),
            broker: side,
            registry: self.registry.clone(),
            link,
            sinks: self.sinks.clone(),
            metrics: self.metrics.clone(),
        };
        self.gateway.insert(Gateway::start(deps)?).ready().await;
        Ok(())
    }

    async fn start_shard(
        &self,
        config: &Arc<Config>,
        arbiter: &Arbiter,
    ) -> Result<RunningShard, StartError> {
        let (config, sinks, arbiter) = (config.clone(), self.sinks.clone(), arbiter.handle());
        let begun = Instant::now();
        let task = tokio::task::spawn_blocking(move || {
            let store = open_store(&config)?;
            let shard = start_shard(store, shard_settings(&config), sinks, &arbiter)?;
            Ok::<_, StartError>((shard, config))
        });
        let (shard, config) = task.await.map_err(std::io::Error::other)??;
        while !shard.handle.status().serving() {
            if let Some(why) = shard.handle.status().failed() {
                return Err(StartError::NotServing(why));
            }
            if begun.elapsed() > LEAD_WITHIN {
                return Err(StartError::NotServing("no leader".into()));
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        create_system_topics(&shard.handle, &config).await?;
        let r = shard.recovery;
        tracing::info!(
            first = r.first,
            last = r.last,
            replayed = r.replayed,
            took_ms = begun.elapsed().as_millis() as u64,
            "shard ready"
        );
        Ok(shard)
    }

    /// Stops in order: no new requests, answers what is under way, finishes writes, flushes,
    /// closes the store. Returns within about 5 s.
    pub async fn stop(mut self) {
        if let Some(watch) = self.watch.take() {
            watch.abort();
        }
        let (gateway, shard) = (self.gateway.take(), self.shard.take());
        let arbiters = std::mem::take(&mut self.arbiters);
        let groups = self.groups.take();
        self.registry = None;
        let stopped = tokio::task::spawn_blocking(move || {
            if let Some(gateway) = gateway {
                gateway.stop(DRAIN);
            }
            if groups.is_some_and(|groups| groups.awake() > 0) {
                std::thread::sleep(COMMITS_WITHIN);
            }
            for arbiter in &arbiters {
                arbiter.stop();
            }
            for arbiter in arbiters {
                let _ = arbiter.join();
            }
            if let Some(shard) = shard {
                drop(shard.handle);
                shard.writer.stop();
            }
        });
        let _ = stopped.await;
        tracing::info!(data_dir = %self.config.data_dir, "stopped");
    }
}

fn start_registry(dir: &Path, arbiter: &Arbiter) -> Result<Registry, StartError> {
    let file = dir.join("kv-config.json");
    let text = match std::fs::read_to_string(&file) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(e) => return Err(StartError::Registry(e.to_string())),
    };
    let kv = KvTable::from_json(&text).map_err(StartError::Registry)?;
    let core = RegistryCore::new(kv, RegistryLimits::default(), false);
    let store = Box::new(move |text: &str| replace_file(&file, text).map_err(|e| e.to_string()));
    Ok(Registry::start(core, &arbiter.handle(), store))
}

/// Writes beside, syncs, renames, syncs the directory: the file is the old or the new one.
fn replace_file(file: &Path, text: &str) -> std::io::Result<()> {
    use std::io::Write;
    let beside = file.with_extension("new");
    let mut out = std::fs::File::create(&beside)?;
    out.write_all(text.as_bytes())?;
    out.sync_all()?;
    std::fs::rename(&beside, file)?;
    match file.parent() {
        Some(dir) => std::fs::File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

fn open_store(config: &Config) -> Result<RocksStore, StartError> {
    let dir = config.data_dir.clone();
    let options = StoreOptions {
        memtable_bytes: config.memtable_bytes as usize,
        block_cache_bytes: config.block_cache_bytes as usize,
        // Rarely written column families hold old WAL files: this bounds disk use and replay.
        max_wal_bytes: config.memtable_bytes.saturating_mul(3),
        ..StoreOptions::default()
    };
    let store = RocksStore::open(Path::new(&dir), options, &[SHARD]).map_err(|error| {
        StartError::Store {
            dir: dir.clone(),
            error,
        }
    })?;
    if let Ok((total, free)) = store.space() {
        if nearly_full(config, total, free) {
            return Err(StartError::DiskFull {
                dir,
                used: total.saturating_sub(free).saturating_mul(100) / total.max(1),
                free,
                hint: "free space or change disk_max_used_space_ratio or disk_min_free_bytes",
            });
        }
    }
    Ok(store)
}

fn nearly_full(config: &Config, total: u64, free: u64) -> bool {
    let used = total.saturating_sub(free).saturating_mul(100) / total.max(1);
    used >= u64::from(config.disk_max_used_space_ratio) || free < config.disk_min_free_bytes
}

fn shard_settings(config: &Config) -> StartShard {
    StartShard {
        shard: SHARD,
        raft: RaftOptions::single(NODE, u64::from(std::process::id())),
        policy: config.ack_policy(),
        segment_bytes: config.log_segment_bytes,
        retention_ms: i64::from(config.file_reserved_hours) * 3_600_000,
        retention_bytes: config.retention_bytes,
        tail_cache_bytes: config.tail_cache_bytes as usize,
        read_threads: 1,
        writer: WriterOptions {
            disk_path: Some(PathBuf::from(&config.data_dir)),
            sync_after: Duration::from_millis(config.flush_interval_ms),
            ..WriterOptions::default()
        },
    }
}

async fn create_system_topics(shard: &ShardHandle, config: &Config) -> Result<(), StartError> {
    let traits = BrokerTraits {
        cluster: &config.cluster_name,
        broker_name: &config.broker_name,
        auto_create: config.auto_create_topic_enable,
        trace_topic: config.trace_topic_enable.then_some(TRACE),
        delay_levels: config.delay_levels_ms().len() as u32,
    };
    let missing = startup_topics(&traits)
        .into_iter()
        .filter(|t| shard.meta().topic(&t.name).is_none());
    let mut told = Vec::new();
    for topic in missing {
        let (done, applied) = tokio::sync::oneshot::channel();
        let answer = Box::new(move |result| {
            let _ = done.send(result);
        });
        shard.propose(MetaOp::EnsureTopic(topic), answer);
        told.push(applied);
    }
    for applied in told {
        let result = applied
            .await
            .map_err(|_| StartError::NotServing("the shard stopped".into()))?;
        result.map_err(|why| StartError::NotServing(why.to_string()))?;
    }
    Ok(())
}

/// Copies the store's and raft's figures into the metrics, and guards the disk.
fn watch(
    shard: &RunningShard,
    config: &Arc<Config>,
    metrics: Arc<Metrics>,
) -> tokio::task::JoinHandle<()> {
    let (handle, stats, config) = (
        shard.handle.clone(),
        shard.writer.stats().clone(),
        config.clone(),
    );
    let raft = metrics.shard(&config.broker_name);
    tokio::task::spawn_local(async move {
        let mut ticks = tokio::time::interval(WATCH_EVERY);
        loop {
            ticks.tick().await;
            copy_stats(&stats, &metrics);
            metrics
                .store
                .tail_cache_bytes
                .set(handle.tail_bytes() as i64);
            metrics
                .queue_length("active_queues")
                .set(handle.active_queues() as i64);
            let status = handle.status();
            raft.term.set(status.term() as i64);
            raft.commit.set(status.committed() as i64);
            raft.applied.set(status.applied() as i64);
            raft.leader.set(i64::from(status.serving()));
            let (total, free) = (
                stats.disk_total.load(Ordering::Relaxed),
                stats.disk_free.load(Ordering::Relaxed),
            );
            let full = total > 0 && nearly_full(&config, total, free);
            if status.set_disk_full(full) {
                tracing::warn!(
                    full,
                    free,
                    "disk space: producers are refused while it is nearly full"
                );
            }
        }
    })
}

fn copy_stats(stats: &StoreStats, metrics: &Metrics) {
    let m = &metrics.store;
    let up = |counter: &crate::telemetry::Counter, now: u64| {
        counter.inc_by(now.saturating_sub(counter.get()));
    };
    up(&m.entries_appended, stats.entries.load(Ordering::Relaxed));
    up(&m.bytes_appended, stats.bytes.load(Ordering::Relaxed));
    up(&m.writes, stats.writes.load(Ordering::Relaxed));
    up(&m.syncs, stats.syncs.load(Ordering::Relaxed));
    m.disk_used_percent
        .set((stats.disk_used_ratio() * 100.0) as i64);
}

/// Runs a node until SIGTERM or SIGINT, or until its storage failed. `ready` is told the node
/// once clients can connect.
pub fn run_server(
    config: Config,
    ready: impl FnOnce(&Config, Listening),
) -> Result<(), StartError> {
    use tokio::signal::unix::{signal, SignalKind};
    let system = actix_rt::System::new();
    system.block_on(async move {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tracing::info!(version = env!("CARGO_PKG_VERSION"), data_dir = %config.data_dir, "starting");
        let broker = Broker::builder().config(config.clone()).start().await?;
        ready(&config, broker.listening());
        let mut check = tokio::time::interval(WATCH_EVERY);
        let failed = loop {
            tokio::select! {
                _ = terminate.recv() => break None,
                _ = interrupt.recv() => break None,
                _ = check.tick() => if let Some(why) = broker.failed() { break Some(why) },
            }
        };
        tracing::info!("stopping");
        broker.stop().await;
        match failed {
            Some(why) => Err(StartError::NotServing(why)),
            None => Ok(()),
        }
    })
}
