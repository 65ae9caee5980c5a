//! Wiring of one node: opens the store, restores the shard, starts actors and gateway in order,
//! and stops them in the reverse order. Also the embedder's door: [`Broker`].

mod cluster;
mod descriptors;
mod figures;
mod homing;
mod identity;
mod members;
mod operate;
mod parts;
pub mod rescue;
mod scrub;
mod view;
mod words;

use crate::actors::clock::NodeClock;
use crate::actors::group::{GroupLimits, Groups};
use crate::actors::link::{NoReplicas, ReplicaLink};
use crate::actors::registry::core::{RegistryCore, RegistryLimits};
use crate::actors::registry::kv::KvTable;
use crate::actors::registry::Registry;
use crate::actors::shard::core::Quotas;
use crate::actors::shard::start::{start_shards, RunningShards, StartShard, StartShardError};
use crate::actors::shard::ShardHandle;
use crate::actors::sinks::Sinks;
use crate::config::{ClusterShard, Config};
use crate::gateway::{BrokerSide, ForwardDeps, Gateway, GatewayDeps, GatewayError};
use crate::gateway::{GatewayLink, Host};
pub use crate::gateway::{Listening, LogView};
use crate::model::command::MetaOp;
use crate::model::topic::TopicConfig;
use crate::model::ShardId;
use crate::raft::RaftOptions;
use crate::routing::system::{startup_topics, BrokerTraits};
use crate::storage::{RocksStore, StoreError, StoreOptions, StoreStats, WriterOptions};
use crate::telemetry::{Metrics, MetricsOptions};
use actix_rt::{Arbiter, ArbiterHandle};
use cluster::{ClusterNode, Links};
use descriptors::Descriptors;
use parts::*;
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
    #[error(transparent)]
    Shard(#[from] StartShardError),
    #[error("name server configuration: {0}")]
    Registry(String),
    /// A single node's data.
    #[error("{0}; nothing was changed: `troupe cluster rescue` tells what can be kept")]
    Damaged(Box<StartError>),
    #[error(transparent)]
    Gateway(#[from] GatewayError),
    #[error("the shard did not become writable: {0}")]
    NotServing(String),
    #[error("{0}")]
    Runtime(#[from] std::io::Error),
}

impl StartError {
    /// What was written is not what is read.
    fn is_corrupt(&self) -> bool {
        match self {
            Self::Store { error, .. } => error.is_corrupt(),
            Self::Shard(StartShardError::Recover(_, error)) => error.is_corrupt(),
            _ => false,
        }
    }
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
    clock: Arc<NodeClock>,
    descriptors: Descriptors,
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
        let mut config = self.config;
        let descriptors = Descriptors::of_process(&config).map_err(StartError::Config)?;
        descriptors.log(&config);
        config.max_connections = config.max_connections.min(descriptors.connections);
        let config = Arc::new(config);
        let nodes = config.cluster().map_or(1, |cluster| cluster.nodes.len());
        let mut broker = Broker {
            metrics: Arc::new(Metrics::new(MetricsOptions {
                max_topics: config.metrics_max_topics as usize,
                request_codes: &crate::wire::remoting::code::request::all(),
            })),
            config: config.clone(),
            clock: NodeClock::new(nodes.saturating_sub(1)),
            descriptors,
            gateways: Vec::new(),
            shards: None,
            groups: Vec::new(),
            cluster: None,
            registry: None,
            arbiters: Vec::new(),
            sinks: Sinks::default(),
            tasks: Vec::new(),
        };
        descriptors.show(&broker.metrics.descriptors);
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
        self.misconfigured()
            .or_else(|| self.shards().find_map(|shard| shard.status().failed()))
    }

    fn misconfigured(&self) -> Option<String> {
        self.cluster.as_ref()?.stopped()
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
        let mut host = None;
        let mut log = None;
        if config.roles.broker {
            let arbiter = Arbiter::new();
            let raft = RaftOptions::single(NODE, u64::from(std::process::id()));
            let settings = shard_settings(config, SHARD, raft, 1, &config.broker_name);
            let one = vec![(settings, arbiter.handle())];
            let begun = Instant::now();
            let shards = self.open(config, one, Arc::new(NoReplicas)).await?;
            let shard = shards.shards[0].0.clone();
            let groups = self.add_groups(&shard, &arbiter, &link);
            host = Some(host_on(&arbiter));
            self.arbiters.push(arbiter);
            self.shards = Some(shards);
            serve_alone(&shard, config, begun).await?;
            side = Some(BrokerSide {
                shard: shard.clone(),
                groups,
                clustered: false,
            });
            let named = vec![(config.broker_name.clone(), shard)];
            let scrubs = self.watch_store(config, named);
            log = scrubs.map(|scrubs| scrubs as Arc<dyn LogView>);
        }
        let deps = GatewayDeps {
            broker: side,
            registry: self.registry.clone(),
            host,
            log,
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
        let claim = identity::claim(dir, config, cluster).map_err(StartError::Config)?;
        let (life, cluster) = (claim.life, claim.cluster);
        let names: Vec<&str> = cluster.shards.iter().map(|s| s.name.as_str()).collect();
        self.config = Arc::new(Config {
            shards: names.join(";"),
            ..(**config).clone()
        });
        let config = &self.config.clone();
        let known = members::known(dir, &cluster).map_err(StartError::Config)?;
        // Also those that have no replica here: they may get one.
        let mine: Vec<ClusterShard> = cluster.shards.clone();
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
                shard_settings(config, ShardId(shard.id), raft, mine.len(), &shard.name),
                place(at),
            )
        });
        let links = Arc::new(Links::default());
        let shards = self.open(config, starting.collect(), links.clone()).await?;
        let handles: Vec<ShardHandle> = shards.shards.iter().map(|(h, _)| h.clone()).collect();
        let found = mine.iter().zip(&shards.shards);
        let found = found.map(|(shard, (_, recovery))| (shard.name.as_str(), recovery));
        let checked = members::check(config.node_id, config.join, &known, found.clone());
        let unsure = found
            .zip(&mine)
            .filter(|((_, recovery), _)| recovery.unsure);
        let unsure = words::Unsure {
            shards: claim.unsure,
            members: unsure.map(|(_, shard)| shard.id).collect(),
        };
        let stats = shards.writer.stats().clone();
        self.shards = Some(shards);
        checked.map_err(StartError::Config)?;
        let placed = mine.iter().cloned().zip(handles.iter().cloned()).collect();
        let node = ClusterNode::start(
            config.clone(),
            cluster,
            placed,
            &links,
            stats,
            self.clock.clone(),
            unsure,
        )
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
            let host = host_on(of_shard);
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
                host: Some(host),
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
            log: None,
            thread_base: self.gateways.iter().map(Gateway::threads).sum(),
            link,
            sinks: self.sinks.clone(),
            metrics: self.metrics.clone(),
            connections: self.gateways.first().map(Gateway::connections),
            host: None,
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
        let clock = self.clock.clone();
        let max_open_files = self.descriptors.max_open_files;
        let begun = Instant::now();
        let open = move || {
            let ids: Vec<ShardId> = shards.iter().map(|(s, _)| s.shard).collect();
            let store = open_store(&config, max_open_files, &ids, false)?;
            let writer = WriterOptions {
                disk_path: Some(PathBuf::from(&config.data_dir)),
                sync_after: Duration::from_millis(config.flush_interval_ms),
                ..WriterOptions::default()
            };
            let (shards, sinks) = (shards.clone(), sinks.clone());
            let (replicas, clock) = (replicas.clone(), clock.clone());
            Ok::<_, StartError>(start_shards(
                store, shards, writer, 1, sinks, replicas, clock,
            )?)
        };
        let task = tokio::task::spawn_blocking(move || match open() {
            Err(StartError::Shard(StartShardError::Condemned(..))) => open(),
            done => done,
        });
        let shards = task.await.map_err(std::io::Error::other)?;
        let alone = !self.config.is_cluster();
        let shards = shards.map_err(|error| match error.is_corrupt() && alone {
            true => StartError::Damaged(Box::new(error)),
            false => error,
        })?;
        for (handle, r) in &shards.shards {
            tracing::info!(
                shard = handle.shard().0,
                first = r.first,
                last = r.last,
                replayed = r.replayed,
                took_ms = begun.elapsed().as_millis() as u64,
                "shard restored"
            );
            for index in &r.damaged {
                tracing::error!(
                    event = "bad_entry_at_start",
                    shard = handle.shard().0,
                    index,
                    "an entry of the log is corrupt: its messages keep their offsets and are lost"
                );
            }
        }
        Ok(shards)
    }

    fn watch_store(
        &mut self,
        config: &Arc<Config>,
        shards: Vec<(String, ShardHandle)>,
    ) -> Option<Arc<scrub::Scrubs>> {
        let mut watched = None;
        if let Some(running) = &self.shards {
            let stats = running.writer.stats().clone();
            let clock = self.clock.clone();
            let scrubs = scrub::Scrubs::new(PathBuf::from(&config.data_dir), shards.clone());
            if let Some(cluster) = &self.cluster {
                let _ = cluster.scrubs.set(scrubs.clone());
            }
            self.tasks
                .push(tokio::task::spawn_local(scrubs.clone().run()));
            watched = Some(scrubs);
            let watch = watch(shards, stats, config.clone(), self.metrics.clone(), clock);
            self.tasks.push(tokio::task::spawn_local(watch));
        }
        watched
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

/// Runs a node until SIGTERM or SIGINT, or until its storage failed. `ready` is told the node
/// once clients can connect.
pub fn run_server(
    config: Config,
    ready: impl FnOnce(&Config, Listening),
) -> Result<(), StartError> {
    use tokio::signal::unix::{signal, SignalKind};
    if !config.huge_pages {
        // The allocator asks for huge pages wherever the kernel leaves it to the process.
        if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
            tracing::debug!(%error, "huge pages stay on");
        }
    }
    descriptors::raise();
    let system = actix_rt::System::new();
    system.block_on(async move {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tracing::info!(version = env!("CARGO_PKG_VERSION"), data_dir = %config.data_dir, "starting");
        let broker = Broker::builder().config(config.clone()).start().await?;
        ready(&broker.config, broker.listening());
        let mut check = tokio::time::interval(WATCH_EVERY);
        let failed = loop {
            tokio::select! {
                _ = terminate.recv() => break None,
                _ = interrupt.recv() => break None,
                _ = check.tick() => if let Some(why) = broker.failed() { break Some(why) },
            }
        };
        tracing::info!("stopping");
        let configured = broker.misconfigured().is_some();
        broker.stop().await;
        match failed {
            Some(why) if configured => Err(StartError::Config(why)),
            Some(why) => Err(StartError::NotServing(why)),
            None => Ok(()),
        }
    })
}
