//! Tag codes and tag expressions.

use smallvec::SmallVec;
use thiserror::Error;

/// Java's `String.hashCode`: 31·h + c over UTF-16 units, wrapping at 32 bits. 0 for no tag.
pub fn tag_code(tag: &str) -> i32 {
    let step = |h: i32, unit: u16| h.wrapping_mul(31).wrapping_add(i32::from(unit));
    if tag.is_ascii() {
        tag.bytes().fold(0, |h, b| step(h, u16::from(b)))
    } else {
        tag.encode_utf16().fold(0, step)
    }
}

/// An expression that names no tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the tag expression names no tag")]
pub struct BadExpression;

/// Which messages a subscription wants, by tag code.
///
/// Codes may collide; the client compares the tags themselves again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TagFilter {
    /// Everything, also messages without a tag.
    All,
    /// Messages with one of these codes (sorted).
    Codes(SmallVec<[i32; 4]>),
}

/// The tags of an expression: split on `||`, trimmed, empty ones dropped.
pub fn split_tags(expression: &str) -> impl Iterator<Item = &str> + '_ {
    expression
        .split("||")
        .map(str::trim)
        .filter(|t| !t.is_empty())
}

impl TagFilter {
    /// Reads a TAG expression; `*` and the empty one mean everything.
    pub fn parse(expression: &str) -> Result<TagFilter, BadExpression> {
        if expression.is_empty() || expression == "*" {
            return Ok(TagFilter::All);
        }
        let codes = TagFilter::from_codes(split_tags(expression).map(tag_code));
        match codes {
            TagFilter::Codes(c) if c.is_empty() => Err(BadExpression),
            codes => Ok(codes),
        }
    }

    /// A filter for a heartbeat's code set.
    pub fn from_codes(codes: impl IntoIterator<Item = i32>) -> TagFilter {
        let mut codes: SmallVec<[i32; 4]> = codes.into_iter().collect();
        codes.sort_unstable();
        codes.dedup();
        TagFilter::Codes(codes)
    }

    /// Whether a message with this tag code passes.
    pub fn matches(&self, code: i32) -> bool {
        match self {
            TagFilter::All => true,
            TagFilter::Codes(codes) if codes.len() <= 8 => codes.contains(&code),
            TagFilter::Codes(codes) => codes.binary_search(&code).is_ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions() {
        assert_eq!(TagFilter::parse("*"), Ok(TagFilter::All));
        assert_eq!(TagFilter::parse(""), Ok(TagFilter::All));
        assert_eq!(TagFilter::parse(" || "), Err(BadExpression));
        let f = TagFilter::parse("TagB|| TagA ||TagA||").unwrap();
        assert_eq!(f, TagFilter::from_codes([2598919, 2598920]));
        assert!(f.matches(2598919) && !f.matches(0) && !f.matches(1));
        // A collision passes: the client sorts it out.
        assert!(TagFilter::parse("Aa").unwrap().matches(tag_code("BB")));
        let many: Vec<String> = (0..20).map(|i| format!("t{i}")).collect();
        let f = TagFilter::parse(&many.join("||")).unwrap();
        assert!(many.iter().all(|t| f.matches(tag_code(t))));
        assert!(!f.matches(tag_code("t20")));
    }
}
