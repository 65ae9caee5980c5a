//! Java's JSON dialect (fastjson): map keys may be bare numbers (`{0:"x"}`) or whole objects
//! (`{{"topic":"T"}:1}`). This turns it into standard JSON: numbers get quotes, and an object key
//! becomes a string that holds the object's JSON text.

use super::BodyError;

/// Deepest nesting accepted.
pub const MAX_DEPTH: usize = 32;

/// Rewrites a body in Java's dialect as standard JSON. Standard JSON passes unchanged, except for
/// white space between tokens.
pub fn to_standard(body: &[u8]) -> Result<Vec<u8>, BodyError> {
    let mut rewriter = Rewriter { text: body, at: 0 };
    let mut out = Vec::with_capacity(body.len() + body.len() / 8);
    rewriter.value(&mut out, 0, false)?;
    rewriter.space();
    if rewriter.at != body.len() {
        return Err(rewriter.error("text after the value"));
    }
    Ok(out)
}

struct Rewriter<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Rewriter<'a> {
    fn error(&self, what: &str) -> BodyError {
        BodyError::Json(format!("{what} at byte {}", self.at))
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn string(&mut self, out: &mut Vec<u8>) -> Result<(), BodyError> {
        let start = self.at;
        self.at += 1;
        loop {
            let rest = self.text.get(self.at..).unwrap_or_default();
            let n = memchr::memchr2(b'"', b'\\', rest);
            let n = n.ok_or_else(|| self.error("unfinished string"))?;
            let quote = rest[n] == b'"';
            self.at += n + if quote { 1 } else { 2 };
            if quote {
                break;
            }
        }
        out.extend_from_slice(&self.text[start..self.at]);
        Ok(())
    }

    /// A number, `true`, `false` or `null`: copied, checked by the JSON parser afterwards.
    fn word(&mut self) -> Result<&'a [u8], BodyError> {
        let start = self.at;
        while matches!(
            self.peek(),
            Some(b'0'..=b'9' | b'-' | b'+' | b'.' | b'a'..=b'z' | b'E')
        ) {
            self.at += 1;
        }
        if self.at == start {
            return Err(self.error("expected a value"));
        }
        Ok(&self.text[start..self.at])
    }

    /// `in_key`: inside an object that is itself a key, where no further object key may come
    /// (each level would double the escapes).
    fn value(&mut self, out: &mut Vec<u8>, depth: usize, in_key: bool) -> Result<(), BodyError> {
        if depth > MAX_DEPTH {
            return Err(BodyError::Limit("32 levels"));
        }
        self.space();
        match self.peek() {
            Some(b'{') => self.members(out, depth, in_key, b'}'),
            Some(b'[') => self.members(out, depth, in_key, b']'),
            Some(b'"') => self.string(out),
            _ => {
                out.extend_from_slice(self.word()?);
                Ok(())
            }
        }
    }

    /// An object (`close` is `}`) or an array, from its opening bracket on.
    fn members(
        &mut self,
        out: &mut Vec<u8>,
        depth: usize,
        in_key: bool,
        close: u8,
    ) -> Result<(), BodyError> {
        out.push(self.text[self.at]);
        self.at += 1;
        self.space();
        if !self.take(close) {
            loop {
                if close == b'}' {
                    self.key(out, depth, in_key)?;
                    self.space();
                    if !self.take(b':') {
                        return Err(self.error("expected :"));
                    }
                    out.push(b':');
                }
                self.value(out, depth + 1, in_key)?;
                self.space();
                if self.take(close) {
                    break;
                }
                if !self.take(b',') {
                    return Err(self.error("expected , or the end"));
                }
                out.push(b',');
            }
        }
        out.push(close);
        Ok(())
    }

    fn key(&mut self, out: &mut Vec<u8>, depth: usize, in_key: bool) -> Result<(), BodyError> {
        self.space();
        match self.peek() {
            Some(b'"') => self.string(out),
            Some(b'0'..=b'9' | b'-') => {
                out.push(b'"');
                out.extend_from_slice(self.word()?);
                out.push(b'"');
                Ok(())
            }
            Some(b'{') if !in_key => {
                let mut key = Vec::new();
                self.members(&mut key, depth + 1, true, b'}')?;
                let key = String::from_utf8(key).map_err(|_| self.error("not UTF-8"))?;
                let quoted = serde_json::to_vec(&key).map_err(|_| self.error("bad key"))?;
                out.extend_from_slice(&quoted);
                Ok(())
            }
            _ => Err(self.error("expected a key")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn standard(text: &str) -> String {
        String::from_utf8(to_standard(text.as_bytes()).unwrap()).unwrap()
    }

    #[test]
    fn numeric_and_object_keys() {
        assert_eq!(
            standard(r#"{0:"h:1", -1:[true]}"#),
            r#"{"0":"h:1","-1":[true]}"#
        );
        assert_eq!(
            standard(r#"{"t":{{"q":3,"topic":"a\"b"}:157},"n":null}"#),
            r#"{"t":{"{\"q\":3,\"topic\":\"a\\\"b\"}":157},"n":null}"#
        );
        assert_eq!(
            standard(" [1 , 2.5e3,\"\\u0001\"]\n"),
            "[1,2.5e3,\"\\u0001\"]"
        );
    }

    #[test]
    fn bad_text_is_refused() {
        for bad in [
            "",
            "{",
            "[",
            "{a:1}",
            "{{{1:2}:3}:4}x",
            "{{{\"a\":1}:3}:4}",
            "{\"a\":1}}",
            "{\"a",
            "\"\\",
            "[1,]x",
        ] {
            assert!(to_standard(bad.as_bytes()).is_err(), "{bad}");
        }
        let deep = "[".repeat(1000);
        assert_eq!(
            to_standard(deep.as_bytes()),
            Err(BodyError::Limit("32 levels"))
        );
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = to_standard(&bytes);
        }

        #[test]
        fn any_dialect_text_never_panics(text in "[{}\\[\\]\",:0-9a\\\\ ]{0,60}") {
            let _ = to_standard(text.as_bytes());
        }
    }
}
