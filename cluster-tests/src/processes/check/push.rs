//! Push consumers get all that was acknowledged; an orderly one gets each queue in order.

use super::Findings;
use crate::processes::history::{Answer, Id, Place, Sent, JAVA};
use std::collections::{BTreeMap, BTreeSet};

/// A message that a push consumer was handed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    pub orderly: bool,
    pub place: Place,
    pub offset: i64,
    pub id: Id,
    /// Microseconds since the beginning of the run.
    pub at: u64,
}

/// Each of the two consumers reads the whole topic; deliveries are in the order of their times.
pub fn pushed(sent: &[Sent], pushed: &[Pushed]) -> Findings {
    let mut out = Findings::default();
    for orderly in [false, true] {
        let got: BTreeSet<Id> = pushed
            .iter()
            .filter(|p| p.orderly == orderly)
            .map(|p| p.id)
            .collect();
        let acked = |s: &&Sent| s.place.topic == JAVA && matches!(s.answer, Answer::Acked(_));
        for s in sent.iter().filter(acked).filter(|s| !got.contains(&s.id)) {
            out.add("not pushed", || format!("orderly: {orderly}, {s:?}"));
        }
    }
    // A queue may begin again where it was, but never jumps ahead.
    let mut highest: BTreeMap<Place, i64> = BTreeMap::new();
    for p in pushed.iter().filter(|p| p.orderly) {
        let highest = highest.entry(p.place).or_insert(-1);
        if p.offset > *highest + 1 {
            let due = *highest + 1;
            out.add("pushed out of order", || format!("{p:?}, {due} was due"));
        }
        *highest = p.offset.max(*highest);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::*;
    use super::*;

    #[test]
    fn missing_and_disordered_deliveries() {
        let place = Place {
            topic: JAVA,
            ..PLACE
        };
        let history: Vec<Sent> = (0..3)
            .map(|n| Sent {
                place,
                ..acked((3000, n as u32), n)
            })
            .collect();
        let push = |orderly, offset: i64| Pushed {
            orderly,
            place,
            offset,
            id: (3000, offset as u32),
            at: 0,
        };
        let any: Vec<Pushed> = [2, 0, 1].map(|n| push(false, n)).to_vec();
        let with = |offsets: &[i64]| {
            let orderly = offsets.iter().map(|n| push(true, *n));
            let all: Vec<Pushed> = any.iter().cloned().chain(orderly).collect();
            pushed(&history, &all).summary()
        };
        assert_eq!(with(&[0, 1, 0, 1, 2]), "");
        assert_eq!(with(&[0, 1]), "1 not pushed");
        assert_eq!(with(&[0, 2, 1]), "1 pushed out of order");
        assert_eq!(pushed(&history, &[]).count("not pushed"), 6);
    }
}
