//! What a topic looks like that is created by the first message to it (remoting-client §3.4).

use super::names;
use crate::model::topic::{TopicConfig, PERM_INHERIT, PERM_READ, PERM_WRITE};

/// The stock create key and template topic.
pub const TEMPLATE: &str = "TBW102";

/// The topic to create for a send to an unknown one; `None` is code 17.
///
/// `template` is the topic named by the request's `defaultTopic` as it stands in the topic table,
/// `asked_queues` the request's `defaultTopicQueueNums`.
pub fn topic_for_send(
    name: &str,
    template: Option<&TopicConfig>,
    asked_queues: i32,
    unit: bool,
) -> Option<TopicConfig> {
    let mut topic = match template {
        Some(t) if t.perm & PERM_INHERIT != 0 => {
            let queues = u32::try_from(asked_queues).unwrap_or(0).min(t.write_queues);
            if queues == 0 {
                return None;
            }
            TopicConfig::new(name, queues, t.perm & !PERM_INHERIT)
        }
        _ => {
            names::retry_group(name)?;
            TopicConfig::new(name, 1, PERM_READ | PERM_WRITE)
        }
    };
    if unit {
        topic.sys_flag |= 1;
    }
    Some(topic)
}

/// The retry topic of a group, as a heartbeat or a send-back creates it.
pub fn retry_topic(group: &str, queues: u32) -> TopicConfig {
    TopicConfig::new(
        names::retry_topic(group),
        queues.max(1),
        PERM_READ | PERM_WRITE,
    )
}

/// The dead letter topic of a group: one queue. Stock 5.x makes it readable and writable.
pub fn dlq_topic(group: &str) -> TopicConfig {
    TopicConfig::new(names::dlq_topic(group), 1, PERM_READ | PERM_WRITE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn from_template() {
        let template = TopicConfig::new(TEMPLATE, 8, 7);
        let topic = topic_for_send("T", Some(&template), 4, false).expect("created");
        assert_eq!(
            (topic.read_queues, topic.write_queues, topic.perm),
            (4, 4, 6)
        );
        let topic = topic_for_send("T", Some(&template), 100, true).expect("created");
        assert_eq!((topic.write_queues, topic.sys_flag), (8, 1));
        assert_eq!(topic_for_send("T", Some(&template), -1, false), None);
        assert_eq!(topic_for_send("T", Some(&template), 0, false), None);
    }

    #[test]
    fn no_template_means_no_topic_but_for_retry() {
        assert_eq!(topic_for_send("T", None, 4, false), None);
        let closed = TopicConfig::new("X", 8, 6);
        assert_eq!(topic_for_send("T", Some(&closed), 4, false), None);
        let retry = topic_for_send("%RETRY%g", Some(&closed), 4, false).expect("created");
        assert_eq!((retry.write_queues, retry.perm), (1, 6));
    }
}
