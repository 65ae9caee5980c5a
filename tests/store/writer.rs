//! The writer thread: merging, order of reports, flushing, and the end after an error.

use super::cases::{append, entries};
use super::harness::{A, B};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use troupemq::model::ShardId;
use troupemq::storage::*;

/// A simulated store that the test can look into, and hold up by holding its lock. With a gate it
/// syncs beside the appends, each sync once something has come through the gate.
#[derive(Clone)]
struct Shared(
    Arc<Mutex<SimStore>>,
    Option<crossbeam_channel::Receiver<()>>,
);

impl Shared {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(SimStore::new(&[A, B]))), None)
    }
    fn get(&self) -> MutexGuard<'_, SimStore> {
        self.0.lock().unwrap()
    }
}

impl LogStore for Shared {
    fn bounds(&self, shard: ShardId) -> Result<LogBounds, StoreError> {
        self.get().bounds(shard)
    }
    fn append(&mut self, appends: &[LogAppend]) -> Result<(), StoreError> {
        self.get().append(appends)
    }
    fn sync(&mut self) -> Result<(), StoreError> {
        self.get().sync()
    }
    fn sync_apart(&mut self) -> Option<SyncTask> {
        let (store, gate) = (self.clone(), self.1.clone()?);
        Some(Box::new(move || {
            gate.recv().map_err(|_| StoreError::Io("test".into()))?;
            store.get().sync()
        }))
    }
    fn read(
        &self,
        shard: ShardId,
        from: u64,
        to: u64,
        max: u64,
    ) -> Result<Vec<LogEntry>, StoreError> {
        self.get().read(shard, from, to, max)
    }
    fn trim(&mut self, shard: ShardId, first: u64, term: u64) -> Result<(), StoreError> {
        self.get().trim(shard, first, term)
    }
    fn mend(&mut self, shard: ShardId, entry: &LogEntry) -> Result<(), StoreError> {
        self.get().mend(shard, entry)
    }
}

impl SnapshotStore for Shared {
    fn install(
        &mut self,
        shard: ShardId,
        at: (u64, u64),
        hard_state: HardState,
        ops: &[StateOp],
    ) -> Result<(), StoreError> {
        self.get().install(shard, at, hard_state, ops)
    }
}

impl StateStore for Shared {
    fn write(&mut self, batch: &StateBatch) -> Result<(), StoreError> {
        self.get().write(batch)
    }
    fn flush(&mut self) -> Result<(), StoreError> {
        self.get().flush()
    }
    fn close(&mut self) -> Result<(), StoreError> {
        self.get().close()
    }
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Shared::get(self).get(key)
    }
    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Row>, StoreError> {
        Shared::get(self).scan(from, to, limit)
    }
    fn last(&self, from: &[u8], to: &[u8]) -> Result<Option<Row>, StoreError> {
        Shared::get(self).last(from, to)
    }
}

fn start(store: &Shared, options: WriterOptions) -> (Writer, crossbeam_channel::Receiver<Done>) {
    let (tell, told) = crossbeam_channel::unbounded();
    let on_done = Box::new(move |done| drop(tell.send(done)));
    (
        Writer::spawn(store.clone(), options, on_done).unwrap(),
        told,
    )
}

fn job(shard: ShardId, ticket: u64, index: u64, sync: bool) -> Job {
    Job::Append {
        shard,
        ticket,
        append: append(shard, index..index + 1, 1, sync),
    }
}

fn state(shard: ShardId, ticket: u64, applied: u64) -> Job {
    let op = StateOp::Put {
        key: vec![9, ticket as u8],
        value: applied.to_be_bytes().to_vec(),
    };
    Job::State {
        shard,
        ticket,
        batch: StateBatch { ops: vec![op] },
        applied,
    }
}

fn next(told: &crossbeam_channel::Receiver<Done>) -> Done {
    told.recv_timeout(Duration::from_secs(10)).unwrap()
}

#[test]
fn what_waits_is_merged_into_one_write_and_reported_in_order() {
    let store = Shared::new();
    let (writer, told) = start(&store, WriterOptions::default());
    let held = store.get();
    for n in 1..=50 {
        writer.submit(job(A, n, n, n % 10 == 0)).unwrap();
        writer.submit(job(B, n, n, false)).unwrap();
        writer.submit(state(A, n, n)).unwrap();
    }
    drop(held);
    let done: Vec<Done> = (0..150).map(|_| next(&told)).collect();
    let appended = |wanted| {
        let tickets = done.iter().filter_map(move |d| match d {
            Done::Appended { shard, ticket } if *shard == wanted => Some(*ticket),
            _ => None,
        });
        tickets.collect::<Vec<_>>()
    };
    assert_eq!(appended(A), (1..=50).collect::<Vec<_>>());
    assert_eq!(appended(B), (1..=50).collect::<Vec<_>>());
    let at = |d: &Done| done.iter().position(|x| x == d).unwrap();
    for ticket in 1..=50 {
        assert!(
            at(&Done::Appended { shard: A, ticket }) < at(&Done::StateWritten { shard: A, ticket })
        );
    }
    use std::sync::atomic::Ordering::Relaxed;
    let stats = writer.stats().clone();
    // The first round may have begun with what was there before the lock was taken.
    assert!(stats.writes.load(Relaxed) <= 2 && stats.syncs.load(Relaxed) <= 2);
    assert_eq!(stats.entries.load(Relaxed), 100);
    assert_eq!(stats.bytes.load(Relaxed), 10_000);
    assert_eq!(stats.state_batches.load(Relaxed), 50);
    writer.stop();
    assert_eq!(
        store.get().read(A, 1, 60, u64::MAX).unwrap(),
        entries(1..51, 1)
    );
    assert_eq!(
        StateStore::get(&store, &keys::applied::key(A)).unwrap(),
        Some(keys::applied::encode(50))
    );
    let mut again = store.clone();
    assert!(
        again.append(&[append(A, 51..52, 1, false)]).is_err(),
        "stopped means closed"
    );
}

/// A store whose syncs beside the appends take until something is sent.
fn gated(
    sync_after: Duration,
) -> (
    Shared,
    crossbeam_channel::Sender<()>,
    Writer,
    crossbeam_channel::Receiver<Done>,
) {
    let (open, gate) = crossbeam_channel::unbounded();
    let store = Shared(Shared::new().0, Some(gate));
    let options = WriterOptions {
        sync_after,
        ..WriterOptions::default()
    };
    let (writer, told) = start(&store, options);
    (store, open, writer, told)
}

fn appended(ticket: u64) -> Done {
    Done::Appended { shard: A, ticket }
}

#[test]
fn appends_go_on_while_what_nobody_waits_for_is_synced() {
    let (store, open, writer, told) = gated(Duration::from_secs(2));
    writer.submit(job(A, 1, 1, false)).unwrap();
    assert_eq!(next(&told), appended(1));
    assert_eq!(store.get().bounds(A).unwrap().synced, 0);
    // The sync has begun at half the time.
    std::thread::sleep(Duration::from_millis(1200));
    for n in 2..20 {
        writer.submit(job(A, n, n, false)).unwrap();
        assert_eq!(next(&told), appended(n));
    }
    assert_eq!(store.get().bounds(A).unwrap().synced, 0, "it lasts");
    // One that is waited for does not wait for the sync beside it.
    writer.submit(job(A, 20, 20, true)).unwrap();
    assert_eq!(next(&told), appended(20));
    assert_eq!(store.get().bounds(A).unwrap().synced, 20);
    open.send(()).unwrap();
    writer.stop();
}

#[test]
fn nothing_stays_unsynced_for_longer_than_it_may() {
    let (store, open, writer, told) = gated(Duration::from_millis(200));
    writer.submit(job(A, 1, 1, false)).unwrap();
    assert_eq!(next(&told), appended(1));
    let began = Instant::now();
    // The first sync begins, and lasts.
    let (go, stop) = crossbeam_channel::bounded::<()>(0);
    let opener = std::thread::spawn(move || {
        let _ = stop.recv_timeout(Duration::from_millis(1500));
        for _ in 0..100 {
            let _ = open.send(());
        }
    });
    let mut n = 1;
    while store.get().bounds(A).unwrap().synced == 0 {
        n += 1;
        writer.submit(job(A, n, n, false)).unwrap();
        assert_eq!(next(&told), appended(n));
        assert!(began.elapsed() < Duration::from_secs(10));
    }
    // Appends were held up until the sync had ended.
    assert!(began.elapsed() >= Duration::from_millis(1400));
    drop(go);
    opener.join().unwrap();
    writer.stop();
    assert_eq!(store.get().bounds(A).unwrap().synced, n);
}

#[test]
fn a_failed_sync_beside_the_appends_is_final() {
    let (_store, open, writer, told) = gated(Duration::from_millis(20));
    drop(open);
    writer.submit(job(A, 1, 1, false)).unwrap();
    assert_eq!(next(&told), appended(1));
    assert!(matches!(next(&told), Done::Failed { .. }));
    assert!(writer.submit(job(A, 2, 2, false)).is_err());
}

#[test]
fn an_error_is_reported_once_and_later_jobs_are_refused() {
    let store = Shared::new();
    let (writer, told) = start(&store, WriterOptions::default());
    writer.submit(job(A, 1, 1, true)).unwrap();
    assert_eq!(
        next(&told),
        Done::Appended {
            shard: A,
            ticket: 1
        }
    );
    store.get().inject(Fault::SyncError);
    writer.submit(job(A, 2, 2, true)).unwrap();
    assert!(matches!(
        next(&told),
        Done::Failed {
            error: StoreError::Io(_)
        }
    ));
    assert!(writer.submit(job(A, 3, 3, true)).is_err());
    assert!(writer.stats().has_failed());
    writer.stop();
    assert!(
        told.try_recv().is_err(),
        "nothing is reported after the failure"
    );
}

#[test]
fn trims_and_flushes_make_state_durable() {
    let store = Shared::new();
    let options = WriterOptions {
        flush_after_bytes: 1000,
        ..WriterOptions::default()
    };
    let (writer, told) = start(&store, options);
    writer.submit(job(A, 1, 1, false)).unwrap();
    writer.submit(state(A, 2, 1)).unwrap();
    writer
        .submit(Job::Trim {
            shard: A,
            ticket: 3,
            first: 2,
            term: 1,
        })
        .unwrap();
    assert_eq!(
        next(&told),
        Done::Appended {
            shard: A,
            ticket: 1
        }
    );
    assert_eq!(
        next(&told),
        Done::StateWritten {
            shard: A,
            ticket: 2
        }
    );
    assert_eq!(
        next(&told),
        Done::Trimmed {
            shard: A,
            ticket: 3
        }
    );
    let applied = |store: &Shared| StateStore::get(store, &keys::applied::key(A)).unwrap();
    let survives = |store: &Shared| {
        // Some seed would lose what is not durable.
        (0..20).all(|seed| {
            let after = Shared(Arc::new(Mutex::new(store.get().clone())), None);
            after.get().crash(&mut SimRng::new(seed));
            applied(&after) == applied(store)
        })
    };
    assert!(survives(&store));
    writer.submit(state(A, 4, 1)).unwrap();
    next(&told);
    for n in 2..10 {
        writer.submit(job(A, n, n, false)).unwrap();
        next(&told);
    }
    writer.submit(state(A, 5, 9)).unwrap();
    next(&told);
    assert_eq!(applied(&store), Some(keys::applied::encode(9)));
    assert!(!survives(&store), "800 bytes do not call for a flush yet");
    for n in 10..14 {
        writer.submit(job(A, n, n, false)).unwrap();
        next(&told);
    }
    let deadline = Instant::now() + Duration::from_secs(10);
    while !survives(&store) {
        assert!(
            Instant::now() < deadline,
            "more than 1000 bytes call for a flush"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    writer.submit(state(A, 6, 10)).unwrap();
    next(&told);
    writer.submit(Job::Flush).unwrap();
    while !survives(&store) {
        assert!(Instant::now() < deadline, "a flush was asked for");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn idle_changes_are_flushed_by_time_and_the_disk_is_looked_at() {
    let dir = tempfile::tempdir().unwrap();
    let store = Shared::new();
    let options = WriterOptions {
        flush_after: Duration::from_millis(50),
        check_every: Duration::from_millis(10),
        disk_path: Some(dir.path().to_owned()),
        ..WriterOptions::default()
    };
    let (writer, told) = start(&store, options);
    writer.submit(job(A, 1, 1, false)).unwrap();
    writer.submit(state(A, 2, 1)).unwrap();
    next(&told);
    let stats = writer.stats().clone();
    let deadline = Instant::now() + Duration::from_secs(10);
    let flushes = || stats.flushes.load(std::sync::atomic::Ordering::Relaxed);
    while flushes() == 0 || stats.disk_used_ratio() == 0.0 {
        assert!(Instant::now() < deadline, "no flush by time");
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(Duration::from_millis(150));
    assert_eq!(flushes(), 1, "nothing changed, nothing to flush");
    assert!(stats.disk_used_ratio() < 1.0);
}

#[test]
fn a_full_read_pool_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = RocksStore::open(dir.path(), StoreOptions::default(), &[A]).unwrap();
    store.append(&[append(A, 1..5, 1, false)]).unwrap();
    let pool = ReadPool::spawn(&store.reader(), 2).unwrap();
    let (tell, told) = crossbeam_channel::unbounded();
    pool.submit(Box::new(move |r: &Reader| {
        drop(tell.send(r.read_entry(A, 3)))
    }))
    .unwrap();
    let read = told.recv_timeout(Duration::from_secs(10)).unwrap().unwrap();
    assert_eq!(read, entries(3..4, 1).pop());
    let gate = Arc::new(Mutex::new(()));
    let held = gate.lock().unwrap();
    let mut taken = 0;
    while taken < 10_000 {
        let gate = gate.clone();
        if pool.submit(Box::new(move |_: &Reader| drop(gate.lock()))) == Err(ReadPoolFull) {
            break;
        }
        taken += 1;
    }
    assert!((500..10_000).contains(&taken), "{taken}");
    drop(held);
}

#[test]
fn index_rows_are_found_by_offset() {
    use keys::index::{self, IndexRow};
    use troupemq::model::{QueueKey, TopicId};
    let dir = tempfile::tempdir().unwrap();
    let mut store = RocksStore::open(dir.path(), StoreOptions::default(), &[A]).unwrap();
    let queue = QueueKey::new(TopicId(7), 2);
    let row = |n: u32| IndexRow {
        log_index: n.into(),
        items: vec![(10, 1); 5],
        ..IndexRow::default()
    };
    let mut ops = Vec::new();
    for (base, n) in [(100, 1), (105, 2), (115, 3), (120, 4)] {
        ops.push(StateOp::Put {
            key: index::key(A, queue, base),
            value: row(n).encode(),
        });
    }
    // Neighbours that must not be taken for the queue's own.
    for other in [QueueKey::new(TopicId(7), 1), QueueKey::new(TopicId(7), 3)] {
        ops.push(StateOp::Put {
            key: index::key(A, other, 110),
            value: row(9).encode(),
        });
    }
    store.write(&StateBatch { ops }).unwrap();
    let reader = store.reader();
    let at = |offset| {
        reader
            .index_row_at_or_before(A, queue, offset)
            .unwrap()
            .map(|(base, _)| base)
    };
    assert_eq!(
        [at(99), at(100), at(104), at(105), at(114), at(u64::MAX)],
        [None, Some(100), Some(100), Some(105), Some(105), Some(120)]
    );
    let from = |offset, limit| -> Vec<u64> {
        reader
            .index_rows(A, queue, offset, limit)
            .unwrap()
            .into_iter()
            .map(|(base, _)| base)
            .collect()
    };
    assert_eq!(from(0, 9), [100, 105, 115, 120]);
    assert_eq!(from(104, 2), [100, 105]);
    assert_eq!(from(109, 9), [105, 115, 120]);
    assert_eq!(from(110, 9), [115, 120], "110 to 114 are missing");
    assert_eq!(from(124, 9), [120]);
    assert!(from(125, 9).is_empty() && from(100, 0).is_empty());
    assert_eq!(
        reader.index_rows(A, queue, 105, 1).unwrap(),
        [(105, row(2))]
    );
}
