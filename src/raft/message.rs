//! Messages between the replicas of a shard, as bytes.
//!
//! ```text
//! version u8 = 2 | flags u8 | sender's store u64 | sender's life u64
//!     | receiver's life as the sender knows it u64 | eraftpb.Message | promise
//! ```
//!
//! Big-endian. Flag 1: a vote is asked for, or given, of which the candidate needs all; from a
//! leader: all voted for it. Flag 2: the sender's store is new or damaged. Flag 4: a vote that breaks
//! the sender's promise to the leader before. Flag 8: a promise ends the message, see
//! [`Head::promise_ms`]. The promise has the form of a protobuf field that nobody else uses (number
//! 1001, fixed32), so that versions without promises in messages skip it.
//!
//! A *life* counts the
//! starts of a replica on one *store*; see [`super::core`]. What comes in is checked here before
//! raft sees it, because raft takes its peers' word and panics on nonsense.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use protobuf::Message as _;
use raft::eraftpb::{Message, MessageType};

const VERSION: u8 = 2;
const HEAD: usize = 26;
const FLAG_ALL: u8 = 1;
const FLAG_FORGOTTEN: u8 = 2;
const FLAG_EARLY: u8 = 4;
const FLAG_PROMISE: u8 = 8;
/// The tag of field 1001, fixed32, in front of a promise.
const PROMISE_TAG: [u8; 2] = [0xcd, 0x3e];
const PROMISE: usize = 6;
/// Terms grow by elections: one beyond this was never reached by counting.
const MAX_TERM: u64 = 1 << 48;

/// A message that is not taken in. Nothing happened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    #[error("the bytes are no raft message: {0}")]
    Malformed(&'static str),
    /// It is for another node.
    #[error("a message for node {0}")]
    NotForUs(u64),
    /// The sender named in it is not the one it came from.
    #[error("a message of node {0} came from another node")]
    Forged(u64),
    /// The sender is no member of the shard, or is none any more.
    #[error("node {0} is no member of the shard")]
    Stranger(u64),
    /// The sender has restarted since.
    #[error("a message from before node {0} restarted")]
    Outdated(u64),
    /// Its content cannot come from a correct replica.
    #[error("impossible message: {0}")]
    Impossible(&'static str),
    /// The leader's log differs where this replica's is committed: one of the two was lost and
    /// begun anew. Nothing that this replica says can be right.
    #[error(
        "committed entry {index} is of term {own} here and of term {theirs} in the leader's log: \
         this replica belongs to another history of the group, and has to begin with an empty \
         data directory"
    )]
    OtherLog { index: u64, own: u64, theirs: u64 },
}

/// What goes along with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Head {
    /// The sender's store.
    pub store: u64,
    pub sender_life: u64,
    pub receiver_life: u64,
    /// The candidate needs every vote, not a majority; a leader has got every vote.
    pub all: bool,
    /// The sender's store is new or damaged: what it promised before is not known to it.
    pub forgotten: bool,
    /// A vote given before the sender's promise to the leader before was over.
    pub early: bool,
    /// Milliseconds. In an answer to a leader: for so long, from when the leader was heard, the
    /// sender gives no vote, or says so in it. In a vote: what is left of such a promise. From a
    /// leader only that promises are read. `None`: the sender is of a version that says nothing.
    pub promise_ms: Option<u32>,
}

/// The bytes of a message.
pub(super) fn encode(message: &Message, head: Head) -> Option<Bytes> {
    let size = message.compute_size() as usize;
    let mut out = BytesMut::with_capacity(HEAD + size + PROMISE);
    out.put_u8(VERSION);
    let flag = |on: bool, bit: u8| if on { bit } else { 0 };
    out.put_u8(
        flag(head.all, FLAG_ALL)
            | flag(head.forgotten, FLAG_FORGOTTEN)
            | flag(head.early, FLAG_EARLY)
            | flag(head.promise_ms.is_some(), FLAG_PROMISE),
    );
    out.put_u64(head.store);
    out.put_u64(head.sender_life);
    out.put_u64(head.receiver_life);
    let mut out = out.writer();
    message.write_to_writer(&mut out).ok()?;
    let mut out = out.into_inner();
    if let Some(ms) = head.promise_ms {
        out.put_slice(&PROMISE_TAG);
        out.put_u32_le(ms);
    }
    Some(out.freeze())
}

/// Reads what [`encode`] wrote; data of entries are slices of `bytes`.
pub(super) fn decode(bytes: &Bytes) -> Result<(Head, Message), MessageError> {
    if bytes.len() < HEAD {
        return Err(MessageError::Malformed("too short"));
    }
    let mut from = bytes.slice(..HEAD);
    if from.get_u8() != VERSION {
        return Err(MessageError::Malformed("version is not known here"));
    }
    let flags = from.get_u8();
    let mut body = bytes.slice(HEAD..);
    let mut promise_ms = None;
    if flags & FLAG_PROMISE != 0 {
        let at = body.len().checked_sub(PROMISE);
        let at = at.filter(|at| body[*at..].starts_with(&PROMISE_TAG));
        let mut promise = body.split_off(at.ok_or(MessageError::Malformed("no promise"))?);
        promise.advance(PROMISE_TAG.len());
        promise_ms = Some(promise.get_u32_le());
    }
    let head = Head {
        all: flags & FLAG_ALL != 0,
        forgotten: flags & FLAG_FORGOTTEN != 0,
        early: flags & FLAG_EARLY != 0,
        promise_ms,
        store: from.get_u64(),
        sender_life: from.get_u64(),
        receiver_life: from.get_u64(),
    };
    let message = Message::parse_from_carllerche_bytes(&body)
        .map_err(|_| MessageError::Malformed("does not parse"))?;
    Ok((head, message))
}

/// For the simulation of a defect: the message with a bit of its snapshot's part changed; `None`
/// for one that holds none.
pub fn spoiled_snapshot(bytes: &Bytes, bit: u32) -> Option<Bytes> {
    let (head, mut m) = decode(bytes).ok()?;
    if m.get_msg_type() != MessageType::MsgSnapshot {
        return None;
    }
    let snapshot = m.mut_snapshot();
    let mut data = snapshot.take_data().to_vec();
    *data.last_mut()? ^= 1 << (bit % 8);
    snapshot.set_data(data.into());
    encode(&m, head)
}

/// What a message rests on, see [`said`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Said {
    /// The sender has entered this term.
    pub term: u64,
    /// The sender gave its vote in it to this node.
    pub vote: Option<u64>,
    /// The sender's log holds what the leader's does, up to this index.
    pub holds: Option<u64>,
    /// The sender follows the leader that it says so to.
    pub follows: bool,
    /// The sender leads, and gives the receiver entries of its log, or says how far it is committed.
    pub appends: bool,
}

/// For the simulation: what must be on the sender's disk before this message leaves. `None` for one
/// that rests on nothing: a question before a vote, the answer to it, what is held of a snapshot.
pub fn said(bytes: &Bytes) -> Option<Said> {
    let (_, m) = decode(bytes).ok()?;
    let kind = m.get_msg_type();
    let of_no_term = matches!(
        kind,
        MessageType::MsgRequestPreVote
            | MessageType::MsgRequestPreVoteResponse
            | MessageType::MsgSnapStatus
    );
    let votes = kind == MessageType::MsgRequestVoteResponse && !m.reject;
    let stands = kind == MessageType::MsgRequestVote;
    let holds = kind == MessageType::MsgAppendResponse && !m.reject;
    (!of_no_term).then_some(Said {
        term: m.term,
        vote: match (votes, stands) {
            (true, _) => Some(m.to),
            (_, true) => Some(m.from),
            _ => None,
        },
        holds: holds.then_some(m.index),
        follows: kind == MessageType::MsgHeartbeatResponse,
        appends: kind == MessageType::MsgAppend,
    })
}

/// Checks that need no state of the replica.
pub(super) fn check(node: u64, from: u64, m: &Message) -> Result<(), MessageError> {
    use MessageType::*;
    if m.to != node {
        return Err(MessageError::NotForUs(m.to));
    }
    if m.from != from || from == 0 || from == node {
        return Err(MessageError::Forged(m.from));
    }
    // Proposals, reads and transfers are forwarded by the shell to the leader, as what they are.
    match m.get_msg_type() {
        MsgAppend
        | MsgAppendResponse
        | MsgRequestVote
        | MsgRequestVoteResponse
        | MsgRequestPreVote
        | MsgRequestPreVoteResponse
        | MsgHeartbeat
        | MsgHeartbeatResponse
        | MsgTimeoutNow
        | MsgSnapshot
        | MsgSnapStatus => {}
        _ => return Err(MessageError::Impossible("a kind that stays inside a node")),
    }
    if m.term == 0 || m.term > MAX_TERM || m.log_term > m.term {
        return Err(MessageError::Impossible("term out of range"));
    }
    let mut term = m.log_term;
    for (e, index) in m.get_entries().iter().zip(m.index.saturating_add(1)..) {
        if e.index != index {
            return Err(MessageError::Impossible("entries with a gap"));
        }
        if e.term < term || e.term > m.term {
            return Err(MessageError::Impossible("an entry's term out of order"));
        }
        term = e.term;
    }
    if m.index > u64::MAX >> 1 || m.commit > u64::MAX >> 1 || m.reject_hint > u64::MAX >> 1 {
        return Err(MessageError::Impossible("an index out of range"));
    }
    Ok(())
}

/// Only a candidate or a leader says this; it may be a member this replica has not heard of yet.
pub(super) fn opens_a_talk(kind: MessageType) -> bool {
    use MessageType::*;
    matches!(
        kind,
        MsgAppend | MsgHeartbeat | MsgSnapshot | MsgRequestVote | MsgRequestPreVote
    )
}

/// Asks for a vote.
pub(super) fn asks_vote(kind: MessageType) -> bool {
    use MessageType::*;
    matches!(kind, MsgRequestVote | MsgRequestPreVote)
}

/// Answers a request for a vote.
pub(super) fn answers_vote(kind: MessageType) -> bool {
    use MessageType::*;
    matches!(kind, MsgRequestVoteResponse | MsgRequestPreVoteResponse)
}

/// Answers what a leader says.
pub(super) fn answers_leader(kind: MessageType) -> bool {
    use MessageType::*;
    matches!(kind, MsgAppendResponse | MsgHeartbeatResponse)
}

#[cfg(test)]
mod tests {
    use super::*;
    use raft::eraftpb::Entry;

    fn append() -> Message {
        let mut m = Message::default();
        m.set_msg_type(MessageType::MsgAppend);
        (m.to, m.from, m.term, m.log_term, m.index) = (1, 2, 5, 4, 9);
        let entry = |index, term| Entry {
            index,
            term,
            data: Bytes::from_static(b"data"),
            ..Entry::default()
        };
        m.set_entries(vec![entry(10, 4), entry(11, 5)].into());
        m
    }

    #[test]
    fn what_is_sent_comes_back_and_every_cut_is_refused() {
        let sent = Head {
            store: 2,
            sender_life: 3,
            receiver_life: 4,
            all: true,
            forgotten: false,
            early: true,
            promise_ms: Some(175),
        };
        let bytes = encode(&append(), sent).unwrap();
        assert_eq!(decode(&bytes).unwrap(), (sent, append()));
        let silent = Head {
            promise_ms: None,
            ..sent
        };
        let before = encode(&append(), silent).unwrap();
        assert_eq!(decode(&before).unwrap(), (silent, append()));
        for cut in 0..HEAD {
            assert!(decode(&bytes.slice(..cut)).is_err());
        }
        for cut in HEAD..bytes.len() {
            // Fields may be missing, but then the checks see it, or raft sees a smaller message.
            if let Ok((_, m)) = decode(&bytes.slice(..cut)) {
                let _ = check(1, 2, &m);
            }
        }
    }

    #[test]
    fn versions_without_promises_skip_them() {
        let head = Head {
            promise_ms: Some(u32::MAX),
            ..Head::default()
        };
        let bytes = encode(&append(), head).unwrap();
        // What they read: the flags they know, and all behind the head as one message.
        let mut read = Message::parse_from_carllerche_bytes(&bytes.slice(HEAD..)).unwrap();
        assert!(read.unknown_fields.get(1001).is_some());
        read.unknown_fields = Default::default();
        assert_eq!(read, append());
        // A promise that is announced and not there.
        let mut cut = bytes.to_vec();
        cut.truncate(bytes.len() - 1);
        let cut = decode(&cut.into());
        assert_eq!(cut, Err(MessageError::Malformed("no promise")));
    }

    #[test]
    fn nonsense_is_refused() {
        let ok = |m: &Message| check(1, 2, m);
        assert_eq!(ok(&append()), Ok(()));
        assert_eq!(check(3, 2, &append()), Err(MessageError::NotForUs(1)));
        assert_eq!(check(1, 3, &append()), Err(MessageError::Forged(2)));
        let bad = |change: &dyn Fn(&mut Message)| {
            let mut m = append();
            change(&mut m);
            assert!(matches!(ok(&m), Err(MessageError::Impossible(_))), "{m:?}");
        };
        bad(&|m| m.term = 0);
        bad(&|m| m.term = u64::MAX);
        bad(&|m| m.log_term = 6);
        bad(&|m| m.index = 8);
        bad(&|m| m.commit = u64::MAX);
        bad(&|m| m.mut_entries()[1].term = 3);
        bad(&|m| m.mut_entries()[1].term = 6);
        for kind in [
            MessageType::MsgHup,
            MessageType::MsgPropose,
            MessageType::MsgReadIndex,
            MessageType::MsgReadIndexResp,
            MessageType::MsgTransferLeader,
            MessageType::MsgUnreachable,
        ] {
            bad(&|m| m.set_msg_type(kind));
        }
    }
}
