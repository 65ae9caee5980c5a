use super::*;
use crate::raft::members::Change;
use std::collections::BTreeSet;

/// A replica whose log writes end when the test says so.
struct Replica {
    raft: RaftCore,
    log: Vec<LogEntry>,
    hard_state: HardState,
    writes: VecDeque<PersistWork>,
    applied: Vec<LogEntry>,
    /// Writes end at once.
    fast: bool,
}

struct Net {
    replicas: BTreeMap<u64, Replica>,
    wire: VecDeque<(u64, u64, Bytes)>,
    down: BTreeSet<u64>,
    /// Nodes that start recovering.
    hurt: BTreeSet<u64>,
    /// Nodes that start on a new store, and its number.
    blank: BTreeMap<u64, u64>,
    /// Ticks for which nodes promise, where it is not as usual.
    promises: BTreeMap<u64, usize>,
    /// Node, stamp and lease of confirmations.
    confirmed: Vec<(u64, u64, u64)>,
}

impl Net {
    fn new(nodes: &[u64], voters: &[u64]) -> Self {
        let mut net = Net {
            replicas: BTreeMap::new(),
            wire: VecDeque::new(),
            down: BTreeSet::new(),
            hurt: BTreeSet::new(),
            blank: BTreeMap::new(),
            promises: BTreeMap::new(),
            confirmed: Vec::new(),
        };
        for node in nodes {
            net.start(*node, voters, 1);
        }
        net
    }

    /// Starts a replica with what it wrote in its earlier life.
    fn start(&mut self, node: u64, voters: &[u64], life: u64) {
        let (log, hard_state) = match self.replicas.remove(&node) {
            Some(old) => (old.log, old.hard_state),
            None => (vec![], HardState::default()),
        };
        let options = RaftOptions {
            life,
            recovering: self.hurt.contains(&node),
            forgotten: self.blank.contains_key(&node),
            store: self.blank.get(&node).copied().unwrap_or(node),
            quiet: true,
            no_peers: false,
            promise_ticks: self.promises.get(&node).copied().unwrap_or(10),
            ..RaftOptions::group(node, voters.to_vec(), 7)
        };
        let mut start_state = hard_state;
        start_state.commit = start_state.commit.min(log.len() as u64);
        let start = RaftStart {
            hard_state: start_state,
            first: (1, 0),
            entries: log.clone(),
            ..RaftStart::default()
        };
        let replica = Replica {
            raft: RaftCore::new(options, start).unwrap(),
            log,
            hard_state,
            writes: VecDeque::new(),
            applied: vec![],
            fast: true,
        };
        self.replicas.insert(node, replica);
    }

    fn at(&mut self, node: u64) -> &mut Replica {
        self.replicas.get_mut(&node).unwrap()
    }

    /// Carries out what a replica asks for.
    fn drive(&mut self, node: u64) {
        let r = self.replicas.get_mut(&node).unwrap();
        loop {
            let mut out = RaftOutput::default();
            r.raft.ready(&mut out);
            if out.is_empty() {
                return;
            }
            for (to, bytes) in out.messages {
                self.wire.push_back((node, to, bytes));
            }
            if let Some((stamp, lease)) = out.confirmed {
                self.confirmed.push((node, stamp, lease));
            }
            r.writes.extend(out.persist);
            for entry in out.committed {
                assert_eq!(entry.index, r.applied.len() as u64 + 1);
                assert!(r.log.get(entry.index as usize - 1) == Some(&entry));
                if entry.kind != 0 {
                    r.raft.apply_members(&entry).unwrap();
                }
                r.raft.applied(entry.index);
                r.applied.push(entry);
            }
            for fetch in out.fetch {
                let found: Vec<_> = r.log[fetch.from as usize - 1..fetch.to as usize - 1].to_vec();
                r.raft.fetched(fetch.from, &found);
            }
            if r.fast {
                r.write_all();
            }
        }
    }

    fn settle(&mut self) {
        let nodes: Vec<u64> = self.replicas.keys().copied().collect();
        for node in nodes {
            self.drive(node);
        }
        while let Some((from, to, bytes)) = self.wire.pop_front() {
            if self.down.contains(&from) || self.down.contains(&to) {
                continue;
            }
            if let Some(r) = self.replicas.get_mut(&to) {
                match r.raft.step(from, &bytes) {
                    Ok(()) | Err(MessageError::Stranger(_)) => {}
                    Err(why) => panic!("{why}"),
                }
                self.drive(to);
            }
        }
    }

    fn tick(&mut self, ticks: usize) {
        for _ in 0..ticks {
            for (node, r) in &mut self.replicas {
                if !self.down.contains(node) {
                    r.raft.tick();
                }
            }
            self.settle();
        }
    }

    fn leader(&self) -> u64 {
        let leads = |(node, r): &(&u64, &Replica)| r.raft.is_leader() && !self.down.contains(node);
        let leaders: Vec<_> = self.replicas.iter().filter(leads).collect();
        assert_eq!(leaders.len(), 1);
        *leaders[0].0
    }

    fn propose(&mut self, node: u64, text: &str) -> u64 {
        let index = self.at(node).raft.propose(text.into()).unwrap();
        self.settle();
        index
    }
}

impl Replica {
    fn write_all(&mut self) {
        while let Some(work) = self.writes.pop_front() {
            if let Some(first) = work.entries.first() {
                self.log.truncate(first.index as usize - 1);
            }
            self.log.extend(work.entries);
            self.hard_state = work.hard_state.unwrap_or(self.hard_state);
            self.raft.persisted(work.number);
        }
    }

    fn texts(&self) -> Vec<&[u8]> {
        let normal = self.applied.iter().filter(|e| e.kind == 0);
        normal
            .map(|e| &e.data[..])
            .filter(|d| !d.is_empty())
            .collect()
    }
}

#[test]
fn three_replicas_elect_one_and_apply_the_same() {
    let mut net = Net::new(&[1, 2, 3], &[1, 2, 3]);
    net.tick(25);
    let leader = net.leader();
    let follower = leader % 3 + 1;
    assert_eq!(
        net.at(follower).raft.propose(b"x".to_vec()),
        Err(Refusal::NotLeader),
        "nothing is passed on"
    );
    net.propose(leader, "a");
    net.propose(leader, "b");
    net.tick(3);
    for r in net.replicas.values() {
        assert_eq!(r.texts(), [b"a", b"b"]);
        assert_eq!(r.applied, net.replicas[&leader].applied);
    }
}

#[test]
fn a_follower_and_a_candidate_speak_only_of_what_is_written() {
    let mut net = Net::new(&[1, 2, 3], &[1, 2, 3]);
    for r in net.replicas.values_mut() {
        r.fast = false;
    }
    net.tick(40);
    let asked: Vec<u64> = net
        .replicas
        .iter()
        .filter(|(_, r)| !r.writes.is_empty())
        .map(|(n, _)| *n)
        .collect();
    assert!(
        net.replicas.values().all(|r| !r.raft.is_leader()),
        "no vote left a node"
    );
    for node in asked {
        net.at(node).write_all();
    }
    net.settle();
    for _ in 0..6 {
        for node in 1..=3 {
            net.at(node).write_all();
        }
        net.tick(4);
    }
    let leader = net.leader();
    let index = net.propose(leader, "a");
    assert!(
        net.at(leader).raft.committed() < index,
        "nobody has written it"
    );
    let follower = leader % 3 + 1;
    net.at(follower).write_all();
    net.settle();
    assert!(net.at(leader).raft.committed() < index, "one of three has");
    net.at(leader).write_all();
    net.settle();
    assert_eq!(net.at(leader).raft.committed(), index);
}

#[test]
fn an_entry_that_no_link_carries_is_refused() {
    let mut net = Net::new(&[1, 2, 3], &[1, 2, 3]);
    net.tick(25);
    let leader = net.leader();
    let too_long = net.at(leader).raft.propose(vec![0; MAX_ENTRY_BYTES + 1]);
    assert!(matches!(too_long, Err(Refusal::Invalid(_))));
    net.propose(leader, "a");
    net.tick(3);
    assert_eq!(net.at(leader).texts(), [b"a"]);
}

#[test]
fn a_slow_disk_does_not_silence_a_follower() {
    let mut net = Net::new(&[1, 2, 3], &[1, 2, 3]);
    net.tick(25);
    let leader = net.leader();
    for node in (1..=3).filter(|n| *n != leader) {
        net.at(node).fast = false;
    }
    let index = net.propose(leader, "a");
    net.tick(40);
    assert_eq!(net.leader(), leader, "it hears a majority");
    assert!(
        net.at(leader).raft.committed() < index,
        "which has not written"
    );
    assert!(net.at(leader).raft.progress().iter().all(|p| p.active));
}

#[test]
fn what_a_lost_leader_did_not_replicate_is_overwritten() {
    let mut net = Net::new(&[1, 2, 3], &[1, 2, 3]);
    net.tick(25);
    let old = net.leader();
    net.propose(old, "kept");
    net.down.insert(old);
    net.at(old).raft.propose(b"lost-1".to_vec()).unwrap();
    net.at(old).raft.propose(b"lost-2".to_vec()).unwrap();
    net.settle();
    net.tick(40);
    let new = net.leader();
    assert_ne!(new, old);
    net.propose(new, "after");
    net.down.clear();
    net.tick(10);
    assert_eq!(net.leader(), new);
    for r in net.replicas.values() {
        assert_eq!(r.texts(), [&b"kept"[..], b"after"]);
        assert_eq!(r.log, net.replicas[&new].log);
    }
}

#[test]
fn a_follower_far_behind_gets_its_entries_from_the_disk() {
    let mut net = Net::new(&[1, 2, 3], &[1, 2, 3]);
    net.tick(25);
    let leader = net.leader();
    let late = leader % 3 + 1;
    net.down.insert(late);
    let big = "x".repeat(700_000);
    for _ in 0..40 {
        net.propose(leader, &big);
    }
    assert!(net.at(leader).raft.window_bytes() <= KEEP_BYTES);
    net.down.clear();
    net.tick(30);
    assert_eq!(net.at(late).texts().len(), 40);
    let leader_log = net.at(leader).log.clone();
    assert_eq!(net.at(late).log, leader_log);
}

#[test]
fn members_change_one_by_one_and_together() {
    let mut net = Net::new(&[1, 2, 3, 4], &[1, 2, 3]);
    net.down.insert(4);
    net.tick(25);
    let leader = net.leader();
    net.propose(leader, "a");
    net.down.clear();
    net.at(leader)
        .raft
        .propose_members(&[Change::AddLearner(4)])
        .unwrap();
    assert_eq!(
        net.at(leader).raft.propose_members(&[Change::AddVoter(4)]),
        Err(MemberError::Pending)
    );
    net.tick(5);
    assert_eq!(net.at(4).texts(), [b"a"], "a learner gets the log");
    let gone = leader % 3 + 1;
    let changes = [Change::AddVoter(4), Change::Remove(gone)];
    net.at(leader).raft.propose_members(&changes).unwrap();
    net.tick(5);
    let members = net.at(leader).raft.members().clone();
    assert!(!members.is_joint(), "joint consensus ends by itself");
    assert!(members.has_vote(4) && !members.has_vote(gone));
    assert_eq!(members.removed, [gone]);
    // What the removed one says is not listened to.
    let before = net.at(leader).raft.term();
    net.at(gone).raft.campaign();
    let mut out = RaftOutput::default();
    net.at(gone).raft.ready(&mut out);
    for (to, bytes) in out.messages {
        if to == leader {
            let heard = net.at(leader).raft.step(gone, &bytes);
            assert_eq!(heard, Err(MessageError::Stranger(gone)));
        }
    }
    net.tick(1);
    assert_eq!(net.at(leader).raft.term(), before);
    net.propose(leader, "b");
    net.tick(3);
    assert_eq!(net.at(4).texts(), [b"a", b"b"]);
}

#[test]
fn a_follower_that_lost_its_tail_is_filled_again_and_never_panics() {
    let mut net = Net::new(&[1, 2, 3], &[1, 2, 3]);
    net.tick(25);
    let leader = net.leader();
    for n in 0..10 {
        net.propose(leader, &format!("m{n}"));
    }
    net.tick(3);
    let hurt = leader % 3 + 1;
    net.at(hurt).log.truncate(4);
    net.start(hurt, &[1, 2, 3], 2);
    net.tick(10);
    assert_eq!(net.at(hurt).texts().len(), 10);
    let log = net.at(leader).log.clone();
    assert_eq!(net.at(hurt).log, log);
    // Messages of the earlier life come late.
    let mut m = Message::default();
    m.set_msg_type(MessageType::MsgAppendResponse);
    (m.to, m.from, m.term, m.index) = (leader, hurt, net.at(leader).raft.term(), 3);
    let head = |sender_life| Head {
        store: hurt,
        sender_life,
        receiver_life: 1,
        ..Head::default()
    };
    let old = message::encode(&m, head(1)).unwrap();
    assert_eq!(
        net.at(leader).raft.step(hurt, &old),
        Err(MessageError::Outdated(hurt))
    );
    let new = |m: &Message| message::encode(m, head(2)).unwrap();
    m.index = 1_000;
    let beyond = net.at(leader).raft.step(hurt, &new(&m));
    assert!(matches!(beyond, Err(MessageError::Impossible(_))));
    m.set_msg_type(MessageType::MsgHeartbeat);
    (m.to, m.from, m.commit) = (hurt, leader, 1 << 40);
    assert_eq!(
        net.at(hurt).raft.step(leader, &new(&m)),
        Ok(()),
        "cut to what is there"
    );
}

#[test]
fn any_bytes_are_refused_or_taken_without_a_panic() {
    let mut net = Net::new(&[1, 2, 3], &[1, 2, 3]);
    net.tick(25);
    let leader = net.leader();
    net.propose(leader, "a");
    let follower = leader % 3 + 1;
    let mut seen = Vec::new();
    net.at(leader).raft.propose(b"b".to_vec()).unwrap();
    let mut out = RaftOutput::default();
    net.at(leader).raft.ready(&mut out);
    seen.extend(out.messages);
    let mut x = 1u64;
    for (_, bytes) in seen {
        for _ in 0..20_000 {
            let mut bad = bytes.to_vec();
            for _ in 0..2 {
                x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let at = (x >> 33) as usize % bad.len();
                bad[at] ^= 1 << (x >> 20 & 7);
            }
            let _ = net.at(follower).raft.step(leader, &bad.into());
            let mut out = RaftOutput::default();
            net.at(follower).raft.ready(&mut out);
            for work in out.persist {
                net.at(follower).raft.persisted(work.number);
            }
        }
    }
}

#[path = "core_catch_up_tests.rs"]
mod catch_up_tests;
#[path = "core_election_tests.rs"]
mod election_tests;
#[path = "core_lost_tests.rs"]
mod lost;
#[path = "core_promise_tests.rs"]
mod promise_tests;
#[path = "core_unapplied_tests.rs"]
mod unapplied_tests;
