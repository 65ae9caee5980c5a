//! Rules of offsets that go back (decision 6), one test a rule.

use super::core::*;
use super::core_tests::{stored, Bench, BOUNDS, Q};
use super::members_tests::beat;
use super::types::*;
use crate::model::command::MetaOp;
use crate::model::outcome::Refusal;
use crate::model::GroupId;

#[test]
fn a_two_way_commit_counts_before_the_state_is_known() {
    let mut core = GroupCore::new("G", GroupLimits::default(), 0);
    let mut out = Vec::new();
    core.identify(Some(GroupId(7)), &mut out);
    core.commit(Q, 4, BOUNDS, Some(1), 0, &mut out);
    assert!(
        matches!(&out[..], [Effect::Propose { op: MetaOp::CommitOffsets(c), .. }] if c.reset),
        "stored may be more: {out:?}"
    );
}

#[test]
fn members_that_own_their_position_may_set_it_back_one_way() {
    let mut b = Bench::loaded(stored(10));
    let mut member = beat(1, "c1", &["T"]);
    member.consume_type = ConsumeType::Actively;
    b.core.heartbeat(member, 0, &mut b.out).expect("member");
    b.one_way(4);
    let (id, offsets, reset) = b.offsets();
    assert_eq!((offsets, reset), (vec![(1, 0, 4)], true));
    // Those that come meanwhile are one command, one offset a queue.
    b.one_way(3);
    b.one_way(2);
    b.core.commit((1, 1), 5, BOUNDS, None, b.now, &mut b.out);
    b.core.commit((1, 1), 1, BOUNDS, None, b.now, &mut b.out);
    let query = b.ask(Request::Query { key: Q });
    b.done(id);
    let (id, offsets, reset) = b.offsets();
    assert_eq!((offsets, reset), (vec![(1, 0, 2), (1, 1, 1)], true));
    b.done(id);
    assert_eq!(b.answer(query), Some(Ok(Answer::Offset(Some(2)))));
}

#[test]
fn a_refused_set_back_fails_who_waits_and_loses_no_commit() {
    let mut b = Bench::loaded(stored(10));
    let request = b.commit(4);
    let (id, _, _) = b.offsets();
    b.one_way(20);
    b.refused(id, Refusal::Busy);
    assert_eq!(b.answer(request), Some(Err(Refusal::Busy)));
    let query = b.ask(Request::Query { key: Q });
    let (id, offsets, reset) = b.offsets();
    assert_eq!((offsets, reset), (vec![(1, 0, 20)], false));
    b.done(id);
    assert_eq!(b.answer(query), Some(Ok(Answer::Offset(Some(20)))));
}

#[test]
fn a_refused_commit_does_not_return_over_a_later_set_back() {
    let mut b = Bench::loaded(stored(10));
    let first = b.commit(30);
    let (id, _, _) = b.offsets();
    let second = b.commit(20);
    b.refused(id, Refusal::Busy);
    assert_eq!(b.answer(first), Some(Err(Refusal::Busy)));
    let (id, offsets, reset) = b.offsets();
    assert_eq!((offsets, reset), (vec![(1, 0, 20)], true));
    b.done(id);
    assert_eq!(
        b.answer(second),
        Some(Ok(Answer::Committed(Committed::Applied)))
    );
    assert!(!b.core.wants_flush(), "30 is over");
}

#[test]
fn who_waits_for_the_answer_may_set_an_offset_back() {
    let mut b = Bench::loaded(stored(10));
    let request = b.commit(4);
    let (id, offsets, reset) = b.offsets();
    assert_eq!((offsets, reset), (vec![(1, 0, 4)], true));
    b.one_way(6);
    b.done(id);
    assert_eq!(
        b.answer(request),
        Some(Ok(Answer::Committed(Committed::Applied)))
    );
    b.now += 1_000;
    b.propose();
    let (id, offsets, reset) = b.offsets();
    assert_eq!(
        (offsets, reset),
        (vec![(1, 0, 6)], false),
        "goes on from there"
    );
    b.done(id);
    let query = b.ask(Request::Query { key: Q });
    assert_eq!(b.answer(query), Some(Ok(Answer::Offset(Some(6)))));
}
