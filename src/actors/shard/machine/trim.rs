//! Retention's command. It names the first log index that stays and where queues begin then, so
//! that replicas agree whatever their segments are. Only its proposer looks at segments.

use super::apply::{put, range};
use super::{digest, Applied, Event, Machine};
use crate::model::command::{QueueOffset, Trim};
use crate::model::{QueueKey, TopicId};
use crate::storage::keys;
use crate::storage::StateOp;
use std::collections::BTreeMap;

/// Queues that one command names at most; there may be more of them than fit into an entry.
const MAX_QUEUES: usize = 50_000;

/// Where queues begin, the first log index that stays and the term before it (`None` when no entry
/// goes).
type Cut = (BTreeMap<QueueKey, u64>, Option<(u64, u64)>);

impl Machine {
    /// The commands that drop the closed segments up to `segment`, in order. The entries go with the
    /// last one.
    pub fn trims(&self, segment: u64) -> Vec<Trim> {
        let Some(last) = self.segments.closed.range(..=segment).next_back() else {
            return Vec::new();
        };
        let (segment, first, term) = (*last.0, last.1.last_index + 1, last.1.last_term);
        let mut begins = BTreeMap::new();
        for (_, ends) in self.segments.ends.range(..=segment) {
            begins.extend(ends.iter().map(|(key, end)| (*key, *end)));
        }
        let moves = |(key, end): &(QueueKey, u64)| {
            let meta = self.queues.get(key);
            meta.is_some_and(|meta| meta.min < *end)
        };
        let queues: Vec<QueueOffset> = begins
            .into_iter()
            .filter(moves)
            .map(|(key, offset)| QueueOffset {
                topic: key.topic.0,
                queue: key.queue,
                offset,
            })
            .collect();
        let mut trims: Vec<Trim> = queues
            .chunks(MAX_QUEUES)
            .map(|queues| Trim {
                segment: 0,
                first: 1,
                term: 0,
                queues: queues.to_vec(),
            })
            .collect();
        let mut with_entries = trims.pop().unwrap_or_default();
        (with_entries.segment, with_entries.first, with_entries.term) = (segment, first, term);
        trims.push(with_entries);
        trims
    }

    pub(super) fn trim(&mut self, index: u64, trim: Trim, out: &mut Applied) -> Result<(), String> {
        if trim.first > index {
            return Err(format!("a trim up to {}", trim.first));
        }
        let (queues, cut) = match trim.first {
            0 => self.cut_segments(trim.segment, out),
            _ => self.cut_log(trim, out),
        };
        let mut moved = Vec::new();
        for (key, end) in queues {
            // A queue of a deleted topic has no rows any more.
            let Some(meta) = self.queues.get_mut(&key).filter(|meta| meta.min < end) else {
                continue;
            };
            if end > meta.next {
                return Err(format!(
                    "queue {key:?} ends at {}, a trim begins it at {end}",
                    meta.next
                ));
            }
            self.digest.take(digest::queue(key, meta));
            meta.min = end;
            self.digest.add(digest::queue(key, meta));
            out.rows
                .push(put(keys::queue::key(self.shard, key), meta.encode()));
            out.rows
                .push(range(keys::index::below(self.shard, key, end)));
            moved.push((key, end));
        }
        // Also one without an effect: its proposer waits for it.
        out.events.push(Event::Trimmed { queues: moved, cut });
        Ok(())
    }

    /// The oldest waiting timer's record must stay.
    pub(super) fn floor(&self) -> u64 {
        let oldest = self.timer_indices.first();
        oldest.map_or(u64::MAX, |(index, _)| *index)
    }

    fn cut_log(&mut self, trim: Trim, out: &mut Applied) -> Cut {
        // Timers are part of the state: all replicas come to the same.
        if trim.first > self.floor() {
            return Cut::default();
        }
        let (dropped, shortened) = self.segments.cut(trim.first);
        let cut = (!dropped.is_empty() || shortened.is_some()).then_some((trim.first, trim.term));
        for seq in dropped {
            self.forget_segment(seq, out);
        }
        if let Some((seq, segment)) = shortened {
            let key = keys::log_segment::key(self.shard, seq);
            out.rows.push(put(key, segment.encode()));
        }
        let queues = trim.queues.iter();
        let queues = queues.map(|q| (QueueKey::new(TopicId(q.topic), q.queue), q.offset));
        (queues.collect(), cut)
    }

    /// As versions before did, whose command names a segment only.
    fn cut_segments(&mut self, last: u64, out: &mut Applied) -> Cut {
        let floor = self.floor();
        let (mut queues, mut cut) = Cut::default();
        let closed = self.segments.closed.range(..=last);
        let gone: Vec<_> = closed.map(|(seq, segment)| (*seq, *segment)).collect();
        for (seq, segment) in gone {
            if segment.last_index >= floor {
                break;
            }
            self.segments.closed.remove(&seq);
            cut = Some((segment.last_index + 1, segment.last_term));
            queues.extend(self.segments.ends.remove(&seq).unwrap_or_default());
            self.forget_segment(seq, out);
        }
        (queues, cut)
    }

    fn forget_segment(&self, seq: u64, out: &mut Applied) {
        let key = keys::log_segment::key(self.shard, seq);
        out.rows.push(StateOp::Delete { key });
        let queues = keys::segment_queue::segment_range(self.shard, seq);
        out.rows.push(range(queues));
    }
}

#[cfg(test)]
#[path = "trim_tests.rs"]
mod tests;
