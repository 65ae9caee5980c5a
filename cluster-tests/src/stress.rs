//! What whole processes suffer beside [`crate::faults`]: all stop at once, one stops again and again, is
//! stopped for a minute, is slow, or is reached by other nodes and by no client.

use crate::links::SILENT_US;
use crate::schedule::Event;
use crate::sim::Sim;

/// Such a node has a tenth of its speed, and no less than this is felt, microseconds.
const SLOWER: u64 = 10;
const SLOW_MAIL_US: u64 = 20_000;
const SLOW_DISK_US: u64 = 50_000;
/// It is slow for so long, microseconds.
const SLOW_US: (u64, u64) = (500_000, 8_000_000);
/// No client reaches a node for so long, microseconds.
const CUT_OFF_US: (u64, u64) = (100_000, 8_000_000);
const LONG_PAUSE_US: (u64, u64) = (10_000_000, 60_000_000);
/// A node that stops again and again runs for so long each time, microseconds.
const RUNS_US: u64 = 200_000;

impl Sim {
    /// A tick of the node here.
    pub(crate) fn process_faults(&mut self) {
        let plan = self.plan.extra.clone();
        let (here, now) = (self.here(), self.schedule.now_us());
        let rng = &mut self.extra.rng;
        let mut begins = |often: u64| often > 0 && rng.chance(often, 1000);
        let (slow, cut) = (begins(plan.slow), begins(plan.client_cuts));
        let (pause, again) = (begins(plan.long_pauses), begins(plan.loops));
        let all = here == 0 && begins(plan.all_stop);
        let suffers = &mut self.extra.nodes[here];
        if slow && suffers.slow_until <= now {
            self.counters.slow_nodes += 1;
            suffers.slow_until = now + rng.between(SLOW_US.0, SLOW_US.1);
        }
        if cut && suffers.cut_off_until <= now {
            self.counters.cut_off += 1;
            suffers.cut_off_until = now + rng.between(CUT_OFF_US.0, CUT_OFF_US.1);
            self.hang_up();
        }
        if pause && self.node.is_some() {
            self.pause_long();
        }
        if again && self.node.is_some() {
            self.extra.nodes[here].stops_left = self.extra.rng.between(3, 12);
            self.stop_soon();
        }
        if all {
            self.stop_all();
        }
    }

    /// For so long that all others give up their connections to it.
    fn pause_long(&mut self) {
        let (here, now) = (self.here(), self.schedule.now_us());
        let lasts_us = self.extra.rng.between(LONG_PAUSE_US.0, LONG_PAUSE_US.1);
        self.counters.long_pauses += 1;
        self.pause(lasts_us);
        self.extra.nodes[here].silent_from = now + SILENT_US;
        for other in (0..self.nodes()).filter(|n| *n != here) {
            for (node, to) in [(other, here), (here, other)] {
                let after = SILENT_US + self.extra.rng.below(500_000);
                self.schedule.after(after, Event::LinkClosed { node, to });
            }
        }
    }

    /// Another node is stopped for so long that there is no connection to it any more.
    pub(crate) fn does_not_answer(&self, node: usize) -> bool {
        let now = self.schedule.now_us();
        let since = self.extra.nodes[node].silent_from;
        let paused = self.group.as_ref().map_or(0, |g| match node == g.here {
            true => self.paused_until,
            false => g.places[node].paused_until,
        });
        since > 0 && since <= now && paused > now
    }

    /// The node here stops soon after its start.
    pub(crate) fn stop_soon(&mut self) {
        let (here, life) = (self.here(), self.life);
        if self.extra.nodes[here].stops_left == 0 || self.is_calm() {
            return;
        }
        self.extra.nodes[here].stops_left -= 1;
        self.counters.stopped_again += 1;
        let after = self.extra.rng.below(RUNS_US);
        let stop = Event::Stop {
            node: here,
            life,
            wipe: false,
            power: self.extra.rng.chance(1, 4),
        };
        self.schedule.after(after, stop);
    }

    /// All processes at once; or all machines, where nothing is unsynced that the class promises.
    fn stop_all(&mut self) {
        let here = self.here();
        let power = self.plan.synced && self.extra.rng.chance(1, 2);
        match power {
            true => self.counters.all_lost_power += 1,
            false => self.counters.all_killed += 1,
        }
        let back = [100_000, 3_000_000][self.extra.rng.below(2) as usize];
        for node in 0..self.nodes() {
            self.enter(node);
            if self.node.is_some() {
                self.comes_back_in = Some(self.extra.rng.below(back));
                self.crash(power || self.sync_failed);
            }
        }
        self.enter(here);
    }

    /// How long a message waits in a mailbox of the node here.
    pub(crate) fn mail_us(&self) -> u64 {
        match self.is_slow() {
            true => (self.plan.mail_us * SLOWER).max(SLOW_MAIL_US),
            false => self.plan.mail_us,
        }
    }

    /// How long its disk takes.
    pub(crate) fn disk_us(&self) -> u64 {
        match self.is_slow() {
            true => (self.plan.disk_us * SLOWER).max(SLOW_DISK_US),
            false => self.plan.disk_us,
        }
    }

    fn is_slow(&self) -> bool {
        self.extra.nodes[self.here()].slow_until > self.schedule.now_us()
    }

    /// A client asks a node that none reaches.
    pub(crate) fn is_cut_off(&mut self, node: usize) -> bool {
        let cut = self.extra.nodes[node].cut_off_until > self.schedule.now_us();
        self.counters.turned_away += u64::from(cut);
        cut
    }

    /// A client reaches a node that no other reaches.
    pub(crate) fn note_alone(&mut self) {
        let Some(group) = &self.group else { return };
        let here = group.here;
        let mut others = (0..group.places.len()).filter(|n| *n != here);
        let alone = others.all(|n| group.is_cut(here, n) && group.is_cut(n, here));
        self.counters.asked_alone += u64::from(alone && self.node.is_some());
    }

    /// No faults any more.
    pub(crate) fn heal_processes(&mut self) {
        self.extra.nodes.fill_with(Default::default);
    }
}
