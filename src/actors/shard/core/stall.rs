//! A disk that hangs: the process lives, its heartbeats go out, and nothing it is sent gets
//! written. A leader that finds its oldest log write under way for too long hands leadership to
//! the replica that is furthest; entries reach the others without its own disk.

use super::*;

/// Election timeouts that a log write may take.
const PATIENCE: usize = 2;

/// The oldest log write under way, and for how many ticks it has been.
#[derive(Debug, Default)]
pub(super) struct OldestWrite {
    ticket: u64,
    ticks: usize,
}

impl ShardCore {
    /// Called once a tick.
    pub(super) fn watch_disk(&mut self) {
        let Some((ticket, _)) = self.writes.front().copied() else {
            self.oldest_write.ticks = 0;
            return;
        };
        if self.oldest_write.ticket != ticket {
            self.oldest_write = OldestWrite { ticket, ticks: 0 };
        }
        self.oldest_write.ticks += 1;
        let limit = PATIENCE * self.raft.election_ticks();
        // Again after each election timeout, for the first choice may be as badly off.
        let late = self.oldest_write.ticks.checked_sub(limit);
        if !late.is_some_and(|late| late.is_multiple_of(self.raft.election_ticks())) {
            return;
        }
        let me = self.raft.id();
        let progress = self.raft.progress();
        let others = progress
            .iter()
            .filter(|p| p.node != me && p.voter && p.active && !p.snapshot);
        let Some(best) = others.max_by_key(|p| p.matched) else {
            return;
        };
        tracing::warn!(
            shard = self.options.shard.0,
            to = best.node,
            "a log write hangs: handing leadership over"
        );
        if let Err(why) = self.raft.transfer(best.node) {
            tracing::debug!(%why, "leadership stays");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::three::Three;
    use super::*;
    use crate::model::topic::TopicConfig;

    #[test]
    fn a_leader_whose_disk_hangs_hands_over_and_not_before() {
        // At any distance from raft's own checks for a quorum.
        for extra in 0..10 {
            hangs_after(40 + extra);
        }
    }

    fn hangs_after(ticks: usize) {
        let mut three = Three::new();
        three.tick(ticks);
        let old = three.leader().expect("one leads");
        three.hangs = Some(old);
        let op = MetaOp::PutTopic(TopicConfig {
            name: "t".into(),
            ..TopicConfig::default()
        });
        let epoch = three.cores[old].epoch();
        three.step(old, ShardInput::Propose { id: 9, epoch, op });
        let now_ms = three.now_ms;
        three.step(old, ShardInput::Flush { now_ms });
        let limit = PATIENCE * three.cores[old].raft().election_ticks();
        three.tick(limit - 1);
        assert_eq!(three.leader(), Some(old), "a slow disk is not a hung one");
        // What the old leader says in the new term waits for its disk: promises to it must run out.
        three.tick(3 + three.cores[old].raft().promise_ticks() + 1);
        let new = three.leader().expect("another leads");
        assert_ne!(new, old);
        assert!(three.cores[new].machine().topics().any(|t| t.name == "t"));
    }
}
