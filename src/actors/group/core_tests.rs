//! Rules of offsets, resets and locks, one test a rule.

use super::core::*;
use super::locks::LOCK_MS;
use super::members_tests::beat;
use super::types::*;
use crate::actors::link::{ConnId, Notice};
use crate::actors::shard::handle::{GroupState, QueueBounds};
use crate::model::command::MetaOp;
use crate::model::outcome::Refusal;
use crate::model::GroupId;

pub(super) const BOUNDS: QueueBounds = QueueBounds { min: 0, max: 1_000 };
pub(super) const Q: (u32, u32) = (1, 0);

pub(super) struct Bench {
    pub(super) core: GroupCore,
    pub(super) now: i64,
    pub(super) out: Vec<Effect>,
    next: u64,
}

impl Bench {
    /// A group whose state was read already.
    pub(super) fn loaded(state: GroupState) -> Self {
        let mut core = GroupCore::new("G", GroupLimits::default(), 0);
        let mut out = Vec::new();
        core.identify(Some(GroupId(7)), &mut out);
        core.request(0, Request::All, 0, &mut out);
        let Some(Effect::Load {
            id,
            group: GroupId(7),
        }) = out.pop()
        else {
            panic!("no load: {out:?}")
        };
        core.loaded(id, Ok(state), 0, &mut out);
        Self {
            core,
            now: 0,
            out: Vec::new(),
            next: 1,
        }
    }

    pub(super) fn commit(&mut self, offset: i64) -> u64 {
        let request = self.next;
        self.next += 1;
        self.core
            .commit(Q, offset, BOUNDS, Some(request), self.now, &mut self.out);
        request
    }

    pub(super) fn one_way(&mut self, offset: i64) {
        self.core
            .commit(Q, offset, BOUNDS, None, self.now, &mut self.out);
    }

    pub(super) fn ask(&mut self, what: Request) -> u64 {
        let request = self.next;
        self.next += 1;
        self.core.request(request, what, self.now, &mut self.out);
        request
    }

    pub(super) fn lock(&mut self, client: &str, keys: &[(u32, u32)]) -> u64 {
        self.ask(Request::Lock {
            client: client.into(),
            keys: keys.to_vec(),
        })
    }

    pub(super) fn propose(&mut self) {
        self.core.propose(self.now, &mut self.out);
    }

    /// Takes the only proposal.
    pub(super) fn proposal(&mut self) -> (u64, MetaOp) {
        let found = self
            .out
            .iter()
            .position(|e| matches!(e, Effect::Propose { .. }));
        let Effect::Propose { id, op } = self.out.remove(found.expect("a proposal")) else {
            unreachable!()
        };
        assert!(
            !self.out.iter().any(|e| matches!(e, Effect::Propose { .. })),
            "one at a time: {:?}",
            self.out
        );
        (id, op)
    }

    pub(super) fn offsets(&mut self) -> (u64, Vec<(u32, u32, u64)>, bool) {
        let (id, op) = self.proposal();
        let MetaOp::CommitOffsets(c) = op else {
            panic!("{op:?}")
        };
        assert_eq!(c.group, 7);
        (
            id,
            c.offsets
                .iter()
                .map(|o| (o.topic, o.queue, o.offset))
                .collect(),
            c.reset,
        )
    }

    pub(super) fn done(&mut self, id: u64) {
        self.core.proposal_done(id, Ok(1), self.now, &mut self.out);
    }

    pub(super) fn refused(&mut self, id: u64, refusal: Refusal) {
        self.core
            .proposal_done(id, Err(refusal), self.now, &mut self.out);
    }

    pub(super) fn answer(&mut self, request: u64) -> Option<Result<Answer, Refusal>> {
        let mut found = None;
        self.out.retain(|e| match e {
            Effect::Answer { request: r, answer } if *r == request => {
                assert!(found.replace(answer.clone()).is_none(), "answered twice");
                false
            }
            _ => true,
        });
        found
    }

    pub(super) fn load(&mut self, state: GroupState) {
        let found = self
            .out
            .iter()
            .position(|e| matches!(e, Effect::Load { .. }))
            .expect("a load");
        let Effect::Load { id, .. } = self.out.remove(found) else {
            unreachable!()
        };
        self.core.loaded(id, Ok(state), self.now, &mut self.out);
    }
}

pub(super) fn stored(offset: u64) -> GroupState {
    GroupState {
        offsets: vec![(Q, offset)],
        locks: vec![],
    }
}

#[test]
fn one_way_commits_are_coalesced_for_200_ms() {
    let mut b = Bench::loaded(GroupState::default());
    for offset in [3, 9, 5] {
        b.one_way(offset);
    }
    b.now = 199;
    b.propose();
    assert!(b.out.is_empty() && b.core.wants_flush());
    b.now = 200;
    b.propose();
    let (id, offsets, reset) = b.offsets();
    assert_eq!((offsets, reset), (vec![(1, 0, 9)], false));
    b.done(id);
    assert!(!b.core.wants_flush() && b.out.is_empty());
}

#[test]
fn a_one_way_commit_that_changes_nothing_is_not_proposed() {
    let mut b = Bench::loaded(stored(10));
    b.one_way(10);
    b.one_way(4);
    assert!(!b.core.wants_flush());
}

#[test]
fn a_two_way_commit_goes_at_once_and_takes_the_others_along() {
    let mut b = Bench::loaded(GroupState::default());
    b.core.commit((2, 5), 7, BOUNDS, None, 0, &mut b.out);
    let request = b.commit(3);
    let (id, mut offsets, _) = b.offsets();
    offsets.sort_unstable();
    assert_eq!(offsets, [(1, 0, 3), (2, 5, 7)]);
    assert_eq!(b.answer(request), None, "not before it is applied");
    b.done(id);
    assert_eq!(
        b.answer(request),
        Some(Ok(Answer::Committed(Committed::Applied)))
    );
}

#[test]
fn offsets_out_of_bounds_are_refused() {
    let mut b = Bench::loaded(GroupState::default());
    for bad in [-1, i64::MIN, 1_001, i64::MAX] {
        let request = b.commit(bad);
        assert!(
            matches!(b.answer(request), Some(Err(Refusal::Invalid(_)))),
            "{bad}"
        );
        b.one_way(bad);
    }
    assert!(b.out.is_empty() && !b.core.wants_flush());
    b.commit(1_000);
    b.offsets();
}

#[test]
fn a_query_sees_the_one_way_commit_before_it() {
    let mut b = Bench::loaded(stored(1));
    let early = b.ask(Request::Query { key: Q });
    assert_eq!(b.answer(early), Some(Ok(Answer::Offset(Some(1)))));
    b.one_way(8);
    let query = b.ask(Request::Query { key: Q });
    assert_eq!(b.answer(query), None);
    let (id, offsets, _) = b.offsets();
    assert_eq!(offsets, [(1, 0, 8)]);
    // A commit and a query while the first is in flight: they go with the next command.
    let joined = b.ask(Request::Query { key: Q });
    b.one_way(9);
    let later = b.ask(Request::Query { key: Q });
    b.done(id);
    assert_eq!(b.answer(query), Some(Ok(Answer::Offset(Some(8)))));
    assert_eq!(b.answer(joined), Some(Ok(Answer::Offset(Some(8)))));
    assert_eq!(b.answer(later), None);
    let (id, _, _) = b.offsets();
    b.done(id);
    assert_eq!(b.answer(later), Some(Ok(Answer::Offset(Some(9)))));
    let nothing = b.ask(Request::Query { key: (9, 9) });
    assert_eq!(b.answer(nothing), Some(Ok(Answer::Offset(None))));
}

#[test]
fn a_smaller_one_way_commit_of_a_push_group_never_moves_an_offset_back() {
    let mut b = Bench::loaded(stored(10));
    b.one_way(4);
    assert!(!b.core.wants_flush(), "it is dropped");
    let query = b.ask(Request::Query { key: Q });
    assert_eq!(b.answer(query), Some(Ok(Answer::Offset(Some(10)))));
}

#[test]
fn a_refused_command_fails_who_waits_and_keeps_the_offsets() {
    let mut b = Bench::loaded(GroupState::default());
    b.one_way(5);
    let request = b.commit(6);
    let (id, _, _) = b.offsets();
    b.refused(id, Refusal::Busy);
    assert_eq!(b.answer(request), Some(Err(Refusal::Busy)));
    b.now = 999;
    b.propose();
    assert!(b.out.is_empty(), "not before a second has passed");
    b.now = 1_000;
    b.propose();
    let (id, offsets, _) = b.offsets();
    assert_eq!(offsets, [(1, 0, 6)]);
    b.done(id);
    assert!(!b.core.wants_flush());
}

#[test]
fn commits_refused_for_a_minute_are_given_up() {
    let mut b = Bench::loaded(GroupState::default());
    b.one_way(5);
    while b.core.wants_flush() {
        b.now += 1_000;
        assert!(b.now <= 70_000, "never given up");
        b.propose();
        if b.out.iter().any(|e| matches!(e, Effect::Propose { .. })) {
            let (id, _, _) = b.offsets();
            b.refused(id, Refusal::NotLeader);
        }
    }
    assert!(b.now > 60_000, "given up too early: {}", b.now);
}

#[test]
fn a_reset_moves_back_redirects_pulls_and_ignores_old_commits_until_the_client_moved() {
    let mut b = Bench::loaded(stored(100));
    b.core
        .heartbeat(beat(1, "a", &["T"]), 0, &mut b.out)
        .expect("ok");
    b.out.clear();
    b.one_way(120);
    let overtaken = b.ask(Request::Query { key: Q });
    let (first, _, _) = b.offsets();
    b.one_way(130);
    let two_way = b.commit(131);
    let reset = b.ask(Request::Reset {
        topic: "T".into(),
        offsets: vec![(Q, 40)],
    });
    assert_eq!(
        b.answer(two_way),
        Some(Ok(Answer::Committed(Committed::ResetPending)))
    );
    assert!(b.core.ignores_commits(Q));
    assert!(
        b.core.resets().is_empty(),
        "pulls are redirected once it is applied"
    );
    let late = b.commit(132);
    assert_eq!(
        b.answer(late),
        Some(Ok(Answer::Committed(Committed::ResetPending)))
    );
    let query = b.ask(Request::Query { key: Q });
    b.done(first);
    assert_eq!(b.answer(overtaken), Some(Ok(Answer::Offset(Some(120)))));
    let (id, offsets, is_reset) = b.offsets();
    assert_eq!((offsets, is_reset), (vec![(1, 0, 40)], true));
    assert_eq!(b.answer(query), None);
    b.done(id);
    assert_eq!(b.answer(reset), Some(Ok(Answer::Reset)));
    assert_eq!(b.core.resets().get(&Q), Some(&40));
    assert!(b.out.contains(&Effect::PublishResets));
    assert_eq!(b.answer(query), Some(Ok(Answer::Offset(Some(40)))));
    let told = Notice::OffsetsReset {
        group: "G".into(),
        topic: "T".into(),
        offsets: vec![(0, 40)],
    };
    assert!(b.out.contains(&Effect::Notify {
        conns: vec![ConnId(1)],
        notice: told
    }));
    b.out.clear();
    b.core.reset_done(Q, 39, &mut b.out);
    assert_eq!(
        b.core.resets().len(),
        1,
        "another position is not the new one"
    );
    b.core.reset_done(Q, 40, &mut b.out);
    assert!(b.core.resets().is_empty());
    let request = b.commit(41);
    let (id, offsets, is_reset) = b.offsets();
    assert_eq!((offsets, is_reset), (vec![(1, 0, 41)], false));
    b.done(id);
    assert!(b.answer(request).is_some());
}

#[test]
fn a_refused_reset_is_over() {
    let mut b = Bench::loaded(stored(100));
    let reset = b.ask(Request::Reset {
        topic: "T".into(),
        offsets: vec![(Q, 40)],
    });
    let (id, _, _) = b.offsets();
    b.refused(id, Refusal::Busy);
    assert_eq!(b.answer(reset), Some(Err(Refusal::Busy)));
    assert!(b.core.resets().is_empty());
    let query = b.ask(Request::Query { key: Q });
    assert_eq!(b.answer(query), Some(Ok(Answer::Offset(Some(100)))));
}

#[test]
fn locks_exclude_renew_expire_and_release() {
    let mut b = Bench::loaded(GroupState::default());
    let keys = [(1, 0), (1, 1)];
    let request = b.lock("a", &keys);
    let (id, op) = b.proposal();
    let MetaOp::Locks(change) = op else {
        panic!("{op:?}")
    };
    assert_eq!((change.group, change.at_ms, change.queues.len()), (7, 0, 2));
    assert_eq!(b.answer(request), None, "not before it is applied");
    let rival = b.lock("b", &[(1, 1), (1, 2)]);
    b.done(id);
    assert_eq!(b.answer(request), Some(Ok(Answer::Locked(keys.to_vec()))));
    let (id, _) = b.proposal();
    b.done(id);
    assert_eq!(b.answer(rival), Some(Ok(Answer::Locked(vec![(1, 2)]))));

    b.now = 50_000;
    let renewed = b.lock("a", &[(1, 0)]);
    let (id, _) = b.proposal();
    b.done(id);
    assert!(b.answer(renewed).is_some());

    b.now = 60_000;
    let none = b.lock("b", &keys);
    assert_eq!(
        b.answer(none),
        Some(Ok(Answer::Locked(vec![]))),
        "nothing to propose: at once"
    );
    b.now = 60_001;
    let taken = b.lock("b", &keys);
    let (id, _) = b.proposal();
    b.done(id);
    assert_eq!(
        b.answer(taken),
        Some(Ok(Answer::Locked(vec![(1, 1)]))),
        "only the one not renewed"
    );

    let foreign = b.ask(Request::Unlock {
        client: "b".into(),
        keys: vec![(1, 0)],
    });
    assert_eq!(b.answer(foreign), Some(Ok(Answer::Unlocked)));
    assert_eq!(b.core.lock_holder((1, 0), b.now), Some("a"));
    let released = b.ask(Request::Unlock {
        client: "a".into(),
        keys: vec![(1, 0)],
    });
    let (id, _) = b.proposal();
    b.done(id);
    assert_eq!(b.answer(released), Some(Ok(Answer::Unlocked)));
    assert_eq!(b.core.lock_holder((1, 0), b.now), None);
}

#[test]
fn a_lock_of_another_leader_lives_from_its_load_whatever_its_stamp() {
    // Of a clock that was two days ahead, and of one as far behind.
    for stamp in [172_800_000, -172_800_000] {
        let mut b = Bench::loaded(GroupState {
            offsets: Vec::new(),
            locks: vec![((1, 0), "a".into(), stamp)],
        });
        b.now = LOCK_MS;
        assert_eq!(b.core.lock_holder((1, 0), b.now), Some("a"));
        let request = b.lock("b", &[(1, 0)]);
        assert_eq!(b.answer(request), Some(Ok(Answer::Locked(vec![]))));
        b.now = LOCK_MS + 1;
        assert_eq!(b.core.lock_holder((1, 0), b.now), None);
    }
}

#[test]
fn requests_for_different_queues_share_a_command() {
    let mut b = Bench::loaded(GroupState::default());
    b.lock("a", &[(1, 0)]);
    let (first, _) = b.proposal();
    let requests: Vec<u64> = (1..5)
        .map(|q| b.lock(&format!("c{q}"), &[(1, q)]))
        .collect();
    b.done(first);
    let (id, op) = b.proposal();
    let MetaOp::Locks(change) = op else {
        panic!("{op:?}")
    };
    assert_eq!(change.queues.len(), 4);
    b.done(id);
    for (q, request) in (1..5).zip(requests) {
        assert_eq!(b.answer(request), Some(Ok(Answer::Locked(vec![(1, q)]))));
    }
}

#[test]
fn state_is_read_on_first_need_and_again_after_leadership_was_in_doubt() {
    let mut core = GroupCore::new("G", GroupLimits::default(), 0);
    let mut out = Vec::new();
    core.identify(Some(GroupId(7)), &mut out);
    core.heartbeat(beat(1, "a", &["T"]), 0, &mut out)
        .expect("ok");
    out.clear();
    let mut b = Bench {
        core,
        now: 0,
        out,
        next: 1,
    };
    let lock = b.lock("b", &[Q]);
    let query = b.ask(Request::Query { key: Q });
    assert_eq!(b.answer(lock), None);
    b.load(GroupState {
        offsets: vec![(Q, 3)],
        locks: vec![(Q, "a".into(), 0)],
    });
    assert_eq!(b.answer(lock), Some(Ok(Answer::Locked(vec![]))));
    assert_eq!(b.answer(query), Some(Ok(Answer::Offset(Some(3)))));

    let mine = b.lock("a", &[Q]);
    let (id, _) = b.proposal();
    let waiting = b.lock("b", &[Q]);
    b.refused(id, Refusal::Indeterminate);
    assert_eq!(b.answer(mine), Some(Err(Refusal::Indeterminate)));
    assert_eq!(b.answer(waiting), Some(Err(Refusal::Indeterminate)));
    let again = b.lock("b", &[Q]);
    assert_eq!(b.answer(again), None);
    b.load(GroupState {
        offsets: vec![],
        locks: vec![(Q, "a".into(), 0)],
    });
    assert_eq!(b.answer(again), Some(Ok(Answer::Locked(vec![]))));
}

#[test]
fn a_failed_read_of_the_state_fails_who_waits() {
    let mut core = GroupCore::new("G", GroupLimits::default(), 0);
    let mut out = Vec::new();
    core.identify(Some(GroupId(7)), &mut out);
    core.request(1, Request::Query { key: Q }, 0, &mut out);
    let Some(Effect::Load { id, .. }) = out.pop() else {
        panic!("no load")
    };
    core.loaded(id, Err(Refusal::NotLeader), 0, &mut out);
    assert_eq!(
        out,
        [Effect::Answer {
            request: 1,
            answer: Err(Refusal::NotLeader)
        }]
    );
}

#[test]
fn a_deleted_group_forgets_and_a_new_one_of_the_name_starts_empty() {
    let mut b = Bench::loaded(stored(10));
    let commit = b.commit(20);
    let (id, _, _) = b.offsets();
    b.core.identify(Some(GroupId(8)), &mut b.out);
    assert_eq!(b.answer(commit), Some(Err(Refusal::NotFound("group"))));
    let query = b.ask(Request::Query { key: Q });
    b.done(id);
    b.load(GroupState::default());
    assert_eq!(
        b.answer(query),
        Some(Ok(Answer::Offset(None))),
        "the old command's end changes nothing"
    );

    b.core
        .heartbeat(beat(1, "a", &["T"]), 0, &mut b.out)
        .expect("ok");
    b.core.deleted(0, &mut b.out);
    assert!(b.core.members().is_empty());
    let request = b.commit(1);
    assert_eq!(b.answer(request), Some(Err(Refusal::NotFound("group"))));
    let lock = b.lock("a", &[Q]);
    assert_eq!(b.answer(lock), Some(Err(Refusal::NotFound("group"))));
}

#[test]
fn sleep_needs_five_quiet_minutes() {
    let mut b = Bench::loaded(GroupState::default());
    b.core
        .heartbeat(beat(1, "a", &["T"]), 0, &mut b.out)
        .expect("ok");
    b.core.tick(100_000, &mut b.out);
    assert!(!b.core.may_sleep(1_000_000), "it has a member");
    let gone = b.core.tick(121_000, &mut b.out);
    assert_eq!(gone, [ConnId(1)]);
    assert!(!b.core.may_sleep(420_999));
    assert!(b.core.may_sleep(421_000));
    b.now = 421_000;
    b.one_way(5);
    assert!(!b.core.may_sleep(1_000_000), "a commit waits");
}

#[test]
fn oversized_requests_are_refused() {
    let limits = GroupLimits {
        queues_per_request: 2,
        client_id_bytes: 3,
        ..Default::default()
    };
    let mut core = GroupCore::new("G", limits, 0);
    let mut out = Vec::new();
    core.identify(Some(GroupId(7)), &mut out);
    core.request(0, Request::All, 0, &mut out);
    let Some(Effect::Load { id, .. }) = out.pop() else {
        panic!("no load")
    };
    core.loaded(id, Ok(GroupState::default()), 0, &mut out);
    let mut b = Bench {
        core,
        now: 0,
        out: Vec::new(),
        next: 1,
    };
    let keys = vec![(1, 0), (1, 1), (1, 2)];
    let asked = [
        b.lock("a", &keys),
        b.lock("", &[Q]),
        b.lock("abcd", &[Q]),
        b.ask(Request::Unlock {
            client: "a".into(),
            keys: keys.clone(),
        }),
        b.ask(Request::Reset {
            topic: "T".into(),
            offsets: keys.iter().map(|k| (*k, 0)).collect(),
        }),
    ];
    for request in asked {
        assert!(matches!(b.answer(request), Some(Err(Refusal::Invalid(_)))));
    }
    assert!(b.out.is_empty());
}
