//! What an opening finds missing.

use super::tests::{append, small, S};
use super::*;
use crate::storage::{SnapshotStore, StateOp, StateStore};
use std::path::Path;

pub(super) fn open_in_boot(
    dir: &Path,
    boot_id: &str,
    repair: bool,
) -> Result<RocksStore, StoreError> {
    let options = StoreOptions {
        boot_id: boot_id.into(),
        repair,
        ..small()
    };
    RocksStore::open(dir, options, &[S])
}

#[test]
fn a_stop_of_the_machine_with_unsynced_entries_is_remembered_until_they_are_regained() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let new = Standing::Forgotten {
        kept: 0,
        reached: 0,
    };
    let mut store = open_in_boot(dir, "a", false).unwrap();
    let number = store.number();
    assert_eq!(
        (store.standing(S), store.loss(S)),
        (new, None),
        "a new store"
    );
    let mut first = append(1..3, 1, 10, true);
    first.hard_state = Some(HardState {
        term: 1,
        vote: 1,
        commit: 0,
    });
    store.append(&[first]).unwrap();
    store.regained(S).unwrap();
    drop(store);
    // Everything was synced.
    let mut store = open_in_boot(dir, "b", false).unwrap();
    assert_eq!((store.standing(S), store.loss(S)), (Standing::Whole, None));
    assert_eq!(store.number(), number);
    store.append(&[append(3..5, 1, 10, false)]).unwrap();
    drop(store);
    // The process ended, the machine did not.
    let mut store = open_in_boot(dir, "b", false).unwrap();
    assert_eq!((store.standing(S), store.loss(S)), (Standing::Whole, None));
    store.append(&[append(5..6, 1, 10, false)]).unwrap();
    drop(store);
    let store = open_in_boot(dir, "c", false).unwrap();
    let hurt = Standing::Unsynced { kept: 5 };
    assert_eq!(store.standing(S), hurt);
    assert_eq!(store.loss(S).map(|l| (l.kept, l.reached)), Some((5, 0)));
    drop(store);
    let mut store = open_in_boot(dir, "c", false).unwrap();
    assert_eq!(
        (store.standing(S), store.loss(S).map(|l| l.kept)),
        (hurt, Some(5)),
        "told until it is regained"
    );
    store.regained(S).unwrap();
    store.append(&[append(6..7, 1, 10, false)]).unwrap();
    store.close().unwrap();
    drop(store);
    // A clean stop has synced all.
    let store = open_in_boot(dir, "d", false).unwrap();
    assert_eq!((store.standing(S), store.loss(S)), (Standing::Whole, None));
}

/// The kernel may have dropped what the sync covered, and the process alone is started again.
#[test]
fn unsynced_entries_are_taken_for_lost_after_a_failed_sync() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let mut store = open_in_boot(dir, "a", false).unwrap();
    store.append(&[append(1..3, 1, 10, true)]).unwrap();
    store.regained(S).unwrap();
    store.append(&[append(3..5, 1, 10, false)]).unwrap();
    let error = StoreError::Io("disk".into());
    let failed = store.syncs.one(|| Err(error.clone()));
    assert_eq!(store.settle(failed), Err(error.clone()));
    assert_eq!(LogStore::sync(&mut store), Err(error));
    drop(store);
    let mut store = open_in_boot(dir, "a", false).unwrap();
    assert_eq!(store.standing(S), Standing::Unsynced { kept: 4 });
    assert_eq!(store.loss(S).map(|l| l.kept), Some(4));
    store.regained(S).unwrap();
    store.append(&[append(5..6, 1, 10, false)]).unwrap();
    drop(store);
    let store = open_in_boot(dir, "a", false).unwrap();
    assert_eq!(store.standing(S), Standing::Whole, "once");
}

/// Where nothing was unsynced nobody counts on what a failed sync covered.
#[test]
fn a_failed_sync_of_synced_entries_leaves_no_note() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let mut store = open_in_boot(dir, "a", false).unwrap();
    store.append(&[append(1..3, 1, 10, true)]).unwrap();
    store.regained(S).unwrap();
    let failed = store.syncs.one(|| Err(StoreError::Io("disk".into())));
    assert!(store.settle(failed).is_err());
    drop(store);
    let store = open_in_boot(dir, "a", false).unwrap();
    assert_eq!(store.standing(S), Standing::Whole);
}

#[test]
fn a_repair_keeps_what_can_be_trusted_and_says_what_it_cannot() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let mut store = open_in_boot(dir, "a", true).unwrap();
    store.append(&[append(1..9, 1, 10, true)]).unwrap();
    store.regained(S).unwrap();
    store.close().unwrap();
    drop(store);
    // The marks know of more than there is.
    let (mut marks, found) = Marks::open(&dir.join("synced.marks")).unwrap();
    let mark = found.iter().find(|(s, _)| *s == S).unwrap().1;
    marks.set(S, Mark { index: 20, ..mark });
    marks.sync().unwrap();
    let refused = open_in_boot(dir, "a", false);
    assert!(matches!(refused, Err(StoreError::Corrupt(_))));
    let store = open_in_boot(dir, "a", true).unwrap();
    let lost = Standing::Forgotten {
        kept: 8,
        reached: 20,
    };
    assert_eq!(store.standing(S), lost);
    let loss = store.loss(S).unwrap();
    assert_eq!((loss.kept, loss.reached), (8, 20));
    assert_eq!(store.read(S, 1, 9, 1 << 20).unwrap().len(), 8);
    drop(store);
    let store = open_in_boot(dir, "a", true).unwrap();
    let told = store.loss(S).map(|l| (l.kept, l.reached));
    assert_eq!((store.standing(S), told), (lost, Some((8, 20))));
    drop(store);
    // It loses more before it has regained that: it owes both.
    marks.set(
        S,
        Mark {
            index: 12,
            epoch: 1,
        },
    );
    marks.sync().unwrap();
    let store = open_in_boot(dir, "a", true).unwrap();
    let told = store.loss(S).map(|l| (l.kept, l.reached));
    assert_eq!((store.standing(S), told), (lost, Some((8, 20))));
    drop(store);
    // A database that does not open is put aside.
    std::fs::write(dir.join("db/CURRENT"), "MANIFEST-000005").unwrap();
    let refused = open_in_boot(dir, "a", false);
    assert!(matches!(refused, Err(StoreError::Corrupt(_))));
    let store = open_in_boot(dir, "a", true).unwrap();
    assert_eq!(store.loss(S).unwrap().kept, 0);
    assert!(dir.join("db.damaged-2").exists());
}

/// The same, and the next WAL had nothing but a commit index.
#[test]
fn a_commit_index_behind_a_lost_end_goes() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let mut store = open_in_boot(dir, "a", false).unwrap();
    store.append(&[append(1..3, 1, 100, true)]).unwrap();
    store.regained(S).unwrap();
    // The first unsynced append of a life is synced.
    store.append(&[append(3..5, 1, 100, false)]).unwrap();
    let mut later = append(5..8, 1, 100, false);
    later.hard_state = Some(HardState {
        term: 1,
        vote: 1,
        commit: 7,
    });
    store.append(&[later]).unwrap();
    for lost in [6u64, 7] {
        let cf = store.shared.cf("log-3").unwrap();
        store.shared.db.delete_cf(cf, lost.to_be_bytes()).unwrap();
    }
    drop(store);
    for boot in ["b", "b"] {
        let store = open_in_boot(dir, boot, false).unwrap();
        let bounds = store.bounds(S).unwrap();
        assert_eq!((bounds.last, bounds.hard_state.commit), (5, 5));
        assert_eq!(store.standing(S), Standing::Unsynced { kept: 5 });
    }
}

/// The machine stopped when a WAL had lost its unsynced end and the next one had not.
#[test]
fn what_is_behind_a_hole_goes() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let mut store = open_in_boot(dir, "a", false).unwrap();
    let hard_state = |commit| HardState {
        term: 1,
        vote: 1,
        commit,
    };
    let mut first = append(1..3, 1, 100, true);
    first.hard_state = Some(hard_state(2));
    store.append(&[first]).unwrap();
    store.regained(S).unwrap();
    // The first unsynced append of a life is synced.
    store.append(&[append(3..5, 1, 100, false)]).unwrap();
    let mut later = append(5..12, 1, 100, false);
    later.hard_state = Some(hard_state(10));
    store.append(&[later]).unwrap();
    for lost in [6u64, 7] {
        let cf = store.shared.cf("log-3").unwrap();
        store.shared.db.delete_cf(cf, lost.to_be_bytes()).unwrap();
    }
    drop(store);
    let store = open_in_boot(dir, "b", false).unwrap();
    let bounds = store.bounds(S).unwrap();
    assert_eq!((bounds.last, bounds.hard_state.commit), (5, 5));
    assert_eq!(store.standing(S), Standing::Unsynced { kept: 5 });
    let told = store.loss(S).map(|l| (l.kept, l.reached));
    assert_eq!(told, Some((5, 11)));
    drop(store);
    let mut store = open_in_boot(dir, "b", false).unwrap();
    assert_eq!(store.bounds(S).unwrap().last, 5, "it stays so");
    assert_eq!(store.read(S, 1, 100, u64::MAX).unwrap().len(), 5);
    store.append(&[append(6..8, 2, 100, true)]).unwrap();
    drop(store);
    let store = open_in_boot(dir, "b", false).unwrap();
    assert_eq!(store.read(S, 1, 100, u64::MAX).unwrap().len(), 7);
}

#[test]
fn a_shard_that_is_forgotten_is_empty_and_others_are_as_they_were() {
    let dir = tempfile::tempdir().unwrap();
    let other = ShardId(S.0 + 1);
    let open = || {
        let options = StoreOptions {
            repair: true,
            ..small()
        };
        RocksStore::open(dir.path(), options, &[S, other]).unwrap()
    };
    let mut store = open();
    for shard in [S, other] {
        let append = LogAppend {
            shard,
            ..append(1..6, 1, 10, true)
        };
        store.append(&[append]).unwrap();
        store.regained(shard).unwrap();
        let op = StateOp::Put {
            key: crate::storage::keys::applied::key(shard),
            value: crate::storage::keys::applied::encode(4),
        };
        let batch = crate::storage::StateBatch { ops: vec![op] };
        store.write(&batch).unwrap();
    }
    let number = store.number();
    let hard_state = HardState {
        term: 7,
        vote: 2,
        commit: 0,
    };
    SnapshotStore::forget(&mut store, S, hard_state, 5).unwrap();
    let check = |store: &RocksStore| {
        let bounds = store.bounds(S).unwrap();
        assert_eq!((bounds.first, bounds.last), (1, 0));
        assert_eq!(bounds.hard_state, hard_state);
        let standing = Standing::Forgotten {
            kept: 0,
            reached: 5,
        };
        assert_eq!(store.standing(S), standing);
        let applied = |shard| store.get(&crate::storage::keys::applied::key(shard));
        assert_eq!(applied(S).unwrap(), None);
        assert_eq!(store.bounds(other).unwrap().last, 5);
        assert_eq!(store.standing(other), Standing::Whole);
    };
    check(&store);
    // The process ends without more ado.
    drop(store);
    let store = open();
    check(&store);
    assert_eq!(store.loss(S).map(|l| (l.kept, l.reached)), Some((0, 5)));
    assert_eq!(store.loss(other), None);
    assert_eq!(store.number(), number, "no other shard is another's");
}
