//! Bits that change on a disk (I18): nothing of a bad entry is served or passed on, and while another
//! member has a good copy the entry is mended by itself.

use crate::sim::Sim;
use crate::view::Unread;
use troupemq::actors::shard::core::ShardInput;
use troupemq::actors::shard::recent::Scheduled;
use troupemq::raft::entry::TimerKey;
use troupemq::storage::{LogStore, StoreError};

impl Sim {
    /// Of 1000 ticks, those in which a bit changes. Not drawn with the plan, whose lives would all be others.
    /// None where one node votes: what that shows is rare enough without it. None where the group shrinks: the
    /// only good copy may go with a node that is removed.
    fn rots(&self) -> u64 {
        // What is lost with machines is no entry that others have.
        let lost = self.plan.disk.power_cuts > 0;
        match self.plan.net.sole || self.plan.extra.resizes > 0 || lost {
            true => 0,
            false => [0, 0, 5, 30][(self.seed / 8 % 4) as usize],
        }
    }

    /// A bit of an entry changes on the disk of the node here: of one that its next start does not replay, since
    /// that is the store's to see, and that all other members hold, so that a loss elsewhere is no excuse.
    pub fn rot(&mut self) {
        let (rots, here) = (self.rots(), self.here());
        if rots == 0 || self.is_calm() || !self.rng.chance(rots, 1000) {
            return;
        }
        let Ok(bounds) = self.store.bounds(crate::SHARD) else {
            return;
        };
        let Some(group) = &self.group else { return };
        let durable = self.disk.flushed.saturating_sub(16);
        let free = group.places.iter().all(|p| p.rotten.is_none());
        if !free || durable <= bounds.first || !self.is_member() {
            return;
        }
        let index = self.rng.between(bounds.first, durable);
        if !self.others_hold(index) {
            return;
        }
        let bit = self.rng.next_u64() as usize;
        self.counters.rotten += 1;
        self.store.corrupt(crate::SHARD, index, bit);
        if let Some(group) = &mut self.group {
            group.places[here].rotten = Some(index);
        }
    }

    /// All other members hold a good copy.
    fn others_hold(&self, index: u64) -> bool {
        let Some(group) = &self.group else {
            return false;
        };
        let nodes = group.oracle.members.nodes();
        let mut others = group.places.iter().enumerate();
        others.all(|(n, place)| {
            let other = n != group.here && nodes.contains(&(n as u64 + 1));
            let read = || place.store.read(crate::SHARD, index, index + 1, u64::MAX);
            !other || (!place.hurt && read().is_ok_and(|found| !found.is_empty()))
        })
    }

    /// What the scrub of this node comes by sooner or later; at once when the faults are over.
    pub fn scrub(&mut self) {
        let here = self.here();
        let Some(group) = &mut self.group else { return };
        let Some(index) = group.places[here].rotten else {
            return;
        };
        let read = self.store.read(crate::SHARD, index, index + 1, u64::MAX);
        if !matches!(read, Err(StoreError::BadEntry { .. })) {
            // What a failed sync covered may be bad again after the next start.
            if !self.fault_planted {
                group.places[here].rotten = None;
            }
        } else if self.is_calm() || self.rng.chance(1, 50) {
            self.post_shard(ShardInput::BadEntry { index });
        }
    }

    /// The replica here gives an entry up.
    pub fn entry_lost(&mut self, index: u64) {
        let Some(group) = &self.group else {
            return;
        };
        // Who came to the group after the last entry that this replica has cannot be asked yet.
        let own = self.node.as_ref().map(|n| n.shard.raft().members());
        let known = own.map_or_else(Vec::new, |m| m.nodes());
        let mut nodes = group.oracle.members.nodes();
        nodes.retain(|n| known.contains(n));
        let holder = group.places.iter().enumerate().find(|(n, place)| {
            let other = *n != group.here && nodes.contains(&(*n as u64 + 1));
            let read = || place.store.read(crate::SHARD, index, index + 1, u64::MAX);
            other && read().is_ok_and(|found| !found.is_empty())
        });
        if let Some((node, _)) = holder {
            let what = format!("entry {index} is given up, and node {node} has it");
            self.fail("I18", what);
        }
    }

    /// Reads a scheduled record for the timer; one that nobody can read any more ends it.
    pub fn scheduled_record(&mut self, timer: TimerKey) -> Option<(i32, bytes::Bytes)> {
        match self.view.scheduled(&self.store, timer.position) {
            Ok(Scheduled::Record(tag, record)) => return Some((tag, record)),
            Ok(Scheduled::Later) | Err(Unread::Lost) => {}
            Ok(Scheduled::Lost) => self.post_shard(ShardInput::Orphans(vec![timer])),
            Err(Unread::Bad(index)) => {
                self.counters.bad_reads += 1;
                self.post_shard(ShardInput::BadEntry { index });
            }
            Err(Unread::Wrong(what)) => self.fail("I17", what),
        }
        None
    }
}
