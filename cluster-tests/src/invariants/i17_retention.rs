//! I17: retention removes only what its policy allows, and a consumer below the minimum gets a
//! clear answer, never wrong data.

use super::Checker;
use crate::seen::{Answer, End, Seen, State};
use std::collections::BTreeMap;
use troupemq::model::QueueKey;

/// What may go.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// Records older than this, ms.
    pub retention_ms: i64,
    /// The oldest records beyond this many bytes of log; 0 for no limit.
    pub retention_bytes: u64,
    /// Segments go as a whole, with the entry that fills them: this much may go too much, and two entries.
    pub slack_bytes: u64,
}

/// See the module text.
pub struct Retention {
    policy: Policy,
    clock_ms: i64,
    /// Bytes of log entries by index.
    log: BTreeMap<u64, u64>,
    /// The most of them.
    longest: u64,
    /// Log index and store time of visible records by offset.
    queues: BTreeMap<QueueKey, Vec<(u64, i64)>>,
    mins: BTreeMap<QueueKey, u64>,
}

impl Retention {
    /// A checker for this policy.
    pub fn new(policy: Policy) -> Self {
        Self {
            policy,
            clock_ms: 0,
            log: BTreeMap::new(),
            longest: 0,
            queues: BTreeMap::new(),
            mins: BTreeMap::new(),
        }
    }

    fn trimmed(&mut self, key: QueueKey, min: u64) -> Result<(), String> {
        let old = self.mins.get(&key).copied().unwrap_or(0);
        if min <= old {
            return Ok(());
        }
        self.mins.insert(key, min);
        let queue = self.queues.get(&key).map_or(&[][..], Vec::as_slice);
        let Some(gone) = queue.get(old as usize..min as usize) else {
            return Err(format!(
                "{key:?} begins at {min}, but ends at {}",
                queue.len()
            ));
        };
        // Stamps may stand still, never go back: the last one gone is the youngest.
        let Some((index, store_ts)) = gone.last().copied() else {
            return Ok(());
        };
        let old_enough = store_ts < self.clock_ms - self.policy.retention_ms;
        let behind: u64 = self.log.range(index..).map(|(_, bytes)| bytes).sum();
        let limit = self.policy.retention_bytes;
        let slack = self.policy.slack_bytes + 2 * self.longest;
        let too_much = limit > 0 && behind + slack > limit;
        if !old_enough && !too_much {
            return Err(format!(
                "{key:?}: the record at {} of {store_ts} was removed at {}, with {behind} bytes of log from it on",
                min - 1,
                self.clock_ms
            ));
        }
        Ok(())
    }

    fn whole(&mut self, state: &State) -> Result<(), String> {
        for (key, min, _) in &state.queues {
            self.trimmed(*key, *min)?;
            let known = self.mins.get(key).copied().unwrap_or(0);
            if *min < known {
                return Err(format!("{key:?} began at {known} and begins at {min} now"));
            }
        }
        Ok(())
    }
}

impl Checker for Retention {
    fn id(&self) -> &'static str {
        "I17"
    }

    fn see(&mut self, seen: &Seen) -> Result<(), String> {
        match seen {
            Seen::Clock { now_ms } => self.clock_ms = self.clock_ms.max(*now_ms),
            Seen::Logged { index, bytes } => {
                self.log.split_off(index);
                self.log.insert(*index, *bytes);
                self.longest = self.longest.max(*bytes);
            }
            Seen::Visible {
                key,
                offset,
                at,
                store_ts,
                ..
            } => {
                let queue = self.queues.entry(*key).or_default();
                if *offset == queue.len() as u64 {
                    if let Some((_, before)) = queue.last().filter(|(_, before)| before > store_ts)
                    {
                        return Err(format!(
                            "{key:?}: store time goes back from {before} to {store_ts} at {offset}"
                        ));
                    }
                    queue.push((at.index, *store_ts));
                }
            }
            Seen::Crashed { last, .. } => {
                self.log.split_off(&(last + 1));
                for queue in self.queues.values_mut() {
                    queue.truncate(queue.partition_point(|(index, _)| index <= last));
                }
            }
            Seen::Trimmed { key, min } => return self.trimmed(*key, *min),
            Seen::Serving(state) => return self.whole(state),
            Seen::Read {
                key,
                offset,
                current,
                answer,
            } => {
                let min = self.mins.get(key).copied().unwrap_or(0);
                // Who is behind says what was so.
                let own = |told: u64| told == min || !current && told < min;
                match answer {
                    Answer::TooSmall { min: told } if offset >= told || !own(*told) => {
                        return Err(format!(
                            "{key:?} says {told} to a read at {offset}, but begins at {min}"
                        ));
                    }
                    Answer::Records(records)
                        if *current
                            && (records.iter().any(|(o, _, _)| *o < min) || *offset < min) =>
                    {
                        return Err(format!(
                            "{key:?} begins at {min}, but a read at {offset} was served"
                        ));
                    }
                    Answer::Records(records)
                        if records.first().map(|(o, _, _)| *o) != Some(*offset) =>
                    {
                        return Err(format!("{key:?}: a read at {offset} began elsewhere"));
                    }
                    Answer::Empty { max } if offset < max => {
                        return Err(format!(
                            "{key:?} ends at {max}, but a read at {offset} found nothing"
                        ));
                    }
                    _ => {}
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, end: &End) -> Result<(), String> {
        self.whole(&end.state)
    }
}

#[cfg(test)]
mod tests {
    use super::super::histories::*;
    use super::*;

    #[test]
    fn removing_young_records_and_serving_removed_ones_are_seen() {
        let policy = Policy {
            retention_ms: 500,
            retention_bytes: 100,
            slack_bytes: 10,
        };
        let run = |history: &[Seen]| judge(&mut Retention::new(policy), history, None);
        let clock = |now_ms| Seen::Clock { now_ms };
        let log = |index, bytes| Seen::Logged { index, bytes };
        let trim = |min| Seen::Trimmed { key: KEY, min };
        let base = [log(5, 30), visible(1, 5, 0), visible(2, 5, 1)];
        let with = |tail: &[Seen]| run(&[&base[..], tail].concat());
        assert!(with(&[clock(1501), trim(1)]).is_none());
        assert!(with(&[clock(1500), trim(1)]).is_some(), "young");
        assert!(
            with(&[clock(1500), log(6, 30), trim(1)]).is_none(),
            "too much"
        );
        assert!(with(&[clock(9000), trim(3)]).is_some(), "beyond the end");
        let read = |offset, answer| Seen::Read {
            key: KEY,
            offset,
            current: true,
            answer,
        };
        let behind = |offset, answer| Seen::Read {
            key: KEY,
            offset,
            current: false,
            answer,
        };
        assert!(with(&[clock(9000), trim(1), read(0, Answer::TooSmall { min: 1 })]).is_none());
        assert!(with(&[
            clock(9000),
            trim(1),
            read(0, Answer::Records(vec![(0, 1, at(5))]))
        ])
        .is_some());
        assert!(with(&[
            clock(9000),
            trim(1),
            read(0, Answer::Records(vec![(1, 2, at(5))]))
        ])
        .is_some());
        assert!(with(&[read(0, Answer::TooSmall { min: 1 })]).is_some());
        let first = Answer::Records(vec![(0, 1, at(5))]);
        assert!(with(&[clock(9000), trim(1), behind(0, first.clone())]).is_none());
        assert!(with(&[clock(9000), trim(1), behind(1, first)]).is_some());
        assert!(with(&[behind(0, Answer::TooSmall { min: 1 })]).is_some());
        assert!(with(&[behind(0, Answer::Empty { max: 2 })]).is_some());
        assert!(with(&[read(0, Answer::Empty { max: 2 })]).is_some());
    }
}
