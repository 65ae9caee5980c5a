//! What the benches work on: messages with bodies of 1 KiB, as a Java client sends them.

use bytes::{Bytes, BytesMut};
use serde_json::Value;
use std::net::SocketAddr;
use std::path::Path;
use troupemq::model::append::{AppendBatch, AppendRequest, RecordMeta};
use troupemq::model::command::{MetaCommand, MetaOp};
use troupemq::model::outcome::Token;
use troupemq::model::policy::AckPolicy;
use troupemq::model::topic::TopicConfig;
use troupemq::model::{QueueKey, ShardId, TopicId};
use troupemq::raft::entry::EntryBuilder;
use troupemq::storage::LogEntry;
use troupemq::wire::message::record::RecordInput;

pub const SHARD: ShardId = ShardId(1);
pub const KEY: QueueKey = QueueKey {
    topic: TopicId(1),
    queue: 0,
};
pub const NOW_MS: i64 = 1_700_000_000_000;
pub const BODY: [u8; 1024] = [b'x'; 1024];
/// Encoded properties of a message from a Java client: its id, a tag and `WAIT`.
pub const PROPERTIES: &[u8] =
    b"UNIQ_KEY\x01C0A800010000070DEA4E8F1A2B3C0001\x02WAIT\x01true\x02TAGS\x01TagA\x02";

/// Bytes of a golden vector, see `tests/vectors`.
pub fn vector(file: &str, name: &str) -> Bytes {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    let text = std::fs::read(path.join(file)).expect("a vector file");
    let all: Value = serde_json::from_slice(&text).expect("JSON");
    let vectors = all["vectors"].as_array().expect("a list");
    let found = vectors.iter().find(|v| v["name"] == name);
    let hex = found.and_then(|v| v["hex"].as_str()).expect(name);
    hex::decode(hex).expect("hex").into()
}

pub fn host() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 10911))
}

/// The record of a message, its offsets and store time still blank.
pub fn input() -> RecordInput<'static> {
    RecordInput {
        topic: "bench_topic",
        body: &BODY,
        queue_id: 0,
        flag: 0,
        queue_offset: 0,
        phys_offset: 0,
        sys_flag: 0,
        born_ts: NOW_MS,
        born_host: host(),
        store_ts: 0,
        store_host: host(),
        reconsume_times: 0,
        prepared_txn_offset: 0,
        properties: PROPERTIES,
    }
}

pub fn record() -> Vec<u8> {
    let mut out = BytesMut::new();
    input().encode(&mut out).expect("a record");
    out.to_vec()
}

/// `messages` requests of one record each, as a connection hands them to a queue.
pub fn batch(messages: usize, policy: AckPolicy) -> AppendBatch {
    let record = record();
    let request = |slot| AppendRequest {
        token: Token {
            sink: 0,
            slot: slot as u64,
        },
        count: 1,
        policy,
    };
    AppendBatch {
        requests: (0..messages).map(request).collect(),
        metas: vec![meta(&record); messages],
        records: record.repeat(messages),
    }
}

pub fn meta(record: &[u8]) -> RecordMeta {
    RecordMeta {
        size: record.len() as u32,
        tag: 2598919,
    }
}

/// A log entry with `messages` records of each of `queues` queues, offsets from `base` on.
pub fn entry(index: u64, queues: u32, messages: usize, base: u64) -> LogEntry {
    let batch = batch(messages, AckPolicy::STRICTEST);
    let size = queues as usize * batch.records.len() + 4096;
    let mut builder = EntryBuilder::new(index, NOW_MS, size);
    for queue in 0..queues {
        let key = QueueKey::new(KEY.topic, queue);
        builder
            .append(key, base, &batch.metas, &batch.records)
            .expect("records");
    }
    LogEntry {
        index,
        term: 1,
        kind: 0,
        data: builder.finish().into(),
    }
}

/// The first entry: it creates the topic of [`KEY`].
pub fn create_topic(queues: u32) -> LogEntry {
    let topic = TopicConfig {
        name: "bench_topic".into(),
        read_queues: queues,
        write_queues: queues,
        perm: 6,
        ..TopicConfig::default()
    };
    let mut builder = EntryBuilder::new(1, NOW_MS, 0);
    builder.meta(&MetaCommand {
        op: Some(MetaOp::PutTopic(topic)),
    });
    LogEntry {
        index: 1,
        term: 1,
        kind: 0,
        data: builder.finish().into(),
    }
}
