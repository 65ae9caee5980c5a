//! What gateways of one shard say to each other over a peer link. Pure.
//!
//! `kind u8 | epoch u64 | connection u64 | fields`, big-endian. The connection is the number that
//! the node which serves the client gave it; the epoch tells a link, or an opening of the connection
//! at the other node, from the one before it.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::net::SocketAddr;

/// A message between the node that a client is connected to and the node that leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// To the leader: a client's connection, with both its addresses.
    Open { peer: SocketAddr, local: SocketAddr },
    /// To the leader: a frame as the client sent it, under a number for the answer.
    Frame(u64, Bytes),
    /// To the leader: the client's last heartbeat, not to be answered.
    Beat(Bytes),
    /// To the leader: everything that it refused of this client is known; what follows is in
    /// order.
    GoOn,
    /// To the leader: the client's connection closed.
    Close,
    /// To any replica that came back: a client that is known, by its last heartbeat, and for how
    /// long that may be believed.
    Known {
        peer: SocketAddr,
        left_ms: u32,
        beat: Bytes,
    },
    /// From the leader: frames for the client, which of its requests are answered with them, and
    /// which were not begun because the node does not lead.
    Answer {
        done: Vec<u64>,
        refused: Vec<u64>,
        frames: Bytes,
    },
    /// From the leader: requests that it may have done, or not.
    Unsure(Vec<u64>),
    /// From the leader: it forgets the connection.
    Closed,
}

/// [`Said`] about one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Talk {
    pub epoch: u64,
    pub conn: u64,
    pub said: Said,
}

const OPEN: u8 = 1;
const FRAME: u8 = 2;
const BEAT: u8 = 3;
const CLOSE: u8 = 4;
const ANSWER: u8 = 5;
const CLOSED: u8 = 6;
const UNSURE: u8 = 7;
const KNOWN: u8 = 8;
const GO_ON: u8 = 9;
/// Most numbers in an answer: more cannot be unanswered.
const MAX_NUMBERS: usize = 1_000_000;

impl Talk {
    /// This goes to the node that leads.
    pub fn to_leader(&self) -> bool {
        !matches!(
            self.said,
            Said::Answer { .. } | Said::Unsure(_) | Said::Closed
        )
    }

    /// Its bytes.
    pub fn encode(&self) -> Bytes {
        let size = match &self.said {
            Said::Frame(_, b) => b.len() + 8,
            Said::Beat(b) => b.len(),
            Said::Answer {
                done,
                refused,
                frames,
            } => frames.len() + 8 * (done.len() + refused.len()) + 8,
            Said::Unsure(which) => 8 * which.len() + 4,
            Said::Known { beat, .. } => beat.len() + 64,
            _ => 64,
        };
        let mut out = BytesMut::with_capacity(17 + size);
        let kind = match &self.said {
            Said::Open { .. } => OPEN,
            Said::Frame(..) => FRAME,
            Said::GoOn => GO_ON,
            Said::Beat(_) => BEAT,
            Said::Close => CLOSE,
            Said::Answer { .. } => ANSWER,
            Said::Unsure(_) => UNSURE,
            Said::Closed => CLOSED,
            Said::Known { .. } => KNOWN,
        };
        out.put_u8(kind);
        out.put_u64(self.epoch);
        out.put_u64(self.conn);
        match &self.said {
            Said::Open { peer, local } => {
                put_addr(&mut out, peer);
                put_addr(&mut out, local);
            }
            Said::Known {
                peer,
                left_ms,
                beat,
            } => {
                out.put_u32(*left_ms);
                put_addr(&mut out, peer);
                out.put_slice(beat);
            }
            Said::Frame(number, bytes) => {
                out.put_u64(*number);
                out.put_slice(bytes);
            }
            Said::Beat(bytes) => out.put_slice(bytes),
            Said::Answer {
                done,
                refused,
                frames,
            } => {
                put_numbers(&mut out, done);
                put_numbers(&mut out, refused);
                out.put_slice(frames);
            }
            Said::Unsure(which) => put_numbers(&mut out, which),
            Said::GoOn | Said::Close | Said::Closed => {}
        }
        out.freeze()
    }

    /// Reads it; `None` when it makes no sense.
    pub fn decode(mut bytes: Bytes) -> Option<Self> {
        if bytes.len() < 17 {
            return None;
        }
        let kind = bytes.get_u8();
        let (epoch, conn) = (bytes.get_u64(), bytes.get_u64());
        let said = match kind {
            OPEN => Said::Open {
                peer: addr(&mut bytes)?,
                local: addr(&mut bytes)?,
            },
            FRAME => Said::Frame(bytes.try_get_u64().ok()?, bytes),
            GO_ON => Said::GoOn,
            BEAT => Said::Beat(bytes),
            CLOSE => Said::Close,
            ANSWER => Said::Answer {
                done: numbers(&mut bytes)?,
                refused: numbers(&mut bytes)?,
                frames: bytes,
            },
            UNSURE => Said::Unsure(numbers(&mut bytes)?),
            CLOSED => Said::Closed,
            KNOWN => Said::Known {
                left_ms: bytes.try_get_u32().ok()?,
                peer: addr(&mut bytes)?,
                beat: bytes,
            },
            _ => return None,
        };
        Some(Self { epoch, conn, said })
    }
}

fn put_numbers(out: &mut BytesMut, numbers: &[u64]) {
    out.put_u32(numbers.len() as u32);
    numbers.iter().for_each(|n| out.put_u64(*n));
}

fn put_addr(out: &mut BytesMut, addr: &SocketAddr) {
    let text = addr.to_string();
    out.put_u8(text.len() as u8);
    out.put_slice(text.as_bytes());
}

fn addr(bytes: &mut Bytes) -> Option<SocketAddr> {
    let len = usize::from(*bytes.first()?);
    let text = bytes.get(1..1 + len)?;
    let addr = std::str::from_utf8(text).ok()?.parse().ok()?;
    bytes.advance(1 + len);
    Some(addr)
}

fn numbers(bytes: &mut Bytes) -> Option<Vec<u64>> {
    if bytes.len() < 4 {
        return None;
    }
    let count = bytes.get_u32() as usize;
    if count > MAX_NUMBERS || bytes.len() < count * 8 {
        return None;
    }
    Some((0..count).map(|_| bytes.get_u64()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_said_comes_back_and_cut_off_it_is_refused() {
        let all = [
            Said::Open {
                peer: "127.0.0.1:1".parse().unwrap(),
                local: "[2001:db8::1]:10911".parse().unwrap(),
            },
            Said::Frame(u64::MAX, Bytes::from_static(b"frame")),
            Said::Beat(Bytes::from_static(b"beat")),
            Said::GoOn,
            Said::Close,
            Said::Answer {
                done: vec![1, 2],
                refused: vec![u64::MAX],
                frames: Bytes::from_static(b"frames"),
            },
            Said::Unsure(vec![3]),
            Said::Closed,
            Said::Known {
                peer: "127.0.0.1:1".parse().unwrap(),
                left_ms: 40_000,
                beat: Bytes::from_static(b"beat"),
            },
        ];
        for said in all {
            let talk = Talk {
                epoch: 7,
                conn: u64::MAX,
                said,
            };
            let bytes = talk.encode();
            assert_eq!(Talk::decode(bytes.clone()), Some(talk.clone()));
            let open = match &talk.said {
                Said::Frame(..) => 25,
                Said::Beat(_) | Said::GoOn | Said::Close | Said::Closed => 17,
                Said::Answer { .. } => bytes.len() - 6,
                Said::Open { .. } | Said::Unsure(_) => bytes.len(),
                Said::Known { .. } => bytes.len() - 4,
            };
            for cut in 0..open {
                assert_eq!(Talk::decode(bytes.slice(..cut)), None, "{talk:?} {cut}");
            }
        }
        let mut many = vec![ANSWER; 17];
        many.extend(u32::MAX.to_be_bytes());
        assert_eq!(Talk::decode(many.into()), None);
    }
}
