//! Quotas on what clients make a shard keep, and the refusals they lead to.

/// A quota. Each but the last five is a setting by which the leader of a shard goes; the last five
/// hold for one connection and one minute, where the request is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum QuotaKind {
    /// Topics of the shard.
    Topics,
    /// Topics of the shard, for a topic that a send would create.
    AutoTopics,
    /// Consumer groups of the shard, deleted ones whose offsets are kept included.
    Groups,
    /// Consumer groups of the shard, for a group that a consumer would create by its first request.
    AutoGroups,
    /// Delayed messages that wait.
    Delayed,
    /// Offsets and locks that groups hold.
    Offsets,
    /// Memory of all that, as estimated.
    StateBytes,
    /// Topics that operators' requests created.
    ConnectionTopics,
    /// Topics that sends created.
    ConnectionAutoTopics,
    /// Groups that operators' requests created.
    ConnectionGroups,
    /// Groups that consumers' first requests created.
    ConnectionAutoGroups,
    /// Delayed messages that producers sent.
    ConnectionDelayed,
}

impl QuotaKind {
    /// All of them, in the order of their numbers.
    pub const ALL: [QuotaKind; 12] = [
        QuotaKind::Topics,
        QuotaKind::AutoTopics,
        QuotaKind::Groups,
        QuotaKind::AutoGroups,
        QuotaKind::Delayed,
        QuotaKind::Offsets,
        QuotaKind::StateBytes,
        QuotaKind::ConnectionTopics,
        QuotaKind::ConnectionAutoTopics,
        QuotaKind::ConnectionGroups,
        QuotaKind::ConnectionAutoGroups,
        QuotaKind::ConnectionDelayed,
    ];

    /// Its name in the configuration.
    pub fn setting(self) -> &'static str {
        match self {
            QuotaKind::Topics => "max_topics",
            QuotaKind::AutoTopics => "auto_create_max_topics",
            QuotaKind::Groups => "max_groups",
            QuotaKind::AutoGroups => "auto_create_max_groups",
            QuotaKind::Delayed => "max_delayed_messages",
            QuotaKind::Offsets => "max_group_offsets",
            QuotaKind::StateBytes => "max_state_bytes",
            QuotaKind::ConnectionTopics => "connection_topics_per_minute",
            QuotaKind::ConnectionAutoTopics => "connection_auto_topics_per_minute",
            QuotaKind::ConnectionGroups => "connection_groups_per_minute",
            QuotaKind::ConnectionAutoGroups => "connection_auto_groups_per_minute",
            QuotaKind::ConnectionDelayed => "connection_delayed_messages_per_minute",
        }
    }

    fn what(self) -> &'static str {
        match self {
            QuotaKind::Topics => "topics of this broker",
            QuotaKind::AutoTopics => "topics of this broker up to which sends create one",
            QuotaKind::Groups => "consumer groups of this broker",
            QuotaKind::AutoGroups => {
                "consumer groups of this broker up to which consumers create one"
            }
            QuotaKind::Delayed => "delayed messages that wait on this broker",
            QuotaKind::Offsets => "offsets and locks of consumer groups on this broker",
            QuotaKind::StateBytes => {
                "bytes of topics, groups, offsets and delayed messages of this broker"
            }
            QuotaKind::ConnectionTopics => {
                "topics that an operator's connection creates in a minute"
            }
            QuotaKind::ConnectionAutoTopics => {
                "topics that sends of one connection create in a minute"
            }
            QuotaKind::ConnectionGroups => {
                "consumer groups that an operator's connection creates in a minute"
            }
            QuotaKind::ConnectionAutoGroups => {
                "consumer groups that consumers of one connection create in a minute"
            }
            QuotaKind::ConnectionDelayed => {
                "delayed messages that one connection sends in a minute"
            }
        }
    }
}

/// A quota is used up: nothing happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the quota of {} is used up: {} = {limit}", kind.what(), kind.setting())]
pub struct QuotaExceeded {
    pub kind: QuotaKind,
    /// Its value.
    pub limit: u64,
}

impl QuotaKind {
    /// Refuses when `used` leaves no room for `more`.
    pub fn check(self, used: u64, more: u64, limit: u64) -> Result<(), QuotaExceeded> {
        match used.checked_add(more) {
            Some(sum) if sum <= limit => Ok(()),
            _ => Err(QuotaExceeded { kind: self, limit }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_quota_its_value_and_the_setting() {
        for (n, kind) in QuotaKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, n);
            assert_eq!(kind.check(6, 1, 7), Ok(()));
            let refusal = kind.check(7, 1, 7).unwrap_err().to_string();
            assert!(
                refusal.ends_with(&format!("{} = 7", kind.setting())),
                "{refusal}"
            );
            assert!(kind.check(u64::MAX, 1, u64::MAX).is_err());
        }
    }
}
