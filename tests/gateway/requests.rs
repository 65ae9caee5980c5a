//! Rows about what requests say: 3, 7, 8, 9, 14, 15, 16, 23, 24, 25.

use super::harness::{pull_ext, request, send_ext, topic_ext, with, Client, Node};
use super::{node, queue_ext};
use serde_json::json;
use std::time::{Duration, Instant};

/// One entry of a batch body with a total and a body length of the test's choice.
fn entry(total: Option<i32>, body_len: Option<i32>, body: &[u8]) -> Vec<u8> {
    let real = 22 + body.len() as i32;
    let mut out = total.unwrap_or(real).to_be_bytes().to_vec();
    out.extend([0; 12]);
    out.extend(body_len.unwrap_or(body.len() as i32).to_be_bytes());
    out.extend(body);
    out.extend([0, 0]);
    out
}

#[test]
fn row_3_too_large_bodies_and_lying_batches_store_nothing() {
    let node = node();
    node.topic("Row3", 1);
    let mut c = node.client();
    let large = vec![7u8; 1_048_577];
    assert_eq!(c.code(310, &send_ext("Row3", 0, ""), &large), 13);
    let batch = with(send_ext("Row3", 0, ""), "m", true);
    let good = entry(None, None, b"x");
    for bad in [
        entry(Some(-1), None, b"x"),
        entry(Some(i32::MAX), None, b"x"),
        entry(Some(0), None, b"x"),
        entry(None, Some(-1), b"x"),
        entry(None, Some(i32::MAX), b"x"),
        entry(None, Some(0), b"x"),
        good[..good.len() - 1].to_vec(),
        [good.clone(), entry(Some(21), None, b"")].concat(),
        [good.clone(), vec![1, 2, 3]].concat(),
        Vec::new(),
    ] {
        assert_eq!(c.code(320, &batch, &bad), 13, "{bad:?}");
        assert_eq!(c.code(310, &batch, &bad), 13, "{bad:?}");
    }
    // More messages than a batch may have, all well formed.
    let many = entry(None, None, b"").repeat(40_000);
    assert_eq!(c.code(320, &batch, &many), 13);
    assert_eq!(node.stored("Row3", 1), 0);
    let (head, _) = c.call(320, &batch, &[good.clone(), good].concat());
    assert_eq!(head["code"], 0, "{head}");
    assert_eq!(
        head["extFields"]["msgId"]
            .as_str()
            .expect("ids")
            .split(',')
            .count(),
        2
    );
    assert_eq!(node.stored("Row3", 1), 2);
}

#[test]
fn row_7_separators_cannot_forge_a_property() {
    let node = node();
    node.topic("Row7", 1);
    let mut c = node.client();
    for bad in [
        "a\u{1}b\u{1}TAGS",
        "KEYS\u{1}x\u{1}y\u{2}",
        "a\u{1}b\u{0}c\u{2}",
    ] {
        assert_eq!(c.code(310, &send_ext("Row7", 0, bad), b"x"), 13, "{bad:?}");
    }
    for bad in ["a\u{1}b", "T\u{2}", "x\n", "x\u{0}", "日本", "a b"] {
        assert_eq!(c.code(310, &send_ext(bad, 0, ""), b"x"), 29, "{bad:?}");
        assert_eq!(c.code(17, &topic_ext(bad, 1, 6), b""), 29, "{bad:?}");
    }
    assert_eq!(node.stored("Row7", 1), 0);
    // What the broker owns cannot be set by a producer.
    let forged = "CLUSTER\u{1}other\u{2}MSG_REGION\u{1}x\u{2}TAGS\u{1}t\u{2}";
    assert_eq!(c.code(310, &send_ext("Row7", 0, forged), b"x"), 0);
    let (head, body) = c.call(11, &pull_ext("G7", "Row7", 0, 0), b"");
    assert_eq!(head["code"], 0, "{head}");
    let text = String::from_utf8_lossy(&body);
    assert!(
        text.contains("CLUSTER\u{1}DefaultCluster\u{2}") && !text.contains("other"),
        "{text:?}"
    );
}

#[test]
fn row_8_names_never_leave_the_allowed_characters() {
    let node = node();
    let mut c = node.client();
    let long = "x".repeat(128);
    for bad in [
        "../x",
        "a/b",
        "a\\b",
        ".",
        "..",
        "",
        " ",
        "a.b",
        &long,
        "%RETRY%../x",
        "ｆｕｌｌ",
    ] {
        assert_eq!(c.code(310, &send_ext(bad, 0, ""), b"x"), 29, "{bad:?}");
        assert_eq!(c.code(17, &topic_ext(bad, 1, 6), b""), 29, "{bad:?}");
        let group = json!({"groupName": bad}).to_string();
        assert_eq!(c.code(200, &[], group.as_bytes()), 29, "{bad:?}");
    }
    for system in [
        "TBW102",
        "SCHEDULE_TOPIC_XXXX",
        "rmq_sys_x",
        "DefaultCluster",
        "broker-a",
    ] {
        assert_eq!(c.code(17, &topic_ext(system, 1, 6), b""), 29, "{system}");
        assert_eq!(
            c.code(215, &[("topic", system.to_owned())], b""),
            29,
            "{system}"
        );
    }
    assert_eq!(
        c.code(310, &send_ext("SCHEDULE_TOPIC_XXXX", 0, ""), b"x"),
        16
    );
    // Case twins are two topics.
    node.topic("Twin", 1);
    node.topic("twin", 1);
    assert_eq!(c.code(310, &send_ext("Twin", 0, ""), b"x"), 0);
    assert_eq!((node.stored("Twin", 1), node.stored("twin", 1)), (1, 0));
}

#[test]
fn row_9_numbers_out_of_range() {
    let node = node();
    node.topic("Row9", 2);
    let mut c = node.client();
    let props = |p: &str| send_ext("Row9", 0, p);
    let long = format!("a\u{1}{}\u{2}", "x".repeat(33_000));
    for (bad, code) in [
        (props(&long), 13),
        (props("DELAY\u{1}abc\u{2}"), 13),
        (props("TIMER_DELAY_SEC\u{1}9223372036854775807\u{2}"), 13),
        (props("TIMER_DELAY_MS\u{1}99999999999999\u{2}"), 13),
        (props("TRAN_MSG\u{1}true\u{2}"), 13),
        (send_ext("Row9", 2, ""), 29),
        (send_ext("Row9", i32::MAX, ""), 29),
        (with(props(""), "e", "99999999999"), 1),
        (with(props(""), "d", "x"), 1),
        (with(props(""), "g", ""), 1),
    ] {
        assert_eq!(c.code(310, &bad, b"x"), code, "{bad:?}");
    }
    for (queue, code) in [(-1, 29), (2, 29), (i64::from(i32::MAX), 29), (i64::MAX, 1)] {
        for request in [30, 31, 32] {
            assert_eq!(
                c.code(request, &queue_ext("Row9", queue), b""),
                code,
                "{request} {queue}"
            );
        }
    }
    assert_eq!(node.stored("Row9", 2), 0);
    // A negative queue is the broker's choice; a time in the past is now.
    assert_eq!(
        c.code(
            310,
            &send_ext("Row9", -1, "TIMER_DELIVER_MS\u{1}1\u{2}"),
            b"x"
        ),
        0
    );
    assert_eq!(node.stored("Row9", 2), 1);
    // Offsets at the edges: the client is sent to the nearest one.
    for (asked, next) in [(i64::MIN, "0"), (-1, "0"), (i64::MAX, "1")] {
        let ext = pull_ext("G9", "Row9", asked, 0);
        let queue = (0..2)
            .find(|q| node_queue_len(&mut c, *q) == 1)
            .expect("stored");
        let (head, _) = c.call(11, &with(ext, "queueId", queue), b"");
        assert_eq!(head["code"], 21, "{head}");
        assert_eq!(head["extFields"]["nextBeginOffset"], next, "{head}");
    }
    for bad in [
        (-1i64, 8, 6),
        (8, -1, 6),
        (0, 0, 6),
        (8, 8, 64),
        (1 << 20, 8, 6),
    ] {
        let ext = with(topic_ext("Row9b", 1, 6), "readQueueNums", bad.0);
        let ext = with(with(ext, "writeQueueNums", bad.1), "perm", bad.2);
        assert_eq!(c.code(17, &ext, b""), 29, "{bad:?}");
    }
}

fn node_queue_len(c: &mut Client, queue: i64) -> i64 {
    let (head, _) = c.call(30, &queue_ext("Row9", queue), b"");
    head["extFields"]["offset"]
        .as_str()
        .expect("offset")
        .parse()
        .expect("number")
}

#[test]
fn row_14_long_polls_are_clamped_and_cancelled() {
    let node = node();
    node.topic("Poll", 1);
    let mut c = node.client();
    let ext = with(pull_ext("G14", "Poll", 0, 0), "maxMsgNums", i32::MIN);
    assert_eq!(c.code(11, &ext, b""), 19);
    // Ten years of waiting end when the connection does.
    let forever = with(
        pull_ext("G14", "Poll", 0, 1),
        "suspendTimeoutMillis",
        i64::MAX,
    );
    for opaque in 0..500 {
        c.write(&request(11, opaque, 0, &forever, b""));
    }
    std::thread::sleep(Duration::from_millis(300));
    drop(c);
    std::thread::sleep(Duration::from_millis(300));
    // Negative and zero times are answered at once.
    let mut c = node.client();
    for hold in ["-1", "0", "-9223372036854775808"] {
        let ext = with(pull_ext("G14", "Poll", 0, 1), "suspendTimeoutMillis", hold);
        let begun = Instant::now();
        assert_eq!(c.code(11, &ext, b""), 19);
        assert!(begun.elapsed() < Duration::from_secs(2), "{hold}");
    }
    assert_eq!(c.code(310, &send_ext("Poll", 0, ""), b"x"), 0);
    let (head, body) = c.call(
        11,
        &with(pull_ext("G14", "Poll", 0, 0), "maxMsgNums", i32::MAX),
        b"",
    );
    assert_eq!(head["code"], 0);
    assert!(!body.is_empty());
}

#[test]
fn row_15_nothing_is_created_when_creation_is_off() {
    let node = Node::start(|c| {
        c.auto_create_topic_enable = false;
        c.auto_create_subscription_group = false;
    });
    node.topic("Here", 1);
    let mut c = node.client();
    for i in 0..200 {
        assert_eq!(c.code(310, &send_ext(&format!("New{i}"), 0, ""), b"x"), 17);
        assert_eq!(
            c.code(11, &pull_ext(&format!("G{i}"), "Here", 0, 0), b""),
            26
        );
    }
    let beat = json!({"clientID": "c", "producerDataSet": [],
        "consumerDataSet": [{"groupName": "Unknown", "subscriptionDataSet": []}]});
    assert_eq!(c.code(34, &[], beat.to_string().as_bytes()), 26);
    let (_, topics) = c.call(21, &[], b"");
    assert!(!String::from_utf8_lossy(&topics).contains("New"));
    let (_, groups) = c.call(201, &[], b"");
    assert!(!String::from_utf8_lossy(&groups).contains("\"G1\""));
    node.assert_alive("Here");
}

#[test]
fn row_16_heartbeats_and_registrations_beyond_the_limits() {
    let node = node();
    let mut c = node.client();
    let subscriptions: Vec<_> = (0..100_000)
        .map(|i| json!({"topic": format!("T{i}"), "subString": "*", "subVersion": 1}))
        .collect();
    let beat = json!({"clientID": "c", "producerDataSet": [],
        "consumerDataSet": [{"groupName": "Huge", "subscriptionDataSet": subscriptions}]});
    assert_eq!(c.code(34, &[], beat.to_string().as_bytes()), 1);
    for bad in ["", "{", "[]", "{\"clientID\":\"\"}", "{\"clientID\":{}}"] {
        assert_eq!(c.code(34, &[], bad.as_bytes()), 1, "{bad}");
    }
    let list = c.code(38, &[("consumerGroup", "Huge".to_owned())], b"");
    assert_eq!(list, 1, "the group has no member");
    // A registration with names nobody may have changes no route.
    let mut registry = Client::open(node.registry);
    let stranger = |name: &str| {
        vec![
            ("brokerName", name.to_owned()),
            ("brokerAddr", "10.9.9.9:1".to_owned()),
            ("clusterName", "C".to_owned()),
            ("haServerAddr", String::new()),
            ("brokerId", "0".to_owned()),
        ]
    };
    let topics = json!({"filterServerList": [], "topicConfigSerializeWrapper": {
        "topicConfigTable": {"../evil": {"topicName": "../evil", "readQueueNums": 8,
            "writeQueueNums": 8, "perm": 6}, "Fine": {"topicName": "Fine"}}}});
    assert_eq!(
        registry.code(103, &stranger("../b"), topics.to_string().as_bytes()),
        1
    );
    for bad in [
        &b"x\x9c"[..],
        b"\x78\xda\x00\x01",
        b"{\"topicConfigSerializeWrapper\":3}",
    ] {
        assert_eq!(registry.code(103, &stranger("b"), bad), 1, "{bad:?}");
    }
    let _ = registry.call(103, &stranger("b"), topics.to_string().as_bytes());
    assert_eq!(
        registry.code(105, &[("topic", "../evil".to_owned())], b""),
        17
    );
    node.assert_alive("Alive");
}

fn commit_ext(group: &str, queue: i64, offset: i64) -> Vec<(&'static str, String)> {
    vec![
        ("consumerGroup", group.to_owned()),
        ("topic", "Row23".to_owned()),
        ("queueId", queue.to_string()),
        ("commitOffset", offset.to_string()),
    ]
}

#[test]
fn row_23_offset_commits_out_of_place() {
    let node = node();
    node.topic("Row23", 1);
    let mut c = node.client();
    for _ in 0..3 {
        assert_eq!(c.code(310, &send_ext("Row23", 0, ""), b"x"), 0);
    }
    assert_eq!(c.code(15, &commit_ext("Nobody", 0, 1), b""), 26);
    assert_eq!(c.code(200, &[], br#"{"groupName":"G23"}"#), 0);
    assert_eq!(c.code(15, &commit_ext("G23", 0, 2), b""), 0);
    for bad in [
        (0, -1),
        (0, 4),
        (0, i64::MAX),
        (0, i64::MIN),
        (1, 1),
        (-1, 1),
    ] {
        assert_ne!(
            c.code(15, &commit_ext("G23", bad.0, bad.1), b""),
            0,
            "{bad:?}"
        );
        // One-way: refused in silence.
        c.write(&request(15, 1, 2, &commit_ext("G23", bad.0, bad.1), b""));
    }
    std::thread::sleep(Duration::from_millis(400));
    let ext = [
        ("consumerGroup", "G23".to_owned()),
        ("topic", "Row23".to_owned()),
        ("queueId", "0".to_owned()),
    ];
    let (head, _) = c.call(14, &ext, b"");
    assert_eq!(head["extFields"]["offset"], "2", "{head}");
    // Locks for queues that do not exist are not given.
    let queues: Vec<_> = (0..2_000)
        .map(|q| json!({"topic": "Row23", "brokerName": "broker-a", "queueId": q}))
        .collect();
    let body = json!({"consumerGroup": "G23", "clientId": "me", "mqSet": queues}).to_string();
    let (_, held) = c.call(41, &[], body.as_bytes());
    let held: serde_json::Value = serde_json::from_slice(&held).expect("JSON");
    assert_eq!(
        held["lockOKMQSet"].as_array().map(Vec::len),
        Some(1),
        "{held}"
    );
    // Nor are more locks than a command may carry to the other nodes, or for endless names.
    let queues: Vec<_> = (0..4_097)
        .map(|q| json!({"topic": "T", "queueId": q}))
        .collect();
    for (client, queues) in [("me", queues), (&*"x".repeat(256), Vec::new())] {
        let body = json!({"consumerGroup": "G23", "clientId": client, "mqSet": queues}).to_string();
        for code in [41, 42] {
            assert_eq!(c.code(code, &[], body.as_bytes()), 29);
        }
    }
}

#[test]
fn row_24_message_ids_reach_only_our_own_store() {
    let node = node();
    node.topic("Row24", 1);
    let mut c = node.client();
    let (sent, _) = c.call(310, &send_ext("Row24", 0, ""), b"mine");
    let id = sent["extFields"]["msgId"].as_str().expect("id").to_owned();
    let real = i64::from_str_radix(&id[16..], 16).expect("offset");
    let view = |offset: i64| vec![("offset", offset.to_string())];
    let (head, body) = c.call(33, &view(real), b"");
    assert_eq!(head["code"], 0);
    assert!(body.windows(4).any(|w| w == b"mine"));
    for forged in [
        -1,
        i64::MIN,
        i64::MAX,
        0,
        // Small ordinals may be another test's messages in the same entry.
        real + (1 << 18),
        real ^ (1 << 40),
        real | (1 << 19),
    ] {
        assert_eq!(c.code(33, &view(forged), b""), 1, "{forged}");
    }
    assert_eq!(c.code(33, &with(view(real), "topic", "Other"), b""), 1);
    // Sending back what does not exist, and for a group that does not.
    let back = |group: &str, offset: i64| {
        vec![
            ("group", group.to_owned()),
            ("offset", offset.to_string()),
            ("delayLevel", "0".to_owned()),
        ]
    };
    assert_eq!(c.code(200, &[], br#"{"groupName":"G24"}"#), 0);
    assert_eq!(c.code(36, &back("G24", i64::MAX), b""), 1);
    assert_eq!(c.code(36, &back("Nobody", real), b""), 26);
    // An id that names another host: no connection is opened to it, our store is asked.
    let trap = std::net::TcpListener::bind("127.0.0.1:0").expect("trap");
    trap.set_nonblocking(true).expect("nonblocking");
    let port = trap.local_addr().expect("addr").port();
    let foreign = format!("7F000001{:08X}{}", u32::from(port), &id[16..]);
    let ext = [
        ("consumerGroup", "G24".to_owned()),
        ("clientId", "nobody".to_owned()),
        ("msgId", foreign),
    ];
    assert_eq!(c.code(309, &ext, b""), 1);
    std::thread::sleep(Duration::from_millis(200));
    assert!(
        trap.accept().is_err(),
        "the node dialled an address from input"
    );
}

#[test]
fn row_25_labels_are_bounded_and_escaped() {
    let node = Node::start(|c| c.metrics_max_topics = 4);
    let mut c = node.client();
    for i in 0..12 {
        let name = format!("Label{i}");
        node.topic(&name, 1);
        assert_eq!(c.code(310, &send_ext(&name, 0, ""), b"x"), 0);
    }
    for code in 5_000..5_100 {
        let _ = c.call(
            code,
            &[("topic", "x\ny{evil=\"1\"} 7\u{1b}[31m".to_owned())],
            b"",
        );
    }
    let page = node.metrics();
    let topics = page
        .lines()
        .filter(|l| l.starts_with("troupe_messages_in_total{"))
        .count();
    assert!(topics <= 5, "{topics} topics have labels");
    assert!(page.contains("topic=\"_other\""));
    assert!(!page.contains("evil") && !page.contains('\u{1b}'));
    let codes = page
        .lines()
        .filter(|l| l.starts_with("troupe_requests_total{"))
        .count();
    assert!(codes < 300, "{codes} request codes have labels");
}
