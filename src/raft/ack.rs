//! The ack table: to which stage a pending reply waits, by durability class (design §3.4).

use crate::model::policy::{AckPolicy, FlushPolicy, MasterPolicy};

/// Stages an entry passes. "Appended" is the leader's own log; "committed" a majority's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// The leader's log write returned (synced when the entry asked for it).
    Appended,
    /// A majority holds it (each synced when the entry asked for it) and it was applied.
    Committed,
}

/// What one class asks of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AckRule {
    /// The reply waits for this stage.
    pub stage: Stage,
    /// The entry must be synced by every member counted.
    pub sync: bool,
}

/// The table of design §3.4 as data.
pub const TABLE: [((MasterPolicy, FlushPolicy), AckRule); 4] = [
    (
        (MasterPolicy::Async, FlushPolicy::Async),
        AckRule {
            stage: Stage::Appended,
            sync: false,
        },
    ),
    (
        (MasterPolicy::Async, FlushPolicy::Sync),
        AckRule {
            stage: Stage::Appended,
            sync: true,
        },
    ),
    (
        (MasterPolicy::Sync, FlushPolicy::Async),
        AckRule {
            stage: Stage::Committed,
            sync: false,
        },
    ),
    (
        (MasterPolicy::Sync, FlushPolicy::Sync),
        AckRule {
            stage: Stage::Committed,
            sync: true,
        },
    ),
];

/// The rule of a class.
pub fn rule(policy: AckPolicy) -> AckRule {
    let wants = (policy.master, policy.flush);
    let mut strictest = AckRule {
        stage: Stage::Committed,
        sync: true,
    };
    for (class, rule) in TABLE {
        if class == wants {
            strictest = rule;
        }
    }
    strictest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_class_waits_for_its_own_stage() {
        assert_eq!(
            rule(AckPolicy::STRICTEST),
            AckRule {
                stage: Stage::Committed,
                sync: true
            }
        );
        assert_eq!(
            rule(AckPolicy::LEADER_APPENDED),
            AckRule {
                stage: Stage::Appended,
                sync: false
            }
        );
        let mixed = AckPolicy {
            master: MasterPolicy::Async,
            flush: FlushPolicy::Sync,
        };
        assert_eq!(
            rule(mixed),
            AckRule {
                stage: Stage::Appended,
                sync: true
            }
        );
    }
}
