//! When a group reads its state, and which answer counts.

use super::core::*;
use super::core_tests::{stored, Bench, Q};
use crate::actors::shard::handle::GroupState;
use crate::model::outcome::Refusal;
use crate::model::GroupId;

fn loads(b: &Bench) -> usize {
    let load = |e: &&Effect| matches!(e, Effect::Load { .. });
    b.out.iter().filter(load).count()
}

#[test]
fn the_state_is_not_read_while_a_command_may_still_change_it() {
    let mut b = Bench::loaded(stored(3));
    let lock = b.lock("a", &[Q]);
    let (locks, _) = b.proposal();
    let commit = b.commit(5);
    let (offsets, _, _) = b.offsets();
    // Nobody knows what became of the commit, nor of the lock.
    b.refused(offsets, Refusal::Indeterminate);
    assert_eq!(b.answer(commit), Some(Err(Refusal::Indeterminate)));
    let other = b.lock("b", &[Q]);
    assert_eq!(loads(&b), 0, "the lock of a is under way");
    b.done(locks);
    assert_eq!(b.answer(lock), Some(Ok(Answer::Locked(vec![Q]))));
    assert_eq!(loads(&b), 1);
    b.load(GroupState {
        offsets: vec![(Q, 5)],
        locks: vec![(Q, "a".into(), 0)],
    });
    assert_eq!(b.answer(other), Some(Ok(Answer::Locked(vec![]))));
}

#[test]
fn what_was_read_of_a_group_that_is_gone_is_nothing_to_the_next_of_its_name() {
    let mut b = Bench::loaded(stored(3));
    b.core.identify(Some(GroupId(8)), &mut b.out);
    let first = b.ask(Request::Query { key: Q });
    let Some(Effect::Load { id: old, .. }) = b.out.pop() else {
        panic!("no load: {:?}", b.out)
    };
    b.core.identify(Some(GroupId(9)), &mut b.out);
    assert_eq!(b.answer(first), Some(Err(Refusal::NotFound("group"))));
    let query = b.ask(Request::Query { key: Q });
    b.core.loaded(old, Ok(stored(77)), b.now, &mut b.out);
    assert_eq!(b.answer(query), None, "of group 8");
    b.load(GroupState::default());
    assert_eq!(b.answer(query), Some(Ok(Answer::Offset(None))));
}
