//! Starts a shard's actor from an open store.

use super::actor::{DiskDone, ShardActor, ShardDeps};
use super::core::ShardOptions;
use super::directory::QueueDirectory;
use super::handle::ShardHandle;
use super::machine::MachineOptions;
use super::meta::MetaTable;
use super::reads::Reads;
use super::recover::{recover, RecoverError, Recovery};
use super::status::ShardStatus;
use super::views::Views;
use crate::actors::sinks::Sinks;
use crate::model::policy::AckPolicy;
use crate::model::ShardId;
use crate::raft::RaftOptions;
use crate::storage::{ReadPool, RocksStore, Writer, WriterOptions};
use actix::prelude::*;
use actix_rt::ArbiterHandle;
use std::sync::{Arc, OnceLock};

/// A shard that does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartShardError {
    #[error(transparent)]
    Recover(#[from] RecoverError),
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
}

/// A running shard with the threads it needs.
pub struct RunningShard {
    pub handle: ShardHandle,
    pub writer: Writer,
    pub pool: Arc<ReadPool>,
    pub recovery: Recovery,
}

/// The most bytes one entry collects; the first message always fits.
const MAX_ENTRY_BYTES: usize = 1 << 20;
/// Log writes under way at a time: one on the disk, one that fills up behind it.
const MAX_OPEN_WRITES: usize = 2;

/// Recovers the shard and starts its actor on `arbiter`. Blocks while it replays.
pub fn start_shard(
    mut store: RocksStore,
    options: StartShard,
    sinks: Sinks,
    arbiter: &ArbiterHandle,
) -> Result<RunningShard, StartShardError> {
    let core_options = ShardOptions {
        shard: options.shard,
        max_entry_bytes: MAX_ENTRY_BYTES,
        max_open_writes: MAX_OPEN_WRITES,
        retention_ms: options.retention_ms,
        retention_bytes: options.retention_bytes,
        defect: None,
    };
    let machine_options = MachineOptions {
        segment_bytes: options.segment_bytes,
    };
    let raft = RaftOptions {
        life: store.life(),
        ..options.raft
    };
    let (core, recovery) = recover(&mut store, core_options, machine_options, raft)?;
    let reader = store.reader();
    let pool = Arc::new(ReadPool::spawn(&reader, options.read_threads)?);
    let actor: Arc<OnceLock<Addr<ShardActor>>> = Arc::default();
    let told = actor.clone();
    let on_done = Box::new(move |done| {
        if let Some(addr) = told.get() {
            addr.do_send(DiskDone(done));
        }
    });
    let writer = Writer::spawn(store, options.writer, on_done)?;
    let deps = ShardDeps {
        shard: options.shard,
        views: Arc::new(Views::new(options.tail_cache_bytes)),
        meta: MetaTable::default(),
        reads: Arc::new(Reads::new(options.shard, reader)),
        sinks,
        writer: writer.handle(),
        pool: pool.clone(),
        directory: QueueDirectory::default(),
        status: Arc::new(ShardStatus::default()),
        policy: options.policy,
    };
    ShardActor::publish_restored(&core, &deps);
    let own = deps.clone();
    let cell = actor.clone();
    let addr = ShardActor::start_in_arbiter(arbiter, move |ctx| {
        // Known before the first write can be answered.
        let _ = cell.set(ctx.address());
        ShardActor::new(core, own)
    });
    Ok(RunningShard {
        handle: ShardHandle::new(addr, deps),
        writer,
        pool,
        recovery,
    })
}
