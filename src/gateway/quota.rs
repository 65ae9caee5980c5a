//! How many topics, groups and delayed messages one connection may create in a minute. Pure.

use crate::config::Config;
use crate::model::quota::{QuotaExceeded, QuotaKind};

const MINUTE_MS: i64 = 60_000;
/// The kinds that are counted here.
const KINDS: [QuotaKind; 5] = [
    QuotaKind::ConnectionTopics,
    QuotaKind::ConnectionAutoTopics,
    QuotaKind::ConnectionGroups,
    QuotaKind::ConnectionAutoGroups,
    QuotaKind::ConnectionDelayed,
];

/// What a connection has created in the present minute, which begins with the first creation.
#[derive(Debug, Default)]
pub struct Creations {
    since_ms: i64,
    counts: [u32; KINDS.len()],
}

impl Creations {
    /// Counts `more`, all or none. `now_ms`: a clock that only rises.
    pub fn take(
        &mut self,
        kind: QuotaKind,
        more: u64,
        limit: u64,
        now_ms: i64,
    ) -> Result<(), QuotaExceeded> {
        let Some(at) = KINDS.iter().position(|k| *k == kind) else {
            return Ok(());
        };
        if now_ms.saturating_sub(self.since_ms) >= MINUTE_MS || self.counts == [0; KINDS.len()] {
            *self = Self {
                since_ms: now_ms,
                ..Self::default()
            };
        }
        let used = u64::from(self.counts[at]);
        kind.check(used, more, limit)?;
        // Limits are 32 bits long.
        self.counts[at] = (used + more) as u32;
        Ok(())
    }
}

/// How many of a kind this node lets a connection create in a minute.
pub fn limit(config: &Config, kind: QuotaKind) -> u32 {
    match kind {
        QuotaKind::ConnectionTopics => config.connection_topics_per_minute,
        QuotaKind::ConnectionAutoTopics => config.connection_auto_topics_per_minute,
        QuotaKind::ConnectionGroups => config.connection_groups_per_minute,
        QuotaKind::ConnectionAutoGroups => config.connection_auto_groups_per_minute,
        QuotaKind::ConnectionDelayed => config.connection_delayed_messages_per_minute,
        _ => u32::MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_begins_with_the_first_creation_and_kinds_are_apart() {
        let mut c = Creations::default();
        let [topics, autos, groups, ..] = KINDS;
        let start = 1_000_000;
        assert_eq!(c.take(topics, 2, 3, start), Ok(()));
        assert_eq!(c.take(autos, 1, 1, start + 59_999), Ok(()));
        let over = QuotaExceeded {
            kind: topics,
            limit: 3,
        };
        assert_eq!(c.take(topics, 2, 3, start + 59_999), Err(over));
        assert_eq!(
            c.take(topics, 1, 3, start + 59_999),
            Ok(()),
            "none of the two counted"
        );
        assert!(c.take(topics, 1, 3, start + 59_999).is_err());
        assert_eq!(c.take(groups, 5, 5, start + 59_999), Ok(()));
        assert_eq!(c.take(topics, 3, 3, start + 60_000), Ok(()));
        assert!(
            c.take(autos, 1, 1, start + 60_000).is_ok(),
            "a new minute for all"
        );
        assert!(c.take(topics, u64::MAX, 3, start + 60_000).is_err());
        // A connection that was idle for hours begins its minute when it creates again.
        assert_eq!(c.take(topics, 1, 1, start + 9_000_000), Ok(()));
        assert!(c.take(topics, 1, 1, start + 9_059_999).is_err());
        assert!(c.take(topics, 1, 1, start + 9_060_000).is_ok());
    }
}
