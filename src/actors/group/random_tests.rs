//! Random histories of one group over a model of the shard: commands are applied late, in order,
//! or refused. Checked in every step:
//! - no two clients hold a queue's lock at once, as far as they were told;
//! - an answered offset never goes back without a reset, and a query never answers less than a
//!   commit (one-way too) that was accepted before it;
//! - at rest, a queue is where its last two-way commit or reset set it, unless that one failed, or
//!   further by one-way commits since;
//! - whoever joined or left made exactly the present members hear of it;
//! - every request is answered once.

use super::core::*;
use super::locks::LOCK_MS;
use super::members_tests::beat;
use super::types::*;
use crate::actors::link::{ConnId, Notice};
use crate::actors::shard::handle::{GroupState, QueueBounds};
use crate::model::command::MetaOp;
use crate::model::outcome::Refusal;
use crate::model::GroupId;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

type Key = (u32, u32);
const BOUNDS: QueueBounds = QueueBounds { min: 0, max: 1_000 };
const CLIENTS: [&str; 3] = ["a", "b", "c"];

#[derive(Debug, Clone)]
enum Step {
    OneWay {
        queue: u32,
        offset: u16,
    },
    TwoWay {
        queue: u32,
        offset: u16,
    },
    Query {
        queue: u32,
    },
    Reset {
        queue: u32,
        offset: u16,
    },
    PullFromReset {
        queue: u32,
    },
    Lock {
        client: usize,
        queues: Vec<u32>,
    },
    Unlock {
        client: usize,
        queues: Vec<u32>,
    },
    Join {
        conn: u64,
    },
    Leave {
        conn: u64,
    },
    /// The shard answers its oldest question.
    Shard,
    /// It refuses the oldest proposal; applied all the same if `happened` (indeterminate).
    Refuse {
        kind: u8,
        happened: bool,
    },
    Time {
        ms: i64,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let queue = 0..3u32;
    let queues = prop::collection::vec(0..3u32, 1..4);
    let step = prop_oneof![
        4 => (queue.clone(), 0..900u16).prop_map(|(queue, offset)| Step::OneWay { queue, offset }),
        2 => (queue.clone(), 0..900u16).prop_map(|(queue, offset)| Step::TwoWay { queue, offset }),
        4 => queue.clone().prop_map(|queue| Step::Query { queue }),
        1 => (queue.clone(), 0..900u16).prop_map(|(queue, offset)| Step::Reset { queue, offset }),
        1 => queue.prop_map(|queue| Step::PullFromReset { queue }),
        4 => (0..3usize, queues.clone()).prop_map(|(client, queues)| Step::Lock { client, queues }),
        2 => (0..3usize, queues).prop_map(|(client, queues)| Step::Unlock { client, queues }),
        1 => (0..4u64).prop_map(|conn| Step::Join { conn }),
        1 => (0..4u64).prop_map(|conn| Step::Leave { conn }),
        8 => Just(Step::Shard),
        1 => (0..4u8, any::<bool>()).prop_map(|(kind, happened)| Step::Refuse { kind, happened }),
        4 => prop_oneof![0..300i64, 10_000..70_000i64].prop_map(|ms| Step::Time { ms }),
    ];
    prop::collection::vec(step, 1..120)
}

/// The replicated state machine's part for one group.
#[derive(Default)]
struct Shard {
    offsets: BTreeMap<Key, u64>,
    locks: BTreeMap<Key, (String, i64)>,
}

impl Shard {
    fn apply(&mut self, op: &MetaOp) {
        match op {
            MetaOp::CommitOffsets(c) => {
                for o in &c.offsets {
                    let slot = self.offsets.entry((o.topic, o.queue)).or_insert(o.offset);
                    *slot = if c.reset {
                        o.offset
                    } else {
                        o.offset.max(*slot)
                    };
                }
            }
            MetaOp::Locks(l) => {
                for q in &l.queues {
                    let key = (q.topic, q.queue);
                    if q.client.is_empty() {
                        self.locks.remove(&key);
                    } else {
                        self.locks.insert(key, (q.client.clone(), l.at_ms));
                    }
                }
            }
            other => panic!("unexpected {other:?}"),
        }
    }

    fn state(&self) -> GroupState {
        GroupState {
            offsets: self.offsets.iter().map(|(k, o)| (*k, *o)).collect(),
            locks: self
                .locks
                .iter()
                .map(|(k, (c, at))| (*k, c.clone(), *at))
                .collect(),
        }
    }
}

enum Asked {
    Commit {
        key: Key,
    },
    /// The answer must be at least this, unless a reset came in between.
    Query {
        key: Key,
        floor: u64,
        resets: u64,
    },
    Reset {
        key: Key,
    },
    Lock {
        client: String,
        since: i64,
    },
    Unlock,
}

enum Question {
    Propose { id: u64, op: MetaOp },
    Load { id: u64 },
}

struct World {
    core: GroupCore,
    shard: Shard,
    now: i64,
    next: u64,
    questions: VecDeque<Question>,
    asked: BTreeMap<u64, Asked>,
    /// Largest commit accepted, per queue, since the last reset or doubt.
    floor: BTreeMap<Key, u64>,
    /// Last offset answered.
    seen: BTreeMap<Key, u64>,
    resets: BTreeMap<Key, u64>,
    /// Where the queue ends up: the last request that set it, and the offset with later one-way
    /// commits on top; `None`: that request failed, it may or may not have happened.
    exact: BTreeMap<Key, (u64, Option<u64>)>,
    /// Who believes to hold a queue, until when.
    beliefs: BTreeMap<Key, BTreeMap<String, i64>>,
    present: BTreeSet<ConnId>,
}

impl World {
    fn new() -> Self {
        let mut core = GroupCore::new("G", GroupLimits::default(), 0);
        core.identify(Some(GroupId(7)), &mut Vec::new());
        Self {
            core,
            shard: Shard::default(),
            now: 0,
            next: 1,
            questions: VecDeque::new(),
            asked: BTreeMap::new(),
            floor: BTreeMap::new(),
            seen: BTreeMap::new(),
            resets: BTreeMap::new(),
            exact: BTreeMap::new(),
            beliefs: BTreeMap::new(),
            present: BTreeSet::new(),
        }
    }

    fn asked(&mut self, what: Asked) -> u64 {
        let request = self.next;
        self.next += 1;
        self.asked.insert(request, what);
        request
    }

    fn step(&mut self, step: Step) {
        let mut out = Vec::new();
        let mut told = None;
        match step {
            Step::OneWay { queue, offset } => self.commit((1, queue), offset, None, &mut out),
            Step::TwoWay { queue, offset } => {
                let key = (1, queue);
                let request = self.asked(Asked::Commit { key });
                if !self.core.ignores_commits(key) {
                    let (_, known) = self.exact.get(&key).copied().unwrap_or((0, Some(0)));
                    if known.is_none_or(|known| u64::from(offset) < known) {
                        // Who waits for the answer may set the offset back: like a reset.
                        *self.resets.entry(key).or_default() += 1;
                        self.floor.remove(&key);
                        self.seen.remove(&key);
                    }
                    self.exact.insert(key, (request, Some(offset.into())));
                }
                self.commit(key, offset, Some(request), &mut out);
            }
            Step::Query { queue } => {
                let key = (1, queue);
                let floor = self.floor.get(&key).copied().unwrap_or(0);
                let resets = self.resets.get(&key).copied().unwrap_or(0);
                let request = self.asked(Asked::Query { key, floor, resets });
                self.core
                    .request(request, Request::Query { key }, self.now, &mut out);
            }
            Step::Reset { queue, offset } => {
                let key = (1, queue);
                *self.resets.entry(key).or_default() += 1;
                self.floor.remove(&key);
                self.seen.remove(&key);
                let request = self.asked(Asked::Reset { key });
                self.exact.insert(key, (request, Some(offset.into())));
                let what = Request::Reset {
                    topic: "T".into(),
                    offsets: vec![(key, offset.into())],
                };
                self.core.request(request, what, self.now, &mut out);
            }
            Step::PullFromReset { queue } => {
                if let Some(offset) = self.core.resets().get(&(1, queue)).copied() {
                    self.core.reset_done((1, queue), offset, &mut out);
                }
            }
            Step::Lock { client, queues } => {
                let client = CLIENTS[client].to_owned();
                let request = self.asked(Asked::Lock {
                    client: client.clone(),
                    since: self.now,
                });
                let keys = queues.into_iter().map(|q| (1, q)).collect();
                self.core
                    .request(request, Request::Lock { client, keys }, self.now, &mut out);
            }
            Step::Unlock { client, queues } => {
                let client = CLIENTS[client].to_owned();
                let keys: Vec<Key> = queues.into_iter().map(|q| (1, q)).collect();
                for key in &keys {
                    // It gives the lock up when it asks.
                    self.beliefs.entry(*key).or_default().remove(&client);
                }
                // An answer on its way may not bring it back.
                for asked in self.asked.values_mut() {
                    if let Asked::Lock { client: c, since } = asked {
                        if *c == client {
                            *since = i64::MIN / 2;
                        }
                    }
                }
                let request = self.asked(Asked::Unlock);
                self.core.request(
                    request,
                    Request::Unlock { client, keys },
                    self.now,
                    &mut out,
                );
            }
            Step::Join { conn } => {
                let new = self.present.insert(ConnId(conn));
                let client = format!("m{conn}");
                self.core
                    .heartbeat(beat(conn, &client, &["T"]), self.now, &mut out)
                    .expect("within limits");
                told = Some(new);
            }
            Step::Leave { conn } => {
                let left = self.present.remove(&ConnId(conn));
                self.core.conn_closed(ConnId(conn), self.now, &mut out);
                told = Some(left && !self.present.is_empty());
            }
            Step::Shard => self.answer_question(&mut out),
            Step::Refuse { kind, happened } => self.refuse_question(kind, happened, &mut out),
            Step::Time { ms } => {
                self.now += ms;
                for conn in self.present.clone() {
                    let client = format!("m{}", conn.0);
                    self.core
                        .heartbeat(beat(conn.0, &client, &["T"]), self.now, &mut out)
                        .expect("within limits");
                }
                assert!(
                    out.is_empty(),
                    "a repeated heartbeat changes nothing: {out:?}"
                );
                self.core.tick(self.now, &mut out);
            }
        }
        if let Some(expected) = told {
            let conns: Vec<ConnId> = self.present.iter().copied().collect();
            let notice = Notice::MembersChanged { group: "G".into() };
            let heard = out.contains(&Effect::Notify { conns, notice });
            assert_eq!(heard, expected, "{out:?}");
        }
        self.perform(out);
    }

    fn commit(&mut self, key: Key, offset: u16, request: Option<u64>, out: &mut Vec<Effect>) {
        if !self.core.ignores_commits(key) {
            let slot = self.floor.entry(key).or_default();
            *slot = u64::from(offset).max(*slot);
            if let (_, Some(exact)) = self.exact.entry(key).or_insert((0, Some(0))) {
                *exact = u64::from(offset).max(*exact);
            }
        }
        self.core
            .commit(key, offset.into(), BOUNDS, request, self.now, out);
    }

    fn answer_question(&mut self, out: &mut Vec<Effect>) {
        match self.questions.pop_front() {
            Some(Question::Propose { id, op }) => {
                self.shard.apply(&op);
                self.core.proposal_done(id, Ok(1), self.now, out);
            }
            Some(Question::Load { id }) => {
                self.core.loaded(id, Ok(self.shard.state()), self.now, out)
            }
            None => {}
        }
    }

    fn refuse_question(&mut self, kind: u8, happened: bool, out: &mut Vec<Effect>) {
        let refusal = match kind {
            0 => Refusal::Busy,
            1 => Refusal::NotLeader,
            2 => Refusal::Unavailable("test"),
            _ => Refusal::Indeterminate,
        };
        match self.questions.pop_front() {
            Some(Question::Propose { id, op }) => {
                if happened && refusal == Refusal::Indeterminate {
                    self.shard.apply(&op);
                }
                self.core.proposal_done(id, Err(refusal), self.now, out);
            }
            Some(Question::Load { id }) => self.core.loaded(id, Err(refusal), self.now, out),
            None => {}
        }
    }

    fn perform(&mut self, out: Vec<Effect>) {
        for effect in out {
            match effect {
                Effect::Propose { id, op } => {
                    self.questions.push_back(Question::Propose { id, op })
                }
                Effect::Load { id, .. } => self.questions.push_back(Question::Load { id }),
                Effect::Answer { request, answer } => self.answered(request, answer),
                Effect::Notify { conns, .. } => {
                    assert_eq!(conns.into_iter().collect::<BTreeSet<_>>(), self.present);
                }
                Effect::PublishMembers
                | Effect::PublishResets
                | Effect::RecheckPulls
                | Effect::LeftOut(_) => {}
            }
        }
    }

    fn answered(&mut self, request: u64, answer: Result<Answer, Refusal>) {
        let asked = self
            .asked
            .remove(&request)
            .expect("answered once, and only what was asked");
        if let (Asked::Commit { key } | Asked::Reset { key }, Err(_)) = (&asked, &answer) {
            if let Some((_, exact)) = self.exact.get_mut(key).filter(|(r, _)| *r == request) {
                *exact = None;
            }
        }
        match (asked, answer) {
            (Asked::Query { key, floor, resets }, Ok(Answer::Offset(offset))) => {
                if resets != self.resets.get(&key).copied().unwrap_or(0) {
                    return;
                }
                let offset = offset.unwrap_or(0);
                assert!(
                    offset >= floor,
                    "{key:?}: {offset} after a commit of {floor}"
                );
                let before = self.seen.insert(key, offset).unwrap_or(0);
                assert!(
                    offset >= before,
                    "{key:?} went back from {before} to {offset}"
                );
            }
            (Asked::Lock { client, since }, Ok(Answer::Locked(held))) => {
                for key in held {
                    let holders = self.beliefs.entry(key).or_default();
                    holders.retain(|_, until| *until >= self.now);
                    let until = since.saturating_add(LOCK_MS);
                    if until < self.now {
                        continue;
                    }
                    let others: Vec<_> = holders.keys().filter(|c| **c != client).collect();
                    assert!(others.is_empty(), "{key:?} held by {others:?} and {client}");
                    holders.insert(client.clone(), until);
                }
            }
            (Asked::Reset { key }, Err(_)) => {
                // It did not happen (or may have): nothing known before counts.
                self.floor.remove(&key);
                self.seen.remove(&key);
                *self.resets.entry(key).or_default() += 1;
            }
            (Asked::Reset { .. }, Ok(Answer::Reset))
            | (Asked::Commit { .. }, Ok(Answer::Committed(_)))
            | (Asked::Unlock, Ok(Answer::Unlocked))
            | (_, Err(_)) => {}
            (_, other) => panic!("wrong kind of answer: {other:?}"),
        }
    }

    /// Everything comes to rest.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            if self.questions.is_empty() && !self.core.wants_flush() {
                break;
            }
            self.step(Step::Time { ms: 1_000 });
            self.step(Step::Shard);
        }
        assert!(self.asked.is_empty(), "somebody still waits");
        assert!(self.questions.is_empty());
    }
}

/// `PROPTEST_CASES` or a few thousand.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(2_000)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..Default::default() })]

    #[test]
    fn histories(steps in steps()) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
        world.settle();
        let floor = world.floor.clone();
        for (key, committed) in floor {
            // Given-up commits need a minute of refusals in a row, which these histories lack.
            let stored = world.shard.offsets.get(&key).copied().unwrap_or(0);
            prop_assert!(stored >= committed, "{key:?}: {stored} stored, {committed} committed");
        }
        for (key, (_, exact)) in &world.exact {
            let stored = world.shard.offsets.get(key).copied().unwrap_or(0);
            prop_assert!(exact.is_none_or(|e| e == stored), "{key:?}: {stored} for {exact:?}");
        }
    }
}
