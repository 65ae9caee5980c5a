//! Members of a Raft group and how they change.

pub use crate::storage::keys::members::Members;

use super::log_window::{LogWindow, WindowStart};
use super::slog_bridge;
use crate::storage::{HardState, LogEntry};
use protobuf::Message as _;
use raft::eraftpb::{ConfChangeSingle, ConfChangeType, ConfChangeV2, ConfState};
use raft::RawNode;
use std::collections::BTreeSet;

/// Members one change may touch.
const MAX_CHANGES: usize = 16;

/// One step of a change. Several in one proposal take effect together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Makes the node a voter; a learner is promoted.
    AddVoter(u64),
    /// Adds a node that gets the log and has no vote; a voter loses its vote.
    AddLearner(u64),
    Remove(u64),
}

/// A change of members that is not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MemberError {
    #[error("not leader")]
    NotLeader,
    /// Another change is not applied yet.
    #[error("another change of members is under way")]
    Pending,
    #[error("the leader keeps its vote: hand leadership over first")]
    Leads,
    #[error("node {0} has no vote")]
    NoVoter(u64),
    #[error("a group needs a voter")]
    NoVoters,
    #[error("the change names no node, one twice, or too many")]
    Malformed,
}

impl Members {
    /// A new group with these voters.
    pub fn of(mut voters: Vec<u64>) -> Self {
        voters.sort_unstable();
        voters.dedup();
        Self {
            voters,
            ..Self::default()
        }
    }

    /// The node has a vote.
    pub fn has_vote(&self, node: u64) -> bool {
        self.voters.contains(&node) || self.voters_outgoing.contains(&node)
    }

    /// These nodes are a majority of the voters; of the old and of the new ones during a change.
    pub(super) fn are_quorum(&self, nodes: &BTreeSet<u64>) -> bool {
        let most = |voters: &[u64]| {
            let counted = voters.iter().filter(|v| nodes.contains(v)).count();
            counted > voters.len() / 2
        };
        most(&self.voters) && (self.voters_outgoing.is_empty() || most(&self.voters_outgoing))
    }

    /// A change is between its two configurations.
    pub fn is_joint(&self) -> bool {
        !self.voters_outgoing.is_empty()
    }

    /// All nodes that get the log, ascending.
    pub fn nodes(&self) -> Vec<u64> {
        let all = [
            &self.voters,
            &self.learners,
            &self.voters_outgoing,
            &self.learners_next,
        ];
        let mut nodes: Vec<u64> = all.into_iter().flatten().copied().collect();
        nodes.sort_unstable();
        nodes.dedup();
        nodes
    }

    /// The node is the only one with a vote.
    pub fn is_sole_voter(&self, node: u64) -> bool {
        self.voters == [node] && self.voters_outgoing.is_empty()
    }

    /// There is no other member.
    pub fn is_alone(&self, node: u64) -> bool {
        self.nodes() == [node]
    }

    /// Whether raft can make the changes.
    pub(super) fn check(&self, changes: &[Change]) -> Result<(), MemberError> {
        let mut nodes: Vec<u64> = changes.iter().map(Change::node).collect();
        nodes.sort_unstable();
        let named = nodes.len();
        nodes.dedup();
        if named == 0 || nodes.len() != named || named > MAX_CHANGES || nodes.contains(&0) {
            return Err(MemberError::Malformed);
        }
        let mut voters = self.voters.clone();
        for change in changes {
            voters.retain(|v| *v != change.node());
            if let Change::AddVoter(node) = change {
                voters.push(*node);
            }
        }
        match voters.is_empty() {
            true => Err(MemberError::NoVoters),
            false => Ok(()),
        }
    }

    /// These members after raft made a change.
    pub(super) fn next(&self, conf: &ConfState, change: &ConfChangeV2) -> Self {
        let sorted = |ids: &[u64]| {
            let mut ids = ids.to_vec();
            ids.sort_unstable();
            ids
        };
        let mut next = Self {
            voters: sorted(conf.get_voters()),
            learners: sorted(conf.get_learners()),
            voters_outgoing: sorted(conf.get_voters_outgoing()),
            learners_next: sorted(conf.get_learners_next()),
            auto_leave: conf.get_auto_leave(),
            removed: self.removed.clone(),
            admitted: self.admitted.clone(),
            returning: self.returning.clone(),
        };
        let now = next.nodes();
        for (node, store) in admissions(change) {
            next.admitted.insert(node, store);
            if self.has_vote(node) {
                next.returning.push(node);
            }
        }
        next.admitted.retain(|node, _| now.contains(node));
        let learners = next.learners.clone();
        next.returning.retain(|node| learners.contains(node));
        next.returning.sort_unstable();
        next.returning.dedup();
        next.removed.extend(self.nodes());
        next.removed.retain(|node| !now.contains(node));
        next.removed.sort_unstable();
        next.removed.dedup();
        next
    }

    pub(super) fn to_raft(&self) -> ConfState {
        let mut conf = ConfState::default();
        conf.set_voters(self.voters.clone());
        conf.set_learners(self.learners.clone());
        conf.set_voters_outgoing(self.voters_outgoing.clone());
        conf.set_learners_next(self.learners_next.clone());
        conf.set_auto_leave(self.auto_leave);
        conf
    }
}

impl Change {
    fn node(&self) -> u64 {
        match self {
            Change::AddVoter(node) | Change::AddLearner(node) | Change::Remove(node) => *node,
        }
    }
}

/// The changes leave the node without a vote.
pub(super) fn takes_vote(changes: &[Change], node: u64) -> bool {
    let takes = |c: &Change| matches!(c, Change::Remove(n) | Change::AddLearner(n) if *n == node);
    changes.iter().any(takes)
}

/// A node comes with a new store: it is a learner from then on, and no more is expected of it than
/// of a node that was never there.
pub(super) fn admission(node: u64, store: u64) -> ConfChangeV2 {
    let mut out = to_raft(&[Change::AddLearner(node)]);
    out.set_context(store.to_be_bytes().to_vec().into());
    out
}

/// Nodes that the change admits, with their stores.
fn admissions(change: &ConfChangeV2) -> Vec<(u64, u64)> {
    let Ok(store) = <[u8; 8]>::try_from(change.get_context()) else {
        return Vec::new();
    };
    let store = u64::from_be_bytes(store);
    let nodes = change
        .get_changes()
        .iter()
        .map(|c| (c.get_node_id(), store));
    nodes.collect()
}

pub(super) fn to_raft(changes: &[Change]) -> ConfChangeV2 {
    let one = |change: &Change| {
        let mut out = ConfChangeSingle::default();
        out.set_node_id(change.node());
        out.set_change_type(match change {
            Change::AddVoter(_) => ConfChangeType::AddNode,
            Change::AddLearner(_) => ConfChangeType::AddLearnerNode,
            Change::Remove(_) => ConfChangeType::RemoveNode,
        });
        out
    };
    let mut out = ConfChangeV2::default();
    out.set_changes(changes.iter().map(one).collect::<Vec<_>>().into());
    out
}

/// The change an entry holds; `None` for one that holds none.
pub(super) fn from_entry(entry: &LogEntry) -> Result<Option<ConfChangeV2>, String> {
    let text = |e: protobuf::ProtobufError| format!("members in entry {}: {e}", entry.index);
    match entry.kind {
        // An empty one leaves a joint configuration.
        2 => Ok(Some(
            ConfChangeV2::parse_from_bytes(&entry.data).map_err(text)?,
        )),
        0 => Ok(None),
        kind => Err(format!("entry {} is of kind {kind}", entry.index)),
    }
}

/// The changes that an entry of kind 2 asks for, and whether the leader made them by itself for a
/// member with a new store. Empty for the end of a joint change, and for any other entry.
pub fn changes_of(entry: &LogEntry) -> Result<(Vec<Change>, bool), String> {
    let change = match entry.kind {
        2 => from_entry(entry)?.unwrap_or_default(),
        _ => return Ok((Vec::new(), false)),
    };
    let one = |c: &ConfChangeSingle| match c.get_change_type() {
        ConfChangeType::AddNode => Change::AddVoter(c.get_node_id()),
        ConfChangeType::AddLearnerNode => Change::AddLearner(c.get_node_id()),
        ConfChangeType::RemoveNode => Change::Remove(c.get_node_id()),
    };
    let admits = !admissions(&change).is_empty();
    Ok((change.get_changes().iter().map(one).collect(), admits))
}

/// The members after an applied entry of kind 1 or 2: what raft itself comes to, without a
/// running replica. For the replay of the log at start.
pub fn replay(members: &Members, entry: &LogEntry) -> Result<Members, String> {
    let Some(change) = from_entry(entry)? else {
        return Ok(members.clone());
    };
    let text = |e: raft::Error| format!("members in entry {}: {e}", entry.index);
    let config = raft::Config {
        id: members.nodes().first().copied().unwrap_or(1),
        ..raft::Config::default()
    };
    let log = LogWindow::new(WindowStart {
        first: (1, 0),
        before: (0, 0),
        entries: &[],
        hard_state: HardState::default(),
        conf: members.to_raft(),
        keep_bytes: 0,
    });
    let mut idle = RawNode::new(&config, log, &slog_bridge::logger(true)).map_err(text)?;
    let conf = idle.apply_conf_change(&change).map_err(text)?;
    Ok(members.next(&conf, &change))
}

#[cfg(test)]
mod tests {
    use super::*;
    use Change::*;

    fn entry(change: &ConfChangeV2) -> LogEntry {
        LogEntry {
            index: 1,
            term: 1,
            kind: 2,
            data: change.write_to_bytes().unwrap().into(),
        }
    }

    #[test]
    fn one_change_is_made_at_once_and_several_pass_through_both_configurations() {
        let three = Members::of(vec![3, 1, 2]);
        let four = replay(&three, &entry(&to_raft(&[AddLearner(4)]))).unwrap();
        assert_eq!(
            (&four.voters[..], &four.learners[..]),
            (&[1, 2, 3][..], &[4][..])
        );
        let joint = replay(&four, &entry(&to_raft(&[AddVoter(4), Remove(1)]))).unwrap();
        assert!(joint.is_joint() && joint.auto_leave);
        assert_eq!(
            (&joint.voters[..], &joint.voters_outgoing[..]),
            (&[2, 3, 4][..], &[1, 2, 3][..])
        );
        assert!(joint.has_vote(1) && joint.removed.is_empty());
        let left = replay(&joint, &entry(&ConfChangeV2::default())).unwrap();
        assert_eq!(
            (&left.voters[..], &left.removed[..]),
            (&[2, 3, 4][..], &[1][..])
        );
        assert!(!left.has_vote(1));
        let back = replay(&left, &entry(&to_raft(&[AddLearner(1)]))).unwrap();
        assert!(back.removed.is_empty(), "it may speak again");

        let asked = [AddVoter(4), Remove(1)];
        let found = changes_of(&entry(&to_raft(&asked))).unwrap();
        assert_eq!(found, (asked.to_vec(), false));
        let found = changes_of(&entry(&admission(3, 77))).unwrap();
        assert_eq!(found, (vec![AddLearner(3)], true));

        let lost = replay(&left, &entry(&admission(3, 77))).unwrap();
        assert_eq!(
            (&lost.learners[..], &lost.returning[..]),
            (&[3][..], &[3][..])
        );
        assert_eq!(lost.admitted.get(&3), Some(&77));
        let returned = replay(&lost, &entry(&to_raft(&[AddVoter(3)]))).unwrap();
        assert!(returned.has_vote(3) && returned.returning.is_empty());
        assert_eq!(returned.admitted.get(&3), Some(&77));
        let gone = replay(&returned, &entry(&to_raft(&[Remove(3)]))).unwrap();
        assert!(gone.admitted.is_empty());
    }

    #[test]
    fn impossible_changes_are_refused() {
        let one = Members::of(vec![1]);
        assert_eq!(one.check(&[Remove(1)]), Err(MemberError::NoVoters));
        assert_eq!(one.check(&[AddLearner(1)]), Err(MemberError::NoVoters));
        assert_eq!(one.check(&[]), Err(MemberError::Malformed));
        assert_eq!(one.check(&[AddVoter(0)]), Err(MemberError::Malformed));
        assert_eq!(
            one.check(&[AddVoter(2), Remove(2)]),
            Err(MemberError::Malformed)
        );
        assert_eq!(one.check(&[AddVoter(2), Remove(1)]), Ok(()));
        assert!(replay(&one, &entry(&to_raft(&[Remove(1)]))).is_err());
    }
}
