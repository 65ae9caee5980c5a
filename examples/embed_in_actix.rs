//! A broker inside somebody else's actix application: an actor of the application appends
//! messages through the shard handle and reads them back, without a connection to anything.
//! Clients of RocketMQ can connect at the same time.
//!
//! `cargo run --example embed_in_actix`

use actix::prelude::*;
use bytes::BytesMut;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::error::Error;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use tokio::sync::oneshot;
use troupemq::actors::shard::ShardHandle;
use troupemq::actors::sinks::{ReplySink, Sinks};
use troupemq::config::Config;
use troupemq::model::append::{AppendBatch, AppendRequest, ReadSpec, RecordMeta};
use troupemq::model::command::MetaOp;
use troupemq::model::outcome::{Completion, Outcome, Token};
use troupemq::model::policy::AckPolicy;
use troupemq::model::topic::{TopicConfig, PERM_READ, PERM_WRITE};
use troupemq::model::{QueueKey, TopicId};
use troupemq::node::{Broker, Listening};
use troupemq::wire::message::record::{records, RecordInput};

/// Turns answers of the broker into futures of the application.
#[derive(Default)]
struct Answers {
    next: AtomicU64,
    waiting: Mutex<HashMap<u64, oneshot::Sender<Outcome>>>,
}

impl ReplySink for Answers {
    fn deliver(&self, batch: Vec<Completion>) {
        let mut waiting = self.waiting.lock();
        for completion in batch {
            if let Some(asker) = waiting.remove(&completion.token.slot) {
                let _ = asker.send(completion.outcome);
            }
        }
    }
}

impl Answers {
    fn token(&self, sink: u32) -> (Token, oneshot::Receiver<Outcome>) {
        let (tell, told) = oneshot::channel();
        let slot = self.next.fetch_add(1, Ordering::Relaxed);
        self.waiting.lock().insert(slot, tell);
        (Token { sink, slot }, told)
    }
}

/// The application's own actor: keeps a journal in a queue of the broker.
struct Journal {
    shard: ShardHandle,
    topic: Arc<TopicConfig>,
    sink: u32,
    answers: Arc<Answers>,
}

impl Actor for Journal {
    type Context = Context<Self>;
}

/// Writes a line; the answer is its offset once it is on disk.
#[derive(Message)]
#[rtype(result = "Result<u64, String>")]
struct Write(String);

impl Handler<Write> for Journal {
    type Result = ResponseFuture<Result<u64, String>>;

    fn handle(&mut self, Write(line): Write, _: &mut Context<Self>) -> Self::Result {
        let host = ([127, 0, 0, 1], 0).into();
        let input = RecordInput {
            topic: &self.topic.name,
            body: line.as_bytes(),
            queue_id: 0,
            flag: 0,
            // These two and the store time are filled in by the broker.
            queue_offset: 0,
            phys_offset: 0,
            store_ts: 0,
            sys_flag: 0,
            born_ts: 0,
            born_host: host,
            store_host: host,
            reconsume_times: 0,
            prepared_txn_offset: 0,
            properties: b"",
        };
        let mut bytes = BytesMut::new();
        let size = match input.encode(&mut bytes) {
            Ok(size) => size as u32,
            Err(error) => return Box::pin(std::future::ready(Err(error.to_string()))),
        };
        let (token, answer) = self.answers.token(self.sink);
        let batch = AppendBatch {
            requests: vec![AppendRequest {
                token,
                count: 1,
                policy: AckPolicy::STRICTEST,
            }],
            metas: vec![RecordMeta { size, tag: 0 }],
            records: bytes.into(),
        };
        self.shard
            .append(QueueKey::new(TopicId(self.topic.id), 0), batch);
        Box::pin(async move {
            match answer.await {
                Ok(Outcome::Appended { base_offset, .. }) => Ok(base_offset),
                other => Err(format!("{other:?}")),
            }
        })
    }
}

/// Reads the journal from an offset on.
#[derive(Message)]
#[rtype(result = "Result<Vec<String>, String>")]
struct Read(u64);

impl Handler<Read> for Journal {
    type Result = ResponseFuture<Result<Vec<String>, String>>;

    fn handle(&mut self, Read(from): Read, _: &mut Context<Self>) -> Self::Result {
        let key = QueueKey::new(TopicId(self.topic.id), 0);
        let shard = self.shard.clone();
        Box::pin(async move {
            let mut lines = Vec::new();
            let mut at = from;
            while at < shard.bounds(key).max {
                let spec = ReadSpec {
                    max_messages: 32,
                    max_bytes: 1 << 20,
                    tags: None,
                    max_scan: 1000,
                };
                let batch = match shard.read_tail(key, at, &spec) {
                    Some(batch) => batch,
                    // Not in memory: from disk, on a thread that may block.
                    None => {
                        let shard = shard.clone();
                        let read = move || shard.read_stored(key, at, &spec);
                        let read = tokio::task::spawn_blocking(read).await;
                        read.map_err(|e| e.to_string())?
                            .map_err(|e| e.to_string())?
                    }
                };
                for record in batch.slices.iter().flat_map(|slice| records(slice)) {
                    let record = record.map_err(|e| e.to_string())?;
                    lines.push(String::from_utf8_lossy(record.body()).into_owned());
                }
                at = batch.next_offset;
            }
            Ok(lines)
        })
    }
}

fn journal(shard: &ShardHandle, sinks: &Sinks, topic: Arc<TopicConfig>) -> Addr<Journal> {
    let answers = Arc::new(Answers::default());
    let sink = sinks.register(answers.clone());
    Journal {
        shard: shard.clone(),
        topic,
        sink,
        answers,
    }
    .start()
}

/// What the application found out.
pub struct Report {
    pub listening: Listening,
    pub offsets: Vec<u64>,
    pub lines: Vec<String>,
    pub brokers: Vec<String>,
    pub groups_online: Vec<String>,
}

/// A configuration with everything in `dir` and on free ports.
pub fn config(dir: &Path) -> Config {
    Config {
        data_dir: dir.display().to_string(),
        listen_port: 0,
        namesrv_listen_port: 0,
        http_listen_port: 0,
        ..Config::default()
    }
}

/// The application: starts a broker, works with it and stops it.
pub async fn application(config: Config, lines: &[&str]) -> Result<Report, Box<dyn Error>> {
    let broker = Broker::builder().config(config).start().await?;
    let report = work(&broker, lines).await;
    broker.stop().await;
    report
}

async fn work(broker: &Broker, lines: &[&str]) -> Result<Report, Box<dyn Error>> {
    let shard = broker.shard().ok_or("no broker here")?;
    let topic = TopicConfig::new("journal", 1, PERM_READ | PERM_WRITE);
    shard.command(MetaOp::EnsureTopic(topic)).await?;
    let topic = shard
        .meta()
        .topic("journal")
        .ok_or("the topic is missing")?;
    let journal = journal(shard, broker.sinks(), topic);

    let mut offsets = Vec::new();
    for line in lines {
        offsets.push(journal.send(Write((*line).to_owned())).await??);
    }
    let lines = journal.send(Read(0)).await??;

    let groups = broker.groups().ok_or("no groups here")?;
    let registry = broker.registry().ok_or("no name server here")?;
    Ok(Report {
        listening: broker.listening(),
        offsets,
        lines,
        brokers: registry.cluster_info().brokers.into_keys().collect(),
        groups_online: groups.online(),
    })
}

#[actix::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let dir = std::env::temp_dir().join(format!("troupe-embedded-{}", std::process::id()));
    let report = application(config(&dir), &["one", "two", "three"]).await?;
    std::fs::remove_dir_all(&dir)?;
    println!("clients could connect to {:?}", report.listening);
    println!(
        "brokers {:?}, offsets {:?}, journal {:?}",
        report.brokers, report.offsets, report.lines
    );
    Ok(())
}
