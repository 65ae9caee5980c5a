//! I14: a message that fails is tried so often and no more, and ends as a dead letter: each copy that was told to
//! be stored is there exactly once, and only the last is a dead letter.

use super::Checker;
use crate::consumers::seen::GroupSeen;
use crate::seen::{End, Seen};
use std::collections::{BTreeMap, BTreeSet};
use troupemq::model::QueueKey;

struct Copy {
    tries: i32,
    dead: bool,
    /// Where it is: more than one place is too many.
    places: BTreeSet<(QueueKey, u64)>,
    told: bool,
    due_ms: Option<i64>,
}

/// What falls due so shortly before the end may not be there yet, ms.
const LATE_MS: i64 = 5_000;

/// See the module text.
pub struct DeadLetters {
    /// A failing message is tried so often again.
    most: i32,
    copies: BTreeMap<u64, Copy>,
}

impl DeadLetters {
    pub fn new(most: i32) -> Self {
        Self {
            most,
            copies: BTreeMap::new(),
        }
    }

    fn tries(&self, uid: u64) -> i32 {
        self.copies.get(&uid).map_or(0, |copy| copy.tries)
    }
}

impl Checker for DeadLetters {
    fn id(&self) -> &'static str {
        "I14"
    }

    fn see(&mut self, seen: &Seen) -> Result<(), String> {
        match seen {
            Seen::Group(GroupSeen::SentBack {
                of,
                copy,
                dead,
                due_ms,
            }) => {
                let before = self.tries(*of);
                if *dead != (before >= self.most) {
                    let what = if *dead { "is" } else { "is not" };
                    return Err(format!(
                        "message {of} failed after {before} tries, and {what} a dead letter"
                    ));
                }
                let copy_of = Copy {
                    tries: before + 1,
                    dead: *dead,
                    places: BTreeSet::new(),
                    told: false,
                    due_ms: *due_ms,
                };
                self.copies.insert(*copy, copy_of);
            }
            Seen::Group(GroupSeen::BackTold { copy }) => {
                if let Some(copy) = self.copies.get_mut(copy) {
                    copy.told = true;
                }
            }
            Seen::Group(GroupSeen::Delivered { uid, .. })
                if self.copies.get(uid).is_some_and(|copy| copy.dead) =>
            {
                return Err(format!("message {uid} is a dead letter, and is delivered"));
            }
            Seen::Visible {
                key, offset, uid, ..
            } => {
                let Some(copy) = self.copies.get_mut(uid) else {
                    return Ok(());
                };
                copy.places.insert((*key, *offset));
                if copy.places.len() > 1 {
                    return Err(format!("copy {uid} is there twice: {:?}", copy.places));
                }
            }
            // Of a node alone: what fell due may have been unsynced, and is written again.
            Seen::Crashed { .. } => {
                let unsure = self.copies.values_mut().filter(|copy| !copy.told);
                unsure.for_each(|copy| copy.places.clear());
            }
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, end: &End) -> Result<(), String> {
        // A leader that heard nobody's clock yet goes by its own, which may be far ahead.
        let is_due = |copy: &Copy| copy.due_ms.is_none_or(|due| due < end.now_ms - LATE_MS);
        let lost = |copy: &Copy| copy.told && copy.places.is_empty() && is_due(copy);
        match self.copies.iter().find(|(_, copy)| lost(copy)) {
            Some((uid, _)) => Err(format!(
                "copy {uid} of a failed message was told to be stored, and is nowhere"
            )),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::histories::{judge, visible};
    use super::*;

    #[test]
    fn copies_that_are_lost_doubled_or_tried_for_ever_are_seen() {
        let end = End {
            now_ms: 10_000,
            ..End::default()
        };
        let run = |history: &[Seen]| judge(&mut DeadLetters::new(1), history, Some(&end));
        let back = |of, copy, dead: bool| {
            let due_ms = (!dead).then_some(4_999);
            Seen::Group(GroupSeen::SentBack {
                of,
                copy,
                dead,
                due_ms,
            })
        };
        let told = |copy| Seen::Group(GroupSeen::BackTold { copy });
        let got = |uid| Seen::Group(GroupSeen::Delivered { group: 0, uid });
        let good = [
            back(1, 2, false),
            visible(2, 5, 0),
            told(2),
            got(2),
            back(2, 3, true),
            visible(3, 6, 1),
            told(3),
        ];
        assert!(run(&good).is_none());
        assert!(run(&[&good[..], &[got(3)]].concat()).is_some());
        assert!(run(&[&good[..], &[visible(3, 7, 2)]].concat()).is_some());
        assert!(run(&[back(1, 2, false), told(2)]).is_some(), "lost");
        assert!(run(&[back(1, 2, false)]).is_none(), "not told");
        assert!(run(&[back(1, 2, true)]).is_some(), "too early");
        assert!(run(&[back(1, 2, false), back(2, 3, false)]).is_some());
    }
}
