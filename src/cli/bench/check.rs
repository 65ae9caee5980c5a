//! Checks what is read: bodies, offsets, order, and that every acknowledged message is there.

use super::body::{BadBody, BodyId};
use super::record::{Ack, Record};
use super::sending::QueueName;
use rustc_hash::FxHashMap;
use serde::Serialize;

/// Messages of a connection that one word block keeps track of.
const BLOCK: u64 = 4_096;

/// What was read, and what is wrong with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Checks {
    /// Messages read.
    pub messages: u64,
    /// Bytes of their bodies.
    pub body_bytes: u64,
    /// Bodies that this generator did not make; they are only counted.
    pub foreign: u64,
    /// Bodies whose checksum differs.
    pub bad_bodies: u64,
    /// Answers with records that do not parse or whose own checksum differs.
    pub bad_records: u64,
    /// Messages in another queue or topic than they were sent to.
    pub wrong_queue: u64,
    /// Offsets left out between two messages of a queue.
    pub missing_offsets: u64,
    /// Offsets that came again or went back.
    pub repeated_offsets: u64,
    /// Messages that are there twice although they were sent once.
    pub duplicates: u64,
    /// Messages stored more than once because the producer sent them again.
    pub copies_by_retry: u64,
    /// Messages of a connection behind later ones in the same queue, repetitions not counted.
    pub out_of_order: u64,
}

impl Checks {
    /// Whether nothing is wrong. Stock brokers reorder pipelined sends, hence `disorder`.
    pub(super) fn is_good(&self, disorder: bool) -> bool {
        let wrong = [
            self.bad_bodies,
            self.bad_records,
            self.wrong_queue,
            self.missing_offsets,
            self.repeated_offsets,
            self.duplicates,
        ];
        wrong.iter().all(|n| *n == 0) && (disorder || self.out_of_order == 0)
    }
}

#[derive(Debug, Default)]
struct QueueState {
    next: Option<i64>,
    /// The latest message of each run and connection.
    latest: FxHashMap<(u32, u16), u64>,
}

/// Checks messages of several queues, each in the order of its offsets.
#[derive(Debug, Default)]
pub(super) struct Checker {
    pub counts: Checks,
    queues: Vec<QueueState>,
    /// Bits of the messages seen at their first try, by run, connection and block.
    seen: FxHashMap<(u32, u16, u64), Box<[u64; (BLOCK / 64) as usize]>>,
    /// The later tries at which messages were seen.
    again: FxHashMap<(u32, u16, u64), Vec<u16>>,
}

impl Checker {
    pub(super) fn new(queues: usize) -> Self {
        let mut checker = Self::default();
        checker.queues.resize_with(queues, QueueState::default);
        checker
    }

    /// The broker moved the reader of a queue to another offset.
    pub(super) fn moved(&mut self, queue: usize, to: i64) {
        if let Some(q) = self.queues.get_mut(queue) {
            q.next = Some(to);
        }
    }

    /// A message at `offset` of `queue`, which is queue `id` of the topic with this hash.
    pub(super) fn message(
        &mut self,
        queue: usize,
        offset: i64,
        (id, topic): (i32, u32),
        body: Result<BodyId, BadBody>,
        len: usize,
    ) {
        let counts = &mut self.counts;
        counts.messages += 1;
        counts.body_bytes += len as u64;
        let Some(state) = self.queues.get_mut(queue) else {
            return;
        };
        let wanted = state.next.unwrap_or(offset);
        if offset > wanted {
            counts.missing_offsets += offset.abs_diff(wanted);
        } else if offset < wanted {
            counts.repeated_offsets += 1;
        }
        state.next = Some(offset.saturating_add(1));
        let sent = match body {
            Ok(sent) => sent,
            Err(BadBody::Foreign) => {
                counts.foreign += 1;
                return;
            }
            Err(BadBody::Checksum) => {
                counts.bad_bodies += 1;
                return;
            }
        };
        if sent.queue != id || sent.topic != topic {
            counts.wrong_queue += 1;
        }
        let from = (sent.run, sent.connection);
        if sent.attempt > 0 {
            let before = self.was_seen(&sent);
            let again = self.again.entry((sent.run, sent.connection, sent.seq));
            let attempts = again.or_default();
            let counts = &mut self.counts;
            if attempts.contains(&sent.attempt) {
                counts.duplicates += 1;
            } else {
                counts.copies_by_retry += u64::from(before || !attempts.is_empty());
                attempts.push(sent.attempt);
            }
            return;
        }
        let latest = state.latest.entry(from).or_insert(sent.seq);
        if sent.seq < *latest {
            counts.out_of_order += 1;
        }
        *latest = (*latest).max(sent.seq);
        let block = self
            .seen
            .entry((sent.run, sent.connection, sent.seq / BLOCK))
            .or_insert_with(|| Box::new([0; (BLOCK / 64) as usize]));
        let at = (sent.seq % BLOCK) as usize;
        let bit = 1 << (at % 64);
        counts.duplicates += u64::from(block[at / 64] & bit != 0);
        block[at / 64] |= bit;
        if !self.again.is_empty() {
            let key = (sent.run, sent.connection, sent.seq);
            counts.copies_by_retry += u64::from(self.again.contains_key(&key));
        }
    }

    fn was_seen(&self, sent: &BodyId) -> bool {
        let block = self
            .seen
            .get(&(sent.run, sent.connection, sent.seq / BLOCK));
        let at = (sent.seq % BLOCK) as usize;
        block.is_some_and(|b| b[at / 64] & 1 << (at % 64) != 0)
    }
}

/// What became of the acknowledged messages of a record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Verified {
    /// Acknowledged messages.
    pub acked: u64,
    /// Found once, at the offset that was told.
    pub found: u64,
    /// Not found.
    pub missing: u64,
    /// Something else is at their offset.
    pub mismatched: u64,
    /// Messages of the run that are stored but were not acknowledged; no fault.
    pub unacked: u64,
    /// The first fault, for people.
    pub first_fault: Option<String>,
}

impl Verified {
    pub(super) fn is_good(&self) -> bool {
        self.missing == 0 && self.mismatched == 0 && self.found == self.acked && self.acked > 0
    }

    fn fault(&mut self, what: impl FnOnce() -> String) {
        if self.first_fault.is_none() {
            self.first_fault = Some(what());
        }
    }
}

#[derive(Debug)]
struct Expected {
    name: QueueName,
    /// Sorted by offset.
    acks: Vec<Ack>,
    at: usize,
    /// Messages of `acks[at]` that are done.
    within: u32,
}

impl Expected {
    fn next(&self) -> Option<(i64, &Ack)> {
        let ack = self.acks.get(self.at)?;
        Some((ack.offset + i64::from(self.within), ack))
    }

    fn advance(&mut self) {
        self.within += 1;
        if self
            .acks
            .get(self.at)
            .is_some_and(|a| self.within >= a.count)
        {
            self.at += 1;
            self.within = 0;
        }
    }
}

/// Holds what is read against a record.
#[derive(Debug)]
pub(super) struct Verifier {
    run: u32,
    queues: Vec<Expected>,
    result: Verified,
}

impl Verifier {
    pub(super) fn new(record: Record) -> Self {
        let mut by_number: FxHashMap<u32, Vec<Ack>> = FxHashMap::default();
        for ack in record.acks.iter().filter(|a| a.count > 0) {
            by_number.entry(ack.queue).or_default().push(*ack);
        }
        let queues = record.queues.into_iter().map(|(number, name)| {
            let mut acks = by_number.remove(&number).unwrap_or_default();
            acks.sort_by_key(|a| a.offset);
            Expected {
                name,
                acks,
                at: 0,
                within: 0,
            }
        });
        Self {
            run: record.run,
            queues: queues.collect(),
            result: Verified {
                acked: record.messages,
                ..Verified::default()
            },
        }
    }

    /// The number by which this verifier knows a queue.
    pub(super) fn queue(&self, name: &QueueName) -> Option<usize> {
        self.queues.iter().position(|q| q.name == *name)
    }

    /// A message at `offset` of its queue `queue`; in the order of the offsets.
    pub(super) fn message(&mut self, queue: usize, offset: i64, id: Option<&BodyId>) {
        let Some(expected) = self.queues.get_mut(queue) else {
            return;
        };
        let result = &mut self.result;
        loop {
            match expected.next() {
                Some((wanted, ack)) if wanted < offset => {
                    result.missing += 1;
                    let name = &expected.name;
                    result.fault(|| missing(name, wanted, ack, expected.within));
                    expected.advance();
                }
                Some((wanted, ack)) if wanted == offset => {
                    let same = id.is_some_and(|id| {
                        id.run == self.run
                            && id.connection == ack.connection
                            && id.seq == ack.seq + u64::from(expected.within)
                            && id.attempt == ack.attempt
                    });
                    if same {
                        result.found += 1;
                    } else {
                        result.mismatched += 1;
                        let (name, within) = (&expected.name, expected.within);
                        result.fault(|| {
                            let lost = missing(name, wanted, ack, within);
                            format!("{lost}; something else is there")
                        });
                    }
                    expected.advance();
                    return;
                }
                _ => {
                    result.unacked += u64::from(id.is_some_and(|id| id.run == self.run));
                    return;
                }
            }
        }
    }

    /// Everything is read.
    pub(super) fn finish(mut self) -> Verified {
        for expected in &mut self.queues {
            while let Some((wanted, ack)) = expected.next() {
                self.result.missing += 1;
                let name = &expected.name;
                self.result
                    .fault(|| missing(name, wanted, ack, expected.within));
                expected.advance();
            }
        }
        self.result
    }
}

fn missing((broker, topic, id): &QueueName, offset: i64, ack: &Ack, within: u32) -> String {
    format!(
        "message {} of connection {} is not at offset {offset} of {topic} queue {id} on {broker}",
        ack.seq + u64::from(within),
        ack.connection
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn id(connection: u16, seq: u64, attempt: u16) -> BodyId {
        BodyId {
            run: 1,
            connection,
            attempt,
            seq,
            due: 0,
            queue: 0,
            topic: 9,
        }
    }

    fn checked(messages: &[(i64, Result<BodyId, BadBody>)]) -> Checks {
        let mut checker = Checker::new(1);
        for (offset, body) in messages {
            checker.message(0, *offset, (0, 9), *body, 10);
        }
        checker.counts
    }

    #[test]
    fn a_good_queue_is_good() {
        let c = checked(&[
            (5, Ok(id(0, 0, 0))),
            (6, Ok(id(1, 7, 0))),
            (7, Ok(id(0, 3, 0))),
            (8, Err(BadBody::Foreign)),
            // Sent again after a break: twice there, and late.
            (9, Ok(id(0, 3, 1))),
            (10, Ok(id(0, 1, 1))),
        ]);
        assert!(c.is_good(false), "{c:?}");
        assert_eq!((c.messages, c.body_bytes, c.foreign), (6, 60, 1));
        assert_eq!(c.copies_by_retry, 1);
    }

    #[test]
    fn every_fault_is_seen() {
        let gap = checked(&[(0, Ok(id(0, 0, 0))), (3, Ok(id(0, 1, 0)))]);
        assert_eq!(gap.missing_offsets, 2);
        let back = checked(&[(4, Ok(id(0, 0, 0))), (4, Ok(id(0, 1, 0)))]);
        assert_eq!(back.repeated_offsets, 1);
        let twice = checked(&[(0, Ok(id(0, 5_000, 0))), (1, Ok(id(0, 5_000, 0)))]);
        assert_eq!(twice.duplicates, 1);
        let again = checked(&[(0, Ok(id(0, 5, 2))), (1, Ok(id(0, 5, 2)))]);
        assert_eq!(again.duplicates, 1);
        let late = checked(&[(0, Ok(id(0, 5, 0))), (1, Ok(id(0, 4, 0)))]);
        assert_eq!(late.out_of_order, 1);
        assert!(late.is_good(true));
        let broken = checked(&[(0, Err(BadBody::Checksum))]);
        assert_eq!(broken.bad_bodies, 1);
        let elsewhere = checked(&[(
            0,
            Ok(BodyId {
                queue: 3,
                ..id(0, 0, 0)
            }),
        )]);
        assert_eq!(elsewhere.wrong_queue, 1);
        for bad in [gap, back, twice, again, late, broken, elsewhere] {
            assert!(!bad.is_good(false), "{bad:?}");
        }
    }

    fn record(acks: &[(u64, i64, u32)]) -> Record {
        Record {
            run: 1,
            queues: BTreeMap::from([(0, ("b".to_owned(), "T".into(), 0))]),
            acks: acks
                .iter()
                .map(|(seq, offset, count)| Ack {
                    queue: 0,
                    connection: 0,
                    seq: *seq,
                    attempt: 0,
                    offset: *offset,
                    count: *count,
                })
                .collect(),
            messages: acks.iter().map(|a| u64::from(a.2)).sum(),
        }
    }

    fn verified(acks: &[(u64, i64, u32)], read: &[(i64, u64)]) -> Verified {
        let mut v = Verifier::new(record(acks));
        assert_eq!(v.queue(&("b".to_owned(), "T".into(), 0)), Some(0));
        assert_eq!(v.queue(&("b".to_owned(), "T".into(), 1)), None);
        for (offset, seq) in read {
            v.message(0, *offset, Some(&id(0, *seq, 0)));
        }
        v.finish()
    }

    #[test]
    fn every_acknowledged_message_is_looked_for() {
        let acks = [(10, 4, 2), (0, 0, 3)];
        let all = [(0, 0), (1, 1), (2, 2), (3, 99), (4, 10), (5, 11)];
        let good = verified(&acks, &all);
        assert!(good.is_good(), "{good:?}");
        assert_eq!((good.found, good.unacked), (5, 1));
        for left_out in [0, 1, 2, 4, 5] {
            let mut some = all.to_vec();
            some.remove(left_out);
            let v = verified(&acks, &some);
            assert_eq!((v.missing, v.found), (1, 4));
            assert!(!v.is_good() && v.first_fault.is_some());
            let mut other = all.to_vec();
            other[left_out].1 = 50;
            assert_eq!(verified(&acks, &other).mismatched, 1);
        }
        assert_eq!(verified(&acks, &[]).missing, 5);
        // Two messages cannot be at one place.
        assert_eq!(verified(&[(0, 0, 1), (1, 0, 1)], &[(0, 0)]).missing, 1);
        assert!(!verified(&[], &[]).is_good());
    }
}
