//! Replicas compare digests of their state at the same log indices (invariant I3). A difference is
//! a defect, or damage that nothing else saw, and is told. A replica that differs from a majority
//! must not serve: it leads no more, until a later state is the majority's again or it is filled
//! anew. Where there is no majority that agrees nobody can say who is wrong, and all go on.

use super::*;
use crate::raft::members::Members;

/// Digests kept of this replica, and of each other one.
const KEPT: usize = 1_024;
const KEPT_OF_OTHERS: usize = 256;

/// The result of a comparison.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Comparison {
    /// The newest log index at which others were compared with this replica.
    pub index: u64,
    /// Nodes whose state was another one there.
    pub others: BTreeSet<u64>,
    /// A majority of the voters had one and the same state there, and this replica another.
    pub outvoted: bool,
}

/// What is known of states; pure.
#[derive(Debug, Default)]
pub struct Digests {
    own: BTreeMap<u64, u64>,
    told: BTreeMap<u64, BTreeMap<u64, u64>>,
    last: Comparison,
}

fn keep(digests: &mut BTreeMap<u64, u64>, index: u64, digest: u64, most: usize) {
    digests.insert(index, digest);
    while digests.len() > most {
        digests.pop_first();
    }
}

impl Digests {
    /// This replica's after applying `index`.
    pub fn own(&mut self, index: u64, digest: u64) {
        keep(&mut self.own, index, digest, KEPT);
    }

    /// Another one's.
    pub fn told(&mut self, node: u64, index: u64, digest: u64) {
        let told = self.told.entry(node).or_default();
        keep(told, index, digest, KEPT_OF_OTHERS);
    }

    /// The state was replaced.
    pub fn forget_own(&mut self) {
        self.own.clear();
    }

    /// Compares at the newest index at which a majority of the voters can be compared, or else at
    /// the newest at all; `Some` when the result is another than before.
    pub fn compare(&mut self, me: u64, members: &Members) -> Option<Comparison> {
        let nodes = members.nodes();
        self.told.retain(|node, _| nodes.contains(node));
        let at = |index: u64| {
            let told = self.told.iter();
            told.filter_map(move |(node, all)| Some((*node, *all.get(&index)?)))
        };
        let indices = self.own.keys().rev().copied();
        let mut indices = indices.filter(|index| at(*index).next().is_some());
        let newest = indices.clone().next()?;
        let majority = members.voters.len() / 2 + 1;
        let most = |index: &u64| {
            let voters = at(*index).filter(|(node, _)| members.voters.contains(node));
            voters.count() + usize::from(members.voters.contains(&me)) >= majority
        };
        let index = indices.find(most).unwrap_or(newest);
        let own = *self.own.get(&index)?;
        let differ = at(index).filter(|(_, digest)| *digest != own);
        let mut votes: BTreeMap<u64, usize> = BTreeMap::new();
        for (node, digest) in differ.clone() {
            *votes.entry(digest).or_default() += usize::from(members.voters.contains(&node));
        }
        let now = Comparison {
            index,
            others: differ.map(|(node, _)| node).collect(),
            outvoted: votes.values().any(|count| *count >= majority),
        };
        let same = now.others == self.last.others && now.outvoted == self.last.outvoted;
        self.last = now.clone();
        (!same).then_some(now)
    }
}

impl ShardCore {
    /// Called once an entry is applied, while raft is driven.
    pub(super) fn digest(&mut self, index: u64, out: &mut Vec<Effect>) {
        let every = self.options.digest_every;
        if every == 0 || !index.is_multiple_of(every) || self.machine.is_filling() {
            return;
        }
        let digest = self.machine.digest();
        self.digests.own(index, digest);
        out.push(Effect::Publish(Publish::Digest { index, digest }));
        self.compare_digests(out);
    }

    /// Another replica's digests.
    pub(super) fn told_digests(
        &mut self,
        from: u64,
        digests: &[(u64, u64)],
        out: &mut Vec<Effect>,
    ) {
        for (index, digest) in digests {
            self.digests.told(from, *index, *digest);
        }
        self.compare_digests(out);
        self.drive(out);
    }

    fn compare_digests(&mut self, out: &mut Vec<Effect>) {
        let members = self.machine.members.clone();
        let Some(now) = self.digests.compare(self.raft.id(), &members) else {
            return;
        };
        self.raft.bar(now.outvoted);
        if now.outvoted {
            self.stop_serving(out);
        }
        out.push(Effect::Publish(Publish::Compared(now)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_against_a_majority_is_outvoted() {
        let members = Members::of(vec![1, 2, 3]);
        let mut digests = Digests::default();
        assert_eq!(digests.compare(1, &members), None);
        digests.own(256, 7);
        digests.told(2, 256, 7);
        assert_eq!(digests.compare(1, &members), None, "all is well");
        digests.told(3, 256, 8);
        let odd = digests.compare(1, &members).unwrap();
        assert_eq!(
            (odd.others, odd.outvoted),
            ([3].into(), false),
            "node 3 is wrong"
        );
        assert_eq!(digests.compare(1, &members), None, "told once");
        digests.own(512, 9);
        digests.told(2, 512, 10);
        let open = digests.compare(1, &members).unwrap();
        assert_eq!(
            (open.others, open.outvoted),
            ([2].into(), false),
            "who is it?"
        );
        digests.told(3, 512, 10);
        let outvoted = digests.compare(1, &members).unwrap();
        assert!(outvoted.outvoted && outvoted.others == [2, 3].into());
        // Later states are the same again.
        digests.own(768, 11);
        digests.told(3, 768, 11);
        let again = digests.compare(1, &members).unwrap();
        assert_eq!((again.index, again.outvoted), (768, false));
        assert!(again.others.is_empty());
        // A node that is no member has nothing to say.
        digests.told(9, 768, 1);
        assert_eq!(digests.compare(1, &members), None);
    }

    #[test]
    fn two_replicas_cannot_tell_who_is_wrong_and_learners_do_not_vote() {
        let two = Members::of(vec![1, 2]);
        let mut digests = Digests::default();
        digests.own(256, 7);
        digests.told(2, 256, 8);
        assert!(!digests.compare(1, &two).unwrap().outvoted);
        let mut members = Members::of(vec![1, 2, 3]);
        members.learners = vec![4];
        let mut digests = Digests::default();
        digests.own(256, 7);
        for node in [3, 4] {
            digests.told(node, 256, 8);
        }
        let now = digests.compare(1, &members).unwrap();
        assert_eq!((now.others.len(), now.outvoted), (2, false));
        // A replica without a vote may be wrong too.
        let mut digests = Digests::default();
        digests.own(256, 7);
        for node in [2, 3] {
            digests.told(node, 256, 8);
        }
        assert!(digests.compare(4, &members).unwrap().outvoted);
    }

    #[test]
    fn what_is_told_ahead_counts_once_it_is_reached() {
        let members = Members::of(vec![1, 2, 3]);
        let mut digests = Digests::default();
        for node in [2, 3] {
            digests.told(node, 512, 8);
        }
        assert_eq!(digests.compare(1, &members), None);
        digests.own(512, 7);
        assert!(digests.compare(1, &members).unwrap().outvoted);
        for index in 1..3_000 {
            digests.own(1_000 + index, 1);
            digests.told(2, 1_000 + index, 1);
        }
        assert_eq!(
            (digests.own.len(), digests.told[&2].len()),
            (KEPT, KEPT_OF_OTHERS)
        );
    }

    #[test]
    fn an_outvoted_leader_leads_no_more_until_it_agrees_again() {
        use super::super::three::Three;
        use crate::model::topic::TopicConfig;
        let mut three = Three::new();
        three.tick(40);
        let bad = three.leader().expect("one leads");
        let put = |three: &mut Three, name: String| {
            let Some(leader) = three.leader() else { return };
            let op = MetaOp::PutTopic(TopicConfig {
                name,
                ..TopicConfig::default()
            });
            let epoch = three.cores[leader].epoch();
            three.step(leader, ShardInput::Propose { id: 9, epoch, op });
            let now_ms = three.now_ms;
            three.step(leader, ShardInput::Flush { now_ms });
            three.tick(1);
        };
        for n in 0..40 {
            put(&mut three, format!("a{n}"));
        }
        assert!(three.compared.is_empty(), "{:?}", three.compared);
        three.cores[bad].machine.spoil();
        for n in 0..17 {
            put(&mut three, format!("b{n}"));
        }
        assert!(three.compared[&bad].outvoted);
        three.tick(60);
        let new = three.leader().expect("another leads");
        assert_ne!(new, bad);
        assert!(three
            .compared
            .iter()
            .all(|(at, c)| c.outvoted == (*at == bad)));
        // Nobody hands it the lead, and it takes none.
        let to = bad as u64 + 1;
        three.step(new, ShardInput::Transfer { to });
        three.tick(30);
        assert_ne!(three.leader(), Some(bad));
        // It is filled anew.
        three.cores[bad].machine = {
            let good = &three.cores[new].machine;
            let base = Bytes::from(good.base());
            good.from_base(good.applied, &base).expect("a base").0
        };
        for n in 0..17 {
            put(&mut three, format!("c{n}"));
        }
        assert!(
            three.compared.values().all(|c| c.others.is_empty()),
            "{:?}",
            three.compared
        );
        let leader = three.leader().expect("one leads");
        three.step(leader, ShardInput::Transfer { to });
        three.tick(30);
        assert_eq!(three.leader(), Some(bad));
    }
}
