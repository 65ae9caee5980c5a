//! A loss that the durability class allows: the end of a queue, from the last moments before the
//! power went.

use super::{index, Findings, Stored};
use crate::processes::history::{Answer, Place, Sent, DELAYED};
use std::collections::BTreeMap;

/// All nodes lost their power, in microseconds of the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PowerCut {
    pub at: u64,
    /// What was acknowledged so long before may be lost.
    pub interval: u64,
}

/// What was acknowledged before the cut and is not there any more: its number, and what the class
/// does not allow.
pub fn tail(sent: &[Sent], stored: &Stored, cut: PowerCut) -> (usize, Findings) {
    let mut out = Findings::default();
    let index = index(stored);
    let mut lost = 0;
    /// Lowest lost and highest kept offset of a queue.
    type Edge = (Option<i64>, Option<i64>);
    let mut edges: BTreeMap<Place, Edge> = BTreeMap::new();
    for s in sent {
        let Answer::Acked(offset) = s.answer else {
            continue;
        };
        if s.place.topic == DELAYED {
            continue;
        }
        let here = |(place, at): &(Place, i64)| *place == s.place && *at == offset;
        let kept = index.get(&s.id).is_some_and(|all| all.iter().any(here));
        if s.end > cut.at {
            if !kept {
                out.add("lost", || format!("{s:?}"));
            }
            continue;
        }
        let (lowest_lost, highest_kept) = edges.entry(s.place).or_default();
        if kept {
            *highest_kept = (*highest_kept).max(Some(offset));
        } else {
            lost += 1;
            *lowest_lost = Some(lowest_lost.map_or(offset, |low| low.min(offset)));
            if s.end + cut.interval < cut.at {
                out.add("lost too early", || format!("{s:?}"));
            }
        }
    }
    for (place, edge) in edges {
        if let (Some(lost), Some(kept)) = edge {
            if lost < kept {
                out.add("hole in the loss", || {
                    format!("{place:?}: {lost} lost, {kept} kept")
                });
            }
        }
    }
    (lost, out)
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::*;
    use super::*;

    #[test]
    fn only_the_end_may_go() {
        let cut = PowerCut {
            at: 100,
            interval: 20,
        };
        let at = |n: u32, begin, offset| sent((1, n), begin, Answer::Acked(offset));
        let history = [at(0, 50, 0), at(1, 60, 1), at(2, 90, 2), at(3, 200, 2)];
        let found = |ids: &[(u32, u32)]| {
            let (lost, found) = tail(&history, &stored(ids), cut);
            (lost, found.summary())
        };
        assert_eq!(found(&[(1, 0), (1, 1), (1, 3)]), (1, String::new()));
        assert_eq!(found(&[(1, 0), (1, 1), (1, 2)]), (0, "1 lost".into()));
        assert_eq!(found(&[(1, 0)]), (2, "1 lost, 1 lost too early".into()));
        let (lost, hole) = tail(&history[..3], &stored(&[(9, 9), (1, 1)]), cut);
        assert_eq!((lost, hole.count("hole in the loss")), (2, 1));
    }
}
