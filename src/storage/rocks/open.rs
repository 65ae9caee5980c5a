//! Opening the store, and the checks of what a crash left.

use super::dir::DataDir;
use super::marks::{Mark, Marks};
use super::meta::{self, MetaKind};
use super::reader::{ShardView, Shared};
use super::{
    default_bounds, log_cf, map_error, options, RocksStore, ShardLog, StoreOptions, CF_META,
    CF_STATE,
};
use crate::model::ShardId;
use crate::storage::{entry, keys, LogBounds, StoreError};
use rocksdb::{Cache, ColumnFamilyDescriptor, IteratorMode, Options, WriteBatch, WriteOptions, DB};
use rustc_hash::FxHashMap;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::Arc;

impl RocksStore {
    /// Opens the store in `dir`, creating what is missing, with the logs of `shards` and of all
    /// shards already there. Errors: [`StoreError::Open`] when another process holds the
    /// directory or it has another format, [`StoreError::Corrupt`] when a log lacks entries that
    /// were synced, does not begin where it should, or is behind its state or its commit index.
    pub fn open(dir: &Path, options: StoreOptions, shards: &[ShardId]) -> Result<Self, StoreError> {
        check_processor()?;
        let dir = DataDir::hold(dir)?;
        let (db, shards) = open_database(&dir, &options, shards)?;
        let (marks, file_marks) = Marks::open(&dir.marks())?;
        let views: FxHashMap<u32, ShardView> = FxHashMap::default();
        let shared = Shared {
            db,
            shards: views,
            dir,
        };
        let was_clean = meta_row(&shared, meta::CLEAN)?.is_some();
        let mut logs = BTreeMap::new();
        for shard in shards {
            let file_mark = file_marks
                .iter()
                .find(|(s, _)| *s == shard)
                .map(|(_, mark)| *mark);
            logs.insert(shard, recover(&shared, shard, file_mark, was_clean)?);
        }
        let mut store = Self {
            shared: Arc::new(with_views(shared, &logs)),
            logs,
            marks,
            scratch: Vec::new(),
            failed: None,
            closed: false,
            life: 0,
        };
        store.begin()?;
        Ok(store)
    }

    /// Removes the clean marker, brings the marks up to what was found (recovery has written it
    /// out into files, synced) and deletes files that an interrupted trim left.
    fn begin(&mut self) -> Result<(), StoreError> {
        let mut batch = WriteBatch::default();
        let found = meta_row(&self.shared, meta::LIFE)?;
        let lives = found.map_or(Ok(0), |row| meta::parse_life(&row))?;
        self.life = lives.saturating_add(1);
        let cf = self.shared.cf(CF_META)?;
        batch.delete_cf(cf, meta::CLEAN);
        batch.put_cf(cf, meta::LIFE, self.life.to_be_bytes());
        let mut write = WriteOptions::default();
        write.set_sync(true);
        self.shared.db.write_opt(batch, &write).map_err(map_error)?;
        for (shard, log) in &self.logs {
            self.marks.set(
                *shard,
                Mark {
                    epoch: log.epoch,
                    index: log.bounds.synced,
                },
            );
            self.drop_files(*shard)?;
        }
        self.marks.sync()
    }
}

/// RocksDB is compiled with these instructions (`.cargo/config.toml`).
fn check_processor() -> Result<(), StoreError> {
    #[cfg(target_arch = "x86_64")]
    if !std::arch::is_x86_feature_detected!("sse4.2")
        || !std::arch::is_x86_feature_detected!("pclmulqdq")
    {
        let text = "this processor lacks SSE4.2 or PCLMULQDQ";
        return Err(StoreError::Open(text.into()));
    }
    Ok(())
}

fn open_database(
    dir: &DataDir,
    o: &StoreOptions,
    wanted: &[ShardId],
) -> Result<(DB, BTreeSet<ShardId>), StoreError> {
    let cache = Cache::new_lru_cache(o.block_cache_bytes);
    let direct_io = o.direct_io && dir.takes_direct_io();
    if o.direct_io && !direct_io {
        tracing::info!(
            "this file system has no direct writes: log files go through the page cache"
        );
    }
    let db_options = options::database(&StoreOptions {
        direct_io,
        ..o.clone()
    });
    let path = dir.db();
    let mut shards: BTreeSet<ShardId> = wanted.iter().copied().collect();
    let mut families = vec![
        ColumnFamilyDescriptor::new("default", Options::default()),
        ColumnFamilyDescriptor::new(CF_STATE, options::state(o, &cache)),
        ColumnFamilyDescriptor::new(CF_META, options::meta(&cache)),
    ];
    if path.join("CURRENT").exists() {
        for name in DB::list_cf(&db_options, &path).map_err(map_error)? {
            if let Some(number) = name.strip_prefix("log-").and_then(|n| n.parse().ok()) {
                shards.insert(ShardId(number));
            }
        }
    }
    for shard in &shards {
        families.push(ColumnFamilyDescriptor::new(
            log_cf(*shard),
            options::log(o, &cache),
        ));
    }
    let db = DB::open_cf_descriptors(&db_options, &path, families).map_err(map_error)?;
    Ok((db, shards))
}

fn with_views(mut shared: Shared, logs: &BTreeMap<ShardId, ShardLog>) -> Shared {
    for (shard, log) in logs {
        let view = ShardView {
            cf: log.cf.clone(),
            first: AtomicU64::new(log.bounds.first),
            last: AtomicU64::new(log.bounds.last),
        };
        shared.shards.insert(shard.0, view);
    }
    shared
}

fn meta_row(shared: &Shared, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
    shared
        .db
        .get_cf(shared.cf(CF_META)?, key)
        .map_err(map_error)
}

/// Finds the bounds of a shard's log and checks them against marks, commit index and state.
fn recover(
    shared: &Shared,
    shard: ShardId,
    file_mark: Option<Mark>,
    was_clean: bool,
) -> Result<ShardLog, StoreError> {
    let row = |kind| meta_row(shared, &meta::key(shard, kind));
    let mut bounds = default_bounds();
    if let Some(value) = row(MetaKind::Bounds)? {
        (bounds.first, bounds.trimmed_term) = meta::parse_bounds(&value)?;
    }
    if let Some(value) = row(MetaKind::HardState)? {
        bounds.hard_state = meta::parse_hard_state(&value)?;
    }
    let mark = match row(MetaKind::Mark)? {
        Some(value) => meta::parse_mark(&value)?,
        None => Mark::default(),
    };
    find_ends(shared, shard, &mut bounds)?;
    let bad = |why: String| {
        Err(StoreError::Corrupt(format!(
            "log of shard {} {why}",
            shard.0
        )))
    };
    let last = bounds.last;
    if last < mark.index {
        return bad(format!(
            "ends at {last}, but was synced up to {}",
            mark.index
        ));
    }
    if let Some(file) = file_mark {
        if file.epoch > mark.epoch {
            return bad(format!(
                "lost a synced overwrite (epoch {} of {})",
                mark.epoch, file.epoch
            ));
        }
        if file.epoch == mark.epoch && (last < file.index || (was_clean && last != file.index)) {
            return bad(format!(
                "ends at {last}, but was synced up to {}",
                file.index
            ));
        }
    }
    if bounds.hard_state.commit > last {
        return bad(format!(
            "ends at {last}, before the commit index {}",
            bounds.hard_state.commit
        ));
    }
    let state = shared.cf(CF_STATE)?;
    if let Some(value) = shared
        .db
        .get_cf(state, keys::applied::key(shard))
        .map_err(map_error)?
    {
        let applied = keys::applied::decode(&value)?;
        if applied > last {
            return bad(format!(
                "ends at {last}, before the applied index {applied}"
            ));
        }
    }
    bounds.synced = last;
    Ok(ShardLog {
        cf: log_cf(shard),
        bounds,
        epoch: mark.epoch,
    })
}

/// Sets `last` and verifies the two ends of the log.
fn find_ends(shared: &Shared, shard: ShardId, bounds: &mut LogBounds) -> Result<(), StoreError> {
    let cf = shared.cf(&log_cf(shard))?;
    let db = &shared.db;
    let bad = |why: String| StoreError::Corrupt(format!("log of shard {}: {why}", shard.0));
    let index_of = |key: &[u8]| match key.try_into() {
        Ok(bytes) => Ok(u64::from_be_bytes(bytes)),
        Err(_) => Err(bad(format!("key of {} bytes", key.len()))),
    };
    bounds.last = bounds.first.saturating_sub(1);
    let Some(end) = db.iterator_cf(cf, IteratorMode::End).next() else {
        return Ok(());
    };
    let (key, value) = end.map_err(map_error)?;
    let last = index_of(&key)?;
    if last < bounds.first {
        return Ok(());
    }
    entry::decode(last, &value)?;
    let mut start = db.iterator_cf(
        cf,
        IteratorMode::From(&bounds.first.to_be_bytes(), rocksdb::Direction::Forward),
    );
    let found = match start.next() {
        Some(row) => index_of(&row.map_err(map_error)?.0)?,
        None => last,
    };
    if found != bounds.first {
        return Err(bad(format!(
            "begins at {found} instead of {}",
            bounds.first
        )));
    }
    bounds.last = last;
    Ok(())
}
