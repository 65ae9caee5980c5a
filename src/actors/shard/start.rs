//! Starts the actors of a node's shards from its open store.

use super::actor::{DiskDone, ShardActor, ShardDeps};
use super::core::{Patience, Quotas, ShardCore, ShardOptions};
use super::directory::QueueDirectory;
use super::handle::ShardHandle;
use super::machine::MachineOptions;
use super::meta::MetaTable;
use super::pace::Pace;
use super::reads::Reads;
use super::recover::{recover, RecoverError, Recovery};
use super::status::ShardStatus;
use super::views::Views;
use crate::actors::clock::NodeClock;
use crate::actors::link::{NoReplicas, ReplicaLink};
use crate::actors::sinks::Sinks;
use crate::model::policy::AckPolicy;
use crate::model::ShardId;
use crate::raft::RaftOptions;
use crate::storage::{Done, LogStore, Loss, ReadPool, RocksStore, Standing, Writer, WriterOptions};
use actix::prelude::*;
use actix_rt::ArbiterHandle;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// A shard that does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartShardError {
    #[error("shard {0}: {1}")]
    Recover(u32, RecoverError),
    /// The next opening puts the database aside, and the other replicas fill a new one.
    #[error("shard {0}: {1}")]
    Condemned(u32, RecoverError),
    #[error("a thread does not start: {0}")]
    Thread(#[from] std::io::Error),
}

/// Settings of a shard.
#[derive(Debug, Clone)]
pub struct StartShard {
    pub shard: ShardId,
    pub raft: RaftOptions,
    pub policy: AckPolicy,
    pub segment_bytes: u64,
    pub retention_ms: i64,
    pub retention_bytes: u64,
    pub tail_cache_bytes: usize,
    pub read_threads: usize,
    pub writer: WriterOptions,
    /// One tick of raft's clock.
    pub tick: Duration,
    /// Bytes a second that followers far behind are given by all shards together; 0: no limit.
    pub catch_up_bytes_per_second: u64,
    /// How long a send may wait for the leader's own write; zero: for ever.
    pub flush_timeout: Duration,
    /// How long it may wait for other replicas; zero: for ever.
    pub replica_timeout: Duration,
    /// What clients may make the shard keep.
    pub quotas: Quotas,
}

impl StartShard {
    fn patience(&self) -> Patience {
        let ticks = |time: Duration| time.as_nanos().div_ceil(self.tick.as_nanos().max(1)) as u64;
        Patience {
            flush: ticks(self.flush_timeout),
            replicas: ticks(self.replica_timeout),
        }
    }
}

/// A running shard with the threads it needs.
pub struct RunningShard {
    pub handle: ShardHandle,
    pub writer: Writer,
    pub pool: Arc<ReadPool>,
    pub recovery: Recovery,
}

/// All shards of a node over its one writer.
pub struct RunningShards {
    /// In the order they were given.
    pub shards: Vec<(ShardHandle, Recovery)>,
    pub writer: Writer,
    pub pool: Arc<ReadPool>,
}

/// The most bytes one entry collects; the first message always fits.
const MAX_ENTRY_BYTES: usize = 1 << 20;
/// Log writes under way at a time: one on the disk, one that fills up behind it.
const MAX_OPEN_WRITES: usize = 2;

/// Entries between two digests of the state.
const DIGEST_EVERY: u64 = 256;

impl ShardOptions {
    /// A shard of the product that keeps everything and waits for ever.
    pub fn of(shard: ShardId) -> Self {
        Self {
            shard,
            max_entry_bytes: MAX_ENTRY_BYTES,
            max_open_writes: MAX_OPEN_WRITES,
            retention_ms: i64::MAX,
            retention_bytes: 0,
            patience: Patience::default(),
            digest_every: DIGEST_EVERY,
            quotas: Quotas::default(),
            defect: None,
        }
    }
}

/// Recovers the shard and starts its actor on `arbiter`. Blocks while it replays.
pub fn start_shard(
    store: RocksStore,
    options: StartShard,
    sinks: Sinks,
    arbiter: &ArbiterHandle,
) -> Result<RunningShard, StartShardError> {
    let (writer, read_threads) = (options.writer.clone(), options.read_threads);
    let one = vec![(options, arbiter.clone())];
    let all = start_shards(
        store,
        one,
        writer,
        read_threads,
        sinks,
        Arc::new(NoReplicas),
        NodeClock::new(0),
    )?;
    let RunningShards {
        mut shards,
        writer,
        pool,
    } = all;
    let (handle, recovery) = shards.remove(0);
    Ok(RunningShard {
        handle,
        writer,
        pool,
        recovery,
    })
}

/// Recovers shards of one store and starts their actors, each on its arbiter, with one writer for
/// all. `clock` is the node's. Blocks while it replays.
pub fn start_shards(
    mut store: RocksStore,
    shards: Vec<(StartShard, ArbiterHandle)>,
    writer: WriterOptions,
    read_threads: usize,
    sinks: Sinks,
    replicas: Arc<dyn ReplicaLink>,
    clock: Arc<NodeClock>,
) -> Result<RunningShards, StartShardError> {
    let mut restored = Vec::new();
    for (options, arbiter) in shards {
        let shard = options.shard;
        let core_options = ShardOptions {
            retention_ms: options.retention_ms,
            retention_bytes: options.retention_bytes,
            patience: options.patience(),
            quotas: options.quotas.clone(),
            ..ShardOptions::of(shard)
        };
        let machine_options = MachineOptions {
            segment_bytes: options.segment_bytes,
        };
        let standing = store.standing(shard);
        let raft = RaftOptions {
            life: store.life(),
            store: store.number(),
            recovering: standing != Standing::Whole,
            forgotten: matches!(standing, Standing::Forgotten { .. }),
            tick_ms: options.tick.as_millis().max(1) as u64,
            owed: match standing {
                Standing::Forgotten { reached, .. } => reached,
                Standing::Unsynced { .. } | Standing::Whole => 0,
            },
            ..options.raft.clone()
        };
        let loss = store.loss(shard).cloned();
        let found = recover(&mut store, core_options, machine_options, raft);
        let (core, recovery) = found.map_err(|error| {
            // Others have what cannot be read here.
            if error.is_corrupt() && store.condemn(&error.to_string()) {
                return StartShardError::Condemned(shard.0, error);
            }
            StartShardError::Recover(shard.0, error)
        })?;
        restored.push((options, arbiter, core, recovery, loss));
    }
    let reader = store.reader();
    let pool = Arc::new(ReadPool::spawn(&reader, read_threads)?);
    type Cell = Arc<OnceLock<Addr<ShardActor>>>;
    let actors: BTreeMap<ShardId, Cell> = restored
        .iter()
        .map(|(options, ..)| (options.shard, Cell::default()))
        .collect();
    let told = actors.clone();
    let on_done = Box::new(move |done: Done| {
        let tell = |cell: &Cell, done| {
            if let Some(addr) = cell.get() {
                addr.do_send(DiskDone(done));
            }
        };
        match &done {
            Done::Appended { shard, .. }
            | Done::StateWritten { shard, .. }
            | Done::Trimmed { shard, .. }
            | Done::Mended { shard, .. } => {
                if let Some(cell) = told.get(shard) {
                    tell(cell, done);
                }
            }
            // The store is everybody's.
            Done::Failed { error } => {
                for cell in told.values() {
                    let error = error.clone();
                    tell(cell, Done::Failed { error });
                }
            }
        }
    });
    let writer = Writer::spawn(store, writer, on_done)?;
    let mut running = Vec::new();
    let pace = restored
        .first()
        .map_or(0, |(o, ..)| o.catch_up_bytes_per_second);
    let pace = Arc::new(Pace::new(pace));
    for (options, arbiter, core, recovery, loss) in restored {
        let deps = ShardDeps {
            shard: options.shard,
            views: Arc::new(Views::new(options.tail_cache_bytes)),
            meta: MetaTable::default(),
            reads: Arc::new(Reads::new(options.shard, reader.clone())),
            sinks: sinks.clone(),
            writer: writer.handle(),
            pool: pool.clone(),
            directory: QueueDirectory::default(),
            status: Arc::new(ShardStatus::default()),
            policy: options.policy,
            replicas: replicas.clone(),
            tick: options.tick,
            pace: pace.clone(),
            clock: clock.clone(),
        };
        ShardActor::publish_restored(&core, &deps);
        let raft = core.raft();
        // Other nodes may ask before the actor runs.
        deps.status.set_log(raft.next_index() - 1, raft.is_lone());
        deps.status.set_owed(raft.owed());
        if let Some(loss) = loss {
            tell_loss(&core, &deps, &loss);
        }
        let own = deps.clone();
        let cell = actors[&options.shard].clone();
        let addr = ShardActor::start_in_arbiter(&arbiter, move |ctx| {
            // Known before the first write can be answered.
            let _ = cell.set(ctx.address());
            ShardActor::new(core, own)
        });
        running.push((ShardHandle::new(addr, deps), recovery));
    }
    Ok(RunningShards {
        shards: running,
        writer,
        pool,
    })
}

/// Queues named in a line of the log.
const MAX_NAMED: usize = 32;

/// Says what the opening of the store found missing (reliability §1).
fn tell_loss(core: &ShardCore, deps: &ShardDeps, loss: &Loss) {
    let machine = core.machine();
    let queues: Vec<String> = machine
        .queues()
        .take(MAX_NAMED)
        .map(|(key, meta)| format!("{}/{} from {}", key.topic.0, key.queue, meta.next))
        .collect();
    let last_lost = (loss.reached > loss.kept).then_some(loss.reached);
    tracing::error!(
        event = "unclean_recovery",
        shard = deps.shard.0,
        kept = loss.kept,
        first_lost = loss.kept + 1,
        last_lost,
        why = %loss.why,
        alone = core.raft().is_sole_voter(),
        waits_for = core.raft().owed(),
        queues = %queues.join(", "),
        "entries of the log may be missing"
    );
    deps.status.unclean_recovery(loss.kept, last_lost);
}
