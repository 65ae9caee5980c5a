//! I7: a proposal is applied at most once, and what was refused did not happen (I21). A message that is
//! sent again as it was is there as often as it was sent at most, without the refused attempts.

use super::Checker;
use crate::seen::{End, Seen};
use std::collections::{BTreeMap, BTreeSet};
use troupemq::model::QueueKey;

/// See the module text.
#[derive(Default)]
pub struct Once {
    places: BTreeMap<u64, Vec<(QueueKey, u64, u64)>>,
    /// Attempts after the first, and those that were refused.
    again: BTreeMap<u64, usize>,
    refused: BTreeMap<u64, usize>,
    answered: BTreeSet<u64>,
}

impl Checker for Once {
    fn id(&self) -> &'static str {
        "I7"
    }

    fn see(&mut self, seen: &Seen) -> Result<(), String> {
        match seen {
            Seen::Acked { uid, .. }
            | Seen::AckedAlone { uid, .. }
            | Seen::Refused { uid }
            | Seen::Unknown { uid }
                if !self.answered.insert(*uid) =>
            {
                return Err(format!("message {uid} was answered twice"));
            }
            Seen::SentAgain { uid } => {
                *self.again.entry(*uid).or_default() += 1;
                self.answered.remove(uid);
            }
            Seen::Refused { uid } => {
                *self.refused.entry(*uid).or_default() += 1;
                let places = self.places.get(uid).map_or(&[][..], Vec::as_slice);
                if places.len() > self.most(*uid) {
                    return Err(format!("message {uid} was refused, but is at {places:?}"));
                }
            }
            Seen::Visible {
                key,
                offset,
                uid,
                at,
                ..
            } => {
                let most = self.most(*uid);
                if most == 0 {
                    return Err(format!(
                        "message {uid} was refused, but appears in {key:?} at {offset}"
                    ));
                }
                let place = (*key, *offset, at.index);
                let places = self.places.entry(*uid).or_default();
                if !places.contains(&place) {
                    places.push(place);
                }
                if places.len() > most {
                    return Err(format!("message {uid} is at {places:?}"));
                }
            }
            Seen::Crashed { last, .. } => {
                for places in self.places.values_mut() {
                    places.retain(|place| place.2 <= *last);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, end: &End) -> Result<(), String> {
        let mut found: BTreeMap<u64, usize> = BTreeMap::new();
        for (key, records) in &end.content {
            for (offset, uid) in records {
                let times = found.entry(*uid).or_default();
                *times += 1;
                match self.most(*uid) {
                    0 => return Err(format!("message {uid} was refused, but is stored")),
                    most if *times > most => {
                        return Err(format!(
                            "message {uid} is stored {times} times, again in {key:?} at {offset}"
                        ))
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

impl Once {
    /// How often a message may be there.
    fn most(&self, uid: u64) -> usize {
        let count = |of: &BTreeMap<u64, usize>| of.get(&uid).copied().unwrap_or(0);
        (1 + count(&self.again)).saturating_sub(count(&self.refused))
    }
}

#[cfg(test)]
mod tests {
    use super::super::histories::*;
    use super::*;

    #[test]
    fn duplicates_and_refused_messages_are_seen() {
        let run = |history: &[Seen]| judge(&mut Once::default(), history, None);
        assert!(run(&[sent(1, true), visible(1, 5, 0), visible(1, 5, 0)]).is_none());
        assert!(run(&[sent(1, true), visible(1, 5, 0), visible(1, 6, 1)]).is_some());
        let refused = Seen::Refused { uid: 1 };
        assert!(run(&[sent(1, true), refused.clone(), visible(1, 6, 1)]).is_some());
        assert!(run(&[sent(1, true), visible(1, 6, 1), refused.clone()]).is_some());
        assert!(run(&[sent(1, true), refused, acked(1, 5, 0)]).is_some());
        assert!(judge(&mut Once::default(), &[], Some(&end(0, 2, &[1, 1]))).is_some());
    }

    #[test]
    fn a_message_is_there_as_often_as_it_was_sent() {
        let (unknown, again) = (Seen::Unknown { uid: 1 }, Seen::SentAgain { uid: 1 });
        let twice = [sent(1, true), unknown, again.clone(), visible(1, 5, 0)];
        let run = |rest: &[Seen], stored: &[u64]| {
            let history = [&twice[..], rest].concat();
            let end = end(0, stored.len() as u64, stored);
            judge(&mut Once::default(), &history, Some(&end))
        };
        let refused = Seen::Refused { uid: 1 };
        let second = visible(1, 6, 1);
        assert_eq!(run(&[second.clone(), acked(1, 6, 1)], &[1, 1]), None);
        assert_eq!(
            run(std::slice::from_ref(&refused), &[1]),
            None,
            "the first attempt"
        );
        assert!(run(&[second.clone(), visible(1, 7, 2)], &[1]).is_some());
        assert!(run(&[], &[1, 1, 1]).is_some());
        assert!(run(&[refused.clone(), second.clone()], &[1]).is_some());
        assert!(run(&[second, refused], &[1]).is_some());
        let twice_answered = [acked(1, 5, 0), acked(1, 5, 0)];
        assert!(run(&twice_answered, &[1]).is_some());
        assert_eq!(run(&[again, acked(1, 5, 0)], &[1]), None);
    }
}
