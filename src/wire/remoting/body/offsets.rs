//! Offset tables: reset offsets (220, 222).

use super::mq_table::MqTable;
use serde::{Deserialize, Serialize};

/// Answer of 222 and body of 220.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ResetOffsetBody {
    /// The offset each queue is set to.
    pub offset_table: MqTable<i64>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CppEntry<'a> {
    broker_name: &'a str,
    offset: i64,
    queue_id: i32,
    topic: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CppTable<'a> {
    offset_table: Vec<CppEntry<'a>>,
}

impl ResetOffsetBody {
    /// The form for Java and Go: object keys.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = b"{\"offsetTable\":".to_vec();
        self.offset_table.write(&mut out);
        out.push(b'}');
        out
    }

    /// The form for C++ and Python clients (220 only): an array.
    pub fn encode_for_cpp(&self) -> Vec<u8> {
        let entries = self.offset_table.0.iter().map(|(queue, offset)| CppEntry {
            broker_name: &queue.broker_name,
            offset: *offset,
            queue_id: queue.queue_id,
            topic: &queue.topic,
        });
        super::encode(&CppTable {
            offset_table: entries.collect(),
        })
    }
}
