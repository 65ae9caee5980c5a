//! JSON headers: one pass over the bytes, no tree, strings without escapes borrowed.
//!
//! Accepts what clients really send: any key order, unknown keys of any shape, ext values that
//! are numbers, booleans or null, a language as name or ordinal, white space or a newline at the
//! end (C++). Refuses what no client sends: broken JSON, floats where integers belong, lone
//! surrogates, a byte order mark, more than [`MAX_KEYS`] keys or [`MAX_DEPTH`] levels.

use super::frame::HeaderFormat;
use super::header::{Command, DecodeError, ExtBuilder, ExtFields, Language, Span};
use super::header::{MAX_DEPTH, MAX_KEYS};
use bytes::Bytes;
use bytestring::ByteString;

/// Decodes a JSON header; the body is left empty.
pub fn decode(header: Bytes) -> Result<Command, DecodeError> {
    let header = ByteString::try_from(header).map_err(|_| DecodeError::NotUtf8)?;
    let mut scan = Scanner {
        text: &header,
        at: 0,
        keys: 0,
    };
    let mut ext = ExtFields::builder();
    let mut code = None;
    let mut language = Language::OTHER;
    let (mut version, mut opaque, mut flag) = (0, 0, 0);
    let mut remark = None;

    scan.space();
    scan.expect(b'{', "expected an object")?;
    scan.space();
    if !scan.take(b'}') {
        loop {
            let key = scan.key(&mut ext)?;
            match ext.resolve(scan.text, key) {
                "code" => code = Some(scan.int()?),
                "version" => version = scan.int()?,
                "opaque" => opaque = scan.int()?,
                "flag" => flag = scan.int()?,
                "language" => language = scan.language(&mut ext)?,
                "remark" => {
                    remark = match scan.scalar(&mut ext)? {
                        Some(span) if span_is_borrowed(&ext, scan.text, span) => {
                            Some(header.slice_ref(ext.resolve(scan.text, span)))
                        }
                        Some(span) => Some(ByteString::from(ext.resolve(scan.text, span))),
                        None => None,
                    }
                }
                "extFields" => scan.ext_fields(&mut ext)?,
                _ => scan.skip_value()?,
            }
            scan.space();
            if scan.take(b'}') {
                break;
            }
            scan.expect(b',', "expected , or }")?;
            scan.space();
        }
    }
    scan.space();
    if scan.at != scan.text.len() {
        return Err(scan.error("text after the header"));
    }
    let code = code.ok_or_else(|| scan.error("no code"))?;
    Ok(Command {
        code,
        language,
        version,
        opaque,
        flag,
        remark,
        ext: ext.finish(header),
        format: HeaderFormat::Json,
        body: Bytes::new(),
    })
}

fn span_is_borrowed(ext: &ExtBuilder, text: &str, span: Span) -> bool {
    text.as_bytes()
        .as_ptr_range()
        .contains(&ext.resolve(text, span).as_ptr())
}

struct Scanner<'a> {
    text: &'a str,
    at: usize,
    keys: usize,
}

impl<'a> Scanner<'a> {
    fn error(&self, what: &'static str) -> DecodeError {
        DecodeError::Json { at: self.at, what }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, byte: u8, what: &'static str) -> Result<(), DecodeError> {
        if self.take(byte) {
            Ok(())
        } else {
            Err(self.error(what))
        }
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// A key with its colon, and the white space around them.
    fn key(&mut self, ext: &mut ExtBuilder) -> Result<Span, DecodeError> {
        self.keys += 1;
        if self.keys > MAX_KEYS {
            return Err(DecodeError::Limit("256 keys"));
        }
        let key = self.string(ext)?;
        self.space();
        self.expect(b':', "expected :")?;
        self.space();
        Ok(key)
    }

    /// A quoted string: borrowed when it has no escape.
    fn string(&mut self, ext: &mut ExtBuilder) -> Result<Span, DecodeError> {
        self.expect(b'"', "expected a string")?;
        let start = self.at;
        match memchr::memchr2(b'"', b'\\', self.rest()) {
            None => Err(self.error("unfinished string")),
            Some(n) if self.rest()[n] == b'"' => {
                self.at += n + 1;
                Ok(ExtBuilder::borrowed(start, n))
            }
            Some(_) => {
                let side = ext.side().len();
                self.unescape(ext.side())?;
                Ok(ext.side_since(side))
            }
        }
    }

    fn rest(&self) -> &'a [u8] {
        self.text.as_bytes().get(self.at..).unwrap_or_default()
    }

    /// Copies a string with its escapes resolved, up to and including the closing quote.
    fn unescape(&mut self, out: &mut String) -> Result<(), DecodeError> {
        loop {
            let Some(n) = memchr::memchr2(b'"', b'\\', self.rest()) else {
                return Err(self.error("unfinished string"));
            };
            // Both ends lie next to ASCII bytes, so the slice is on character boundaries.
            out.push_str(&self.text[self.at..self.at + n]);
            self.at += n + 1;
            if self.text.as_bytes()[self.at - 1] == b'"' {
                return Ok(());
            }
            let escape = self.peek().ok_or_else(|| self.error("unfinished escape"))?;
            self.at += 1;
            out.push(match escape {
                b'"' => '"',
                b'\\' => '\\',
                b'/' => '/',
                b'b' => '\u{8}',
                b'f' => '\u{c}',
                b'n' => '\n',
                b'r' => '\r',
                b't' => '\t',
                b'u' => self.unicode()?,
                _ => return Err(self.error("unknown escape")),
            });
        }
    }

    fn unicode(&mut self) -> Result<char, DecodeError> {
        let first = self.hex4()?;
        if !(0xD800..0xE000).contains(&first) {
            return char::from_u32(first).ok_or_else(|| self.error("bad escape"));
        }
        if first < 0xDC00 && self.take(b'\\') && self.take(b'u') {
            let second = self.hex4()?;
            if (0xDC00..0xE000).contains(&second) {
                let scalar = 0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00);
                return char::from_u32(scalar).ok_or_else(|| self.error("bad escape"));
            }
        }
        Err(self.error("lone surrogate"))
    }

    fn hex4(&mut self) -> Result<u32, DecodeError> {
        let digits = self.rest().first_chunk::<4>();
        let mut value = 0;
        for d in digits.ok_or_else(|| self.error("unfinished escape"))? {
            let d = (*d as char).to_digit(16);
            value = value << 4 | d.ok_or_else(|| self.error("bad escape"))?;
        }
        self.at += 4;
        Ok(value)
    }

    /// A number as its text, checked against JSON's grammar.
    fn number(&mut self) -> Result<Span, DecodeError> {
        let start = self.at;
        self.take(b'-');
        let integer = self.at;
        self.digits()?;
        if self.text.as_bytes()[integer] == b'0' && self.at > integer + 1 {
            return Err(self.error("leading zero"));
        }
        if self.take(b'.') {
            self.digits()?;
        }
        if self.take(b'e') || self.take(b'E') {
            let _ = self.take(b'+') || self.take(b'-');
            self.digits()?;
        }
        Ok(ExtBuilder::borrowed(start, self.at - start))
    }

    fn digits(&mut self) -> Result<(), DecodeError> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at == start {
            return Err(self.error("expected a value"));
        }
        Ok(())
    }

    fn literal(&mut self, word: &'static str) -> Result<Span, DecodeError> {
        if !self.rest().starts_with(word.as_bytes()) {
            return Err(self.error("expected a value"));
        }
        let start = self.at;
        self.at += word.len();
        Ok(ExtBuilder::borrowed(start, word.len()))
    }

    /// A string, number or boolean as text; `None` for null.
    fn scalar(&mut self, ext: &mut ExtBuilder) -> Result<Option<Span>, DecodeError> {
        match self.peek() {
            Some(b'"') => self.string(ext).map(Some),
            Some(b't') => self.literal("true").map(Some),
            Some(b'f') => self.literal("false").map(Some),
            Some(b'n') => self.literal("null").map(|_| None),
            Some(b'{' | b'[') => Err(self.error("expected a string")),
            _ => self.number().map(Some),
        }
    }

    /// A 32-bit integer, also written as a string of digits; null reads as 0.
    fn int(&mut self) -> Result<i32, DecodeError> {
        let start = self.at;
        let mut scratch = ExtFields::builder();
        match self.scalar(&mut scratch)? {
            None => Ok(0),
            Some(span) => scratch
                .resolve(self.text, span)
                .parse()
                .map_err(|_| DecodeError::Json {
                    at: start,
                    what: "not a 32-bit integer",
                }),
        }
    }

    fn language(&mut self, ext: &mut ExtBuilder) -> Result<Language, DecodeError> {
        let quoted = self.peek() == Some(b'"');
        Ok(match self.scalar(ext)? {
            None => Language::OTHER,
            Some(span) if quoted => Language::from_name(ext.resolve(self.text, span)),
            Some(span) => {
                let ordinal = ext.resolve(self.text, span).parse();
                ordinal.map_or(Language::OTHER, Language)
            }
        })
    }

    /// The ext object; null is an empty one. A repeated `extFields` replaces the former.
    fn ext_fields(&mut self, ext: &mut ExtBuilder) -> Result<(), DecodeError> {
        ext.clear_entries();
        if self.peek() == Some(b'n') {
            return self.literal("null").map(|_| ());
        }
        self.expect(b'{', "extFields is not an object")?;
        self.space();
        if self.take(b'}') {
            return Ok(());
        }
        loop {
            let key = self.key(ext)?;
            if let Some(value) = self.scalar(ext)? {
                ext.push(key, value);
            }
            self.space();
            if self.take(b'}') {
                return Ok(());
            }
            self.expect(b',', "expected , or }")?;
            self.space();
        }
    }

    /// Skips a value of an unknown key, of any shape within the limits, without recursion.
    fn skip_value(&mut self) -> Result<(), DecodeError> {
        // One bit per open level, set for an object; the header's own object is level 1.
        let mut levels: SkipLevels = SkipLevels::default();
        let mut scratch = ExtFields::builder();
        loop {
            self.space();
            match self.peek() {
                Some(open @ (b'{' | b'[')) => {
                    self.at += 1;
                    levels.open(open == b'{')?;
                    self.space();
                    if self.take(if open == b'{' { b'}' } else { b']' }) {
                        levels.close();
                    } else {
                        if open == b'{' {
                            self.key(&mut scratch)?;
                        }
                        continue;
                    }
                }
                _ => {
                    self.scalar(&mut scratch)?;
                }
            }
            // After a value: close levels, or go on to the next member.
            loop {
                let Some(object) = levels.top() else {
                    return Ok(());
                };
                self.space();
                if self.take(if object { b'}' } else { b']' }) {
                    levels.close();
                    continue;
                }
                self.expect(b',', "expected , or the end")?;
                self.space();
                if object {
                    self.key(&mut scratch)?;
                }
                break;
            }
        }
    }
}

#[derive(Default)]
struct SkipLevels {
    objects: u32,
    depth: usize,
}

impl SkipLevels {
    fn open(&mut self, object: bool) -> Result<(), DecodeError> {
        self.depth += 1;
        if self.depth + 1 > MAX_DEPTH {
            return Err(DecodeError::Limit("32 levels"));
        }
        self.objects = self.objects << 1 | u32::from(object);
        Ok(())
    }

    fn close(&mut self) {
        self.depth -= 1;
        self.objects >>= 1;
    }

    fn top(&self) -> Option<bool> {
        (self.depth > 0).then_some(self.objects & 1 == 1)
    }
}
