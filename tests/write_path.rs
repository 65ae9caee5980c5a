//! The write path of one shard with a real store: append, commit, read from both places, delayed
//! messages, and everything again after a restart.

use actix_rt::{Arbiter, System};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use troupemq::actors::shard::core::Schedule;
use troupemq::actors::shard::handle::Boundary;
use troupemq::actors::shard::start::{start_shard, RunningShard, StartShard};
use troupemq::actors::sinks::{ReplySink, Sinks};
use troupemq::model::append::{AppendBatch, AppendRequest, ReadSpec, RecordMeta};
use troupemq::model::command::MetaOp;
use troupemq::model::outcome::{Completion, Outcome, Token};
use troupemq::model::policy::AckPolicy;
use troupemq::model::topic::TopicConfig;
use troupemq::model::{record, QueueKey, ShardId, TopicId};
use troupemq::raft::RaftOptions;
use troupemq::storage::{RocksStore, StoreOptions, WriterOptions};

struct Channel(std::sync::mpsc::Sender<Completion>);
impl ReplySink for Channel {
    fn deliver(&self, batch: Vec<Completion>) {
        for completion in batch {
            let _ = self.0.send(completion);
        }
    }
}

const SHARD: ShardId = ShardId(1);

fn start(dir: &Path, sinks: &Sinks, arbiter: &Arbiter) -> RunningShard {
    let store = RocksStore::open(dir, StoreOptions::default(), &[SHARD]).expect("store opens");
    let options = StartShard {
        tick: std::time::Duration::from_millis(100),
        shard: SHARD,
        raft: RaftOptions::single(1, 7),
        policy: AckPolicy::STRICTEST,
        segment_bytes: 1 << 20,
        retention_ms: 3_600_000,
        retention_bytes: 0,
        tail_cache_bytes: 64 << 10,
        read_threads: 1,
        writer: WriterOptions::default(),
        flush_timeout: std::time::Duration::ZERO,
        replica_timeout: std::time::Duration::ZERO,
        catch_up_bytes_per_second: 0,
        quotas: Default::default(),
    };
    start_shard(store, options, sinks.clone(), &arbiter.handle()).expect("shard starts")
}

fn stop(shard: RunningShard, arbiter: Arbiter) {
    drop(shard.handle);
    arbiter.stop();
    let _ = arbiter.join();
    shard.writer.stop();
}

fn blank_record(n: u32) -> Vec<u8> {
    let mut r = vec![0u8; record::MIN_RECORD_LEN + 1024];
    let len = r.len() as u32;
    r[..4].copy_from_slice(&len.to_be_bytes());
    r[4..8].copy_from_slice(&record::MAGIC_V1.to_be_bytes());
    let at = record::MIN_RECORD_LEN;
    r[at..at + 4].copy_from_slice(&n.to_be_bytes());
    r
}

fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

const SPEC: ReadSpec = ReadSpec {
    max_messages: 10_000,
    max_bytes: 64 << 20,
    tags: None,
    max_scan: 100_000,
};

fn numbers(shard: &RunningShard, key: QueueKey, stored: bool) -> Vec<u32> {
    let max = shard.handle.bounds(key).max;
    let mut at = 0;
    let mut out = Vec::new();
    let until = std::time::Instant::now() + Duration::from_secs(10);
    while at < max {
        let batch = match stored {
            true => shard.handle.read_stored(key, at, &SPEC).expect("reads"),
            false => shard
                .handle
                .read_tail(key, at, &SPEC)
                .expect("is in the cache"),
        };
        for slice in &batch.slices {
            let mut rest = &slice[..];
            while !rest.is_empty() {
                let (one, more) = rest.split_at(record::record_len(rest).expect("a record"));
                assert_eq!(
                    record::queue_offset(one),
                    Some(out.len() as i64),
                    "offsets are contiguous"
                );
                let n = record::MIN_RECORD_LEN;
                out.push(u32::from_be_bytes(
                    one[n..n + 4].try_into().expect("4 bytes"),
                ));
                rest = more;
            }
        }
        // The newest rows are written behind; until then the cache has them.
        if stored && batch.next_offset == at && std::time::Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
            continue;
        }
        assert!(batch.next_offset > at, "reads go on");
        at = batch.next_offset;
    }
    out
}

#[test]
fn appends_are_ordered_readable_and_survive_a_restart() {
    let dir = tempfile::tempdir().expect("tempdir");
    let _system = System::new();
    let sinks = Sinks::default();
    let (tell, told) = std::sync::mpsc::channel();
    let sink = sinks.register(Arc::new(Channel(tell)));
    let arbiter = Arbiter::new();
    let shard = start(dir.path(), &sinks, &arbiter);
    wait_for("leadership", || {
        shard.handle.status().serving().then_some(())
    });

    let (done, applied) = std::sync::mpsc::channel();
    let op = MetaOp::EnsureTopic(TopicConfig::new("t", 4, 6));
    shard
        .handle
        .propose(op, Box::new(move |r| done.send(r).expect("waits")));
    applied
        .recv_timeout(Duration::from_secs(10))
        .expect("answer")
        .expect("applied");
    let topic = TopicId(shard.handle.meta().topic("t").expect("there").id);

    for n in 0..400u32 {
        let r = blank_record(n);
        let request = AppendRequest {
            token: Token {
                sink,
                slot: u64::from(n),
            },
            count: 1,
            policy: if n % 3 == 0 {
                AckPolicy::LEADER_APPENDED
            } else {
                AckPolicy::STRICTEST
            },
        };
        let metas = vec![RecordMeta {
            size: r.len() as u32,
            tag: (n % 2) as i32,
        }];
        let batch = AppendBatch {
            requests: vec![request],
            metas,
            records: r,
        };
        shard.handle.append(QueueKey::new(topic, n % 4), batch);
    }
    let mut acked = std::collections::BTreeMap::new();
    while acked.len() < 400 {
        let c = told
            .recv_timeout(Duration::from_secs(10))
            .expect("every request is answered");
        match c.outcome {
            Outcome::Appended {
                queue,
                base_offset,
                position,
            } => {
                let before = acked.insert(c.token.slot, (queue, base_offset, position));
                assert_eq!(before, None, "one answer a request");
            }
            other => panic!("{other:?}"),
        }
    }
    for (n, (queue, offset, position)) in &acked {
        assert_eq!(
            (u64::from(*queue), *offset),
            (n % 4, n / 4),
            "order of one caller is kept"
        );
        let found = shard
            .handle
            .read_record(*position)
            .expect("reads")
            .expect("is there");
        assert_eq!(record::phys_offset(&found), Some(position.to_physical()));
    }
    let key = QueueKey::new(topic, 1);
    let expect: Vec<u32> = (0..100).map(|i| i * 4 + 1).collect();
    // The cache lets go of what can be read from the store, and that is written behind.
    let until = std::time::Instant::now() + Duration::from_secs(10);
    while shard.handle.read_tail(key, 0, &SPEC).is_some() {
        assert!(
            std::time::Instant::now() < until,
            "64 KiB hold only the newest"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(numbers(&shard, key, true), expect);
    assert_eq!(
        shard
            .handle
            .offset_by_time(key, 0, Boundary::Lower)
            .expect("search"),
        0
    );
    assert_eq!(
        shard
            .handle
            .offset_by_time(key, i64::MAX, Boundary::Lower)
            .expect("search"),
        100
    );

    let now = troupemq::actors::clock::wall_ms();
    let schedule = |slot, due_ms| Schedule {
        token: Token { sink, slot },
        policy: AckPolicy::STRICTEST,
        due_ms,
        target: key,
        tag: 0,
        record: blank_record(slot as u32),
        again: false,
    };
    shard.handle.schedule(schedule(1000, now + 300));
    shard.handle.schedule(schedule(1001, now + 1500));
    for _ in 0..2 {
        let c = told.recv_timeout(Duration::from_secs(10)).expect("answer");
        assert!(matches!(c.outcome, Outcome::Scheduled { .. }), "{c:?}");
    }
    wait_for("the first delayed message", || {
        (shard.handle.bounds(key).max == 101).then_some(())
    });
    let at = shard
        .handle
        .store_time(key, 100)
        .expect("reads")
        .expect("is there");
    assert!(at >= now + 300, "never early");
    stop(shard, arbiter);

    let arbiter = Arbiter::new();
    let shard = start(dir.path(), &sinks, &arbiter);
    assert_eq!(shard.handle.bounds(key).max, 101);
    wait_for("the second delayed message", || {
        (shard.handle.bounds(key).max == 102).then_some(())
    });
    let mut all = expect;
    all.extend([1000, 1001]);
    assert_eq!(numbers(&shard, key, true), all);
    stop(shard, arbiter);
}

#[test]
fn a_waking_queue_keeps_the_order_of_its_first_messages() {
    const QUEUES: u32 = 400;
    const EACH: u32 = 8;
    let dir = tempfile::tempdir().expect("tempdir");
    let _system = System::new();
    let sinks = Sinks::default();
    let (tell, told) = std::sync::mpsc::channel();
    let sink = sinks.register(Arc::new(Channel(tell)));
    let arbiter = Arbiter::new();
    let shard = start(dir.path(), &sinks, &arbiter);
    wait_for("leadership", || {
        shard.handle.status().serving().then_some(())
    });
    let (done, applied) = std::sync::mpsc::channel();
    let op = MetaOp::EnsureTopic(TopicConfig::new("many", QUEUES, 6));
    shard
        .handle
        .propose(op, Box::new(move |r| done.send(r).expect("waits")));
    applied
        .recv_timeout(Duration::from_secs(10))
        .expect("answer")
        .expect("applied");
    let topic = TopicId(shard.handle.meta().topic("many").expect("there").id);

    // The queue wakes somewhere in the middle of these: later ones go to it directly.
    for n in 0..QUEUES * EACH {
        let record = blank_record(n);
        let batch = AppendBatch {
            requests: vec![AppendRequest {
                token: Token {
                    sink,
                    slot: u64::from(n),
                },
                count: 1,
                policy: AckPolicy::LEADER_APPENDED,
            }],
            metas: vec![RecordMeta {
                size: record.len() as u32,
                tag: 0,
            }],
            records: record,
        };
        shard.handle.append(QueueKey::new(topic, n / EACH), batch);
    }
    for _ in 0..QUEUES * EACH {
        let c = told
            .recv_timeout(Duration::from_secs(20))
            .expect("every request is answered");
        match c.outcome {
            Outcome::Appended {
                queue, base_offset, ..
            } => assert_eq!(
                (u64::from(queue), base_offset),
                (
                    c.token.slot / u64::from(EACH),
                    c.token.slot % u64::from(EACH)
                ),
                "order of one caller is kept"
            ),
            other => panic!("{other:?}"),
        }
    }
    stop(shard, arbiter);
}
