//! A replica that only learns, and holds another log than the group.
//!
//! A leader counts on no learner, so a group may lose entries that a learner has: a sole voter, or all
//! voters together, lose their machines with what ASYNC_FLUSH had not synced, and go on with other entries. A voter
//! in that place stops, since its own entries may be the ones that were acknowledged. What a
//! learner holds was the group's to keep: the learner forgets it all and is filled anew after its next start.

use super::*;

impl ShardCore {
    /// The leader has another entry at `index`, which is committed here.
    pub(super) fn other_log(&mut self, index: u64, why: &MessageError, out: &mut Vec<Effect>) {
        let me = self.raft.id();
        if self.raft.members().has_vote(me) {
            self.fail(why.to_string(), out);
            return;
        }
        let last = self.raft.next_index() - 1;
        // What comes next is another log, in which nothing is committed yet; terms and votes go on.
        let hard_state = HardState {
            commit: 0,
            ..self.raft.hard_state()
        };
        out.push(Effect::Publish(Publish::OtherLog { first: index, last }));
        out.push(Effect::Disk(DiskWork::Forget {
            hard_state,
            reached: last,
        }));
        self.fail(
            format!("{why}: it is filled anew after its next start"),
            out,
        );
    }
}

#[cfg(test)]
#[path = "other_log_tests.rs"]
mod tests;
