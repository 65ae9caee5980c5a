//! A node stops; and the end of all faults.

use crate::defects::Planted;
use crate::disk::Disk;
use crate::schedule::Event;
use crate::seen::Seen;
use crate::sim::Sim;

impl Sim {
    /// The node here stops, and comes back: the process alone, or the machine with what is not synced.
    pub(crate) fn crash(&mut self, power: bool) {
        let before = self.last_index();
        // What a write that failed was to replace may be replaced.
        let synced = match self.fault_planted || self.defect.is_some() {
            true => 0,
            false => self.synced_index(),
        };
        self.life += 1;
        self.node = None;
        if let Some(reached) = self.disk.forgot {
            // Others fill it, and it knows that.
            (self.forgot, self.hurt, self.owed) = (true, false, reached);
        }
        *self.disk = Disk::default();
        self.schedule.forget_mailboxes(self.here());
        self.paused_until = 0;
        self.lost_by_others();
        self.links_gone();
        self.view.serving = None;
        self.lease_until = 0;
        self.links_stall_until = 0;
        self.crash_in = None;
        self.disconnected();
        if power {
            self.counters.power_losses += 1;
            if self.group.is_some() && !self.plan.synced {
                self.counters.recovering += 1;
                self.hurt = true;
            }
            match self.loses_all() {
                true => self.store.crash_to_synced(),
                false => self.store.crash(&mut self.rng),
            }
        } else {
            self.counters.kills += 1;
            match self.defect {
                Some(Planted::TailLostAtKill) => self.store.crash(&mut self.rng),
                _ => self.store.kill(&mut self.rng),
            }
        }
        self.fault_planted = false;
        self.sync_failed = false;
        let last = self.last_index();
        self.note_crash();
        if last < synced && self.failure.is_none() {
            let what = format!("entries up to {synced} were synced, and {last} is the last one");
            return self.fail("I15", what);
        }
        self.counters.lost_tails += u64::from(last < before);
        if self.group.is_none() {
            for shown in self.shown.values_mut() {
                shown.truncate(shown.partition_point(|index| *index <= last));
            }
            self.entries_shown = self.entries_shown.min(last);
            self.see(Seen::Crashed { power, last });
        } else if last < before {
            let node = self.here();
            self.see(Seen::TailLost { node, last });
        }
        if power {
            self.see_losses();
        }
        let mut after = self.rng.below(1_000_000);
        if self.group.is_some() && self.settling.is_none() && self.rng.chance(1, 4) {
            after += self.rng.below(8_000_000);
        }
        let after = self.comes_back_in.take().unwrap_or(after);
        let (node, life) = (self.here(), self.life);
        self.schedule.after(after, Event::Restart { node, life });
    }

    /// Faults and clients stop, and everything gets time to converge. All restart, or none that runs:
    /// a start mends much that must not need one.
    pub(crate) fn settle(&mut self) {
        self.settling = Some(self.schedule.now_us());
        self.heal();
        let restart = self.group.is_none() || self.rng.chance(1, 2);
        self.counters.unrestarted += u64::from(!restart);
        let may_be_hurt = restart && self.group.is_some() && !self.plan.synced;
        let all_hurt = may_be_hurt && self.rng.chance(1, 4);
        self.counters.all_recovering += u64::from(all_hurt);
        for node in 0..self.nodes() {
            self.enter(node);
            // Nothing is lost, but nobody knows: they must all come together.
            self.hurt |= all_hurt;
            self.note_recovering();
            self.crash_in = None;
            self.set_ahead();
            self.disk_is_sound();
            let power = self.sync_failed;
            let restart = restart || self.is_barred();
            if restart || self.node.is_none() || self.fault_planted || power {
                self.crash(power);
            }
        }
        for node in 0..self.nodes() {
            self.enter(node);
            self.accept_loss();
        }
        self.schedule.after(0, Event::Probe);
    }
}
