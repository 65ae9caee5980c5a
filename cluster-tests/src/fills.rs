//! Replicas that begin with a snapshot: the leader stops when one is installed. Whoever shows queues can read them from their beginning.

use crate::schedule::Event;
use crate::sim::Sim;
use crate::view::{self, Unread};
use troupemq::model::QueueKey;
use troupemq::storage::SimRng;

/// The leader stops within this time after a snapshot was installed elsewhere, microseconds.
const SOON_US: u64 = 100_000;

impl Sim {
    /// A snapshot was installed here: where processes pause, the leader's does in half of the cases, and this replica
    /// may be the next to lead.
    pub(crate) fn leader_stops_as_filled(&mut self) {
        let here = self.here();
        let calm = self.is_calm();
        let Some(group) = self.group.as_ref().filter(|_| !calm) else {
            return;
        };
        let node = group.hint;
        let mut own = SimRng::new(self.seed ^ self.schedule.now_us());
        if node == here || self.plan.net.pauses == 0 || !own.chance(1, 2) {
            return;
        }
        self.counters.stopped_as_filled += 1;
        let lasts_us = own.between(1_200_000, 4_000_000);
        self.schedule
            .after(own.below(SOON_US), Event::Pause { node, lasts_us });
    }

    /// The node here starts and shows its queues: each can be read where it begins.
    pub(crate) fn see_beginnings(&mut self) {
        let Some(node) = self.node.as_ref() else {
            return;
        };
        if !node.shard.machine().is_filling() {
            let queues = node.shard.machine().queues();
            let shown: Vec<_> = queues.map(|(key, m)| (key, m.next)).collect();
            self.see_filled(&shown);
        }
    }

    /// The rows of these queues can be read up to there: each where it begins.
    pub(crate) fn see_filled(&mut self, shown: &[(QueueKey, u64)]) {
        let Some(node) = &self.node else { return };
        let machine = node.shard.machine();
        let begins = shown
            .iter()
            .map(|(key, max)| (*key, machine.queue(*key).min, *max));
        let begins = begins.filter(|(key, min, max)| min < max && machine.has_topic(key.topic.0));
        let begins: Vec<_> = begins.map(|(key, min, _)| (key, min)).collect();
        for (key, min) in begins {
            // Of a bad entry other copies are sought; what all have lost is passed over.
            let wrong = match view::from_rows(&self.store, key, min, &mut Vec::new()) {
                Err(Unread::Wrong(what)) => what,
                _ => continue,
            };
            return self.fail("I17", format!("{key:?} begins at {min}: {wrong}"));
        }
    }
}
