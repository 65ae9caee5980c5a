//! Frames of a peer link: `length u32 | CRC-32 u32 | body`, big-endian; the length counts what
//! follows it. After the handshake a body is `number u64` and messages
//! `kind u8 | shard u32 | length u32 | bytes`. Frames are numbered from 0, so that a lost or
//! repeated one is seen.
//!
//! A ping and its answer are `value u64 | the sender's wall clock i64, ms since 1970`. What an end
//! adds behind that is left alone by one that does not know it.

use super::{Lane, PeerMessage};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::collections::VecDeque;
use std::io::IoSlice;

/// Length field and checksum.
pub const HEAD: usize = 8;
/// The number at the start of a body.
pub const NUMBER: usize = 8;
/// Before the bytes of a message.
pub const MESSAGE_HEAD: usize = 9;
/// Messages this long are sent from where they lie.
const BY_REFERENCE: usize = 8 * 1024;

/// Why a frame was refused; the connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("a frame of {0} bytes is not allowed")]
    Length(usize),
    #[error("a frame's checksum is wrong")]
    Checksum,
    #[error("frame {found} where {expected} should be")]
    Number { expected: u64, found: u64 },
    #[error("a message of unknown kind {0}")]
    Kind(u8),
    #[error("a message is cut off")]
    CutOff,
}

/// What a message of a frame is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    Ping(Beat),
    Pong(Beat),
    Message(PeerMessage),
}

/// What a ping or its answer holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beat {
    /// The answer repeats it.
    pub value: u64,
    /// The sender's wall clock, ms since 1970.
    pub wall_ms: i64,
}

impl Beat {
    const BYTES: usize = 16;

    fn encode(self) -> Bytes {
        let mut out = BytesMut::with_capacity(Self::BYTES);
        out.put_u64(self.value);
        out.put_i64(self.wall_ms);
        out.freeze()
    }

    fn decode(mut bytes: Bytes) -> Result<Self, FrameError> {
        if bytes.len() < Self::BYTES {
            return Err(FrameError::CutOff);
        }
        Ok(Self {
            value: bytes.get_u64(),
            wall_ms: bytes.get_i64(),
        })
    }
}

const PING: u8 = 1;
const PONG: u8 = 2;

fn kind_of(lane: Lane) -> u8 {
    match lane {
        Lane::Raft => 16,
        Lane::Forward => 17,
        Lane::Bulk => 18,
    }
}

fn lane_of(kind: u8) -> Option<Lane> {
    match kind {
        16 => Some(Lane::Raft),
        17 => Some(Lane::Forward),
        18 => Some(Lane::Bulk),
        _ => None,
    }
}

/// Takes one whole body off the front; `None` when more bytes are needed.
pub fn split(buf: &mut BytesMut, max: usize) -> Result<Option<Bytes>, FrameError> {
    if buf.len() < 4 {
        return Ok(None);
    }
    let len = u32::from_be_bytes([buf[0], buf[1], buf[2], buf[3]]) as usize;
    if len < 4 || len > max {
        return Err(FrameError::Length(len));
    }
    if buf.len() < 4 + len {
        return Ok(None);
    }
    buf.advance(4);
    let mut frame = buf.split_to(len);
    let sum = frame.get_u32();
    if crc32fast::hash(&frame) != sum {
        return Err(FrameError::Checksum);
    }
    Ok(Some(frame.freeze()))
}

/// One frame around `body`, for the handshake.
pub fn whole(body: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(HEAD + body.len());
    out.put_u32(body.len() as u32 + 4);
    out.put_u32(crc32fast::hash(body));
    out.put_slice(body);
    out.freeze()
}

/// Reads the messages of a body.
pub fn items(mut body: Bytes, expected: u64) -> Result<Vec<Item>, FrameError> {
    if body.len() < NUMBER {
        return Err(FrameError::CutOff);
    }
    let found = body.get_u64();
    if found != expected {
        return Err(FrameError::Number { expected, found });
    }
    let mut out = Vec::new();
    while !body.is_empty() {
        if body.len() < MESSAGE_HEAD {
            return Err(FrameError::CutOff);
        }
        let kind = body.get_u8();
        let shard = body.get_u32();
        let len = body.get_u32() as usize;
        if body.len() < len {
            return Err(FrameError::CutOff);
        }
        let bytes = body.split_to(len);
        out.push(match (kind, lane_of(kind)) {
            (_, Some(lane)) => Item::Message(PeerMessage { lane, shard, bytes }),
            (PING, _) => Item::Ping(Beat::decode(bytes)?),
            (PONG, _) => Item::Pong(Beat::decode(bytes)?),
            _ => return Err(FrameError::Kind(kind)),
        });
    }
    Ok(out)
}

/// A frame being built: small messages are copied together, long ones stay where they are.
#[derive(Default)]
pub struct FrameBuilder {
    parts: VecDeque<Bytes>,
    tail: BytesMut,
    len: usize,
}

impl FrameBuilder {
    /// Bytes of messages so far.
    pub fn len(&self) -> usize {
        self.len
    }

    /// No message so far.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds a message.
    pub fn message(&mut self, lane: Lane, shard: u32, bytes: Bytes) {
        self.put(kind_of(lane), shard, bytes);
    }
    /// Adds a ping.
    pub fn ping(&mut self, beat: Beat) {
        self.put(PING, 0, beat.encode());
    }
    /// Adds the answer to a ping.
    pub fn pong(&mut self, beat: Beat) {
        self.put(PONG, 0, beat.encode());
    }

    fn put(&mut self, kind: u8, shard: u32, bytes: Bytes) {
        self.len += MESSAGE_HEAD + bytes.len();
        self.tail.put_u8(kind);
        self.tail.put_u32(shard);
        self.tail.put_u32(bytes.len() as u32);
        if bytes.len() < BY_REFERENCE {
            self.tail.put_slice(&bytes);
        } else {
            self.parts.push_back(self.tail.split().freeze());
            self.parts.push_back(bytes);
        }
    }

    /// The finished frame as a buffer for one vectored write.
    pub fn finish(mut self, number: u64) -> FrameBuf {
        if !self.tail.is_empty() {
            self.parts.push_back(self.tail.split().freeze());
        }
        let number = number.to_be_bytes();
        let mut sum = crc32fast::Hasher::new();
        sum.update(&number);
        for part in &self.parts {
            sum.update(part);
        }
        let mut head = BytesMut::with_capacity(HEAD + NUMBER);
        head.put_u32((4 + NUMBER + self.len) as u32);
        head.put_u32(sum.finalize());
        head.put_slice(&number);
        self.parts.push_front(head.freeze());
        let left = HEAD + NUMBER + self.len;
        FrameBuf {
            parts: self.parts,
            left,
        }
    }
}

/// See [`FrameBuilder::finish`].
pub struct FrameBuf {
    parts: VecDeque<Bytes>,
    left: usize,
}

impl Buf for FrameBuf {
    fn remaining(&self) -> usize {
        self.left
    }
    fn chunk(&self) -> &[u8] {
        self.parts.front().map_or(&[], |p| p)
    }
    fn chunks_vectored<'a>(&'a self, dst: &mut [IoSlice<'a>]) -> usize {
        let mut n = 0;
        for (slot, part) in dst.iter_mut().zip(&self.parts) {
            *slot = IoSlice::new(part);
            n += 1;
        }
        n
    }
    fn advance(&mut self, mut n: usize) {
        self.left -= n;
        while let Some(first) = self.parts.front_mut() {
            if n < first.len() {
                first.advance(n);
                return;
            }
            n -= first.len();
            self.parts.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beat(value: u64) -> Beat {
        Beat {
            value,
            wall_ms: -1_700_000_000_000,
        }
    }

    fn frame(number: u64, messages: &[(Lane, u32, Vec<u8>)]) -> BytesMut {
        let mut builder = FrameBuilder::default();
        builder.ping(beat(7));
        for (lane, shard, bytes) in messages {
            builder.message(*lane, *shard, Bytes::from(bytes.clone()));
        }
        builder.pong(beat(8));
        let mut buf = builder.finish(number);
        let mut out = BytesMut::new();
        while buf.has_remaining() {
            // As a socket that takes little at a time.
            let n = buf.chunk().len().min(1_000);
            out.extend_from_slice(&buf.chunk()[..n]);
            buf.advance(n);
        }
        out
    }

    #[test]
    fn messages_come_back_as_they_were() {
        let sent = vec![
            (Lane::Raft, 1, vec![1; 10]),
            (Lane::Forward, 2, vec![2; BY_REFERENCE + 1]),
            (Lane::Bulk, u32::MAX, vec![]),
            (Lane::Raft, 3, vec![3; 100_000]),
        ];
        let mut bytes = frame(5, &sent);
        bytes.extend_from_slice(&frame(6, &[]));
        let first = split(&mut bytes, 1 << 20).unwrap().unwrap();
        let got = items(first, 5).unwrap();
        assert_eq!(got.first(), Some(&Item::Ping(beat(7))));
        assert_eq!(got.last(), Some(&Item::Pong(beat(8))));
        let got: Vec<_> = got
            .into_iter()
            .filter_map(|i| match i {
                Item::Message(m) => Some((m.lane, m.shard, m.bytes.to_vec())),
                _ => None,
            })
            .collect();
        assert_eq!(got, sent);
        let second = split(&mut bytes, 1 << 20).unwrap().unwrap();
        assert_eq!(items(second, 6).unwrap().len(), 2);
        assert_eq!(split(&mut bytes, 1 << 20), Ok(None));
    }

    #[test]
    fn any_changed_byte_is_refused() {
        let good = frame(0, &[(Lane::Raft, 1, vec![9; 50])]);
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            let outcome = split(&mut bad, good.len()).map(|body| body.map(|b| items(b, 0)));
            let refused = match outcome {
                Err(_) | Ok(None) => true,
                Ok(Some(items)) => items.is_err(),
            };
            assert!(refused, "byte {at}");
        }
    }

    #[test]
    fn lengths_numbers_and_kinds_are_checked() {
        for len in [0u32, 3, 101, u32::MAX] {
            let mut bytes = BytesMut::from(&len.to_be_bytes()[..]);
            assert_eq!(
                split(&mut bytes, 100),
                Err(FrameError::Length(len as usize))
            );
        }
        let body = |bytes: &[u8]| Bytes::copy_from_slice(bytes);
        let number = |n: u64| n.to_be_bytes();
        assert_eq!(items(body(&[1, 2]), 0), Err(FrameError::CutOff));
        let wrong = FrameError::Number {
            expected: 1,
            found: 2,
        };
        assert_eq!(items(body(&number(2)), 1), Err(wrong));
        let with = |rest: &[u8]| body(&[&number(0)[..], rest].concat());
        assert_eq!(
            items(with(&[99, 0, 0, 0, 0, 0, 0, 0, 0]), 0),
            Err(FrameError::Kind(99))
        );
        assert_eq!(items(with(&[16, 0, 0]), 0), Err(FrameError::CutOff));
        assert_eq!(
            items(with(&[16, 0, 0, 0, 0, 0, 0, 0, 9, 1]), 0),
            Err(FrameError::CutOff)
        );
        assert_eq!(
            items(with(&[1, 0, 0, 0, 0, 0, 0, 0, 1, 1]), 0),
            Err(FrameError::CutOff)
        );
    }
}
