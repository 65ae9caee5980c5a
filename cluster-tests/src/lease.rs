//! Leases: while a leader answers reads from memory nobody else may serve.

use crate::sim::Sim;
use troupemq::actors::shard::core::ShardInput;

/// Leaders ask so often whether they still lead.
const CONFIRM_TICKS: u64 = 2;

impl Sim {
    /// A tick of the node here.
    pub(crate) fn ask_for_lease(&mut self) {
        if self.group.is_some() && self.ticks.is_multiple_of(CONFIRM_TICKS) {
            self.post_shard(ShardInput::Confirm { stamp: 0 });
        }
    }

    /// The node here takes an event in; what it is to see of it.
    pub(crate) fn before_step(&mut self, input: ShardInput) -> ShardInput {
        match input {
            // Asked now, wherever the wish waited.
            ShardInput::Confirm { .. } => ShardInput::Confirm {
                stamp: self.schedule.now_us(),
            },
            ShardInput::PeerLost { .. } | ShardInput::Transfer { .. } => {
                self.lease_until = 0;
                input
            }
            input => input,
        }
    }

    /// A majority followed after this time, and so long from then.
    pub(crate) fn lease(&mut self, stamp: u64, lease_ms: u64) {
        self.lease_until = stamp + self.rhythm().world_us(lease_ms);
        self.counters.leases += 1;
    }

    /// It has carried out what came of it.
    pub(crate) fn after_step(&mut self) {
        let node = self.node.as_ref();
        if node.is_some_and(|node| node.shard.raft().is_transferring()) {
            self.lease_until = 0;
        }
    }

    /// The node here begins to serve.
    pub(crate) fn nobody_else_answers(&mut self) {
        let now = self.schedule.now_us();
        let Some(group) = &self.group else { return };
        let others = group.places.iter().enumerate();
        let mut others = others.filter(|(at, p)| *at != group.here && p.node.is_some());
        // One that was stopped may come to serve in a term that is over: what it says rests on a lease
        // or the log of its own.
        let own = self.view.serving;
        let older = |theirs: u64| own.is_some_and(|own| theirs < own);
        let other = others.find(|(_, p)| p.view.serving.is_some_and(older) && p.lease_until > now);
        if let Some((at, place)) = other {
            let what = format!(
                "node {} serves while node {at} may answer from memory for {} us",
                group.here,
                place.lease_until - now
            );
            self.fail("I16", what);
        }
    }

    /// Connections to a node break at the others' ends, and nothing else happens to it.
    pub(crate) fn reset_links(&mut self, to: usize) {
        self.counters.links_reset += 1;
        for node in (0..self.nodes()).filter(|n| *n != to) {
            if self.rng.chance(3, 4) {
                let after = self.rng.below(20_000);
                let closed = crate::schedule::Event::LinkClosed { node, to };
                self.schedule.after(after, closed);
            }
        }
    }
}
