//! Log segments: stretches of the log that retention drops as a whole. A segment ends with the
//! entry that fills it. How large that is each node's settings say, so segments are no part of what
//! replicas must agree on.

use crate::model::QueueKey;
use crate::storage::keys::log_segment::LogSegment;
use std::collections::BTreeMap;

/// Closed segments and the open one.
#[derive(Debug, Default)]
pub struct Segments {
    pub closed: BTreeMap<u64, LogSegment>,
    /// For each closed segment, where the queues it touched stood at its end.
    pub ends: BTreeMap<u64, BTreeMap<QueueKey, u64>>,
    pub open_seq: u64,
    pub open: Option<LogSegment>,
}

impl Segments {
    /// Counts an entry into the open segment; returns true when that filled it.
    pub fn add(&mut self, index: u64, term: u64, bytes: u64, at_ms: i64, limit: u64) -> bool {
        let open = self.open.get_or_insert(LogSegment {
            first_index: index,
            last_index: index,
            bytes: 0,
            min_ts: at_ms,
            max_ts: at_ms,
            last_term: term,
            closed: false,
        });
        open.last_index = index;
        open.last_term = term;
        open.bytes += bytes;
        if at_ms > 0 {
            open.max_ts = open.max_ts.max(at_ms);
            if open.min_ts == 0 {
                open.min_ts = at_ms;
            }
        }
        open.bytes >= limit
    }

    /// Closes the open segment and begins the next.
    pub fn roll(&mut self) -> Option<(u64, LogSegment)> {
        let mut closed = self.open.take()?;
        closed.closed = true;
        let seq = self.open_seq;
        self.closed.insert(seq, closed);
        self.open_seq += 1;
        Some((seq, closed))
    }

    /// Forgets what lies before log index `first`: the segments that end before it go, and one that
    /// it lies in begins there. Returns the former's numbers, and the latter.
    pub fn cut(&mut self, first: u64) -> (Vec<u64>, Option<(u64, LogSegment)>) {
        let before = |(_, segment): &(&u64, &LogSegment)| segment.last_index < first;
        let gone = self.closed.iter().take_while(before);
        let mut gone: Vec<u64> = gone.map(|(seq, _)| *seq).collect();
        for seq in &gone {
            self.closed.remove(seq);
            self.ends.remove(seq);
        }
        if self.open.is_some_and(|open| open.last_index < first) {
            self.open = None;
            gone.push(self.open_seq);
        }
        let oldest = match self.closed.first_entry() {
            Some(entry) => Some((*entry.key(), entry.into_mut())),
            None => self.open.as_mut().map(|open| (self.open_seq, open)),
        };
        let shortened = oldest.filter(|(_, segment)| segment.first_index < first);
        let shortened = shortened.map(|(seq, segment)| {
            segment.shorten(first);
            (seq, *segment)
        });
        (gone, shortened)
    }

    pub fn all(&self) -> Vec<(u64, LogSegment)> {
        let mut all: Vec<_> = self.closed.iter().map(|(s, l)| (*s, *l)).collect();
        all.extend(self.open.map(|open| (self.open_seq, open)));
        all
    }

    /// See [`super::Machine::droppable`].
    pub fn droppable(&self, before_ms: i64, max_bytes: u64, floor: u64) -> Option<u64> {
        let mut bytes: u64 = self.all().iter().map(|(_, s)| s.bytes).sum();
        let mut last = None;
        for (seq, segment) in &self.closed {
            let expired = segment.max_ts < before_ms;
            let too_much = max_bytes > 0 && bytes > max_bytes;
            if !(expired || too_much) || segment.last_index >= floor {
                break;
            }
            bytes -= segment.bytes;
            last = Some(*seq);
        }
        last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_drops_whole_segments_and_shortens_one() {
        let mut s = Segments::default();
        for i in 1..=6u64 {
            if s.add(i, 1, 100, 10, 300) {
                s.roll();
            }
        }
        s.add(7, 1, 100, 10, 300);
        // 1 to 3, 4 to 6, and 7, which is open.
        assert_eq!(s.cut(1), (vec![], None));
        let (gone, shortened) = s.cut(6);
        let (seq, segment) = shortened.expect("one is shortened");
        assert_eq!((gone, seq), (vec![0], 1));
        assert_eq!((segment.first_index, segment.bytes), (6, 100));
        assert_eq!(s.closed[&1], segment);
        assert_eq!(s.cut(6), (vec![], None), "once");
        let (gone, shortened) = s.cut(8);
        assert_eq!((gone, shortened, s.open), (vec![1, 2], None, None));
        s.add(8, 1, 100, 10, 300);
        assert_eq!((s.open_seq, s.open.map(|o| o.first_index)), (2, Some(8)));
    }

    #[test]
    fn only_old_or_surplus_segments_below_the_timers_go() {
        let mut s = Segments::default();
        for i in 1..=3u64 {
            assert!(s.add(i, 1, 100, i as i64 * 10, 100));
            s.roll();
        }
        s.add(4, 1, 50, 40, 100);
        assert_eq!(s.droppable(0, 0, u64::MAX), None);
        assert_eq!(s.droppable(15, 0, u64::MAX), Some(0));
        assert_eq!(
            s.droppable(1000, 0, u64::MAX),
            Some(2),
            "the open one stays"
        );
        assert_eq!(s.droppable(0, 260, u64::MAX), Some(0));
        assert_eq!(
            s.droppable(1000, 0, 2),
            Some(0),
            "a waiting timer at index 2 holds its segment"
        );
    }
}
