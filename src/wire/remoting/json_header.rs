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

/// Bytes looked at eight at a time before a vector search is set up: most keys and values are
/// shorter than that.
const NEAR: usize = 64;
/// Room made for a string with escapes.
const UNESCAPED: usize = 256;

/// Where the next quote or backslash is, from `at` on.
#[inline]
fn special(bytes: &[u8], at: usize) -> Option<usize> {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGHS: u64 = ONES << 7;
    // The lowest high bit set is that of the first byte that is zero.
    let zero = |v: u64| v.wrapping_sub(ONES) & !v & HIGHS;
    let mut from = at;
    while let Some(eight) = bytes.get(from..).and_then(|rest| rest.first_chunk::<8>()) {
        let v = u64::from_le_bytes(*eight);
        let found = zero(v ^ (ONES * b'"' as u64)) | zero(v ^ (ONES * b'\\' as u64));
        if found != 0 {
            return Some(from + found.trailing_zeros() as usize / 8);
        }
        from += 8;
        if from - at >= NEAR {
            break;
        }
    }
    memchr::memchr2(b'"', b'\\', bytes.get(from..)?).map(|n| from + n)
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

    #[inline]
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    #[inline]
    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    #[inline]
    fn expect(&mut self, byte: u8, what: &'static str) -> Result<(), DecodeError> {
        if self.take(byte) {
            Ok(())
        } else {
            Err(self.error(what))
        }
    }

    #[inline]
    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// A key with its colon, and the white space around them.
    #[inline]
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
    #[inline]
    fn string(&mut self, ext: &mut ExtBuilder) -> Result<Span, DecodeError> {
        self.expect(b'"', "expected a string")?;
        let start = self.at;
        let bytes = self.text.as_bytes();
        let Some(end) = special(bytes, start) else {
            return Err(self.error("unfinished string"));
        };
        if bytes[end] == b'"' {
            self.at = end + 1;
            return Ok(ExtBuilder::borrowed(start, end - start));
        }
        let side = ext.side().len();
        self.unescape(ext.side())?;
        Ok(ext.side_since(side))
    }

    fn rest(&self) -> &'a [u8] {
        self.text.as_bytes().get(self.at..).unwrap_or_default()
    }

    /// Copies a string with its escapes resolved, up to and including the closing quote.
    fn unescape(&mut self, out: &mut String) -> Result<(), DecodeError> {
        // What is left of the text is the most there can be, but most of it is other fields.
        out.reserve(self.rest().len().min(UNESCAPED));
        loop {
            let Some(end) = special(self.text.as_bytes(), self.at) else {
                return Err(self.error("unfinished string"));
            };
            // Both ends lie next to ASCII bytes, so the slice is on character boundaries.
            out.push_str(&self.text[self.at..end]);
            self.at = end + 1;
            if self.text.as_bytes()[end] == b'"' {
                return Ok(());
            }
            // The separators of properties.
            if let Some([b'u', b'0', b'0', b'0', digit @ b'0'..=b'9']) = self.rest().first_chunk() {
                out.push(char::from(digit - b'0'));
                self.at += 5;
                continue;
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
    #[inline]
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

    #[inline]
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
    #[inline]
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
        if let Some(small) = self.small_int() {
            return Ok(small);
        }
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

    /// A bare number of up to nine digits, which is what opaque, code and flag nearly always are;
    /// moves on only when it is one.
    #[inline]
    fn small_int(&mut self) -> Option<i32> {
        let bytes = self.text.as_bytes();
        let (mut at, mut value) = (self.at, 0i32);
        while let Some(digit) = bytes.get(at).filter(|b| b.is_ascii_digit()) {
            if at - self.at == 9 {
                return None;
            }
            value = value * 10 + i32::from(digit - b'0');
            at += 1;
        }
        let plain = matches!(bytes.get(at), Some(b',' | b'}'));
        // Leading zeros are no JSON.
        let first = bytes.get(self.at).copied();
        if at == self.at || !plain || (first == Some(b'0') && at > self.at + 1) {
            return None;
        }
        self.at = at;
        Some(value)
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Result<Command, DecodeError> {
        decode(Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn loose_input_of_real_clients_is_read() {
        let cmd = read(
            "{ \"unknown\":[1,{\"a\":[]},\"x\",null], \"language\":1, \"code\":\"310\",\n\
             \"opaque\":-5,\"remark\":null,\"extFields\":{\"d\":4,\"f\":-1.5e3,\"m\":true,\
             \"z\":null,\"i\":\"a\\u0001\\ud83d\\ude00\\/\\n\",\"d\":\"5\"},\"flag\":2}\n",
        )
        .unwrap();
        assert_eq!((cmd.code, cmd.opaque, cmd.flag), (310, -5, 2));
        assert_eq!((cmd.language, cmd.remark.as_deref()), (Language::CPP, None));
        assert_eq!(cmd.ext("d"), Some("5"), "the last of a repeated key");
        assert_eq!(cmd.ext("m"), Some("true"));
        assert_eq!(cmd.ext("f"), Some("-1.5e3"));
        assert_eq!(cmd.ext("z"), None);
        assert_eq!(cmd.ext("i"), Some("a\u{1}\u{1F600}/\n"));
        assert_eq!(cmd.ext.get_shared("i").as_deref(), cmd.ext("i"));
        assert!(cmd.req_i64("m").is_err() && cmd.req_str("none").is_err());
        assert_eq!(cmd.opt_bool("m"), Some(true));
        assert_eq!(cmd.opt_bool("d"), Some(false));
        assert_eq!(cmd.opt_i32("none"), Ok(None));
        for header in [
            r#"{"code":1,"extFields":null}"#,
            r#"{"code":1,"extFields":{}}"#,
            r#"{"code":1,"language":"KLINGON"}"#,
        ] {
            assert!(read(header).unwrap().ext.is_empty());
        }
    }

    #[test]
    fn broken_json_is_refused() {
        for bad in [
            "",
            " ",
            "{",
            "}",
            "[]",
            "null",
            "{}",
            "{\"code\":1",
            "{\"code\":1}x",
            "{\"code\":1,}",
            "{\"code\" 1}",
            "{code:1}",
            "{\"code\":NaN}",
            "{\"code\":1.5}",
            "{\"code\":1e3}",
            "{\"code\":01}",
            "{\"code\":-}",
            "{\"code\":2147483648}",
            "{\"code\":99999999999999999999999999}",
            "{\"code\":\"x\"}",
            "{\"code\":{}}",
            "{\"code\":[1]}",
            "{\"code\":true}",
            "{\"code\":1,\"opaque\":Infinity}",
            "{\"code\":1,\"remark\":{}}",
            "{\"code\":1,\"extFields\":[]}",
            "{\"code\":1,\"extFields\":\"x\"}",
            "{\"code\":1,\"extFields\":{\"a\":{}}}",
            "{\"code\":1,\"extFields\":{\"a\":[1]}}",
            "{\"code\":1,\"extFields\":{\"a\":\"\\ud800\"}}",
            "{\"code\":1,\"extFields\":{\"a\":\"\\ud800\\u0041\"}}",
            "{\"code\":1,\"extFields\":{\"a\":\"\\udc00\"}}",
            "{\"code\":1,\"extFields\":{\"a\":\"\\u12\"}}",
            "{\"code\":1,\"extFields\":{\"a\":\"\\x\"}}",
            "{\"code\":1,\"extFields\":{\"a\":\"",
            "{\"code\":1,\"x\":[1,]}",
            "{\"code\":1,\"x\":{\"a\"}}",
            "{\"code\":1,\"x\":[}",
            "\u{feff}{\"code\":1}",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
        let bytes = Bytes::from_static(b"{\"code\":1,\"remark\":\"\xff\"}");
        assert_eq!(decode(bytes).unwrap_err(), DecodeError::NotUtf8);
    }

    #[test]
    fn depth_and_keys_are_limited() {
        let nested = |n: usize| format!("{{\"code\":1,\"x\":{}{}}}", "[".repeat(n), "]".repeat(n));
        assert!(read(&nested(31)).is_ok());
        assert_eq!(
            read(&nested(32)).unwrap_err(),
            DecodeError::Limit("32 levels")
        );
        assert!(read(&nested(100_000)).is_err());
        let keys = |n: usize| {
            let keys: Vec<String> = (0..n).map(|i| format!("\"k{i}\":\"\"")).collect();
            format!("{{\"code\":1,\"extFields\":{{{}}}}}", keys.join(","))
        };
        assert_eq!(read(&keys(254)).unwrap().ext.len(), 254);
        assert_eq!(
            read(&keys(255)).unwrap_err(),
            DecodeError::Limit("256 keys")
        );
        let same = format!("{{\"code\":1{}}}", ",\"a\":1".repeat(1_000));
        assert_eq!(read(&same).unwrap_err(), DecodeError::Limit("256 keys"));
    }

    proptest! {
        #[test]
        fn encoded_headers_read_back(
            fields in prop::collection::vec((".{0,12}", ".{0,40}"), 0..20),
            remark in proptest::option::of(".{1,30}"),
            code in any::<i32>(),
            opaque in any::<i32>(),
        ) {
            use crate::wire::remoting::{encode_response, split_frame, ResponseHeader, Val};
            let ext: Vec<_> = fields.iter().map(|(k, v)| (k.as_str(), Val::Str(v))).collect();
            let header = ResponseHeader { code, opaque, remark: remark.as_deref(), ext: &ext };
            let mut out = bytes::BytesMut::new();
            encode_response(&mut out, &header, &[b"bo", b"dy"]);
            let frame = split_frame(&mut out, &Default::default()).unwrap().unwrap();
            // What we write is what any JSON parser reads.
            let standard: serde_json::Value = serde_json::from_slice(&frame.header).unwrap();
            let cmd = Command::decode(frame).unwrap();
            prop_assert_eq!(standard["opaque"].as_i64(), Some(i64::from(opaque)));
            prop_assert_eq!((cmd.code, cmd.opaque, cmd.is_response()), (code, opaque, true));
            prop_assert_eq!(cmd.remark.as_deref(), remark.as_deref());
            prop_assert!(cmd.ext.iter().eq(fields.iter().map(|(k, v)| (k.as_str(), v.as_str()))));
            for (key, value) in cmd.ext.iter() {
                prop_assert!(standard["extFields"][key].is_string(), "{key} {value}");
            }
            prop_assert_eq!(&cmd.body[..], b"body");
        }

        #[test]
        fn any_text_never_panics(text in "[{}\\[\\]\",:0-9a\\\\u ]{0,60}") {
            let _ = read(&text);
        }
    }
}
