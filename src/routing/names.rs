//! Rules for names (remoting-client §9.5, §9.6).

/// Prefix of a group's retry topic.
pub const RETRY_PREFIX: &str = "%RETRY%";
/// Prefix of a group's dead letter topic.
pub const DLQ_PREFIX: &str = "%DLQ%";
/// Longest name of an ordinary topic, bytes.
pub const MAX_TOPIC: usize = 127;
/// Longest name of a retry or dead letter topic, bytes.
pub const MAX_SPECIAL_TOPIC: usize = 255;
/// Longest name of a group, bytes (4.9 clients; 5.x clients stop at 120).
pub const MAX_GROUP: usize = 255;

/// Letters, digits and `_ - % |`; not empty.
pub fn legal_chars(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'%' | b'|'))
}

/// A name a topic may have.
pub fn valid_topic(name: &str) -> bool {
    let max = if special_group(name).is_some() {
        MAX_SPECIAL_TOPIC
    } else {
        MAX_TOPIC
    };
    name.len() <= max && legal_chars(name)
}

/// A name a group may have.
pub fn valid_group(name: &str) -> bool {
    name.len() <= MAX_GROUP && legal_chars(name)
}

/// The group of a retry topic.
pub fn retry_group(topic: &str) -> Option<&str> {
    topic.strip_prefix(RETRY_PREFIX)
}

/// The group whose retry or dead letter topic it is.
pub fn special_group(topic: &str) -> Option<&str> {
    retry_group(topic).or_else(|| topic.strip_prefix(DLQ_PREFIX))
}

/// The retry topic of a group.
pub fn retry_topic(group: &str) -> String {
    format!("{RETRY_PREFIX}{group}")
}

/// The dead letter topic of a group.
pub fn dlq_topic(group: &str) -> String {
    format!("{DLQ_PREFIX}{group}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert!(valid_topic("a-B_1|%"));
        assert!(valid_topic("instance%topic"));
        for bad in ["", "a b", "ä", "a/b", "a.b", "a\n"] {
            assert!(!valid_topic(bad), "{bad:?}");
            assert!(!valid_group(bad), "{bad:?}");
        }
        assert!(valid_topic(&"t".repeat(127)));
        assert!(!valid_topic(&"t".repeat(128)));
        assert!(valid_topic(&retry_topic(&"g".repeat(248))));
        assert!(!valid_topic(&retry_topic(&"g".repeat(249))));
        assert_eq!(retry_group("%RETRY%g"), Some("g"));
        assert_eq!(retry_group("g"), None);
    }
}
