//! Leases and the promises that they rest on. In some lives of several nodes one replica promises its leader much,
//! and all others little: a lease must go by the little, and only the much is left where followers are lost one
//! after the other, or while members change. And who leads and waits for promises to end is asked to hand over.

use crate::plan::Plan;
use crate::schedule::{Event, Mail};
use crate::sim::Sim;
use troupemq::actors::shard::core::ShardInput;
use troupemq::raft::members::Change;
use troupemq::storage::SimRng;

/// Told apart from the numbers of the life itself.
const SALT: u64 = 0x1ea_5e0f_7e57;
/// Of so many ticks of a leader one begins such a moment.
const ONE_IN: u64 = 20;
/// The same for one that hands over in any other life in which leads are handed over.
const HANDS_OVER_ONE_IN: u64 = 150;
/// That it hands over comes so much later than it relies on the others again at most, microseconds.
const LATE_US: u64 = 200_000;
/// Who promises much is cut off for so long before all are, microseconds: its promise ends meanwhile.
const FIRST_US: (u64, u64) = (1_200_000, 2_000_000);
/// The leader is alone for so long then.
const ALONE_US: (u64, u64) = (800_000, 2_000_000);
/// The others see within this time that their connections to it are closed.
const SEEN_US: u64 = 10_000;
/// A change of members has come to the others' disks within this time, microseconds.
const WRITTEN_US: u64 = 40_000;

impl Plan {
    /// One in eight lives with more than one voter: who promises much.
    pub(crate) fn draw_promises(&mut self, seed: u64, nodes: usize) {
        let net = &self.net;
        let mut own = SimRng::new(seed ^ SALT);
        if nodes < 2 || net.busy || net.sole || !own.chance(1, 8) {
            return;
        }
        // All that waits on a link fits.
        self.extra.clog_bytes = 1 << 20;
        if own.chance(1, 2) {
            self.net.members = 60;
        }
        // The one that comes to learn is not among the voters before a change.
        let places = nodes as u64 + u64::from(self.net.members > 0);
        let last = self.net.members > 0 && own.chance(1, 2);
        self.net.promises_most = Some(match last {
            true => nodes,
            false => own.below(places) as usize,
        });
        self.net.unequal = true;
        self.net.transfers = self.net.transfers.max(2);
        // Whoever is elected serves while a lease may stand.
        (self.net.moments, self.net.partitions) = (0, self.net.partitions.min(2));
        self.net.delay_us = self.net.delay_us.min(3_000);
        self.net.loss = self.net.loss.min(5);
        (self.mail_us, self.disk_us) = (self.mail_us.min(500), self.disk_us.min(5_000));
        self.stalls = false;
        // Long enough for several.
        self.op_gap_us = 200_000;
    }
}

impl Sim {
    fn chance_of_now(&self) -> SimRng {
        SimRng::new(self.seed ^ SALT ^ self.schedule.now_us())
    }

    fn cut_at(&mut self, after: u64, (from, to): (usize, usize), both: bool, until: u64) {
        let cut = Event::Cut {
            from,
            to,
            both,
            until,
        };
        self.schedule.after(after, cut);
    }

    /// A tick of the leader here, of which little is promised by all but one follower: that one is cut off, and when
    /// its promise is over all are.
    pub(crate) fn outlive_a_promise(&mut self) {
        let Some(most) = self.plan.net.promises_most else {
            return;
        };
        let (here, now, nodes) = (self.here(), self.schedule.now_us(), self.nodes());
        let mut own = self.chance_of_now();
        let Some(group) = &self.group else { return };
        let quiet = group.heal_at_us <= now && !self.is_calm();
        if !quiet || self.view.serving.is_none() || !own.chance(1, ONE_IN) {
            return;
        }
        if most == here {
            let to = (here as u64 + 1) % nodes as u64 + 1;
            return self.post_shard(ShardInput::Transfer { to });
        }
        if !group.oracle.members.has_vote(most as u64 + 1) {
            return;
        }
        self.counters.promises_outlived += 1;
        let then = own.between(FIRST_US.0, FIRST_US.1);
        let until = now + then + own.between(ALONE_US.0, ALONE_US.1);
        for to in (0..nodes).filter(|to| *to != here) {
            let after = if to == most { 0 } else { then };
            self.cut_at(after, (here, to), true, until);
            let seen = then + own.below(SEEN_US);
            let closed = Event::LinkClosed { node: to, to: here };
            self.schedule.after(seen, closed);
        }
    }

    /// The leader here was asked to replace a voter. It hears that the change is written, and who follows it, when
    /// nobody hears it any more: it alone goes by both majorities.
    pub(crate) fn replaces_a_voter(&mut self, changes: &[Change]) {
        let serves = self.view.serving.is_some() && !self.is_calm();
        if self.plan.net.promises_most.is_none() || changes.len() < 2 || !serves {
            return;
        }
        let Some(group) = &self.group else { return };
        let (here, now) = (group.here, self.schedule.now_us());
        let mut own = self.chance_of_now();
        if group.heal_at_us > now || !own.chance(3, 4) {
            return;
        }
        self.counters.alone_in_change += 1;
        let voters: Vec<usize> = (0..group.places.len())
            .filter(|n| *n != here && group.oracle.members.has_vote(*n as u64 + 1))
            .collect();
        let at = (here, self.life);
        for after in [WRITTEN_US / 2, WRITTEN_US * 5 / 8] {
            let asks = Mail::Shard(ShardInput::Confirm { stamp: 0 });
            self.schedule.post(at, after, asks, true);
        }
        let until = now + WRITTEN_US + own.between(ALONE_US.0, ALONE_US.1);
        for other in (0..self.nodes()).filter(|n| *n != here) {
            if voters.contains(&other) {
                self.hold_link(other, here, WRITTEN_US);
            }
            self.cut_at(WRITTEN_US * 7 / 8, (here, other), false, until);
            self.cut_at(WRITTEN_US + 1_000, (here, other), true, until);
            let seen = WRITTEN_US + 1_000 + own.below(SEEN_US);
            let closed = Event::LinkClosed {
                node: other,
                to: here,
            };
            self.schedule.after(seen, closed);
        }
    }

    /// A tick of the leader here: it hands over while it is asked whether it leads, and is cut off before the next
    /// one hears of it. That it hands over also comes late, when it has given up to do so and relies on the others
    /// again.
    pub(crate) fn hand_over_unheard(&mut self) {
        let (here, now, nodes) = (self.here(), self.schedule.now_us(), self.nodes() as u64);
        let mut own = self.chance_of_now();
        let Some(group) = &self.group else { return };
        let quiet = group.heal_at_us <= now && !self.is_calm() && !self.plan.net.sole;
        let may = self.plan.net.transfers > 0 && self.view.serving.is_some();
        let most = self.plan.net.promises_most;
        let one_in = most.map_or(HANDS_OVER_ONE_IN, |_| ONE_IN);
        let to = ((here as u64 + 1 + own.below(nodes - 1)) % nodes) as usize;
        // What the leader relies on then is the promise of another.
        let fit = group.oracle.members.has_vote(to as u64 + 1) && most != Some(here);
        if !may || !quiet || !fit || most == Some(to) || !own.chance(1, one_in) {
            return;
        }
        let late = match own.chance(1, 2) {
            true => self.relies_again_us() + own.below(LATE_US),
            false => 0,
        };
        if let Some(group) = self.group.as_mut().filter(|_| late > 0) {
            // Nothing else happens to the links meanwhile, and no log grows.
            group.heal_at_us = now + late;
            self.extra.lull_until = now + late;
            self.counters.handed_late += 1;
            self.hold_link(here, to, late);
        }
        self.counters.handed_unheard += 1;
        let asks = || ShardInput::Confirm { stamp: 0 };
        let node = to as u64 + 1;
        for input in [asks(), ShardInput::Transfer { to: node }, asks(), asks()] {
            self.post_shard(input);
        }
        let (mail_us, delay_us) = (self.plan.mail_us, self.plan.net.delay_us);
        let until = now + late + own.between(ALONE_US.0, ALONE_US.1);
        // What the next one says does not come, nor what the others say once they have voted.
        self.cut_at(late, (to, here), false, until);
        let longest = mail_us + 2 * delay_us + self.plan.disk_us;
        let after = match late {
            0 => mail_us + delay_us + own.below(longest),
            // It has come.
            late => late + 1_000,
        };
        for other in (0..nodes as usize).filter(|n| *n != here) {
            self.cut_at(after, (here, other), true, until);
        }
    }

    /// The leader here gives up handing over, and has asked the others again, after so long, microseconds.
    fn relies_again_us(&self) -> u64 {
        let rhythm = self.rhythm();
        rhythm.world_us(rhythm.tick_ms * (rhythm.election_ticks as u64 + 4))
    }

    /// The replica here leads: one that must wait until promises to the leader before are over is to hand over.
    pub(crate) fn hand_on_while_it_waits(&mut self) {
        let raft = self.node.as_ref().map(|node| node.shard.raft());
        let waits = raft.is_some_and(|raft| raft.is_leader() && !raft.may_serve());
        let mut own = self.chance_of_now();
        if !waits || self.plan.net.transfers == 0 || self.is_calm() || !own.chance(1, 2) {
            return;
        }
        let Some(group) = &self.group else { return };
        let here = group.here;
        let near = |n: &usize| *n != here && !group.is_cut(here, *n) && !group.is_cut(*n, here);
        let voters = (0..group.places.len())
            .filter(near)
            .filter(|n| group.oracle.members.has_vote(*n as u64 + 1));
        let voters: Vec<usize> = voters.collect();
        if voters.is_empty() {
            return;
        }
        let to = voters[own.below(voters.len() as u64) as usize] as u64 + 1;
        self.counters.handed_on += 1;
        self.post_shard(ShardInput::Transfer { to });
    }
}
