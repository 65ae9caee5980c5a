//! Topic and consumer statistics: 202 and 208. Their tables are keyed by raw queue objects.

use super::mq_table::MqTable;
use serde::{Deserialize, Serialize};

/// One queue in [`TopicStatsTable`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicOffset {
    /// Store time of the last message, ms; 0 without one.
    pub last_update_timestamp: i64,
    /// Offset the next message will get.
    pub max_offset: i64,
    /// Smallest offset held.
    pub min_offset: i64,
}

/// Body of the answer to 202: one entry for each of max(read, write) queues.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicStatsTable {
    /// By queue.
    pub offset_table: MqTable<TopicOffset>,
    /// Messages a second put into the topic.
    pub topic_put_tps: f64,
}

fn write_double(out: &mut Vec<u8>, value: f64) {
    let value = if value.is_finite() { value } else { 0.0 };
    out.extend(super::encode(&value));
}

impl TopicStatsTable {
    /// The body.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = b"{\"offsetTable\":".to_vec();
        self.offset_table.write(&mut out);
        out.extend(b",\"topicPutTps\":");
        write_double(&mut out, self.topic_put_tps);
        out.push(b'}');
        out
    }
}

/// One queue in [`ConsumeStats`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OffsetWrapper {
    /// Offset the next message will get.
    pub broker_offset: i64,
    /// The group's committed offset.
    pub consumer_offset: i64,
    /// Store time of the last consumed message, ms.
    pub last_timestamp: i64,
    /// Where the group pulled last.
    pub pull_offset: i64,
}

/// Body of the answer to 208: one entry per read queue, also when the offset is 0.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumeStats {
    /// Messages a second consumed.
    pub consume_tps: f64,
    /// By queue.
    pub offset_table: MqTable<OffsetWrapper>,
}

impl ConsumeStats {
    /// The body.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = b"{\"consumeTps\":".to_vec();
        write_double(&mut out, self.consume_tps);
        out.extend(b",\"offsetTable\":");
        self.offset_table.write(&mut out);
        out.push(b'}');
        out
    }
}
