//! I1: no acked message is lost. A process kill loses nothing that was acked in any class; a
//! power loss may take unsynced messages of the asynchronous class, as a contiguous tail. Topics
//! (metadata) are never lost.

use super::Checker;
use crate::seen::{End, Seen};
use std::collections::{BTreeMap, BTreeSet};
use troupemq::model::{Position, QueueKey};

#[derive(Debug)]
struct Message {
    key: QueueKey,
    sync: bool,
    delayed: bool,
    acked: Option<(Position, Option<u64>)>,
}

/// See the module text.
#[derive(Default)]
pub struct NoAckedLost {
    messages: BTreeMap<u64, Message>,
    /// Acked and not yet covered by an earlier crash check, by log index.
    by_index: BTreeSet<(u64, u64)>,
    /// Where delayed messages became visible.
    fired: BTreeMap<u64, (u64, u64)>,
    topics: BTreeMap<u32, String>,
    /// Names: a delete may hit a topic that was created again meanwhile.
    delete_asked: BTreeSet<String>,
    deleted: BTreeSet<u32>,
}

impl Checker for NoAckedLost {
    fn id(&self) -> &'static str {
        "I1"
    }

    fn see(&mut self, seen: &Seen) -> Result<(), String> {
        match seen {
            Seen::Sent {
                uid,
                key,
                sync,
                due_ms,
                ..
            } => {
                let delayed = due_ms.is_some();
                self.messages.insert(
                    *uid,
                    Message {
                        key: *key,
                        sync: *sync,
                        delayed,
                        acked: None,
                    },
                );
            }
            Seen::Acked { uid, at, offset } => {
                let Some(m) = self.messages.get_mut(uid) else {
                    return Err(format!("message {uid} acked but never sent"));
                };
                m.acked = Some((*at, *offset));
                self.by_index.insert((at.index, *uid));
            }
            Seen::Visible {
                uid, offset, at, ..
            } if self.messages.get(uid).is_some_and(|m| m.delayed) => {
                self.fired.insert(*uid, (*offset, at.index));
            }
            Seen::Topic { id, name } => {
                self.topics.insert(*id, name.clone());
            }
            Seen::DeleteAsked { name } => {
                self.delete_asked.insert(name.clone());
            }
            Seen::TopicDeleted { id } => {
                self.deleted.insert(*id);
            }
            Seen::Crashed { power, last } => return self.crashed(*power, *last),
            Seen::Serving(state) => {
                for (id, name) in &self.topics {
                    if state.topics.contains(id) {
                        continue;
                    }
                    if !self.delete_asked.contains(name) {
                        return Err(format!("topic {id} ({name}) is lost"));
                    }
                    self.deleted.insert(*id);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, end: &End) -> Result<(), String> {
        let bounds: BTreeMap<_, _> = end
            .state
            .queues
            .iter()
            .map(|(k, min, max)| (*k, (*min, *max)))
            .collect();
        // One that was sent again may be there more than once.
        let mut found: BTreeMap<u64, Vec<(QueueKey, u64)>> = BTreeMap::new();
        for (key, records) in &end.content {
            for (offset, uid) in records {
                found.entry(*uid).or_default().push((*key, *offset));
            }
        }
        for (uid, m) in &self.messages {
            let Some((_, offset)) = m.acked else { continue };
            if self.deleted.contains(&m.key.topic.0) || !end.state.topics.contains(&m.key.topic.0) {
                continue;
            }
            let offset = offset.or(self.fired.get(uid).map(|(offset, _)| *offset));
            let Some(offset) = offset else {
                // Whether it is due is the delay checker's question.
                continue;
            };
            let min = bounds.get(&m.key).map_or(0, |(min, _)| *min);
            if offset < min {
                continue;
            }
            match found.get(uid) {
                Some(places) if places.contains(&(m.key, offset)) => {}
                Some(places) => {
                    return Err(format!("message {uid} acked at {offset} is at {places:?}"))
                }
                None => {
                    return Err(format!(
                        "acked message {uid} is lost: {:?} offset {offset}",
                        m.key
                    ))
                }
            }
        }
        Ok(())
    }
}

impl NoAckedLost {
    fn crashed(&mut self, power: bool, last: u64) -> Result<(), String> {
        for (index, uid) in self.by_index.split_off(&(last + 1, 0)) {
            let Some(m) = self.messages.get_mut(&uid) else {
                continue;
            };
            if !power {
                return Err(format!("message {uid}, acked at log index {index}, is gone after a kill: log ends at {last}"));
            }
            if m.sync {
                return Err(format!("message {uid}, acked as synced at {index}, is gone after a power loss: log ends at {last}"));
            }
            m.acked = None;
        }
        self.fired.retain(|_, (_, index)| *index <= last);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::histories::*;
    use super::*;

    #[test]
    fn a_lost_message_is_seen_and_an_excused_one_is_not() {
        let power = Seen::Crashed {
            power: true,
            last: 4,
        };
        let kill = Seen::Crashed {
            power: false,
            last: 4,
        };
        let run = |sync, crash: &Seen| {
            judge(
                &mut NoAckedLost::default(),
                &[sent(1, sync), acked(1, 5, 0), crash.clone()],
                None,
            )
        };
        assert!(run(true, &power).is_some());
        assert!(run(false, &power).is_none());
        assert!(run(false, &kill).is_some());
        let history = [sent(1, true), acked(1, 5, 0)];
        assert!(judge(
            &mut NoAckedLost::default(),
            &history,
            Some(&end(0, 1, &[1]))
        )
        .is_none());
        assert!(judge(&mut NoAckedLost::default(), &history, Some(&end(0, 0, &[]))).is_some());
        assert!(judge(
            &mut NoAckedLost::default(),
            &history,
            Some(&end(0, 1, &[2]))
        )
        .is_some());
        assert!(
            judge(&mut NoAckedLost::default(), &history, Some(&end(1, 1, &[]))).is_none(),
            "expired"
        );
    }

    #[test]
    fn of_a_message_that_was_sent_again_the_answered_one_is_there() {
        let history = [sent(1, true), acked(1, 6, 1)];
        let run = |uids: &[u64]| {
            let end = end(0, uids.len() as u64, uids);
            judge(&mut NoAckedLost::default(), &history, Some(&end))
        };
        assert_eq!(run(&[1, 1]), None);
        assert!(run(&[1]).is_some(), "only the one nobody answered");
        assert!(run(&[1, 2, 1]).is_some());
    }

    #[test]
    fn a_topic_does_not_vanish() {
        let topic = Seen::Topic {
            id: 1,
            name: "t".into(),
        };
        let gone = Seen::Serving(Default::default());
        assert!(judge(
            &mut NoAckedLost::default(),
            &[topic.clone(), gone.clone()],
            None
        )
        .is_some());
        let asked = [topic.clone(), Seen::DeleteAsked { name: "t".into() }, gone];
        assert!(judge(&mut NoAckedLost::default(), &asked, None).is_none());
    }
}
