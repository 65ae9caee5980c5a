//! RocketMQ's own file format, Java properties: `key = value` lines and what else Java reads.

/// What a properties text holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Properties {
    /// Keys with their values, in the order of their last lines. The last of several lines counts.
    pub entries: Vec<(String, String)>,
    /// Keys with more than one line.
    pub repeated: Vec<String>,
}

/// Reads a properties text: `#` and `!` begin a comment line, `=`, `:` or blanks end a key, a `\` at
/// the end continues a line, and `\t \n \r \f \uXXXX` are escapes. Blanks around values are left out.
///
/// # Errors
/// The number of the line with a broken `\u` escape, and what is wrong with it.
pub fn parse(text: &str) -> Result<Properties, String> {
    let mut found = Properties::default();
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let mut lines = text.split('\n').zip(1..);
    while let Some((line, number)) = lines.next() {
        let mut logical = line.trim_start().to_owned();
        if logical.is_empty() || logical.starts_with(['#', '!']) {
            continue;
        }
        while continues(&logical) {
            logical.pop();
            let Some((next, _)) = lines.next() else { break };
            logical.push_str(next.trim_start());
        }
        let (key, value) = split(&logical);
        let unescape = |part: &str| unescape(part).map_err(|why| format!("line {number}: {why}"));
        let (key, value) = (unescape(key)?, unescape(value)?);
        let value = value.trim().to_owned();
        if let Some(at) = found.entries.iter().position(|(known, _)| *known == key) {
            found.entries.remove(at);
            if !found.repeated.contains(&key) {
                found.repeated.push(key.clone());
            }
        }
        found.entries.push((key, value));
    }
    Ok(found)
}

/// Whether a line ends in an odd number of backslashes.
fn continues(line: &str) -> bool {
    let backslashes = line.bytes().rev().take_while(|b| *b == b'\\').count();
    backslashes % 2 == 1
}

/// Key and value of a line, both as written.
fn split(line: &str) -> (&str, &str) {
    let mut escaped = false;
    let end = line.find(|c: char| {
        let ends = !escaped && (c.is_ascii_whitespace() || matches!(c, '=' | ':'));
        escaped = !escaped && c == '\\';
        ends
    });
    let (key, rest) = line.split_at(end.unwrap_or(line.len()));
    let rest = rest.trim_start();
    (
        key,
        rest.strip_prefix(['=', ':']).unwrap_or(rest).trim_start(),
    )
}

fn unescape(text: &str) -> Result<String, String> {
    let mut units: Vec<u16> = Vec::with_capacity(text.len());
    let mut chars = text.chars();
    let mut unit = [0; 2];
    while let Some(c) = chars.next() {
        let plain = match c {
            '\\' => match chars.next() {
                Some('u') => {
                    let hex: String = chars.by_ref().take(4).collect();
                    let digits = hex.len() == 4 && hex.bytes().all(|b| b.is_ascii_hexdigit());
                    let code = u16::from_str_radix(&hex, 16).ok().filter(|_| digits);
                    units.push(code.ok_or("\\u needs four hexadecimal digits")?);
                    continue;
                }
                Some('t') => '\t',
                Some('n') => '\n',
                Some('r') => '\r',
                Some('f') => '\u{c}',
                Some(other) => other,
                None => continue,
            },
            c => c,
        };
        units.extend_from_slice(plain.encode_utf16(&mut unit));
    }
    String::from_utf16(&units).map_err(|_| "half of a character is escaped".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Vec<(String, String)> {
        parse(text).unwrap().entries
    }

    fn one(text: &str) -> (String, String) {
        let mut all = pairs(text);
        assert_eq!(all.len(), 1, "{text}: {all:?}");
        all.remove(0)
    }

    #[test]
    fn every_way_to_write_a_line() {
        for text in [
            "key=value",
            "key = value",
            "key:value",
            "key : value",
            "key value",
            "key\tvalue",
            "  key=value",
            "key=value  ",
            "key=value\r\n",
            "key=val\\\n   ue",
            "key=val\\\r\n   ue",
            "k\\\ney=value",
            "# comment\n! comment\n\n  # comment\nkey=value\n#key=other",
            "k\\u0065y=\\u0076alue",
            "\\key=v\\alue",
        ] {
            assert_eq!(one(text), ("key".into(), "value".into()), "{text:?}");
        }
    }

    #[test]
    fn separators_and_comments_inside_of_values_are_text() {
        assert_eq!(one("a=b=c:d # e").1, "b=c:d # e");
        assert_eq!(one("a\\=b\\ c=d").0, "a=b c");
        assert_eq!(one("a=C:\\\\store\\\\x").1, "C:\\store\\x");
        assert_eq!(
            one("a=b\\\\\nc=d\n".split_inclusive('\n').next().unwrap()).1,
            "b\\"
        );
        assert_eq!(one("a=1\\t2").1, "1\t2");
        assert_eq!(one("a=\\u4e2d\\uD83D\\uDE00").1, "中😀");
        assert_eq!(one("key"), ("key".into(), String::new()));
        assert_eq!(one("key="), ("key".into(), String::new()));
        assert_eq!(one("key=x\\").1, "x");
        assert!(pairs("").is_empty() && pairs("# only\n\n").is_empty());
    }

    #[test]
    fn the_last_of_several_lines_counts() {
        let found = parse("a=1\nb=2\na=3\na=4\n").unwrap();
        let wanted = [("b", "2"), ("a", "4")].map(|(k, v)| (k.into(), v.into()));
        assert_eq!(found.entries, wanted);
        assert_eq!(found.repeated, ["a"]);
    }

    #[test]
    fn broken_escapes_name_their_line() {
        for (text, line) in [
            ("a=\\u12", "line 1"),
            ("a=1\nb=\\uzzzz", "line 2"),
            ("a=1\r\n\r\nb=\\u+123", "line 3"),
            ("# c\na=\\uD83D", "line 2"),
        ] {
            let why = parse(text).unwrap_err();
            assert!(why.starts_with(line), "{text:?}: {why}");
        }
    }
}
