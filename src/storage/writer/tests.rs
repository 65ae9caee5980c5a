use super::*;
use crate::model::ShardId;
use crate::storage::{LogAppend, RocksStore, StateBatch, StoreOptions};
use crossbeam_channel::unbounded;

#[test]
fn a_panic_in_the_writer_is_a_failed_store() {
    let dir = tempfile::tempdir().unwrap();
    let store = RocksStore::open(dir.path(), StoreOptions::default(), &[ShardId(1)]).unwrap();
    let (tell, told) = unbounded();
    let on_done = Box::new(move |done| match done {
        Done::StateWritten { .. } => panic!("test"),
        other => tell.send(other).unwrap(),
    });
    let writer = Writer::spawn(store, WriterOptions::default(), on_done).unwrap();
    let job = || Job::State {
        shard: ShardId(1),
        ticket: 1,
        batch: StateBatch::default(),
        applied: 1,
    };
    writer.submit(job()).unwrap();
    let done = told.recv_timeout(Duration::from_secs(20)).unwrap();
    assert!(matches!(done, Done::Failed { .. }));
    assert!(writer.submit(job()).is_err(), "later jobs are refused");
}

#[test]
fn a_single_job_is_done_by_whoever_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = RocksStore::open(dir.path(), StoreOptions::default(), &[ShardId(1)]).unwrap();
    let reader = store.reader();
    let (tell, told) = unbounded();
    let on_done = Box::new(move |done| {
        tell.send((std::thread::current().id(), done)).unwrap();
    });
    let writer = Writer::spawn(store, WriterOptions::default(), on_done).unwrap();
    let handle = writer.handle();
    let job = |index| Job::Append {
        shard: ShardId(1),
        ticket: index,
        append: LogAppend {
            shard: ShardId(1),
            entries: vec![crate::storage::LogEntry {
                index,
                term: 1,
                kind: 0,
                data: bytes::Bytes::from_static(b"x"),
            }],
            hard_state: None,
            sync: true,
        },
    };
    let me = std::thread::current().id();
    for index in 1..=20 {
        // The writer may be looking at its clocks at this very moment.
        let here = handle.submit_here(job(index)).unwrap();
        let (by, done) = match here {
            true => told.try_recv().unwrap(),
            false => told.recv_timeout(Duration::from_secs(20)).unwrap(),
        };
        assert_eq!(here, by == me);
        let shard = ShardId(1);
        assert_eq!(
            done,
            Done::Appended {
                shard,
                ticket: index
            }
        );
        assert_eq!(reader.log_range(shard).unwrap(), (1, index));
    }
    assert_eq!(writer.stats().syncs.load(Ordering::Relaxed), 20);
    writer.stop();
    assert!(handle.submit_here(job(21)).is_err(), "the writer has ended");
    assert!(told.is_empty());
}
