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
