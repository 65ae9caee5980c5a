//! Retention: the leader looks now and then for segments of the log to drop, and drops them by an
//! entry that names the place, so that all replicas cut there.
//!
//! A snapshot stands for what was trimmed, so it is worthless once more is. While a follower takes
//! one in, or fetches what a trim would take, the leader holds the trim back, as long as that
//! follower answers and gets on, and not for ever.

use super::*;

/// How often the leader looks for segments to drop, ms.
const EVERY_MS: i64 = 10_000;
/// Election timeouts for which trims may be held back, and are then not held back again.
const LONGEST_HOLD: u64 = 600;

/// When the leader looked last, and for how long it has held trims back.
#[derive(Debug, Default)]
pub(super) struct Retention {
    pub(super) last_ms: i64,
    /// Tick at which it began to.
    held_since: Option<u64>,
    /// Tick until which it does so no more.
    not_before: u64,
}

impl Retention {
    /// Whether a trim that somebody still needs is to wait.
    fn holds(&mut self, needed: bool, now: u64, longest: u64) -> bool {
        if !needed || now < self.not_before {
            self.held_since = None;
            return false;
        }
        let since = *self.held_since.get_or_insert(now);
        if now - since >= longest {
            (self.held_since, self.not_before) = (None, now + longest);
            return false;
        }
        true
    }
}

impl ShardCore {
    /// Called once a tick.
    pub(super) fn retain(&mut self, now_ms: i64) {
        // A clock that went back must not put retention off.
        let since = now_ms.saturating_sub(self.retention.last_ms);
        let due = !(0..EVERY_MS).contains(&since);
        if self.serving.is_none() || !due || self.trimming {
            return;
        }
        self.retention.last_ms = now_ms;
        let before = now_ms.saturating_sub(self.options.retention_ms);
        let limit = match self.options.defect {
            Some(Defect::KeepsHalf) => self.options.retention_bytes / 2, // (planted)
            _ => self.options.retention_bytes,
        };
        let Some(segment) = self.machine.droppable(before, limit) else {
            return;
        };
        let segments = self.machine.segments();
        let dropped = segments.iter().rfind(|(seq, _)| *seq <= segment);
        let needed = dropped.is_some_and(|(_, s)| self.raft.feeds_below(s.last_index));
        let longest = LONGEST_HOLD * self.raft.election_ticks() as u64;
        if self.retention.holds(needed, self.ticks, longest) {
            tracing::debug!(
                shard = self.options.shard.0,
                "a follower needs the oldest segment"
            );
            return;
        }
        self.trimming = true;
        for mut trim in self.machine.trims(segment) {
            if self.options.defect == Some(Defect::TrimBySegment) {
                // (planted)
                (trim.first, trim.segment) = (0, segment);
            }
            self.proposals.push_back((INTERNAL, MetaOp::Trim(trim)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trim_waits_for_followers_and_not_for_ever() {
        let mut retention = Retention::default();
        assert!(!retention.holds(false, 1, 100));
        assert!(retention.holds(true, 10, 100));
        assert!(retention.holds(true, 109, 100));
        assert!(!retention.holds(false, 109, 100), "it has what it needs");
        assert!(retention.holds(true, 110, 100), "another one");
        assert!(retention.holds(true, 209, 100));
        assert!(!retention.holds(true, 210, 100));
        assert!(!retention.holds(true, 309, 100));
        assert!(retention.holds(true, 310, 100));
    }
}
