//! Which groups count as orderly: those whose members hold locks.

use super::core::*;
use super::core_tests::Bench;
use super::locks::LOCK_MS;
use crate::actors::shard::handle::GroupState;

const QUEUE: (u32, u32) = (1, 0);

impl Bench {
    fn is_orderly(&mut self) -> bool {
        let request = self.ask(Request::AnyLock);
        match self.answer(request) {
            Some(Ok(Answer::AnyLock(any))) => any,
            other => panic!("{other:?}"),
        }
    }

    fn locked(&mut self, client: &str) {
        self.lock(client, &[QUEUE]);
        let (id, _) = self.proposal();
        self.done(id);
    }
}

#[test]
fn a_group_is_orderly_while_a_member_holds_a_lock() {
    let mut b = Bench::loaded(GroupState::default());
    assert!(!b.is_orderly());
    b.locked("a");
    assert!(b.is_orderly());
    b.now = LOCK_MS;
    assert!(b.is_orderly());
    b.now = LOCK_MS + 1;
    assert!(!b.is_orderly(), "not renewed");
    b.locked("a");
    b.ask(Request::Unlock {
        client: "a".into(),
        keys: vec![QUEUE],
    });
    let (id, _) = b.proposal();
    b.done(id);
    assert!(!b.is_orderly(), "given back");
}

#[test]
fn a_lock_that_was_loaded_counts_once_it_is_renewed() {
    // Whoever held it may have gone long ago, and the group may consume concurrently today.
    let mut b = Bench::loaded(GroupState {
        offsets: Vec::new(),
        locks: vec![(QUEUE, "a".into(), 0)],
    });
    assert_eq!(b.core.lock_holder(QUEUE, b.now), Some("a"));
    assert!(!b.is_orderly());
    b.locked("a");
    assert!(b.is_orderly());
}
