//! A snapshot for a follower whose next entries were trimmed.
//!
//! The log is the database, so it carries the state only, which is small: members, and the *base*
//! that the shard's machine makes of itself. Its index is that of the last entry trimmed; all
//! behind it follows as ordinary entries, which raft sends, checks and repeats as it does always.
//! The data travels in parts: see [`super::transfer`].
//!
//! ```text
//! data   CRC-32 of the rest u32 | length of members u32 | members (prost) | base
//! ```

use super::members::Members;
use super::message::MessageError;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message as _;
use raft::eraftpb::Message;

/// A snapshot to be installed: the log is empty then and goes on behind `index`.
#[derive(Debug, Clone)]
pub struct Snapshot {
    pub index: u64,
    pub term: u64,
    pub members: Members,
    pub base: Bytes,
}

pub(super) fn encode(members: &Members, base: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(base.len() + 256);
    out.put_u32(0);
    out.put_u32(members.encoded_len() as u32);
    // A buffer that grows takes everything.
    let _ = members.encode(&mut out);
    out.put_slice(base);
    let sum = crc32fast::hash(&out[4..]);
    out[..4].copy_from_slice(&sum.to_be_bytes());
    out.freeze()
}

/// `trusting`: the checksum is not looked at (a planted defect).
pub(super) fn decode(mut data: Bytes, trusting: bool) -> Result<(Members, Bytes), &'static str> {
    if data.len() < 8 {
        return Err("a snapshot is cut off");
    }
    if data.get_u32() != crc32fast::hash(&data) && !trusting {
        return Err("a snapshot's checksum is wrong");
    }
    let len = data.get_u32() as usize;
    if data.len() < len {
        return Err("a snapshot's members are cut off");
    }
    let members = Members::decode(data.split_to(len)).map_err(|_| "a snapshot without members")?;
    Ok((members, data))
}

/// What raft would take for granted of a snapshot.
pub(super) fn check(m: &Message, trusting: bool) -> Result<(), MessageError> {
    let snapshot = m.get_snapshot();
    let meta = snapshot.get_metadata();
    if meta.index == 0 || meta.index > u64::MAX >> 1 || meta.term == 0 || meta.term > m.term {
        return Err(MessageError::Impossible("a snapshot's index or term"));
    }
    let data = Bytes::copy_from_slice(snapshot.get_data());
    let (members, _) = decode(data, trusting).map_err(MessageError::Impossible)?;
    let sorted = |ids: &[u64]| ids.windows(2).all(|w| w[0] < w[1]) && !ids.contains(&0);
    let sets = [&members.voters, &members.learners, &members.voters_outgoing];
    let proper = !members.voters.is_empty()
        && sets.iter().all(|ids| sorted(ids))
        && members.learners.iter().all(|l| !members.has_vote(*l))
        && members
            .learners_next
            .iter()
            .all(|l| members.voters_outgoing.contains(l))
        && *meta.get_conf_state() == members.to_raft();
    match proper {
        true => Ok(()),
        false => Err(MessageError::Impossible("a snapshot's members")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use raft::eraftpb::MessageType;

    #[test]
    fn a_snapshot_comes_back_and_damaged_ones_are_refused() {
        let members = Members::of(vec![1, 2]);
        let data = encode(&members, b"base");
        let back = decode(data.clone(), false).unwrap();
        assert_eq!(back, (members.clone(), Bytes::from_static(b"base")));
        let message = |data: &[u8]| {
            let mut m = Message::default();
            m.set_msg_type(MessageType::MsgSnapshot);
            m.term = 3;
            let snapshot = m.mut_snapshot();
            snapshot.set_data(data.to_vec().into());
            let meta = snapshot.mut_metadata();
            (meta.index, meta.term) = (7, 3);
            meta.set_conf_state(members.to_raft());
            m
        };
        assert_eq!(check(&message(&data), false), Ok(()));
        for at in 0..data.len() {
            let mut bad = data.to_vec();
            bad[at] ^= 4;
            assert!(check(&message(&bad), false).is_err(), "byte {at}");
            assert!(check(&message(&data[..at]), false).is_err(), "cut at {at}");
        }
        let change = |change: &dyn Fn(&mut Message)| {
            let mut m = message(&data);
            change(&mut m);
            check(&m, false).is_err()
        };
        assert!(change(&|m| m.mut_snapshot().mut_metadata().index = 0));
        assert!(change(&|m| m.mut_snapshot().mut_metadata().term = 4));
        assert!(change(&|m| m
            .mut_snapshot()
            .mut_metadata()
            .mut_conf_state()
            .set_voters(vec![1])));
        let twice = Members {
            voters: vec![1, 1],
            ..Members::default()
        };
        assert!(check(&message(&encode(&twice, b"")), false).is_err());
    }
}
