//! Appends to the log through the writer thread, from the job to its report, one after the other.

use crate::sample::{self, SHARD};
use criterion::{BenchmarkId, Criterion, Throughput};
use crossbeam_channel::unbounded;
use std::time::{Duration, Instant};
use troupemq::storage::{
    Done, Job, LogAppend, LogEntry, RocksStore, StoreOptions, Writer, WriterOptions,
};

pub fn benches(c: &mut Criterion) {
    let mut group = c.benchmark_group("log append");
    for (name, sync) in [("written", false), ("synced", true)] {
        for messages in [1usize, 64] {
            group.throughput(Throughput::Elements(messages as u64));
            // Opened when it is measured, and one for all samples.
            let mut log = None;
            group.bench_function(BenchmarkId::new(name, messages), |b| {
                let log = log.get_or_insert_with(|| Log::open(messages));
                b.iter_custom(|times| log.append(times, sync));
            });
        }
    }
    group.finish();
}

struct Log {
    // Fields are dropped in this order: the directory goes last.
    writer: Writer,
    done: crossbeam_channel::Receiver<Done>,
    entry: LogEntry,
    _dir: tempfile::TempDir,
}

impl Log {
    fn open(messages: usize) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let store = RocksStore::open(dir.path(), StoreOptions::default(), &[SHARD]);
        let (tell, done) = unbounded();
        let on_done = Box::new(move |report| {
            let _ = tell.send(report);
        });
        let writer = Writer::spawn(store.expect("a store"), WriterOptions::default(), on_done);
        Self {
            writer: writer.expect("a thread"),
            done,
            entry: sample::entry(1, 1, messages, 0),
            _dir: dir,
        }
    }

    /// Time of so many appends of one entry.
    fn append(&mut self, times: u64, sync: bool) -> Duration {
        let start = Instant::now();
        for _ in 0..times {
            let append = LogAppend {
                shard: SHARD,
                entries: vec![self.entry.clone()],
                hard_state: None,
                sync,
            };
            let ticket = self.entry.index;
            let job = Job::Append {
                shard: SHARD,
                ticket,
                append,
            };
            self.writer.submit(job).expect("a running writer");
            let wanted = Done::Appended {
                shard: SHARD,
                ticket,
            };
            assert_eq!(self.done.recv().expect("a report"), wanted);
            self.entry.index += 1;
        }
        start.elapsed()
    }
}
