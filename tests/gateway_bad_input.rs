//! Bad input at a real node's sockets: reliability reference §8, rows 1–9, 12–16 and 23–25. After
//! each the node is up, nothing that was refused is stored, and memory is bounded.

#[path = "gateway/harness.rs"]
mod harness;

use harness::{pull_ext, raw_frame, request, send_ext, topic_ext, with, Client, Node};
use serde_json::json;
use std::io::Write;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// One node for the rows that need no settings of their own. It lives as long as the process.
fn node() -> &'static Node {
    static NODE: OnceLock<Node> = OnceLock::new();
    NODE.get_or_init(|| {
        let node = Node::start(|c| c.max_message_size = 1_048_576);
        node.topic("Alive", 1);
        node
    })
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with("VmRSS:"));
    line.and_then(|l| l.split_whitespace().nth(1)?.parse().ok())
        .unwrap_or(0)
}

#[test]
fn row_1_frame_lengths_that_lie_close_before_memory_is_taken() {
    let node = node();
    for len in [0i32, -1, 1, 4, i32::MIN, i32::MAX, 16 * 1024 * 1024 + 1] {
        let mut c = node.client();
        c.write(&len.to_be_bytes());
        c.write(&[0; 16]);
        c.assert_closed(&format!("length {len}"));
    }
    // 16 MiB claimed a hundred times, nothing sent: the buffers grow with what arrives.
    let before = resident_kib();
    let mut open: Vec<Client> = (0..100).map(|_| node.client()).collect();
    for c in &mut open {
        c.write(&(16 * 1024 * 1024 - 4i32).to_be_bytes());
        c.write(&[0, 0, 0, 100]);
    }
    std::thread::sleep(Duration::from_millis(300));
    let grown = resident_kib().saturating_sub(before);
    assert!(grown < 64 * 1024, "{grown} KiB for lengths alone");
    drop(open);
    node.assert_alive("Alive");
}

#[test]
fn row_2_header_lengths_and_unknown_serialization() {
    let node = node();
    let frame = |word: u32| {
        let mut out = 100u32.to_be_bytes().to_vec();
        out.extend(word.to_be_bytes());
        out.extend([b'{'; 96]);
        out
    };
    for word in [0u32, 97, 0x00FF_FFFF, 0x0200_0010, 0xFF00_0010] {
        let mut c = node.client();
        c.write(&frame(word));
        c.assert_closed(&format!("header word {word:08x}"));
    }
    node.assert_alive("Alive");
}

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
fn row_4_slow_frames_and_silent_connections_are_closed() {
    let node = Node::start(|c| {
        c.frame_deadline_secs = 1;
        c.idle_timeout_secs = 3;
    });
    node.topic("Slow", 1);
    // One byte every 100 ms: never idle, never done.
    let mut slow = node.client();
    let frame = request(310, 1, 0, &send_ext("Slow", 0, ""), &[7; 1_000]);
    let begun = Instant::now();
    for byte in &frame {
        if slow.stream.write_all(&[*byte]).is_err() || begun.elapsed() > Duration::from_secs(6) {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let took = begun.elapsed();
    assert!(
        took > Duration::from_millis(900) && took < Duration::from_secs(5),
        "{took:?}"
    );
    slow.assert_closed("slow frame");
    // Whole frames are fine for longer than the deadline; then silence is not.
    let mut idle = node.client();
    let begun = Instant::now();
    for _ in 0..4 {
        assert_eq!(idle.code(30, &queue_ext("Slow", 0), b""), 0);
        std::thread::sleep(Duration::from_millis(500));
    }
    idle.assert_closed("idle");
    let took = begun.elapsed();
    assert!(
        took > Duration::from_secs(3) && took < Duration::from_secs(8),
        "{took:?}"
    );
    assert_eq!(node.stored("Slow", 1), 0);
    assert!(node.metric("troupe_connections_closed_total{name=\"frame_deadline\"}") >= 1.0);
    assert!(node.metric("troupe_connections_closed_total{name=\"idle\"}") >= 1.0);
    node.assert_alive("Slow");
}

fn queue_ext(topic: &str, queue: i64) -> Vec<(&'static str, String)> {
    vec![("topic", topic.to_owned()), ("queueId", queue.to_string())]
}

#[test]
fn row_5_json_headers() {
    let node = node();
    let deep = format!(
        "{{\"code\":105,\"x\":{}1{}}}",
        "[".repeat(40),
        "]".repeat(40)
    );
    let keys: String = (0..300).map(|i| format!("\"k{i}\":\"v\",")).collect();
    let many = format!("{{\"code\":105,\"extFields\":{{{keys}\"z\":\"1\"}}}}");
    let long = format!(
        "{{\"code\":105,\"extFields\":{{\"topic\":\"{}\"}}}}",
        "x".repeat(1 << 20)
    );
    let closed: [&[u8]; 11] = [
        deep.as_bytes(),
        many.as_bytes(),
        long.as_bytes(),
        b"{",
        b"[]",
        b"null",
        b"{\"code\":\"x\"}",
        b"{\"code\":99999999999999999999}",
        b"{\"code\":NaN}",
        b"\xEF\xBB\xBF{\"code\":105}",
        b"{\"code\":105,\"remark\":\"\xFF\xFE\"}",
    ];
    for head in closed {
        let shown = String::from_utf8_lossy(&head[..head.len().min(60)]).into_owned();
        let begun = Instant::now();
        let mut c = node.client();
        c.write(&raw_frame(0, head, b""));
        c.assert_closed(&shown);
        assert!(
            begun.elapsed() < Duration::from_secs(2),
            "{shown} took {:?}",
            begun.elapsed()
        );
    }
    // Duplicate keys: the last one wins, as in Java. Numbers as ext values are C++'s way.
    let mut c = node.client();
    c.write(&raw_frame(
        0,
        br#"{"code":1,"code":30,"opaque":5,"flag":0,"extFields":{"topic":"Alive","queueId":7,"queueId":0}}"#,
        b"",
    ));
    let (head, _) = c.read().expect("answer");
    assert_eq!(
        (head["code"].as_i64(), head["opaque"].as_i64()),
        (Some(0), Some(5)),
        "{head}"
    );
    node.assert_alive("Alive");
}

#[test]
fn row_6_binary_headers() {
    let node = node();
    let head = |remark: i32, ext_len: i32, ext: &[u8]| {
        let mut out = 105i16.to_be_bytes().to_vec();
        out.push(0);
        out.extend(513i16.to_be_bytes());
        out.extend(9i32.to_be_bytes());
        out.extend(0i32.to_be_bytes());
        out.extend(remark.to_be_bytes());
        out.extend(ext_len.to_be_bytes());
        out.extend(ext);
        out
    };
    for bad in [
        head(-1, 0, b""),
        head(i32::MAX, 0, b""),
        head(0, -1, b""),
        head(0, i32::MAX, b""),
        head(0, 4, &[0xFF, 0xFF, 0, 0]),
        head(0, 7, &[0, 1, b'a', 0x7F, 0xFF, 0xFF, 0xFF]),
        head(0, 7, &[0, 1, b'a', 0xFF, 0xFF, 0xFF, 0xFF]),
        vec![0, 1, 2],
    ] {
        let mut c = node.client();
        c.write(&raw_frame(1, &bad, b""));
        c.assert_closed(&format!("{bad:?}"));
    }
    // Unknown fields are ignored, a missing one is an error with a text.
    let mut c = node.client();
    c.write(&raw_frame(
        1,
        &head(0, 8, &[0, 1, b'a', 0, 0, 0, 1, b'b']),
        b"",
    ));
    let (answer, _) = c.read().expect("answer");
    assert_eq!(
        (answer["code"].as_i64(), answer["opaque"].as_i64()),
        (Some(1), Some(9))
    );
    assert!(
        answer["remark"].as_str().expect("text").contains("topic"),
        "{answer}"
    );
    node.assert_alive("Alive");
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
fn row_12_codes_flags_and_opaques() {
    let node = node();
    let mut c = node.client();
    for code in [0, -1, 9_999, 200_050, i32::MAX, i32::MIN] {
        let (head, _) = c.call(code, &[], b"");
        assert_eq!(head["code"], 3, "{head}");
        let text = format!(" request type {code} not supported");
        assert_eq!(head["remark"].as_str(), Some(text.as_str()));
    }
    // Answers nobody asked for are dropped, one-way requests get none, equal opaques get one each.
    for opaque in [0, 7, -7, i32::MAX] {
        c.write(&request(0, opaque, 1, &[], b""));
    }
    c.write(&request(30, 77, 2, &queue_ext("Alive", 0), b""));
    for _ in 0..3 {
        c.write(&request(30, 78, 0, &queue_ext("Alive", 0), b""));
    }
    for _ in 0..3 {
        let (head, _) = c.read().expect("answer");
        assert_eq!(head["opaque"], 78, "{head}");
    }
    node.assert_alive("Alive");
}

#[test]
fn row_12_a_flood_of_waiting_requests_is_bounded() {
    let node = Node::start(|c| c.max_pending_requests = 8);
    node.topic("Flood", 1);
    let mut c = node.client();
    // Held pulls fill the table; nothing more is read until they are answered.
    assert_eq!(
        c.code(11, &pull_ext("G", "Flood", 0, 0), b""),
        19,
        "the group is created"
    );
    for opaque in 0..20 {
        c.write(&request(
            11,
            100 + opaque,
            0,
            &pull_ext("G", "Flood", 0, 2_000),
            b"",
        ));
    }
    c.write(&request(30, 999, 0, &queue_ext("Flood", 0), b""));
    let begun = Instant::now();
    let mut order = Vec::new();
    while order.len() < 21 {
        let (head, _) = c.read().expect("answer");
        order.push(head["opaque"].as_i64().expect("opaque"));
    }
    // 8 at a time, 2 s each: the 21st request was not looked at before the third group.
    assert!(
        begun.elapsed() > Duration::from_secs(3),
        "{:?} {order:?}",
        begun.elapsed()
    );
    let at = order.iter().position(|o| *o == 999).expect("answered");
    assert!(at >= 16, "{order:?}");
    node.assert_alive("Flood");
}

#[test]
fn row_13_connection_limits_and_storms() {
    let node = Node::start(|c| {
        c.max_connections = 20;
        c.max_connections_per_address = 10;
    });
    node.topic("Limit", 1);
    std::thread::sleep(Duration::from_millis(200));
    let mut open: Vec<Client> = (0..10).map(|_| node.client()).collect();
    for c in &mut open {
        assert_eq!(c.code(30, &queue_ext("Limit", 0), b""), 0);
    }
    for _ in 0..5 {
        node.client().assert_closed("one too many");
    }
    assert_eq!(
        open[0].code(30, &queue_ext("Limit", 0), b""),
        0,
        "the others stay"
    );
    drop(open);
    for _ in 0..300 {
        drop(node.client());
    }
    std::thread::sleep(Duration::from_millis(500));
    node.assert_alive("Limit");
    assert!(node.metric("troupe_connections_closed_total{name=\"limit\"}") >= 5.0);
}

#[test]
fn row_13_a_client_that_reads_nothing_is_closed() {
    let node = Node::start(|c| {
        c.write_buffer_limit_bytes = 131_072;
        c.idle_timeout_secs = 4;
    });
    node.topic("Deaf", 1);
    let mut producer = node.client();
    for _ in 0..16 {
        assert_eq!(
            producer.code(310, &send_ext("Deaf", 0, ""), &[9; 60_000]),
            0
        );
    }
    let mut deaf = node.client();
    assert_eq!(
        deaf.code(11, &pull_ext("G", "Deaf", 15, 0), b""),
        0,
        "the group is created"
    );
    let before = resident_kib();
    let pull = request(11, 1, 0, &pull_ext("G", "Deaf", 0, 0), b"");
    deaf.stream
        .set_write_timeout(Some(Duration::from_secs(1)))
        .expect("timeout");
    for _ in 0..4_000 {
        if deaf.stream.write_all(&pull).is_err() {
            break;
        }
    }
    let begun = Instant::now();
    let closed = || {
        node.metric("troupe_connections_closed_total{name=\"write_buffer\"}")
            + node.metric("troupe_connections_closed_total{name=\"idle\"}")
    };
    while closed() < 1.0 {
        assert!(begun.elapsed() < Duration::from_secs(20), "still open");
        std::thread::sleep(Duration::from_millis(200));
    }
    let grown = resident_kib().saturating_sub(before);
    assert!(
        grown < 64 * 1024,
        "{grown} KiB for one client that does not read"
    );
    node.assert_alive("Deaf");
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
        real + 1,
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
