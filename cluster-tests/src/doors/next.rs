//! A connection whose own node leads next: what is with the leader of now comes back while later requests may
//! begin on this node.

use crate::sim::Sim;
use troupemq::actors::shard::core::ShardInput;

/// It sends more for so long, microseconds.
const NEXT_FOR_US: u64 = 150_000;

impl Sim {
    /// The node here hands over while requests are with its own cores, now and then.
    pub(super) fn leads_no_more(&mut self, id: u64) {
        let may = self.plan.net.transfers > 0 && !self.is_calm() && self.group.is_some();
        if !may || self.doors.next_leads.is_some() || !self.doors.rng.chance(1, 60) {
            return;
        }
        self.counters.leads_next += 1;
        self.doors.next_leads = Some((id, self.schedule.now_us() + NEXT_FOR_US));
        let nodes = self.nodes() as u64;
        let other = (self.here() as u64 + 1 + self.doors.rng.below(nodes - 1)) % nodes;
        self.post_shard(ShardInput::Transfer { to: other + 1 });
    }

    /// The leader hands over to the node here, now and then.
    pub(super) fn leads_next(&mut self, id: u64, leader: usize) {
        let may = self.plan.net.transfers > 0 && !self.is_calm();
        if !may || self.doors.next_leads.is_some() || !self.doors.rng.chance(1, 60) {
            return;
        }
        let here = self.here();
        self.doors.next_leads = Some((id, self.schedule.now_us() + NEXT_FOR_US));
        self.counters.leads_next += 1;
        self.enter(leader);
        let to = here as u64 + 1;
        self.post_shard(ShardInput::Transfer { to });
        self.enter(here);
    }
}
