//! A snapshot on its way to a follower: cut into parts, each with a checksum, sent again from where
//! the follower says it is, and complete only when a checksum over the whole is right.
//!
//! ```text
//! part    the data of a MsgSnapshot: CRC-32 of the rest u32 | CRC-32 of the whole u32
//!             | length of the whole u64 | offset u64 | bytes
//! answer  the context of a MsgSnapStatus: CRC-32 of the whole u32 | length of the whole u64
//!             | bytes held u64
//! ```
//!
//! What a follower holds it also *stages*, in rows beside its state, so that it goes on there after
//! a restart. Staged rows need not be synced: what a crash takes of them is asked for again.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use raft::eraftpb::{Message, MessageType};
use std::collections::BTreeMap;

/// Parts sent and not answered.
const WINDOW: u64 = 8;
/// So many answers that say the same mean that a part was lost.
const REPEATS: u64 = 3;
/// Longest snapshot that is taken in: the state of a shard is in memory anyway.
const MAX_LEN: u64 = 4 << 30;
const PART_HEAD: usize = 24;

/// What tells a snapshot from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotId {
    /// Index and term of the last entry it stands for.
    pub index: u64,
    pub term: u64,
    /// CRC-32 and length of its data.
    pub sum: u32,
    pub len: u64,
}

/// Changes of the rows staged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stage {
    /// Drop what is staged and begin with this snapshot.
    Begin(SnapshotId),
    /// The bytes at this offset follow those staged.
    Part { offset: u64, bytes: Bytes },
}

/// What a follower had staged when it stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Staged {
    pub id: SnapshotId,
    pub data: Vec<u8>,
}

/// A snapshot that a leader sends.
pub(super) struct Sending {
    /// The message without its data.
    message: Message,
    data: Bytes,
    id: SnapshotId,
    acked: u64,
    next: u64,
    /// The follower was asked what it holds, and has said it; nothing more goes before.
    asked: bool,
    told: bool,
    /// Answers since then that say nothing new: a part was lost.
    repeats: u64,
    /// Ticks since it last held more.
    idle: usize,
}

impl Sending {
    pub fn new(mut message: Message) -> Self {
        let snapshot = message.mut_snapshot();
        let data = snapshot.take_data();
        let meta = snapshot.get_metadata();
        let id = SnapshotId {
            index: meta.index,
            term: meta.term,
            sum: crc32fast::hash(&data),
            len: data.len() as u64,
        };
        Self {
            message,
            data,
            id,
            acked: 0,
            next: 0,
            asked: false,
            told: false,
            repeats: 0,
            idle: 0,
        }
    }

    pub fn id(&self) -> SnapshotId {
        self.id
    }

    /// The leader's term.
    pub fn term(&self) -> u64 {
        self.message.term
    }

    /// Bytes the follower holds, of how many.
    pub fn progress(&self) -> (u64, u64) {
        (self.acked, self.id.len)
    }

    /// The follower has held no more for so many ticks.
    pub fn idle(&self) -> usize {
        self.idle
    }

    /// A tick; after `patience` ticks without progress the follower is asked again what it holds.
    pub fn tick(&mut self, patience: usize) {
        self.idle += 1;
        if self.idle.is_multiple_of(patience.max(1)) {
            self.ask();
        }
    }

    /// Whatever the follower held, it may have less now.
    pub fn ask(&mut self) {
        (self.asked, self.told, self.next) = (false, false, self.acked);
    }

    /// The next part, if one may go.
    pub fn part(&mut self, size: u64) -> Option<Message> {
        let full = self.next >= self.acked + WINDOW * size || self.next == self.id.len;
        // Where the follower holds all of it already, an empty part asks for its answer.
        if (self.asked && !self.told) || (self.told && full) {
            return None;
        }
        let end = (self.next + size).min(self.id.len);
        let bytes = &self.data[self.next as usize..end as usize];
        let mut out = BytesMut::with_capacity(PART_HEAD + bytes.len());
        out.put_u32(0);
        out.put_u32(self.id.sum);
        out.put_u64(self.id.len);
        out.put_u64(self.next);
        out.put_slice(bytes);
        let sum = crc32fast::hash(&out[4..]);
        out[..4].copy_from_slice(&sum.to_be_bytes());
        let mut message = self.message.clone();
        message.mut_snapshot().set_data(out.freeze());
        self.asked = true;
        self.next = end;
        Some(message)
    }

    /// The follower says how much it holds.
    pub fn answered(&mut self, answer: &Answer) {
        if (answer.sum, answer.len) != (self.id.sum, self.id.len) || answer.have > self.id.len {
            return;
        }
        if !self.told {
            (self.asked, self.told) = (true, true);
            (self.acked, self.next, self.idle) = (answer.have, answer.have, 0);
            self.repeats = 0;
        } else if answer.have > self.acked {
            (self.acked, self.idle, self.repeats) = (answer.have, 0, 0);
            self.next = self.next.max(self.acked);
        } else if answer.have == self.acked {
            self.repeats += 1;
            if self.repeats == REPEATS {
                self.next = self.acked;
            }
        }
    }
}

/// What a follower says about a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Answer {
    pub sum: u32,
    pub len: u64,
    pub have: u64,
}

impl Answer {
    /// The answer to a part.
    pub fn to_message(self, part: &Message) -> Message {
        let mut out = Message::default();
        out.set_msg_type(MessageType::MsgSnapStatus);
        (out.to, out.term) = (part.from, part.term);
        out.from = part.to;
        out.index = part.get_snapshot().get_metadata().index;
        let mut context = BytesMut::with_capacity(20);
        context.put_u32(self.sum);
        context.put_u64(self.len);
        context.put_u64(self.have);
        out.context = context.freeze();
        out
    }

    pub fn of(message: &Message) -> Option<Self> {
        let mut from = &message.context[..];
        (from.len() == 20).then(|| Self {
            sum: from.get_u32(),
            len: from.get_u64(),
            have: from.get_u64(),
        })
    }
}

/// A part as it came.
struct Part {
    id: SnapshotId,
    offset: u64,
    bytes: Bytes,
}

impl Part {
    /// `trusting`: checksums are not looked at (a planted defect).
    fn of(message: &Message, trusting: bool) -> Result<Self, &'static str> {
        let meta = message.get_snapshot().get_metadata();
        let mut data = message.get_snapshot().data.clone();
        if data.len() < PART_HEAD {
            return Err("a snapshot's part is cut off");
        }
        if data.get_u32() != crc32fast::hash(&data) && !trusting {
            return Err("the checksum of a snapshot's part is wrong");
        }
        let id = SnapshotId {
            index: meta.index,
            term: meta.term,
            sum: data.get_u32(),
            len: data.get_u64(),
        };
        let offset = data.get_u64();
        let end = offset.checked_add(data.len() as u64);
        if id.len > MAX_LEN || end.is_none_or(|end| end > id.len) {
            return Err("a snapshot's part lies outside of it");
        }
        Ok(Self {
            id,
            offset,
            bytes: data,
        })
    }
}

/// A snapshot that a follower collects.
pub(super) struct Receiving {
    id: SnapshotId,
    /// Term of the leader it comes from; 0 for one found at start.
    leader_term: u64,
    data: Vec<u8>,
    /// Parts that overtook others, by offset.
    ahead: BTreeMap<u64, Bytes>,
}

/// What came of a part.
pub(super) struct Received {
    pub answer: Answer,
    pub stage: Vec<Stage>,
    /// All of it is there and right.
    pub whole: Option<Bytes>,
}

impl Receiving {
    /// What an earlier life had staged.
    pub fn restored(staged: Staged) -> Self {
        Self {
            id: staged.id,
            leader_term: 0,
            data: staged.data,
            ahead: BTreeMap::new(),
        }
    }

    pub fn progress(&self) -> (u64, u64) {
        (self.data.len() as u64, self.id.len)
    }

    /// Takes in a part. A complete snapshot is not held any longer.
    pub fn take(
        now: &mut Option<Self>,
        message: &Message,
        trusting: bool,
    ) -> Result<Received, &'static str> {
        let part = Part::of(message, trusting)?;
        let mut stage = Vec::new();
        // What an earlier leader, or this one, sent before does not displace what came later.
        let other = now.as_ref().filter(|held| held.id != part.id);
        let order = other.map(|held| {
            let now = (message.term, part.id.index);
            now.cmp(&(held.leader_term, held.id.index))
        });
        if order.is_some_and(|order| order.is_lt()) {
            return Err("a part of an earlier snapshot");
        }
        if order.is_some_and(|order| order.is_eq()) && part.offset > 0 {
            // Of two at the same index nobody can say which came first: the one that begins anew counts. Whoever
            // sends this one has to know that nothing of it is here.
            let answer = Answer {
                sum: part.id.sum,
                len: part.id.len,
                have: 0,
            };
            return Ok(Received {
                answer,
                stage,
                whole: None,
            });
        }
        if other.is_some() || now.is_none() {
            *now = Some(Self {
                id: part.id,
                leader_term: message.term,
                data: Vec::new(),
                ahead: BTreeMap::new(),
            });
            stage.push(Stage::Begin(part.id));
        }
        let Some(held) = now else {
            return Err("no snapshot");
        };
        held.leader_term = held.leader_term.max(message.term);
        let reached = held.data.len() as u64;
        let room = part.offset == reached || (held.ahead.len() as u64) < 2 * WINDOW;
        if part.offset >= reached && !part.bytes.is_empty() && room {
            held.ahead.insert(part.offset, part.bytes);
        }
        while let Some(bytes) = held.ahead.remove(&(held.data.len() as u64)) {
            let offset = held.data.len() as u64;
            held.data.extend_from_slice(&bytes);
            stage.push(Stage::Part { offset, bytes });
        }
        let reached = held.data.len() as u64;
        held.ahead.retain(|offset, _| *offset > reached);
        let mut answer = Answer {
            sum: part.id.sum,
            len: part.id.len,
            have: held.data.len() as u64,
        };
        let mut whole = None;
        if answer.have == answer.len {
            let data = now.take().map_or(Vec::new(), |held| held.data);
            match crc32fast::hash(&data) == answer.sum || trusting {
                true => whole = Some(data.into()),
                // From the beginning.
                false => answer.have = 0,
            }
        }
        Ok(Received {
            answer,
            stage,
            whole,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(data: &[u8], index: u64) -> Message {
        let mut m = Message::default();
        m.set_msg_type(MessageType::MsgSnapshot);
        (m.to, m.from, m.term) = (1, 2, 5);
        let snapshot = m.mut_snapshot();
        snapshot.set_data(Bytes::copy_from_slice(data));
        let meta = snapshot.mut_metadata();
        (meta.index, meta.term) = (index, 3);
        m
    }

    fn data(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i * 7 + i / 256) as u8).collect()
    }

    /// Sends until nothing goes any more; every answer comes. What arrived whole.
    fn run(sending: &mut Sending, held: &mut Option<Receiving>, parts: usize) -> Option<Bytes> {
        for _ in 0..parts {
            let part = sending.part(100)?;
            let got = Receiving::take(held, &part, false).unwrap();
            let answer = got.answer.to_message(&part);
            sending.answered(&Answer::of(&answer).unwrap());
            if got.whole.is_some() {
                return got.whole;
            }
        }
        None
    }

    /// As when a part that was late came to a follower with a new store: another base of the same index.
    #[test]
    fn who_holds_another_snapshot_of_the_index_is_sent_it_from_the_beginning() {
        let (one, two) = (data(900), data(1_234));
        let mut held = None;
        let mut late = Sending::new(snapshot(&one, 9));
        assert_eq!(run(&mut late, &mut held, 1), None);
        let mut sending = Sending::new(snapshot(&two, 9));
        assert_eq!(run(&mut sending, &mut None, 3), None);
        assert_eq!(sending.progress(), (300, 1_234));
        sending.ask();
        assert_eq!(run(&mut sending, &mut held, 50).unwrap(), two);
    }

    #[test]
    fn parts_make_up_the_whole_and_a_restart_goes_on() {
        let data = data(1_234);
        let mut sending = Sending::new(snapshot(&data, 9));
        let mut held = None;
        assert_eq!(run(&mut sending, &mut held, 5), None);
        assert_eq!(sending.progress(), (500, 1_234));
        // The follower restarts with less than it had said.
        let staged = Staged {
            id: sending.id(),
            data: data[..300].to_vec(),
        };
        held = Some(Receiving::restored(staged));
        sending.ask();
        assert_eq!(run(&mut sending, &mut held, 1), None);
        assert_eq!(sending.progress(), (300, 1_234));
        assert_eq!(run(&mut sending, &mut held, 50).unwrap(), data);
        assert!(held.is_none() && sending.part(100).is_none());
        // The last answer was lost: it is asked once more, and has nothing.
        sending.ask();
        assert_eq!(run(&mut sending, &mut held, 50).unwrap(), data);
    }

    #[test]
    fn lost_and_repeated_parts_do_no_harm() {
        let data = data(2_000);
        let mut sending = Sending::new(snapshot(&data, 9));
        let mut held = None;
        run(&mut sending, &mut held, 1);
        let first = sending.part(100).unwrap();
        let second = sending.part(100).unwrap();
        // Overtaken, then twice.
        for part in [&second, &first, &first] {
            let got = Receiving::take(&mut held, part, false).unwrap();
            sending.answered(&got.answer);
        }
        assert_eq!(sending.progress(), (300, 2_000));
        let mut more = 0;
        while sending.part(100).is_some() {
            more += 1;
        }
        assert_eq!(more, WINDOW, "at most so many are under way");
        // The first of them is lost: the answers to the others all say the same.
        for _ in 0..REPEATS {
            let answer = Answer {
                sum: sending.id.sum,
                len: 2_000,
                have: 300,
            };
            sending.answered(&answer);
        }
        assert_eq!(run(&mut sending, &mut held, 1), None);
        assert_eq!(sending.progress(), (400, 2_000));
        while sending.part(100).is_some() {}
        // All of them are.
        for _ in 0..10 {
            sending.tick(10);
        }
        assert_eq!(run(&mut sending, &mut held, 50).unwrap(), data);
    }

    #[test]
    fn damaged_and_impossible_parts_are_refused() {
        let data = data(150);
        let mut sending = Sending::new(snapshot(&data, 9));
        let part = sending.part(100).unwrap();
        let good = part.get_snapshot().data.clone();
        for at in 0..good.len() {
            let mut bad = good.to_vec();
            bad[at] ^= 1;
            let mut m = part.clone();
            m.mut_snapshot().set_data(bad.into());
            assert!(Receiving::take(&mut None, &m, false).is_err(), "byte {at}");
            m.mut_snapshot().set_data(good.slice(..at));
            assert!(
                Receiving::take(&mut None, &m, false).is_err(),
                "cut at {at}"
            );
        }
        // Right parts of a wrong whole.
        let mut other = Sending::new(snapshot(&[1; 150], 9));
        other.id.sum ^= 1;
        let mut held = None;
        let mut whole = None;
        for _ in 0..2 {
            let part = other.part(100).unwrap();
            let got = Receiving::take(&mut held, &part, false).unwrap();
            other.answered(&got.answer);
            whole = got.whole;
        }
        assert_eq!((whole, other.progress().0), (None, 100));
        assert!(held.is_none());
    }

    #[test]
    fn an_older_snapshot_does_not_displace_a_newer_one() {
        let mut held = None;
        let mut newer = Sending::new(snapshot(&data(300), 9));
        run(&mut newer, &mut held, 2);
        let old = Sending::new(snapshot(&data(200), 8)).part(100).unwrap();
        assert!(Receiving::take(&mut held, &old, false).is_err());
        let mut of_next_leader = snapshot(&data(200), 8);
        of_next_leader.term = 6;
        let part = Sending::new(of_next_leader).part(100).unwrap();
        let got = Receiving::take(&mut held, &part, false).unwrap();
        assert!(matches!(
            got.stage[..],
            [Stage::Begin(_), Stage::Part { .. }]
        ));
        assert_eq!(run(&mut newer, &mut held, 0), None);
    }
}
