//! Wiring of one node: opens the store, restores the shard, starts actors and gateway in order,
//! and stops them in the reverse order. Also the embedder's door: [`Broker`].

mod cluster;
mod identity;

use crate::actors::group::{GroupLimits, Groups};
use crate::actors::link::{NoReplicas, ReplicaLink};
use crate::actors::registry::core::{RegistryCore, RegistryLimits};
use crate::actors::registry::kv::KvTable;
use crate::actors::registry::Registry;
use crate::actors::shard::start::{start_shards, RunningShards, StartShard, StartShardError};
use crate::actors::shard::ShardHandle;
use crate::actors::sinks::Sinks;
use crate::config::{ClusterShard, Config};
pub use crate::gateway::Listening;
use crate::gateway::{BrokerSide, ForwardDeps, Gateway, GatewayDeps, GatewayError, GatewayLink};
use crate::model::command::MetaOp;
use crate::model::ShardId;
use crate::raft::RaftOptions;
use crate::routing::system::{startup_topics, BrokerTraits, TRACE};
use crate::storage::{RocksStore, StoreError, StoreOptions, StoreStats, WriterOptions};
use crate::telemetry::{Metrics, MetricsOptions};
use actix_rt::{Arbiter, ArbiterHandle};
use cluster::{ClusterNode, Links};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The one shard of a single node.
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
    /// The node's own first; in a cluster then one for each shard.
    gateways: Vec<Gateway>,
    shards: Option<RunningShards>,
    groups: Vec<Groups>,
    cluster: Option<Arc<ClusterNode>>,
    registry: Option<Registry>,
    arbiters: Vec<Arbiter>,
    sinks: Sinks,
    metrics: Arc<Metrics>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
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
            gateways: Vec::new(),
            shards: None,
            groups: Vec::new(),
            cluster: None,
            registry: None,
            arbiters: Vec::new(),
            sinks: Sinks::default(),
            tasks: Vec::new(),
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

    /// The shard: append, read, metadata; the first one in a cluster. `None` on a node that is
    /// only a name server.
    pub fn shard(&self) -> Option<&ShardHandle> {
        self.shards().next()
    }
    /// All shards that this node has a replica of.
    pub fn shards(&self) -> impl Iterator<Item = &ShardHandle> {
        let all = self.shards.iter().flat_map(|s| &s.shards);
        all.map(|(handle, _)| handle)
    }
    /// Consumer groups and producers of [`Broker::shard`].
    pub fn groups(&self) -> Option<&Groups> {
        self.groups.first()
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
        let mut all = self.gateways.iter().map(Gateway::listening);
        let first = all.next().unwrap_or_default();
        all.fold(first, |sum, one| Listening {
            broker: sum.broker.or(one.broker),
            vip: sum.vip.or(one.vip),
            ..sum
        })
    }
    /// Why the node can do no more writes, once storage failed.
    pub fn failed(&self) -> Option<String> {
        self.shards().find_map(|shard| shard.status().failed())
    }

    async fn start_parts(&mut self, config: &Arc<Config>) -> Result<(), StartError> {
        let dir = PathBuf::from(&config.data_dir);
        std::fs::create_dir_all(&dir)
            .map_err(|e| StartError::Config(format!("data directory {}: {e}", dir.display())))?;
        if config.roles.registry {
            let arbiter = Arbiter::new();
            self.registry = Some(start_registry(&dir, &arbiter)?);
            self.arbiters.push(arbiter);
        }
        if config.is_cluster() {
            return self.start_cluster(config, &dir).await;
        }
        identity::refuse_cluster_data(&dir).map_err(StartError::Config)?;
        let link = GatewayLink::new();
        let mut side = None;
        if config.roles.broker {
            let arbiter = Arbiter::new();
            let raft = RaftOptions::single(NODE, u64::from(std::process::id()));
            let settings = shard_settings(config, SHARD, raft, 1);
            let one = vec![(settings, arbiter.handle())];
            let begun = Instant::now();
            let shards = self.open(config, one, Arc::new(NoReplicas)).await?;
            let shard = shards.shards[0].0.clone();
            let groups = self.add_groups(&shard, &arbiter, &link);
            self.arbiters.push(arbiter);
            self.shards = Some(shards);
            serve_alone(&shard, config, begun).await?;
            side = Some(BrokerSide {
                shard: shard.clone(),
                groups,
                clustered: false,
            });
            let named = vec![(config.broker_name.clone(), shard)];
            self.watch_store(config, named);
        }
        let deps = GatewayDeps {
            broker: side,
            registry: self.registry.clone(),
            ..self.gateway_deps(config.clone(), link)
        };
        self.gateways.push(Gateway::start(deps)?);
        self.gateways_ready().await;
        Ok(())
    }

    /// A node of a cluster: a gateway for the node itself, then one for each of its shards.
    async fn start_cluster(&mut self, config: &Arc<Config>, dir: &Path) -> Result<(), StartError> {
        let cluster = config.cluster();
        let cluster = cluster.ok_or_else(|| StartError::Config("peers are not valid".into()))?;
        let life =
            identity::claim(dir, &config.cluster_id, config.node_id).map_err(StartError::Config)?;
        let mine: Vec<ClusterShard> = cluster
            .shards
            .iter()
            .filter(|s| s.nodes.contains(&config.node_id))
            .cloned()
            .collect();
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        for _ in 0..mine.len().min(threads) {
            self.arbiters.push(Arbiter::new());
        }
        let arbiters: Vec<_> = self.arbiters.iter().map(Arbiter::handle).collect();
        // The registry's is not for shards.
        let arbiters = &arbiters[usize::from(self.registry.is_some())..];
        let place = |at: usize| arbiters[at % arbiters.len()].clone();
        let starting = mine.iter().enumerate().map(|(at, shard)| {
            let raft = cluster_raft(config, shard, life);
            (
                shard_settings(config, ShardId(shard.id), raft, mine.len()),
                place(at),
            )
        });
        let links = Arc::new(Links::default());
        let shards = self.open(config, starting.collect(), links.clone()).await?;
        let handles: Vec<ShardHandle> = shards.shards.iter().map(|(h, _)| h.clone()).collect();
        self.shards = Some(shards);
        let placed = mine.iter().cloned().zip(handles.iter().cloned()).collect();
        let node = ClusterNode::start(config.clone(), cluster, placed, &links)
            .map_err(StartError::Config)?;
        self.cluster = Some(node.clone());

        let own = Config {
            roles: crate::config::Roles {
                broker: false,
                ..config.roles
            },
            ..(**config).clone()
        };
        let deps = GatewayDeps {
            registry: self.registry.clone(),
            node: Some(node.clone()),
            ..self.gateway_deps(Arc::new(own), GatewayLink::new())
        };
        self.gateways.push(Gateway::start(deps)?);
        let arbiter_at = usize::from(self.registry.is_some());
        for (at, shard) in mine.iter().enumerate() {
            let handle = handles[at].clone();
            let link = GatewayLink::new();
            let of_shard = &self.arbiters[arbiter_at + at % arbiters.len()];
            let groups = Groups::new(
                handle.clone(),
                of_shard.handle(),
                link.clone(),
                GroupLimits::default(),
            );
            self.groups.push(groups.clone());
            let forget = groups.clone();
            let hook = Box::new(move || forget.reset());
            handle.status().before_change(hook);
            let of_shard = Arc::new(shard_config(config, shard, mine.len()));
            self.tasks.push(tokio::task::spawn_local(keep_system_topics(
                handle.clone(),
                of_shard.clone(),
            )));
            let deps = GatewayDeps {
                broker: Some(BrokerSide {
                    shard: handle.clone(),
                    groups,
                    clustered: true,
                }),
                registry: self.registry.clone(),
                forward: Some(ForwardDeps {
                    peers: node.peers(),
                    shard: shard.id,
                    node: config.node_id,
                    status: handle.status().clone(),
                }),
                ..self.gateway_deps(of_shard, link)
            };
            let gateway = Gateway::start(deps)?;
            if let Some(input) = gateway.forward_input() {
                node.set_forward(shard.id, input);
            }
            self.gateways.push(gateway);
        }
        let named = mine.iter().map(|s| s.name.clone()).zip(handles).collect();
        self.watch_store(config, named);
        let watch = node.watch(self.metrics.clone());
        self.tasks.push(tokio::task::spawn_local(watch));
        self.gateways_ready().await;
        Ok(())
    }

    fn gateway_deps(&self, config: Arc<Config>, link: Arc<GatewayLink>) -> GatewayDeps {
        GatewayDeps {
            config,
            broker: None,
            registry: None,
            forward: None,
            node: None,
            thread_base: self.gateways.iter().map(Gateway::threads).sum(),
            link,
            sinks: self.sinks.clone(),
            metrics: self.metrics.clone(),
        }
    }

    async fn gateways_ready(&mut self) {
        for gateway in &mut self.gateways {
            gateway.ready().await;
        }
    }

    fn add_groups(
        &mut self,
        shard: &ShardHandle,
        arbiter: &Arbiter,
        link: &Arc<GatewayLink>,
    ) -> Groups {
        let limits = GroupLimits::default();
        let groups = Groups::new(shard.clone(), arbiter.handle(), link.clone(), limits);
        self.groups.push(groups.clone());
        groups
    }

    /// Opens the store and starts its shards.
    async fn open(
        &self,
        config: &Arc<Config>,
        shards: Vec<(StartShard, ArbiterHandle)>,
        replicas: Arc<dyn ReplicaLink>,
    ) -> Result<RunningShards, StartError> {
        let (config, sinks) = (config.clone(), self.sinks.clone());
        let begun = Instant::now();
        let task = tokio::task::spawn_blocking(move || {
            let ids: Vec<ShardId> = shards.iter().map(|(s, _)| s.shard).collect();
            let store = open_store(&config, &ids)?;
            let writer = WriterOptions {
                disk_path: Some(PathBuf::from(&config.data_dir)),
                sync_after: Duration::from_millis(config.flush_interval_ms),
                ..WriterOptions::default()
            };
            Ok::<_, StartError>(start_shards(store, shards, writer, 1, sinks, replicas)?)
        });
        let shards = task.await.map_err(std::io::Error::other)??;
        for (handle, r) in &shards.shards {
            tracing::info!(
                shard = handle.shard().0,
                first = r.first,
                last = r.last,
                replayed = r.replayed,
                took_ms = begun.elapsed().as_millis() as u64,
                "shard restored"
            );
        }
        Ok(shards)
    }

    fn watch_store(&mut self, config: &Arc<Config>, shards: Vec<(String, ShardHandle)>) {
        if let Some(running) = &self.shards {
            let stats = running.writer.stats().clone();
            let watch = watch(shards, stats, config.clone(), self.metrics.clone());
            self.tasks.push(tokio::task::spawn_local(watch));
        }
    }

    /// Stops in order: leadership is handed over, no new requests, what is under way is answered,
    /// writes are finished, the store is closed. Returns within about 5 s.
    pub async fn stop(mut self) {
        if let Some(cluster) = &self.cluster {
            cluster.hand_over().await;
        }
        for task in self.tasks.drain(..) {
            task.abort();
        }
        let gateways = std::mem::take(&mut self.gateways);
        let (shards, cluster) = (self.shards.take(), self.cluster.take());
        let arbiters = std::mem::take(&mut self.arbiters);
        let groups = std::mem::take(&mut self.groups);
        self.registry = None;
        let stopped = tokio::task::spawn_blocking(move || {
            // All at once: each waits for its own clients.
            let stopping: Vec<_> = gateways
                .into_iter()
                .map(|gateway| std::thread::spawn(move || gateway.stop(DRAIN)))
                .collect();
            for thread in stopping {
                let _ = thread.join();
            }
            if groups.iter().any(|groups| groups.awake() > 0) {
                std::thread::sleep(COMMITS_WITHIN);
            }
            if let Some(cluster) = &cluster {
                cluster.stop();
            }
            for arbiter in &arbiters {
                arbiter.stop();
            }
            for arbiter in arbiters {
                let _ = arbiter.join();
            }
            if let Some(shards) = shards {
                drop(shards.shards);
                shards.writer.stop();
            }
        });
        let _ = stopped.await;
        tracing::info!(data_dir = %self.config.data_dir, "stopped");
    }
}

/// A single voter leads after one write; clients are let in then.
async fn serve_alone(
    shard: &ShardHandle,
    config: &Config,
    begun: Instant,
) -> Result<(), StartError> {
    while !shard.status().serving() {
        if let Some(why) = shard.status().failed() {
            return Err(StartError::NotServing(why));
        }
        if begun.elapsed() > LEAD_WITHIN {
            return Err(StartError::NotServing("no leader".into()));
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    create_system_topics(shard, config).await?;
    tracing::info!(took_ms = begun.elapsed().as_millis() as u64, "shard ready");
    Ok(())
}

/// Creates missing system topics each time this node begins to lead the shard.
async fn keep_system_topics(shard: ShardHandle, config: Arc<Config>) {
    let mut lead = shard.status().lead();
    loop {
        if lead.borrow_and_update().serving {
            if let Err(error) = create_system_topics(&shard, &config).await {
                tracing::warn!(%error, shard = %config.broker_name, "system topics");
            }
        }
        if lead.changed().await.is_err() {
            return;
        }
    }
}

/// What raft of a cluster's shard is started with.
fn cluster_raft(config: &Config, shard: &ClusterShard, life: u64) -> RaftOptions {
    let (_, heartbeat_ticks, election_ticks) = config.raft_ticks();
    let now = std::time::SystemTime::now();
    let nanos = now
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| d.as_nanos() as u64);
    let seed = nanos ^ u64::from(std::process::id()).rotate_left(32) ^ u64::from(shard.id);
    RaftOptions {
        election_ticks,
        heartbeat_ticks,
        life,
        ..RaftOptions::group(config.node_id, shard.nodes.clone(), seed)
    }
}

/// The configuration of one shard's gateway.
fn shard_config(config: &Config, shard: &ClusterShard, shards: usize) -> Config {
    let host = match config.bind_host.as_str() {
        h if h.eq_ignore_ascii_case("localhost") => "127.0.0.1",
        h => h,
    };
    Config {
        broker_name: shard.name.clone(),
        listen_port: shard.port,
        broker_ip: match config.broker_ip.as_str() {
            "" => host.to_owned(),
            ip => ip.to_owned(),
        },
        http_enable: false,
        roles: crate::config::Roles {
            registry: false,
            broker: true,
        },
        max_inflight_bytes: (config.max_inflight_bytes / shards as u64)
            .max(2 * u64::from(config.max_message_size)),
        ..config.clone()
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

fn open_store(config: &Config, shards: &[ShardId]) -> Result<RocksStore, StartError> {
    let dir = config.data_dir.clone();
    let options = StoreOptions {
        memtable_bytes: config.memtable_bytes as usize,
        block_cache_bytes: config.block_cache_bytes as usize,
        // Rarely written column families hold old WAL files: this bounds disk use and replay.
        max_wal_bytes: config.memtable_bytes.saturating_mul(3),
        direct_io: config.direct_io,
        ..StoreOptions::default()
    };
    let store =
        RocksStore::open(Path::new(&dir), options, shards).map_err(|error| StartError::Store {
            dir: dir.clone(),
            error,
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

/// Settings of one of `count` shards, which share the node's memory.
fn shard_settings(config: &Config, shard: ShardId, raft: RaftOptions, count: usize) -> StartShard {
    StartShard {
        shard,
        raft,
        policy: config.ack_policy(),
        segment_bytes: config.log_segment_bytes,
        retention_ms: i64::from(config.file_reserved_hours) * 3_600_000,
        retention_bytes: config.retention_bytes / count as u64,
        tail_cache_bytes: config.tail_cache_bytes as usize / count,
        read_threads: 1,
        writer: WriterOptions::default(),
        tick: Duration::from_millis(config.raft_ticks().0),
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

/// Copies the store's and raft's figures into the metrics, and guards the disk, until dropped.
async fn watch(
    shards: Vec<(String, ShardHandle)>,
    stats: Arc<StoreStats>,
    config: Arc<Config>,
    metrics: Arc<Metrics>,
) {
    let mut ticks = tokio::time::interval(WATCH_EVERY);
    loop {
        ticks.tick().await;
        copy_stats(&stats, &metrics);
        let (mut tail, mut active) = (0, 0);
        let (total, free) = (
            stats.disk_total.load(Ordering::Relaxed),
            stats.disk_free.load(Ordering::Relaxed),
        );
        let full = total > 0 && nearly_full(&config, total, free);
        for (name, handle) in &shards {
            let raft = metrics.shard(name);
            tail += handle.tail_bytes();
            active += handle.active_queues();
            let status = handle.status();
            raft.term.set(status.term() as i64);
            raft.commit.set(status.committed() as i64);
            raft.applied.set(status.applied() as i64);
            raft.leader.set(i64::from(status.serving()));
            if status.set_disk_full(full) {
                tracing::warn!(
                    full,
                    free,
                    shard = %name,
                    "disk space: producers are refused while it is nearly full"
                );
            }
        }
        metrics.store.tail_cache_bytes.set(tail as i64);
        metrics.queue_length("active_queues").set(active as i64);
    }
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
