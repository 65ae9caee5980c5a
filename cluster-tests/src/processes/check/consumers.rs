//! Consumers get everything, in order, and their offsets never go back (I6, I8, I9).

use super::{Findings, Stored};
use crate::processes::history::{Place, Session};
use std::collections::BTreeMap;

/// The sessions of one queue are in the order of their lives. `complete` when consumers had the
/// time to read everything.
pub fn consumers(sessions: &[Session], stored: &Stored, complete: bool) -> Findings {
    let mut out = Findings::default();
    /// What is known of a queue's consumers so far.
    #[derive(Default)]
    struct Known {
        committed: i64,
        seen: i64,
    }
    let mut known: BTreeMap<Place, Known> = BTreeMap::new();
    for session in sessions {
        let place = session.place;
        let known = known.entry(place).or_default();
        let queue = stored.get(&place);
        let (min, max) = queue.map_or((0, 0), |q| (q.min, q.max));
        if session.from < known.committed {
            let (from, committed) = (session.from, known.committed);
            out.add("offset went back", || {
                format!("{place:?}: {from} after {committed} was committed")
            });
        }
        if session.from > max || session.from > known.seen.max(min) {
            let (from, seen) = (session.from, known.seen);
            out.add("offset ahead", || {
                format!("{place:?}: {from}, seen up to {seen}, the queue ends at {max}")
            });
        }
        if session.moved > 0 {
            out.add("offset moved", || {
                format!("{place:?}: {} times from {}", session.moved, session.from)
            });
        }
        let mut due = session.from;
        for got in &session.got {
            if got.offset != due {
                out.add("skipped", || {
                    format!("{place:?}: {} where {due} was due", got.offset)
                });
            }
            due = got.offset + 1;
            let at = usize::try_from(got.offset - min).ok();
            let content = queue.and_then(|q| q.messages.get(at?));
            // Below the minimum there is nothing left to compare with.
            if got.offset >= min && content.is_none_or(|(_, id)| *id != got.id || id.is_none()) {
                out.add("other content", || {
                    format!("{got:?} delivered, {content:?} stored")
                });
            }
        }
        known.seen = known.seen.max(due);
        let mut before = known.committed;
        for committed in &session.committed {
            if *committed < before {
                out.add("offset went back", || {
                    format!("{place:?}: committed {committed} after {before}")
                });
            }
            before = before.max(*committed);
        }
        known.committed = before;
    }
    if complete {
        for (place, queue) in stored {
            let seen = known.get(place).map_or(0, |k| k.seen);
            if seen < queue.max {
                let max = queue.max;
                out.add("undelivered", || {
                    format!("{place:?}: seen up to {seen} of {max}")
                });
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::*;
    use super::*;
    use crate::processes::history::{Got, Id};

    fn session(from: i64, ids: &[Id], committed: &[i64]) -> Session {
        let got = |(n, id): (i64, &Id)| Got {
            place: PLACE,
            offset: from + n,
            id: Some(*id),
            at: 0,
        };
        Session {
            place: PLACE,
            from,
            got: (0..).zip(ids).map(got).collect(),
            committed: committed.to_vec(),
            moved: 0,
        }
    }

    fn found(sessions: &[Session]) -> String {
        let stored = stored(&[(1, 0), (1, 1), (1, 2)]);
        consumers(sessions, &stored, true).summary()
    }

    #[test]
    fn a_good_history_with_a_crash_in_it() {
        let first = session(0, &[(1, 0), (1, 1)], &[1]);
        let second = session(1, &[(1, 1), (1, 2)], &[3]);
        let third = session(3, &[], &[]);
        assert_eq!(found(&[first, second, third]), "");
    }

    #[test]
    fn bad_histories_are_told_apart() {
        let whole = || session(0, &[(1, 0), (1, 1), (1, 2)], &[3]);
        assert_eq!(found(&[session(0, &[(1, 0)], &[])]), "1 undelivered");
        let mut skips = whole();
        skips.got.remove(1);
        assert_eq!(found(&[skips]), "1 skipped");
        let mut swapped = whole();
        swapped.got.swap(0, 1);
        assert!(found(&[swapped]).contains("skipped"));
        let mut other = whole();
        other.got[1].id = Some((9, 9));
        assert_eq!(found(&[other]), "1 other content");
        let mut broken = whole();
        broken.got[1].id = None;
        assert_eq!(found(&[broken]), "1 other content");
        assert_eq!(
            found(&[whole(), session(1, &[(1, 1), (1, 2)], &[])]),
            "1 offset went back"
        );
        let mut back = whole();
        back.committed = vec![3, 2];
        assert_eq!(found(&[back]), "1 offset went back");
        assert!(found(&[session(2, &[(1, 2)], &[])]).contains("1 offset ahead"));
        assert!(found(&[whole(), session(7, &[], &[])]).contains("1 offset ahead"));
        let mut moved = whole();
        moved.moved = 1;
        assert_eq!(found(&[moved]), "1 offset moved");
    }
}
