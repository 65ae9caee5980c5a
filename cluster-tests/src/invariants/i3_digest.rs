//! I3: after applying an entry every member has the same state.

use super::Checker;
use crate::seen::Seen;
use std::collections::BTreeMap;

/// See the module text.
#[derive(Default)]
pub struct SameState {
    digests: BTreeMap<u64, u64>,
}

impl Checker for SameState {
    fn id(&self) -> &'static str {
        "I3"
    }

    fn see(&mut self, seen: &Seen) -> Result<(), String> {
        if let Seen::Crashed { last, .. } = seen {
            self.digests.split_off(&(last + 1));
        }
        if let Seen::Digest { index, digest } = seen {
            let known = self.digests.entry(*index).or_insert(*digest);
            if known != digest {
                return Err(format!("two states after entry {index}"));
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
    fn another_state_after_the_same_entry_is_seen() {
        let digest = |index, digest| Seen::Digest { index, digest };
        let run = |history: &[Seen]| judge(&mut SameState::default(), history, None);
        assert!(run(&[digest(16, 1), digest(32, 2), digest(16, 1)]).is_none());
        assert!(run(&[digest(16, 1), digest(16, 2)]).is_some());
    }
}
