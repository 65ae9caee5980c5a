//! Pulls that are ahead of the group's registered subscription (code 25, remoting-client §2.5).
//!
//! A Java client gives its subscription a new version whenever its share of queues changes, and
//! skips the heartbeat that would tell the broker when another one is under way. Stock RocketMQ
//! then refuses all its pulls until the next heartbeat, 30 s later. Here a pull that is still
//! ahead at the client's next try, a second later, is served without the filter: clients filter
//! by tag themselves as well, so more than was asked for does no harm, and less would.

use rustc_hash::{FxHashMap, FxHasher};
use std::hash::{Hash, Hasher};
use std::time::{Duration, Instant};

/// Java and Go clients try again after 1 s or 3 s.
const REFUSED_FOR: Duration = Duration::from_millis(900);
/// Remembered per connection; beyond it the record starts afresh.
const MAX_REMEMBERED: usize = 512;

/// When pulls of a connection were refused first, by group, topic and version.
#[derive(Debug, Default)]
pub struct StalePulls(FxHashMap<(u64, i64), Instant>);

impl StalePulls {
    /// A pull that is ahead came; true when it was refused for long enough.
    pub fn may_pass(&mut self, group: &str, topic: &str, version: i64, now: Instant) -> bool {
        let mut hasher = FxHasher::default();
        (group, topic).hash(&mut hasher);
        let key = (hasher.finish(), version);
        if !self.0.contains_key(&key) && self.0.len() >= MAX_REMEMBERED {
            self.0.clear();
        }
        let first = *self.0.entry(key).or_insert(now);
        now.duration_since(first) >= REFUSED_FOR
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_at_first_then_served_and_bounded() {
        let mut stale = StalePulls::default();
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        assert!(!stale.may_pass("g", "t", 7, at(0)));
        assert!(!stale.may_pass("g", "t", 7, at(800)));
        assert!(stale.may_pass("g", "t", 7, at(1000)));
        assert!(!stale.may_pass("g", "t", 8, at(1000)), "another version");
        assert!(!stale.may_pass("g", "u", 7, at(1000)), "another topic");
        for version in 0..2_000 {
            stale.may_pass("g", "x", version, at(2000));
        }
        assert!(stale.0.len() <= MAX_REMEMBERED);
    }
}
