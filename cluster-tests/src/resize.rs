//! A group that grows and shrinks under load: it begins with one voter, and an operator goes for another
//! number again and again. Nodes that were removed come back, with what they had or with a new disk.

use crate::sim::Sim;
use troupemq::raft::members::Change;

impl Sim {
    /// A tick of the node here: the operator takes the next step to the number of voters wanted.
    pub(crate) fn resize(&mut self) {
        let often = self.plan.extra.resizes;
        if often == 0 || !self.extra.rng.chance(often, 1000) || self.is_calm() {
            return;
        }
        let here = self.here();
        let Some(group) = &self.group else { return };
        let (now, hint) = (group.oracle.members.clone(), group.hint);
        let places = group.places.len();
        if now.is_joint() {
            return;
        }
        let wanted = self.extra.voters_wanted;
        if wanted == now.voters.len() && now.learners.is_empty() || wanted == 0 {
            let next = match wanted {
                0 => places,
                _ => 1 + self.extra.rng.below(places as u64) as usize,
            };
            if wanted > 0 {
                let before = std::mem::replace(&mut self.extra.voters_before, wanted);
                self.counters.grown += u64::from(wanted > before);
                self.counters.shrunk += u64::from(wanted < before);
                self.counters.few_voters += u64::from(wanted < 3);
            }
            self.extra.voters_wanted = next;
            return;
        }
        let changes = self.step_to(wanted, &now.voters, &now.learners);
        // Whoever leads can make it; another refuses.
        self.enter(hint);
        if self.node.is_some() {
            for change in &changes {
                if let Change::AddLearner(node) = change {
                    if now.removed.contains(node) {
                        self.counters.came_back += 1;
                        self.counters.came_back_empty += u64::from(self.forgot_at(*node));
                    }
                }
            }
            self.counters.resize_steps += 1;
            self.command_members(changes);
        }
        self.enter(here);
    }

    fn step_to(&mut self, wanted: usize, voters: &[u64], learners: &[u64]) -> Vec<Change> {
        let all = self.nodes() as u64;
        let rng = &mut self.extra.rng;
        let mut any = |from: &[u64]| from[rng.below(from.len() as u64) as usize];
        let one = any(voters);
        if voters.len() < wanted {
            if !learners.is_empty() {
                return vec![Change::AddVoter(any(learners))];
            }
            let strangers: Vec<u64> = (1..=all).filter(|n| !voters.contains(n)).collect();
            return vec![Change::AddLearner(any(&strangers))];
        }
        if voters.len() == wanted {
            return vec![Change::Remove(any(learners))];
        }
        let other = any(voters);
        match rng.below(3) {
            0 if one != other && voters.len() > wanted + 1 => {
                vec![Change::Remove(one), Change::Remove(other)]
            }
            1 => vec![Change::AddLearner(one)],
            _ => vec![Change::Remove(one)],
        }
    }

    /// A node has a new disk that the group does not know.
    fn forgot_at(&self, node: u64) -> bool {
        let at = node as usize - 1;
        self.group.as_ref().is_some_and(|g| match at == g.here {
            true => self.forgot,
            false => g.places[at].forgot,
        })
    }
}
