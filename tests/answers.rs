//! Large answers and many of them: a connection hears what comes next whatever it was answered
//! before, and no answer is so long that clients close the connection. At the leader's port and
//! through a follower's.

#[path = "gateway/cluster.rs"]
mod cluster;
#[allow(dead_code)] // each test uses its part
#[path = "gateway/harness.rs"]
mod harness;

use cluster::Cluster;
use harness::{pull_ext, request, send_ext, topic_ext, with, Client, Node};
use serde_json::{json, Value};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use troupemq::config::{Config, FlushDiskType};

/// Far more than everything here takes, and far less than waits for a clock would add up to.
const PATIENCE: Duration = Duration::from_secs(100);
/// What Java clients take, with the length field.
const LONGEST: usize = 16 * 1024 * 1024;

/// No connection is looked at by the clock while a test runs.
fn no_ticks(config: &mut Config) {
    config.idle_timeout_secs = 86_400;
    config.frame_deadline_secs = 86_400;
}

/// Three nodes, and no others at the same time.
fn cluster() -> (MutexGuard<'static, ()>, Cluster) {
    static ALONE: Mutex<()> = Mutex::new(());
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    (alone, Cluster::start(no_ticks))
}

fn create(client: &mut Client, name: &str, queues: u32) {
    let (head, _) = client.call(17, &topic_ext(name, queues, 6), b"");
    assert_eq!(head["code"], 0, "{head}");
}

fn queue_ext(topic: &str, queue: u32) -> Vec<(&'static str, String)> {
    vec![("topic", topic.to_owned()), ("queueId", queue.to_string())]
}

fn heartbeat(group: &str, topic: &str) -> Vec<u8> {
    let beat = json!({"clientID": "c@1", "producerDataSet": [], "consumerDataSet": [{
        "groupName": group, "consumeType": "CONSUME_PASSIVELY", "messageModel": "CLUSTERING",
        "consumeFromWhere": "CONSUME_FROM_FIRST_OFFSET", "unitMode": false,
        "subscriptionDataSet": [{"topic": topic, "subString": "*", "subVersion": 1,
            "classFilterMode": false, "tagsSet": [], "codeSet": [], "expressionType": "TAG"}],
    }]});
    beat.to_string().into_bytes()
}

/// The physical offset of the first record of a pull's body.
fn offset_of(records: &[u8]) -> i64 {
    i64::from_be_bytes(records[28..36].try_into().expect("a record"))
}

#[test]
fn after_one_large_message_everything_is_heard() {
    let (_alone, cluster) = cluster();
    for (place, port) in cluster.ports() {
        let (topic, group) = (format!("Large-{place}"), format!("G-{place}"));
        let mut client = Client::open(port);
        create(&mut client, &topic, 1);
        let body = vec![b'x'; 1 << 20];
        assert_eq!(client.code(310, &send_ext(&topic, 0, ""), &body), 0);
        let beat = heartbeat(&group, &topic);
        assert_eq!(client.code(34, &[], &beat), 0);
        let lock = json!({"consumerGroup": group, "clientId": "c@1", "mqSet": [
            {"topic": topic, "brokerName": "broker-a", "queueId": 0}]});
        let lock = lock.to_string().into_bytes();
        let begun = Instant::now();
        let mut at = 0;
        let mut again = |client: &mut Client| {
            let (head, records) = client.call(11, &pull_ext(&group, &topic, 0, 0), b"");
            assert_eq!(head["code"], 0, "{place}: {head}");
            assert!(records.len() > 1 << 20);
            at = offset_of(&records);
            let took = begun.elapsed();
            assert!(took < PATIENCE, "{place}: {took:?} and not done");
        };
        for _ in 0..8 {
            again(&mut client);
            assert_eq!(client.code(30, &queue_ext(&topic, 0), b""), 0);
            again(&mut client);
            assert_eq!(client.code(34, &[], &beat), 0);
            again(&mut client);
            assert_eq!(client.code(41, &[], &lock), 0);
        }
        again(&mut client);
        let back = vec![
            ("offset", at.to_string()),
            ("group", group.clone()),
            ("delayLevel", "3".to_owned()),
            ("originMsgId", String::new()),
            ("originTopic", topic.clone()),
            ("unitMode", "false".to_owned()),
            ("maxReconsumeTimes", "16".to_owned()),
        ];
        assert_eq!(client.code(36, &back, b""), 0, "{place}: send back");
    }
}

/// The next answer; what the node says by itself is skipped.
fn answer(client: &mut Client) -> (Value, Vec<u8>) {
    loop {
        let (head, body) = client.read().expect("the connection stays open");
        if head["flag"].as_i64().is_some_and(|flag| flag & 1 == 1) {
            return (head, body);
        }
    }
}

/// Asks for a batch of every queue at once, on one connection, until all is read.
fn read_all(client: &mut Client, place: &str, topic: &str, queues: u32, each: usize) {
    let group = format!("G-{topic}");
    let begun = Instant::now();
    let mut at: BTreeMap<i32, (i64, usize)> = (0..queues as i32).map(|q| (q, (0, 0))).collect();
    loop {
        let left: Vec<(i32, i64)> = at
            .iter()
            .filter(|(_, (_, have))| *have < each)
            .map(|(q, (offset, _))| (*q, *offset))
            .collect();
        if left.is_empty() {
            return;
        }
        let frames = left.iter().map(|(queue, offset)| {
            let ext = with(pull_ext(&group, topic, *offset, 0), "queueId", queue);
            request(11, *queue, 0, &ext, b"")
        });
        client.write(&frames.collect::<Vec<_>>().concat());
        for _ in &left {
            let (head, body) = answer(client);
            assert_eq!(head["code"], 0, "{place}: {head}");
            let queue = head["opaque"].as_i64().expect("queue") as i32;
            let (offset, have) = at.get_mut(&queue).expect("asked for");
            let next = head["extFields"]["nextBeginOffset"].as_str();
            let next: i64 = next.expect("next offset").parse().expect("number");
            assert!(next > *offset && !body.is_empty());
            *have += (next - *offset) as usize;
            *offset = next;
        }
        let took = begun.elapsed();
        assert!(took < PATIENCE, "{place}: {took:?} and not done");
    }
}

#[test]
fn a_backlog_of_many_queues_is_read_on_one_connection() {
    const QUEUES: u32 = 96;
    const EACH: usize = 16;
    let (_alone, cluster) = cluster();
    for (place, port) in cluster.ports() {
        let topic = format!("Backlog-{place}");
        let mut producer = Client::open(port);
        create(&mut producer, &topic, QUEUES);
        let body = vec![b'y'; 20_000];
        for queue in 0..QUEUES as i32 {
            let frames =
                (0..EACH).map(|_| request(310, queue, 0, &send_ext(&topic, queue, ""), &body));
            producer.write(&frames.collect::<Vec<_>>().concat());
            for _ in 0..EACH {
                let (head, _) = answer(&mut producer);
                assert_eq!(head["code"], 0, "{head}");
            }
        }
        let mut consumer = Client::open(port);
        let beat = heartbeat(&format!("G-{topic}"), &topic);
        assert_eq!(consumer.code(34, &[], &beat), 0);
        // 96 answers of a quarter of a MiB: more than write_buffer_limit_bytes at once.
        read_all(&mut consumer, place, &topic, QUEUES, EACH);
        assert_eq!(consumer.code(30, &queue_ext(&topic, 0), b""), 0);
    }
}

/// A long name.
fn name(prefix: &str, n: usize) -> String {
    format!("{prefix}{n:0>100}")
}

/// Creates many, by lists.
fn create_many(client: &mut Client, code: i32, list: &str, all: &[Value]) {
    for some in all.chunks(1_000) {
        let body = json!({list: some}).to_string();
        let (head, _) = served(client, code, &[], body.as_bytes());
        assert_eq!(head["code"], 0, "{head}");
    }
}

/// A table that comes in pages: code, its fields, and what the body calls it.
struct Table {
    code: i32,
    fields: [&'static str; 3],
    body: &'static str,
}

const TOPICS: Table = Table {
    code: 21,
    fields: ["topicSeq", "maxTopicNum", "totalTopicNum"],
    body: "topicConfigTable",
};
const GROUPS: Table = Table {
    code: 201,
    fields: ["groupSeq", "maxGroupNum", "totalGroupNum"],
    body: "subscriptionGroupTable",
};

/// What a client of 5.5 collects, and in how many answers.
fn collect(client: &mut Client, table: &Table) -> (BTreeMap<String, Value>, usize) {
    let (mut found, mut first, mut version, mut pages) = (BTreeMap::new(), 0, String::new(), 0);
    loop {
        let ext = [
            (table.fields[0], first.to_string()),
            (table.fields[1], "2000".to_owned()),
            ("dataVersion", version.clone()),
        ];
        let (head, body) = served(client, table.code, &ext, b"");
        assert_eq!(head["code"], 0, "{head}");
        assert!(body.len() < LONGEST);
        let total = head["extFields"][table.fields[2]].as_str().expect("total");
        let total: usize = total.parse().expect("number");
        let body: Value = serde_json::from_slice(&body).expect("JSON");
        let page = body[table.body].as_object().expect("a table");
        pages += 1;
        let now = body["dataVersion"].to_string();
        if !version.is_empty() && version != now {
            (first, version) = (0, now);
            found.clear();
            continue;
        }
        version = now;
        first += page.len();
        found.extend(page.clone());
        if first + 1 >= total {
            return (found, pages);
        }
    }
}

/// The answer of a shard with a leader: on a very busy machine it may have none for a moment.
fn served(client: &mut Client, code: i32, ext: &[(&str, String)], body: &[u8]) -> (Value, Vec<u8>) {
    let begun = Instant::now();
    loop {
        let (head, answer) = client.call(code, ext, body);
        if head["code"] != 14 || begun.elapsed() > PATIENCE {
            return (head, answer);
        }
    }
}

/// The request is refused because its answer would be too long, and the connection goes on.
fn assert_too_long(client: &mut Client, code: i32, ext: &[(&str, String)], body: &[u8]) {
    let (head, body) = served(client, code, ext, body);
    assert_eq!(head["code"], 1, "request code {code}: {head}");
    let remark = head["remark"].as_str().unwrap_or_default();
    assert!(remark.contains("more than the 16777216"), "{head}");
    assert!(body.is_empty());
}

#[test]
fn tables_that_fit_no_answer_come_in_pages() {
    const FEW: usize = 4_000;
    const MANY: usize = 34_000;
    // Each is a write of its own.
    let node = Node::start(|config| config.flush_disk_type = FlushDiskType::AsyncFlush);
    let mut client = node.client();
    let topics = (0..FEW).map(|n| {
        json!({"topicName": name("T", n), "readQueueNums": 1, "writeQueueNums": 1, "perm": 6,
            "topicFilterType": "SINGLE_TAG", "topicSysFlag": 0, "order": false})
    });
    let topics: Vec<Value> = topics.collect();
    create_many(&mut client, 18, "topicConfigList", &topics);
    let group = |n| json!({"groupName": name("G", n), "consumeEnable": true});
    let groups: Vec<Value> = (0..MANY).map(group).collect();
    create_many(&mut client, 225, "groupConfigList", &groups);
    // Fits, but fills the connection.
    let (head, body) = client.call(21, &[], b"");
    assert_eq!(head["code"], 0, "{head}");
    assert!(body.len() > 1 << 20, "{}", body.len());
    assert!(head["extFields"].get("totalTopicNum").is_none(), "{head}");
    // Does not fit.
    assert_too_long(&mut client, 201, &[], b"");
    for (table, count, prefix) in [(TOPICS, FEW, 'T'), (GROUPS, MANY, 'G')] {
        let (found, pages) = collect(&mut client, &table);
        let ours = found
            .keys()
            .filter(|n| n.len() > 100 && n.starts_with(prefix));
        assert_eq!(ours.count(), count);
        assert!(pages >= count / 2_001, "{pages} pages");
    }
    assert_eq!(client.code(34, &[], &heartbeat("G", "T")), 0);
}

#[test]
fn groups_come_in_pages_to_those_who_ask_for_them() {
    let node = Node::start(|_| {});
    let mut client = node.client();
    for n in 0..11 {
        let group = json!({"groupName": format!("Paged-{n:02}"), "consumeEnable": true});
        assert_eq!(client.code(200, &[], group.to_string().as_bytes()), 0);
    }
    let (head, body) = client.call(201, &[], b"");
    assert!(head["extFields"].get("totalGroupNum").is_none(), "{head}");
    let all: Value = serde_json::from_slice(&body).expect("JSON");
    let names = |body: &Value| -> Vec<String> {
        let table = body["subscriptionGroupTable"].as_object().expect("groups");
        table.keys().cloned().collect()
    };
    let (mut found, version) = (Vec::new(), all["dataVersion"].to_string());
    while found.len() < names(&all).len() {
        let ext = [
            ("groupSeq", found.len().to_string()),
            ("maxGroupNum", "4".to_owned()),
            ("dataVersion", version.clone()),
        ];
        let (head, body) = client.call(201, &ext, b"");
        let total = head["extFields"]["totalGroupNum"].as_str().expect("total");
        assert_eq!(total, names(&all).len().to_string());
        let page: Value = serde_json::from_slice(&body).expect("JSON");
        assert!((1..=5).contains(&names(&page).len()), "{page}");
        found.extend(names(&page));
    }
    assert_eq!(found, names(&all));
    // Of another version: from the beginning.
    let ext = [
        ("groupSeq", "4".to_owned()),
        ("maxGroupNum", "4".to_owned()),
    ];
    let (_, body) = client.call(201, &ext, b"");
    let page: Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!(names(&page), names(&all)[..4]);
}

#[test]
fn consume_stats_that_fit_no_answer_are_an_error() {
    const COUNT: usize = 80;
    const QUEUES: usize = 1_024;
    let (_alone, cluster) = cluster();
    let mut client = cluster.client();
    let group = "G".repeat(100);
    let topics: Vec<String> = (0..COUNT).map(|n| name("S", n)).collect();
    for topic in &topics {
        create(&mut client, topic, QUEUES as u32);
    }
    let new = json!({"groupName": group, "consumeEnable": true}).to_string();
    assert_eq!(client.code(200, &[], new.as_bytes()), 0);
    for topic in &topics {
        // A message and an offset in each queue.
        let sends = (0..QUEUES as i32).map(|q| request(310, q, 0, &send_ext(topic, q, ""), b"m"));
        client.write(&sends.collect::<Vec<_>>().concat());
        for _ in 0..QUEUES {
            let (head, _) = answer(&mut client);
            assert_eq!(head["code"], 0, "{head}");
        }
        let commits = (0..QUEUES as i32).map(|q| {
            let ext = [
                ("consumerGroup", group.clone()),
                ("topic", topic.clone()),
                ("queueId", q.to_string()),
                ("commitOffset", "1".to_owned()),
            ];
            request(15, q, 0, &ext, b"")
        });
        client.write(&commits.collect::<Vec<_>>().concat());
        for _ in 0..QUEUES {
            let (head, _) = answer(&mut client);
            assert_eq!(head["code"], 0, "{head}");
        }
    }
    for (place, port) in cluster.ports() {
        let mut client = Client::open(port);
        let all = [("consumerGroup", group.clone())];
        assert_too_long(&mut client, 208, &all, b"");
        // Half of the topics: answers of several MiB, one after the other and many at once.
        let some = [
            ("consumerGroup", group.clone()),
            ("topicList", topics[..COUNT / 2].join(";")),
        ];
        let (head, body) = served(&mut client, 208, &some, b"");
        assert_eq!(head["code"], 0, "{place}: {head}");
        assert!(body.len() > 1 << 20, "{place}: {}", body.len());
        let begun = Instant::now();
        let mut answered = 0;
        while answered < 4 {
            let frames = (0..4).map(|n| request(208, 1_000 + n, 0, &some, b""));
            client.write(&frames.collect::<Vec<_>>().concat());
            for _ in 0..4 {
                let (head, again) = answer(&mut client);
                // A very busy leader may not be sure of its lead.
                if head["code"] != 14 {
                    assert_eq!((&head["code"], again.len()), (&json!(0), body.len()));
                    answered += 1;
                }
            }
            assert!(begun.elapsed() < PATIENCE, "{place}");
        }
        let (head, _) = served(&mut client, 30, &queue_ext(&topics[0], 0), b"");
        assert_eq!(head["code"], 0, "{place}: {head}");
    }
}

#[test]
fn name_server_answers_that_no_client_takes_are_errors() {
    let values: BTreeMap<String, String> = (0..300)
        .map(|n| (format!("topic-{n}"), "v".repeat(60_000)))
        .collect();
    let file = json!({"configTable": {"ORDER_TOPIC_CONFIG": values, "Few": {"key": "value"}}});
    let node = Node::start(|config| {
        let path = std::path::Path::new(&config.data_dir).join("kv-config.json");
        std::fs::write(path, file.to_string()).expect("written");
    });
    let mut client = Client::open(node.registry);
    let namespace = |name: &str| [("namespace", name.to_owned())];
    assert_too_long(&mut client, 219, &namespace("ORDER_TOPIC_CONFIG"), b"");
    assert_eq!(client.code(219, &namespace("Few"), b""), 0);
    let broker = [
        ("brokerName", "other".to_owned()),
        ("brokerAddr", "127.0.0.1:1".to_owned()),
        ("clusterName", "DefaultCluster".to_owned()),
        ("haServerAddr", "127.0.0.1:2".to_owned()),
        ("brokerId", "0".to_owned()),
        ("compressed", "false".to_owned()),
        ("bodyCrc32", "0".to_owned()),
    ];
    assert_too_long(&mut client, 103, &broker, b"");
    let one = [
        ("namespace", "ORDER_TOPIC_CONFIG".to_owned()),
        ("key", "topic-1".to_owned()),
    ];
    assert_eq!(client.code(101, &one, b""), 0);
}
