//! I7: a proposal is applied at most once, and what was refused did not happen (I21).

use super::Checker;
use crate::seen::{End, Seen};
use std::collections::{BTreeMap, BTreeSet};
use troupemq::model::QueueKey;

/// See the module text.
#[derive(Default)]
pub struct Once {
    places: BTreeMap<u64, (QueueKey, u64, u64)>,
    refused: BTreeSet<u64>,
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
            Seen::Refused { uid } => {
                self.refused.insert(*uid);
                if let Some(place) = self.places.get(uid) {
                    return Err(format!("message {uid} was refused, but is at {place:?}"));
                }
            }
            Seen::Visible {
                key,
                offset,
                uid,
                at,
                ..
            } => {
                if self.refused.contains(uid) {
                    return Err(format!(
                        "message {uid} was refused, but appears in {key:?} at {offset}"
                    ));
                }
                let place = (*key, *offset, at.index);
                if let Some(other) = self
                    .places
                    .insert(*uid, place)
                    .filter(|other| *other != place)
                {
                    return Err(format!("message {uid} is at {other:?} and at {place:?}"));
                }
            }
            Seen::Crashed { last, .. } => self.places.retain(|_, place| place.2 <= *last),
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, end: &End) -> Result<(), String> {
        let mut found = BTreeSet::new();
        for (key, records) in &end.content {
            for (offset, uid) in records {
                if !found.insert(*uid) {
                    return Err(format!(
                        "message {uid} is stored twice, again in {key:?} at {offset}"
                    ));
                }
                if self.refused.contains(uid) {
                    return Err(format!("message {uid} was refused, but is stored"));
                }
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
}
