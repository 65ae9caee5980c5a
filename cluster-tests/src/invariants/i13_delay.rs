//! I13, in the part that one node can break: a delayed message is visible never before its time
//! and, once acked, exactly once after it. (That it is not there twice is I7's part.)

use super::Checker;
use crate::seen::{End, Seen};
use std::collections::{BTreeMap, BTreeSet};
use troupemq::model::QueueKey;

#[derive(Debug)]
struct Delayed {
    key: QueueKey,
    due_ms: i64,
    /// Log index of the ack.
    acked: Option<u64>,
    /// Log index where it became visible.
    visible: Option<u64>,
}

/// See the module text.
#[derive(Default)]
pub struct Delay {
    messages: BTreeMap<u64, Delayed>,
    clock_ms: i64,
    deleted: BTreeSet<u32>,
}

impl Checker for Delay {
    fn id(&self) -> &'static str {
        "I13"
    }

    fn see(&mut self, seen: &Seen) -> Result<(), String> {
        match seen {
            Seen::Sent {
                uid,
                key,
                due_ms: Some(due_ms),
                ..
            } => {
                let new = Delayed {
                    key: *key,
                    due_ms: *due_ms,
                    acked: None,
                    visible: None,
                };
                self.messages.insert(*uid, new);
            }
            Seen::Acked { uid, at, .. } => {
                if let Some(m) = self.messages.get_mut(uid) {
                    m.acked = Some(at.index);
                }
            }
            // The leader's clock may be set back: the latest it ever showed counts.
            Seen::Clock { now_ms } => self.clock_ms = self.clock_ms.max(*now_ms),
            Seen::Visible { uid, at, .. } => {
                let Some(m) = self.messages.get_mut(uid) else {
                    return Ok(());
                };
                m.visible = Some(at.index);
                if self.clock_ms < m.due_ms {
                    return Err(format!(
                        "message {uid} of {} is visible at {}",
                        m.due_ms, self.clock_ms
                    ));
                }
            }
            Seen::TopicDeleted { id } => {
                self.deleted.insert(*id);
            }
            Seen::Crashed { last, .. } => {
                for m in self.messages.values_mut() {
                    m.acked = m.acked.filter(|index| index <= last);
                    m.visible = m.visible.filter(|index| index <= last);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, end: &End) -> Result<(), String> {
        for (uid, m) in &self.messages {
            let gone =
                self.deleted.contains(&m.key.topic.0) || !end.state.topics.contains(&m.key.topic.0);
            if m.acked.is_some() && m.visible.is_none() && m.due_ms <= end.now_ms && !gone {
                return Err(format!(
                    "delayed message {uid} of {} never came; it is {}",
                    m.due_ms, end.now_ms
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::histories::*;
    use super::*;

    #[test]
    fn early_and_missing_messages_are_seen() {
        let clock = |now_ms| Seen::Clock { now_ms };
        let ack = Seen::Acked {
            uid: 1,
            at: at(3),
            offset: None,
        };
        let run = |history: &[Seen], end: &End| judge(&mut Delay::default(), history, Some(end));
        let done = End {
            now_ms: 200,
            ..end(0, 1, &[1])
        };
        assert!(run(
            &[delayed(1, 100), ack.clone(), clock(100), visible(1, 5, 0)],
            &done
        )
        .is_none());
        assert!(run(
            &[delayed(1, 100), ack.clone(), clock(99), visible(1, 5, 0)],
            &done
        )
        .is_some());
        assert!(run(&[delayed(1, 100), ack.clone(), clock(200)], &done).is_some());
        let lost = Seen::Crashed {
            power: true,
            last: 4,
        };
        assert!(
            run(
                &[delayed(1, 100), ack, clock(100), visible(1, 5, 0), lost],
                &done
            )
            .is_some(),
            "must fire again"
        );
    }
}
