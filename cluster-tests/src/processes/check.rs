//! Checks a history of acknowledged messages against what the queues hold.

use super::load::Acked;
use std::collections::{BTreeMap, BTreeSet};

/// (shard, queue) → messages in the order of their offsets, from the first offset on.
pub type Stored = BTreeMap<(usize, i32), (i64, Vec<Option<(u32, u32)>>)>;

/// What was found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    pub acked: usize,
    /// Acknowledged and not where it was said to be.
    pub lost: Vec<Acked>,
    /// Stored more often than once.
    pub duplicated: usize,
    /// Acknowledged one after the other by one producer to one queue, stored the other way.
    pub reordered: usize,
    /// Stored bytes that nobody sent.
    pub foreign: usize,
    /// One place for two acknowledged messages.
    pub shared: usize,
}

impl Verdict {
    /// Nothing acknowledged was lost, changed or reordered.
    pub fn passed(&self) -> bool {
        self.lost.is_empty() && self.reordered == 0 && self.foreign == 0 && self.shared == 0
    }
}

/// See the module text. `acked` is in the order of the acknowledgements of each producer.
pub fn check(acked: &[Acked], stored: &Stored) -> Verdict {
    let mut verdict = Verdict {
        acked: acked.len(),
        ..Verdict::default()
    };
    let mut counts: BTreeMap<(u32, u32), usize> = BTreeMap::new();
    for (_, messages) in stored.values() {
        for message in messages {
            match message {
                Some(id) => *counts.entry(*id).or_default() += 1,
                None => verdict.foreign += 1,
            }
        }
    }
    verdict.duplicated = counts.values().filter(|n| **n > 1).count();
    let mut places = BTreeSet::new();
    let mut last: BTreeMap<(u32, usize, i32), i64> = BTreeMap::new();
    for ack in acked {
        let key = (ack.shard, ack.queue);
        let found = stored.get(&key).and_then(|(first, messages)| {
            let at = usize::try_from(ack.offset.checked_sub(*first)?).ok()?;
            messages.get(at).copied().flatten()
        });
        if found != Some(ack.id) {
            verdict.lost.push(ack.clone());
        }
        if !places.insert((key, ack.offset)) {
            verdict.shared += 1;
        }
        let before = last.insert((ack.id.0, ack.shard, ack.queue), ack.offset);
        if before.is_some_and(|before| before >= ack.offset) {
            verdict.reordered += 1;
        }
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ack(id: (u32, u32), offset: i64) -> Acked {
        Acked {
            shard: 0,
            queue: 1,
            offset,
            id,
        }
    }

    fn stored(ids: &[(u32, u32)]) -> Stored {
        let ids = ids.iter().map(|id| Some(*id)).collect();
        BTreeMap::from([((0, 1), (0, ids))])
    }

    #[test]
    fn a_good_history_passes_even_with_a_duplicate() {
        let found = check(
            &[ack((1, 0), 0), ack((1, 1), 2)],
            &stored(&[(1, 0), (1, 1), (1, 1)]),
        );
        assert!(found.passed());
        assert_eq!((found.acked, found.duplicated), (2, 1));
    }

    #[test]
    fn bad_histories_are_told_apart() {
        let both = stored(&[(1, 0), (1, 1)]);
        let lost = check(&[ack((1, 0), 0), ack((1, 7), 1)], &both);
        assert_eq!((lost.lost.len(), lost.passed()), (1, false));
        let beyond = check(&[ack((1, 0), 5)], &both);
        assert_eq!(beyond.lost.len(), 1);
        let elsewhere = Acked {
            shard: 2,
            ..ack((1, 0), 0)
        };
        assert_eq!(check(&[elsewhere], &both).lost.len(), 1);
        let back = check(&[ack((1, 1), 1), ack((1, 0), 0)], &both);
        assert_eq!((back.reordered, back.passed()), (1, false));
        let twice = check(&[ack((1, 0), 0), ack((2, 0), 0)], &both);
        assert_eq!((twice.shared, twice.lost.len()), (1, 1));
        let mut changed = both;
        if let Some((_, messages)) = changed.get_mut(&(0, 1)) {
            messages.push(None);
        }
        assert!(!check(&[], &changed).passed());
    }
}
