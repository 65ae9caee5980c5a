//! Answers read where they lie: the few fields that a load generator needs.

use crate::wire::remoting::header::{Command, DecodeError};
use crate::wire::remoting::{HeaderFormat, RawFrame};
use bytes::Bytes;
use memchr::memmem::Finder;
use std::sync::LazyLock;

/// Largest frame taken from a server: what RocketMQ's own clients take.
const MAX_FRAME: usize = 16 * 1024 * 1024;
/// A JSON header's smallest and a frame's fixed part.
const HEAD: usize = 8;

static CODE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"code\":"));
static OPAQUE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"opaque\":"));
static FLAG: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"flag\":"));

/// A frame from a server, undecoded but for the three numbers that every frame has.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// Response code, or the request code of a server's request.
    pub code: i32,
    /// Correlation id.
    pub opaque: i32,
    /// `false` for a request that the server sent.
    pub is_response: bool,
    /// The body.
    pub body: &'a [u8],
    format: HeaderFormat,
    header: &'a [u8],
}

/// The first whole frame of `input` and its length; `None` when more bytes are needed.
pub(super) fn first(input: &[u8]) -> Result<Option<(Answer<'_>, usize)>, String> {
    let Some(&[a, b, c, d, kind, h1, h2, h3]) = input.first_chunk::<HEAD>() else {
        return Ok(None);
    };
    let len = u32::from_be_bytes([a, b, c, d]) as usize;
    let header_len = u32::from_be_bytes([0, h1, h2, h3]) as usize;
    if len > MAX_FRAME - 4 || header_len == 0 || header_len + 4 > len {
        return Err(format!(
            "a frame of {len} bytes with a header of {header_len}"
        ));
    }
    let Some(frame) = input.get(HEAD..4 + len) else {
        return Ok(None);
    };
    let (header, body) = frame.split_at(header_len);
    let format = match kind {
        0 => HeaderFormat::Json,
        1 => HeaderFormat::Binary,
        other => return Err(format!("unknown header serialization {other}")),
    };
    let mut answer = Answer {
        code: 0,
        opaque: 0,
        is_response: true,
        body,
        format,
        header,
    };
    let quick = match format {
        HeaderFormat::Json => numbers(header),
        HeaderFormat::Binary => None,
    };
    let (code, opaque, flag) = match quick {
        Some(numbers) => numbers,
        None => {
            let command = answer.command().map_err(|e| e.to_string())?;
            (command.code, command.opaque, command.flag)
        }
    };
    answer.code = code;
    answer.opaque = opaque;
    answer.is_response = flag & 1 != 0;
    Ok(Some((answer, 4 + len)))
}

/// Code, opaque and flag of a JSON header. A quote inside a JSON string is escaped, so that the
/// patterns can only be found at keys.
fn numbers(header: &[u8]) -> Option<(i32, i32, i32)> {
    Some((
        number_at(header, &CODE)?,
        number_at(header, &OPAQUE)?,
        number_at(header, &FLAG)?,
    ))
}

/// The number after the only key of that name; `None` leaves the header to the real decoder.
fn number_at(header: &[u8], key: &Finder<'_>) -> Option<i32> {
    let start = key.find(header)? + key.needle().len();
    let rest = header.get(start..)?;
    if key.find(rest).is_some() {
        return None;
    }
    let len = rest
        .iter()
        .take_while(|b| b.is_ascii_digit() || **b == b'-')
        .count();
    std::str::from_utf8(&rest[..len]).ok()?.parse().ok()
}

impl<'a> Answer<'a> {
    /// A field's text without escapes, found by a [`FieldName`].
    pub fn text(&self, name: &FieldName) -> Option<String> {
        match self.format {
            HeaderFormat::Json => {
                if let Some(found) = self.plain(name) {
                    return Some(found.to_owned());
                }
            }
            HeaderFormat::Binary => {}
        }
        let command = self.command().ok()?;
        command.ext(name.name).map(str::to_owned)
    }

    /// A field that is a whole number.
    pub fn int(&self, name: &FieldName) -> Option<i64> {
        if self.format == HeaderFormat::Json {
            if let Some(found) = self.plain(name) {
                return found.parse().ok();
            }
        }
        self.command().ok()?.ext(name.name)?.parse().ok()
    }

    fn plain(&self, name: &FieldName) -> Option<&'a str> {
        let start = name.finder.find(self.header)? + name.finder.needle().len();
        let rest = self.header.get(start..)?;
        let text = &rest[..memchr::memchr2(b'"', b'\\', rest)?];
        match rest.get(text.len()) {
            Some(b'"') => std::str::from_utf8(text).ok(),
            _ => None,
        }
    }

    /// All of it, decoded with copies.
    ///
    /// # Errors
    /// When the header is not well formed.
    pub fn command(&self) -> Result<Command, DecodeError> {
        Command::decode(RawFrame {
            serialize: self.format,
            header: Bytes::copy_from_slice(self.header),
            body: Bytes::copy_from_slice(self.body),
        })
    }

    /// The server's text, empty when there is none.
    pub fn remark(&self) -> String {
        let remark = self.command().ok().and_then(|c| c.remark);
        remark.map(|r| r.to_string()).unwrap_or_default()
    }
}

/// Name of an ext field, prepared for searching.
#[derive(Debug)]
pub struct FieldName {
    name: &'static str,
    finder: Finder<'static>,
}

impl FieldName {
    /// Prepares a name.
    pub fn new(name: &'static str) -> Self {
        let pattern = format!("\"{name}\":\"");
        Self {
            name,
            finder: Finder::new(pattern.as_bytes()).into_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::remoting::{encode_response, ResponseHeader, Val};
    use bytes::BytesMut;
    use proptest::prelude::*;

    fn frame(format: u8, header: &[u8], body: &[u8]) -> Vec<u8> {
        let mut out = ((4 + header.len() + body.len()) as u32)
            .to_be_bytes()
            .to_vec();
        out.extend(((format as u32) << 24 | header.len() as u32).to_be_bytes());
        out.extend(header);
        out.extend(body);
        out
    }

    #[test]
    fn the_numbers_and_fields_of_an_answer() {
        let mut out = BytesMut::new();
        let header = ResponseHeader {
            code: 17,
            opaque: -3,
            remark: Some("no \"code\":9, \"opaque\":1"),
            ext: &[("queueOffset", Val::Int(42)), ("x", Val::Str("a\"b"))],
        };
        encode_response(&mut out, &header, &[b"body"]);
        let whole = out.len();
        let (answer, len) = first(&out).unwrap().unwrap();
        assert_eq!((answer.code, answer.opaque, len), (17, -3, whole));
        assert!(answer.is_response);
        assert_eq!(answer.body, b"body");
        assert_eq!(answer.int(&FieldName::new("queueOffset")), Some(42));
        assert_eq!(answer.text(&FieldName::new("x")).as_deref(), Some("a\"b"));
        assert_eq!(answer.int(&FieldName::new("y")), None);
        assert_eq!(answer.remark(), "no \"code\":9, \"opaque\":1");
        for cut in 0..whole {
            assert!(first(&out[..cut]).unwrap().is_none(), "{cut}");
        }
    }

    #[test]
    fn unusual_headers_go_through_the_decoder() {
        for header in [
            &br#"{ "code" : 5, "flag" : 1, "opaque" : 7 }"#[..],
            br#"{"extFields":{"code":"8","opaque":"9"},"code":5,"flag":1,"opaque":7}"#,
            br#"{"code":5,"flag":1,"opaque":7,"language":12}"#,
        ] {
            let bytes = frame(0, header, b"");
            let (answer, _) = first(&bytes).unwrap().unwrap();
            assert_eq!(
                (answer.code, answer.opaque, answer.is_response),
                (5, 7, true)
            );
        }
    }

    #[test]
    fn lies_are_errors() {
        for bytes in [
            frame(0, b"{}", b""),
            frame(0, b"{[", b""),
            frame(2, b"{}", b""),
            b"\x7f\xff\xff\xff\0\0\0\x02{}".to_vec(),
            b"\0\0\0\x06\0\0\0\x03{}".to_vec(),
            b"\0\0\0\x06\0\0\0\0{}".to_vec(),
            b"HTTP/1.1 400".to_vec(),
        ] {
            assert!(first(&bytes).is_err(), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = first(&bytes);
            let _ = first(&frame(0, &bytes, b""));
            let _ = first(&frame(1, &bytes, b""));
        }
    }
}
