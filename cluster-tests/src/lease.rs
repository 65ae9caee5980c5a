//! Leases: while a leader answers reads from memory nobody else may serve.

use crate::defects::Planted;
use crate::seen::{Claim, Seen};
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
        let from = match self.defect {
            Some(Planted::LeaseFromAnswer) => self.schedule.now_us(),
            _ => stamp,
        };
        self.lease_until = from + self.rhythm().world_us(lease_ms);
        self.counters.leases += 1;
        self.see_claims(false);
    }

    /// Who serves, and may answer from memory. `between`: nothing is half done.
    pub(crate) fn see_claims(&mut self, between: bool) {
        let now = self.schedule.now_us();
        let Some(here) = self.group.as_ref().map(|g| g.here) else {
            return;
        };
        let mut claims = Vec::new();
        for node in 0..self.nodes() {
            self.enter(node);
            let (Some(up), Some(term)) = (&self.node, self.view.serving) else {
                continue;
            };
            let lease = self.lease_until > now;
            let machine = up.shard.machine();
            if lease && between {
                if let Some(what) = self.view.differs(machine) {
                    let what = format!("node {node} would answer from memory: {what}");
                    return self.fail("I16", what);
                }
            }
            if between && !up.shard.raft().is_leader() {
                return self.fail("I4", format!("node {node} serves and does not lead"));
            }
            if between && !machine.members.has_vote(node as u64 + 1) {
                return self.fail("I4", format!("node {node} serves and has no vote"));
            }
            let applied = machine.applied.0;
            claims.push(Claim {
                node,
                term,
                lease,
                applied,
            });
        }
        self.enter(here);
        self.counters.claims += u64::from(claims.iter().any(|c| c.lease));
        self.counters.claims_of_several += u64::from(claims.len() > 1);
        if !claims.is_empty() {
            self.see(Seen::Claims(claims));
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
