//! What a group may keep when the shard has no room for further offsets and locks.

use super::core::*;
use super::core_tests::{Bench, BOUNDS, Q};
use super::locks::LOCK_MS;
use super::offsets::COALESCE_MS;
use super::types::GroupLimits;
use crate::actors::shard::handle::GroupState;
use crate::model::command::MetaOp;
use crate::model::outcome::Refusal;
use crate::model::quota::{QuotaExceeded, QuotaKind};
use crate::model::GroupId;

const NEW: (u32, u32) = (1, 1);
const FULL: QuotaExceeded = QuotaExceeded {
    kind: QuotaKind::Offsets,
    limit: 1,
};

fn state() -> GroupState {
    GroupState {
        offsets: vec![(Q, 5)],
        locks: vec![(Q, "a".into(), 0)],
    }
}

fn full() -> Bench {
    let mut b = Bench::loaded(state());
    b.core.set_room(Err(FULL));
    b
}

fn left_out(b: &Bench) -> u64 {
    let counts = b.out.iter().filter_map(|e| match e {
        Effect::LeftOut(n) => Some(*n),
        _ => None,
    });
    counts.sum()
}

#[test]
fn an_old_offset_moves_on_and_a_new_one_is_refused() {
    let mut b = full();
    let old = b.commit(6);
    let (id, offsets, _) = b.offsets();
    assert_eq!(offsets, [(1, 0, 6)]);
    b.done(id);
    assert!(matches!(b.answer(old), Some(Ok(Answer::Committed(_)))));
    b.core.commit(NEW, 1, BOUNDS, Some(90), b.now, &mut b.out);
    assert_eq!(b.answer(90), Some(Err(Refusal::Quota(FULL))));
    b.core.commit(NEW, 1, BOUNDS, None, b.now, &mut b.out);
    b.one_way(7);
    assert_eq!(left_out(&b), 2);
    b.now += COALESCE_MS;
    b.propose();
    let (id, offsets, _) = b.offsets();
    assert_eq!(offsets, [(1, 0, 7)], "one-way ones too");
    b.done(id);
    // Out of bounds is out of bounds.
    b.core.commit(NEW, -1, BOUNDS, Some(91), b.now, &mut b.out);
    assert!(matches!(b.answer(91), Some(Err(Refusal::Invalid(_)))));
    // With room again it is taken.
    b.core.set_room(Ok(()));
    b.core.commit(NEW, 1, BOUNDS, Some(92), b.now, &mut b.out);
    assert_eq!(b.offsets().1, [(1, 1, 1)]);
}

#[test]
fn what_the_group_has_is_looked_up_before_it_is_refused() {
    let mut core = GroupCore::new("G", GroupLimits::default(), 0);
    let mut out = Vec::new();
    core.identify(Some(GroupId(7)), &mut out);
    core.set_room(Err(FULL));
    core.commit(Q, 8, BOUNDS, None, 0, &mut out);
    core.commit(NEW, 8, BOUNDS, Some(1), 0, &mut out);
    let [Effect::Load { id, .. }] = out[..] else {
        panic!("{out:?}")
    };
    out.clear();
    core.loaded(id, Ok(state()), 0, &mut out);
    let answer = Err(Refusal::Quota(FULL));
    assert!(
        out.contains(&Effect::Answer { request: 1, answer }),
        "{out:?}"
    );
    out.clear();
    core.propose(COALESCE_MS, &mut out);
    let [Effect::Propose {
        op: MetaOp::CommitOffsets(ref commit),
        ..
    }] = out[..]
    else {
        panic!("{out:?}")
    };
    assert_eq!((commit.offsets.len(), commit.offsets[0].offset), (1, 8));
}

#[test]
fn a_reset_moves_old_offsets_and_makes_no_new_ones() {
    let mut b = full();
    let reset = |keys: &[(u32, u32)]| Request::Reset {
        topic: "t".into(),
        offsets: keys.iter().map(|key| (*key, 2)).collect(),
    };
    let refused = b.ask(reset(&[Q, NEW]));
    assert_eq!(b.answer(refused), Some(Err(Refusal::Quota(FULL))));
    let taken = b.ask(reset(&[Q]));
    let (id, offsets, is_reset) = b.offsets();
    assert!(is_reset && offsets == [(1, 0, 2)]);
    b.done(id);
    assert_eq!(b.answer(taken), Some(Ok(Answer::Reset)));
}

#[test]
fn locks_are_renewed_and_no_further_queue_is_locked() {
    let mut b = full();
    let both = b.lock("a", &[Q, NEW]);
    let (id, _) = b.proposal();
    b.done(id);
    assert_eq!(b.answer(both), Some(Ok(Answer::Locked(vec![Q]))));
    assert_eq!(left_out(&b), 1);
    let other = b.lock("b", &[NEW]);
    assert_eq!(b.answer(other), Some(Ok(Answer::Locked(vec![]))));
    // A lock that nobody renewed changes hands.
    b.now = LOCK_MS + 1;
    let next = b.lock("b", &[Q]);
    let (id, _) = b.proposal();
    b.done(id);
    assert_eq!(b.answer(next), Some(Ok(Answer::Locked(vec![Q]))));
}

#[test]
fn dead_locks_leave_the_state() {
    let mut b = Bench::loaded(state());
    b.now = LOCK_MS;
    b.core.tick(b.now, &mut b.out);
    assert!(b.out.is_empty(), "{:?}", b.out);
    b.now = LOCK_MS + 1;
    b.core.tick(b.now, &mut b.out);
    let (id, op) = b.proposal();
    let MetaOp::Locks(change) = op else {
        panic!("{op:?}")
    };
    assert!(change.queues.len() == 1 && change.queues[0].client.is_empty());
    // Whoever asks meanwhile is decided on after it.
    let asks = b.lock("b", &[Q]);
    assert_eq!(b.answer(asks), None);
    b.done(id);
    let (id, _) = b.proposal();
    b.done(id);
    assert_eq!(b.answer(asks), Some(Ok(Answer::Locked(vec![Q]))));
    b.out.clear();
    b.core.tick(b.now, &mut b.out);
    assert!(b.out.is_empty(), "{:?}", b.out);
}
