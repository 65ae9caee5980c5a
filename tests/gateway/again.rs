//! Messages that are stored again, delayed, retried or dead, and how they are found.

use super::harness::{pull_ext, send_ext, with, Client};
use super::node;
use serde_json::json;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use troupemq::wire::message::properties::{self, MAX_SENT};
use troupemq::wire::message::record;

/// What a consumer gets.
struct Got {
    topic: String,
    body_len: usize,
    reconsumed: i32,
    offset: i64,
    properties: BTreeMap<String, String>,
}

impl Got {
    fn property(&self, name: &str) -> &str {
        self.properties.get(name).map_or("", String::as_str)
    }
}

/// Waits for the message at this offset of queue 0.
fn pull(c: &mut Client, group: &str, topic: &str, offset: i64) -> Got {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let (head, body) = c.call(11, &pull_ext(group, topic, offset, 5_000), b"");
        if head["code"] == 0 {
            let first = record::records(&body).next().expect("a record");
            let view = first.expect("a good record");
            let all = properties::iter(view.properties());
            return Got {
                topic: view.topic().to_owned(),
                body_len: view.body().len(),
                reconsumed: view.reconsume_times(),
                offset: view.phys_offset(),
                properties: all.map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
            };
        }
        assert!(Instant::now() < until, "{topic} at {offset}: {head}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn group(c: &mut Client, name: &str) {
    let body = json!({ "groupName": name }).to_string();
    assert_eq!(c.code(200, &[], body.as_bytes()), 0);
}

fn back(group: &str, offset: i64, level: i32) -> Vec<(&'static str, String)> {
    vec![
        ("group", group.to_owned()),
        ("offset", offset.to_string()),
        ("delayLevel", level.to_string()),
    ]
}

fn property(name: &str, len: usize) -> String {
    format!("{name}\u{1}{}\u{2}", "x".repeat(len))
}

#[test]
fn what_is_accepted_can_be_delayed_retried_and_dead_lettered() {
    let node = node();
    node.topic("Again1", 1);
    let mut c = node.client();
    group(&mut c, "AgainG1");
    // 32,600 bytes were stored, and could never be retried.
    let (head, _) = c.call(310, &send_ext("Again1", 0, &property("p", 32_600)), b"x");
    assert_eq!(head["code"], 13);
    let remark = head["remark"].as_str().expect("a remark");
    assert!(
        remark.contains("32603") && remark.contains(&MAX_SENT.to_string()),
        "{remark}"
    );
    assert_eq!(node.stored("Again1", 1), 0);
    let largest = format!("DELAY\u{1}1\u{2}{}", property("p", MAX_SENT - 11));
    assert_eq!(c.code(310, &send_ext("Again1", 0, &largest), b"x"), 0);
    let mut last = pull(&mut c, "AgainG1", "Again1", 0);
    for n in 0..2 {
        assert_eq!(
            c.code(36, &back("AgainG1", last.offset, 1), b""),
            0,
            "retry {n}"
        );
        last = pull(&mut c, "AgainG1", "%RETRY%AgainG1", n);
        assert_eq!(last.reconsumed, n as i32 + 1);
        assert_eq!(last.property("p").len(), MAX_SENT - 11);
        assert_eq!(last.property("RETRY_TOPIC"), "Again1");
    }
    assert_eq!(c.code(36, &back("AgainG1", last.offset, -1), b""), 0);
    let dead = pull(&mut c, "AgainG1", "%DLQ%AgainG1", 0);
    assert_eq!(dead.property("p").len(), MAX_SENT - 11);
    // So is a part of a batch.
    let props = property("p", MAX_SENT - 3 + 1);
    let entry = |props: &str| {
        let mut out = ((22 + 1 + props.len()) as i32).to_be_bytes().to_vec();
        out.extend([0; 12]);
        out.extend(1i32.to_be_bytes());
        out.extend(b"x");
        out.extend((props.len() as i16).to_be_bytes());
        out.extend(props.as_bytes());
        out
    };
    let batch = with(send_ext("Again1", 0, ""), "m", true);
    assert_eq!(c.code(320, &batch, &entry(&props)), 13);
    let props = property("p", MAX_SENT - 3);
    assert_eq!(c.code(320, &batch, &entry(&props)), 0);
    let part = pull(&mut c, "AgainG1", "Again1", 1);
    assert_eq!(c.code(36, &back("AgainG1", part.offset, 1), b""), 0);
    let again = pull(&mut c, "AgainG1", "%RETRY%AgainG1", 2);
    assert_eq!(again.property("p").len(), MAX_SENT - 3);
}

/// A consumer's own copies, and what a version stored that left no room.
#[test]
fn what_consumers_send_again_is_never_too_large() {
    let node = node();
    node.topic("Again2", 1);
    let mut c = node.client();
    group(&mut c, "AgainG2");
    let retry = "%RETRY%AgainG2";
    node.topic(retry, 1);
    // Longer than a producer's, in a body longer than this node takes from producers.
    let copy = format!(
        "MSG_REGION\u{1}DefaultRegion\u{2}TRACE_ON\u{1}true\u{2}RETRY_TOPIC\u{1}Again2\u{2}{}",
        property("p", 32_767 - 24 - 3)
    );
    let body = vec![7u8; 2 << 20];
    assert_eq!(c.code(310, &send_ext("Again2", 0, "")[..], &body), 13);
    assert_eq!(c.code(310, &send_ext(retry, 0, &copy), &body), 0);
    let first = pull(&mut c, "AgainG2", retry, 0);
    assert_eq!(first.property("p").len(), 32_740);
    assert_eq!(first.property("RETRY_TOPIC"), "Again2");
    assert_eq!(first.body_len, body.len());
    // It holds nothing that can be left out, but says where it came from: it can be retried.
    assert_eq!(c.code(36, &back("AgainG2", first.offset, 1), b""), 0);
    let second = pull(&mut c, "AgainG2", retry, 1);
    assert_eq!((second.reconsumed, second.property("p").len()), (1, 32_740));
    // Without room for that, it goes to the dead letters, whole.
    let full = property("p", 32_767 - 3);
    assert_eq!(c.code(310, &send_ext(retry, 0, &full), b"x"), 0);
    let third = pull(&mut c, "AgainG2", retry, 2);
    assert_eq!(c.code(36, &back("AgainG2", third.offset, 1), b""), 0);
    let dead = pull(&mut c, "AgainG2", "%DLQ%AgainG2", 0);
    assert_eq!((dead.reconsumed, dead.property("p").len()), (1, 32_764));
    assert_eq!(
        c.code(310, &send_ext(retry, 0, &property("p", 32_766)), b"x"),
        13
    );
}

#[test]
fn delayed_messages_carry_what_rocketmqs_do() {
    let node = node();
    node.topic("Again3", 1);
    let mut c = node.client();
    group(&mut c, "AgainG3");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = now.expect("a clock").as_millis() as i64;
    assert_eq!(
        c.code(
            310,
            &send_ext("Again3", 0, "TIMER_DELAY_MS\u{1}1500\u{2}"),
            b"x"
        ),
        0
    );
    let timer = pull(&mut c, "AgainG3", "Again3", 0);
    let number = |name: &str| -> i64 { timer.property(name).parse().expect(name) };
    assert_eq!(number("TIMER_DELAY_MS"), 1_500);
    assert_eq!(
        (timer.property("REAL_TOPIC"), timer.property("REAL_QID")),
        ("Again3", "0")
    );
    let (enqueued, out, dequeued) = (
        number("TIMER_ENQUEUE_MS"),
        number("TIMER_OUT_MS"),
        number("TIMER_DEQUEUE_MS"),
    );
    assert!(
        (enqueued - now).abs() <= 20_000 && enqueued % 1_000 == 0,
        "{enqueued}"
    );
    assert!(out % 1_000 == 0 && out >= enqueued, "{out}");
    assert!(dequeued > out && dequeued - enqueued >= 1_500, "{dequeued}");
    // Sent on as it came, it does not wait again.
    let all: String = timer
        .properties
        .iter()
        .map(|(k, v)| format!("{k}\u{1}{v}\u{2}"))
        .collect();
    assert_eq!(c.code(310, &send_ext("Again3", 0, &all), b"x"), 0);
    assert_eq!(node.stored("Again3", 1), 2);
    // An orderly consumer gives up: the delay that its client asked for holds no dead letter.
    let copy = "DELAY\u{1}18\u{2}RETRY_TOPIC\u{1}Again3\u{2}";
    let ext = with(send_ext("%RETRY%AgainG3", 0, copy), "j", 9);
    assert_eq!(c.code(310, &with(ext, "l", 3), b"x"), 0);
    let dead = pull(&mut c, "AgainG3", "%DLQ%AgainG3", 0);
    assert_eq!(dead.property("DELAY"), "-1");
}

#[test]
fn a_message_is_found_by_the_topics_it_is_known_under() {
    let node = node();
    node.topic("Again4", 1);
    node.topic("Again4Other", 1);
    let mut c = node.client();
    group(&mut c, "AgainG4");
    assert_eq!(c.code(310, &send_ext("Again4", 0, ""), b"x"), 0);
    let sent = pull(&mut c, "AgainG4", "Again4", 0);
    assert_eq!(c.code(36, &back("AgainG4", sent.offset, 1), b""), 0);
    let again = pull(&mut c, "AgainG4", "%RETRY%AgainG4", 0);
    assert_eq!(again.topic, "%RETRY%AgainG4");
    assert_eq!(c.code(36, &back("AgainG4", again.offset, -1), b""), 0);
    let dead = pull(&mut c, "AgainG4", "%DLQ%AgainG4", 0);
    let mut view = |offset: i64, topic: Option<&str>| {
        let mut ext = vec![("offset", offset.to_string())];
        ext.extend(topic.map(|topic| ("topic", topic.to_owned())));
        c.code(33, &ext, b"")
    };
    for got in [&sent, &again, &dead] {
        // The topic that a consumer logs, the record's own, and none, as 4.9 asks.
        for topic in [Some("Again4"), Some(got.topic.as_str()), Some(""), None] {
            assert_eq!(view(got.offset, topic), 0, "{} as {topic:?}", got.topic);
        }
        assert_eq!(view(got.offset, Some("Again4Other")), 1, "{}", got.topic);
    }
    assert_eq!(view(again.offset, Some("%RETRY%AgainG40")), 1);
}
