//! What members of groups rely on, seen at a real node's sockets: heartbeats, held pulls, orderly
//! retries, offsets and the figures made of them.

#[allow(dead_code)] // Other tests use the rest.
#[path = "gateway/harness.rs"]
mod harness;

use harness::{pull_ext, request, send_ext, with, Client, Node};
use serde_json::{json, Value};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// One node for what needs no settings of its own. It lives as long as the process.
fn node() -> &'static Node {
    static NODE: OnceLock<Node> = OnceLock::new();
    NODE.get_or_init(|| Node::start(|_| {}))
}

/// The code of a tag, as Java computes it.
fn tag_code(tag: &str) -> i32 {
    let add = |hash: i32, c: u16| hash.wrapping_mul(31).wrapping_add(i32::from(c));
    tag.encode_utf16().fold(0, add)
}

/// A group in a heartbeat.
fn consumer(group: &str, topic: &str, tags: &str, version: i64) -> Value {
    let tags_set: Vec<&str> = tags.split("||").filter(|t| *t != "*").collect();
    let code_set: Vec<i32> = tags_set.iter().map(|t| tag_code(t)).collect();
    json!({"groupName": group, "consumeType": "CONSUME_PASSIVELY", "messageModel": "CLUSTERING",
        "consumeFromWhere": "CONSUME_FROM_LAST_OFFSET", "unitMode": false,
        "subscriptionDataSet": [{"topic": topic, "subString": tags, "tagsSet": tags_set,
            "codeSet": code_set, "subVersion": version, "expressionType": "TAG"}]})
}

/// The code of a heartbeat's answer.
fn beat(c: &mut Client, id: &str, consumers: &[Value], producers: &[&str]) -> i64 {
    let producers: Vec<_> = producers.iter().map(|p| json!({"groupName": p})).collect();
    let body = json!({"clientID": id, "consumerDataSet": consumers, "producerDataSet": producers});
    c.code(34, &[], body.to_string().as_bytes())
}

fn create_group(c: &mut Client, group: &str) {
    let body = json!({"groupName": group}).to_string();
    assert_eq!(c.code(200, &[], body.as_bytes()), 0);
}

/// Client ids of a group by 38.
fn members(c: &mut Client, group: &str) -> Vec<String> {
    let (head, body) = c.call(38, &[("consumerGroup", group.to_owned())], b"");
    if head["code"] != 0 {
        return Vec::new();
    }
    let body: Value = serde_json::from_slice(&body).expect("JSON");
    serde_json::from_value(body["consumerIdList"].clone()).expect("ids")
}

fn send(c: &mut Client, topic: &str, tag: &str) {
    let ext = send_ext(topic, 0, &format!("TAGS\u{1}{tag}\u{2}"));
    assert_eq!(c.code(310, &ext, tag.as_bytes()), 0);
}

/// A pull by the registered subscription, at queue 0.
fn pull(group: &str, topic: &str, offset: i64, hold_ms: i64) -> Vec<(&'static str, String)> {
    let flag = if hold_ms > 0 { 2 } else { 0 };
    with(pull_ext(group, topic, offset, hold_ms), "sysFlag", flag)
}

/// Writes a pull that is held, and returns when the node has it.
fn hold(c: &mut Client, ext: &[(&str, String)]) {
    c.write(&request(11, 900, 0, ext, b""));
    // Requests of one connection begin in order: when this one is answered the pull is parked, or
    // on its way to the queue's core.
    let _ = c.call(38, &[("consumerGroup", "nobody".to_owned())], b"");
}

/// The answer to the held pull, and how long it took.
fn held(c: &mut Client) -> (Value, Vec<u8>, Duration) {
    let begun = Instant::now();
    loop {
        let (head, body) = c.read().expect("an answer");
        if head["opaque"] == 900 && head["flag"] == 1 {
            return (head, body, begun.elapsed());
        }
    }
}

fn queue_of(group: &str, topic: &str, queue: i64) -> Vec<(&'static str, String)> {
    vec![
        ("consumerGroup", group.to_owned()),
        ("topic", topic.to_owned()),
        ("queueId", queue.to_string()),
    ]
}

fn commit(c: &mut Client, group: &str, topic: &str, queue: i64, offset: i64) {
    let ext = with(queue_of(group, topic, queue), "commitOffset", offset);
    assert_eq!(c.code(15, &ext, b""), 0);
}

/// Code and offset of 14.
fn committed(c: &mut Client, ext: &[(&'static str, String)]) -> (i64, Option<i64>) {
    let (head, _) = c.call(14, ext, b"");
    let offset = head["extFields"]["offset"].as_str();
    let code = head["code"].as_i64().expect("code");
    (code, offset.map(|o| o.parse().expect("number")))
}

#[test]
fn a_bad_group_in_a_heartbeat_does_not_keep_the_others_out() {
    let node = Node::start(|c| c.auto_create_subscription_group = false);
    node.topic("Beat", 1);
    let mut c = node.client();
    create_group(&mut c, "Known");
    let known = consumer("Known", "Beat", "*", 1);
    let unknown = consumer("Unknown", "Beat", "*", 1);
    let illegal = consumer("no/such name", "Beat", "*", 1);
    let all = [unknown.clone(), illegal, known.clone()];
    assert_eq!(beat(&mut c, "me", &all, &["bad name!", "PG"]), 0);
    assert_eq!(members(&mut c, "Known"), ["me"]);
    assert!(members(&mut c, "Unknown").is_empty());
    let producers = |c: &mut Client, group: &str| {
        let group = [("producerGroup", group.to_owned())];
        c.code(204, &group, b"")
    };
    assert_eq!(producers(&mut c, "PG"), 0);
    assert_eq!(producers(&mut c, "bad name!"), 1);
    // Beyond a limit of the members, and of the heartbeat.
    let mut huge = consumer("Known", "Beat", "*", 1);
    let subscription = huge["subscriptionDataSet"][0].clone();
    huge["subscriptionDataSet"] = (0..1_001).map(|_| subscription.clone()).collect();
    huge["groupName"] = json!("Huge");
    create_group(&mut c, "Huge");
    let mut second = node.client();
    assert_eq!(beat(&mut second, "two", &[huge, known.clone()], &[]), 0);
    assert_eq!(members(&mut c, "Known"), ["me", "two"]);
    let mut many: Vec<Value> = vec![known; 1];
    many.extend((0..1_100).map(|i| consumer(&format!("Many{i}"), "Beat", "*", 1)));
    let mut third = node.client();
    assert_eq!(beat(&mut third, "three", &many, &[]), 0);
    assert_eq!(members(&mut c, "Known"), ["me", "three", "two"]);
    // Where nothing was taken the answer says why.
    assert_eq!(beat(&mut c, "me", &[unknown], &[]), 26);
    assert_eq!(beat(&mut c, "me", &[], &["bad name!"]), 29);
    assert_eq!(beat(&mut c, "me", &[], &[]), 0);
}

#[test]
fn a_held_pull_ends_when_its_group_subscribes_to_other_tags() {
    let node = node();
    node.topic("Tags", 1);
    let mut c = node.client();
    assert_eq!(
        beat(&mut c, "me", &[consumer("GTags", "Tags", "A", 1)], &[]),
        0
    );
    hold(&mut c, &pull("GTags", "Tags", 0, 15_000));
    // The same filter again, under a new version: it stays.
    let mut other = node.client();
    assert_eq!(
        beat(&mut other, "me", &[consumer("GTags", "Tags", "A", 2)], &[]),
        0
    );
    // Another topic of the group is none of its business.
    let topics = [
        consumer("GTags", "Tags", "A", 3)["subscriptionDataSet"][0].clone(),
        consumer("GTags", "Elsewhere", "B", 3)["subscriptionDataSet"][0].clone(),
    ];
    let mut both = consumer("GTags", "Tags", "A", 3);
    both["subscriptionDataSet"] = json!(topics);
    assert_eq!(beat(&mut other, "me", &[both], &[]), 0);
    assert_eq!(
        beat(&mut other, "me", &[consumer("GTags", "Tags", "B", 4)], &[]),
        0
    );
    let (head, body, took) = held(&mut c);
    assert_eq!(head["code"], 20, "{head}");
    assert_eq!(head["extFields"]["nextBeginOffset"], "0", "{head}");
    assert!(body.is_empty() && took < Duration::from_secs(5), "{took:?}");
    // B, then A: the next pull gets B.
    send(&mut other, "Tags", "B");
    send(&mut other, "Tags", "A");
    let (head, body) = c.call(11, &pull("GTags", "Tags", 0, 15_000), b"");
    assert_eq!(head["code"], 0, "{head}");
    let text = String::from_utf8_lossy(&body);
    assert!(text.contains("TAGS\u{1}B") && !text.contains("TAGS\u{1}A"));
}

#[test]
fn a_held_pull_that_brings_its_own_tags_ends_too() {
    let node = node();
    node.topic("OwnTags", 1);
    let mut c = node.client();
    assert_eq!(
        beat(&mut c, "me", &[consumer("GOwn", "OwnTags", "A", 1)], &[]),
        0
    );
    let own = with(pull_ext("GOwn", "OwnTags", 0, 15_000), "subscription", "A");
    hold(&mut c, &own);
    let mut other = node.client();
    assert_eq!(
        beat(
            &mut other,
            "me",
            &[consumer("GOwn", "OwnTags", "B", 2)],
            &[]
        ),
        0
    );
    let (head, _, took) = held(&mut c);
    assert_eq!(head["extFields"]["nextBeginOffset"], "0", "{head}");
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn a_held_pull_delivers_nothing_that_it_may_not_have_any_more() {
    let node = node();
    let mut c = node.client();
    for (topic, group) in [
        ("Held1", "GHeld1"),
        ("Held2", "GHeld2"),
        ("Held3", "GHeld3"),
    ] {
        node.topic(topic, 1);
        send(&mut c, topic, "A");
        assert_eq!(
            beat(&mut c, "me", &[consumer(group, topic, "*", 1)], &[]),
            0
        );
    }
    let at_end = |group: &str, topic: &str| pull(group, topic, 1, 15_000);
    let mut other = node.client();
    // An operator sets the group back: what arrives then is not delivered at the old position, and
    // the next pull is sent to the new one.
    hold(&mut c, &at_end("GHeld1", "Held1"));
    let reset = [
        ("topic", "Held1".to_owned()),
        ("group", "GHeld1".to_owned()),
        ("timestamp", "0".to_owned()),
        ("isForce", "true".to_owned()),
    ];
    assert_eq!(other.code(222, &reset, b""), 0);
    send(&mut other, "Held1", "A");
    let (head, body, _) = held(&mut c);
    assert_eq!(head["code"], 20, "{head}");
    assert_eq!(head["extFields"]["nextBeginOffset"], "1", "{head}");
    assert!(body.is_empty());
    let (head, _) = c.call(11, &at_end("GHeld1", "Held1"), b"");
    assert_eq!(
        (&head["code"], &head["extFields"]["nextBeginOffset"]),
        (&json!(21), &json!("0"))
    );
    // The topic is closed for readers.
    hold(&mut c, &at_end("GHeld2", "Held2"));
    assert_eq!(other.code(17, &harness::topic_ext("Held2", 1, 2), b""), 0);
    send(&mut other, "Held2", "A");
    let (head, body, _) = held(&mut c);
    assert!(head["code"] != 0 && body.is_empty(), "{head}");
    assert_eq!(c.code(11, &at_end("GHeld2", "Held2"), b""), 16);
    // The topic is deleted.
    hold(&mut c, &at_end("GHeld3", "Held3"));
    assert_eq!(other.code(215, &[("topic", "Held3".to_owned())], b""), 0);
    let (head, body, _) = held(&mut c);
    assert!(body.is_empty(), "{head}");
    assert_eq!(head["extFields"]["nextBeginOffset"], "1", "{head}");
    assert_eq!(c.code(11, &at_end("GHeld3", "Held3"), b""), 17);
    // The group is deleted; whoever asks again makes it anew.
    node.topic("Held4", 1);
    assert_eq!(
        beat(&mut c, "me", &[consumer("GHeld4", "Held4", "*", 1)], &[]),
        0
    );
    hold(&mut c, &pull("GHeld4", "Held4", 0, 15_000));
    assert_eq!(
        other.code(207, &[("groupName", "GHeld4".to_owned())], b""),
        0
    );
    let (_, body, took) = held(&mut c);
    assert!(body.is_empty() && took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn what_an_orderly_consumer_gives_up_is_a_dead_letter_at_once() {
    let node = node();
    node.topic("Orderly", 1);
    let mut c = node.client();
    for group in ["GOrderly", "GConcurrent"] {
        assert_eq!(
            beat(&mut c, "me", &[consumer(group, "Orderly", "*", 1)], &[]),
            0
        );
    }
    let lock = json!({"consumerGroup": "GOrderly", "clientId": "me",
        "mqSet": [{"topic": "Orderly", "brokerName": "broker-a", "queueId": 0}]});
    let (head, body) = c.call(41, &[], lock.to_string().as_bytes());
    assert_eq!(head["code"], 0);
    assert!(String::from_utf8_lossy(&body).contains("queueId"));
    // As a Java client with one retry sends what failed twice.
    let give_up = |group: &str| {
        let properties = "RETRY_TOPIC\u{1}Orderly\u{2}DELAY\u{1}4\u{2}";
        let ext = send_ext(&format!("%RETRY%{group}"), 0, properties);
        with(with(ext, "j", 1), "l", 1)
    };
    assert_eq!(c.code(310, &give_up("GOrderly"), b"poison"), 0);
    assert_eq!(node.stored("%DLQ%GOrderly", 1), 1, "nothing delays it");
    // Nobody holds a lock: it is tried again as often as allowed.
    assert_eq!(c.code(310, &give_up("GConcurrent"), b"poison"), 0);
    assert_eq!(node.stored("%DLQ%GConcurrent", 1), 0);
    // The lock was given back.
    assert_eq!(c.code(42, &[], lock.to_string().as_bytes()), 0);
    assert_eq!(c.code(310, &give_up("GOrderly"), b"poison"), 0);
    assert_eq!(node.stored("%DLQ%GOrderly", 1), 1);
}

#[test]
fn a_deleted_group_keeps_its_offsets_unless_they_are_cleaned() {
    let node = node();
    node.topic("Kept", 1);
    let mut c = node.client();
    for _ in 0..3 {
        send(&mut c, "Kept", "A");
    }
    create_group(&mut c, "GKept");
    let at = queue_of("GKept", "Kept", 0);
    let at = with(at, "setZeroIfNotFound", false);
    commit(&mut c, "GKept", "Kept", 0, 1);
    // One that nobody waits for is on its way when the group goes.
    let one_way = with(queue_of("GKept", "Kept", 0), "commitOffset", 2);
    c.write(&request(15, 7, 2, &one_way, b""));
    let delete = |c: &mut Client, clean: bool| {
        let ext = [
            ("groupName", "GKept".to_owned()),
            ("cleanOffset", clean.to_string()),
        ];
        assert_eq!(c.code(207, &ext, b""), 0);
    };
    delete(&mut c, false);
    let ext = with(queue_of("GKept", "Kept", 0), "commitOffset", 3);
    assert_eq!(c.code(15, &ext, b""), 26, "it is not there");
    assert_eq!(
        committed(&mut c, &at),
        (0, Some(2)),
        "who asks before it is made again"
    );
    create_group(&mut c, "GKept");
    assert_eq!(committed(&mut c, &at), (0, Some(2)));
    delete(&mut c, true);
    create_group(&mut c, "GKept");
    assert_eq!(committed(&mut c, &at), (22, None));
    commit(&mut c, "GKept", "Kept", 0, 2);
    // Cleaned only after it was deleted.
    delete(&mut c, false);
    delete(&mut c, true);
    assert_eq!(committed(&mut c, &at), (22, None));
}

/// (topic, queue) → (end of the queue, consumed) by 208.
fn stats(c: &mut Client, group: &str, topic: Option<&str>) -> Vec<(String, i64, i64, i64)> {
    let mut ext = vec![("consumerGroup", group.to_owned())];
    ext.extend(topic.map(|t| ("topic", t.to_owned())));
    let (head, body) = c.call(208, &ext, b"");
    assert_eq!(head["code"], 0, "{head}");
    // Objects as keys: read as far as it matters.
    let text = String::from_utf8(body).expect("text");
    let field = |part: &str, name: &str| -> String {
        let at = part.split(&format!("\"{name}\":")).nth(1).unwrap_or("");
        let value = at.trim_start_matches('"');
        value.split(['"', ',', '}']).next().unwrap_or("").to_owned()
    };
    let number = |part: &str, name: &str| field(part, name).parse().expect("number");
    let mut rows: Vec<_> = text
        .split("{\"brokerName\"")
        .skip(1)
        .map(|part| {
            let queue = number(part, "queueId");
            let (end, consumed) = (number(part, "brokerOffset"), number(part, "consumerOffset"));
            (field(part, "topic"), queue, end, consumed)
        })
        .collect();
    rows.sort();
    rows
}

#[test]
fn lag_is_told_only_of_what_a_group_consumes_here() {
    let node = node();
    let mut c = node.client();
    for topic in ["Lag1", "Lag2"] {
        node.topic(topic, 1);
        for _ in 0..10 {
            send(&mut c, topic, "A");
        }
    }
    // A member that broadcasts keeps its offsets to itself.
    let mut broadcast = consumer("GBroad", "Lag1", "*", 1);
    broadcast["messageModel"] = json!("BROADCASTING");
    assert_eq!(beat(&mut c, "me", &[broadcast], &[]), 0);
    assert_eq!(stats(&mut c, "GBroad", None), []);
    // A new group has consumed nothing that anybody knows of.
    let mut other = node.client();
    let both = json!([
        consumer("GLag", "Lag1", "*", 1)["subscriptionDataSet"][0],
        consumer("GLag", "Lag2", "*", 1)["subscriptionDataSet"][0]
    ]);
    let mut member = consumer("GLag", "Lag1", "*", 1);
    member["subscriptionDataSet"] = both;
    assert_eq!(beat(&mut other, "me", &[member], &[]), 0);
    assert_eq!(stats(&mut c, "GLag", None), []);
    let row = |topic: &str, consumed| (topic.to_owned(), 0, 10, consumed);
    assert_eq!(
        stats(&mut c, "GLag", Some("Lag1")),
        [row("Lag1", 0)],
        "asked by name"
    );
    commit(&mut c, "GLag", "Lag1", 0, 4);
    commit(&mut c, "GLag", "Lag2", 0, 5);
    assert_eq!(
        stats(&mut c, "GLag", None),
        [row("Lag1", 4), row("Lag2", 5)]
    );
    // It leaves one of them.
    assert_eq!(
        beat(&mut other, "me", &[consumer("GLag", "Lag2", "*", 2)], &[]),
        0
    );
    assert_eq!(stats(&mut c, "GLag", None), [row("Lag2", 5)]);
    assert_eq!(stats(&mut c, "GLag", Some("Lag1")), []);
    // Nobody is on line: all that it committed.
    let leave = [
        ("clientID", "me".to_owned()),
        ("consumerGroup", "GLag".to_owned()),
    ];
    assert_eq!(other.code(35, &leave, b""), 0);
    assert_eq!(
        stats(&mut c, "GLag", None),
        [row("Lag1", 4), row("Lag2", 5)]
    );
}

#[test]
fn times_of_consumption_count_from_the_oldest_message_for_a_new_group() {
    let node = node();
    node.topic("Span", 2);
    let mut c = node.client();
    for _ in 0..3 {
        send(&mut c, "Span", "A");
    }
    let span = |c: &mut Client| -> Vec<Value> {
        let ext = [("topic", "Span".to_owned()), ("group", "GSpan".to_owned())];
        let (head, body) = c.call(303, &ext, b"");
        assert_eq!(head["code"], 0, "{head}");
        let body: Value = serde_json::from_slice(&body).expect("JSON");
        body["consumeTimeSpanSet"]
            .as_array()
            .expect("queues")
            .clone()
    };
    let number = |queue: &Value, name: &str| queue[name].as_i64().expect("number");
    let queues = span(&mut c);
    assert_eq!(queues[0]["consumeTimeStamp"], queues[0]["minTimeStamp"]);
    assert!(number(&queues[0], "minTimeStamp") > 0);
    let waits = number(&queues[0], "delayTime");
    assert!((0..600_000).contains(&waits), "{waits}");
    for name in ["minTimeStamp", "maxTimeStamp", "consumeTimeStamp"] {
        assert_eq!(queues[1][name], -1, "no message");
    }
    create_group(&mut c, "GSpan");
    commit(&mut c, "GSpan", "Span", 0, 3);
    let queues = span(&mut c);
    assert_eq!(queues[0]["consumeTimeStamp"], queues[0]["maxTimeStamp"]);
    assert_eq!(queues[0]["delayTime"], 0, "nothing waits");
}

#[test]
fn offsets_of_groups_and_queues_that_are_not_there() {
    let node = node();
    node.topic("Young", 2);
    let mut c = node.client();
    for _ in 0..3 {
        send(&mut c, "Young", "A");
    }
    create_group(&mut c, "GYoung");
    let queue = |group: &str, topic: &str, queue| queue_of(group, topic, queue);
    // Pull consumers ask before their first heartbeat.
    for group in ["GYoung", "GNever"] {
        for q in [0, 1] {
            let at = queue(group, "Young", q);
            assert_eq!(committed(&mut c, &at), (0, Some(0)), "{group} {q}");
            let at = with(at, "setZeroIfNotFound", false);
            assert_eq!(committed(&mut c, &at), (22, None), "{group} {q}");
        }
        for (topic, q) in [("Young", 2), ("Young", -1), ("NoSuchTopic", 0)] {
            let at = queue(group, topic, q);
            assert_eq!(committed(&mut c, &at), (22, None), "{group} {topic} {q}");
        }
    }
    let (_, groups) = c.call(201, &[], b"");
    assert!(
        !String::from_utf8_lossy(&groups).contains("GNever"),
        "asking makes no group"
    );
    // Offsets of queues that are not there are not made up.
    let of = |topic: &str, q: i64| {
        vec![
            ("topic", topic.to_owned()),
            ("queueId", q.to_string()),
            ("timestamp", "0".to_owned()),
        ]
    };
    for code in [29, 30, 31, 32] {
        assert_eq!(c.code(code, &of("Young", 1), b""), 0, "{code}");
        assert_eq!(c.code(code, &of("Young", 2), b""), 29, "{code}");
        assert_eq!(c.code(code, &of("NoSuchTopic", 0), b""), 17, "{code}");
    }
    let search = |c: &mut Client, at: i64, boundary: &str| {
        let ext = with(of("Young", 0), "timestamp", at);
        let (head, _) = c.call(29, &with(ext, "boundaryType", boundary), b"");
        head["extFields"]["offset"]
            .as_str()
            .expect("offset")
            .to_owned()
    };
    let far = 4_000_000_000_000;
    for (at, boundary, offset) in [
        (0, "lower", "0"),
        (-1, "lower", "0"),
        (far, "lower", "3"),
        (0, "upper", "0"),
        (far, "upper", "2"),
    ] {
        assert_eq!(search(&mut c, at, boundary), offset, "{at} {boundary}");
    }
}
