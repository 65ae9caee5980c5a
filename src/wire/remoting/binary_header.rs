//! RocketMQ's binary header form (type byte 1).

use super::code;
use super::frame::HeaderFormat;
use super::header::{Command, DecodeError, ExtFields, Language, FLAG_RESPONSE, MAX_KEYS};
use bytes::Bytes;
use bytestring::ByteString;

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let (head, tail) = self
            .0
            .split_at_checked(len)
            .ok_or(DecodeError::Binary("a length exceeds the header"))?;
        self.0 = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        self.take(N)?
            .try_into()
            .map_err(|_| DecodeError::Binary("too short"))
    }

    /// A 4-byte length and that many bytes.
    fn block(&mut self) -> Result<&'a [u8], DecodeError> {
        let len = i32::from_be_bytes(self.array()?);
        let len = usize::try_from(len).map_err(|_| DecodeError::Binary("negative length"))?;
        self.take(len)
    }
}

fn text(bytes: &[u8]) -> Result<&str, DecodeError> {
    std::str::from_utf8(bytes).map_err(|_| DecodeError::NotUtf8)
}

/// Decodes a binary header; the body is left empty. Zero-length values are absent, as in Java.
pub fn decode(header: &Bytes) -> Result<Command, DecodeError> {
    let mut r = Reader(header);
    let wire_code = i16::from_be_bytes(r.array()?);
    let [language] = r.array()?;
    let version = i16::from_be_bytes(r.array()?);
    let opaque = i32::from_be_bytes(r.array()?);
    let flag = i32::from_be_bytes(r.array()?);
    let remark = text(r.block()?)?;
    let mut entries = Reader(r.block()?);
    if !r.0.is_empty() {
        return Err(DecodeError::Binary("bytes after the ext fields"));
    }

    let mut ext = ExtFields::builder();
    let mut keys = 0;
    while !entries.0.is_empty() {
        keys += 1;
        if keys > MAX_KEYS {
            return Err(DecodeError::Limit("256 keys"));
        }
        let key_len = i16::from_be_bytes(entries.array()?);
        let key_len =
            usize::try_from(key_len).map_err(|_| DecodeError::Binary("negative length"))?;
        let key = text(entries.take(key_len)?)?;
        let value = text(entries.block()?)?;
        if !key.is_empty() && !value.is_empty() {
            let key = ext.copy(key);
            let value = ext.copy(value);
            ext.push(key, value);
        }
    }
    let code = i32::from(wire_code);
    Ok(Command {
        code: if flag & FLAG_RESPONSE == 0 {
            code::uncut(code)
        } else {
            code
        },
        language: Language(language),
        version: i32::from(version),
        opaque,
        flag,
        remark: (!remark.is_empty()).then(|| ByteString::from(remark)),
        ext: ext.finish(ByteString::new()),
        format: HeaderFormat::Binary,
        body: Bytes::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::{BufMut, BytesMut};

    fn header(remark_len: i32, ext_len: i32, ext: &[u8]) -> Bytes {
        let mut out = BytesMut::new();
        out.put_i16(11);
        out.put_u8(9);
        out.put_i16(317);
        out.put_i32(7);
        out.put_i32(0);
        out.put_i32(remark_len);
        out.put_i32(ext_len);
        out.extend_from_slice(ext);
        out.freeze()
    }

    #[test]
    fn repeated_keys_and_empty_values() {
        let ext = b"\0\x01a\0\0\0\x011\0\x01b\0\0\0\0\0\x01a\0\0\0\x012";
        let cmd = decode(&header(0, ext.len() as i32, ext)).unwrap();
        assert_eq!(
            (cmd.code, cmd.language, cmd.version),
            (11, Language::GO, 317)
        );
        assert_eq!(cmd.ext("a"), Some("2"), "the last of a repeated key");
        assert_eq!(cmd.ext("b"), None, "empty values are null in Java");
        assert_eq!(cmd.ext.get_shared("a").as_deref(), Some("2"));
    }

    #[test]
    fn lying_lengths_are_refused() {
        let good = b"\0\x01a\0\0\0\x011";
        let len = good.len() as i32;
        assert!(decode(&header(0, len, good)).is_ok());
        for (remark, ext_len, ext) in [
            (-1, len, &good[..]),
            (i32::MAX, len, &good[..]),
            (1, len, &good[..]),
            (0, -1, &good[..]),
            (0, i32::MAX, &good[..]),
            (0, len + 1, &good[..]),
            (0, len - 1, &good[..]),
            (0, 3, b"\0\x01a"),
            (0, 2, b"\xff\xff"),
            (0, 2, b"\x7f\xff"),
            (0, 7, b"\0\x01a\xff\xff\xff\xff"),
            (0, 7, b"\0\x01a\x7f\xff\xff\xff"),
        ] {
            assert!(decode(&header(remark, ext_len, ext)).is_err(), "{ext:?}");
        }
        let bad = b"\0\x01a\0\0\0\x01\xff";
        let bad = decode(&header(0, bad.len() as i32, bad));
        assert_eq!(bad.unwrap_err(), DecodeError::NotUtf8);
        for cut in 0..21 {
            assert!(decode(&header(0, 0, b"").slice(..cut)).is_err());
        }
        let many = good.repeat(257);
        assert_eq!(
            decode(&header(0, many.len() as i32, &many)).unwrap_err(),
            DecodeError::Limit("256 keys")
        );
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_never_panic(
            bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..100)
        ) {
            let _ = decode(&Bytes::from(bytes));
        }
    }
}
