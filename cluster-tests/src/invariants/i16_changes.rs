//! I16 and I21 of metadata, offsets, locks and members: what was answered OK is made by the very entry
//! that the answer names, once, and stays; what was refused is made by none.

use super::Checker;
use crate::seen::Seen;
use std::collections::{BTreeMap, BTreeSet};

/// See the module text.
#[derive(Default)]
pub struct Changes {
    asked: BTreeMap<u64, String>,
    /// Requests answered OK, by the entry named.
    done: BTreeMap<u64, Vec<u64>>,
    refused: BTreeSet<u64>,
    /// By log index.
    made: BTreeMap<u64, Vec<String>>,
    /// How often each was asked for and not refused, less how often it was made.
    open: BTreeMap<String, i64>,
}

impl Changes {
    fn count(&mut self, change: &str, by: i64) -> Result<(), String> {
        let left = self.open.entry(change.to_owned()).or_default();
        *left += by;
        match *left < 0 {
            true => Err(format!(
                "made more often than asked for and not refused: {change}"
            )),
            false => Ok(()),
        }
    }

    fn done(&mut self, id: u64, index: u64) -> Result<(), String> {
        let Some(change) = self.asked.get(&id) else {
            return Err(format!("request {id} is done, and nobody asked for it"));
        };
        let same = |changes: &Vec<String>| changes.iter().filter(|c| *c == change).count();
        let made = self.made.get(&index).map_or(0, same);
        let done = self.done.entry(index).or_default();
        let others = done
            .iter()
            .filter(|other| self.asked.get(*other) == Some(change));
        if made <= others.count() {
            return Err(format!(
                "request {id} was told to be done by entry {index}, which does not: {change}"
            ));
        }
        done.push(id);
        Ok(())
    }
}

impl Checker for Changes {
    fn id(&self) -> &'static str {
        "I16"
    }

    fn see(&mut self, seen: &Seen) -> Result<(), String> {
        match seen {
            Seen::Asked { id, change } => {
                self.asked.insert(*id, change.clone());
                self.count(change, 1)?;
            }
            Seen::Done { id, index } => return self.done(*id, *index),
            Seen::NotDone { id } => {
                let change = self.asked.get(id).cloned();
                if let Some(change) = change.filter(|_| self.refused.insert(*id)) {
                    return self.count(&change, -1);
                }
            }
            Seen::Changes { index, changes } if !self.made.contains_key(index) => {
                self.made.insert(*index, changes.clone());
                for change in changes {
                    self.count(change, -1)?;
                }
            }
            // What is synced in every class.
            Seen::Crashed { last, .. } => {
                for (index, changes) in self.made.split_off(&(last + 1)) {
                    if let Some(ids) = self.done.get(&index).filter(|ids| !ids.is_empty()) {
                        return Err(format!(
                            "requests {ids:?} were done, and entry {index} is lost"
                        ));
                    }
                    for change in changes {
                        self.count(&change, 1)?;
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::histories::judge;
    use super::*;

    #[test]
    fn answers_that_are_not_true_are_seen() {
        let run = |history: &[Seen]| judge(&mut Changes::default(), history, None);
        let asked = |id| Seen::Asked {
            id,
            change: "a".into(),
        };
        let done = |id, index| Seen::Done { id, index };
        let not = |id| Seen::NotDone { id };
        let made = |index, changes: &[&str]| Seen::Changes {
            index,
            changes: changes.iter().map(|c| (*c).to_owned()).collect(),
        };
        assert!(
            run(&[asked(1), made(5, &["b", "a"]), done(1, 5)]).is_some(),
            "b"
        );
        assert!(run(&[asked(1), made(5, &["a"]), done(1, 5)]).is_none());
        assert!(
            run(&[asked(1), done(1, 5), made(5, &["a"])]).is_some(),
            "early"
        );
        assert!(
            run(&[asked(1), made(4, &["a"]), done(1, 5)]).is_some(),
            "another"
        );
        assert!(
            run(&[asked(1), made(5, &["a"]), not(1)]).is_some(),
            "refused"
        );
        assert!(
            run(&[asked(1), not(1), made(5, &["a"])]).is_some(),
            "refused"
        );
        let two = [asked(1), asked(2), made(5, &["a"])];
        assert!(run(&[&two[..], &[done(1, 5), not(2)]].concat()).is_none());
        assert!(
            run(&[&two[..], &[done(1, 5), done(2, 5)]].concat()).is_some(),
            "one"
        );
        assert!(
            run(&[asked(1), made(5, &["a"]), made(6, &["a"])]).is_some(),
            "twice"
        );
        let crash = |last| Seen::Crashed { power: true, last };
        let one = [asked(1), made(5, &["a"])];
        assert!(run(&[&one[..], &[crash(4), made(5, &["a"])]].concat()).is_none());
        assert!(
            run(&[&one[..], &[done(1, 5), crash(4)]].concat()).is_some(),
            "lost"
        );
        assert!(run(&[&one[..], &[done(1, 5), crash(5)]].concat()).is_none());
    }
}
