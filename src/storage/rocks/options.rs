//! RocksDB settings, and why.

use rocksdb::{BlockBasedOptions, Cache, DBCompressionType, DBRecoveryMode, LogLevel, Options};

/// Sizes of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreOptions {
    /// Size at which the memtable of one shard's log is written out as a file.
    pub memtable_bytes: usize,
    /// Size at which the memtable of the state rows is written out.
    pub state_memtable_bytes: usize,
    /// One cache for the blocks of all files.
    pub block_cache_bytes: usize,
    /// WAL files beyond this sum make RocksDB write out the memtables that hold them.
    pub max_wal_bytes: u64,
    pub background_jobs: i32,
    /// Sorted files kept open at most. One that is not is opened when something of it is read.
    pub max_open_files: i32,
    /// Files are written past the page cache, where the file system can do that.
    pub direct_io: bool,
    /// The machine's boot, to tell a stop of the machine from one of the process. Empty: they are
    /// not told apart.
    pub boot_id: String,
    /// Others have what this store holds: one that is damaged opens with what can be trusted, and
    /// its shards are [`crate::storage::Standing::Forgotten`]. Otherwise it does not open.
    pub repair: bool,
    /// Nobody else has what this store holds. What can be kept of it is kept, so a bad entry is left to whoever
    /// replays it.
    pub alone: bool,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            memtable_bytes: 32 << 20,
            state_memtable_bytes: 32 << 20,
            block_cache_bytes: 128 << 20,
            max_wal_bytes: 512 << 20,
            background_jobs: 2,
            max_open_files: 512,
            direct_io: true,
            boot_id: String::new(),
            repair: false,
            alone: false,
        }
    }
}

/// Of the whole database. Point-in-time recovery takes a torn tail as the end of the log; that
/// it is no more than that is our own check (see `marks`). WAL files are tracked in the manifest,
/// so that a missing one is seen.
pub(super) fn database(o: &StoreOptions) -> Options {
    let mut db = Options::default();
    db.create_if_missing(true);
    db.create_missing_column_families(true);
    db.set_paranoid_checks(true);
    db.set_track_and_verify_wals_in_manifest(true);
    db.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    db.set_max_background_jobs(o.background_jobs);
    // RocksDB takes ten of them for other files.
    db.set_max_open_files(o.max_open_files.saturating_add(10));
    db.set_max_total_wal_size(o.max_wal_bytes);
    // Write files back as they grow instead of all at once at the end.
    db.set_bytes_per_sync(1 << 20);
    db.set_wal_bytes_per_sync(1 << 20);
    // See docs/decisions/0012. The WAL stays in the page cache: its pages are used again and again.
    db.set_use_direct_io_for_flush_and_compaction(o.direct_io);
    // One thread writes: the locks for concurrent insertion would buy nothing.
    db.set_allow_concurrent_memtable_write(false);
    db.set_enable_write_thread_adaptive_yield(false);
    db.set_stats_dump_period_sec(0);
    db.set_stats_persist_period_sec(0);
    db.set_keep_log_file_num(4);
    db.set_max_log_file_size(4 << 20);
    db.set_log_level(LogLevel::Warn);
    // Tests count the syncs.
    #[cfg(test)]
    db.enable_statistics();
    db
}

fn blocks(cache: &Cache, size: usize) -> BlockBasedOptions {
    let mut b = BlockBasedOptions::default();
    b.set_block_cache(cache);
    b.set_block_size(size);
    b.set_cache_index_and_filter_blocks(false);
    b
}

/// Of one shard's log. Keys rise, so files never overlap: a single file in level 0 is moved down
/// at once without being rewritten, to the one level from which trimming can delete it whole
/// (RocksDB deletes no files of level 0 by range). No compression, no blob files, and no
/// rewriting by age.
pub(super) fn log(o: &StoreOptions, cache: &Cache) -> Options {
    let mut cf = Options::default();
    cf.set_compression_type(DBCompressionType::None);
    cf.set_write_buffer_size(o.memtable_bytes);
    cf.set_max_write_buffer_number(3);
    cf.set_num_levels(2);
    cf.set_level_zero_file_num_compaction_trigger(1);
    cf.set_level_zero_slowdown_writes_trigger(40);
    cf.set_level_zero_stop_writes_trigger(80);
    cf.set_target_file_size_base((o.memtable_bytes as u64).max(1 << 20) * 2);
    cf.set_ttl(0);
    cf.set_periodic_compaction_seconds(0);
    cf.set_memtable_prefix_bloom_ratio(0.0);
    cf.set_block_based_table_factory(&blocks(cache, 32 << 10));
    cf
}

/// Of the state rows: small values, point look-ups and short scans.
pub(super) fn state(o: &StoreOptions, cache: &Cache) -> Options {
    let mut cf = Options::default();
    cf.set_compression_type(DBCompressionType::Lz4);
    cf.set_write_buffer_size(o.state_memtable_bytes);
    cf.set_max_write_buffer_number(4);
    cf.set_ttl(0);
    cf.set_periodic_compaction_seconds(0);
    let mut table = blocks(cache, 8 << 10);
    table.set_bloom_filter(10.0, false);
    cf.set_block_based_table_factory(&table);
    cf
}

/// Of hard states and bounds: a few rows, overwritten all the time.
pub(super) fn meta(cache: &Cache) -> Options {
    let mut cf = Options::default();
    cf.set_compression_type(DBCompressionType::None);
    cf.set_write_buffer_size(4 << 20);
    cf.set_ttl(0);
    cf.set_periodic_compaction_seconds(0);
    cf.set_block_based_table_factory(&blocks(cache, 4 << 10));
    cf
}
