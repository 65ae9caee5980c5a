//! Rows about frames, headers, flags and connections: 1, 2, 4, 5, 6, 12, 13.

use super::harness::{pull_ext, raw_frame, request, send_ext, Client, Node};
use super::{node, queue_ext, resident_kib};
use std::io::Write;
use std::time::{Duration, Instant};

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
    assert!(grown < 256 * 1024, "{grown} KiB for lengths alone");
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
    // 8 at a time, 2 s each: the 21st request is read when 13 others were answered.
    assert!(
        begun.elapsed() > Duration::from_secs(3),
        "{:?} {order:?}",
        begun.elapsed()
    );
    let at = order.iter().position(|o| *o == 999).expect("answered");
    assert!(at >= 13, "eight wait at most: {order:?}");
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
        grown < 256 * 1024,
        "{grown} KiB for one client that does not read"
    );
    node.assert_alive("Deaf");
}
