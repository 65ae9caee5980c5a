//! A follower whose next entries were trimmed.

use super::*;
use crate::raft::snapshot;
use crate::raft::transfer::{Sending, SnapshotId};

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
            let members = raft.members().clone();
            raft.offer_snapshot(&members, &base());
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
        for (_, bytes) in out.messages.into_iter().filter(|(to, _)| *to == 2) {
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

/// A snapshot of node 1, which leads in this term, for node 2: one part.
fn whole_snapshot(term: u64, index: u64, members: &Members) -> Bytes {
    let mut m = Message::default();
    m.set_msg_type(MessageType::MsgSnapshot);
    (m.from, m.to, m.term) = (1, 2, term);
    let snapshot = m.mut_snapshot();
    snapshot.set_data(snapshot::encode(members, &base()));
    let meta = snapshot.mut_metadata();
    (meta.index, meta.term) = (index, term);
    meta.set_conf_state(members.to_raft());
    let part = Sending::new(m).part(1 << 20).unwrap();
    let head = Head {
        store: 1,
        sender_life: 1,
        receiver_life: 1,
        ..Head::default()
    };
    message::encode(&part, head).unwrap()
}

#[test]
fn a_state_that_was_offered_before_members_changed_is_given_to_nobody() {
    let (mut one, mut two) = (leader(0), follower(1, None));
    drive(&mut one);
    // Who wanted it has gone, or has caught up otherwise.
    one.offer_snapshot(&members(), &base());
    one.propose_members(&[Change::AddLearner(3)]).unwrap();
    let mut out = RaftOutput::default();
    for _ in 0..4 {
        one.ready(&mut out);
        for write in out.persist.drain(..) {
            one.persisted(write.number);
        }
        for entry in out.committed.drain(..) {
            if entry.kind != 0 {
                one.apply_members(&entry).unwrap();
            }
            one.applied(entry.index);
        }
    }
    assert_eq!(one.members().learners, [2, 3]);
    let found = (0..100).find_map(|_| tick(&mut one, &mut two).0);
    assert_eq!(found.expect("a snapshot comes").members.learners, [2, 3]);
}

/// Until the change is over nothing is committed without most of the voters of before.
#[test]
fn a_voter_that_goes_by_a_change_under_way_takes_a_snapshot() {
    for (voters_outgoing, taken) in [(vec![1, 2], true), (vec![1, 3], false)] {
        let members = Members {
            voters_outgoing,
            auto_leave: true,
            ..Members::of(vec![1, 3])
        };
        let start = RaftStart {
            members: Some(Members::of(vec![1, 2])),
            ..RaftStart::default()
        };
        let options = RaftOptions {
            voters: vec![1, 2],
            ..options(2, 1, 0)
        };
        let mut two = RaftCore::new(options, start).unwrap();
        let done = two.step(1, &whole_snapshot(3, 40, &members));
        assert_eq!(done.is_ok(), taken, "{done:?}");
        let mut out = RaftOutput::default();
        two.ready(&mut out);
        let installs = out.persist.iter().any(|w| w.snapshot.is_some());
        assert_eq!(installs, taken);
    }
}

#[test]
fn a_voter_does_not_stand_for_election_while_a_snapshot_is_written() {
    let members = Members::of(vec![1, 2, 3]);
    let start = RaftStart {
        members: Some(members.clone()),
        ..RaftStart::default()
    };
    let options = RaftOptions {
        voters: vec![1, 2, 3],
        ..options(2, 1, 0)
    };
    let mut two = RaftCore::new(options, start).unwrap();
    two.step(1, &whole_snapshot(3, 40, &members)).unwrap();
    let mut out = RaftOutput::default();
    two.ready(&mut out);
    assert_eq!(out.persist.len(), 1);
    let number = out.persist[0].number;
    assert!(out.persist[0].snapshot.is_some());
    // The disk hangs and the leader is gone.
    for ticks in 0..100 {
        two.tick();
        if ticks == 50 {
            two.campaign();
            two.peer_lost(1);
        }
        let mut out = RaftOutput::default();
        two.ready(&mut out);
        assert!(out.messages.is_empty() && out.persist.is_empty());
    }
    two.persisted(number);
    let mut asks = 0;
    for _ in 0..25 {
        two.tick();
        asks += drive(&mut two).messages.len();
    }
    assert!(asks > 0, "it stands once the snapshot is in place");
}

#[test]
fn a_transfer_that_goes_on_slowly_is_never_given_up() {
    // 200 ticks and more, of which many see no part.
    let (mut one, mut two) = (leader(PART / 10), follower(1, None));
    tick(&mut one, &mut two);
    let mut before = 0;
    for ticks in 0..400 {
        if let (Some(found), _) = tick(&mut one, &mut two) {
            assert!(ticks > 2 * SNAPSHOT_TIMEOUTS * one.election_ticks() - 20);
            assert_eq!(found.base, base());
            return;
        }
        let told = one.progress();
        let told = told.iter().find(|p| p.node == 2).unwrap();
        assert!(
            told.snapshot || before == 0,
            "reported failed in tick {ticks}"
        );
        assert!(told.snapshot_sent >= before);
        before = told.snapshot_sent;
    }
    panic!("it never ends");
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
