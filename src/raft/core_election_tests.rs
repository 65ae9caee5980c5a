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
