//! What only a look behind the traits can show. The contract itself is tested by
//! `tests/store_conformance.rs`.

use super::*;
use crate::storage::{StateBatch, StateOp, StateStore};
use bytes::Bytes;
use std::path::Path;
use std::time::{Duration, Instant};

pub(super) const S: ShardId = ShardId(3);

pub(super) fn small() -> StoreOptions {
    StoreOptions {
        memtable_bytes: 256 << 10,
        state_memtable_bytes: 256 << 10,
        ..StoreOptions::default()
    }
}

pub(super) fn open(dir: &Path) -> Result<RocksStore, StoreError> {
    RocksStore::open(dir, small(), &[S, ShardId(4)])
}

pub(super) fn entries(range: std::ops::Range<u64>, term: u64, size: usize) -> Vec<LogEntry> {
    range
        .map(|index| LogEntry {
            index,
            term,
            kind: 0,
            data: Bytes::from(vec![index as u8; size]),
        })
        .collect()
}

pub(super) fn append(range: std::ops::Range<u64>, term: u64, size: usize, sync: bool) -> LogAppend {
    LogAppend {
        shard: S,
        entries: entries(range, term, size),
        hard_state: None,
        sync,
    }
}

pub(super) fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        let target = to.join(file.file_name());
        if file.file_type().unwrap().is_dir() {
            copy_dir(&file.path(), &target);
        } else {
            std::fs::copy(file.path(), target).unwrap();
        }
    }
}

#[test]
fn a_second_opener_is_told_who_holds_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    let Err(StoreError::Open(text)) = open(dir.path()) else {
        panic!("opened twice")
    };
    assert!(
        text.contains(&format!("another process (pid {})", std::process::id())),
        "{text}"
    );
    assert!(text.contains("uses this data directory"), "{text}");
    drop(store);
    open(dir.path()).unwrap();
}

#[test]
fn another_format_version_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()).unwrap());
    std::fs::write(dir.path().join("FORMAT"), "troupemq-store 99\n").unwrap();
    assert!(matches!(open(dir.path()), Err(StoreError::Open(text)) if text.contains("99")));
    std::fs::remove_file(dir.path().join("FORMAT")).unwrap();
    assert!(matches!(open(dir.path()), Err(StoreError::Open(text)) if text.contains("missing")));
}

#[test]
fn trimming_deletes_the_files() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path()).unwrap();
    let reader = store.reader();
    for n in 0..400 {
        store
            .append(&[append(n * 4 + 1..n * 4 + 5, 1, 4096, false)])
            .unwrap();
    }
    store.sync().unwrap();
    // All but the memtable is to be in files, and these moved down one by one.
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let (count, bytes) = reader.log_files(S).unwrap();
        let level0 = reader
            .shared
            .db
            .live_files()
            .unwrap()
            .iter()
            .filter(|f| f.level == 0)
            .count();
        if bytes > 4 << 20 && count >= 10 && level0 == 0 {
            break;
        }
        assert!(
            Instant::now() < deadline,
            "{count} files, {level0} in level 0, {bytes} bytes"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    let (_, before) = reader.log_files(S).unwrap();
    store.trim(S, 1001, 1).unwrap();
    let (_, after) = reader.log_files(S).unwrap();
    assert!(
        after + 3_000_000 < before,
        "{before} bytes before, {after} after"
    );
    assert_eq!(store.read(S, 1000, 1001, 1), Err(StoreError::Trimmed(1000)));
    assert_eq!(store.read(S, 1, 9, 1), Err(StoreError::Trimmed(1000)));
    assert_eq!(
        store.read(S, 1001, 1601, u64::MAX).unwrap(),
        entries(1001..1601, 1, 4096)
    );
    drop((store, reader));
    let store = open(dir.path()).unwrap();
    let bounds = store.bounds(S).unwrap();
    assert_eq!(
        (bounds.first, bounds.last, bounds.trimmed_term),
        (1001, 1600, 1)
    );
    assert_eq!(
        store.read(S, 1001, 1601, u64::MAX).unwrap(),
        entries(1001..1601, 1, 4096)
    );
}

#[test]
fn files_left_by_a_trim_cut_short_go_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path()).unwrap();
    for n in 0..300 {
        store
            .append(&[append(n * 4 + 1..n * 4 + 5, 1, 4096, false)])
            .unwrap();
    }
    store.sync().unwrap();
    // The crash comes between the durable bound and the deletion.
    let mut batch = WriteBatch::default();
    let cf = store.shared.cf(CF_META).unwrap();
    batch.put_cf(cf, meta::key(S, MetaKind::Bounds), meta::bounds(1001, 1));
    store.shared.db.write(batch).unwrap();
    drop(store);
    let store = open(dir.path()).unwrap();
    assert_eq!(store.bounds(S).unwrap().first, 1001);
    let reader = store.reader();
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        // Files that recovery has just written out may still be in level 0.
        store.drop_files(S).unwrap();
        let (_, bytes) = reader.log_files(S).unwrap();
        if bytes < 2 << 20 {
            break;
        }
        assert!(Instant::now() < deadline, "{bytes} bytes are still there");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_changed_value_is_never_served() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path()).unwrap();
    store.append(&[append(1..10, 1, 100, true)]).unwrap();
    let name = log_cf(S);
    let cf = store.shared.cf(&name).unwrap();
    let mut value = store
        .shared
        .db
        .get_cf(cf, 5u64.to_be_bytes())
        .unwrap()
        .unwrap();
    value[entry::HEADER + 50] ^= 1;
    store
        .shared
        .db
        .put_cf(cf, 5u64.to_be_bytes(), value)
        .unwrap();
    let bad = |from, to, index| {
        let read = store.read(S, from, to, u64::MAX);
        assert!(
            matches!(read, Err(StoreError::BadEntry { index: i, .. }) if i == index),
            "{read:?}"
        );
    };
    bad(5, 6, 5);
    bad(5, 9, 5);
    // What is before it is served.
    assert_eq!(
        store.read(S, 1, 9, u64::MAX).unwrap(),
        entries(1..5, 1, 100)
    );
    store.shared.db.delete_cf(cf, 7u64.to_be_bytes()).unwrap();
    bad(7, 8, 7);
    bad(7, 9, 7);
    assert_eq!(
        store.read(S, 6, 9, u64::MAX).unwrap(),
        entries(6..7, 1, 100)
    );
}

pub(super) fn wal_of(dir: &Path) -> std::path::PathBuf {
    let mut logs: Vec<_> = std::fs::read_dir(dir.join("db"))
        .unwrap()
        .map(|f| f.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "log"))
        .collect();
    logs.sort();
    logs.pop().unwrap()
}

/// A power cut may cut the log file anywhere behind the last sync, and only there.
#[test]
fn what_lies_behind_the_end_of_a_log_is_no_trap() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("live");
    let mut store = open(&dir).unwrap();
    for n in 1..6 {
        store.append(&[append(n..n + 1, 1, 500, true)]).unwrap();
    }
    // RocksDB would read a record of such a type for ever.
    for kind in [5u8, 8, 131] {
        let copy = home.path().join(format!("copy{kind}"));
        copy_dir(&dir, &copy);
        let end = [1, 2, 3, 4, 9, 0, kind, 7, 7, 7, 7, 7, 7, 7, 7, 7];
        let mut wal = std::fs::OpenOptions::new()
            .append(true)
            .open(wal_of(&copy))
            .unwrap();
        std::io::Write::write_all(&mut wal, &end).unwrap();
        let store = open(&copy).unwrap();
        assert_eq!(
            store.read(S, 1, 100, u64::MAX).unwrap(),
            entries(1..6, 1, 500)
        );
    }
    // In front of what was synced it is damage.
    let copy = home.path().join("damaged");
    copy_dir(&dir, &copy);
    let mut bytes = std::fs::read(wal_of(&copy)).unwrap();
    let second = 7 + usize::from(u16::from_le_bytes([bytes[4], bytes[5]]));
    bytes[second + 6] = 5;
    std::fs::write(wal_of(&copy), bytes).unwrap();
    assert!(matches!(open(&copy), Err(StoreError::Corrupt(_))));
}

#[test]
fn a_torn_tail_is_dropped_and_a_lost_synced_entry_is_corruption() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("live");
    let mut store = open(&dir).unwrap();
    for n in 1..6 {
        store.append(&[append(n..n + 1, 1, 500, true)]).unwrap();
    }
    let synced = std::fs::metadata(wal_of(&dir)).unwrap().len();
    for n in 6..11 {
        store.append(&[append(n..n + 1, 1, 500, false)]).unwrap();
    }
    let whole = std::fs::metadata(wal_of(&dir)).unwrap().len();
    assert!(synced > 2500 && whole > synced + 2500, "{synced} {whole}");
    let mut seen = std::collections::BTreeSet::new();
    for (n, cut) in (synced..=whole)
        .step_by(97)
        .chain([synced + 1, whole])
        .enumerate()
    {
        let copy = home.path().join(format!("copy{n}"));
        copy_dir(&dir, &copy);
        std::fs::OpenOptions::new()
            .write(true)
            .open(wal_of(&copy))
            .unwrap()
            .set_len(cut)
            .unwrap();
        let store = open(&copy).unwrap();
        let last = store.bounds(S).unwrap().last;
        assert_eq!(
            store.read(S, 1, 100, u64::MAX).unwrap(),
            entries(1..last + 1, 1, 500)
        );
        seen.insert(last);
    }
    assert_eq!(
        seen.into_iter().collect::<Vec<_>>(),
        vec![5, 6, 7, 8, 9, 10]
    );
    for (n, cut) in [synced - 1, synced - 600, synced - 1700]
        .into_iter()
        .enumerate()
    {
        let copy = home.path().join(format!("short{n}"));
        copy_dir(&dir, &copy);
        std::fs::OpenOptions::new()
            .write(true)
            .open(wal_of(&copy))
            .unwrap()
            .set_len(cut)
            .unwrap();
        assert!(
            matches!(open(&copy), Err(StoreError::Corrupt(_))),
            "cut at {cut}"
        );
    }
    // A flipped bit in the middle: recovery stops there in silence, the mark tells.
    let copy = home.path().join("flipped");
    copy_dir(&dir, &copy);
    let mut bytes = std::fs::read(wal_of(&copy)).unwrap();
    bytes[synced as usize / 2] ^= 4;
    std::fs::write(wal_of(&copy), bytes).unwrap();
    assert!(matches!(open(&copy), Err(StoreError::Corrupt(_))));
    drop(store);
}

/// Small synced writes go over zeros; a crash at any write finds all of them.
#[test]
fn space_ahead_of_the_log_changes_nothing() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("live");
    let mut store = open(&dir).unwrap();
    let mut next = 1;
    let mut write = |store: &mut RocksStore, count: u64, sync: bool| -> u64 {
        for _ in 0..count {
            store
                .append(&[append(next..next + 1, 1, 900, sync)])
                .unwrap();
            store.rest();
            next += 1;
        }
        next
    };
    write(&mut store, 10, true);
    let len = |dir: &Path| std::fs::metadata(wal_of(dir)).unwrap().len();
    assert!(len(&dir) < 16 << 10, "not before it is known to be useful");
    let mut longest = 0;
    // The memtable goes out several times meanwhile, and each time a new WAL begins.
    for n in 0..40 {
        let end = write(&mut store, 37, true);
        longest = longest.max(len(&dir));
        let end = if n % 8 == 7 {
            write(&mut store, 3, false)
        } else {
            end
        };
        // A copy is of one moment only while nothing goes on.
        let wait = rocksdb::WaitForCompactOptions::default();
        store.shared.db.wait_for_compact(&wait).unwrap();
        let copy = home.path().join(format!("copy{n}"));
        copy_dir(&dir, &copy);
        let found = open(&copy).unwrap();
        assert_eq!(found.bounds(S).unwrap().last, end - 1);
        assert_eq!(
            found.read(S, 1, end, u64::MAX).unwrap(),
            entries(1..end, 1, 900)
        );
        drop(found);
        std::fs::remove_dir_all(&copy).unwrap();
    }
    assert!(longest >= 1 << 20, "{longest}");
    // A later block came to the disk and an earlier one did not.
    let copy = home.path().join("hole");
    copy_dir(&dir, &copy);
    let mut bytes = std::fs::read(wal_of(&copy)).unwrap();
    let end = bytes.iter().rposition(|b| *b != 0).unwrap() + 1;
    let behind = (end / (32 << 10) + 2) * (32 << 10);
    bytes.resize(bytes.len().max(behind + 1000), 0);
    let earlier = bytes[..600].to_vec();
    bytes[behind..behind + 600].copy_from_slice(&earlier);
    std::fs::write(wal_of(&copy), bytes).unwrap();
    let found = open(&copy).unwrap();
    assert_eq!(
        found.bounds(S).unwrap().last,
        store.bounds(S).unwrap().last,
        "what is behind zeros is no part of the log"
    );
}

#[test]
fn a_sync_beside_the_appends_covers_what_was_there_when_it_began() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path()).unwrap();
    store.append(&[append(1..4, 1, 10, false)]).unwrap();
    let synced = |store: &RocksStore| store.bounds(S).unwrap().synced;
    assert_eq!(synced(&store), 0);
    let task = store.sync_apart().unwrap();
    store.append(&[append(4..6, 1, 10, false)]).unwrap();
    store.synced_apart(task()).unwrap();
    assert_eq!(synced(&store), 3);
    // What it covered is replaced meanwhile.
    let task = store.sync_apart().unwrap();
    store.append(&[append(2..3, 2, 10, false)]).unwrap();
    assert_eq!(synced(&store), 2);
    store.append(&[append(3..5, 2, 10, false)]).unwrap();
    store.synced_apart(task()).unwrap();
    assert_eq!(synced(&store), 2);
    let failed = StoreError::Io("sync".into());
    assert_eq!(store.synced_apart(Err(failed.clone())), Err(failed));
    assert!(store.append(&[append(5..6, 2, 10, false)]).is_err());
}

#[test]
fn every_opening_is_a_new_life_also_after_a_crash() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("live");
    let store = open(&dir).unwrap();
    let first = store.life();
    let copy = home.path().join("killed");
    copy_dir(&dir, &copy);
    assert_eq!(open(&copy).unwrap().life(), first + 1);
    drop(store);
    assert_eq!(open(&dir).unwrap().life(), first + 1);
    // Another store's lives are others too.
    let other = open(&home.path().join("other")).unwrap();
    assert!(other.life().abs_diff(first) > 1);
}

#[test]
fn an_overwrite_lowers_the_mark() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("live");
    let mut store = open(&dir).unwrap();
    store.append(&[append(1..20, 1, 50, true)]).unwrap();
    store.append(&[append(5..7, 2, 50, false)]).unwrap();
    assert_eq!(store.bounds(S).unwrap().synced, 6, "it is synced");
    let copy = home.path().join("killed");
    copy_dir(&dir, &copy);
    let again = open(&copy).unwrap();
    assert_eq!(again.bounds(S).unwrap().last, 6);
    assert!(again.read(S, 7, 20, u64::MAX).unwrap().is_empty());
    // Once synced, the overwrite must not be lost: the old log is longer, but is not this log.
    let before = std::fs::metadata(wal_of(&dir)).unwrap().len();
    store.append(&[append(3..4, 3, 50, true)]).unwrap();
    let copy = home.path().join("cut");
    copy_dir(&dir, &copy);
    std::fs::OpenOptions::new()
        .write(true)
        .open(wal_of(&copy))
        .unwrap()
        .set_len(before)
        .unwrap();
    assert!(matches!(open(&copy), Err(StoreError::Corrupt(text)) if text.contains("epoch")));
}

#[test]
fn state_ahead_of_the_log_is_corruption() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path()).unwrap();
    store.append(&[append(1..4, 1, 50, true)]).unwrap();
    let op = StateOp::Put {
        key: crate::storage::keys::applied::key(S),
        value: 4u64.to_be_bytes().to_vec(),
    };
    store.write(&StateBatch { ops: vec![op] }).unwrap();
    store.close().unwrap();
    drop(store);
    assert!(matches!(open(dir.path()), Err(StoreError::Corrupt(text)) if text.contains("applied")));
}

#[test]
fn after_a_clean_close_the_log_ends_exactly_at_the_mark() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("live");
    let mut store = open(&dir).unwrap();
    store.append(&[append(1..4, 1, 50, false)]).unwrap();
    store.close().unwrap();
    assert!(store.append(&[append(4..5, 1, 50, false)]).is_err());
    drop(store);
    let store = open(&dir).unwrap();
    assert_eq!(store.bounds(S).unwrap().last, 3);
    assert_eq!(store.bounds(S).unwrap().synced, 3);
}

/// Whether `fsync` is called cannot be seen by cutting files: RocksDB's own count tells.
#[test]
fn appends_that_want_it_sync_the_wal_once_a_call_and_others_never() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path()).unwrap();
    let syncs = |store: &RocksStore| -> u64 {
        let text = store
            .shared
            .db
            .property_value("rocksdb.options-statistics")
            .unwrap()
            .unwrap();
        let line = text
            .lines()
            .find(|l| l.starts_with("rocksdb.wal.synced"))
            .unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    let before = syncs(&store);
    store
        .append(&[append(1..5, 1, 10, false), append(5..6, 1, 10, false)])
        .unwrap();
    assert_eq!(syncs(&store), before);
    store
        .append(&[
            append(6..7, 1, 10, true),
            append(7..8, 1, 10, false),
            append(8..9, 1, 10, true),
        ])
        .unwrap();
    assert_eq!(syncs(&store), before + 1);
    store.append(&[append(9..10, 1, 10, false)]).unwrap();
    store
        .write(&StateBatch {
            ops: vec![StateOp::Put {
                key: vec![1],
                value: vec![1],
            }],
        })
        .unwrap();
    assert_eq!(syncs(&store), before + 1);
    store.sync().unwrap();
    assert_eq!(syncs(&store), before + 2);
    store.append(&[append(10..11, 1, 10, false)]).unwrap();
    store.flush().unwrap();
    assert!(syncs(&store) > before + 2);
}

/// Prints what writing costs: `cargo test --release -- --ignored --nocapture cost_of`.
#[test]
#[ignore = "a measurement"]
fn cost_of_appending_and_reading() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = RocksStore::open(dir.path(), StoreOptions::default(), &[S]).unwrap();
    let cpu = || {
        let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
        // SAFETY: getrusage fills the struct it is given.
        let usage = unsafe {
            libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
            usage.assume_init()
        };
        let time = |t: libc::timeval| t.tv_sec as f64 * 1e6 + t.tv_usec as f64;
        time(usage.ru_utime) + time(usage.ru_stime)
    };
    let n = 8000u64;
    let data = Bytes::from(
        (0..65536u32)
            .map(|i| (i.wrapping_mul(2654435761) >> 24) as u8)
            .collect::<Vec<_>>(),
    );
    let (wall, used) = (Instant::now(), cpu());
    for index in 1..=n {
        let e = LogEntry {
            index,
            term: 1,
            kind: 0,
            data: data.clone(),
        };
        let append = LogAppend {
            shard: S,
            entries: vec![e],
            hard_state: Some(HardState::default()),
            sync: false,
        };
        store.append(&[append]).unwrap();
    }
    println!(
        "append: {:.1} us wall, {:.1} us CPU for each 64 KiB entry",
        wall.elapsed().as_micros() as f64 / n as f64,
        (cpu() - used) / n as f64
    );
    let (wall, used) = (Instant::now(), cpu());
    let mut from = 1;
    while from <= n {
        from += store.read(S, from, n + 1, 1 << 20).unwrap().len() as u64;
    }
    println!(
        "read:   {:.1} us wall, {:.1} us CPU for each 64 KiB entry",
        wall.elapsed().as_micros() as f64 / n as f64,
        (cpu() - used) / n as f64
    );
}

#[test]
fn no_sync_succeeds_after_one_beside_it_has_failed() {
    let syncs = super::Syncs::default();
    let failed = StoreError::Io("disk".into());
    assert_eq!(syncs.one(|| Err(failed.clone())), Err(failed.clone()));
    assert_eq!(syncs.clone().one(|| Ok(())), Err(failed));
}
