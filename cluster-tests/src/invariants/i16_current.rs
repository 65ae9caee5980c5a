//! I16 of reads: whoever answers from memory has all that anybody was told to be done, and nobody serves
//! in a later term.

use super::Checker;
use crate::seen::{Claim, Seen};

/// See the module text.
#[derive(Default)]
pub struct Current {
    /// The last entry of which somebody was told that it is done.
    told: u64,
}

impl Checker for Current {
    fn id(&self) -> &'static str {
        "I16"
    }

    fn see(&mut self, seen: &Seen) -> Result<(), String> {
        match seen {
            Seen::Acked { at, .. } => self.told = self.told.max(at.index),
            Seen::Done { index, .. } => self.told = self.told.max(*index),
            Seen::Crashed { last, .. } => self.told = self.told.min(*last),
            Seen::Claims(claims) => {
                for claim in claims.iter().filter(|c| c.lease) {
                    self.holds(claim, claims)?;
                }
            }
            _ => {}
        }
        Ok(())
    }
}

impl Current {
    fn holds(&self, claim: &Claim, all: &[Claim]) -> Result<(), String> {
        // One that was stopped may come to serve in a term that is over: what it says rests on a lease or
        // the log of its own.
        if let Some(other) = all.iter().find(|c| c.term > claim.term) {
            return Err(format!(
                "node {} serves while node {} may answer from memory",
                other.node, claim.node
            ));
        }
        if claim.applied < self.told {
            return Err(format!(
                "node {} answers from memory, has applied {}, and {} was done",
                claim.node, claim.applied, self.told
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::histories::{acked, judge};
    use super::*;

    #[test]
    fn two_that_answer_and_one_that_is_behind_are_seen() {
        let claim = |node, term, lease, applied| Claim {
            node,
            term,
            lease,
            applied,
        };
        let run = |history: &[Seen]| judge(&mut Current::default(), history, None);
        let claims = |all: &[Claim]| Seen::Claims(all.to_vec());
        assert!(run(&[claims(&[claim(0, 1, false, 1), claim(1, 2, true, 1)])]).is_none());
        assert!(run(&[claims(&[claim(0, 1, true, 1), claim(1, 2, false, 1)])]).is_some());
        let done = Seen::Done { id: 1, index: 6 };
        let behind = claims(&[claim(0, 1, true, 5)]);
        let without = claims(&[claim(0, 1, false, 5)]);
        assert!(run(&[acked(1, 5, 0), behind.clone()]).is_none());
        assert!(run(&[acked(1, 6, 0), behind.clone()]).is_some());
        assert!(run(&[done.clone(), behind]).is_some());
        assert!(run(&[done, without]).is_none(), "it asks the others first");
    }
}
