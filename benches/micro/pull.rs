//! Reading a batch of 32: from the tail cache, and through index rows from the store.

use crate::sample::{self, KEY, SHARD};
use criterion::{Criterion, Throughput};
use std::cell::LazyCell;
use troupemq::actors::shard::machine::{Event, Machine, MachineOptions};
use troupemq::actors::shard::reads::Reads;
use troupemq::actors::shard::views::{Segment, Views};
use troupemq::model::append::{ReadBatch, ReadSpec};
use troupemq::storage::{
    LogAppend, LogEntry, LogStore, RocksStore, StateBatch, StateStore, StoreOptions,
};

const PULL: u32 = 32;
/// Messages of an entry, and entries: 75 MiB of records, more than the cache of entries holds.
const MESSAGES: usize = 16;
const ENTRIES: u64 = 4_000;
const END: u64 = ENTRIES * MESSAGES as u64;

const SPEC: ReadSpec = ReadSpec {
    max_messages: PULL,
    max_bytes: 1 << 20,
    tags: None,
    max_scan: 800,
};

/// The same records in the cache and in a store.
struct Filled {
    // Fields are dropped in this order: the directory goes last.
    views: Views,
    reads: Reads,
    _store: RocksStore,
    _dir: tempfile::TempDir,
}

pub fn benches(c: &mut Criterion) {
    // Filled when it is measured.
    let filled = LazyCell::new(Filled::new);
    let mut group = c.benchmark_group("pull 32 of 1 KiB");
    group.throughput(Throughput::Elements(PULL.into()));
    let mut at = 0;
    group.bench_function("tail cache", |b| {
        let view = filled.views.get(KEY).expect("the queue");
        b.iter(|| next(&mut at, |from| view.read(from, &SPEC).expect("cached")))
    });
    let mut at = 0;
    group.bench_function("store, in order", |b| {
        let reads = &filled.reads;
        b.iter(|| {
            next(&mut at, |from| {
                reads.read(KEY, from, END, &SPEC).expect("reads")
            })
        })
    });
    group.finish();
}

/// Reads the next batch; begins again at the end.
fn next(at: &mut u64, read: impl FnOnce(u64) -> ReadBatch) -> ReadBatch {
    let batch = read(*at);
    assert_eq!(batch.messages, PULL);
    assert_eq!(batch.next_offset, *at + u64::from(PULL));
    *at = batch.next_offset % END;
    batch
}

impl Filled {
    /// Writes entries with their index rows, and the same records into the cache.
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let store = RocksStore::open(dir.path(), StoreOptions::default(), &[SHARD]);
        let mut store = store.expect("opens");
        let views = Views::new(usize::MAX);
        let mut machine = Machine::new(SHARD, MachineOptions::default());
        put(&mut store, &views, &mut machine, sample::create_topic(1));
        for n in 0..ENTRIES {
            let entry = sample::entry(n + 2, 1, MESSAGES, n * MESSAGES as u64);
            put(&mut store, &views, &mut machine, entry);
        }
        store.flush().expect("flushes");
        Self {
            views,
            reads: Reads::new(SHARD, store.reader()),
            _store: store,
            _dir: dir,
        }
    }
}

fn put(store: &mut RocksStore, views: &Views, machine: &mut Machine, entry: LogEntry) {
    let applied = machine.apply(&entry).expect("applies");
    let append = LogAppend {
        shard: SHARD,
        entries: vec![entry.clone()],
        hard_state: None,
        sync: false,
    };
    store.append(&[append]).expect("appends");
    let batch = StateBatch { ops: applied.rows };
    store.write(&batch).expect("writes");
    for event in applied.events {
        if let Event::Appended(block) = event {
            let from = block.records_at as usize;
            let segment = Segment {
                base: block.base,
                index: entry.index,
                store_ts: applied.at_ms,
                metas: block.metas.into(),
                records: entry.data.slice(from..from + block.records_len as usize),
            };
            views.append(block.key, segment);
        }
    }
}
