//! I4: at most one leader per term, and its log holds all that was committed in earlier terms.

use super::Checker;
use crate::seen::Seen;
use std::collections::BTreeMap;

/// See the module text.
#[derive(Default)]
pub struct OneLeader {
    leaders: BTreeMap<u64, usize>,
}

impl Checker for OneLeader {
    fn id(&self) -> &'static str {
        "I4"
    }

    fn see(&mut self, seen: &Seen) -> Result<(), String> {
        if let Seen::Leads {
            node,
            term,
            complete,
        } = seen
        {
            let first = self.leaders.entry(*term).or_insert(*node);
            if first != node {
                return Err(format!("nodes {first} and {node} lead in term {term}"));
            }
            if !complete {
                return Err(format!(
                    "node {node} leads in term {term} without all that was committed"
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::histories::judge;
    use super::*;

    #[test]
    fn two_leaders_and_one_that_misses_entries_are_seen() {
        let leads = |node, term, complete| Seen::Leads {
            node,
            term,
            complete,
        };
        let run = |history: &[Seen]| judge(&mut OneLeader::default(), history, None);
        assert!(run(&[leads(0, 1, true), leads(1, 2, true), leads(1, 2, true)]).is_none());
        assert!(run(&[leads(0, 1, true), leads(1, 1, true)]).is_some());
        assert!(run(&[leads(0, 1, false)]).is_some());
    }
}
