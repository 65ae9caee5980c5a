//! Opening the store, and the checks of what a crash left.

use super::ahead::Ahead;
use super::dir::DataDir;
use super::errors::open_error;
use super::found::{find, repair};
use super::keep::Database;
use super::marks::{Mark, Marks};
use super::meta::{self, MetaKind};
use super::reader::{ShardView, Shared};
use super::{
    log_cf, log_tail, map_error, options, RocksStore, ShardLog, StoreOptions, Syncs, CF_META,
    CF_STATE,
};
use crate::model::ShardId;
use crate::storage::points::{pass, FailPoint};
use crate::storage::{Loss, Standing, StoreError};
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
        let damage = match dir.database()? {
            Database::New => None,
            Database::There => {
                dir.keep()?;
                match Self::open_in(&dir, &options, shards, None) {
                    Ok(store) => return Ok(store),
                    Err(error) if error.is_corrupt() && options.repair => Some(error.to_string()),
                    Err(error) => {
                        // As if it had not been tried.
                        dir.undo()?;
                        return Err(error);
                    }
                }
            }
            Database::Damaged(why) if options.repair => Some(why),
            Database::Damaged(why) => return Err(StoreError::Corrupt(why)),
        };
        if damage.is_some() {
            dir.put_aside(true)?;
        }
        Self::open_in(&dir, &options, shards, damage)
    }

    /// Opens what is there, or makes a new database. `damage` tells why the one before was put aside.
    fn open_in(
        dir: &DataDir,
        options: &StoreOptions,
        shards: &[ShardId],
        damage: Option<String>,
    ) -> Result<Self, StoreError> {
        let (db, shards) = open_database(dir, options, shards)?;
        pass(FailPoint::Opened);
        let (marks, file_marks) = Marks::open(&dir.marks())?;
        let views: FxHashMap<u32, ShardView> = FxHashMap::default();
        let shared = Shared {
            db,
            shards: views,
            dir: dir.clone(),
        };
        let was_clean = meta_row(&shared, meta::CLEAN)?.is_some();
        let loose = !was_clean && stopped_loose(&shared, &options.boot_id)?;
        let mut logs = BTreeMap::new();
        let mut losses = BTreeMap::new();
        let mut holes = BTreeMap::new();
        let mut repaired = false;
        for shard in shards {
            let mut file = file_marks.iter().find(|(s, _)| *s == shard);
            if let Some(why) = &damage {
                // Without a mark something was there all the same.
                let reached = file.take().map_or(1, |(_, mark)| mark.index.max(1));
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
            found.look_for_hole(&shared, shard, file, loose)?;
            match (options.alone, options.repair) {
                (false, _) => found.look_for_damage(&shared, shard, 0)?,
                // What was applied is not applied again.
                (true, true) => found.look_for_damage(&shared, shard, 1)?,
                (true, false) => {}
            }
            let log = match found.check(shard, file, was_clean, loose) {
                Ok(log) => log,
                Err(StoreError::Corrupt(why)) if options.repair => {
                    let (log, loss) = repair(&shared, shard, &found, file, why)?;
                    repaired = true;
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
            repair: options.repair,
        };
        store.begin(&options.boot_id, loose, &holes)?;
        dir.created()?;
        dir.failed_sync_noted()?;
        if repaired {
            dir.put_aside(false)?;
        }
        dir.release()?;
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
        // What was damaged is another store from now on: nobody counts on it for what it held.
        self.number = match meta_row(&shared, meta::STORE)? {
            Some(row) if self.losses.is_empty() => meta::parse_store(&row)?,
            _ => new_number()?,
        };
        // A message for a life of the store before must not be taken for one to a life of this one.
        let lives = match meta_row(&shared, meta::LIFE)? {
            Some(row) => meta::parse_life(&row)?,
            None => self.number,
        };
        self.life = lives.saturating_add(1);
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
            if let Some(loss) = self.losses.get_mut(shard) {
                if let Standing::Forgotten { reached, .. } = standing {
                    // What was lost before is not there again yet.
                    loss.reached = loss.reached.max(reached);
                }
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
        pass(FailPoint::Begin);
        shared.db.write_opt(batch, &write).map_err(map_error)?;
        pass(FailPoint::BeginWritten);
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
        self.marks.sync()?;
        pass(FailPoint::BeginMarked);
        Ok(())
    }
}

const STOPPED: &str = "the machine stopped, or a sync failed, with unsynced entries written";

/// What an earlier opening found, and may have found no time to tell.
fn untold(standing: Standing) -> Option<Loss> {
    let (kept, reached, why) = match standing {
        Standing::Unsynced { kept } => (kept, 0, STOPPED),
        Standing::Forgotten { kept, reached } if reached > 0 => (
            kept,
            reached,
            "an earlier start found the store damaged, or its log was not the group's",
        ),
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
    let mut db_options = options::database(&StoreOptions {
        direct_io,
        ..o.clone()
    });
    let path = dir.db();
    // Where one was made before, RocksDB would begin another one beside its tables.
    db_options.create_if_missing(!path.join("CURRENT").exists());
    let mut shards: BTreeSet<ShardId> = wanted.iter().copied().collect();
    let mut families = vec![
        ColumnFamilyDescriptor::new("default", Options::default()),
        ColumnFamilyDescriptor::new(CF_STATE, options::state(o, &cache)),
        ColumnFamilyDescriptor::new(CF_META, options::meta(&cache)),
    ];
    log_tail::check(&path)?;
    if path.join("CURRENT").exists() {
        for name in DB::list_cf(&db_options, &path).map_err(open_error)? {
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
    let db = DB::open_cf_descriptors(&db_options, &path, families).map_err(open_error)?;
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

pub(super) fn meta_row(shared: &Shared, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
    shared
        .db
        .get_cf(shared.cf(CF_META)?, key)
        .map_err(map_error)
}

/// The machine stopped, or a sync failed, and entries that were not written back went with it. (The process was not
/// stopped in an orderly way.)
fn stopped_loose(shared: &Shared, boot_id: &str) -> Result<bool, StoreError> {
    let same_boot = meta_row(shared, meta::BOOT)?.is_some_and(|b| b == boot_id.as_bytes());
    let same_boot = same_boot && !shared.dir.has_failed_sync()?;
    Ok(!boot_id.is_empty() && !same_boot && meta_row(shared, meta::LOOSE)?.is_some())
}

impl ShardLog {
    /// Nothing was ever written for it.
    fn is_new(&self, shared: &Shared, shard: ShardId) -> Result<bool, StoreError> {
        let hard_state = meta_row(shared, &meta::key(shard, MetaKind::HardState))?;
        Ok(hard_state.is_none() && self.bounds.last == 0 && self.bounds.first == 1)
    }
}
