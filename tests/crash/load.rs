//! Load over real connections, and the ledger of what was sent and what was answered.

use super::common::PATIENCE;
use bytes::BytesMut;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::task::JoinHandle;
use troupemq::client::{Client, Connection, Reply};
use troupemq::wire::message::batch::{put_entry, BatchEntry};
use troupemq::wire::message::properties;
use troupemq::wire::remoting::code::{request, response};
use troupemq::wire::remoting::{Command, Val};

/// The topic of messages that are stored at once.
pub const TOPIC: &str = "orders";
/// The broker's clock and this one may differ by so much, ms.
const CLOCKS_MS: i64 = 5;
/// The topic of delayed messages.
pub const LATER: &str = "later";
pub const QUEUES: i32 = 4;
pub const GROUP: &str = "readers";
const PRODUCERS: u32 = 4;
/// Requests under way on one connection.
const WINDOW: usize = 64;

/// Who sent it (a number of its own for every connection) and as which one.
pub type Id = (u32, u32);

/// What the clients know.
#[derive(Default)]
pub struct Ledger {
    /// Everything that was ever sent to a queue, acknowledged or not.
    pub sent: BTreeMap<Id, i32>,
    /// Acknowledged messages and where they were said to be.
    pub acked: BTreeMap<Id, (i32, i64)>,
    /// Delayed messages and the time before which they must not appear.
    pub delayed: BTreeMap<Id, i64>,
    /// Delayed messages that were acknowledged.
    pub delayed_acked: Vec<Id>,
    /// By queue: the highest offset whose commit was answered with success.
    pub committed: BTreeMap<i32, i64>,
    /// By queue: the highest offset whose commit was sent.
    pub commit_sent: BTreeMap<i32, i64>,
    /// Topics whose creation was answered with success.
    pub topics: Vec<String>,
}

/// The body of a message: its id and a filler that follows from it.
pub fn body(id: Id) -> String {
    let filler = "abcdefghijklmnopqrstuvwxyz".repeat(1 + (id.1 % 12) as usize);
    format!("{}:{}:{filler}", id.0, id.1)
}

/// The id of a body; the body must be exactly as sent.
pub fn id_of(bytes: &[u8]) -> Id {
    let text = std::str::from_utf8(bytes).expect("text");
    let mut parts = text.split(':').map(|n| n.parse().ok());
    let (Some(Some(producer)), Some(Some(seq))) = (parts.next(), parts.next()) else {
        panic!("no message of ours: {text}");
    };
    assert_eq!(text, body((producer, seq)), "the body is as sent");
    (producer, seq)
}

pub fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970")
        .as_millis() as i64
}

/// Producers and a committing consumer at work.
pub struct Load {
    tasks: Vec<JoinHandle<()>>,
    shared: Arc<Shared>,
}

struct Shared {
    ledger: Mutex<Ledger>,
    acks: AtomicUsize,
    delayed_acks: AtomicUsize,
    commits: AtomicUsize,
    /// Next offset after the highest acknowledged one, by queue.
    ends: [AtomicI64; QUEUES as usize],
}

impl Load {
    /// Creates what is missing and starts; ends when the connections do.
    pub async fn start(broker: &str, round: u32, mut ledger: Ledger) -> Self {
        let client = Client::new(Vec::new(), PATIENCE);
        for (topic, queues) in [(TOPIC, QUEUES), (LATER, 1), (&format!("round-{round}"), 2)] {
            client
                .create_topic(broker, topic, queues as u32, 6)
                .await
                .expect("is created");
            ledger.topics.push(topic.to_owned());
        }
        let group = format!(r#"{{"groupName":"{GROUP}","consumeEnable":true}}"#);
        let code = request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP;
        client
            .call(broker, code, &[], group.as_bytes())
            .await
            .expect("is created");
        let ends = std::array::from_fn(|q| {
            AtomicI64::new(ledger.commit_sent.get(&(q as i32)).copied().unwrap_or(0))
        });
        let shared = Arc::new(Shared {
            ledger: Mutex::new(ledger),
            acks: AtomicUsize::new(0),
            delayed_acks: AtomicUsize::new(0),
            commits: AtomicUsize::new(0),
            ends,
        });
        let mut tasks = Vec::new();
        for n in 0..PRODUCERS {
            let connection = Connection::connect(broker, PATIENCE)
                .await
                .expect("connects");
            tasks.push(tokio::spawn(produce(
                round * PRODUCERS + n,
                connection,
                shared.clone(),
            )));
        }
        let connection = Connection::connect(broker, PATIENCE)
            .await
            .expect("connects");
        tasks.push(tokio::spawn(commit(connection, shared.clone())));
        Self { tasks, shared }
    }

    /// Until so many sends, and some of the rest, were acknowledged in this round.
    pub async fn wait_for_acks(&self, acks: usize) {
        let enough = async {
            let s = &self.shared;
            while s.acks.load(Ordering::Relaxed) < acks
                || s.delayed_acks.load(Ordering::Relaxed) < 20
                || s.commits.load(Ordering::Relaxed) < 20
            {
                assert!(
                    !self.tasks.iter().any(JoinHandle::is_finished),
                    "the load stopped early"
                );
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(PATIENCE, enough)
            .await
            .expect("messages are acknowledged");
    }

    /// What was sent and acknowledged, once every connection has ended.
    pub async fn end(self) -> Ledger {
        for task in self.tasks {
            tokio::time::timeout(PATIENCE, task)
                .await
                .expect("the connection ends")
                .expect("no panic");
        }
        let shared = Arc::into_inner(self.shared).expect("nobody else has it");
        shared.ledger.into_inner().expect("no panic")
    }
}

enum Sent {
    Now(Vec<Id>, i32),
    Delayed(Id),
}

/// Sends on one connection without waiting for earlier answers, until the connection ends:
/// single messages that wait for the disk, some that do not, batches and delayed ones.
async fn produce(producer: u32, connection: Connection, shared: Arc<Shared>) {
    let mut window: VecDeque<(Sent, Reply)> = VecDeque::new();
    let mut seq = 0;
    let mut open = true;
    while open || !window.is_empty() {
        while open && window.len() < WINDOW {
            match send_one(producer, &mut seq, &connection, &shared) {
                Some(sent) => window.push_back(sent),
                None => open = false,
            }
        }
        let Some((sent, reply)) = window.pop_front() else {
            continue;
        };
        match reply.answer(PATIENCE).await {
            Ok(answer) => record(&shared, sent, &answer),
            // What was answered before the end is still in the other replies.
            Err(error) => {
                assert!(
                    matches!(error, troupemq::client::ClientError::Closed { .. }),
                    "{error}"
                );
                open = false;
            }
        }
    }
}

fn record(shared: &Shared, sent: Sent, answer: &Command) {
    if answer.code != response::SUCCESS {
        // Only a node that stops may refuse.
        assert_eq!(
            answer.code,
            response::SERVICE_NOT_AVAILABLE,
            "{:?}",
            answer.remark
        );
        return;
    }
    let mut ledger = shared.ledger.lock().expect("no panic");
    match sent {
        Sent::Delayed(id) => {
            ledger.delayed_acked.push(id);
            shared.delayed_acks.fetch_add(1, Ordering::Relaxed);
        }
        Sent::Now(ids, queue) => {
            assert_eq!(answer.req_i32("queueId").expect("a queue"), queue);
            let first = answer.req_i64("queueOffset").expect("an offset");
            shared.acks.fetch_add(ids.len(), Ordering::Relaxed);
            shared.ends[queue as usize].fetch_max(first + ids.len() as i64, Ordering::Relaxed);
            for (offset, id) in (first..).zip(ids) {
                ledger.acked.insert(id, (queue, offset));
            }
        }
    }
}

/// The next message or batch of a producer; `None` when the connection has ended.
fn send_one(
    producer: u32,
    seq: &mut u32,
    connection: &Connection,
    shared: &Shared,
) -> Option<(Sent, Reply)> {
    let turn = *seq;
    let mut next = || {
        *seq += 1;
        (producer, *seq)
    };
    let queue = (producer.wrapping_add(turn / 3) % QUEUES as u32) as i32;
    let mut ledger = shared.ledger.lock().expect("no panic");
    if turn % 41 == 7 {
        let id = next();
        let (property, due) = match turn % 2 {
            // Counted from when the broker takes it, by a clock that it keeps itself.
            0 => (("DELAY", "1".to_owned()), now_ms() + 1_000 - CLOCKS_MS),
            _ => {
                let at = now_ms() + 1_500 + i64::from(turn % 1_000);
                (("TIMER_DELIVER_MS", at.to_string()), at)
            }
        };
        let reply = begin(
            connection,
            LATER,
            0,
            &[(property.0, &property.1)],
            body(id).as_bytes(),
            false,
        )?;
        ledger.delayed.insert(id, due);
        return Some((Sent::Delayed(id), reply));
    }
    if turn % 17 == 3 {
        let ids: Vec<Id> = (0..5).map(|_| next()).collect();
        let mut all = BytesMut::new();
        for id in &ids {
            let body = body(*id);
            let entry = BatchEntry {
                flag: 0,
                body: body.as_bytes(),
                properties: b"TAGS\x01b\x02",
            };
            put_entry(&mut all, &entry).expect("fits");
        }
        let reply = begin(connection, TOPIC, queue, &[], &all, true)?;
        ledger.sent.extend(ids.iter().map(|id| (*id, queue)));
        return Some((Sent::Now(ids, queue), reply));
    }
    let id = next();
    let wait = if turn % 5 == 4 { "false" } else { "true" };
    let reply = begin(
        connection,
        TOPIC,
        queue,
        &[("WAIT", wait)],
        body(id).as_bytes(),
        false,
    )?;
    ledger.sent.insert(id, queue);
    Some((Sent::Now(vec![id], queue), reply))
}

fn begin(
    connection: &Connection,
    topic: &str,
    queue: i32,
    props: &[(&str, &str)],
    body: &[u8],
    batch: bool,
) -> Option<Reply> {
    let props = properties::encode(props.iter().copied());
    let props = String::from_utf8(props).expect("text");
    let ext = [
        ("a", Val::Str("crash-test")),
        ("b", Val::Str(topic)),
        ("c", Val::Str("TBW102")),
        ("d", Val::Int(4)),
        ("e", queue.into()),
        ("f", Val::Int(0)),
        ("g", Val::Int(now_ms())),
        ("h", Val::Int(0)),
        ("i", Val::Str(&props)),
        ("j", Val::Int(0)),
        ("k", Val::Bool(false)),
        ("m", Val::Bool(batch)),
    ];
    let code = if batch {
        request::SEND_BATCH_MESSAGE
    } else {
        request::SEND_MESSAGE_V2
    };
    connection.begin(code, &ext, body).ok()
}

/// Commits ever higher offsets, a few at a time, each with an answer.
async fn commit(connection: Connection, shared: Arc<Shared>) {
    loop {
        let mut burst = Vec::new();
        for queue in 0..QUEUES {
            let offset = shared.ends[queue as usize].load(Ordering::Relaxed);
            let ext = [
                ("consumerGroup", Val::Str(GROUP)),
                ("topic", Val::Str(TOPIC)),
                ("queueId", queue.into()),
                ("commitOffset", Val::Int(offset)),
            ];
            let Ok(reply) = connection.begin(request::UPDATE_CONSUMER_OFFSET, &ext, &[]) else {
                break;
            };
            shared
                .ledger
                .lock()
                .expect("no panic")
                .commit_sent
                .insert(queue, offset);
            burst.push((queue, offset, reply));
        }
        if burst.is_empty() {
            return;
        }
        for (queue, offset, reply) in burst {
            let Ok(answer) = reply.answer(PATIENCE).await else {
                continue;
            };
            if answer.code != response::SUCCESS {
                assert_eq!(
                    answer.code,
                    response::SERVICE_NOT_AVAILABLE,
                    "{:?}",
                    answer.remark
                );
            } else {
                let mut ledger = shared.ledger.lock().expect("no panic");
                let known = ledger.committed.entry(queue).or_insert(0);
                *known = offset.max(*known);
                shared.commits.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}
