//! Replicas that are far from the others' logs. A voter is down until the leader's log begins behind its own, and its disk
//! stands still with the snapshot that it is given then. A learner holds more than all voters have synced, and these lose
//! their power.

use crate::extra::Faults;
use crate::plan::Plan;
use crate::schedule::Event;
use crate::sim::Sim;
use troupemq::storage::{LogStore, SimRng};

/// Told apart from the numbers of the life itself.
const SALT: u64 = 0x6265_6869_6e64;
/// A voter is down for so long, microseconds.
const DOWN_US: (u64, u64) = (5_000_000, 15_000_000);
/// The leader stops as a snapshot is to be installed, and the disk stands still for so long, microseconds.
const SILENT_US: (u64, u64) = (1_500_000, 4_000_000);
/// The disk stands still until the leader takes the snapshot for lost, microseconds.
const LOST_US: (u64, u64) = (12_000_000, 30_000_000);
/// The leader stops within this time, microseconds.
const SOON_US: u64 = 50_000;
/// Segments of so many bytes are dropped soon.
const SMALL_BYTES: u64 = 2_000;

/// Of 100 things that clients do these are to send.
pub(crate) const SENDS: u64 = 55;

/// Which of these a life has.
#[derive(Debug, Clone, Copy, Default)]
pub struct Behind {
    /// Voters are left behind.
    voters: bool,
    /// Voters lose their power while a learner holds more than they.
    all: bool,
    /// Bad moments are those in which machines lose what they have acknowledged.
    pub(crate) moments: bool,
}

impl Behind {
    /// Drawn apart from the plan, and last: lives without these stay what they were.
    pub fn draw(seed: u64, plan: &mut Plan, nodes: usize) -> Self {
        let mut rng = SimRng::new(seed ^ SALT);
        let free = nodes > 1 && !plan.net.busy && !plan.net.sole;
        let voters = free && rng.chance(1, 6);
        let few = plan.extra == Faults::default();
        // Seldom: once in some thousands of them the newest log is left with who has no vote by it, and all wait for an
        // operator (decision 27; seed 1796106778986 of three nodes).
        let all = free && few && !plan.synced && plan.net.members > 0 && rng.chance(1, 30);
        if voters {
            plan.op_gap_us = plan.op_gap_us.max(300_000);
            // The log is cut soon.
            (plan.segment_bytes, plan.retention_bytes) = (SMALL_BYTES, 5 * SMALL_BYTES);
            plan.delayed_share = 0;
        }
        if all {
            (plan.sync_share, plan.power_share) = (0, 100);
            (plan.net.members, plan.net.moments) = (20, 0);
            (plan.members, plan.delayed_share, plan.churn) = (0, 0, false);
            plan.flush_every_ms = plan.flush_every_ms.max(5_000);
            plan.disk.power_cuts = plan.disk.power_cuts.max(1);
        }
        let moments = !plan.synced && plan.net.moments > 0 && rng.chance(1, 3);
        if moments {
            (plan.sync_share, plan.power_share) = (0, 100);
            plan.net.moments = 200;
        }
        Self {
            voters,
            all,
            moments,
        }
    }
}

impl Sim {
    /// What a client does, of 100: mostly it sends where little is to be synced.
    pub(crate) fn mostly_sends(&self, drawn: u64) -> u64 {
        match self.plan.behind.all && !self.own_rng().chance(1, 8) {
            true => drawn % SENDS,
            false => drawn,
        }
    }

    fn own_rng(&self) -> SimRng {
        SimRng::new(self.seed ^ SALT ^ self.schedule.now_us())
    }

    /// A tick of the node here.
    pub(crate) fn leave_behind(&mut self) {
        let Behind { voters, all, .. } = self.plan.behind;
        if self.view.serving.is_none() || !(voters || all) {
            return;
        }
        let mut own = self.own_rng();
        if voters && own.chance(1, 10) {
            self.one_stays_down(&mut own);
        }
        if all && own.chance(1, 2) && self.a_learner_holds_more() {
            self.voters_lose_power();
        }
    }

    /// A voter stops for long, where all others run.
    fn one_stays_down(&mut self, own: &mut SimRng) {
        let Some(group) = &self.group else { return };
        let here = group.here;
        let voters = group.oracle.members.voters.iter();
        let others: Vec<usize> = voters
            .map(|n| *n as usize - 1)
            .filter(|n| *n != here)
            .collect();
        let up = |n: &usize| group.places[*n].node.is_some();
        if others.is_empty() || !others.iter().all(up) {
            return;
        }
        let one = others[own.below(others.len() as u64) as usize];
        self.counters.left_behind += 1;
        self.enter(one);
        self.comes_back_in = Some(own.between(DOWN_US.0, DOWN_US.1));
        self.crash(false);
        self.enter(here);
    }

    /// A replica without a vote has applied more than any voter has synced.
    fn a_learner_holds_more(&self) -> bool {
        let Some(group) = &self.group else {
            return false;
        };
        let members = &group.oracle.members;
        let places = group.places.iter().enumerate();
        let applied = places
            .filter(|(n, _)| *n != group.here && members.learners.contains(&(*n as u64 + 1)))
            .filter_map(|(_, place)| Some(place.node.as_ref()?.shard.machine().applied.0));
        let Some(applied) = applied.max() else {
            return false;
        };
        let voters = (0..group.places.len()).filter(|n| members.has_vote(*n as u64 + 1));
        let synced = voters.map(|n| {
            let bounds = group.store_of(n, &self.store).bounds(crate::SHARD);
            bounds.map_or(0, |b| b.synced)
        });
        synced.max().is_some_and(|synced| synced < applied)
    }

    fn voters_lose_power(&mut self) {
        let Some(group) = &self.group else { return };
        let here = group.here;
        let members = group.oracle.members.clone();
        self.counters.cut_below_learner += 1;
        for node in (0..self.nodes()).filter(|n| members.has_vote(*n as u64 + 1)) {
            self.enter(node);
            self.crash(true);
        }
        self.enter(here);
    }

    /// A machine that loses its power keeps nothing that was not synced.
    pub(crate) fn loses_all(&self) -> bool {
        let Behind { all, moments, .. } = self.plan.behind;
        (all || moments) && self.defect.is_none() && self.own_rng().chance(2, 3)
    }

    /// The disk here is to install a snapshot: how much longer that takes. The leader may stop just then.
    pub(crate) fn snapshot_waits(&mut self) -> u64 {
        if !self.plan.behind.voters || self.is_calm() {
            return 0;
        }
        let mut own = self.own_rng();
        match own.below(3) {
            0 => {
                let node = self.group.as_ref().map_or(0, |g| g.hint);
                let lasts_us = own.between(SILENT_US.0, SILENT_US.1);
                let after = own.below(SOON_US);
                self.schedule.after(after, Event::Pause { node, lasts_us });
                own.between(SILENT_US.0, SILENT_US.1)
            }
            1 => own.between(LOST_US.0, LOST_US.1),
            _ => 0,
        }
    }
}
