//! Queues without holes, the same from every replica; nothing acknowledged or read where there is
//! no majority (I1, I2, I5, I16).

use super::{Findings, Queue, Stored};
use crate::processes::history::{Answer, OffsetRead, Sent};

/// Every offset from minimum to maximum was there, once and in order.
pub fn holes(stored: &Stored) -> Findings {
    let mut out = Findings::default();
    for (place, queue) in stored {
        let mut due = queue.min;
        for (offset, _) in &queue.messages {
            if *offset != due {
                out.add("hole", || {
                    format!("{place:?}: {offset} where {due} was due")
                });
            }
            due = offset + 1;
        }
        if due != queue.max {
            let max = queue.max;
            out.add("hole", || format!("{place:?} ends at {due}, not at {max}"));
        }
    }
    out
}

/// Nothing is old enough for retention in a test, unless the test says so.
pub fn expired(stored: &Stored) -> Findings {
    let mut out = Findings::default();
    for (place, queue) in stored.iter().filter(|(_, q)| q.min > 0) {
        out.add("expired", || format!("{place:?} begins at {}", queue.min));
    }
    out
}

/// Another leader holds the same. Later messages may have come.
pub fn same(before: &Stored, after: &Stored) -> Findings {
    let mut out = Findings::default();
    let none = Queue::default();
    for (place, queue) in before {
        let other = after.get(place).unwrap_or(&none);
        let missing = queue.messages.len().saturating_sub(other.messages.len());
        if missing > 0 {
            out.add("changed", || format!("{place:?}: {missing} fewer"));
        }
        let pairs = queue.messages.iter().zip(&other.messages);
        if let Some((a, b)) = pairs.clone().find(|(a, b)| a != b) {
            out.add("changed", || format!("{place:?}: {a:?} became {b:?}"));
        }
    }
    out
}

/// Who acknowledged is asked for the maximum offset just afterwards: by any replica.
pub fn stale_reads(reads: &[OffsetRead]) -> Findings {
    let mut out = Findings::default();
    for read in reads.iter().filter(|r| r.max <= r.acked) {
        out.add("stale read", || format!("{read:?}"));
    }
    out
}

/// A node without a majority, from when to when, in microseconds of the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Isolated {
    pub node: u8,
    pub from: u64,
    pub to: u64,
}

/// A node without a majority acknowledges nothing.
pub fn minority(sent: &[Sent], isolated: &[Isolated]) -> Findings {
    let mut out = Findings::default();
    for s in sent {
        let inside = |i: &&Isolated| i.node == s.node && i.from <= s.begin && s.end <= i.to;
        if matches!(s.answer, Answer::Acked(_)) && isolated.iter().any(|i| inside(&i)) {
            out.add("ack without majority", || format!("{s:?}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::*;
    use super::*;

    #[test]
    fn holes_and_changes() {
        let good = stored(&[(1, 0), (1, 1), (1, 2)]);
        assert!(holes(&good).is_empty());
        assert!(same(&good, &good).is_empty());
        let change = |f: &dyn Fn(&mut Queue)| {
            let mut other = good.clone();
            other.values_mut().for_each(f);
            other
        };
        let hole = change(&|q| {
            q.messages.remove(1);
        });
        assert_eq!(holes(&hole).count("hole"), 1);
        assert_eq!(same(&good, &hole).count("changed"), 2);
        let short = change(&|q| {
            q.messages.pop();
        });
        assert_eq!(holes(&short).count("hole"), 1);
        assert!(same(&short, &good).is_empty());
        assert!(expired(&good).is_empty());
        assert_eq!(expired(&change(&|q| q.min = 1)).count("expired"), 1);
        let swapped = change(&|q| q.messages.swap(0, 1));
        assert!(holes(&swapped).count("hole") > 0);
        assert_eq!(same(&good, &Stored::new()).count("changed"), 1);
    }

    #[test]
    fn stale_reads_and_minorities() {
        let read = |max| OffsetRead {
            place: PLACE,
            node: 0,
            acked: 4,
            max,
            at: 0,
        };
        assert!(stale_reads(&[read(5), read(9)]).is_empty());
        assert_eq!(stale_reads(&[read(4)]).count("stale read"), 1);
        let isolated = Isolated {
            node: 0,
            from: 100,
            to: 200,
        };
        let at = |begin| sent((1, 0), begin, Answer::Acked(0));
        let found = |s: Sent| minority(&[s], &[isolated]).count("ack without majority");
        assert_eq!((found(at(99)), found(at(100)), found(at(196))), (0, 1, 0));
        assert_eq!(found(sent((1, 0), 150, Answer::Unknown)), 0);
        let elsewhere = Sent { node: 1, ..at(150) };
        assert_eq!(found(elsewhere), 0);
    }
}
