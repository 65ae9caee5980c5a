use super::*;
use crate::model::TopicId;
use crate::storage::keys::index;
use crate::storage::{LogAppend, LogEntry, LogStore, RocksStore, StoreOptions};
use crate::storage::{StateBatch, StateOp, StateStore};

const SHARD: ShardId = ShardId(1);

#[test]
fn a_trimmed_entry_is_absent_and_no_error() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = RocksStore::open(dir.path(), StoreOptions::default(), &[SHARD]).unwrap();
    let entries = (1..=3).map(|index| LogEntry {
        index,
        term: 1,
        kind: 0,
        data: Bytes::from(vec![index as u8; 4]),
    });
    let append = LogAppend {
        shard: SHARD,
        entries: entries.collect(),
        hard_state: None,
        sync: false,
    };
    store.append(&[append]).unwrap();
    store.trim(SHARD, 3, 1).unwrap();
    let (reads, reader) = (Recent::new(SHARD), store.reader());
    assert_eq!(reads.entry(&reader, 1), Ok(Found::Nothing));
    assert_eq!(
        reads.entry(&reader, 3),
        Ok(Found::Data(Bytes::from_static(&[3; 4])))
    );
    assert_eq!(reads.entry(&reader, 4), Ok(Found::Nothing));
    let gone = Position {
        index: 2,
        ordinal: 0,
    };
    assert_eq!(reads.record(&reader, gone), Ok(None));
}

/// A queue of 40 records of 10 bytes, 4 in each of 10 entries but the fourth, which retention
/// dropped. Record n is full of n, its tag is n % 2.
fn filled(store: &mut RocksStore, key: QueueKey) {
    let bytes = |i: u64| (0..4u64).flat_map(move |n| [(i * 4 + n) as u8; 10]);
    let entries = (0..10u64).map(|i| LogEntry {
        index: i + 1,
        term: 1,
        kind: 0,
        data: bytes(i).collect(),
    });
    let append = LogAppend {
        shard: SHARD,
        entries: entries.collect(),
        hard_state: None,
        sync: false,
    };
    store.append(&[append]).unwrap();
    let rows = (0..10u64).filter(|i| *i != 3).map(|i| StateOp::Put {
        key: index::key(SHARD, key, i * 4),
        value: IndexRow {
            log_index: i + 1,
            items: vec![(10, 0), (10, 1), (10, 0), (10, 1)],
            ..IndexRow::default()
        }
        .encode(),
    });
    let batch = StateBatch {
        ops: rows.collect(),
    };
    store.write(&batch).unwrap();
}

#[test]
fn a_reader_that_goes_on_gets_from_memory_what_the_store_holds() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = RocksStore::open(dir.path(), StoreOptions::default(), &[SHARD]).unwrap();
    let key = QueueKey::new(TopicId(1), 2);
    filled(&mut store, key);
    for tags in [None, Some(Arc::from([1]))] {
        let wanted = |n: &u8| !(12..16).contains(n) && (tags.is_none() || n % 2 == 1);
        let want: Vec<u8> = (0..40).filter(wanted).collect();
        for max_messages in [1, 3, 7, 100] {
            let spec = ReadSpec {
                max_messages,
                max_bytes: 1 << 20,
                tags: tags.clone(),
                max_scan: 800,
            };
            let (reads, reader) = (Recent::new(SHARD), store.reader());
            let (mut got, mut at, mut cached) = (Vec::new(), 0, 0);
            while at < 40 {
                let batch = match reads.read_cached(key, at, &spec) {
                    Some(batch) => {
                        cached += 1;
                        batch
                    }
                    None => reads.read(&reader, key, at, 40, &spec).unwrap(),
                };
                let records = batch.slices.iter().flat_map(|s| s.chunks(10));
                got.extend(records.map(|r| r[0]));
                assert!(batch.next_offset > at && batch.messages <= max_messages);
                at = batch.next_offset;
            }
            assert_eq!(got, want, "{max_messages} at a time");
            assert!(max_messages > 3 || cached > 0, "{max_messages} at a time");
        }
    }
}

#[test]
fn the_oldest_places_are_forgotten() {
    let key = QueueKey::new(TopicId(1), 0);
    let mut cursors = Cursors::default();
    let rows: Rows = Arc::from([]);
    for offset in 0..=MAX_CURSORS as u64 {
        cursors.put(key, offset, rows.clone(), 0);
        cursors.put(key, offset, rows.clone(), 0);
    }
    assert_eq!(cursors.places.len(), MAX_CURSORS);
    assert_eq!(cursors.order.len(), MAX_CURSORS);
    assert!(cursors.get(key, 0).is_none() && cursors.get(key, 1).is_some());
}

#[test]
fn the_entry_cache_forgets_the_oldest_and_counts_right() {
    let mut cache = EntryCache::default();
    for index in [1, 2, 2, 3] {
        cache.insert(index, Bytes::from(vec![0; 10]), 25);
    }
    assert_eq!((cache.bytes, cache.order.len()), (20, 2));
    assert!(!cache.entries.contains_key(&1) && cache.entries.contains_key(&3));
    cache.insert(4, Bytes::from(vec![0; 100]), 25);
    assert_eq!((cache.bytes, cache.entries.len()), (0, 0));
}
