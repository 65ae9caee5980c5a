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

/// Body of the answer to 317: the groups of a broker, each with an entry for each of its topics.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ConsumeStatsList {
    /// Address of the broker.
    pub broker_addr: String,
    /// By name of the group.
    pub groups: Vec<(String, Vec<ConsumeStats>)>,
}

impl ConsumeStatsList {
    /// Messages that the groups have not consumed, by `of`.
    fn total(&self, of: impl Fn(&OffsetWrapper) -> i64) -> i64 {
        let stats = self.groups.iter().flat_map(|(_, stats)| stats);
        let queues = stats.flat_map(|stats| stats.offset_table.0.values());
        queues.map(|queue| of(queue).max(0)).sum()
    }

    /// The body.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = b"{\"brokerAddr\":".to_vec();
        out.extend(super::encode(&self.broker_addr));
        out.extend(b",\"consumeStatsList\":[");
        for (i, (group, stats)) in self.groups.iter().enumerate() {
            out.extend(if i > 0 { &b",{"[..] } else { b"{" });
            out.extend(super::encode(group));
            out.extend(b":[");
            for (i, stats) in stats.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                out.extend(stats.encode());
            }
            out.extend(b"]}");
        }
        out.extend(b"],\"totalDiff\":");
        let behind = self.total(|q| q.broker_offset.saturating_sub(q.consumer_offset));
        out.extend(super::encode(&behind));
        out.extend(b",\"totalInflightDiff\":");
        let in_flight = self.total(|q| q.pull_offset.saturating_sub(q.consumer_offset));
        out.extend(super::encode(&in_flight));
        out.push(b'}');
        out
    }
}
