//! I2: the committed log: the same index means the same term and bytes on every member, for ever.

use super::Checker;
use crate::seen::Seen;
use std::collections::BTreeMap;

/// See the module text.
#[derive(Default)]
pub struct CommittedLog {
    /// Term and checksum by index.
    log: BTreeMap<u64, (u64, u32)>,
}

impl Checker for CommittedLog {
    fn id(&self) -> &'static str {
        "I2"
    }

    fn see(&mut self, seen: &Seen) -> Result<(), String> {
        if let Seen::Crashed { last, .. } = seen {
            self.log.split_off(&(last + 1));
        }
        let Seen::Committed {
            node,
            index,
            term,
            sum,
        } = seen
        else {
            return Ok(());
        };
        let before = index.checked_sub(1).and_then(|i| self.log.get(&i));
        if before.is_some_and(|(older, _)| older > term) {
            return Err(format!(
                "entry {index} is of an earlier term than the one before"
            ));
        }
        let known = self.log.entry(*index).or_insert((*term, *sum));
        if *known != (*term, *sum) {
            return Err(format!(
                "node {node} committed entry {index} of term {term} with {sum:x}, others {known:x?}"
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::histories::judge;
    use super::*;

    #[test]
    fn two_entries_at_one_index_are_seen() {
        let entry = |node, index, term, sum| Seen::Committed {
            node,
            index,
            term,
            sum,
        };
        let run = |history: &[Seen]| judge(&mut CommittedLog::default(), history, None);
        let base = [entry(0, 1, 1, 7), entry(1, 1, 1, 7), entry(0, 2, 3, 8)];
        assert!(run(&base).is_none());
        assert!(run(&[&base[..], &[entry(1, 2, 3, 9)]].concat()).is_some());
        assert!(run(&[&base[..], &[entry(1, 2, 2, 8)]].concat()).is_some());
        assert!(run(&[&base[..], &[entry(1, 3, 2, 1)]].concat()).is_some());
    }
}
