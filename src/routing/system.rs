//! Topics a broker has by itself, and which names clients may not use (remoting-client §9.6).

use super::auto_create::TEMPLATE;
use crate::model::topic::{TopicConfig, PERM_INHERIT, PERM_READ, PERM_WRITE};

/// Messages that wait for a delay level.
pub const SCHEDULE: &str = "SCHEDULE_TOPIC_XXXX";
/// Half messages of transactions.
pub const TRANS_HALF: &str = "RMQ_SYS_TRANS_HALF_TOPIC";
/// "Done" marks of transactions.
pub const TRANS_OP_HALF: &str = "RMQ_SYS_TRANS_OP_HALF_TOPIC";
/// Half messages that were checked too often.
pub const TRANS_CHECK_MAX_TIME: &str = "TRANS_CHECK_MAX_TIME_TOPIC";
/// Clients' trace records.
pub const TRACE: &str = "RMQ_SYS_TRACE_TOPIC";
/// Stock self test.
pub const SELF_TEST: &str = "SELF_TEST_TOPIC";
/// Stock offset events.
pub const OFFSET_MOVED: &str = "OFFSET_MOVED_EVENT";
/// Stock benchmark topic.
pub const BENCHMARK: &str = "BenchmarkTest";
const ROCKSDB_TRANS_HALF: &str = "RMQ_SYS_ROCKSDB_TRANS_HALF_TOPIC";
const ROCKSDB_TRANS_OP_HALF: &str = "RMQ_SYS_ROCKSDB_TRANS_OP_HALF_TOPIC";
const CHECKPOINT: &str = "CHECKPOINT_TOPIC";

/// Queues of the template topic.
pub const TEMPLATE_QUEUES: u32 = 8;
/// Queues of the topic named like the cluster.
pub const CLUSTER_QUEUES: u32 = 16;
/// Queues of the topic named like the broker.
pub const BROKER_QUEUES: u32 = 1;
/// Queues of [`BENCHMARK`].
pub const BENCHMARK_QUEUES: u32 = 1_024;
/// Queues of [`SCHEDULE`]: one a level.
pub const SCHEDULE_QUEUES: u32 = 18;

/// What decides which topics a broker starts with.
#[derive(Debug, Clone, Copy)]
pub struct BrokerTraits<'a> {
    pub cluster: &'a str,
    pub broker_name: &'a str,
    /// `autoCreateTopicEnable`.
    pub auto_create: bool,
    /// `traceTopicEnable`; its name ([`TRACE`] when not configured).
    pub trace_topic: Option<&'a str>,
    /// Queues of [`SCHEDULE`]: the number of delay levels.
    pub delay_levels: u32,
}

/// The topics to create at start unless they are there; one entry a name, in a fixed order.
pub fn startup_topics(broker: &BrokerTraits<'_>) -> Vec<TopicConfig> {
    let rw = PERM_READ | PERM_WRITE;
    let all = rw | PERM_INHERIT;
    let mut topics = vec![
        TopicConfig::new(SELF_TEST, 1, rw),
        TopicConfig::new(BENCHMARK, BENCHMARK_QUEUES, rw),
        TopicConfig::new(OFFSET_MOVED, 1, rw),
        TopicConfig::new(SCHEDULE, broker.delay_levels.max(1), rw),
        TopicConfig::new(TRANS_HALF, 1, rw),
        TopicConfig::new(TRANS_OP_HALF, 1, rw),
        TopicConfig::new(TRANS_CHECK_MAX_TIME, 1, rw),
        TopicConfig::new(reply_topic(broker.cluster), 1, rw),
    ];
    if broker.auto_create {
        topics.push(TopicConfig::new(TEMPLATE, TEMPLATE_QUEUES, all));
    }
    // With auto-creation off these two serve as nobody's template.
    let named = if broker.auto_create { all } else { rw };
    topics.push(TopicConfig::new(broker.cluster, CLUSTER_QUEUES, named));
    topics.push(TopicConfig::new(broker.broker_name, BROKER_QUEUES, named));
    if let Some(trace) = broker.trace_topic {
        topics.push(TopicConfig::new(trace, 1, rw));
    }
    let mut seen = std::collections::BTreeSet::new();
    topics.retain(|t| seen.insert(t.name.clone()));
    topics
}

/// Where replies of request-reply are sent to.
pub fn reply_topic(cluster: &str) -> String {
    format!("{cluster}_REPLY_TOPIC")
}

/// Clients may not send to it: "Sending message to topic\[…\] is forbidden." (code 16).
pub fn send_forbidden(topic: &str) -> bool {
    matches!(
        topic,
        SCHEDULE
            | TRANS_HALF
            | TRANS_OP_HALF
            | TRANS_CHECK_MAX_TIME
            | SELF_TEST
            | OFFSET_MOVED
            | ROCKSDB_TRANS_HALF
            | ROCKSDB_TRANS_OP_HALF
    )
}

/// A name that no client may create, change or delete as a topic of its own.
pub fn is_system(topic: &str, cluster: &str, broker_name: &str) -> bool {
    send_forbidden(topic)
        || matches!(topic, TEMPLATE | BENCHMARK | TRACE | CHECKPOINT)
        || topic.starts_with("rmq_sys_")
        || topic == cluster
        || topic == broker_name
        || topic.strip_suffix("_REPLY_TOPIC") == Some(cluster)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traits(auto_create: bool) -> BrokerTraits<'static> {
        BrokerTraits {
            cluster: "C",
            broker_name: "b",
            auto_create,
            trace_topic: Some(TRACE),
            delay_levels: 18,
        }
    }

    fn find<'a>(topics: &'a [TopicConfig], name: &str) -> Option<&'a TopicConfig> {
        topics.iter().find(|t| t.name == name)
    }

    #[test]
    fn startup() {
        let topics = startup_topics(&traits(true));
        let row = |name: &str| find(&topics, name).map(|t| (t.read_queues, t.write_queues, t.perm));
        assert_eq!(row(TEMPLATE), Some((8, 8, 7)));
        assert_eq!(row("C"), Some((16, 16, 7)));
        assert_eq!(row("b"), Some((1, 1, 7)));
        assert_eq!(row("C_REPLY_TOPIC"), Some((1, 1, 6)));
        assert_eq!(row(BENCHMARK), Some((1_024, 1_024, 6)));
        assert_eq!(row(SCHEDULE), Some((18, 18, 6)));
        assert_eq!(row(TRACE), Some((1, 1, 6)));
        let closed = startup_topics(&BrokerTraits {
            trace_topic: None,
            ..traits(false)
        });
        assert!(find(&closed, TEMPLATE).is_none() && find(&closed, TRACE).is_none());
        assert!(closed.iter().all(|t| t.perm & PERM_INHERIT == 0));
    }

    #[test]
    fn cluster_and_broker_of_one_name_make_one_topic() {
        let topics = startup_topics(&BrokerTraits {
            broker_name: "C",
            ..traits(true)
        });
        assert_eq!(topics.iter().filter(|t| t.name == "C").count(), 1);
    }

    #[test]
    fn names() {
        assert!(send_forbidden(SCHEDULE) && !send_forbidden(TEMPLATE));
        for name in [
            TEMPLATE,
            TRACE,
            "C",
            "b",
            "C_REPLY_TOPIC",
            "rmq_sys_x",
            SCHEDULE,
        ] {
            assert!(is_system(name, "C", "b"), "{name}");
        }
        for name in ["T", "D_REPLY_TOPIC", "%RETRY%g", "RMQ_SYS"] {
            assert!(!is_system(name, "C", "b"), "{name}");
        }
    }
}
