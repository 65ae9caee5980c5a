//! A connection whose own node leads next: what is with the leader of now comes back while later requests may
//! begin on this node.

use crate::sim::Sim;
use troupemq::actors::shard::core::ShardInput;

/// It sends more for so long, microseconds.
const NEXT_FOR_US: u64 = 150_000;

impl Sim {
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
