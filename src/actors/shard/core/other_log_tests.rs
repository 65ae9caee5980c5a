use super::*;
use crate::actors::shard::machine::MachineOptions;
use crate::actors::shard::recover::recover;
use crate::model::topic::TopicConfig;
use crate::model::ShardId;
use crate::raft::members::Members;
use crate::raft::RaftOptions;
use crate::storage::{keys, LogStore, SimStore, SnapshotStore, StateBatch, StateOp, StateStore};
use std::collections::VecDeque;

const SHARD: ShardId = ShardId(1);

/// A replica and its store, whose work is done at once.
struct Replica {
    node: u64,
    store: SimStore,
    core: ShardCore,
    dropped: Vec<(u64, u64)>,
}

impl Replica {
    /// Entries 1 to `last` of term 1 are stored, up to `commit` committed.
    fn new(node: u64, last: u64, commit: u64, members: &Members) -> Self {
        let mut store = SimStore::new(&[SHARD]);
        let entry = |index| LogEntry {
            index,
            term: 1,
            kind: 0,
            data: Bytes::new(),
        };
        let append = LogAppend {
            shard: SHARD,
            entries: (1..=last).map(entry).collect(),
            hard_state: Some(HardState {
                term: 1,
                vote: 1,
                commit,
            }),
            sync: true,
        };
        store.append(&[append]).unwrap();
        let ops = vec![StateOp::Put {
            key: keys::members::key(SHARD),
            value: keys::members::encode(members),
        }];
        store.write(&StateBatch { ops }).unwrap();
        let core = Self::recover(node, &mut store, 1, false);
        Self {
            node,
            store,
            core,
            dropped: Vec::new(),
        }
    }

    fn recover(node: u64, store: &mut SimStore, life: u64, forgotten: bool) -> ShardCore {
        let raft = RaftOptions {
            quiet: true,
            life,
            store: node,
            forgotten,
            recovering: forgotten,
            ..RaftOptions::group(node, vec![1], 1)
        };
        let options = ShardOptions::of(SHARD);
        let found = recover(store, options, MachineOptions::default(), raft);
        found.unwrap().0
    }

    fn start(&mut self) -> VecDeque<(u64, Bytes)> {
        let mut out = Vec::new();
        self.core.start(&mut out);
        self.carry_out(out)
    }

    fn step(&mut self, input: ShardInput) -> VecDeque<(u64, Bytes)> {
        let mut out = Vec::new();
        self.core.step(input, &mut out);
        self.carry_out(out)
    }

    fn carry_out(&mut self, out: Vec<Effect>) -> VecDeque<(u64, Bytes)> {
        let mut sent = VecDeque::new();
        let mut todo = VecDeque::from(out);
        while let Some(effect) = todo.pop_front() {
            let done = match effect {
                Effect::Send { to, bytes } => {
                    sent.push_back((to, bytes));
                    continue;
                }
                Effect::Disk(DiskWork::Append { ticket, append }) => {
                    self.store.append(&[append]).unwrap();
                    ShardInput::AppendDone { ticket }
                }
                Effect::Disk(DiskWork::State {
                    mut batch, applied, ..
                }) => {
                    let (key, value) = (keys::applied::key(SHARD), keys::applied::encode(applied));
                    batch.ops.push(StateOp::Put { key, value });
                    self.store.write(&batch).unwrap();
                    ShardInput::StateDone { applied }
                }
                Effect::Disk(DiskWork::Fetch(fetch)) => {
                    let read = |from, to, max| self.store.read(SHARD, from, to, max);
                    ShardInput::Fetched {
                        from: fetch.from,
                        entries: fetch.read(read).unwrap(),
                    }
                }
                Effect::Disk(DiskWork::Forget {
                    hard_state,
                    reached,
                }) => {
                    self.store.forget(SHARD, hard_state, reached).unwrap();
                    continue;
                }
                Effect::Publish(Publish::OtherLog { first, last }) => {
                    self.dropped.push((first, last));
                    continue;
                }
                Effect::ToShard(input) => input,
                _ => continue,
            };
            let mut more = Vec::new();
            self.core.step(done, &mut more);
            todo.extend(more);
        }
        sent
    }
}

/// Lets both talk for some ticks; the leader makes an entry in each.
fn talk(one: &mut Replica, two: &mut Replica, ticks: i64) {
    exchange(one, two, ticks, true);
}

fn exchange(one: &mut Replica, two: &mut Replica, ticks: i64, proposes: bool) {
    let mut queue: VecDeque<(u64, u64, Bytes)> = VecDeque::new();
    for tick in 1..=ticks {
        let op = MetaOp::PutTopic(TopicConfig::new(format!("t{tick}"), 1, 6));
        let epoch = one.core.epoch();
        let id = tick as u64;
        let now_ms = tick * 100;
        for replica in [&mut *one, &mut *two] {
            let node = replica.node;
            let mut sent = replica.step(ShardInput::Tick { now_ms });
            if node == 1 && proposes {
                let op = op.clone();
                sent.extend(replica.step(ShardInput::Propose { id, epoch, op }));
                sent.extend(replica.step(ShardInput::Flush { now_ms }));
            }
            queue.extend(sent.into_iter().map(|(to, bytes)| (node, to, bytes)));
        }
        while let Some((from, to, bytes)) = queue.pop_front() {
            let replica = if to == 1 { &mut *one } else { &mut *two };
            let sent = replica.step(ShardInput::Message { from, bytes });
            queue.extend(sent.into_iter().map(|(next, bytes)| (to, next, bytes)));
        }
    }
}

/// The only voter, whose machine stopped after entry 3, and a learner that has 4 and 5, too.
fn group(members: &Members) -> (Replica, Replica) {
    let mut one = Replica::new(1, 3, 3, members);
    let two = Replica::new(2, 5, 5, members);
    assert_eq!(two.core.machine().applied.0, 5);
    one.start();
    assert!(one.core.raft().is_leader());
    (one, two)
}

#[test]
fn a_learner_that_holds_what_the_group_lost_is_filled_anew() {
    let mut members = Members::of(vec![1]);
    members.learners = vec![2];
    let (mut one, mut two) = group(&members);
    talk(&mut one, &mut two, 10);
    assert!(two.core.failed().is_some(), "it holds another log");
    let bounds = two.store.bounds(SHARD).unwrap();
    assert_eq!((bounds.first, bounds.last), (1, 0), "and keeps none of it");
    assert_eq!(bounds.hard_state.commit, 0);
    assert!(
        bounds.hard_state.term >= 1,
        "terms and votes are not forgotten"
    );
    assert_eq!(two.dropped, [(4, 5)]);

    two.core = Replica::recover(2, &mut two.store, 2, true);
    two.start();
    talk(&mut one, &mut two, 20);
    assert_eq!(two.core.failed(), None);
    let (own, other) = (one.core.machine(), two.core.machine());
    assert!(other.applied.0 > 10 && own.applied.0 - other.applied.0 <= 1);
    assert_eq!(other.has_topic(3), own.has_topic(3));
    for index in 1..=other.applied.0 {
        let read = |r: &Replica| r.store.read(SHARD, index, index + 1, u64::MAX).unwrap();
        assert_eq!(read(&one), read(&two), "entry {index}");
    }
}

/// The leader's first entry is all that the group has anew, and it is far in front of the end of the learner's log.
#[test]
fn a_learner_that_holds_more_than_the_group_has_again_notices_it() {
    let mut members = Members::of(vec![1]);
    members.learners = vec![2];
    let mut one = Replica::new(1, 3, 3, &members);
    let mut two = Replica::new(2, 9, 9, &members);
    one.start();
    exchange(&mut one, &mut two, 10, false);
    assert_eq!(one.store.bounds(SHARD).unwrap().last, 4);
    assert!(two.core.failed().is_some(), "it holds another log");
    assert_eq!(two.dropped, [(4, 9)]);
}

#[test]
fn a_voter_that_holds_another_log_stops_and_keeps_all_of_it() {
    let mut members = Members::of(vec![1]);
    members.learners = vec![2];
    // It believes that it has a vote.
    let mut two = Replica::new(2, 5, 5, &Members::of(vec![1, 2]));
    let mut one = Replica::new(1, 3, 3, &members);
    one.start();
    talk(&mut one, &mut two, 10);
    assert!(two.core.failed().is_some());
    assert_eq!(two.store.bounds(SHARD).unwrap().last, 5);
    assert!(two.dropped.is_empty());
}
