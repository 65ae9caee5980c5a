//! Queues that stall: a queue's thread stands still for seconds while the rest of its node goes on. What
//! it proposes then comes when the node has ceased to serve, or serves anew. And links of a leader that
//! fail one after the other.

use crate::schedule::{Event, Mail};
use crate::sim::Sim;
use troupemq::actors::queue::core::QueueInput;
use troupemq::actors::shard::core::ShardInput;

/// The longest, microseconds: leadership may go and come back meanwhile.
const LONGEST_US: u64 = 4_000_000;
/// A pull is on its way to its queue for so long at most, microseconds.
const PARKING_US: u64 = 300_000;
/// One follower is cut off from its leader for so long before all are, microseconds.
const FIRST_US: (u64, u64) = (500_000, 3_000_000);

impl Sim {
    /// The leader here loses one follower, and later all: what the first one promised is over by then.
    pub(crate) fn leave_leader_in_turn(&mut self) {
        self.outlive_a_promise();
        self.hand_over_unheard();
        let net = &self.plan.net;
        let one_in = if net.unequal && net.partitions > 0 {
            60
        } else {
            0
        };
        if one_in == 0 || self.view.serving.is_none() || !self.rng.chance(1, one_in) {
            return;
        }
        let (from, nodes) = (self.here(), self.nodes());
        let first = (from + 1 + self.rng.below(nodes as u64 - 1) as usize) % nodes;
        let (least, most) = FIRST_US;
        let then = self.rng.between(least, most);
        let until = self.schedule.now_us() + then + self.rng.between(500_000, 2_000_000);
        self.counters.left_in_turn += 1;
        for to in (0..nodes).filter(|to| *to != from) {
            let after = if to == first { 0 } else { then };
            let both = true;
            self.schedule.after(
                after,
                Event::Cut {
                    from,
                    to,
                    both,
                    until,
                },
            );
            let (node, to) = (to, from);
            let seen = then + self.rng.below(20_000);
            self.schedule.after(seen, Event::LinkClosed { node, to });
        }
    }

    /// So much longer waits a message that is put into a mailbox.
    pub(crate) fn stall_of(&mut self, mail: &Mail) -> u64 {
        if matches!(mail, Mail::Parking(..)) {
            return self.rng.below(PARKING_US);
        }
        let of_client = matches!(
            mail,
            Mail::Queue(_, _, QueueInput::Append { .. }) | Mail::Decided(_)
        );
        let stalls = self.plan.queue_stalls;
        if !of_client || stalls == 0 || self.is_calm() || !self.rng.chance(stalls, 1000) {
            return 0;
        }
        self.counters.stalled_queues += 1;
        if self.leads_again() {
            return self.rng.between(LONGEST_US / 2, 2 * LONGEST_US);
        }
        self.rng.below(LONGEST_US)
    }

    /// The leader here hands over while one of its queues stands still, and is to lead again before that is over.
    fn leads_again(&mut self) -> bool {
        let may = self.plan.net.transfers > 0 && self.view.serving.is_some();
        if !may || !self.rng.chance(1, 8) {
            return false;
        }
        self.counters.leads_again += 1;
        let (here, nodes) = (self.here(), self.nodes() as u64);
        let other = (here as u64 + 1 + self.rng.below(nodes - 1)) % nodes;
        let to = other + 1;
        self.post_shard(ShardInput::Transfer { to });
        for _ in 0..3 {
            let after = self.rng.between(300_000, LONGEST_US / 2);
            self.schedule.after(after, Event::LeadAgain { node: here });
        }
        true
    }

    /// Whoever leads hands over to this node.
    pub(crate) fn lead_again(&mut self, node: usize) {
        let to = node as u64 + 1;
        for leader in (0..self.nodes()).filter(|n| *n != node) {
            self.enter(leader);
            if !self.is_calm() && self.node.is_some() && self.view.serving.is_some() {
                self.post_shard(ShardInput::Transfer { to });
            }
        }
    }

    /// A command was done: what it was decided on must not have been another leader's to change meanwhile.
    pub(crate) fn decided_in_time(&mut self, id: u64) {
        let epoch = self.node.as_ref().map_or(0, |n| n.shard.epoch());
        let serves = self.view.serving.is_some();
        let decided = self.clients.decided.remove(&id).filter(|_| serves);
        if decided.is_some_and(|at| at != epoch) {
            let what = format!("request {id} was decided on {decided:?}, and done in {epoch}");
            self.fail("I16", what);
        }
    }

    /// A pull was answered without data: there was none, or the queue was closed meanwhile.
    pub(crate) fn pull_ended(&mut self, pull: &crate::clients::Pull) {
        let plan = &self.plan;
        let paused = plan.net.pauses + plan.extra.long_pauses + plan.net.moments > 0;
        let slow = plan.queue_stalls + plan.extra.slow > 0 || paused || plan.net.busy;
        let Some(node) = self.node.as_ref().filter(|_| !slow && pull.any_tag) else {
            return;
        };
        let same = self.view.serving.is_some() && node.shard.epoch() == pull.epoch;
        let exists = self.view.topic_names.contains_key(&pull.key.topic.0);
        let shown = self.view.shown_at(pull.key);
        let long = shown.is_some_and(|at| self.schedule.now_us() - at > 5 * plan.mail_us + 10_000);
        let max = self.view.bounds(pull.key).1;
        if same && exists && long && max > pull.offset {
            let (key, offset) = (pull.key, pull.offset);
            let what = format!("a pull of {key:?} at {offset} waited in vain, and {max} is next");
            self.fail("I6", what);
        }
    }
}
