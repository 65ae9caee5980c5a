//! A follower whose next entries were trimmed.

use super::*;
use crate::raft::transfer::SnapshotId;

const PART: u64 = 1_000;

fn base() -> Vec<u8> {
    (0..20_000u32).map(|i| (i % 251) as u8).collect()
}

fn members() -> Members {
    Members {
        learners: vec![2],
        ..Members::of(vec![1])
    }
}

fn options(node: u64, life: u64, per_tick: u64) -> RaftOptions {
    RaftOptions {
        life,
        quiet: true,
        snapshot_part: PART,
        snapshot_per_tick: per_tick,
        ..RaftOptions::group(node, vec![1], 7)
    }
}

fn follower(life: u64, staged: Option<Staged>) -> RaftCore {
    let start = RaftStart {
        members: Some(members()),
        staged,
        ..RaftStart::default()
    };
    RaftCore::new(options(2, life, 0), start).unwrap()
}

/// Leads alone; its log begins behind entry 10.
fn leader(per_tick: u64) -> RaftCore {
    let start = RaftStart {
        hard_state: HardState {
            term: 1,
            vote: 1,
            commit: 10,
        },
        first: (11, 1),
        applied: (10, 1),
        members: Some(members()),
        ..RaftStart::default()
    };
    let mut raft = RaftCore::new(options(1, 1, per_tick), start).unwrap();
    raft.campaign();
    raft
}

/// Output of a replica whose writes are done at once.
fn drive(raft: &mut RaftCore) -> RaftOutput {
    let mut out = RaftOutput::default();
    loop {
        let mut more = RaftOutput::default();
        raft.ready(&mut more);
        if more.is_empty() {
            return out;
        }
        for write in &more.persist {
            raft.persisted(write.number);
        }
        for entry in &more.committed {
            raft.applied(entry.index);
        }
        if raft.wants_snapshot() {
            raft.offer_snapshot(&base());
        }
        out.messages.append(&mut more.messages);
        out.persist.append(&mut more.persist);
        out.staged.append(&mut more.staged);
    }
}

/// Ticks the leader; what goes between the two does so at once. Snapshot and staging of the
/// follower.
fn tick(one: &mut RaftCore, two: &mut RaftCore) -> (Option<Snapshot>, Vec<Stage>) {
    let (mut found, mut staged) = (None, Vec::new());
    one.tick();
    loop {
        let out = drive(one);
        if out.messages.is_empty() {
            return (found, staged);
        }
        for (_, bytes) in out.messages {
            two.step(1, &bytes).unwrap();
            let out = drive(two);
            staged.extend(out.staged);
            found = found.or(out.persist.into_iter().find_map(|w| w.snapshot));
            for (_, bytes) in out.messages {
                one.step(2, &bytes).unwrap();
            }
        }
    }
}

fn staged_in(staged: &[Stage]) -> Option<Staged> {
    let mut found: Option<(SnapshotId, Vec<u8>)> = None;
    for stage in staged {
        match (stage, &mut found) {
            (Stage::Begin(id), _) => found = Some((*id, Vec::new())),
            (Stage::Part { offset, bytes }, Some((_, data))) => {
                assert_eq!(*offset, data.len() as u64);
                data.extend_from_slice(bytes);
            }
            _ => panic!("a part of nothing"),
        }
    }
    found.map(|(id, data)| Staged { id, data })
}

#[test]
fn a_snapshot_goes_in_parts_no_faster_than_allowed_and_on_after_a_restart() {
    let (mut one, mut two) = (leader(3 * PART), follower(1, None));
    let mut staged = Vec::new();
    let mut before = 0;
    for _ in 0..4 {
        let (found, more) = tick(&mut one, &mut two);
        assert!(found.is_none());
        let bytes = |s: &Stage| match s {
            Stage::Part { bytes, .. } => bytes.len() as u64,
            Stage::Begin(_) => 0,
        };
        let came: u64 = more.iter().map(bytes).sum();
        assert!(came <= 4 * PART, "{came} bytes in a tick");
        staged.extend(more);
        let told = one.progress();
        let told = told.iter().find(|p| p.node == 2).unwrap();
        // The first tick may only find out that a snapshot is needed.
        assert!(told.snapshot_sent >= before);
        assert!(told.snapshot_len >= 20_000 || before == 0, "{told:?}");
        before = told.snapshot_sent;
    }
    assert!(before >= 5 * PART);
    // A restart that finds less than what was answered.
    let mut kept = staged_in(&staged).unwrap();
    kept.data.truncate(4 * PART as usize);
    let mut two = follower(2, Some(kept));
    assert_eq!(two.receiving().map(|r| r.0), Some(4 * PART));
    let mut came = 0;
    for ticks in 0.. {
        let (found, more) = tick(&mut one, &mut two);
        let part = |s: &&Stage| matches!(s, Stage::Part { .. });
        assert!(more.iter().all(|s| part(&s)), "it begins anew");
        came += more.iter().filter(part).count() as u64;
        if let Some(found) = found {
            assert_eq!((found.index, found.term), (10, 1));
            assert_eq!(found.members, members());
            assert_eq!(found.base, base());
            break;
        }
        assert!(ticks < 200, "it never ends");
    }
    assert!(came <= 17, "{came} parts of the 17 that were missing");
    for _ in 0..30 {
        tick(&mut one, &mut two);
    }
    let told = one.progress();
    let told = told.iter().find(|p| p.node == 2).unwrap();
    assert_eq!((told.snapshot, told.snapshot_len), (false, 0));
    assert_eq!(told.matched, one.committed());
    assert_eq!(two.committed(), one.committed());
}
