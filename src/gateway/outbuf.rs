//! Bytes waiting to be written to one connection: frames appended by value, big bodies by
//! reference.

use bytes::{Buf, Bytes, BytesMut};
use std::collections::VecDeque;
use std::io::IoSlice;

/// Bodies at least this long are sent from where they lie.
const BY_REFERENCE: usize = 8 * 1024;
/// Most slices of one vectored write.
pub const MAX_SLICES: usize = 64;

/// See the module text.
#[derive(Debug, Default)]
pub struct OutBuf {
    ready: VecDeque<Bytes>,
    tail: BytesMut,
    len: usize,
}

impl OutBuf {
    /// Bytes waiting.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends what `write` writes.
    pub fn append(&mut self, write: impl FnOnce(&mut BytesMut)) {
        let before = self.tail.len();
        write(&mut self.tail);
        self.len += self.tail.len().saturating_sub(before);
    }

    /// Appends `bytes`, without copying when they are many.
    pub fn push(&mut self, bytes: Bytes) {
        self.len += bytes.len();
        if bytes.len() < BY_REFERENCE {
            self.tail.extend_from_slice(&bytes);
            return;
        }
        self.close_tail();
        self.ready.push_back(bytes);
    }

    fn close_tail(&mut self) {
        if !self.tail.is_empty() {
            let tail = self.tail.split().freeze();
            self.ready.push_back(tail);
        }
    }

    /// The first bytes that wait, as slices for one write.
    pub fn slices<'a>(&'a mut self, out: &mut Vec<IoSlice<'a>>) {
        self.close_tail();
        out.extend(self.ready.iter().take(MAX_SLICES).map(|b| IoSlice::new(b)));
    }

    /// Forgets `n` bytes that were written.
    pub fn written(&mut self, mut n: usize) {
        self.len -= n.min(self.len);
        while n > 0 {
            let Some(first) = self.ready.front_mut() else {
                return;
            };
            if n < first.len() {
                first.advance(n);
                return;
            }
            n -= first.len();
            self.ready.pop_front();
        }
    }

    /// Gives back room that nothing waits in.
    pub fn shrink(&mut self) {
        if self.is_empty() {
            self.clear();
        }
    }

    /// Takes everything as one piece.
    pub fn take(&mut self) -> Bytes {
        self.close_tail();
        let all = std::mem::take(&mut self.ready);
        self.len = 0;
        match all.len() {
            0 => Bytes::new(),
            1 => all.into_iter().next().unwrap_or_default(),
            _ => {
                let mut out = BytesMut::with_capacity(all.iter().map(Bytes::len).sum());
                all.iter().for_each(|part| out.extend_from_slice(part));
                out.freeze()
            }
        }
    }

    /// Drops everything.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(out: &mut OutBuf, step: usize) -> Vec<u8> {
        let mut got = Vec::new();
        while !out.is_empty() {
            let mut slices = Vec::new();
            out.slices(&mut slices);
            let all: Vec<u8> = slices.iter().flat_map(|s| s.to_vec()).collect();
            let n = step.min(all.len());
            got.extend_from_slice(&all[..n]);
            out.written(n);
        }
        got
    }

    #[test]
    fn order_survives_mixed_pushes_and_partial_writes() {
        for step in [997, 5_000, usize::MAX] {
            let mut out = OutBuf::default();
            let mut want = Vec::new();
            for i in 0..20u8 {
                let small = vec![i; 30];
                out.append(|b| b.extend_from_slice(&small));
                want.extend_from_slice(&small);
                let body = vec![i ^ 0xFF; if i % 2 == 0 { 10 } else { BY_REFERENCE + 1 }];
                out.push(Bytes::from(body.clone()));
                want.extend_from_slice(&body);
            }
            assert_eq!(out.len(), want.len());
            out.shrink();
            assert!(drain(&mut out, step) == want, "step {step}");
            assert_eq!(out.len(), 0);
        }
    }
}
