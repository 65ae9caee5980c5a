//! Single operations and what they promise.

use super::harness::{Harness, A, B};
use bytes::Bytes;
use troupemq::model::ShardId;
use troupemq::storage::*;

pub fn entry(index: u64, term: u64, size: usize) -> LogEntry {
    let data: Vec<u8> = (0..size)
        .map(|i| (index as usize * 31 + term as usize * 7 + i) as u8)
        .collect();
    LogEntry {
        index,
        term,
        kind: (index % 3) as u8,
        data: Bytes::from(data),
    }
}

pub fn entries(range: std::ops::Range<u64>, term: u64) -> Vec<LogEntry> {
    range.map(|index| entry(index, term, 100)).collect()
}

pub fn append(shard: ShardId, range: std::ops::Range<u64>, term: u64, sync: bool) -> LogAppend {
    LogAppend {
        shard,
        entries: entries(range, term),
        hard_state: None,
        sync,
    }
}

fn put(key: &[u8], value: &[u8]) -> StateOp {
    StateOp::Put {
        key: key.to_vec(),
        value: value.to_vec(),
    }
}

fn batch(ops: Vec<StateOp>) -> StateBatch {
    StateBatch { ops }
}

fn range_of<H: Harness>(h: &mut H, shard: ShardId) -> (u64, u64) {
    let bounds = h.store().bounds(shard).unwrap();
    (bounds.first, bounds.last)
}

fn all<H: Harness>(h: &mut H, shard: ShardId) -> Vec<LogEntry> {
    let (first, last) = range_of(h, shard);
    h.store().read(shard, first, last + 1, u64::MAX).unwrap()
}

pub fn a_new_log_is_empty<H: Harness>(h: &mut H) {
    let expected = LogBounds {
        first: 1,
        ..LogBounds::default()
    };
    assert_eq!(h.store().bounds(A).unwrap(), expected);
    assert!(h.store().read(A, 1, 10, 100).unwrap().is_empty());
    assert!(h.store().bounds(ShardId(9)).is_err());
    h.restart();
    assert_eq!(h.store().bounds(B).unwrap(), expected);
}

pub fn reads_are_clipped_by_end_and_bytes<H: Harness>(h: &mut H) {
    h.store().append(&[append(A, 1..11, 1, false)]).unwrap();
    let read = |h: &mut H, from, to, max| h.store().read(A, from, to, max).unwrap();
    assert_eq!(read(h, 1, 11, u64::MAX), entries(1..11, 1));
    assert_eq!(read(h, 4, 8, u64::MAX), entries(4..8, 1));
    assert_eq!(read(h, 4, 8, 0), entries(4..5, 1), "at least one");
    assert_eq!(read(h, 4, 8, 299), entries(4..6, 1));
    assert_eq!(read(h, 4, 8, 300), entries(4..7, 1));
    assert_eq!(read(h, 9, u64::MAX, u64::MAX), entries(9..11, 1));
    assert!(read(h, 11, 20, u64::MAX).is_empty());
    assert!(read(h, 5, 5, u64::MAX).is_empty() && read(h, 7, 5, u64::MAX).is_empty());
    assert_eq!(h.store().read(A, 0, 5, 1), Err(StoreError::Trimmed(0)));
    let empty = LogEntry {
        index: 11,
        term: 2,
        kind: 1,
        data: Bytes::new(),
    };
    let append = LogAppend {
        shard: A,
        entries: vec![empty.clone()],
        hard_state: None,
        sync: true,
    };
    h.store().append(&[append]).unwrap();
    assert_eq!(read(h, 11, 12, 0), vec![empty]);
}

pub fn one_call_writes_several_shards<H: Harness>(h: &mut H) {
    let hard = HardState {
        term: 5,
        vote: 3,
        commit: 2,
    };
    let first = LogAppend {
        hard_state: Some(hard),
        ..append(A, 1..4, 1, false)
    };
    h.store()
        .append(&[first, append(B, 1..6, 2, true), append(A, 4..6, 1, false)])
        .unwrap();
    h.synced();
    for _ in 0..2 {
        assert_eq!(all(h, A), entries(1..6, 1));
        assert_eq!(all(h, B), entries(1..6, 2));
        let bounds = h.store().bounds(A).unwrap();
        assert_eq!((bounds.hard_state, bounds.synced), (hard, 5));
        assert_eq!(
            h.store().bounds(B).unwrap().hard_state,
            HardState::default()
        );
        h.crash(&mut SimRng::new(3));
    }
    // A hard state alone.
    let newer = HardState {
        term: 6,
        vote: 0,
        commit: 4,
    };
    let alone = LogAppend {
        shard: A,
        entries: vec![],
        hard_state: Some(newer),
        sync: true,
    };
    h.store().append(&[alone]).unwrap();
    h.synced();
    h.crash(&mut SimRng::new(4));
    assert_eq!(h.store().bounds(A).unwrap().hard_state, newer);
    h.store().append(&[]).unwrap();
}

pub fn an_overwrite_cuts_the_tail<H: Harness>(h: &mut H) {
    h.store().append(&[append(A, 1..20, 1, true)]).unwrap();
    h.synced();
    // Replacing entries is synced in any case.
    h.store().append(&[append(A, 10..12, 2, false)]).unwrap();
    h.synced();
    let mut expected = entries(1..10, 1);
    expected.extend(entries(10..12, 2));
    assert_eq!(all(h, A), expected);
    let bounds = h.store().bounds(A).unwrap();
    assert_eq!((bounds.last, bounds.synced), (11, 11));
    h.restart();
    assert_eq!(all(h, A), expected);
    h.store()
        .append(&[append(A, 12..14, 3, false), append(A, 13..14, 4, true)])
        .unwrap();
    h.synced();
    expected.extend(entries(12..13, 3));
    expected.extend(entries(13..14, 4));
    h.crash(&mut SimRng::new(1));
    assert_eq!(all(h, A), expected);
    // From the very first entry.
    h.store().append(&[append(A, 1..2, 5, true)]).unwrap();
    h.synced();
    h.kill(&mut SimRng::new(1));
    assert_eq!(all(h, A), entries(1..2, 5));
}

pub fn what_cannot_follow_is_refused_unwritten<H: Harness>(h: &mut H) {
    h.store().append(&[append(A, 1..6, 1, true)]).unwrap();
    h.synced();
    h.store().trim(A, 3, 1).unwrap();
    h.synced();
    let gap = LogAppend {
        entries: vec![entry(6, 1, 1), entry(8, 1, 1)],
        ..append(A, 6..7, 1, false)
    };
    for bad in [
        append(A, 7..8, 1, true),
        append(A, 2..9, 2, true),
        append(A, 0..3, 2, true),
        gap,
    ] {
        let good = append(B, 1..2, 1, true);
        assert!(matches!(
            h.store().append(&[good, bad]),
            Err(StoreError::Io(_))
        ));
        assert_eq!(range_of(h, A), (3, 5));
        assert_eq!(
            range_of(h, B),
            (1, 0),
            "the good half is not written either"
        );
    }
    assert!(h
        .store()
        .append(&[append(ShardId(9), 1..2, 1, true)])
        .is_err());
    h.store().append(&[append(A, 6..7, 1, true)]).unwrap();
    assert_eq!(all(h, A), entries(3..7, 1));
}

pub fn trimmed_entries_are_gone_for_good<H: Harness>(h: &mut H) {
    h.store()
        .append(&[append(A, 1..31, 4, false), append(B, 1..11, 1, false)])
        .unwrap();
    h.store().trim(A, 11, 4).unwrap();
    h.synced();
    for round in 0..3 {
        let bounds = h.store().bounds(A).unwrap();
        assert_eq!(
            (bounds.first, bounds.last, bounds.trimmed_term),
            (11, 30, 4),
            "round {round}"
        );
        assert_eq!(h.store().read(A, 10, 12, 1), Err(StoreError::Trimmed(10)));
        assert_eq!(all(h, A), entries(11..31, 4));
        assert_eq!(all(h, B), entries(1..11, 1));
        if round == 0 {
            h.crash(&mut SimRng::new(8));
        } else {
            h.restart();
        }
    }
    h.store().trim(A, 5, 1).unwrap();
    h.store().trim(A, 11, 9).unwrap();
    assert_eq!(h.store().bounds(A).unwrap().trimmed_term, 4, "no way back");
    h.store().trim(A, 31, 4).unwrap();
    assert_eq!(range_of(h, A), (31, 30));
    h.restart();
    assert_eq!(range_of(h, A), (31, 30));
    h.store().append(&[append(A, 31..33, 5, true)]).unwrap();
    assert_eq!(all(h, A), entries(31..33, 5));
}

pub fn trimming_behind_the_end_empties_the_log<H: Harness>(h: &mut H) {
    h.store().append(&[append(A, 1..6, 1, true)]).unwrap();
    h.store().trim(A, 100, 7).unwrap();
    h.synced();
    h.crash(&mut SimRng::new(2));
    let bounds = h.store().bounds(A).unwrap();
    assert_eq!(
        (bounds.first, bounds.last, bounds.trimmed_term),
        (100, 99, 7)
    );
    assert_eq!(h.store().read(A, 3, 5, 1), Err(StoreError::Trimmed(99)));
    h.store().append(&[append(A, 100..103, 8, true)]).unwrap();
    h.synced();
    h.restart();
    assert_eq!(all(h, A), entries(100..103, 8));
}

pub fn state_rows_are_an_ordered_map<H: Harness>(h: &mut H) {
    let s = h.store();
    s.write(&batch(vec![
        put(b"b", b"1"),
        put(b"d", b"2"),
        put(b"ba", b""),
        put(b"b", b"3"),
    ]))
    .unwrap();
    s.write(&batch(vec![])).unwrap();
    assert_eq!(s.get(b"b").unwrap(), Some(b"3".to_vec()));
    assert_eq!(s.get(b"ba").unwrap(), Some(Vec::new()));
    assert_eq!(s.get(b"c").unwrap(), None);
    let keys = |s: &H::Store, from: &[u8], to: &[u8], limit| -> Vec<Vec<u8>> {
        s.scan(from, to, limit)
            .unwrap()
            .into_iter()
            .map(|(k, _)| k)
            .collect()
    };
    assert_eq!(
        keys(s, b"a", b"z", 9),
        [b"b".to_vec(), b"ba".to_vec(), b"d".to_vec()]
    );
    assert_eq!(keys(s, b"a", b"z", 2), [b"b".to_vec(), b"ba".to_vec()]);
    assert_eq!(keys(s, b"b", b"d", 9), [b"b".to_vec(), b"ba".to_vec()]);
    assert!(keys(s, b"a", b"z", 0).is_empty() && keys(s, b"z", b"a", 9).is_empty());
    assert!(keys(s, b"b", b"b", 9).is_empty());
    assert_eq!(
        s.last(b"a", b"z").unwrap(),
        Some((b"d".to_vec(), b"2".to_vec()))
    );
    assert_eq!(
        s.last(b"a", b"d").unwrap(),
        Some((b"ba".to_vec(), Vec::new()))
    );
    assert_eq!(s.last(b"e", b"z").unwrap(), None);
    assert_eq!(s.last(b"z", b"a").unwrap(), None);
    let range = |from: &[u8], to: &[u8]| StateOp::DeleteRange {
        from: from.to_vec(),
        to: to.to_vec(),
    };
    let c = [
        put(b"c", b"4"),
        range(b"b", b"d"),
        put(b"ba", b"5"),
        range(b"z", b"a"),
        range(b"d", b"d"),
    ];
    s.write(&batch(c.to_vec())).unwrap();
    assert_eq!(
        keys(s, b"a", b"z", 9),
        [b"ba".to_vec(), b"d".to_vec()],
        "in the order of the batch"
    );
    s.write_all(&[
        batch(vec![put(b"x", b"1")]),
        batch(vec![
            StateOp::Delete { key: b"x".to_vec() },
            StateOp::Delete {
                key: b"none".to_vec(),
            },
        ]),
        batch(vec![put(b"y", b"1")]),
    ])
    .unwrap();
    h.restart();
    assert_eq!(
        keys(h.store(), b"a", b"z", 9),
        [b"ba".to_vec(), b"d".to_vec(), b"y".to_vec()]
    );
}

pub fn synced_entries_survive_a_power_cut<H: Harness>(h: &mut H) {
    let mut rng = SimRng::new(42);
    let mut lasts = std::collections::BTreeSet::new();
    let mut next = 1;
    for round in 0..25u64 {
        h.store()
            .append(&[append(A, next..next + 3, round, true)])
            .unwrap();
        h.synced();
        for n in 3..8 {
            h.store()
                .append(&[append(A, next + n..next + n + 1, round, false)])
                .unwrap();
        }
        assert_eq!(h.store().bounds(A).unwrap().synced, next + 2);
        h.crash(&mut rng);
        let (_, last) = range_of(h, A);
        assert!((next + 2..=next + 7).contains(&last), "{last} after {next}");
        assert_eq!(
            h.store().read(A, next, last + 1, u64::MAX).unwrap(),
            entries(next..last + 1, round)
        );
        assert_eq!(
            h.store().bounds(A).unwrap().synced,
            last,
            "what recovery found is durable"
        );
        lasts.insert(last - next);
        next = last + 1;
    }
    assert!(
        lasts.len() > 2,
        "crashes keep different prefixes: {lasts:?}"
    );
}

pub fn a_sync_covers_all_shards<H: Harness>(h: &mut H) {
    h.store().append(&[append(A, 1..4, 1, false)]).unwrap();
    h.store().append(&[append(B, 1..2, 1, true)]).unwrap();
    h.synced();
    assert_eq!(h.store().bounds(A).unwrap().synced, 3);
    h.crash(&mut SimRng::new(5));
    assert_eq!(all(h, A), entries(1..4, 1));
    h.store().append(&[append(A, 4..6, 1, false)]).unwrap();
    assert_eq!(h.store().bounds(A).unwrap().synced, 3);
    h.store().sync().unwrap();
    h.synced();
    assert_eq!(h.store().bounds(A).unwrap().synced, 5);
    h.crash(&mut SimRng::new(6));
    assert_eq!(all(h, A), entries(1..6, 1));
}

pub fn a_kill_loses_no_log_write<H: Harness>(h: &mut H) {
    for n in 1..50 {
        h.store()
            .append(&[append(A, n..n + 1, 1, false), append(B, n..n + 1, 1, false)])
            .unwrap();
    }
    h.kill(&mut SimRng::new(7));
    assert_eq!(all(h, A), entries(1..50, 1));
    assert_eq!(all(h, B), entries(1..50, 1));
}

pub fn flushed_state_survives<H: Harness>(h: &mut H) {
    h.store().append(&[append(A, 1..3, 1, false)]).unwrap();
    h.store()
        .write(&batch(vec![put(b"a", b"1"), put(b"b", b"1")]))
        .unwrap();
    h.store().flush().unwrap();
    h.synced();
    assert_eq!(
        h.store().bounds(A).unwrap().synced,
        2,
        "the log is synced first"
    );
    h.store()
        .write(&batch(vec![
            put(b"a", b"2"),
            StateOp::Delete { key: b"b".to_vec() },
        ]))
        .unwrap();
    h.crash(&mut SimRng::new(9));
    let rows = h.store().scan(b"a", b"z", 9).unwrap();
    let before = vec![
        (b"a".to_vec(), b"1".to_vec()),
        (b"b".to_vec(), b"1".to_vec()),
    ];
    let after = vec![(b"a".to_vec(), b"2".to_vec())];
    assert!(
        rows == before || rows == after,
        "all of a batch or nothing: {rows:?}"
    );
    assert_eq!(all(h, A), entries(1..3, 1));
}

pub fn a_trim_makes_state_durable_first<H: Harness>(h: &mut H) {
    h.store().append(&[append(A, 1..11, 1, false)]).unwrap();
    let row = StateOp::Put {
        key: keys::applied::key(A),
        value: keys::applied::encode(10),
    };
    h.store().write(&batch(vec![row])).unwrap();
    h.store().trim(A, 9, 1).unwrap();
    h.synced();
    h.crash(&mut SimRng::new(10));
    let applied = h.store().get(&keys::applied::key(A)).unwrap().unwrap();
    assert_eq!(keys::applied::decode(&applied), Ok(10));
    assert_eq!(range_of(h, A), (9, 10));
}

pub fn an_overwrite_survives_whole<H: Harness>(h: &mut H) {
    let mut rng = SimRng::new(77);
    for round in 0..20 {
        let (_, last) = range_of(h, A);
        let from = last + 1;
        h.store()
            .append(&[append(A, from..from + 10, 1, true)])
            .unwrap();
        h.synced();
        let hard = HardState {
            term: round + 1,
            vote: 1,
            commit: from,
        };
        let over = LogAppend {
            hard_state: Some(hard),
            ..append(A, from + 2..from + 5, 2, false)
        };
        h.store().append(&[over]).unwrap();
        h.synced();
        // Lost while a later append stays, it would bring back what it replaced.
        h.store()
            .append(&[append(A, from + 5..from + 6, 3, false)])
            .unwrap();
        h.crash(&mut rng);
        assert_eq!(h.store().bounds(A).unwrap().hard_state, hard);
        let found = h.store().read(A, from, from + 5, u64::MAX).unwrap();
        let mut expected = entries(from..from + 2, 1);
        expected.extend(entries(from + 2..from + 5, 2));
        assert_eq!(found, expected, "round {round}");
    }
}

pub fn a_changed_entry_is_never_served<H: Harness>(h: &mut H) {
    let mut rng = SimRng::new(11);
    let noise: Vec<LogEntry> = (1..8)
        .map(|index| {
            let data: Vec<u8> = (0..40_000).map(|_| rng.next_u64() as u8).collect();
            LogEntry {
                index,
                term: 1,
                kind: 0,
                data: data.into(),
            }
        })
        .collect();
    h.store()
        .append(&[LogAppend {
            shard: A,
            entries: noise.clone(),
            hard_state: None,
            sync: true,
        }])
        .unwrap();
    h.restart();
    h.corrupt(A, 4, &noise[3].data[20_000..20_064]);
    for to in [5, 8] {
        assert!(matches!(
            h.store().read(A, 4, to, u64::MAX),
            Err(StoreError::BadEntry { index: 4, .. })
        ));
    }
    assert_eq!(h.store().read(A, 1, 8, u64::MAX).unwrap(), noise[..3]);
    assert_eq!(h.store().read(A, 5, 8, u64::MAX).unwrap(), noise[4..]);
    // A copy of it from elsewhere is served in its place, also after a restart.
    h.store().mend(A, &noise[3]).unwrap();
    assert_eq!(h.store().read(A, 1, 8, u64::MAX).unwrap(), noise);
    h.restart();
    assert_eq!(h.store().read(A, 4, 5, u64::MAX).unwrap(), noise[3..4]);
    assert_eq!(h.store().read(A, 1, 8, u64::MAX).unwrap(), noise);
    // Outside the log there is nothing to mend.
    let beyond = LogEntry {
        index: 20,
        ..noise[3].clone()
    };
    h.store().mend(A, &beyond).unwrap();
    assert_eq!(h.store().bounds(A).unwrap().last, 7);
    assert_eq!(h.store().read(A, 1, 30, u64::MAX).unwrap(), noise);
    // Other entries in its place are their own.
    let other = LogAppend {
        shard: A,
        entries: vec![LogEntry {
            index: 4,
            term: 2,
            kind: 0,
            data: bytes::Bytes::from_static(b"other"),
        }],
        hard_state: None,
        sync: true,
    };
    let entry = other.entries[0].clone();
    h.store().append(&[other]).unwrap();
    assert_eq!(h.store().read(A, 4, 8, u64::MAX).unwrap(), [entry]);
}

pub fn a_clean_close_keeps_everything_and_ends_writing<H: Harness>(h: &mut H) {
    h.store().append(&[append(A, 1..4, 1, false)]).unwrap();
    h.store().write(&batch(vec![put(b"k", b"v")])).unwrap();
    h.store().close().unwrap();
    h.synced();
    assert!(h.store().append(&[append(A, 4..5, 1, false)]).is_err());
    assert!(h.store().write(&batch(vec![put(b"k", b"w")])).is_err());
    h.crash(&mut SimRng::new(12));
    assert_eq!(all(h, A), entries(1..4, 1));
    assert_eq!(h.store().get(b"k").unwrap(), Some(b"v".to_vec()));
    h.store().append(&[append(A, 4..5, 1, true)]).unwrap();
}
