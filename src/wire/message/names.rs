//! Topic and group names: what is allowed, what is reserved, retry and dead-letter names.

use thiserror::Error;

/// Longest name of an ordinary topic.
pub const MAX_TOPIC: usize = 127;
/// Longest name of a retry or dead-letter topic.
pub const MAX_DERIVED_TOPIC: usize = 255;
/// Longest group name: with the retry prefix it still fits a v1 record, which every client reads
/// (5.x's limit; 4.9 clients allow 255).
pub const MAX_GROUP: usize = 120;

/// Prefix of a group's retry topic.
pub const RETRY_PREFIX: &str = "%RETRY%";
/// Prefix of a group's dead-letter topic.
pub const DLQ_PREFIX: &str = "%DLQ%";

/// Template topic of auto-creation.
pub const AUTO_CREATE_TOPIC: &str = "TBW102";
/// Where delayed messages wait.
pub const SCHEDULE_TOPIC: &str = "SCHEDULE_TOPIC_XXXX";
/// Where half messages wait.
pub const HALF_TOPIC: &str = "RMQ_SYS_TRANS_HALF_TOPIC";
/// Marks of finished half messages.
pub const OP_HALF_TOPIC: &str = "RMQ_SYS_TRANS_OP_HALF_TOPIC";
/// Where clients write traces.
pub const TRACE_TOPIC: &str = "RMQ_SYS_TRACE_TOPIC";

const FORBIDDEN_TO_SEND: [&str; 8] = [
    SCHEDULE_TOPIC,
    HALF_TOPIC,
    OP_HALF_TOPIC,
    "TRANS_CHECK_MAX_TIME_TOPIC",
    "SELF_TEST_TOPIC",
    "OFFSET_MOVED_EVENT",
    "RMQ_SYS_ROCKSDB_TRANS_HALF_TOPIC",
    "RMQ_SYS_ROCKSDB_TRANS_OP_HALF_TOPIC",
];

const OTHER_SYSTEM_TOPICS: [&str; 4] = [
    AUTO_CREATE_TOPIC,
    "BenchmarkTest",
    TRACE_TOPIC,
    "CHECKPOINT_TOPIC",
];

/// Why a name is refused; the text is what stock brokers say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum NameError {
    /// Empty or white space.
    #[error("The specified {0} is blank.")]
    Blank(&'static str),
    /// Too long.
    #[error("The specified {0} is longer than {0} max length {1}.")]
    TooLong(&'static str, usize),
    /// A character outside of letters, digits, `_`, `-`, `%`, `|`.
    #[error("The specified {0} contains illegal characters, allowing only ^[%|a-zA-Z0-9_-]+$")]
    Characters(&'static str),
}

fn check(kind: &'static str, name: &str, max: usize) -> Result<(), NameError> {
    if name.trim().is_empty() {
        return Err(NameError::Blank(kind));
    }
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'%' | b'|');
    if !name.bytes().all(allowed) {
        return Err(NameError::Characters(kind));
    }
    if name.len() > max {
        return Err(NameError::TooLong(kind, max));
    }
    Ok(())
}

/// Checks a topic name: characters, and 127 bytes (255 for retry and dead-letter topics).
pub fn check_topic(topic: &str) -> Result<(), NameError> {
    let derived = topic.starts_with(RETRY_PREFIX) || topic.starts_with(DLQ_PREFIX);
    let max = if derived {
        MAX_DERIVED_TOPIC
    } else {
        MAX_TOPIC
    };
    check("topic", topic, max)
}

/// Checks a group name: characters, and [`MAX_GROUP`] bytes.
pub fn check_group(group: &str) -> Result<(), NameError> {
    check("group", group, MAX_GROUP)
}

/// Whether clients may not send to this topic (response code 16).
pub fn is_send_forbidden(topic: &str) -> bool {
    FORBIDDEN_TO_SEND.contains(&topic)
}

/// Whether the name belongs to the system: it may not be created or deleted by users. The cluster
/// and broker names and `<cluster>_REPLY_TOPIC` are system topics too, known to the caller.
pub fn is_system_topic(topic: &str) -> bool {
    is_send_forbidden(topic)
        || OTHER_SYSTEM_TOPICS.contains(&topic)
        || topic.starts_with("rmq_sys_")
}

/// Topic of a group's messages that wait for another try.
pub fn retry_topic(group: &str) -> String {
    format!("{RETRY_PREFIX}{group}")
}

/// Topic of a group's messages that failed too often.
pub fn dlq_topic(group: &str) -> String {
    format!("{DLQ_PREFIX}{group}")
}

/// Topic of replies in request-reply.
pub fn reply_topic(cluster: &str) -> String {
    format!("{cluster}_REPLY_TOPIC")
}

/// The group of a retry topic, if `topic` is one.
pub fn group_of_retry_topic(topic: &str) -> Option<&str> {
    topic.strip_prefix(RETRY_PREFIX).filter(|g| !g.is_empty())
}

/// The group of a dead-letter topic, if `topic` is one.
pub fn group_of_dlq_topic(topic: &str) -> Option<&str> {
    topic.strip_prefix(DLQ_PREFIX).filter(|g| !g.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_names_are_refused() {
        for name in ["", " ", "\t\n"] {
            assert_eq!(check_topic(name), Err(NameError::Blank("topic")));
            assert_eq!(check_group(name), Err(NameError::Blank("group")));
        }
        for name in [
            "../x", "a/b", "a\\b", ".", "a.b", "a b", "a\0", "a\u{1}b", "a\u{2}b", "тема", "a\n",
            "Ａ", "a:b", "a\u{7f}",
        ] {
            assert_eq!(
                check_topic(name),
                Err(NameError::Characters("topic")),
                "{name:?}"
            );
            assert_eq!(
                check_group(name),
                Err(NameError::Characters("group")),
                "{name:?}"
            );
        }
    }

    #[test]
    fn lengths() {
        assert!(check_topic(&"a".repeat(127)).is_ok());
        assert!(check_topic(&"a".repeat(128)).is_err());
        assert!(check_topic(&retry_topic(&"g".repeat(248))).is_ok());
        assert!(check_topic(&retry_topic(&"g".repeat(249))).is_err());
        assert!(check_topic(&dlq_topic(&"g".repeat(251))).is_err());
        assert!(check_group(&"g".repeat(120)).is_ok());
        assert!(check_group(&"g".repeat(121)).is_err());
        assert!(check_topic("%RETRY%instance%group|x-1_2").is_ok());
    }

    #[test]
    fn reserved_names() {
        assert!(is_send_forbidden("SCHEDULE_TOPIC_XXXX"));
        assert!(!is_send_forbidden("schedule_topic_xxxx"));
        assert!(is_system_topic("rmq_sys_wheel_timer") && is_system_topic("TBW102"));
        assert!(!is_system_topic("%RETRY%g") && !is_system_topic("orders"));
        assert_eq!(group_of_retry_topic("%RETRY%g"), Some("g"));
        assert_eq!(group_of_retry_topic("%RETRY%"), None);
        assert_eq!(group_of_retry_topic("%DLQ%g"), None);
        assert_eq!(group_of_dlq_topic("%DLQ%g"), Some("g"));
    }
}
