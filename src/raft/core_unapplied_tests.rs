//! Changes of members that are in the log and not applied, where every vote is needed.

use super::lost::lose_store;
use super::*;

/// Delivers what is on its way from one node to another, and nothing else.
fn deliver(net: &mut Net, from: u64, to: u64) {
    let (now, rest) = std::mem::take(&mut net.wire)
        .into_iter()
        .partition::<Vec<_>, _>(|(f, t, _)| (*f, *t) == (from, to));
    net.wire.extend(rest);
    for (_, _, bytes) in now {
        net.at(to).raft.step(from, &bytes).unwrap();
    }
    net.drive(to);
}

/// Two voters let a third in. One of them holds that change, hears no more, and goes by the members before;
/// the other one loses its store after it has gone on with the third.
#[test]
fn every_vote_includes_those_of_a_change_that_is_not_applied() {
    let mut net = Net::new(&[1, 2, 3], &[1, 2]);
    net.tick(25);
    let leader = net.leader();
    let behind = 3 - leader;
    let learner = [Change::AddLearner(3)];
    net.at(leader).raft.propose_members(&learner).unwrap();
    net.tick(20);
    let voter = [Change::AddVoter(3)];
    net.at(leader).raft.propose_members(&voter).unwrap();
    net.drive(leader);
    deliver(&mut net, leader, behind);
    deliver(&mut net, behind, leader);
    net.down.insert(behind);
    net.tick(5);
    net.propose(leader, "a");
    net.tick(5);
    assert_eq!(net.at(3).texts(), [b"a"]);
    assert!(!net.at(behind).raft.members().has_vote(3), "not applied");
    lose_store(&mut net, leader, &[1, 2]);
    net.down = [3].into();
    net.tick(200);
    assert!(
        !net.at(behind).raft.is_leader(),
        "two votes, and one of them of who has forgotten all"
    );
    net.down.clear();
    net.tick(200);
    assert_eq!(net.leader(), 3);
    assert_eq!(net.at(behind).texts(), [b"a"]);
}

/// Of voters 1 and 2 one leads; replica 3 gets a vote, and then there is a message. How many entries a log has that ends
/// with the change.
fn with_a_third_voter() -> (Net, u64, usize) {
    let mut net = Net::new(&[1, 2, 3], &[1, 2]);
    net.tick(25);
    let leader = net.leader();
    let learner = [Change::AddLearner(3)];
    net.at(leader).raft.propose_members(&learner).unwrap();
    net.tick(20);
    let voter = [Change::AddVoter(3)];
    net.at(leader).raft.propose_members(&voter).unwrap();
    net.drive(leader);
    let change = net.at(leader).log.len();
    net.tick(5);
    net.propose(leader, "a");
    net.tick(5);
    (net, leader, change)
}

/// The same change; the machines of both voters stop, and lose what the group has gone on with.
#[test]
fn recovering_replicas_need_the_voters_of_a_change_that_is_not_applied() {
    let (mut net, leader, change) = with_a_third_voter();
    let other = 3 - leader;
    assert_eq!(net.at(3).texts(), [b"a"]);
    net.down.insert(3);
    for node in [leader, other] {
        net.hurt.insert(node);
        net.at(node).log.truncate(change);
        net.at(node).hard_state.commit = change as u64 - 1;
        net.start(node, &[1, 2], 2);
    }
    net.tick(200);
    for node in [leader, other] {
        let raft = &net.at(node).raft;
        assert!(!raft.members().has_vote(3), "not applied");
        assert!(!raft.is_leader(), "without the one that kept all");
    }
    net.down.clear();
    net.tick(200);
    assert_eq!(net.leader(), 3);
    assert_eq!(net.at(other).texts(), [b"a"]);
}

/// The same, and the new voter has forgotten, as its machine stopped, that the change was committed: the newest log
/// is where no vote is known of.
#[test]
fn who_has_a_vote_by_a_change_that_is_not_applied_stands_where_all_wait_for_it() {
    let (mut net, leader, change) = with_a_third_voter();
    let other = 3 - leader;
    for node in [leader, other, 3] {
        net.hurt.insert(node);
        let kept = change + usize::from(node == 3);
        net.at(node).log.truncate(kept);
        net.at(node).hard_state.commit = change as u64 - 1;
        net.start(node, &[1, 2], 2);
    }
    net.tick(1);
    assert!(!net.at(3).raft.members().has_vote(3), "not applied");
    net.down.insert(other);
    net.tick(200);
    assert!(!net.at(3).raft.is_leader(), "not without the votes of all");
    net.down.clear();
    net.tick(200);
    assert_eq!(net.leader(), 3);
    for node in 1..=3 {
        assert_eq!(net.at(node).texts(), [b"a"]);
        assert!(net.at(node).raft.members().has_vote(3));
        assert!(!net.at(node).raft.is_recovering());
    }
}
