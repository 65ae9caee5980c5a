//! Delayed messages: never early, and late only around faults (I13).

use super::Findings;
use crate::processes::history::{Answer, Id, Sent, Session, DELAYED};
use std::collections::BTreeMap;

/// What is allowed, in microseconds of the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clocks {
    /// Time stamps have milliseconds, and clocks of the kernel are read one after the other.
    pub early: u64,
    /// Lateness at rest.
    pub late: u64,
    /// Messages due before this may be late: a fault was on, or had just ended.
    pub settled: u64,
}

/// Only messages that were sent once are judged by the time of their sending.
pub fn delays(sent: &[Sent], sessions: &[Session], clocks: Clocks) -> Findings {
    let mut out = Findings::default();
    let mut first: BTreeMap<Id, u64> = BTreeMap::new();
    for got in sessions.iter().flat_map(|s| &s.got) {
        if let (DELAYED, Some(id)) = (got.place.topic, got.id) {
            let at = first.entry(id).or_insert(got.at);
            *at = got.at.min(*at);
        }
    }
    let mut begins: BTreeMap<Id, u64> = BTreeMap::new();
    for s in sent.iter().filter(|s| s.place.topic == DELAYED) {
        let begin = begins.entry(s.id).or_insert(s.begin);
        *begin = s.begin.min(*begin);
    }
    for s in sent.iter().filter(|s| s.place.topic == DELAYED) {
        let delay = u64::from(s.delay_ms) * 1_000;
        let Some(at) = first.get(&s.id) else {
            // Whether it must be there is not asked here.
            continue;
        };
        // The first attempt may be the one that was delivered first.
        if begins.get(&s.id) == Some(&s.begin) && at + clocks.early < s.begin + delay {
            out.add("early", || format!("{s:?} came at {at}"));
        }
        let due = s.end + delay;
        let acked = matches!(s.answer, Answer::Acked(_));
        if acked && due >= clocks.settled && *at > due + clocks.late {
            out.add("late", || format!("{s:?} came at {at}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::*;
    use super::*;
    use crate::processes::history::{Got, Place};

    fn found(came: u64, settled: u64) -> String {
        let place = Place {
            topic: DELAYED,
            ..PLACE
        };
        let message = Sent {
            place,
            delay_ms: 1_000,
            ..sent((1, 0), 0, Answer::Acked(3))
        };
        let session = Session {
            place,
            from: 0,
            got: vec![Got {
                place,
                offset: 0,
                id: Some((1, 0)),
                at: came,
            }],
            committed: Vec::new(),
            moved: 0,
        };
        let clocks = Clocks {
            early: 5_000,
            late: 1_000_000,
            settled,
        };
        delays(&[message], &[session], clocks).summary()
    }

    #[test]
    fn early_and_late() {
        assert_eq!(found(900_000, 0), "1 early");
        assert_eq!(found(997_000, 0), "");
        assert_eq!(found(1_900_000, 0), "");
        assert_eq!(found(2_100_000, 0), "1 late");
        assert_eq!(found(2_100_000, 5_000_000), "");
    }

    #[test]
    fn a_second_attempt_is_not_early_by_the_first() {
        let place = Place {
            topic: DELAYED,
            ..PLACE
        };
        let attempt = |begin, answer| Sent {
            place,
            delay_ms: 1_000,
            ..sent((1, 0), begin, answer)
        };
        let got = Got {
            place,
            offset: 0,
            id: Some((1, 0)),
            at: 1_100_000,
        };
        let session = Session {
            place,
            from: 0,
            got: vec![got],
            committed: Vec::new(),
            moved: 0,
        };
        let both = [
            attempt(0, Answer::Unknown),
            attempt(900_000, Answer::Acked(1)),
        ];
        let clocks = Clocks {
            early: 5_000,
            late: 1_000_000,
            settled: 0,
        };
        assert!(delays(&both, &[session], clocks).is_empty());
    }
}
