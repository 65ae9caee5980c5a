//! Replicas that recover, or have forgotten.

use super::*;

#[test]
fn a_replica_that_may_have_lost_entries_does_not_vote_until_it_is_filled() {
    let mut net = Net::new(&[1, 2, 3], &[1, 2, 3]);
    net.tick(25);
    let leader = net.leader();
    let (hurt, late) = (leader % 3 + 1, (leader + 1) % 3 + 1);
    net.down.insert(late);
    net.propose(leader, "only on two");
    // The machine of one stops, and then the leader pauses.
    let kept = net.at(hurt).log.len() - 1;
    net.at(hurt).log.truncate(kept);
    net.hurt.insert(hurt);
    net.start(hurt, &[1, 2, 3], 2);
    net.down = [leader].into();
    net.tick(100);
    assert!(!net.at(hurt).raft.is_leader() && !net.at(late).raft.is_leader());
    assert!(net.at(hurt).raft.is_recovering());
    net.down.clear();
    net.tick(60);
    assert!(!net.at(hurt).raft.is_recovering());
    for node in 1..=3 {
        assert_eq!(net.at(node).texts(), [b"only on two"]);
    }
}

#[test]
fn recovering_replicas_begin_only_all_together_and_with_the_longest_log() {
    let mut net = Net::new(&[1, 2, 3], &[1, 2, 3]);
    net.tick(25);
    let leader = net.leader();
    for n in 0..5 {
        net.propose(leader, &format!("m{n}"));
    }
    net.tick(3);
    net.hurt = [1, 2, 3].into();
    let lost = [leader % 3 + 1, (leader + 1) % 3 + 1];
    for node in 1..=3 {
        if lost.contains(&node) {
            net.at(node).log.truncate(3);
        }
        net.start(node, &[1, 2, 3], 2);
    }
    net.down.insert(leader);
    net.tick(100);
    assert!(
        lost.iter().all(|n| !net.replicas[n].raft.is_leader()),
        "one is missing"
    );
    net.down.clear();
    net.tick(100);
    assert_eq!(net.leader(), leader, "it has the longest log");
    net.propose(leader, "after");
    net.tick(5);
    for r in net.replicas.values() {
        assert!(!r.raft.is_recovering());
        assert_eq!(r.texts().len(), 6);
    }
}

/// Starts a node anew on an empty store.
pub(super) fn lose_store(net: &mut Net, node: u64, voters: &[u64]) {
    net.replicas.remove(&node);
    let store = net.blank.get(&node).map_or(100, |old| old + 100);
    net.blank.insert(node, store);
    // Lives of another store are no lives of the one before.
    net.start(node, voters, store - 99);
}

/// All have new stores, and the first one asks for the votes of all.
fn first_asks(all: &[u64]) -> Net {
    let mut net = Net::new(&[], all);
    for node in all {
        lose_store(&mut net, *node, all);
    }
    net.at(1).raft.campaign();
    net.drive(1);
    net
}

#[test]
fn a_new_group_begins_when_all_its_members_are_there() {
    let all = [1, 2, 3];
    let mut net = Net::new(&[], &all);
    for node in [1, 2] {
        lose_store(&mut net, node, &all);
    }
    net.tick(100);
    assert!(net.replicas.values().all(|r| !r.raft.is_leader()));
    lose_store(&mut net, 3, &all);
    net.tick(100);
    let leader = net.leader();
    net.propose(leader, "a");
    net.tick(5);
    for r in net.replicas.values() {
        assert!(!r.raft.is_recovering() && r.raft.is_marked());
        assert_eq!(r.texts(), [b"a"]);
        assert!(r.raft.members().admitted.is_empty());
    }
}

#[test]
fn a_member_without_its_store_counts_for_nothing_until_it_is_admitted() {
    let all = [1, 2, 3];
    let mut net = Net::new(&all, &all);
    net.tick(25);
    let leader = net.leader();
    let (lost, late) = (leader % 3 + 1, (leader + 1) % 3 + 1);
    net.propose(leader, "a");
    let applied = net.at(leader).applied.len();
    net.down.insert(late);
    lose_store(&mut net, lost, &all);
    net.at(leader).raft.propose(b"b".to_vec()).unwrap();
    net.tick(5);
    // It may have promised its vote in a later term, and has forgotten.
    assert_eq!(
        net.at(leader).applied.len(),
        applied,
        "nothing is committed with it"
    );
    net.tick(60);
    assert!(
        net.replicas.values().all(|r| !r.raft.is_leader()),
        "nor elected"
    );
    net.down.clear();
    net.tick(80);
    let leader = net.leader();
    net.propose(leader, "c");
    net.tick(40);
    let store = net.blank[&lost];
    for r in net.replicas.values() {
        assert_eq!(r.texts(), [&b"a"[..], b"b", b"c"]);
        assert_eq!(r.raft.members().voters, all);
        assert_eq!(r.raft.members().admitted.get(&lost), Some(&store));
        assert!(!r.raft.is_recovering());
    }
    // Once more: the store it was admitted with is gone too.
    lose_store(&mut net, lost, &all);
    net.tick(80);
    let store = net.blank[&lost];
    let leader = net.leader();
    let members = net.at(leader).raft.members().clone();
    assert_eq!(
        (members.admitted.get(&lost), &members.voters[..]),
        (Some(&store), &all[..])
    );
}

/// It may not lead, and the group needs its vote.
#[test]
fn who_does_not_stand_lets_go_of_a_leader_that_is_silent() {
    let all = [1, 2, 3];
    let mut net = Net::new(&all, &all);
    net.tick(25);
    let leader = net.leader();
    let barred = leader % 3 + 1;
    net.at(barred).raft.bar(true);
    net.tick(5);
    net.down.insert(leader);
    net.tick(100);
    let other = (leader + 1) % 3 + 1;
    assert!(net.at(other).raft.is_leader());
}

/// Votes for it are on their way when it is told that its state is wrong.
#[test]
fn who_must_not_lead_gives_up_an_election_that_it_stands_in() {
    let all = [1, 2, 3];
    let mut net = Net::new(&all, &all);
    net.tick(25);
    let other = net.leader() % 3 + 1;
    let one = &mut net.at(other).raft;
    one.campaign();
    assert_eq!(one.node.raft.state, StateRole::PreCandidate);
    one.bar(true);
    assert_eq!(one.node.raft.state, StateRole::Follower);
}

#[test]
fn of_two_members_the_one_with_data_leads_the_one_without() {
    let all = [1, 2];
    let mut net = Net::new(&all, &all);
    net.tick(25);
    let leader = net.leader();
    net.propose(leader, "a");
    let lost = 3 - leader;
    lose_store(&mut net, lost, &all);
    net.tick(200);
    assert_eq!(net.leader(), leader);
    net.propose(leader, "b");
    net.tick(5);
    assert_eq!(net.at(lost).texts(), [b"a", b"b"]);
}

#[test]
fn a_sole_voter_of_the_configuration_waits_for_the_group_it_may_have_had() {
    let mut net = Net::new(&[1, 2, 3], &[1]);
    net.tick(25);
    net.propose(1, "a");
    for node in [2, 3] {
        let change = [Change::AddVoter(node)];
        net.at(1).raft.propose_members(&change).unwrap();
        net.tick(5);
    }
    net.at(1).raft.transfer(2).unwrap();
    net.settle();
    assert_eq!(net.leader(), 2);
    // The configuration still says that node 1 is alone.
    lose_store(&mut net, 1, &[1]);
    net.at(1).raft.campaign();
    net.tick(40);
    assert_eq!(net.leader(), 2);
    net.propose(2, "b");
    net.tick(5);
    for r in net.replicas.values() {
        assert_eq!(r.texts(), [b"a", b"b"]);
        assert_eq!(r.raft.members().voters, [1, 2, 3]);
    }
    // Nobody fills it, however long it waits: only who knows better may say that it is alone.
    let mut net = Net::new(&[], &[1]);
    lose_store(&mut net, 1, &[1]);
    net.tick(2_000);
    assert!(!net.at(1).raft.is_leader() && net.at(1).raft.is_lone());
    net.at(1).raft.form();
    net.settle();
    assert_eq!(net.leader(), 1);
    net.propose(1, "a");
    assert!(!net.at(1).raft.is_recovering() && !net.at(1).raft.is_lone());
}

#[test]
fn a_sole_voter_of_an_older_version_s_data_waits_too() {
    for unsure in [true, false] {
        let entry = LogEntry {
            index: 1,
            term: 1,
            kind: 0,
            data: Bytes::new(),
        };
        let start = RaftStart {
            hard_state: HardState {
                term: 1,
                vote: 1,
                commit: 1,
            },
            first: (1, 0),
            entries: vec![entry],
            unsure,
            ..RaftStart::default()
        };
        let options = RaftOptions {
            quiet: true,
            no_peers: false,
            ..RaftOptions::single(1, 1)
        };
        let mut raft = RaftCore::new(options, start).unwrap();
        raft.campaign();
        assert_eq!((raft.is_lone(), raft.is_leader()), (unsure, !unsure));
        raft.form();
        assert!(raft.is_leader() && !raft.is_lone());
    }
}

#[test]
fn a_sole_voter_that_lost_what_it_had_synced_begins_by_no_word() {
    for owed in [0, 5] {
        let options = RaftOptions {
            quiet: true,
            no_peers: false,
            forgotten: true,
            store: 7,
            owed,
            ..RaftOptions::single(1, 1)
        };
        let mut raft = RaftCore::new(options, RaftStart::default()).unwrap();
        raft.campaign();
        assert!(raft.is_lone() && !raft.is_leader());
        raft.form();
        assert_eq!((raft.is_lone(), raft.is_leader()), (owed > 0, owed == 0));
        assert_eq!(raft.owed(), Some(owed).filter(|owed| *owed > 0));
    }
}

#[test]
fn a_repaired_store_with_a_new_number_is_admitted_like_an_empty_one() {
    let all = [1, 2, 3];
    let mut net = Net::new(&all, &all);
    net.tick(25);
    let leader = net.leader();
    let hurt = leader % 3 + 1;
    lose_store(&mut net, hurt, &all);
    net.tick(80);
    let leader = net.leader();
    net.propose(leader, "a");
    net.tick(10);
    let first = net.blank[&hurt];
    let members = net.at(leader).raft.members().clone();
    assert_eq!(members.admitted.get(&hurt), Some(&first));
    assert_eq!(members.voters, all);
    // It loses the end of its log and perhaps votes, keeps the rest, and says so by its number.
    let kept = net.at(hurt).log.len() - 1;
    net.at(hurt).log.truncate(kept);
    net.at(hurt).hard_state.vote = 0;
    net.blank.insert(hurt, first + 7);
    net.start(hurt, &all, 2);
    let late = (1..=3).find(|n| *n != leader && *n != hurt).unwrap();
    net.down.insert(late);
    net.at(leader).raft.propose(b"b".to_vec()).unwrap();
    net.settle();
    assert!(
        net.at(leader).texts().len() == 1,
        "it does not count with the number it was admitted with before"
    );
    net.down.clear();
    net.tick(100);
    let leader = net.leader();
    net.propose(leader, "c");
    net.tick(40);
    let members = net.at(leader).raft.members().clone();
    assert_eq!(members.admitted.get(&hurt), Some(&(first + 7)));
    assert_eq!((members.voters, members.returning), (all.to_vec(), vec![]));
    let log = net.at(leader).log.clone();
    assert_eq!(net.at(hurt).log, log);
    assert!(!net.at(hurt).raft.is_recovering());
}

#[test]
fn a_replica_with_another_history_says_so() {
    let mut net = Net::new(&[1, 2, 3], &[1, 2, 3]);
    net.tick(25);
    let leader = net.leader();
    for n in 0..4 {
        net.propose(leader, &format!("m{n}"));
    }
    net.tick(3);
    let hurt = leader % 3 + 1;
    let term = net.at(leader).raft.term();
    let mut m = Message::default();
    m.set_msg_type(MessageType::MsgAppend);
    (m.from, m.to, m.term) = (leader, hurt, term + 3);
    (m.index, m.log_term, m.commit) = (3, term + 2, 3);
    let head = Head {
        store: leader,
        sender_life: 1,
        ..Head::default()
    };
    let bytes = message::encode(&m, head).unwrap();
    let other = MessageError::OtherLog {
        index: 3,
        own: term,
        theirs: term + 2,
    };
    assert_eq!(net.at(hurt).raft.step(leader, &bytes), Err(other));
    (m.log_term, m.term) = (term, term);
    let bytes = message::encode(&m, head).unwrap();
    assert_eq!(net.at(hurt).raft.step(leader, &bytes), Ok(()));
}

#[test]
fn a_late_answer_from_before_an_election_is_no_vote_in_it() {
    let all = [1, 2, 3];
    let mut net = first_asks(&all);
    let mut late = Vec::new();
    while let Some((from, to, bytes)) = net.wire.pop_front() {
        let (_, m) = message::decode(&bytes).unwrap();
        match m.get_msg_type() {
            MessageType::MsgRequestPreVoteResponse if from == 3 => late.push(bytes.clone()),
            // Its vote is not asked for, and the election needs all.
            MessageType::MsgRequestVote if to == 3 => {
                let doubled = late[0].clone();
                net.at(1).raft.step(3, &doubled).unwrap();
                continue;
            }
            _ => {}
        }
        net.at(to).raft.step(from, &bytes).unwrap();
        net.drive(to);
    }
    assert_eq!(net.at(1).raft.term(), 1, "it stood for election");
    assert!(!net.at(1).raft.is_leader());
}

#[test]
fn who_went_on_to_a_later_term_before_it_heard_of_the_leader_gets_in() {
    let all = [1, 2, 3];
    let mut net = first_asks(&all);
    while let Some((from, to, bytes)) = net.wire.pop_front() {
        // It votes, and hears nothing of the leader.
        if to == 3 && net.at(1).raft.is_leader() {
            continue;
        }
        net.at(to).raft.step(from, &bytes).unwrap();
        net.drive(to);
    }
    assert!(net.at(1).raft.is_leader());
    let mut later = Message::default();
    later.set_msg_type(MessageType::MsgRequestVote);
    (later.from, later.to, later.term) = (2, 3, 2);
    let head = Head {
        store: 100,
        sender_life: 1,
        receiver_life: 1,
        all: true,
        forgotten: true,
        ..Head::default()
    };
    let bytes = message::encode(&later, head).unwrap();
    net.at(3).raft.step(2, &bytes).unwrap();
    net.drive(3);
    net.wire.clear();
    assert_eq!(net.at(3).raft.term(), 2);
    net.tick(100);
    let leader = net.leader();
    net.propose(leader, "a");
    net.tick(10);
    assert_eq!(net.at(3).texts(), [b"a"]);
    assert_eq!(net.at(3).raft.members().voters, all);
}

#[test]
fn a_request_for_a_vote_of_an_earlier_life_is_not_answered() {
    let all = [1, 2, 3];
    let mut net = first_asks(&all);
    let mut old = None;
    while let Some((from, to, bytes)) = net.wire.pop_front() {
        let (_, m) = message::decode(&bytes).unwrap();
        if (m.get_msg_type(), to) == (MessageType::MsgRequestVote, 3) {
            old = Some(bytes.clone());
        }
        net.at(to).raft.step(from, &bytes).unwrap();
        net.drive(to);
    }
    assert!(net.at(1).raft.is_leader(), "all have voted");
    // It could have promised more by now, and another disk tells of none of it.
    lose_store(&mut net, 3, &all);
    net.at(3).raft.step(1, &old.expect("was asked")).unwrap();
    net.drive(3);
    let said = net
        .wire
        .iter()
        .map(|(_, _, bytes)| message::decode(bytes).unwrap().1);
    let votes = said.filter(|m| m.get_msg_type() == MessageType::MsgRequestVoteResponse);
    assert_eq!(votes.count(), 0);
    assert_eq!(net.at(3).raft.term(), 0);
}

#[test]
fn in_an_ordinary_election_the_answer_of_who_has_forgotten_is_no_vote() {
    for forgotten in [true, false] {
        let all = [1, 2, 3];
        let mut net = Net::new(&all, &all);
        net.tick(25);
        let (me, other) = (net.leader() % 3 + 1, (net.leader() + 1) % 3 + 1);
        net.down = all.into_iter().filter(|n| *n != me).collect();
        net.at(me).raft.campaign();
        net.drive(me);
        for kind in [
            MessageType::MsgRequestPreVoteResponse,
            MessageType::MsgRequestVoteResponse,
        ] {
            let mut vote = Message::default();
            vote.set_msg_type(kind);
            let before = kind == MessageType::MsgRequestPreVoteResponse;
            let term = net.at(me).raft.term() + u64::from(before);
            (vote.from, vote.to, vote.term) = (other, me, term);
            let head = Head {
                store: other,
                sender_life: 1,
                receiver_life: 1,
                forgotten,
                ..Head::default()
            };
            let bytes = message::encode(&vote, head).unwrap();
            net.at(me).raft.step(other, &bytes).unwrap();
            net.drive(me);
        }
        assert_eq!(net.at(me).raft.is_leader(), !forgotten);
    }
}

/// The one with the longest log stands seldom where leaders were late: its first try must be one that those who recover
/// can vote in.
#[test]
fn who_is_waited_for_by_replicas_that_recover_asks_all_at_once() {
    let all = [1, 2, 3];
    let mut net = Net::new(&all, &all);
    net.tick(25);
    let leader = net.leader();
    for n in 0..5 {
        net.propose(leader, &format!("m{n}"));
    }
    net.tick(3);
    for node in all.into_iter().filter(|n| *n != leader) {
        net.at(node).log.truncate(3);
        net.hurt.insert(node);
        net.start(node, &all, 2);
    }
    // It leads no more, and knows nothing of the others.
    net.start(leader, &all, 2);
    let other = leader % 3 + 1;
    net.at(other).raft.campaign();
    net.drive(other);
    net.tick(1);
    net.at(leader).raft.begins_election();
    assert!(net.at(leader).raft.needs_all);
    net.at(leader).raft.begins_election();
    assert!(!net.at(leader).raft.needs_all, "every other time");
}
