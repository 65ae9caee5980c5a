//! Bodies that say who sent them and prove that they are whole.
//!
//! ```text
//! 0  magic "TBM1"     8  run id (u32)      16  number in its connection (u64)   32  queue id (i32)
//! 4  CRC-32 of 8..    12 connection (u16)  24  intended send time, ns (u64)     36  hash of the topic
//!                     14 attempt (u16)                                          40  filling
//! ```
//! Numbers are big-endian.

use bytes::{BufMut, BytesMut};

/// Smallest body.
pub(super) const MIN_SIZE: usize = 40;
/// Bytes of incompressible filling that bodies are cut from.
const POOL: usize = 64 * 1024;
const MAGIC: u32 = u32::from_be_bytes(*b"TBM1");

/// Who sent a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BodyId {
    /// The generator's run.
    pub run: u32,
    /// Connection of that run.
    pub connection: u16,
    /// 0 for the first try, more for each repetition.
    pub attempt: u16,
    /// Number of the message in its connection, from 0.
    pub seq: u64,
    /// When it should have been sent, ns of the sender's monotonic clock.
    pub due: u64,
    /// The queue it was sent to.
    pub queue: i32,
    /// [`topic_hash`] of the topic it was sent to.
    pub topic: u32,
}

/// Why a body is not what was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadBody {
    /// Not made by this generator.
    Foreign,
    /// The checksum differs.
    Checksum,
}

/// A short hash of a topic's name.
pub(super) fn topic_hash(topic: &str) -> u32 {
    crc32fast::hash(topic.as_bytes())
}

/// Makes bodies of one size.
#[derive(Debug)]
pub(super) struct Bodies {
    size: usize,
    pool: Vec<u8>,
}

impl Bodies {
    /// Bodies of `size` bytes, at least [`MIN_SIZE`].
    pub(super) fn new(size: usize) -> Self {
        let size = size.max(MIN_SIZE);
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let mut pool = Vec::with_capacity(POOL + size);
        while pool.len() < POOL + size {
            // xorshift64*
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            pool.extend_from_slice(&state.wrapping_mul(0x2545_F491_4F6C_DD1D).to_be_bytes());
        }
        Self { size, pool }
    }

    /// Length of each body.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// Appends a body.
    pub(super) fn put(&self, out: &mut BytesMut, id: &BodyId) {
        let mut head = [0; MIN_SIZE];
        let mut at = &mut head[..];
        at.put_u32(MAGIC);
        at.put_u32(0);
        at.put_u32(id.run);
        at.put_u16(id.connection);
        at.put_u16(id.attempt);
        at.put_u64(id.seq);
        at.put_u64(id.due);
        at.put_i32(id.queue);
        at.put_u32(id.topic);
        // The filling moves on with every message, so that neighbours do not compress either.
        let shift = (id.seq as usize).wrapping_mul(97) % POOL;
        let filling = &self.pool[shift..shift + (self.size - MIN_SIZE)];
        let mut crc = crc32fast::Hasher::new();
        crc.update(&head[8..]);
        crc.update(filling);
        head[4..8].copy_from_slice(&crc.finalize().to_be_bytes());
        out.extend_from_slice(&head);
        out.extend_from_slice(filling);
    }
}

/// Checks a body and reads who sent it.
pub(super) fn check(body: &[u8]) -> Result<BodyId, BadBody> {
    let head: &[u8; MIN_SIZE] = body.first_chunk().ok_or(BadBody::Foreign)?;
    if u32::from_be_bytes(part(head, 0)) != MAGIC {
        return Err(BadBody::Foreign);
    }
    if u32::from_be_bytes(part(head, 4)) != crc32fast::hash(&body[8..]) {
        return Err(BadBody::Checksum);
    }
    Ok(BodyId {
        run: u32::from_be_bytes(part(head, 8)),
        connection: u16::from_be_bytes(part(head, 12)),
        attempt: u16::from_be_bytes(part(head, 14)),
        seq: u64::from_be_bytes(part(head, 16)),
        due: u64::from_be_bytes(part(head, 24)),
        queue: i32::from_be_bytes(part(head, 32)),
        topic: u32::from_be_bytes(part(head, 36)),
    })
}

fn part<const N: usize>(head: &[u8; MIN_SIZE], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&head[at..at + N]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: BodyId = BodyId {
        run: 7,
        connection: 65_535,
        attempt: 2,
        seq: u64::MAX,
        due: 123_456_789_012,
        queue: 5,
        topic: 9,
    };

    #[test]
    fn a_body_says_who_sent_it() {
        for size in [0, MIN_SIZE, 41, 1_024, 100_000] {
            let bodies = Bodies::new(size);
            let mut out = BytesMut::new();
            bodies.put(&mut out, &ID);
            assert_eq!(out.len(), size.max(MIN_SIZE));
            assert_eq!(check(&out), Ok(ID));
        }
    }

    #[test]
    fn every_changed_bit_is_seen() {
        let mut out = BytesMut::new();
        Bodies::new(100).put(&mut out, &ID);
        for bit in 0..out.len() * 8 {
            out[bit / 8] ^= 1 << (bit % 8);
            assert!(check(&out).is_err(), "{bit}");
            out[bit / 8] ^= 1 << (bit % 8);
        }
        for len in 0..out.len() {
            assert!(check(&out[..len]).is_err(), "{len}");
        }
    }
}
