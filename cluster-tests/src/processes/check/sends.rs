//! What was acknowledged is there, once, where it was said to be, and in order (I1, I5, I6, I7,
//! I18, I21).

use super::{index, Findings, Stored};
use crate::processes::history::{Answer, Id, Place, Sent, DELAYED};
use std::collections::{BTreeMap, BTreeSet};

/// Codes that say: this was not done. All others leave it open.
const DEFINITE: [i32; 5] = [
    2,  // SYSTEM_BUSY
    13, // MESSAGE_ILLEGAL
    14, // SERVICE_NOT_AVAILABLE
    16, // NO_PERMISSION
    17, // TOPIC_NOT_EXIST
];

/// Lost, moved, shared, foreign, more copies than attempts, refused and yet stored. The second
/// value is the number of messages stored more often than once, which retries may do.
pub fn sends(sent: &[Sent], stored: &Stored) -> (Findings, usize) {
    let mut out = Findings::default();
    let mut content: BTreeMap<(Place, i64), Option<Id>> = BTreeMap::new();
    for (place, queue) in stored {
        for (offset, id) in &queue.messages {
            content.insert((*place, *offset), *id);
            if id.is_none() {
                out.add("foreign", || format!("{place:?} offset {offset}"));
            }
        }
    }
    let index = index(stored);
    // How often each message may be stored, and whether it must not be at all.
    let mut attempts: BTreeMap<Id, (usize, bool)> = BTreeMap::new();
    let mut places = BTreeSet::new();
    for s in sent {
        let (count, only_refused) = attempts.entry(s.id).or_insert((0, true));
        match s.answer {
            Answer::NotSent => {}
            Answer::Refused(code) if DEFINITE.contains(&code) => {}
            Answer::Refused(_) | Answer::Unknown => {
                *count += 1;
                *only_refused = false;
            }
            Answer::Acked(offset) => {
                *count += 1;
                *only_refused = false;
                if s.place.topic == DELAYED {
                    // The acknowledgement names a place where it waits.
                    if !index.contains_key(&s.id) {
                        out.add("delayed for ever", || format!("{s:?}"));
                    }
                    continue;
                }
                // Below the minimum retention has taken it: see `offsets::expired`.
                let min = stored.get(&s.place).map_or(0, |q| q.min);
                if offset >= min && content.get(&(s.place, offset)) != Some(&Some(s.id)) {
                    let kind = if index.contains_key(&s.id) {
                        "moved"
                    } else {
                        "lost"
                    };
                    out.add(kind, || format!("{s:?}"));
                }
                if !places.insert((s.place, offset)) {
                    out.add("shared", || format!("{s:?}"));
                }
            }
        }
    }
    let mut duplicated = 0;
    for (id, copies) in &index {
        match attempts.get(id) {
            None => out.add("foreign", || format!("{id:?} was never sent: {copies:?}")),
            Some((_, true)) => out.add("refused and stored", || format!("{id:?}: {copies:?}")),
            Some((attempts, _)) if copies.len() > *attempts => out.add("excess", || {
                format!("{id:?} sent {attempts} times: {copies:?}")
            }),
            Some(_) if copies.len() > 1 => duplicated += 1,
            Some(_) => {}
        }
    }
    (out, duplicated)
}

/// Two messages acknowledged one after the other, by one producer in one queue, are stored so.
pub fn order(sent: &[Sent]) -> Findings {
    let mut out = Findings::default();
    let mut queues: BTreeMap<(u32, Place), Vec<&Sent>> = BTreeMap::new();
    for s in sent {
        if matches!(s.answer, Answer::Acked(_)) && s.place.topic != DELAYED {
            queues.entry((s.id.0, s.place)).or_default().push(s);
        }
    }
    for acked in queues.values_mut() {
        // By their beginning; behind each the highest offset that was acknowledged before it.
        let mut by_end = acked.clone();
        by_end.sort_by_key(|s| s.end);
        acked.sort_by_key(|s| s.begin);
        let mut ended = by_end.into_iter().peekable();
        let mut highest: Option<(i64, &Sent)> = None;
        for s in acked {
            while let Some(before) = ended.next_if(|e| e.end < s.begin) {
                if let Answer::Acked(offset) = before.answer {
                    if highest.is_none_or(|(high, _)| high < offset) {
                        highest = Some((offset, before));
                    }
                }
            }
            if let (Answer::Acked(offset), Some((high, before))) = (s.answer, highest) {
                if high >= offset {
                    out.add("reordered", || format!("{before:?} before {s:?}"));
                }
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::*;
    use super::*;

    #[test]
    fn a_good_history_passes_even_with_a_duplicate() {
        let history = [
            acked((1, 0), 0),
            sent((1, 1), 10, Answer::Unknown),
            sent((1, 1), 20, Answer::Acked(2)),
            sent((1, 2), 30, Answer::Unknown),
            sent((1, 3), 40, Answer::Refused(14)),
            sent((1, 4), 50, Answer::NotSent),
        ];
        let (found, duplicated) = sends(&history, &stored(&[(1, 0), (1, 1), (1, 1)]));
        assert_eq!((found, duplicated), (Findings::default(), 1));
        assert!(order(&history).is_empty());
    }

    #[test]
    fn bad_histories_are_told_apart() {
        let both = stored(&[(1, 0), (1, 1)]);
        let known = [acked((1, 0), 0), acked((1, 1), 1)];
        let with = |more: &[Sent]| {
            let all: Vec<Sent> = known.iter().chain(more).cloned().collect();
            sends(&all, &both).0
        };
        assert_eq!(with(&[acked((1, 7), 5)]).summary(), "1 lost");
        assert_eq!(with(&[acked((1, 0), 9)]).summary(), "1 moved");
        let twice = with(&[acked((2, 0), 0)]);
        assert_eq!((twice.count("shared"), twice.count("lost")), (1, 1));
        let none = sends(&known[..1], &both).0;
        assert_eq!(none.summary(), "1 foreign");
        let refused = [known[0].clone(), sent((1, 1), 9, Answer::Refused(14))];
        assert_eq!(sends(&refused, &both).0.summary(), "1 refused and stored");
        let thrice = stored(&[(1, 0), (1, 1), (1, 1)]);
        assert_eq!(sends(&known, &thrice).0.summary(), "1 excess");
        let mut changed = both.clone();
        for queue in changed.values_mut() {
            queue.messages[1].1 = None;
        }
        let found = sends(&known, &changed).0;
        assert_eq!((found.count("foreign"), found.count("lost")), (1, 1));
    }

    #[test]
    fn what_retention_took_is_not_lost() {
        let history = [acked((1, 0), 0), acked((1, 1), 1)];
        let mut both = stored(&[(1, 0), (1, 1)]);
        for queue in both.values_mut() {
            queue.min = 1;
            queue.messages.remove(0);
        }
        assert!(sends(&history, &both).0.is_empty());
        both.values_mut().for_each(|q| q.min = 0);
        assert_eq!(sends(&history, &both).0.summary(), "1 lost");
    }

    #[test]
    fn delayed_messages_only_have_to_be_there() {
        let mut message = acked((1, 0), 77);
        message.place.topic = DELAYED;
        let one = [message];
        assert!(sends(&one, &stored(&[(1, 0)])).0.is_empty());
        assert_eq!(sends(&one, &stored(&[])).0.count("delayed for ever"), 1);
    }

    #[test]
    fn order_counts_only_what_follows_an_acknowledgement() {
        let at = |id, begin, offset| sent((1, id), begin, Answer::Acked(offset));
        assert_eq!(order(&[at(0, 0, 1), at(1, 10, 0)]).count("reordered"), 1);
        // At the same time: any order is fine.
        assert!(order(&[at(0, 0, 1), at(1, 3, 0)]).is_empty());
        let other = Sent {
            id: (2, 0),
            ..at(0, 10, 0)
        };
        assert!(order(&[at(0, 0, 1), other]).is_empty());
    }
}
