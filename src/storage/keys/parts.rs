//! Building and taking apart of row keys and row values. Big-endian in keys, so that byte order
//! is the order of the numbers; LEB128 numbers in values, so that small ones are short.

use crate::model::ShardId;
use crate::storage::StoreError;

/// Byte length of what every key starts with: the shard (u32) and the kind (u8).
pub const PREFIX: usize = 5;

/// A key under construction.
pub(super) struct KeyBuf(Vec<u8>);

impl KeyBuf {
    /// Starts a key of `kind` with room for `rest` more bytes.
    pub fn new(shard: ShardId, kind: u8, rest: usize) -> Self {
        let mut bytes = Vec::with_capacity(PREFIX + rest);
        bytes.extend_from_slice(&shard.0.to_be_bytes());
        bytes.push(kind);
        Self(bytes)
    }

    pub fn u32(mut self, v: u32) -> Self {
        self.0.extend_from_slice(&v.to_be_bytes());
        self
    }

    pub fn u64(mut self, v: u64) -> Self {
        self.0.extend_from_slice(&v.to_be_bytes());
        self
    }

    /// Signed numbers get their sign bit flipped, so that negative ones come first.
    pub fn i64(self, v: i64) -> Self {
        self.u64((v as u64) ^ (1 << 63))
    }

    pub fn done(self) -> Vec<u8> {
        self.0
    }

    /// All keys that start with what was built so far.
    pub fn range(self) -> (Vec<u8>, Vec<u8>) {
        let end = successor(&self.0);
        (self.0, end)
    }
}

/// The smallest key above every key with this prefix. A prefix holds a kind byte below 255, so
/// the carry never runs out.
pub(super) fn successor(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            break;
        }
    }
    end
}

/// A key being taken apart.
pub(super) struct Parts<'a>(&'a [u8]);

impl<'a> Parts<'a> {
    /// The shard and the rest, when the key is of `kind`.
    pub fn open(key: &'a [u8], kind: u8) -> Option<(ShardId, Self)> {
        let (shard, rest) = key.split_first_chunk::<4>()?;
        let (found, rest) = rest.split_first()?;
        (*found == kind).then(|| (ShardId(u32::from_be_bytes(*shard)), Self(rest)))
    }

    pub fn u32(&mut self) -> Option<u32> {
        let (head, rest) = self.0.split_first_chunk::<4>()?;
        self.0 = rest;
        Some(u32::from_be_bytes(*head))
    }

    pub fn u64(&mut self) -> Option<u64> {
        let (head, rest) = self.0.split_first_chunk::<8>()?;
        self.0 = rest;
        Some(u64::from_be_bytes(*head))
    }

    pub fn i64(&mut self) -> Option<i64> {
        self.u64().map(|v| (v ^ (1 << 63)) as i64)
    }

    /// `Some` when nothing is left over.
    pub fn end(&self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}

/// Appends an unsigned LEB128 number.
pub(super) fn put_uint(out: &mut Vec<u8>, mut v: u64) {
    while v >= 0x80 {
        out.push((v as u8) | 0x80);
        v >>= 7;
    }
    out.push(v as u8);
}

/// Appends a signed number (zigzag, then LEB128).
pub(super) fn put_int(out: &mut Vec<u8>, v: i64) {
    put_uint(out, ((v << 1) ^ (v >> 63)) as u64);
}

/// A value being read. Every fault is [`StoreError::Corrupt`] that names the kind of row.
pub(super) struct ValueReader<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> ValueReader<'a> {
    pub fn new(bytes: &'a [u8], what: &'static str) -> Self {
        Self { rest: bytes, what }
    }

    pub fn bad(&self, why: &str) -> StoreError {
        StoreError::Corrupt(format!("{} row: {why}", self.what))
    }

    pub fn uint(&mut self) -> Result<u64, StoreError> {
        let mut v = 0u64;
        for (i, byte) in self.rest.iter().enumerate().take(10) {
            let part = u64::from(byte & 0x7f);
            if i == 9 && part > 1 {
                break;
            }
            v |= part << (7 * i);
            if byte & 0x80 == 0 {
                self.rest = &self.rest[i + 1..];
                return Ok(v);
            }
        }
        Err(self.bad("bad number"))
    }

    pub fn uint32(&mut self) -> Result<u32, StoreError> {
        let v = self.uint()?;
        u32::try_from(v).map_err(|_| self.bad("number out of range"))
    }

    pub fn int(&mut self) -> Result<i64, StoreError> {
        let v = self.uint()?;
        Ok(((v >> 1) as i64) ^ -((v & 1) as i64))
    }

    pub fn fixed<const N: usize>(&mut self) -> Result<[u8; N], StoreError> {
        let (head, rest) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or_else(|| self.bad("too short"))?;
        self.rest = rest;
        Ok(*head)
    }

    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    pub fn take_rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    pub fn end(&self) -> Result<(), StoreError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(self.bad("bytes left over"))
        }
    }
}
