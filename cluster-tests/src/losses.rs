//! Losses that a class allows (I15): so many machines stop at once that entries which a majority had written, and
//! not synced, are on no voter's disk any more.
//!
//! How much that is the disks say at the moment when a machine stops: what any voter still has is kept, since the
//! group begins again only with all of them. The oracle goes back to there, and so do the checkers: they know what was
//! of the SYNC_FLUSH class, and hold that such a loss took none of it.

use crate::defects::Planted;
use crate::group::sum;
use crate::schedule::Event;
use crate::seen::Seen;
use crate::sim::Sim;
use troupemq::actors::shard::machine::{Machine, MachineOptions};
use troupemq::raft::members::Members;
use troupemq::storage::{LogStore, SimStore};

/// Entries that a group has lost.
#[derive(Debug, Clone)]
pub struct Lost {
    first: u64,
    /// Term and checksum of each.
    entries: Vec<(u64, u32)>,
    /// The nodes that hold them all the same: none of them has a vote. (What a message brings to a voter later that
    /// was under way is as good as any entry.)
    holders: Vec<usize>,
}

impl Lost {
    /// A store that holds this has another log than the group's.
    fn is_in(&self, store: &SimStore, log: &[(u64, u32)]) -> bool {
        let Ok(bounds) = store.bounds(crate::SHARD) else {
            return false;
        };
        // What was under way may have brought some of them back.
        let lost = (self.first..).zip(&self.entries);
        let mut lost = lost.filter(|(index, lost)| {
            *index >= bounds.first && log.get(*index as usize - 1) != Some(lost)
        });
        lost.any(|(index, lost)| holds(store, index, *lost))
    }
}

fn holds(store: &SimStore, index: u64, (term, checksum): (u64, u32)) -> bool {
    let read = store.read(crate::SHARD, index, index + 1, u64::MAX);
    let found = read.ok().and_then(|found| found.into_iter().next());
    found.is_some_and(|e| (e.term, sum(&e)) == (term, checksum))
}

/// Up to where a store holds what is committed.
fn reaches(store: &SimStore, log: &[(u64, u32)]) -> u64 {
    let Ok(bounds) = store.bounds(crate::SHARD) else {
        return 0;
    };
    let mut last = bounds.last.min(log.len() as u64);
    while last >= bounds.first && last > 0 && !holds(store, last, log[last as usize - 1]) {
        last -= 1;
    }
    last
}

impl Sim {
    /// The power of several machines fails soon, in a part of the cases, where the class allows what that takes.
    pub(crate) fn power_fails(&mut self, part: u64, whole: u64) {
        if self.plan.disk.power_cuts > 0 && self.rng.chance(part, whole) {
            let after = self.rng.below(3_000);
            self.schedule.after(after, Event::PowerCut);
        }
    }

    /// See [`Sim::power_fails`].
    pub(crate) fn cut_power(&mut self) {
        if self.is_calm() {
            return;
        }
        self.counters.power_cuts += 1;
        let here = self.here();
        let all = self.rng.chance(1, 2);
        for node in 0..self.nodes() {
            if all || self.rng.chance(2, 3) {
                self.enter(node);
                self.crash(true);
            }
        }
        self.enter(here);
    }

    /// What is committed may be more than what is left, now that a disk holds less.
    pub(crate) fn see_losses(&mut self) {
        let Some(group) = &self.group else { return };
        let front = group.front();
        let members = &group.oracle.members;
        let has_vote = |n: usize| members.has_vote(n as u64 + 1);
        let voters = (0..group.places.len()).filter(|n| has_vote(*n));
        let stores = voters.map(|n| reaches(group.store_of(n, &self.store), &group.log));
        let kept = stores.max().unwrap_or(front);
        if kept >= front {
            return;
        }
        let hurt = |node: &u64| {
            let at = *node as usize - 1;
            match (at == group.here, group.places.get(at)) {
                (true, _) => self.hurt || self.forgot,
                (false, Some(place)) => place.hurt || place.forgot,
                (false, None) => false,
            }
        };
        let goes_on = |voters: &Vec<u64>| {
            let sound = voters.iter().filter(|n| !hurt(n)).count();
            voters.is_empty() || sound > voters.len() / 2
        };
        if goes_on(&members.voters) && goes_on(&members.voters_outgoing) {
            let what = format!("entries {} to {front} are lost, with a minority", kept + 1);
            return self.fail("I1", what);
        }
        self.go_back(kept);
    }

    /// The group begins again behind this entry.
    fn go_back(&mut self, kept: u64) {
        let segment_bytes = self.plan.segment_bytes;
        let Some(group) = &mut self.group else { return };
        self.counters.entries_lost += group.front() - kept;
        let mut lost = Lost {
            first: kept + 1,
            entries: group.log.split_off(kept as usize),
            holders: Vec::new(),
        };
        for n in 0..group.places.len() {
            if lost.is_in(group.store_of(n, &self.store), &group.log) {
                lost.holders.push(n);
            }
        }
        group.lost.push(lost);
        group.entries.truncate(kept as usize);
        let mut oracle = Machine::new(crate::SHARD, MachineOptions { segment_bytes });
        oracle.members = Members::of((1..=group.members as u64).collect());
        let again = group.entries.iter();
        let applied: Result<Vec<_>, _> = again.map(|entry| oracle.apply(entry)).collect();
        group.oracle = oracle;
        if let Err(error) = applied {
            return self.fail("I3", format!("the oracle: {error}"));
        }
        for shown in self.shown.values_mut() {
            shown.truncate(shown.partition_point(|index| *index <= kept));
        }
        self.schedule.forget_digests();
        let (power, last) = (true, kept);
        self.see(Seen::GroupLost { last });
        self.see(Seen::Crashed { power, last });
    }

    /// The replica here holds what the group has lost: what it shows is not the group's.
    pub(crate) fn is_apart(&self) -> bool {
        let Some(group) = &self.group else {
            return false;
        };
        // Without a vote it makes nothing of the group's, also of what it writes after the loss.
        let learns = !group.oracle.members.has_vote(group.here as u64 + 1);
        let in_it = |lost: &Lost| {
            (learns || lost.holders.contains(&group.here)) && lost.is_in(&self.store, &group.log)
        };
        let lost = &group.lost;
        !lost.is_empty() && (self.disk.forgot.is_some() || lost.iter().any(in_it))
    }

    /// Nobody leads. A replica that has no vote any more may hold what the group has lost, and those that lost it may
    /// not know yet that its vote is gone: each asks for it, and it refuses. An operator gives it an empty disk, once.
    pub(crate) fn replace_apart(&mut self) -> bool {
        let mut replaced = false;
        for node in 0..self.nodes() {
            self.enter(node);
            let members = self.group.as_ref().map(|g| &g.oracle.members);
            let votes = members.is_some_and(|m| m.has_vote(node as u64 + 1));
            if self.has_lost() && !votes && self.is_apart() && self.node.is_some() {
                self.comes_back_in = Some(0);
                self.crash(false);
                self.lose_store();
                self.counters.replaced += 1;
                replaced = true;
            }
        }
        if replaced {
            self.probe.last = self.schedule.now_us();
            self.probe.replaced = self.probe.last;
        }
        replaced
    }

    /// The group has lost entries in this life.
    pub(crate) fn has_lost(&self) -> bool {
        self.group.as_ref().is_some_and(|g| !g.lost.is_empty())
    }

    /// The replica here gives up a log that is not the group's, and is to be filled.
    pub(crate) fn gives_up_log(&mut self, first: u64, last: u64) {
        self.counters.other_logs += 1;
        // It stops then.
        self.fault_planted = true;
        self.view.given_up = true;
        if !self.has_lost() {
            self.fail("I2", format!("another log from {first} to {last}"));
        }
    }

    /// A start of the node here says whether the machine lost what was unsynced.
    pub(crate) fn tell_loss(&mut self) {
        let untold = self.defect == Some(Planted::LossOfMachineUntold);
        if self.hurt && !untold {
            let (node, kept) = (self.here(), self.last_index());
            self.see(Seen::Unclean { node, kept });
        }
    }
}
