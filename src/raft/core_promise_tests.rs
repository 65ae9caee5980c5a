//! Promises, leases, and what counts as silence.

use super::*;

/// Three nodes with these promises, and their leader, which is node 1.
fn net(promises: [usize; 3]) -> Net {
    let mut net = Net::new(&[], &[]);
    net.promises = (1..).zip(promises).collect();
    for node in 1..=3 {
        net.start(node, &[1, 2, 3], 1);
    }
    net.tick(25);
    assert_eq!(net.leader(), 1);
    net
}

/// The lease that the leader has of asking with this stamp, ms.
fn lease(net: &mut Net, stamp: u64) -> Option<u64> {
    net.confirmed.clear();
    net.at(1).raft.confirm(stamp);
    net.settle();
    net.confirmed.first().map(|(node, of, lease)| {
        assert_eq!((*node, *of), (1, stamp));
        *lease
    })
}

#[test]
fn a_lease_is_as_long_as_a_majority_promised() {
    // Whatever the leader itself would promise, and whoever makes a majority with it first.
    let mut net = net([10, 8, 4]);
    // 6.5 ticks of 100 ms.
    assert_eq!(lease(&mut net, 5), Some(406));
    net.down.insert(2);
    assert_eq!(lease(&mut net, 6), Some(156));
    net.down.insert(3);
    assert_eq!(lease(&mut net, 7), None);
}

#[test]
fn followers_that_say_nothing_of_promises_are_taken_to_promise_as_they_used_to() {
    let mut net = net([10, 10, 10]);
    net.confirmed.clear();
    net.at(1).raft.confirm(5);
    net.drive(1);
    while let Some((from, to, bytes)) = net.wire.pop_front() {
        let (head, m) = message::decode(&bytes).unwrap();
        assert!(head.promise_ms.is_some(), "{m:?}");
        let silent = Head {
            promise_ms: None,
            ..head
        };
        let bytes = message::encode(&m, silent).unwrap();
        net.at(to).raft.step(from, &bytes).unwrap();
        net.drive(to);
    }
    // 250 ms, less a tick.
    assert_eq!(net.confirmed, [(1, 5, 93)]);
}

#[test]
fn who_is_elected_by_a_broken_promise_waits_for_what_is_left_of_it() {
    let mut net = net([10, 3, 10]);
    net.down.insert(1);
    for node in [2, 3] {
        net.at(node).raft.peer_lost(1);
    }
    net.tick(3);
    assert_eq!(net.leader(), 2);
    let mut ticks = 3;
    while !net.at(2).raft.may_serve() {
        net.tick(1);
        ticks += 1;
    }
    assert!(ticks >= 10, "the promise of node 3 is over: {ticks}");
}

#[test]
fn time_in_which_nothing_can_be_heard_is_no_silence() {
    let mut net = net([10, 10, 10]);
    net.down.insert(1);
    for _ in 0..100 {
        for node in [2, 3] {
            net.at(node).raft.unheard();
        }
        net.tick(1);
    }
    for node in [2, 3] {
        assert_eq!(net.at(node).raft.leader(), 1);
    }
    net.tick(25);
    assert_ne!(net.leader(), 1);
    // A leader that cannot hear anybody does not give up either.
    net.down.clear();
    net.tick(10);
    let leader = net.leader();
    let others: Vec<u64> = (1..=3).filter(|n| *n != leader).collect();
    for _ in 0..100 {
        net.at(leader).raft.unheard();
        net.at(leader).raft.tick();
        net.drive(leader);
        net.wire.clear();
    }
    assert!(net.at(leader).raft.is_leader());
    for _ in 0..25 {
        net.at(leader).raft.tick();
        net.drive(leader);
        net.wire.clear();
    }
    assert!(!net.at(leader).raft.is_leader(), "{others:?} are silent");
}

#[test]
fn a_leader_that_was_late_before_is_waited_for_longer() {
    let mut net = net([10, 10, 10]);
    let silence = |net: &mut Net, ticks: usize| {
        for _ in 0..ticks {
            for node in [2, 3] {
                net.at(node).raft.tick();
            }
            net.settle();
        }
    };
    // Processors are busy, and more so.
    for ticks in [8, 14, 20] {
        silence(&mut net, ticks);
        assert_eq!(net.leader(), 1, "after {ticks} ticks");
        net.tick(3);
    }
    silence(&mut net, 60);
    assert_ne!(net.leader(), 1);
}

#[test]
fn a_sole_voter_says_nothing_in_a_term_that_is_not_on_its_disk() {
    let mut net = Net::new(&[1], &[1]);
    net.at(1).raft.campaign();
    net.settle();
    let learner = [Change::AddLearner(2)];
    net.at(1).raft.propose_members(&learner).unwrap();
    net.settle();
    net.start(2, &[1], 1);
    net.tick(5);
    net.propose(1, "a");
    assert_eq!(net.at(2).texts(), [b"a"]);
    let term = net.at(1).raft.term();
    // It starts again, and its disk is slow; the learner comes with a new store.
    net.start(1, &[1], 2);
    net.settle();
    net.at(1).fast = false;
    net.at(1).raft.campaign();
    net.settle();
    assert!(net.at(1).raft.is_leader() && net.at(1).raft.term() == term + 1);
    net.at(1).raft.propose(b"b".to_vec()).unwrap();
    for _ in 0..5 {
        net.at(1).raft.tick();
        net.drive(1);
    }
    let said: Vec<_> = net.wire.iter().filter(|(from, ..)| *from == 1).collect();
    assert_eq!(said.len(), 0, "{said:?}");
    net.at(1).write_all();
    net.drive(1);
    assert!(net.wire.iter().any(|(from, ..)| *from == 1));
    net.settle();
    net.at(1).fast = true;
    net.at(1).write_all();
    net.tick(5);
    assert_eq!(net.at(2).texts(), [b"a", b"b"]);
}
