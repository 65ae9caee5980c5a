//! From an entry to the rows of the state store.

use crate::sample::{self, SHARD};
use criterion::{BatchSize, Criterion, Throughput};
use std::hint::black_box;
use troupemq::actors::shard::machine::{Machine, MachineOptions};
use troupemq::model::policy::AckPolicy;
use troupemq::raft::entry::{self, EntryBuilder};
use troupemq::storage::keys::index::IndexRow;

const MESSAGES: usize = 64;

/// A machine that has applied the creation of the topic.
fn machine() -> Machine {
    let mut machine = Machine::new(SHARD, MachineOptions::default());
    let create = sample::create_topic(8);
    machine.apply(&create).expect("applies");
    assert!(machine.has_topic(sample::KEY.topic.0));
    machine
}

pub fn benches(c: &mut Criterion) {
    let mut group = c.benchmark_group("apply");
    for (name, queues) in [("entry of 1 queue × 64", 1), ("entry of 8 queues × 8", 8)] {
        let messages = MESSAGES / queues as usize;
        let first = sample::entry(2, queues, messages, 0);
        group.throughput(Throughput::Elements(MESSAGES as u64));
        group.bench_function(name, |b| {
            b.iter_batched(
                machine,
                |mut machine| {
                    let applied = machine.apply(black_box(&first)).expect("applies");
                    assert_eq!(applied.events.len(), queues as usize);
                    (machine, applied)
                },
                BatchSize::SmallInput,
            )
        });
    }
    group.finish();
    entries(c);
    rows(c);
}

fn entries(c: &mut Criterion) {
    let mut group = c.benchmark_group("entry of 64");
    group.throughput(Throughput::Elements(MESSAGES as u64));
    let batch = sample::batch(MESSAGES, AckPolicy::STRICTEST);
    group.bench_function("build", |b| {
        b.iter(|| {
            let mut builder = EntryBuilder::new(2, sample::NOW_MS, batch.records.len() + 1024);
            builder
                .append(sample::KEY, 0, &batch.metas, black_box(&batch.records))
                .expect("records");
            builder.finish()
        })
    });
    let stored = sample::entry(2, 1, MESSAGES, 0);
    group.bench_function("decode", |b| {
        b.iter(|| entry::decode(2, black_box(&stored.data)).expect("decodes"))
    });
    group.finish();
}

fn rows(c: &mut Criterion) {
    let mut group = c.benchmark_group("index row of 64");
    group.throughput(Throughput::Elements(MESSAGES as u64));
    let row = IndexRow {
        log_index: 1 << 30,
        records_at: 600,
        first_ordinal: 0,
        store_ts: sample::NOW_MS,
        items: vec![(1200, 2598919); MESSAGES],
    };
    let stored = row.encode();
    group.bench_function("encode", |b| b.iter(|| black_box(&row).encode()));
    group.bench_function("decode", |b| {
        b.iter(|| IndexRow::decode(black_box(&stored)).expect("a row"))
    });
    group.finish();
}
