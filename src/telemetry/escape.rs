//! Untrusted text in log lines (reliability reference §8 row 25).

use std::fmt::{self, Display, Formatter, Write};

/// Longest part of an untrusted text that is shown, in characters.
const SHOWN: usize = 200;

/// Shows text from outside on one line: control characters, line and paragraph separators and
/// characters that change the direction of writing are escaped, and long text is cut.
///
/// `info!(topic = %Escaped(topic), …)`
#[derive(Clone, Copy)]
pub struct Escaped<'a>(pub &'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut chars = self.0.chars();
        for c in chars.by_ref().take(SHOWN) {
            if is_harmful(c) {
                write!(f, "{}", c.escape_default())?;
            } else {
                f.write_char(c)?;
            }
        }
        match chars.count() {
            0 => Ok(()),
            more => write!(f, "… ({more} more)"),
        }
    }
}

impl fmt::Debug for Escaped<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        Display::fmt(self, f)
    }
}

/// The whole text, harmless to a terminal but with its backslashes as they are; for output that
/// people asked for.
pub fn escape_all(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_harmful(c) && c != '\\' {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(c, '\\' | '\u{2028}' | '\u{2029}' | '\u{feff}')
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_starts_a_line_or_a_terminal_sequence() {
        let shown = Escaped("a\nb\r\u{1b}[31m\0\u{85}\u{2028}\u{202e}\\n").to_string();
        assert_eq!(
            shown,
            "a\\nb\\r\\u{1b}[31m\\u{0}\\u{85}\\u{2028}\\u{202e}\\\\n"
        );
        assert_eq!(
            Escaped("Größe %RETRY%a-b_c|").to_string(),
            "Größe %RETRY%a-b_c|"
        );
    }

    #[test]
    fn long_text_is_cut_and_counted() {
        let text = "ä".repeat(1_000);
        let shown = Escaped(&text).to_string();
        assert_eq!(shown, format!("{}… (800 more)", "ä".repeat(200)));
        assert_eq!(escape_all(&text), text);
        assert_eq!(escape_all("\\a\n\u{1b}"), "\\a\\n\\u{1b}");
    }
}
