//! Settings and tasks of a node's parts.

use super::*;
use crate::actors::shard::status::ShardStatus;
use crate::model::quota::QuotaKind;
use crate::storage::points::{pass, FailPoint};

/// A single voter leads after one write; clients are let in then.
pub(super) async fn serve_alone(
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

/// A guest's way onto an arbiter's thread.
pub(super) fn host_on(arbiter: &Arbiter) -> Host {
    let thread = arbiter.handle();
    Box::new(move |run| thread.spawn_fn(run))
}

/// Creates missing system topics each time this node begins to lead the shard.
pub(super) async fn keep_system_topics(shard: ShardHandle, config: Arc<Config>) {
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
pub(super) fn cluster_raft(config: &Config, shard: &ClusterShard, life: u64) -> RaftOptions {
    let (tick_ms, heartbeat_ticks, election_ticks) = config.raft_ticks();
    let now = std::time::SystemTime::now();
    let nanos = now
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| d.as_nanos() as u64);
    let seed = nanos ^ u64::from(std::process::id()).rotate_left(32) ^ u64::from(shard.id);
    let share = config.snapshot_bytes_per_second as u128 * u128::from(tick_ms) / 1_000;
    let share = share / config.cluster().map_or(1, |c| c.shards.len().max(1)) as u128;
    RaftOptions {
        election_ticks,
        heartbeat_ticks,
        promise_ticks: config.promise_ticks(),
        life,
        no_peers: false,
        // A limit that is less than a byte is not none.
        snapshot_per_tick: match config.snapshot_bytes_per_second {
            0 => 0,
            _ => u64::try_from(share).unwrap_or(u64::MAX).max(1),
        },
        ..RaftOptions::group(config.node_id, shard.nodes.clone(), seed)
    }
}

/// The configuration of one shard's gateway.
pub(super) fn shard_config(config: &Config, shard: &ClusterShard, shards: usize) -> Config {
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

pub(super) fn start_registry(dir: &Path, arbiter: &Arbiter) -> Result<Registry, StartError> {
    let file = dir.join("kv-config.json");
    let text = match std::fs::read_to_string(&file) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(e) => return Err(StartError::Registry(e.to_string())),
    };
    let kv = KvTable::from_json(&text).map_err(StartError::Registry)?;
    let core = RegistryCore::new(kv, RegistryLimits::default(), false);
    let at = [FailPoint::KvWritten, FailPoint::KvRenamed];
    let store =
        Box::new(move |text: &str| replace_file(&file, text, at).map_err(|e| e.to_string()));
    Ok(Registry::start(core, &arbiter.handle(), store))
}

/// Writes beside, syncs, renames, syncs the directory: the file is the old or the new one. The fail
/// points are those before and behind the renaming.
pub(super) fn replace_file(file: &Path, text: &str, at: [FailPoint; 2]) -> std::io::Result<()> {
    let [written, renamed] = at;
    use std::io::Write;
    let beside = file.with_extension("new");
    let mut out = std::fs::File::create(&beside)?;
    out.write_all(text.as_bytes())?;
    out.sync_all()?;
    pass(written);
    std::fs::rename(&beside, file)?;
    pass(renamed);
    match file.parent() {
        Some(dir) => std::fs::File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

/// What tells this run of the machine from others; empty when nothing does.
fn boot_id(config: &Config) -> String {
    if !config.boot_id.is_empty() {
        return config.boot_id.clone();
    }
    let found = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    found.map_or(String::new(), |id| id.trim().to_owned())
}

/// `repair`: an operator gives up what cannot be read.
pub(super) fn open_store(
    config: &Config,
    max_open_files: u64,
    shards: &[ShardId],
    repair: bool,
) -> Result<RocksStore, StartError> {
    let dir = config.data_dir.clone();
    let options = StoreOptions {
        // The node's memory, whatever the number of its shards.
        memtable_bytes: (config.memtable_bytes / shards.len().max(1) as u64).max(1 << 20) as usize,
        block_cache_bytes: config.block_cache_bytes as usize,
        // Rarely written column families hold old WAL files: this bounds disk use and replay.
        max_wal_bytes: config.memtable_bytes.saturating_mul(3),
        max_open_files: i32::try_from(max_open_files).unwrap_or(i32::MAX),
        direct_io: config.direct_io,
        boot_id: boot_id(config),
        // What is damaged here comes from the other replicas.
        repair: repair || config.is_cluster(),
        alone: !config.is_cluster(),
        ..StoreOptions::default()
    };
    let store =
        RocksStore::open(Path::new(&dir), options, shards).map_err(|error| StartError::Store {
            dir: dir.clone(),
            error,
        })?;
    if let Ok((total, free)) = store.space() {
        // Consumers, and retention, which makes room, need the node as it is.
        if nearly_full(config, total, free) {
            tracing::warn!(
                dir,
                used_percent = total.saturating_sub(free).saturating_mul(100) / total.max(1),
                free,
                "the disk is nearly full: producers are refused until there is space \
                 (disk_space_warning_level_ratio, disk_min_free_bytes)"
            );
        }
    }
    Ok(store)
}

pub(super) fn nearly_full(config: &Config, total: u64, free: u64) -> bool {
    let used = total.saturating_sub(free).saturating_mul(100) / total.max(1);
    used >= u64::from(config.disk_space_warning_level_ratio) || free < config.disk_min_free_bytes
}

/// Settings of one of `count` shards, which share the node's memory.
pub(super) fn shard_settings(
    config: &Config,
    shard: ShardId,
    raft: RaftOptions,
    count: usize,
    name: &str,
) -> StartShard {
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
        flush_timeout: Duration::from_millis(config.sync_flush_timeout_ms),
        replica_timeout: Duration::from_millis(config.slave_timeout_ms),
        catch_up_bytes_per_second: config.catch_up_bytes_per_second,
        quotas: Quotas {
            topics: config.max_topics,
            auto_topics: config.auto_create_max_topics,
            groups: config.max_groups,
            auto_groups: config.auto_create_max_groups,
            delayed: config.max_delayed_messages,
            offsets: config.max_group_offsets,
            state_bytes: config.max_state_bytes,
            own_topics: system_topics(config, name).map(|t| t.name).collect(),
        },
    }
}

/// The topics that the broker of this name has by itself.
fn system_topics(config: &Config, broker_name: &str) -> impl Iterator<Item = TopicConfig> {
    let traits = BrokerTraits {
        cluster: &config.cluster_name,
        broker_name,
        auto_create: config.auto_create_topic_enable,
        trace_topic: config
            .trace_topic_enable
            .then_some(config.trace_topic_name.as_str()),
        delay_levels: config.delay_levels_ms().len() as u32,
    };
    startup_topics(&traits).into_iter()
}

pub(super) async fn create_system_topics(
    shard: &ShardHandle,
    config: &Config,
) -> Result<(), StartError> {
    let missing = system_topics(config, &config.broker_name)
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

/// Rounds of [`watch`] between two looks at the log's files.
const FILES_EVERY: u64 = 15;

/// Copies the store's and raft's figures into the metrics, and guards the disk, until dropped.
pub(super) async fn watch(
    shards: Vec<(String, ShardHandle)>,
    stats: Arc<StoreStats>,
    config: Arc<Config>,
    metrics: Arc<Metrics>,
    clock: Arc<NodeClock>,
) {
    let mut ticks = tokio::time::interval(WATCH_EVERY);
    for round in 0u64.. {
        ticks.tick().await;
        copy_stats(&stats, &metrics);
        let time = clock.figures();
        metrics.clock.ahead_ms.set(time.wall_ahead_ms);
        metrics.clock.held.set(i64::from(time.held));
        up(&metrics.clock.holds, time.holds);
        up(&metrics.clock.jumps, time.jumps);
        if let Some((_, handle)) = shards.first() {
            let (cache, memtables) = handle.store_memory();
            metrics.store.block_cache_bytes.set(cache as i64);
            metrics.store.memtable_bytes.set(memtables as i64);
        }
        // Goes through the list of all files.
        if round % FILES_EVERY == 0 {
            let sizes = shards.iter().filter_map(|(_, h)| h.log_bytes().ok());
            metrics.store.log_bytes.set(sizes.sum::<u64>() as i64);
        }
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
            let losses = status.losses();
            up(&raft.snapshots, status.snapshots());
            let differ = status.compared().others.len();
            raft.state_differs.set(differ as i64);
            up(&raft.state_differences, status.differences());
            up(&raft.unclean_recoveries, losses.unclean_recoveries);
            up(&raft.acked_truncated, losses.acked_truncated_entries);
            super::scrub::copy_figures(&handle.damage(), &raft);
            copy_quotas(status, &config, name, &metrics);
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

/// What clients may make a shard keep, and how much of it they have.
fn copy_quotas(status: &ShardStatus, config: &Config, shard: &str, metrics: &Metrics) {
    for kind in QuotaKind::ALL {
        let figures = metrics.quota(shard, kind.setting());
        let (used, limit) = match kind {
            QuotaKind::ConnectionTopics => (0, config.connection_topics_per_minute.into()),
            QuotaKind::ConnectionAutoTopics => (0, config.connection_auto_topics_per_minute.into()),
            QuotaKind::ConnectionGroups => (0, config.connection_groups_per_minute.into()),
            QuotaKind::ConnectionAutoGroups => (0, config.connection_auto_groups_per_minute.into()),
            QuotaKind::ConnectionDelayed => {
                (0, config.connection_delayed_messages_per_minute.into())
            }
            _ => status.quota(kind),
        };
        figures.used.set(i64::try_from(used).unwrap_or(i64::MAX));
        figures.limit.set(i64::try_from(limit).unwrap_or(i64::MAX));
        up(&figures.refusals, status.quota_refusals(kind));
    }
}

/// Brings a counter up to a figure counted elsewhere.
pub(super) fn up(counter: &crate::telemetry::Counter, now: u64) {
    counter.inc_by(now.saturating_sub(counter.get()));
}

pub(super) fn copy_stats(stats: &StoreStats, metrics: &Metrics) {
    let m = &metrics.store;
    up(&m.entries_appended, stats.entries.load(Ordering::Relaxed));
    up(&m.bytes_appended, stats.bytes.load(Ordering::Relaxed));
    up(&m.writes, stats.writes.load(Ordering::Relaxed));
    up(&m.syncs, stats.syncs.load(Ordering::Relaxed));
    up(
        &m.sync_micros,
        stats.sync_micros_total.load(Ordering::Relaxed),
    );
    up(&m.files_deleted, stats.trims.load(Ordering::Relaxed));
    m.disk_used_percent
        .set((stats.disk_used_ratio() * 100.0) as i64);
}
