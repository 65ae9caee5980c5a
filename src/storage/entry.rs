//! The stored form of a log entry, the same in every implementation of the log store:
//!
//! ```text
//! crc32 u32 | data length u32 | term u64 | commit u64 | kind u8 | data
//! ```
//!
//! big-endian. The checksum covers the entry's index (which is the key) and everything behind
//! it, so an entry found under a wrong index, cut short or changed is never served. `commit` is
//! the commit index the writer knew when it wrote the entry; it serves repair tools only.

use super::{LogEntry, StoreError};
use bytes::Bytes;

/// Bytes in front of the data.
pub const HEADER: usize = 25;

/// The largest data of one entry (far above what one proposal may carry).
pub const MAX_DATA: usize = 1 << 30;

/// Appends the stored form of `entry` to `out`.
pub fn encode(entry: &LogEntry, commit: u64, out: &mut Vec<u8>) -> Result<(), StoreError> {
    if entry.data.len() > MAX_DATA {
        return Err(StoreError::Io(format!(
            "entry {} is too large: {} bytes",
            entry.index,
            entry.data.len()
        )));
    }
    let mut head = [0u8; HEADER];
    head[4..8].copy_from_slice(&(entry.data.len() as u32).to_be_bytes());
    head[8..16].copy_from_slice(&entry.term.to_be_bytes());
    head[16..24].copy_from_slice(&commit.to_be_bytes());
    head[24] = entry.kind;
    let crc = checksum(entry.index, &head[4..], &entry.data);
    head[..4].copy_from_slice(&crc.to_be_bytes());
    out.reserve(HEADER + entry.data.len());
    out.extend_from_slice(&head);
    out.extend_from_slice(&entry.data);
    Ok(())
}

/// Reads the stored form back and verifies it. Copies the data once.
pub fn decode(index: u64, stored: &[u8]) -> Result<LogEntry, StoreError> {
    let bad = |why: &str| StoreError::BadEntry {
        index,
        why: why.into(),
    };
    let (head, data) = stored
        .split_first_chunk::<HEADER>()
        .ok_or_else(|| bad("too short"))?;
    let u32_at =
        |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    if u32_at(4) as usize != data.len() {
        return Err(bad("length does not match"));
    }
    if u32_at(0) != checksum(index, &head[4..], data) {
        return Err(bad("checksum does not match"));
    }
    let term = (u64::from(u32_at(8)) << 32) | u64::from(u32_at(12));
    Ok(LogEntry {
        index,
        term,
        kind: head[24],
        data: Bytes::copy_from_slice(data),
    })
}

/// What lies there, when it has the length that it names: a checksum that does not match is not looked at.
pub fn unverified(index: u64, stored: &[u8]) -> Option<LogEntry> {
    let found = unchecked(index, stored);
    let length = stored.get(4..8)?.try_into().ok().map(u32::from_be_bytes)?;
    let whole = stored.len() >= HEADER && found.data.len() == length as usize;
    whole.then_some(found)
}

/// For the simulation of a defect: what [`decode`] gives, unverified.
pub fn unchecked(index: u64, stored: &[u8]) -> LogEntry {
    let number = |range: std::ops::Range<usize>| {
        let bytes = stored.get(range).unwrap_or_default().iter();
        bytes.fold(0u64, |n, byte| n << 8 | u64::from(*byte))
    };
    LogEntry {
        index,
        term: number(8..16),
        kind: number(24..25) as u8,
        data: Bytes::copy_from_slice(stored.get(HEADER..).unwrap_or_default()),
    }
}

fn checksum(index: u64, head: &[u8], data: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&index.to_be_bytes());
    crc.update(head);
    crc.update(data);
    crc.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> (LogEntry, Vec<u8>) {
        let entry = LogEntry {
            index: 7,
            term: 1 << 40 | 3,
            kind: 2,
            data: Bytes::from_static(b"some records"),
        };
        let mut out = Vec::new();
        encode(&entry, 5, &mut out).unwrap();
        (entry, out)
    }

    #[test]
    fn reads_back_what_was_written() {
        let (entry, stored) = sample();
        assert_eq!(decode(7, &stored), Ok(entry));
    }

    #[test]
    fn any_changed_bit_cut_or_wrong_index_is_corrupt() {
        let (_, stored) = sample();
        for bit in 0..stored.len() * 8 {
            let mut changed = stored.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(
                decode(7, &changed).is_err_and(|e| e.is_corrupt()),
                "bit {bit}"
            );
        }
        for len in 0..stored.len() {
            assert!(
                decode(7, &stored[..len]).is_err_and(|e| e.is_corrupt()),
                "length {len}"
            );
        }
        assert!(decode(8, &stored).is_err_and(|e| e.is_corrupt()));
    }
}
