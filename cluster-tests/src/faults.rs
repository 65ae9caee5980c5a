//! Faults of whole nodes and of the network between them.

use crate::sim::Sim;
use troupemq::actors::shard::core::ShardInput;
use troupemq::raft::members::Change;

impl Sim {
    /// A snapshot comes in, which is rare: a crash is more likely now.
    pub fn stop_in_the_middle(&mut self) {
        let crashes = self.plan.crash_every > 0 && !self.is_calm();
        if crashes && self.rng.chance(1, 12) {
            self.crash_in = Some(self.rng.between(1, 60));
        }
    }

    /// Partitions and pauses.
    pub fn group_faults(&mut self) {
        let now_us = self.schedule.now_us();
        let nodes = self.nodes() as u64;
        if self.plan.net.busy {
            return self.starve();
        }
        self.prepare_moment();
        let Some(group) = &mut self.group else { return };
        if group.heal_at_us <= now_us {
            group.cut.fill(false);
            if self.rng.chance(self.plan.net.partitions, 1000) {
                self.counters.partitions += 1;
                let long = self.rng.chance(1, 4);
                let most = if long { 8_000_000 } else { 1_500_000 };
                let lasts = self.rng.between(100_000, most);
                self.partition(now_us + lasts);
            }
        }
        self.leave_leader_in_turn();
        if self.rng.chance(self.plan.net.partitions, 2000) {
            let one = self.rng.below(nodes) as usize;
            self.reset_links(one);
        }
        if self.rng.chance(self.plan.net.pauses, 1000) {
            self.counters.pauses += 1;
            let most = [300_000, 3_000_000, 10_000_000][self.rng.below(3) as usize];
            self.paused_until = now_us + self.rng.below(most);
        }
        if self.rng.chance(self.plan.net.transfers, 1000) {
            self.counters.transfers += 1;
            let to = 1 + self.rng.below(nodes);
            self.post_shard(ShardInput::Transfer { to });
        }
        if self.rng.chance(self.plan.net.members, 1000) {
            self.change_members();
        }
    }

    /// An operator adds, promotes or removes; the last two together now and then.
    fn change_members(&mut self) {
        let Some(group) = self.group.as_ref().filter(|_| self.node.is_some()) else {
            return;
        };
        let (now, least) = (&group.oracle.members, group.members);
        let all = group.places.len() as u64;
        let stranger = (1..=all).find(|n| !now.nodes().contains(n));
        let one = now.voters[self.rng.below(now.voters.len() as u64) as usize];
        let spare = now.voters.len() > least;
        let changes = match (now.learners.first().copied(), stranger) {
            (_, Some(node)) if self.plan.net.sole => vec![Change::AddLearner(node)],
            _ if self.plan.net.sole => return,
            (Some(learner), _) if self.rng.chance(1, 2) => {
                vec![Change::AddVoter(learner), Change::Remove(one)]
            }
            (Some(learner), _) => vec![Change::AddVoter(learner)],
            (None, Some(node)) => vec![Change::AddLearner(node)],
            (None, None) if spare && self.rng.chance(1, 2) => vec![Change::AddLearner(one)],
            (None, None) if spare => vec![Change::Remove(one)],
            _ => return,
        };
        self.counters.member_changes += 1;
        self.counters.joint += u64::from(changes.len() > 1);
        let goes = |c: &Change| matches!(c, Change::Remove(_) | Change::AddLearner(_));
        let goes = self.plan.net.transfers > 0 && changes.iter().any(goes);
        self.replaces_a_voter(&changes);
        self.command_members(changes);
        // Who is to go leads when the change is made.
        if goes && self.rng.chance(1, 2) {
            self.post_shard(ShardInput::Transfer { to: one });
        }
    }

    fn partition(&mut self, until_us: u64) {
        if self.plan.extra.rings && self.extra.rng.chance(1, 2) {
            return self.ring(until_us);
        }
        let nodes = self.nodes();
        let mut kind = self.rng.below(5);
        let mut one = self.rng.below(nodes as u64) as usize;
        let side: Vec<bool> = (0..nodes).map(|_| self.rng.chance(1, 2)).collect();
        // A leader alone, which the others notice at once: leases matter most.
        let lead = self.group.as_ref().map_or(0, |g| g.hint);
        let alone = self.plan.net.unequal && self.rng.chance(1, 2);
        if alone {
            (kind, one) = (0, lead);
        }
        if alone || self.rng.chance(1, 2) {
            self.reset_links(one);
        }
        let Some(group) = &mut self.group else { return };
        group.heal_at_us = until_us;
        for from in 0..nodes {
            for to in 0..nodes {
                group.cut[from * nodes + to] = match kind {
                    // One node alone; only what it says; only what it hears.
                    0 => from == one || to == one,
                    1 => from == one,
                    2 => to == one,
                    // Two sides.
                    3 => side[from] != side[to],
                    // Two sides that only one node sees both of.
                    _ => side[from] != side[to] && from != one && to != one,
                };
            }
        }
    }

    /// Each voter hears only its two neighbours, so that all have a majority and no two the same.
    fn ring(&mut self, until_us: u64) {
        let rng = &mut self.extra.rng;
        let Some(group) = &mut self.group else { return };
        let nodes = group.places.len();
        let mut ring: Vec<usize> = (0..nodes)
            .filter(|n| group.oracle.members.has_vote(*n as u64 + 1))
            .collect();
        let len = ring.len();
        for at in 1..len {
            ring.swap(at, rng.below(at as u64 + 1) as usize);
        }
        self.counters.rings += u64::from(len > 3);
        group.heal_at_us = until_us;
        group.cut.fill(false);
        for (at, from) in ring.iter().enumerate() {
            for (other, to) in ring.iter().enumerate() {
                let apart = (at + len - other) % len;
                group.cut[from * nodes + to] = apart > 1 && apart + 1 < len;
            }
        }
    }

    /// No faults any more.
    pub fn heal(&mut self) {
        let looks = self.looks_at();
        self.schedule.lose_late(self.plan.net.delay_us);
        self.schedule.hurry_queues(self.plan.mail_us);
        for node in 0..self.nodes() {
            self.enter(node);
            // What waits keeps its order.
            self.paused_until = self.paused_until.min(looks);
            self.links_stall_until = 0;
        }
        if let Some(group) = &mut self.group {
            group.moment = None;
            group.cut.fill(false);
        }
        self.heal_processes();
        self.heal_links();
    }
}
