//! Files that lie, and what must not become of them.

use super::lost_tests::open_in_boot;
use super::tests::{append, copy_dir, entries, open, S};
use super::*;
use crate::storage::{keys, StateBatch, StateOp, StateStore};
use std::collections::BTreeMap;
use std::path::Path;

/// Name and content of everything but the lock.
fn content(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(next) = dirs.pop() {
        for file in std::fs::read_dir(&next).unwrap() {
            let path = file.unwrap().path();
            let name = path.strip_prefix(dir).unwrap().display().to_string();
            match path.is_dir() {
                true => dirs.push(path),
                // RocksDB keeps a log of its own for people.
                false if name == "node.lock" || name.contains("/LOG") => {}
                false => drop(all.insert(name, std::fs::read(&path).unwrap())),
            }
        }
    }
    all
}

/// A store with entries 1 to 29 in tables, applied up to 20.
fn filled(dir: &Path) {
    let mut store = open_in_boot(dir, "a", true).unwrap();
    for n in 1..30 {
        store.append(&[append(n..n + 1, 1, 30_000, true)]).unwrap();
    }
    store.regained(S).unwrap();
    let op = StateOp::Put {
        key: keys::applied::key(S),
        value: keys::applied::encode(20),
    };
    store.write(&StateBatch { ops: vec![op] }).unwrap();
    store.close().unwrap();
    drop(store);
    // A start writes what it recovers into tables.
    open_in_boot(dir, "a", true).unwrap().close().unwrap();
}

/// Flips a bit in the data of an entry, which one table holds.
fn rot(dir: &Path, index: u64) {
    let needle = [index as u8; 64];
    let mut hits = 0;
    for file in std::fs::read_dir(dir.join("db")).unwrap() {
        let path = file.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        if let Some(at) = bytes.windows(64).position(|w| w == needle) {
            bytes[at + 32] ^= 4;
            std::fs::write(&path, bytes).unwrap();
            assert!(path.extension().is_some_and(|e| e == "sst"));
            hits += 1;
        }
    }
    assert_eq!(hits, 1, "entry {index} is in one table");
}

#[test]
fn a_database_without_current_is_damaged_and_none_is_made_in_its_place() {
    let home = tempfile::tempdir().unwrap();
    let dir = &home.path().join("a");
    filled(dir);
    let current = std::fs::read(dir.join("db/CURRENT")).unwrap();
    // Also where an earlier version made it, which left no mark.
    for mark in [true, false] {
        let copy = &home.path().join(format!("copy-{mark}"));
        copy_dir(dir, copy);
        std::fs::remove_file(copy.join("db/CURRENT")).unwrap();
        if !mark {
            std::fs::remove_file(copy.join("CREATED")).unwrap();
        }
        let before = content(copy);
        for _ in 0..2 {
            let refused = open_in_boot(copy, "a", false);
            assert!(matches!(refused, Err(StoreError::Corrupt(why)) if why.contains("CURRENT")));
            assert_eq!(content(copy), before, "nothing was changed");
        }
        let store = open_in_boot(copy, "a", true).unwrap();
        let lost = Standing::Forgotten {
            kept: 0,
            reached: 29,
        };
        assert_eq!(store.standing(S), lost);
        drop(store);
        assert_eq!(open_in_boot(copy, "a", true).unwrap().standing(S), lost);
        // By hand it is put right: all tables are there.
        std::fs::remove_dir_all(copy.join("db")).unwrap();
        std::fs::rename(copy.join("db.damaged-1"), copy.join("db")).unwrap();
        let marks = copy.join("db/synced.marks");
        std::fs::rename(marks, copy.join("synced.marks")).unwrap();
        std::fs::write(copy.join("db/CURRENT"), &current).unwrap();
        let store = open(copy).unwrap();
        assert_eq!(
            store.read(S, 1, 30, u64::MAX).unwrap(),
            entries(1..30, 1, 30_000)
        );
    }
    // The whole database is gone, and it is known that there was one.
    std::fs::remove_dir_all(dir.join("db")).unwrap();
    assert!(matches!(
        open_in_boot(dir, "a", false),
        Err(StoreError::Corrupt(_))
    ));
    assert!(!dir.join("db").exists());
}

#[test]
fn an_opening_that_fails_changes_nothing_and_one_that_was_cut_off_is_taken_back() {
    let home = tempfile::tempdir().unwrap();
    let dir = &home.path().join("a");
    filled(dir);
    let copy = &home.path().join("manifest");
    copy_dir(dir, copy);
    let mut manifest = content(copy).into_keys();
    let manifest = manifest.find(|name| name.contains("MANIFEST"));
    let manifest = copy.join(manifest.unwrap());
    let mut bytes = std::fs::read(&manifest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&manifest, bytes).unwrap();
    let before = content(copy);
    let refused = open_in_boot(copy, "a", false);
    assert!(matches!(refused, Err(StoreError::Corrupt(_))));
    assert_eq!(content(copy), before);
    // A machine that stops while the store is opened.
    let copy = &home.path().join("cut-off");
    copy_dir(dir, copy);
    std::fs::rename(copy.join("db"), copy.join("db.opening")).unwrap();
    std::fs::create_dir(copy.join("db")).unwrap();
    std::fs::write(copy.join("db/CURRENT"), "MANIFEST-000999\n").unwrap();
    let store = open(copy).unwrap();
    assert_eq!(store.bounds(S).unwrap().last, 29);
    assert!(!copy.join("db.opening").exists() && !copy.join("db.goes").exists());
}

#[test]
fn what_is_put_aside_is_never_written_over() {
    let home = tempfile::tempdir().unwrap();
    let dir = &home.path().join("a");
    filled(dir);
    for n in 1..4 {
        std::fs::write(dir.join("db/CURRENT"), format!("MANIFEST-99999{n}\n")).unwrap();
        let store = open_in_boot(dir, "a", true).unwrap();
        assert_eq!(store.loss(S).map(|l| l.kept), Some(0));
        drop(store);
        for earlier in 1..=n {
            let current = dir.join(format!("db.damaged-{earlier}/CURRENT"));
            let text = std::fs::read_to_string(current).unwrap();
            assert_eq!(text, format!("MANIFEST-99999{earlier}\n"));
        }
    }
    // What cannot be used any more is put aside by the next start.
    let store = open_in_boot(dir, "a", true).unwrap();
    assert!(store.condemn("a test"));
    drop(store);
    let store = open_in_boot(dir, "a", true).unwrap();
    assert_eq!(store.loss(S).map(|l| l.why.as_str()), Some("a test"));
    assert!(dir.join("db.damaged-4/CURRENT").exists());
    drop(store);
    assert_eq!(
        open_in_boot(dir, "a", true).unwrap().loss(S).unwrap().kept,
        0
    );
    assert!(!dir.join("db.damaged-5").exists());
}

/// A bit in a table is bad for its entry alone, and a copy of it is kept beside.
#[test]
fn a_bad_entry_that_no_start_reads_keeps_nothing_from_those_around_it() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path();
    filled(dir);
    rot(dir, 7);
    let mut store = open_in_boot(dir, "a", false).unwrap();
    let good = entries(1..30, 1, 30_000);
    let bad = store.read(S, 7, 30, u64::MAX);
    assert!(matches!(bad, Err(StoreError::BadEntry { index: 7, .. })));
    assert_eq!(store.read(S, 1, 30, u64::MAX).unwrap(), good[..6]);
    assert_eq!(store.read(S, 8, 30, u64::MAX).unwrap(), good[7..]);
    let scrubbed = store.reader().scrub_entries(S, 0, u64::MAX).unwrap();
    assert_eq!((scrubbed.next, scrubbed.ended), (30, true));
    assert_eq!(scrubbed.bad.len(), 1);
    assert_eq!(scrubbed.bad[0].0, 7);
    store.mend(S, &good[6]).unwrap();
    assert_eq!(store.read(S, 1, 30, u64::MAX).unwrap(), good);
    let scrubbed = store.reader().scrub_entries(S, 0, u64::MAX).unwrap();
    assert!(scrubbed.bad.is_empty());
    drop(store);
    let mut store = open_in_boot(dir, "a", false).unwrap();
    assert_eq!(store.read(S, 1, 30, u64::MAX).unwrap(), good);
    // It goes with its entry.
    store.trim(S, 10, 1).unwrap();
    let key = meta::mended(S, 7);
    let meta = store.shared.cf(CF_META).unwrap();
    assert_eq!(store.shared.db.get_cf(meta, key).unwrap(), None);
}

#[test]
fn a_bad_entry_that_a_start_reads_cuts_the_log_there_and_compactions_do_not_meet_it() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path();
    filled(dir);
    rot(dir, 24);
    let before = content(dir);
    let refused = open_in_boot(dir, "a", false);
    assert!(
        matches!(&refused, Err(StoreError::Corrupt(why)) if why.contains("entry 24")),
        "{:?}",
        refused.err()
    );
    assert_eq!(content(dir), before);
    let mut store = open_in_boot(dir, "a", true).unwrap();
    let lost = Standing::Forgotten {
        kept: 23,
        reached: 29,
    };
    assert_eq!(store.standing(S), lost);
    assert_eq!(store.bounds(S).unwrap().last, 23);
    let good = entries(1..24, 1, 30_000);
    assert_eq!(store.read(S, 1, 40, u64::MAX).unwrap(), good);
    assert!(dir.join("db.damaged-1").exists());
    store.append(&[append(24..40, 2, 30_000, true)]).unwrap();
    let cf = store.shared.cf(&log_cf(S)).unwrap();
    store.shared.db.flush_cf(cf).unwrap();
    store
        .shared
        .db
        .compact_range_cf(cf, None::<&[u8]>, None::<&[u8]>);
    store.health().unwrap();
    store.append(&[append(40..41, 2, 100, true)]).unwrap();
    assert_eq!(store.read(S, 1, 24, u64::MAX).unwrap(), good);
    assert_eq!(store.read(S, 1, 50, u64::MAX).unwrap().len(), 40);
    drop(store);
    let store = open_in_boot(dir, "a", true).unwrap();
    assert_eq!(store.bounds(S).unwrap().last, 40);
}

#[test]
fn a_look_changes_nothing() {
    let home = tempfile::tempdir().unwrap();
    let dir = &home.path().join("a");
    filled(dir);
    std::fs::write(dir.join("db/CURRENT"), "MANIFEST-999999\n").unwrap();
    let before = content(dir);
    let look = Look::at(dir).unwrap();
    assert!(Look::at(dir).is_err(), "one at a time");
    let store = open_in_boot(&look.path(), "a", true).unwrap();
    assert_eq!(store.loss(S).unwrap().reached, 29);
    drop((store, look));
    assert_eq!(content(dir), before);
    assert!(Look::at(&home.path().join("none")).is_err());
}
