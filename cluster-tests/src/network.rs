//! The network between the nodes, and what must be on a node's disk before it says something.

use crate::defects::Planted;
use crate::schedule::{Event, Mail};
use crate::sim::Sim;
use bytes::Bytes;
use troupemq::actors::shard::core::ShardInput;
use troupemq::raft::{said, Said};
use troupemq::storage::LogStore;

impl Sim {
    /// A message leaves this node. `false`: its link dropped it.
    pub fn send(&mut self, to: u64, bytes: Bytes) -> bool {
        let Some(group) = &self.group else {
            self.fail("shell", format!("a node alone sends to {to}"));
            return true;
        };
        let (from, to) = (group.here, to as usize - 1);
        if to >= group.places.len() {
            self.fail("shell", format!("a message to node {}", to + 1));
            return true;
        }
        self.counters.messages += 1;
        let said = said(&bytes);
        if let Some(said) = said {
            self.rests_on_the_disk(said);
        }
        let mut delay = 50 + self.rng.below(self.plan.net.delay_us);
        delay += self.says(to, said, &bytes, delay);
        let Some(group) = &self.group else {
            return true;
        };
        let calm = self.is_calm();
        if group.is_cut(from, to) {
            self.counters.messages_cut += 1;
            if self.rng.chance(1, 8) {
                self.post_shard(ShardInput::Unreachable {
                    node: to as u64 + 1,
                });
            }
            return true;
        }
        self.keep_for_later(from, to, &bytes);
        if let Some(taken) = self.put_on_link(from, to, &bytes) {
            return taken;
        }
        if !calm && self.rng.chance(self.plan.net.loss, 100) {
            self.counters.messages_lost += 1;
            return true;
        }
        if !calm && self.rng.chance(self.plan.net.double, 100) {
            self.counters.messages_doubled += 1;
            // Also long after.
            let again = delay + self.rng.below(5_000_000);
            self.packet(again, from, to, bytes.clone());
        }
        if !calm && self.rng.chance(self.plan.net.late, 1000) {
            self.counters.messages_late += 1;
            delay += self.rng.below(3_000_000);
        }
        self.packet(delay, from, to, bytes);
        true
    }

    pub(crate) fn packet(&mut self, delay_us: u64, from: usize, to: usize, bytes: Bytes) {
        self.schedule
            .after(delay_us, Event::Packet { from, to, bytes });
    }

    /// A message arrives, unless the node is down or the line was cut meanwhile.
    pub fn arrived(&mut self, from: usize, to: usize, bytes: Bytes) {
        if self.group.as_ref().is_some_and(|g| g.is_cut(from, to)) {
            return;
        }
        self.enter(to);
        if let Some(wait) = self.links_stall() {
            // Links keep their order.
            return self.packet(wait, from, to, bytes);
        }
        if self.node.is_some() {
            let Some(bytes) = self.off_the_wire(from, to, bytes) else {
                return;
            };
            let bytes = match self.defect {
                Some(Planted::WireFlipsBytes) if self.rng.chance(1, 50) => self.flipped(&bytes),
                Some(Planted::PartsUnchecked) => self.spoiled(bytes),
                _ => self.spoilt(bytes),
            };
            let from = from as u64 + 1;
            self.deliver(Mail::Shard(ShardInput::Message { from, bytes }));
        }
    }

    /// (planted) A link without a checksum.
    fn flipped(&mut self, bytes: &Bytes) -> Bytes {
        let mut bytes = bytes.to_vec();
        let at = self.rng.below(bytes.len() as u64) as usize;
        bytes[at] ^= 1 << self.rng.below(8);
        bytes.into()
    }

    /// A part of a snapshot may come with a bit changed: what a link's checksum does not see.
    fn spoilt(&mut self, bytes: Bytes) -> Bytes {
        let share = self.plan.spoilt_parts;
        if share == 0 || self.is_calm() || !self.rng.chance(share, 100) {
            return bytes;
        }
        let bit = self.rng.below(32) as u32;
        match troupemq::raft::spoiled_snapshot(&bytes, bit) {
            Some(changed) => {
                self.counters.spoilt_parts += 1;
                changed
            }
            None => bytes,
        }
    }

    /// (planted) Changes a part of a snapshot now and then.
    fn spoiled(&mut self, bytes: Bytes) -> Bytes {
        let bit = self.rng.below(32) as u32;
        match bit {
            0..8 => troupemq::raft::spoiled_snapshot(&bytes, bit).unwrap_or(bytes),
            _ => bytes,
        }
    }

    /// A node went down: the others' connections to it close.
    pub fn lost_by_others(&mut self) {
        let me = self.here();
        for node in (0..self.nodes()).filter(|n| *n != me) {
            if self.rng.chance(2, 3) {
                let after = self.rng.below(20_000);
                self.schedule
                    .after(after, Event::LinkClosed { node, to: me });
            }
        }
    }

    /// Term, vote and what is acknowledged are on the disk of the node here: as they ask for, the
    /// first two synced in every class.
    fn rests_on_the_disk(&mut self, said: Said) {
        let durable = self.store.durable_state(crate::SHARD);
        let here = self.here();
        if durable.term < said.term {
            let what = format!(
                "node {here} speaks in term {}, and {} is on its disk",
                said.term, durable.term
            );
            return self.fail("rule 1", what);
        }
        if durable.term != said.term {
            return;
        }
        if said.vote.is_some_and(|vote| vote != durable.vote) {
            let what = format!("node {here} says {said:?}, and {durable:?} is on its disk");
            return self.fail("rule 1", what);
        }
        let last = self.store.bounds(crate::SHARD).map_or(0, |b| b.last);
        if said.holds.is_some_and(|index| index > last) {
            let what = format!("node {here} says {said:?}, and its log ends at {last}");
            self.fail("rule 1", what);
        }
    }
}
