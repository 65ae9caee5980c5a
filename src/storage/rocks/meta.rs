//! Rows of the column family `meta`, written with WAL: per shard the bounds of its log, its hard
//! state and its mark. Key: `shard u32 | kind u8`, big-endian.

use super::marks::Mark;
use crate::model::ShardId;
use crate::storage::{HardState, Standing, StoreError};

/// Present after a clean close, removed at open.
pub(super) const CLEAN: &[u8] = b"clean-close";

/// How often the store was opened.
pub(super) const LIFE: &[u8] = b"life";

/// A number no other store has: milliseconds since 1970 and 16 random bits.
pub(super) const STORE: &[u8] = b"store";

/// The machine's boot at the last opening.
pub(super) const BOOT: &[u8] = b"boot";

/// Present from the first unsynced entry of a life on.
pub(super) const LOOSE: &[u8] = b"loose";

pub(super) fn parse_life(value: &[u8]) -> Result<u64, StoreError> {
    let [life] = numbers(value, "life")?;
    Ok(life)
}

pub(super) fn parse_store(value: &[u8]) -> Result<u64, StoreError> {
    let [store] = numbers(value, "store number")?;
    Ok(store)
}

#[derive(Clone, Copy)]
#[repr(u8)]
pub(super) enum MetaKind {
    /// First index kept and term before it.
    Bounds = 1,
    HardState = 2,
    Mark = 3,
    /// What the replica has to regain; absent when it is whole.
    Standing = 4,
    /// A copy of an entry whose own one is bad; the index follows in the key. Its stored form.
    Mended = 5,
}

pub(super) fn key(shard: ShardId, kind: MetaKind) -> [u8; 5] {
    let [a, b, c, d] = shard.0.to_be_bytes();
    [a, b, c, d, kind as u8]
}

/// Key of the mended copy of an entry.
pub(super) fn mended(shard: ShardId, index: u64) -> [u8; 13] {
    let mut out = [0; 13];
    out[..5].copy_from_slice(&key(shard, MetaKind::Mended));
    out[5..].copy_from_slice(&index.to_be_bytes());
    out
}

fn numbers<const N: usize>(value: &[u8], what: &str) -> Result<[u64; N], StoreError> {
    if value.len() != N * 8 {
        return Err(StoreError::Corrupt(format!(
            "{what} row has {} bytes",
            value.len()
        )));
    }
    let mut out = [0u64; N];
    for (to, from) in out.iter_mut().zip(value.chunks_exact(8)) {
        *to = from.iter().fold(0, |n, byte| n << 8 | u64::from(*byte));
    }
    Ok(out)
}

pub(super) fn bounds(first: u64, trimmed_term: u64) -> [u8; 16] {
    pair(first, trimmed_term)
}

pub(super) fn parse_bounds(value: &[u8]) -> Result<(u64, u64), StoreError> {
    let [first, term] = numbers(value, "log bounds")?;
    Ok((first, term))
}

pub(super) fn hard_state(h: &HardState) -> [u8; 24] {
    let mut out = [0; 24];
    out[..8].copy_from_slice(&h.term.to_be_bytes());
    out[8..16].copy_from_slice(&h.vote.to_be_bytes());
    out[16..].copy_from_slice(&h.commit.to_be_bytes());
    out
}

pub(super) fn parse_hard_state(value: &[u8]) -> Result<HardState, StoreError> {
    let [term, vote, commit] = numbers(value, "hard state")?;
    Ok(HardState { term, vote, commit })
}

pub(super) fn standing(s: Standing) -> [u8; 24] {
    let (kind, kept, reached) = match s {
        Standing::Whole => (0u64, 0, 0),
        Standing::Unsynced { kept } => (1, kept, 0),
        Standing::Forgotten { kept, reached } => (2, kept, reached),
    };
    let mut out = [0; 24];
    out[..8].copy_from_slice(&kind.to_be_bytes());
    out[8..].copy_from_slice(&pair(kept, reached));
    out
}

pub(super) fn parse_standing(value: &[u8]) -> Result<Standing, StoreError> {
    let [kind, kept, reached] = numbers(value, "standing")?;
    match kind {
        0 => Ok(Standing::Whole),
        1 => Ok(Standing::Unsynced { kept }),
        2 => Ok(Standing::Forgotten { kept, reached }),
        _ => Err(StoreError::Corrupt(
            "standing row of an unknown kind".into(),
        )),
    }
}

pub(super) fn mark(m: Mark) -> [u8; 16] {
    pair(m.epoch, m.index)
}

pub(super) fn parse_mark(value: &[u8]) -> Result<Mark, StoreError> {
    let [epoch, index] = numbers(value, "synced mark")?;
    Ok(Mark { epoch, index })
}

fn pair(a: u64, b: u64) -> [u8; 16] {
    let mut out = [0; 16];
    out[..8].copy_from_slice(&a.to_be_bytes());
    out[8..].copy_from_slice(&b.to_be_bytes());
    out
}
