//! The command: a frame's header and body, whichever form the header was written in.

use super::frame::{FrameError, HeaderFormat, RawFrame};
use super::{binary_header, json_header};
use bytes::Bytes;
use bytestring::ByteString;
use smallvec::SmallVec;
use std::fmt;
use std::str::FromStr;
use thiserror::Error;

/// Flag bit 0: this command answers the request with the same opaque.
pub const FLAG_RESPONSE: i32 = 1;
/// Flag bit 1: the sender wants no answer.
pub const FLAG_ONEWAY: i32 = 1 << 1;

/// Most keys a header may have, its own and its ext fields together.
pub const MAX_KEYS: usize = 256;
/// Deepest nesting of a JSON header.
pub const MAX_DEPTH: usize = 32;

/// Implementation language of a peer, as its wire code.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Language(pub u8);

const LANGUAGES: [&str; 14] = [
    "JAVA", "CPP", "DOTNET", "PYTHON", "DELPHI", "ERLANG", "RUBY", "OTHER", "HTTP", "GO", "PHP",
    "OMS", "RUST", "NODE_JS",
];

impl Language {
    /// Java; the only name every client knows.
    pub const JAVA: Language = Language(0);
    /// C++; its clients need the array form of a reset-offset body.
    pub const CPP: Language = Language(1);
    /// Python (a wrapper around the C++ client).
    pub const PYTHON: Language = Language(3);
    /// Anything else.
    pub const OTHER: Language = Language(7);
    /// Go.
    pub const GO: Language = Language(9);
    /// Rust.
    pub const RUST: Language = Language(12);

    /// The name used in JSON headers; unknown codes read as `OTHER`.
    pub fn name(self) -> &'static str {
        LANGUAGES.get(self.0 as usize).copied().unwrap_or("OTHER")
    }

    /// Code of a JSON name; unknown names become [`Language::OTHER`].
    pub fn from_name(name: &str) -> Language {
        match LANGUAGES.iter().position(|n| *n == name) {
            Some(code) => Language(code as u8),
            None => Language::OTHER,
        }
    }
}

impl fmt::Debug for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where a string lies: in the header's own bytes, or in the side buffer of unescaped text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    start: u32,
    /// Its length, and whether it lies in the side buffer: commands are moved about, so that they
    /// had better be small. A header has at most 16 MiB.
    len_side: u32,
}

const SIDE: u32 = 1 << 31;

impl Span {
    #[inline]
    fn new(start: usize, len: usize, side: bool) -> Self {
        Self {
            start: start as u32,
            len_side: len as u32 & !SIDE | if side { SIDE } else { 0 },
        }
    }

    #[inline]
    fn is_side(self) -> bool {
        self.len_side & SIDE != 0
    }

    #[inline]
    fn range(self) -> std::ops::Range<usize> {
        let start = self.start as usize;
        start..start + (self.len_side & !SIDE) as usize
    }
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    key: Span,
    value: Span,
}

/// The ext fields of a header, in wire order.
///
/// Keys and values point into the header's bytes; only escaped strings are copied. A repeated key
/// is kept, and lookups give the last one, as Java does.
#[derive(Clone, Default)]
pub struct ExtFields {
    header: ByteString,
    side: ByteString,
    entries: SmallVec<[Entry; 16]>,
}

impl ExtFields {
    pub(super) fn builder() -> ExtBuilder {
        ExtBuilder::default()
    }

    fn text(&self, span: Span) -> &str {
        let source = match span.is_side() {
            true => &self.side,
            false => &self.header,
        };
        source.get(span.range()).unwrap_or("")
    }

    /// The value of the last field called `key`.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.entries
            .iter()
            .rev()
            .find(|e| self.text(e.key) == key)
            .map(|e| self.text(e.value))
    }

    /// Like [`ExtFields::get`], as an owned string that shares the header's memory. It keeps the
    /// read buffer alive, so use it for the life of a request, not to store names.
    pub fn get_shared(&self, key: &str) -> Option<ByteString> {
        let entry = self
            .entries
            .iter()
            .rev()
            .find(|e| self.text(e.key) == key)?;
        let source = if entry.value.is_side() {
            &self.side
        } else {
            &self.header
        };
        Some(source.slice_ref(self.text(entry.value)))
    }

    /// All fields in wire order, repeated keys included.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&str, &str)> + '_ {
        self.entries
            .iter()
            .map(|e| (self.text(e.key), self.text(e.value)))
    }

    /// Number of fields, repeated keys included.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no field.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl fmt::Debug for ExtFields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<'a> FromIterator<(&'a str, &'a str)> for ExtFields {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(fields: I) -> Self {
        let mut builder = ExtFields::builder();
        for (key, value) in fields {
            let key = builder.copy(key);
            let value = builder.copy(value);
            builder.push(key, value);
        }
        builder.finish(ByteString::new())
    }
}

/// Collects ext fields while a header is parsed.
#[derive(Default)]
pub(super) struct ExtBuilder {
    side: String,
    entries: SmallVec<[Entry; 16]>,
}

impl ExtBuilder {
    /// A span of the header itself.
    pub(super) fn borrowed(start: usize, len: usize) -> Span {
        Span::new(start, len, false)
    }

    /// A span of text not found literally in the header.
    pub(super) fn copy(&mut self, text: &str) -> Span {
        let start = self.side.len();
        self.side.push_str(text);
        Span::new(start, text.len(), true)
    }

    /// Start of a string that is about to be unescaped into [`ExtBuilder::side`].
    pub(super) fn side(&mut self) -> &mut String {
        &mut self.side
    }

    /// The side text from `start` on.
    pub(super) fn side_since(&self, start: usize) -> Span {
        Span::new(start, self.side.len() - start, true)
    }

    pub(super) fn resolve<'a>(&'a self, header: &'a str, span: Span) -> &'a str {
        let source = match span.is_side() {
            true => self.side.as_str(),
            false => header,
        };
        source.get(span.range()).unwrap_or("")
    }

    pub(super) fn push(&mut self, key: Span, value: Span) {
        self.entries.push(Entry { key, value });
    }

    pub(super) fn clear_entries(&mut self) {
        self.entries.clear();
    }

    pub(super) fn finish(self, header: ByteString) -> ExtFields {
        ExtFields {
            header,
            side: self.side.into(),
            entries: self.entries,
        }
    }
}

/// A request or a response.
#[derive(Debug, Clone)]
pub struct Command {
    /// Request or response code; cut-off binary pop codes are already mapped back.
    pub code: i32,
    /// The sender's language.
    pub language: Language,
    /// The sender's version number (see `code::VERSION`).
    pub version: i32,
    /// Correlation id chosen by the requester.
    pub opaque: i32,
    /// [`FLAG_RESPONSE`] and [`FLAG_ONEWAY`].
    pub flag: i32,
    /// Error text, or a note.
    pub remark: Option<ByteString>,
    /// The "custom header".
    pub ext: ExtFields,
    /// Form the header came in.
    pub format: HeaderFormat,
    /// Body, sharing the read buffer's memory.
    pub body: Bytes,
}

/// A header that cannot be decoded. The frame itself was whole, but there is no opaque to answer
/// to, so the connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// The header is not UTF-8.
    #[error("header is not UTF-8")]
    NotUtf8,
    /// Not the JSON object expected.
    #[error("bad JSON header at byte {at}: {what}")]
    Json {
        /// Position in the header.
        at: usize,
        /// What was wrong.
        what: &'static str,
    },
    /// Not the binary form expected.
    #[error("bad binary header: {0}")]
    Binary(&'static str),
    /// More keys or deeper nesting than allowed.
    #[error("header exceeds the limit of {0}")]
    Limit(&'static str),
    /// The frame around it is wrong.
    #[error(transparent)]
    Frame(#[from] FrameError),
}

/// A field of a well-formed header that is missing or has a value out of its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("header field {field}: {reason}")]
pub struct HeaderError {
    /// Name of the field as the client knows it.
    pub field: &'static str,
    /// What is wrong with it.
    pub reason: FieldReason,
}

/// Why a header field was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FieldReason {
    /// A required field is absent.
    #[error("missing")]
    Missing,
    /// Not a decimal number of the right size.
    #[error("not a number in range")]
    NotANumber,
    /// A number or text outside of what the request allows.
    #[error("value not allowed")]
    NotAllowed,
}

impl HeaderError {
    /// A missing field.
    pub fn missing(field: &'static str) -> Self {
        HeaderError {
            field,
            reason: FieldReason::Missing,
        }
    }

    /// A field with a value that is not allowed.
    pub fn not_allowed(field: &'static str) -> Self {
        HeaderError {
            field,
            reason: FieldReason::NotAllowed,
        }
    }
}

impl Command {
    /// Decodes a frame's header; the body is kept as it is.
    pub fn decode(frame: RawFrame) -> Result<Command, DecodeError> {
        let mut command = match frame.serialize {
            HeaderFormat::Json => json_header::decode(frame.header)?,
            HeaderFormat::Binary => binary_header::decode(&frame.header)?,
        };
        command.body = frame.body;
        Ok(command)
    }

    /// Whether this answers a request.
    pub fn is_response(&self) -> bool {
        self.flag & FLAG_RESPONSE != 0
    }

    /// Whether the sender wants no answer.
    pub fn is_oneway(&self) -> bool {
        self.flag & FLAG_ONEWAY != 0
    }

    /// The ext field `key`.
    pub fn ext(&self, key: &str) -> Option<&str> {
        self.ext.get(key)
    }

    /// A required text field. An empty text is present.
    pub fn req_str(&self, key: &'static str) -> Result<&str, HeaderError> {
        self.ext.get(key).ok_or(HeaderError::missing(key))
    }

    /// An optional text field; empty counts as absent.
    pub fn opt_str(&self, key: &str) -> Option<&str> {
        self.ext.get(key).filter(|v| !v.is_empty())
    }

    /// A required 32-bit number.
    pub fn req_i32(&self, key: &'static str) -> Result<i32, HeaderError> {
        parse_number(key, self.req_str(key)?)
    }

    /// An optional 32-bit number; empty counts as absent.
    pub fn opt_i32(&self, key: &'static str) -> Result<Option<i32>, HeaderError> {
        self.opt_str(key).map(|v| parse_number(key, v)).transpose()
    }

    /// A required 64-bit number.
    pub fn req_i64(&self, key: &'static str) -> Result<i64, HeaderError> {
        parse_number(key, self.req_str(key)?)
    }

    /// An optional 64-bit number; empty counts as absent.
    pub fn opt_i64(&self, key: &'static str) -> Result<Option<i64>, HeaderError> {
        self.opt_str(key).map(|v| parse_number(key, v)).transpose()
    }

    /// A flag: `true` in any case is true, any other text false (Java's rule), absent `None`.
    pub fn opt_bool(&self, key: &str) -> Option<bool> {
        self.ext.get(key).map(parse_bool)
    }
}

pub(super) fn parse_number<T: FromStr>(field: &'static str, text: &str) -> Result<T, HeaderError> {
    text.parse().map_err(|_| HeaderError {
        field,
        reason: FieldReason::NotANumber,
    })
}

pub(super) fn parse_bool(text: &str) -> bool {
    text.eq_ignore_ascii_case("true")
}
