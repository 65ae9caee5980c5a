//! Faults of a disk that last: it is slow or full for a while. And syncs that fail.

use crate::defects::{self, Planted};
use crate::extra::Faults;
use crate::plan::Plan;
use crate::sim::Sim;
use troupemq::storage::{keys, Fault, LogStore, SimRng, SimStore, StateStore};

/// A stall takes up to this long where disks are drawn no worse, microseconds.
const STALL_US: u64 = 3_000_000;
/// A step of a slow disk takes up to this long, microseconds.
const SLOW_STEP_US: u64 = 1_000_000;
/// A disk is slow or full for up to this long, microseconds.
const LASTS_US: u64 = 10_000_000;
/// A process that found no space at its start is started again after this time, microseconds.
const AGAIN_US: u64 = 400_000;

/// What disks do in one life.
#[derive(Debug, Clone)]
pub struct DiskFaults {
    /// A stall takes up to this long, microseconds.
    pub stall_us: u64,
    /// Of 1000 ticks, those in which a disk becomes slow.
    pub slow: u64,
    /// A disk that is full stays so for a while, and starts find it full.
    pub full: bool,
    /// So many writes go into one file of the log; 0: any number.
    pub writes_per_file: u64,
    /// Stores that are lost have lost the end of what was synced, now and then, and know that.
    pub lost_writes: bool,
    /// Of 1000 ticks, those in which the power of several machines fails. Entries that are not synced may be lost with
    /// it; 0 where the class, or what else happens, does not allow that.
    pub power_cuts: u64,
}

impl Default for DiskFaults {
    fn default() -> Self {
        Self {
            stall_us: STALL_US,
            slow: 0,
            full: false,
            writes_per_file: 0,
            lost_writes: false,
            power_cuts: 0,
        }
    }
}

impl DiskFaults {
    /// Drawn apart from the plan, whose lives stay what they were.
    pub fn draw(seed: u64, plan: &Plan) -> Self {
        let mut rng = SimRng::new(seed ^ 0x6469_736b);
        let long = rng.chance(1, 2);
        let slow = [0, 0, 0, 5][rng.below(4) as usize];
        let full = rng.chance(1, 2);
        let writes_per_file = [0, 0, 2, 10][rng.below(4) as usize];
        let power_cuts = [0, 0, 5, 30][rng.below(4) as usize];
        // Seldom: the newest log may be left with who has no vote by it, and all wait for an operator (decision 27).
        let lost_writes = rng.chance(1, 10);
        // Not where one node votes alone: a learner that holds more than the group has left notices that only with
        // later entries, and may wait for them at the end (seed 12 of three nodes). What is lost is told apart from
        // what other faults do only where there are few of them.
        let others = plan.net.busy || plan.net.sole || plan.extra != Faults::default();
        let power_cuts = match plan.synced || plan.power_share == 0 || others {
            true => 0,
            false => power_cuts,
        };
        if plan.net.busy || plan.net.sole {
            return Self {
                writes_per_file,
                power_cuts,
                ..Self::default()
            };
        }
        Self {
            writes_per_file,
            lost_writes,
            power_cuts,
            stall_us: if long { LASTS_US } else { STALL_US },
            slow,
            full,
        }
    }
}

impl DiskFaults {
    /// An empty disk.
    pub fn new_store(&self, defect: Option<Planted>) -> SimStore {
        let mut store = SimStore::new(&[crate::SHARD]);
        store.write_files_of(self.writes_per_file);
        defects::spoil(&mut store, defect);
        store
    }
}

/// What is wrong with one disk now.
#[derive(Debug, Clone, Copy, Default)]
pub struct Trouble {
    slow_until: u64,
    full_until: u64,
}

impl Sim {
    /// A tick: the disk of the node here becomes slow, or a write or sync of it is to fail.
    pub(crate) fn disk_faults(&mut self) {
        let now = self.schedule.now_us();
        let slow = self.plan.disk.slow;
        if slow > 0 && self.trouble.slow_until < now && self.rng.chance(slow, 1000) {
            self.counters.slow_disks += 1;
            self.trouble.slow_until = now + self.rng.below(LASTS_US);
        }
        if !(self.plan.disk_errors && self.node.is_some() && self.rng.chance(1, 60)) {
            return;
        }
        let fault =
            [Fault::WriteError, Fault::SyncError, Fault::NoSpace][self.rng.below(3) as usize];
        // What a failed sync covered may be gone, as after a power loss.
        let fault = match fault {
            Fault::SyncError if !self.may_lose_power() => Fault::NoSpace,
            fault => fault,
        };
        if fault == Fault::SyncError {
            self.counters.sync_errors += 1;
            self.sync_failed = true;
        }
        if fault == Fault::NoSpace && self.plan.disk.full {
            self.trouble.full_until = now + self.rng.below(LASTS_US);
        }
        self.fault_planted = true;
        self.store.inject(fault);
    }

    /// What a step of the disk takes beyond what is usual, microseconds.
    pub(crate) fn slowness(&mut self) -> u64 {
        let slow = self.trouble.slow_until > self.schedule.now_us() && !self.is_calm();
        if slow {
            self.rng.below(SLOW_STEP_US)
        } else {
            0
        }
    }

    /// A stall takes so long, microseconds.
    pub(crate) fn stall(&mut self) -> u64 {
        self.counters.stalls += 1;
        let took = self.rng.below(self.plan.disk.stall_us);
        self.counters.long_stalls += u64::from(took > STALL_US);
        took
    }

    /// A start of the node here: whether a write of it is to fail.
    pub(crate) fn fault_at_start(&mut self) -> bool {
        if self.settling.is_some() {
            return false;
        }
        if self.trouble.full_until > self.schedule.now_us() {
            self.counters.full_at_start += 1;
            self.store.inject(Fault::NoSpace);
            return true;
        }
        let faulty = self.plan.disk_errors && self.rng.chance(1, 10);
        if faulty {
            self.store.inject(Fault::WriteError);
        }
        faulty
    }

    /// A start failed for such a fault: when the next one comes, microseconds.
    pub(crate) fn starts_again_in(&self) -> u64 {
        match self.trouble.full_until > self.schedule.now_us() {
            true => AGAIN_US,
            false => 1_000,
        }
    }

    /// Up to here the log of the node here is said to be synced.
    pub(crate) fn synced_index(&self) -> u64 {
        let bounds = self.store.bounds(crate::SHARD);
        bounds.map_or(0, |b| b.synced)
    }

    /// A crash is over: what it did to the files, and whether the shard was forgotten before.
    pub(crate) fn note_crash(&mut self) {
        let found = self.store.found();
        self.counters.files_gone += found.files_gone;
        self.counters.torn_writes += found.torn;
        self.counters.holes += found.holes;
    }

    /// The disk of the node here has lost the end of the log, or all of it, synced as it was, and the marks tell: up
    /// to where it was synced, or to an earlier entry, since the marks may be older. 0 when nothing can be kept.
    ///
    /// A loss of which no mark tells is not played: no replica could know of it, and no class promises anything
    /// then.
    pub(crate) fn lose_end(&mut self) -> u64 {
        if !self.plan.disk.lost_writes || !self.rng.chance(1, 2) {
            return 0;
        }
        let Ok(bounds) = self.store.bounds(crate::SHARD) else {
            return 0;
        };
        let row = StateStore::get(&*self.store, &keys::applied::key(crate::SHARD));
        let row = row.ok().flatten();
        let applied = row.and_then(|row| keys::applied::decode(&row).ok());
        let applied = applied.unwrap_or(0);
        let whole = self.rng.chance(1, 4);
        let least = applied.max(bounds.first - 1);
        if bounds.last == 0 || (least >= bounds.last && !whole) {
            return 0;
        }
        let kept = match whole {
            // The database does not open, or its rows go further than its log.
            true => 0,
            false => self.rng.between(least, bounds.last - 1),
        };
        self.counters.lost_ends += 1;
        self.counters.lost_databases += u64::from(whole);
        match whole {
            true => *self.store = self.plan.disk.new_store(self.defect),
            false => self.store.lose_end(crate::SHARD, kept),
        }
        let told = self.rng.between(kept + 1, bounds.last);
        // What an earlier loss took is not there again before the replica is whole.
        told.max(self.owed)
    }

    /// Where each vote is needed, and none of those who may lead holds what a replica owes, all wait for an operator.
    /// He gives the word here: nobody else has it.
    pub(crate) fn accept_loss(&mut self) {
        let Some(group) = &self.group else { return };
        let members = &group.oracle.members;
        let newest = (0..group.places.len()).filter_map(|n| {
            let store = group.store_of(n, &self.store);
            let bounds = store.bounds(crate::SHARD).ok()?;
            let read = store.read(crate::SHARD, bounds.last, bounds.last + 1, u64::MAX);
            let term = read.ok().and_then(|e| e.first().map(|e| e.term));
            let voter = members.has_vote(n as u64 + 1);
            voter.then_some((term.unwrap_or(bounds.trimmed_term), bounds.last))
        });
        let last = newest.max().map_or(0, |(_, last)| last);
        if self.owed > last {
            self.counters.losses_accepted += 1;
            self.owed = 0;
            self.crash(false);
        }
    }

    /// Faults are over: the disk here is as good as any.
    pub(crate) fn disk_is_sound(&mut self) {
        self.trouble = Trouble::default();
        let now = self.schedule.now_us();
        if self.disk.busy && self.disk.at_us > now + STALL_US {
            self.disk.busy = false;
            self.wake_disk();
        }
    }
}
