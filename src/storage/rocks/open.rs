//! Opening the store, and the checks of what a crash left.

use super::ahead::Ahead;
use super::dir::DataDir;
use super::marks::{Mark, Marks};
use super::meta::{self, MetaKind};
use super::reader::{ShardView, Shared};
use super::{
    default_bounds, log_cf, log_tail, map_error, options, RocksStore, ShardLog, StoreOptions,
    Syncs, CF_META, CF_STATE,
};
use crate::model::ShardId;
use crate::storage::{entry, keys, LogBounds, Loss, Standing, StoreError};
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
    /// were synced, does not begin where it should, or is behind its state or its commit index
    /// (unless [`StoreOptions::repair`] is set).
    pub fn open(dir: &Path, options: StoreOptions, shards: &[ShardId]) -> Result<Self, StoreError> {
        check_processor()?;
        let dir = DataDir::hold(dir)?;
        let (db, shards, damage) = match open_database(&dir, &options, shards) {
            Ok((db, shards)) => (db, shards, None),
            Err(StoreError::Corrupt(why)) if options.repair => {
                dir.set_database_aside()?;
                let (db, shards) = open_database(&dir, &options, shards)?;
                (db, shards, Some(why))
            }
            Err(error) => return Err(error),
        };
        let (marks, file_marks) = Marks::open(&dir.marks())?;
        let views: FxHashMap<u32, ShardView> = FxHashMap::default();
        let shared = Shared {
            db,
            shards: views,
            dir,
        };
        let was_clean = meta_row(&shared, meta::CLEAN)?.is_some();
        let loose = !was_clean && stopped_loose(&shared, &options.boot_id)?;
        let mut logs = BTreeMap::new();
        let mut losses = BTreeMap::new();
        let mut holes = BTreeMap::new();
        for shard in shards {
            let mut file = file_marks.iter().find(|(s, _)| *s == shard);
            if let Some(why) = &damage {
                let reached = file.take().map_or(0, |(_, mark)| mark.index);
                let why = why.clone();
                let loss = Loss {
                    kept: 0,
                    reached,
                    why,
                };
                losses.insert(shard, loss);
            }
            let file = file.map(|(_, mark)| *mark);
            let mut found = find(&shared, shard)?;
            found.look_for_hole(&shared, shard, file)?;
            let log = match found.check(shard, file, was_clean, loose) {
                Ok(log) => log,
                Err(StoreError::Corrupt(why)) if options.repair => {
                    let (log, loss) = repair(&shared, shard, &found, file, why)?;
                    losses.insert(shard, loss);
                    log
                }
                Err(error) => return Err(error),
            };
            if let Some(reached) = found.hole {
                holes.insert(shard, reached);
            }
            logs.insert(shard, log);
        }
        let ahead = Ahead::new(&shared.dir.db());
        let mut store = Self {
            shared: Arc::new(with_views(shared, &logs)),
            logs,
            marks,
            ahead,
            apart: Vec::new(),
            syncs: Syncs::default(),
            scratch: Vec::new(),
            failed: None,
            closed: false,
            life: 0,
            number: 0,
            // Without a boot to go by nobody would ask.
            loose: options.boot_id.is_empty(),
            standings: BTreeMap::new(),
            losses,
        };
        store.begin(&options.boot_id, loose, &holes)?;
        Ok(store)
    }

    /// Notes what the start found, and whose start it is, in one synced write; brings the marks up
    /// to what was found (recovery has written it out into files, synced) and deletes files that
    /// an interrupted trim left. `holes` has the last index of logs that are cut because one before it
    /// is missing.
    fn begin(
        &mut self,
        boot_id: &str,
        loose: bool,
        holes: &BTreeMap<ShardId, u64>,
    ) -> Result<(), StoreError> {
        let shared = self.shared.clone();
        let cf = shared.cf(CF_META)?;
        let mut batch = WriteBatch::default();
        let found = meta_row(&shared, meta::LIFE)?;
        let lives = found.map_or(Ok(0), |row| meta::parse_life(&row))?;
        self.life = lives.saturating_add(1);
        // What was damaged is another store from now on: nobody counts on it for what it held.
        self.number = match meta_row(&shared, meta::STORE)? {
            Some(row) if self.losses.is_empty() => meta::parse_store(&row)?,
            _ => new_number()?,
        };
        batch.delete_cf(cf, meta::CLEAN);
        batch.delete_cf(cf, meta::LOOSE);
        batch.put_cf(cf, meta::LIFE, self.life.to_be_bytes());
        batch.put_cf(cf, meta::STORE, self.number.to_be_bytes());
        batch.put_cf(cf, meta::BOOT, boot_id);
        for (shard, log) in &self.logs {
            if holes.contains_key(shard) {
                for key in behind(&shared, log)? {
                    batch.delete_cf(shared.cf(&log.cf)?, key);
                }
                let hard_state = meta::hard_state(&log.bounds.hard_state);
                batch.put_cf(cf, meta::key(*shard, MetaKind::HardState), hard_state);
            }
            let key = meta::key(*shard, MetaKind::Standing);
            let known = meta_row(&shared, &key)?.map(|row| meta::parse_standing(&row));
            let mut standing = known.transpose()?.unwrap_or_default();
            let kept = log.bounds.last;
            if let Some(loss) = self.losses.get(shard) {
                let reached = loss.reached;
                standing = Standing::Forgotten { kept, reached };
                batch.put_cf(
                    cf,
                    meta::key(*shard, MetaKind::Bounds),
                    meta::bounds(log.bounds.first, log.bounds.trimmed_term),
                );
                let mark = Mark {
                    epoch: log.epoch,
                    index: log.bounds.synced,
                };
                batch.put_cf(cf, meta::key(*shard, MetaKind::Mark), meta::mark(mark));
                let hard_state = meta::hard_state(&log.bounds.hard_state);
                batch.put_cf(cf, meta::key(*shard, MetaKind::HardState), hard_state);
            } else if log.is_new(&shared, *shard)? && standing == Standing::Whole {
                standing = Standing::Forgotten { kept, reached: 0 };
            } else if loose {
                if standing == Standing::Whole {
                    standing = Standing::Unsynced { kept };
                }
                let why = STOPPED.to_owned();
                let reached = holes.get(shard).copied().unwrap_or(0);
                let loss = Loss { kept, reached, why };
                self.losses.insert(*shard, loss);
            } else if let Some(loss) = untold(standing) {
                self.losses.insert(*shard, loss);
            }
            if standing != Standing::Whole {
                batch.put_cf(cf, key, meta::standing(standing));
            }
            self.standings.insert(*shard, standing);
        }
        let mut write = WriteOptions::default();
        write.set_sync(true);
        shared.db.write_opt(batch, &write).map_err(map_error)?;
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

const STOPPED: &str = "the machine stopped with unsynced entries written";

/// What an earlier opening found, and may have found no time to tell.
fn untold(standing: Standing) -> Option<Loss> {
    let (kept, reached, why) = match standing {
        Standing::Unsynced { kept } => (kept, 0, STOPPED),
        Standing::Forgotten { kept, reached } if reached > 0 => {
            (kept, reached, "an earlier start found the store damaged")
        }
        Standing::Forgotten { .. } | Standing::Whole => return None,
    };
    let why = why.to_owned();
    Some(Loss { kept, reached, why })
}

/// Keys of entries behind the end of the log.
fn behind(shared: &Shared, log: &ShardLog) -> Result<Vec<Box<[u8]>>, StoreError> {
    let from = log.bounds.last.saturating_add(1).to_be_bytes();
    let mode = IteratorMode::From(&from, rocksdb::Direction::Forward);
    let rows = shared.db.iterator_cf(shared.cf(&log.cf)?, mode);
    rows.map(|row| row.map(|(key, _)| key).map_err(map_error))
        .collect()
}

/// Milliseconds since 1970 and 16 random bits: unlike any other, and larger than earlier ones.
fn new_number() -> Result<u64, StoreError> {
    let mut random = [0u8; 2];
    getrandom::fill(&mut random).map_err(|e| StoreError::Io(e.to_string()))?;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let ms = now.map_or(0, |d| d.as_millis() as u64);
    Ok(ms << 16 | u64::from(u16::from_be_bytes(random)))
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
    log_tail::check(&path)?;
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

/// The machine stopped, and entries it had not written back went with it. (The process was not
/// stopped in an orderly way.)
fn stopped_loose(shared: &Shared, boot_id: &str) -> Result<bool, StoreError> {
    let same_boot = meta_row(shared, meta::BOOT)?.is_some_and(|b| b == boot_id.as_bytes());
    Ok(!boot_id.is_empty() && !same_boot && meta_row(shared, meta::LOOSE)?.is_some())
}

/// What lies on the disk of a shard's log.
pub(super) struct Found {
    bounds: LogBounds,
    mark: Mark,
    /// Why the log's ends cannot be trusted.
    ends: Result<(), StoreError>,
    /// The last index found, when one before it is missing.
    hole: Option<u64>,
    applied: u64,
}

fn find(shared: &Shared, shard: ShardId) -> Result<Found, StoreError> {
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
    let ends = find_ends(shared, shard, &mut bounds);
    let state = shared.cf(CF_STATE)?;
    let applied = shared.db.get_cf(state, keys::applied::key(shard));
    let applied = match applied.map_err(map_error)? {
        Some(value) => keys::applied::decode(&value)?,
        None => 0,
    };
    Ok(Found {
        bounds,
        mark,
        ends,
        hole: None,
        applied,
    })
}

impl Found {
    /// RocksDB goes on with the next WAL where the one before has lost an unsynced end. What comes
    /// behind such a hole goes too, since a loss is always an end of the log.
    fn look_for_hole(
        &mut self,
        shared: &Shared,
        shard: ShardId,
        file_mark: Option<Mark>,
    ) -> Result<(), StoreError> {
        let epoch = self.mark.epoch;
        let file = file_mark.filter(|mark| mark.epoch == epoch);
        let synced = file.map_or(0, |mark| mark.index).max(self.mark.index);
        let from = synced.saturating_add(1).max(self.bounds.first);
        if self.ends.is_err() || from > self.bounds.last {
            return Ok(());
        }
        let kept = contiguous(shared, shard, from)?;
        if kept < self.bounds.last {
            self.hole = Some(self.bounds.last);
            self.bounds.last = kept;
        }
        Ok(())
    }

    /// Checks the log against marks, commit index and state.
    fn check(
        &self,
        shard: ShardId,
        file_mark: Option<Mark>,
        was_clean: bool,
        loose: bool,
    ) -> Result<ShardLog, StoreError> {
        self.ends.clone()?;
        let mut bounds = self.bounds;
        let (last, mark) = (bounds.last, self.mark);
        let bad = |why: String| {
            Err(StoreError::Corrupt(format!(
                "log of shard {} {why}",
                shard.0
            )))
        };
        if let (Some(reached), false) = (self.hole, loose) {
            return bad(format!(
                "has entries up to {reached}, but none at {}",
                last + 1
            ));
        }
        if self.hole.is_some() {
            // Nothing behind it was synced.
            bounds.hard_state.commit = bounds.hard_state.commit.min(last);
        }
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
            if file.epoch == mark.epoch && (last < file.index || (was_clean && last != file.index))
            {
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
        if self.applied > last {
            return bad(format!(
                "ends at {last}, before the applied index {}",
                self.applied
            ));
        }
        bounds.synced = last;
        Ok(ShardLog {
            cf: log_cf(shard),
            bounds,
            epoch: mark.epoch,
        })
    }
}

impl ShardLog {
    /// Nothing was ever written for it.
    fn is_new(&self, shared: &Shared, shard: ShardId) -> Result<bool, StoreError> {
        let hard_state = meta_row(shared, &meta::key(shard, MetaKind::HardState))?;
        Ok(hard_state.is_none() && self.bounds.last == 0 && self.bounds.first == 1)
    }
}

/// Keeps of a damaged shard what can be trusted: the log as far as it goes when the state does not
/// go further, otherwise nothing.
fn repair(
    shared: &Shared,
    shard: ShardId,
    found: &Found,
    file_mark: Option<Mark>,
    why: String,
) -> Result<(ShardLog, Loss), StoreError> {
    let file = file_mark.unwrap_or_default();
    let hard_state = found.bounds.hard_state;
    let known = [
        found.hole.unwrap_or(0),
        found.mark.index,
        file.index,
        hard_state.commit,
        found.applied,
    ];
    let reached = known.into_iter().max().unwrap_or(0);
    let mut bounds = found.bounds;
    if found.ends.is_err() || found.applied > bounds.last || found.applied + 1 < bounds.first {
        let mut batch = WriteBatch::default();
        let (from, to) = keys::all_of_shard(shard);
        batch.delete_range_cf(shared.cf(CF_STATE)?, from, to);
        let log = shared.cf(&log_cf(shard))?;
        batch.delete_range_cf(log, [0u8; 8], [u8::MAX; 8]);
        let mut write = WriteOptions::default();
        write.set_sync(true);
        shared.db.write_opt(batch, &write).map_err(map_error)?;
        bounds = default_bounds();
        // What is left of term and vote is better than nothing.
        bounds.hard_state = hard_state;
    }
    bounds.hard_state.commit = hard_state.commit.min(bounds.last);
    bounds.synced = bounds.last;
    let log = ShardLog {
        cf: log_cf(shard),
        bounds,
        epoch: found.mark.epoch.max(file.epoch) + 1,
    };
    let loss = Loss {
        kept: bounds.last,
        reached,
        why,
    };
    Ok((log, loss))
}

/// The last of the entries that follow each other from `from` on.
fn contiguous(shared: &Shared, shard: ShardId, from: u64) -> Result<u64, StoreError> {
    let cf = shared.cf(&log_cf(shard))?;
    let start = from.to_be_bytes();
    let mode = IteratorMode::From(&start, rocksdb::Direction::Forward);
    let mut next = from;
    for row in shared.db.iterator_cf(cf, mode) {
        if row.map_err(map_error)?.0[..] != next.to_be_bytes() {
            break;
        }
        next += 1;
    }
    Ok(next - 1)
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
