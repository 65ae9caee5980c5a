//! Who is elected, and when.

use super::*;

#[test]
fn where_all_have_just_started_the_preferred_leader_is_elected() {
    for voters in [[1, 2, 3], [2, 3, 1], [3, 1, 2]] {
        let mut net = Net::new(&[1, 2, 3], &voters);
        net.tick(25);
        assert_eq!(net.leader(), voters[0], "a new group");
        net.propose(voters[0], "a");
        // All start again; one leads that was not preferred.
        let to = voters[1];
        net.at(voters[0]).raft.transfer(to).unwrap();
        net.settle();
        assert_eq!(net.leader(), to);
        for node in voters {
            net.start(node, &voters, 2);
        }
        net.tick(25);
        assert_eq!(net.leader(), voters[0], "all start again");
        // It is not waited for when it does not come.
        for node in voters {
            net.start(node, &voters, 3);
        }
        net.down.insert(voters[0]);
        net.tick(41);
        assert_ne!(net.leader(), voters[0]);
    }
}

#[test]
fn leadership_is_handed_over_without_a_timeout() {
    let mut net = Net::new(&[1, 2, 3], &[1, 2, 3]);
    net.tick(25);
    let old = net.leader();
    let to = old % 3 + 1;
    net.at(old).raft.transfer(to).unwrap();
    net.settle();
    assert_eq!(net.leader(), to);
    assert_eq!(net.at(to).raft.transfer(9), Err(MemberError::NoVoter(9)));
    assert_eq!(net.at(old).raft.transfer(to), Err(MemberError::NotLeader));
}

/// Ticks until the leader may serve.
fn ticks_until_serving(net: &mut Net, leader: u64) -> usize {
    let mut ticks = 0;
    while !net.at(leader).raft.may_serve() {
        net.tick(1);
        ticks += 1;
        assert!(ticks < 50 && net.leader() == leader);
    }
    ticks
}

#[test]
fn a_leader_waits_for_the_lease_of_one_that_may_still_live() {
    let mut net = Net::new(&[1, 2, 3], &[1, 2, 3]);
    net.tick(25);
    let old = net.leader();
    let promise = net.at(old).raft.promise_ticks();
    assert_eq!(promise, 10);
    assert!(net.at(old).raft.may_serve(), "all were silent for long");
    // Connections break while it may live on elsewhere.
    net.down.insert(old);
    for node in (1..=3).filter(|n| *n != old) {
        net.at(node).raft.peer_lost(old);
    }
    net.tick(4);
    let new = net.leader();
    assert_eq!(
        net.at(new).raft.transfer(new % 3 + 1),
        Err(MemberError::NotLeader)
    );
    // It was elected within these ticks.
    let waited = ticks_until_serving(&mut net, new);
    assert!(
        (promise + 2 - 5..=promise + 2).contains(&waited),
        "{waited}"
    );
    net.down.clear();
    net.tick(5);
    // Silence for a whole election timeout keeps every promise.
    net.down.insert(new);
    let next = loop {
        net.tick(1);
        let led = |(n, r): &(&u64, &Replica)| **n != new && r.raft.is_leader();
        if let Some((next, _)) = net.replicas.iter().find(led) {
            break *next;
        }
    };
    assert!(net.at(next).raft.may_serve());
}

#[test]
fn one_that_was_handed_the_lead_serves_once_the_leader_before_has_stepped_down() {
    let mut net = Net::new(&[1, 2, 3], &[1, 2, 3]);
    net.tick(25);
    let old = net.leader();
    let to = old % 3 + 1;
    net.at(old).raft.transfer(to).unwrap();
    net.settle();
    assert_eq!(net.leader(), to);
    assert!(net.at(to).raft.may_serve());
    // Only the third hears of the next.
    net.at(to).raft.transfer(old).unwrap();
    net.drive(to);
    let sent: Vec<_> = net.wire.drain(..).filter(|(_, at, _)| *at == old).collect();
    net.down.insert(to);
    for (from, at, bytes) in sent {
        net.at(at).raft.step(from, &bytes).unwrap();
    }
    net.settle();
    assert_eq!(net.leader(), old);
    assert!(!net.at(old).raft.may_serve());
    // They heard of their leader a heartbeat ago at most.
    let promise = net.at(old).raft.promise_ticks();
    let waited = ticks_until_serving(&mut net, old);
    assert!((promise..=promise + 2).contains(&waited), "{waited}");
    net.down.clear();
}

#[test]
fn a_transfer_that_was_slept_through_is_not_taken_up() {
    let mut net = Net::new(&[1, 2, 3], &[1, 2, 3]);
    net.tick(25);
    let old = net.leader();
    let to = old % 3 + 1;
    net.at(old).raft.transfer(to).unwrap();
    net.at(to).raft.slept();
    net.settle();
    assert_eq!(net.leader(), old);
    // Later ones are.
    net.tick(12);
    net.at(old).raft.transfer(to).unwrap();
    net.settle();
    assert_eq!(net.leader(), to);
}

#[test]
fn a_lost_connection_to_the_leader_brings_the_election_forward() {
    let mut net = Net::new(&[1, 2, 3], &[1, 2, 3]);
    net.tick(25);
    let old = net.leader();
    net.propose(old, "a");
    let others: Vec<u64> = (1..=3).filter(|n| *n != old).collect();
    // Only one lost it: the leader stays.
    net.at(others[0]).raft.peer_lost(old);
    net.tick(8);
    assert_eq!(net.leader(), old);
    net.down.insert(old);
    for node in &others {
        net.at(*node).raft.peer_lost(old);
    }
    net.tick(4);
    assert_ne!(net.leader(), old);
}
