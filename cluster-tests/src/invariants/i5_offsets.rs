//! I5: offsets of a queue are contiguous from minimum to maximum and assigned once; the maximum
//! never goes back for what consumers saw (but for the unsynced tail of a power loss).

use super::Checker;
use crate::seen::{Answer, End, Seen};
use std::collections::{BTreeMap, BTreeSet};
use troupemq::model::QueueKey;

/// See the module text.
#[derive(Default)]
pub struct Offsets {
    sync: BTreeSet<u64>,
    /// uid and log index by offset.
    queues: BTreeMap<QueueKey, Vec<(u64, u64)>>,
    /// Told to producers: uid and log index by queue and offset.
    promised: BTreeMap<(QueueKey, u64), (u64, u64)>,
    homes: BTreeMap<u64, QueueKey>,
    deleted: BTreeSet<u32>,
}

impl Checker for Offsets {
    fn id(&self) -> &'static str {
        "I5"
    }

    fn see(&mut self, seen: &Seen) -> Result<(), String> {
        match seen {
            Seen::Sent { uid, key, sync, .. } => {
                self.homes.insert(*uid, *key);
                if *sync {
                    self.sync.insert(*uid);
                }
            }
            Seen::Acked {
                uid,
                at,
                offset: Some(offset),
            } => {
                let Some(key) = self.homes.get(uid).copied() else {
                    return Ok(());
                };
                if let Some((other, _)) = self.promised.insert((key, *offset), (*uid, at.index)) {
                    if other != *uid {
                        return Err(format!(
                            "{key:?} offset {offset} was given to messages {other} and {uid}"
                        ));
                    }
                }
                let shown = self.queues.get(&key).and_then(|q| q.get(*offset as usize));
                if let Some((other, _)) = shown.filter(|(other, _)| other != uid) {
                    return Err(format!(
                        "{key:?} offset {offset} is told to message {uid} and holds {other}"
                    ));
                }
            }
            Seen::Visible {
                key,
                offset,
                uid,
                at,
                ..
            } => return self.visible(*key, *offset, *uid, at.index),
            Seen::TopicDeleted { id } => {
                self.deleted.insert(*id);
            }
            Seen::Crashed { power, last } => return self.crashed(*power, *last),
            Seen::Serving(state) => {
                for (key, min, max) in &state.queues {
                    let known = self.queues.get(key).map_or(0, Vec::len) as u64;
                    if *max != known || min > max {
                        return Err(format!(
                            "{key:?} serves {min}..{max}, but {known} records were visible"
                        ));
                    }
                }
            }
            Seen::Read {
                key,
                offset,
                current,
                answer: Answer::Empty { max },
            } => {
                let end = self.queues.get(key).map_or(0, Vec::len) as u64;
                let gone = self.deleted.contains(&key.topic.0);
                if *max > end || offset < max || *current && *max != end && !gone {
                    return Err(format!(
                        "{key:?} ends at {end}, and a read at {offset} was told {max}"
                    ));
                }
            }
            Seen::Read {
                key,
                answer: Answer::Records(records),
                ..
            } => {
                let queue = self.queues.get(key).map_or(&[][..], Vec::as_slice);
                for (offset, uid, at) in records {
                    if queue.get(*offset as usize) != Some(&(*uid, at.index)) {
                        return Err(format!("a read of {key:?} gave message {uid} at {offset}"));
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, end: &End) -> Result<(), String> {
        for (key, records) in &end.content {
            let queue = self.queues.get(key).map_or(&[][..], Vec::as_slice);
            let bounds = end.state.queues.iter().find(|(k, _, _)| k == key);
            let (min, max) = bounds.map_or((0, 0), |(_, min, max)| (*min, *max));
            if !records.iter().map(|(offset, _)| *offset).eq(min..max) {
                return Err(format!("{key:?} holds other offsets than {min}..{max}"));
            }
            if max != queue.len() as u64 {
                return Err(format!(
                    "{key:?} ends at {max}, but {} records were visible",
                    queue.len()
                ));
            }
            for (offset, uid) in records {
                if queue.get(*offset as usize).map(|(u, _)| u) != Some(uid) {
                    return Err(format!(
                        "{key:?} offset {offset} holds message {uid} at the end"
                    ));
                }
            }
        }
        Ok(())
    }
}

impl Offsets {
    fn visible(&mut self, key: QueueKey, offset: u64, uid: u64, index: u64) -> Result<(), String> {
        if self.deleted.contains(&key.topic.0) {
            return Ok(());
        }
        let queue = self.queues.entry(key).or_default();
        match queue.get(offset as usize) {
            // A restart shows the end of the log again.
            Some(same) if *same == (uid, index) => return Ok(()),
            Some(other) => {
                return Err(format!(
                    "{key:?} offset {offset} held {other:?} and holds message {uid} of {index} now"
                ))
            }
            None if offset != queue.len() as u64 => {
                return Err(format!("{key:?} jumps from {} to {offset}", queue.len()))
            }
            None => queue.push((uid, index)),
        }
        if let Some((other, _)) = self
            .promised
            .get(&(key, offset))
            .filter(|(other, _)| *other != uid)
        {
            return Err(format!(
                "{key:?} offset {offset} was told to message {other} and holds {uid}"
            ));
        }
        if self.homes.get(&uid) != Some(&key) {
            return Err(format!(
                "message {uid} is in {key:?}, where it was not sent"
            ));
        }
        Ok(())
    }

    fn crashed(&mut self, power: bool, last: u64) -> Result<(), String> {
        for (key, queue) in &mut self.queues {
            let keep = queue.partition_point(|(_, index)| *index <= last);
            for (uid, index) in queue.drain(keep..) {
                if self.deleted.contains(&key.topic.0) {
                    continue;
                }
                if !power || self.sync.contains(&uid) {
                    return Err(format!(
                        "{key:?}: visible message {uid} of log index {index} went back"
                    ));
                }
            }
        }
        self.promised.retain(|_, (_, index)| *index <= last);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::histories::*;
    use super::*;

    #[test]
    fn gaps_second_owners_and_steps_back_are_seen() {
        let bad = |history: &[Seen]| judge(&mut Offsets::default(), history, None).is_some();
        let (one, two) = (sent(1, true), sent(2, false));
        assert!(!bad(&[
            one.clone(),
            two.clone(),
            visible(1, 5, 0),
            visible(2, 5, 1),
            acked(1, 5, 0),
            visible(1, 5, 0)
        ]));
        assert!(bad(&[one.clone(), visible(1, 5, 1)]), "gap");
        assert!(
            bad(&[one.clone(), two.clone(), visible(1, 5, 0), visible(2, 6, 0)]),
            "reused"
        );
        assert!(
            bad(&[one.clone(), two.clone(), acked(1, 5, 0), acked(2, 6, 0)]),
            "promised twice"
        );
        assert!(
            bad(&[one.clone(), two.clone(), acked(1, 5, 0), visible(2, 5, 0)]),
            "promised to another"
        );
        let crash = |power| Seen::Crashed { power, last: 4 };
        assert!(
            bad(&[one.clone(), visible(1, 5, 0), crash(true)]),
            "synced and visible"
        );
        assert!(bad(&[two.clone(), visible(2, 5, 0), crash(false)]), "kill");
        assert!(!bad(&[
            one,
            two.clone(),
            visible(2, 5, 0),
            crash(true),
            visible(1, 5, 0)
        ]));
        let told = |current, max| Seen::Read {
            key: KEY,
            offset: max,
            current,
            answer: Answer::Empty { max },
        };
        let shown = |read| bad(&[two.clone(), visible(2, 5, 0), read]);
        assert!(!shown(told(true, 1)) && !shown(told(false, 0)));
        assert!(shown(told(true, 0)), "less than there is");
        assert!(shown(told(false, 2)), "more than there is");
        let other = Answer::Records(vec![(0, 7, at(5))]);
        assert!(shown(Seen::Read {
            key: KEY,
            offset: 0,
            current: false,
            answer: other
        }));
        assert!(judge(
            &mut Offsets::default(),
            &[two, visible(2, 5, 0)],
            Some(&end(0, 0, &[]))
        )
        .is_some());
    }
}
