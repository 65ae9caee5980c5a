//! Splits a byte stream into remoting frames.
//!
//! A frame is a 4-byte length of what follows, one byte of header format, three bytes of header
//! length, the header and the body. Every length is checked as soon as its bytes are there, so a
//! lying peer is refused before anything is buffered or allocated for it.

use bytes::{Buf, Bytes, BytesMut};
use thiserror::Error;

/// How a frame's header is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HeaderFormat {
    /// Type byte 0: JSON text. What every client sends unless told otherwise.
    #[default]
    Json,
    /// Type byte 1: RocketMQ's binary form.
    Binary,
}

impl HeaderFormat {
    /// The frame's type byte.
    pub fn type_byte(self) -> u8 {
        match self {
            HeaderFormat::Json => 0,
            HeaderFormat::Binary => 1,
        }
    }
}

/// Sizes a peer may ask for.
#[derive(Debug, Clone, Copy)]
pub struct FrameLimits {
    /// Largest frame in bytes, its own length field included. Java's limit on both sides is
    /// 16 MiB.
    pub max_frame: usize,
    /// Largest header in bytes.
    pub max_header: usize,
}

impl Default for FrameLimits {
    fn default() -> Self {
        FrameLimits {
            max_frame: 16 * 1024 * 1024,
            max_header: MAX_HEADER,
        }
    }
}

/// Largest header accepted by default: 32 KiB of properties in which every character is escaped
/// (six bytes each) fit with room to spare.
pub const MAX_HEADER: usize = 256 * 1024;

/// One frame, header and body still undecoded. Both share the read buffer's memory.
#[derive(Debug, Clone)]
pub struct RawFrame {
    /// How `header` is written.
    pub serialize: HeaderFormat,
    /// Header bytes, never empty.
    pub header: Bytes,
    /// Body bytes, maybe empty.
    pub body: Bytes,
}

/// A peer's frame that cannot be right; the connection must be closed, since the stream has lost
/// its framing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FrameError {
    /// The length field is zero, negative, or too small to hold a header.
    #[error("frame length {0} is too small")]
    TooSmall(i32),
    /// The frame is longer than allowed.
    #[error("frame of {len} bytes exceeds the limit of {max}")]
    TooLarge {
        /// Claimed size, length field included.
        len: usize,
        /// Allowed size.
        max: usize,
    },
    /// The header length does not fit into the frame, is zero, or exceeds the limit.
    #[error("header length {header} is wrong in a frame of {frame} bytes")]
    BadHeaderLength {
        /// Claimed header length.
        header: usize,
        /// Claimed frame length.
        frame: usize,
    },
    /// The type byte is neither JSON nor binary.
    #[error("unknown header serialization {0}")]
    UnknownSerialization(u8),
}

/// Takes the first whole frame off `buf`, or `None` when more bytes are needed.
///
/// `buf` is left as it is on `None` and on an error, and is never grown here: it holds what was
/// received, whatever length the peer claims.
pub fn split_frame(
    buf: &mut BytesMut,
    limits: &FrameLimits,
) -> Result<Option<RawFrame>, FrameError> {
    let Some(len_bytes) = buf.first_chunk::<4>() else {
        return Ok(None);
    };
    let claimed = i32::from_be_bytes(*len_bytes);
    // The type-and-length word and one byte of header at least.
    let len = match usize::try_from(claimed) {
        Ok(len) if len >= 5 => len,
        _ => return Err(FrameError::TooSmall(claimed)),
    };
    let total = len.saturating_add(4);
    if total > limits.max_frame {
        return Err(FrameError::TooLarge {
            len: total,
            max: limits.max_frame,
        });
    }
    let Some(&[_, _, _, _, kind, h1, h2, h3]) = buf.first_chunk::<8>() else {
        return Ok(None);
    };
    let serialize = match kind {
        0 => HeaderFormat::Json,
        1 => HeaderFormat::Binary,
        other => return Err(FrameError::UnknownSerialization(other)),
    };
    let header_len = u32::from_be_bytes([0, h1, h2, h3]) as usize;
    if header_len == 0 || header_len > len - 4 || header_len > limits.max_header {
        return Err(FrameError::BadHeaderLength {
            header: header_len,
            frame: len,
        });
    }
    if buf.len() < total {
        return Ok(None);
    }
    buf.advance(8);
    let header = buf.split_to(header_len).freeze();
    let body = buf.split_to(len - 4 - header_len).freeze();
    Ok(Some(RawFrame {
        serialize,
        header,
        body,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BufMut;

    fn frame(kind: u8, header: &[u8], body: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        out.put_u32((4 + header.len() + body.len()) as u32);
        out.put_u32((kind as u32) << 24 | header.len() as u32);
        out.extend_from_slice(header);
        out.extend_from_slice(body);
        out
    }

    #[test]
    fn frames_come_out_whole_whatever_the_chunks() {
        let mut wire = frame(0, b"{}", b"body");
        wire.extend(frame(1, b"bin", b""));
        for chunk in 1..wire.len() {
            let mut buf = BytesMut::new();
            let mut got = Vec::new();
            for piece in wire.chunks(chunk) {
                buf.extend_from_slice(piece);
                while let Some(f) = split_frame(&mut buf, &FrameLimits::default()).unwrap() {
                    got.push(f);
                }
            }
            assert_eq!(got.len(), 2);
            assert_eq!(
                (&got[0].header[..], &got[0].body[..]),
                (&b"{}"[..], &b"body"[..])
            );
            assert_eq!(got[1].serialize, HeaderFormat::Binary);
            assert!(got[1].body.is_empty() && buf.is_empty());
        }
    }

    #[test]
    fn bad_lengths_are_refused_from_the_length_field_alone() {
        let limits = FrameLimits::default();
        for len in [0i32, -1, i32::MIN, 4] {
            let mut buf = BytesMut::from(&len.to_be_bytes()[..]);
            assert_eq!(
                split_frame(&mut buf, &limits).unwrap_err(),
                FrameError::TooSmall(len)
            );
        }
        for len in [i32::MAX, 16 * 1024 * 1024 - 3] {
            let mut buf = BytesMut::from(&len.to_be_bytes()[..]);
            assert!(matches!(
                split_frame(&mut buf, &limits).unwrap_err(),
                FrameError::TooLarge { .. }
            ));
        }
        let mut buf = BytesMut::from(&(16 * 1024 * 1024 - 4i32).to_be_bytes()[..]);
        assert!(split_frame(&mut buf, &limits).unwrap().is_none());
        assert!(
            buf.capacity() < 1024,
            "nothing is reserved for a claimed length"
        );
    }

    #[test]
    fn bad_header_words_are_refused_before_the_rest_arrives() {
        let limits = FrameLimits::default();
        for (word, frame_len) in [
            (0u32, 100i32),
            (97, 100),
            (0x00FF_FFFF, 100),
            (MAX_HEADER as u32 + 1, 1_000_000),
        ] {
            let mut buf = BytesMut::new();
            buf.put_i32(frame_len);
            buf.put_u32(word);
            assert!(matches!(
                split_frame(&mut buf, &limits).unwrap_err(),
                FrameError::BadHeaderLength { .. }
            ));
        }
        let mut buf = BytesMut::from(&frame(2, b"{}", b"")[..8]);
        assert_eq!(
            split_frame(&mut buf, &limits).unwrap_err(),
            FrameError::UnknownSerialization(2)
        );
    }
}
