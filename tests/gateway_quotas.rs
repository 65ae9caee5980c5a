//! Quotas on what clients make a node keep, seen at its sockets: the codes of the refusals, and that
//! what exists goes on.

#[allow(dead_code)] // Other tests use the rest.
#[path = "gateway/cluster.rs"]
mod cluster;
#[allow(dead_code)]
#[path = "gateway/harness.rs"]
mod harness;

use cluster::Cluster;
use harness::{pull_ext, request, send_ext, topic_ext, with, Client, Node};
use serde_json::{json, Value};
use std::time::{Duration, Instant};
use troupemq::config::Config;

/// Code and remark.
fn ask(c: &mut Client, code: i32, ext: &[(&'static str, String)], body: &[u8]) -> (i64, String) {
    let (head, _) = c.call(code, ext, body);
    let remark = head["remark"].as_str().unwrap_or_default().to_owned();
    (head["code"].as_i64().expect("code"), remark)
}

fn consumer(group: &str, topic: &str) -> Value {
    json!({"groupName": group, "consumeType": "CONSUME_PASSIVELY", "messageModel": "CLUSTERING",
        "consumeFromWhere": "CONSUME_FROM_LAST_OFFSET", "unitMode": false,
        "subscriptionDataSet": [{"topic": topic, "subString": "*", "tagsSet": [], "codeSet": [],
            "subVersion": 1, "expressionType": "TAG"}]})
}

/// A heartbeat for consumers of these groups.
fn beat(c: &mut Client, groups: &[&str]) -> (i64, String) {
    let groups: Vec<_> = groups.iter().map(|g| consumer(g, "Known")).collect();
    let body = json!({"clientID": "me", "consumerDataSet": groups, "producerDataSet": []});
    ask(c, 34, &[], body.to_string().as_bytes())
}

fn members(c: &mut Client, group: &str) -> i64 {
    c.code(38, &[("consumerGroup", group.to_owned())], b"")
}

fn create_topic(c: &mut Client, name: &str) -> (i64, String) {
    ask(c, 17, &topic_ext(name, 1, 6), b"")
}

fn create_group(c: &mut Client, name: &str) -> (i64, String) {
    let body = json!({"groupName": name}).to_string();
    ask(c, 200, &[], body.as_bytes())
}

fn send(c: &mut Client, topic: &str) -> (i64, String) {
    ask(c, 310, &send_ext(topic, 0, ""), b"body")
}

/// Sends a message that is due in an hour.
fn delay(c: &mut Client, topic: &str) -> (i64, String) {
    let ext = send_ext(topic, 0, "TIMER_DELAY_SEC\u{1}3600\u{2}");
    ask(c, 310, &ext, b"body")
}

fn commit(c: &mut Client, group: &str, topic: &str, queue: i64) -> (i64, String) {
    let ext = [
        ("consumerGroup", group.to_owned()),
        ("topic", topic.to_owned()),
        ("queueId", queue.to_string()),
        ("commitOffset", "0".to_owned()),
    ];
    ask(c, 15, &ext, b"")
}

/// Topics that a broker has by itself.
fn own_topics(change: impl Fn(&mut Config)) -> u64 {
    let node = Node::start(change);
    until(&node, "topics", |page| used(page, "max_topics") > 0.0);
    used(&node.metrics(), "max_topics") as u64
}

fn quota(page: &str, family: &str, name: &str) -> f64 {
    let line = page.lines().find(|l| {
        l.starts_with(&format!("troupe_quota_{family}{{"))
            && l.contains(&format!("name=\"{name}\""))
    });
    let value = line.and_then(|l| l.rsplit(' ').next());
    value.and_then(|v| v.parse().ok()).unwrap_or(-1.0)
}

fn used(page: &str, name: &str) -> f64 {
    quota(page, "used", name)
}

/// Waits until a figure of the page, which is brought up to date every second, is so.
fn until(node: &Node, what: &str, reached: impl Fn(&str) -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let page = node.metrics();
        if reached(&page) {
            return;
        }
        let rows: Vec<&str> = page
            .lines()
            .filter(|l| l.contains("troupe_quota"))
            .collect();
        assert!(Instant::now() < end, "{what}: {rows:#?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[track_caller]
fn assert_refused(answer: (i64, String), code: i64, setting: &str) {
    assert!(
        answer.0 == code && answer.1.contains(setting),
        "{code} {setting}: {answer:?}"
    );
}

fn ok() -> (i64, String) {
    (0, String::new())
}

#[test]
fn topics_end_at_the_quota_and_operators_have_the_rest() {
    let own = own_topics(|_| {});
    assert!(own > 5, "{own}");
    let node = Node::start(|c| {
        c.auto_create_max_topics = own + 3;
        c.max_topics = own + 5;
    });
    let mut c = node.client();
    for name in ["Known", "A2", "A3"] {
        assert_eq!(send(&mut c, name), ok());
    }
    assert_refused(
        send(&mut c, "A4"),
        17,
        &format!("auto_create_max_topics = {}", own + 3),
    );
    assert_eq!(create_topic(&mut c, "O1"), ok());
    assert_eq!(create_topic(&mut c, "O2"), ok());
    assert_refused(
        create_topic(&mut c, "O3"),
        1,
        &format!("max_topics = {}", own + 5),
    );
    let list = |names: &[&str]| {
        let topics: Vec<_> = names
            .iter()
            .map(|n| {
                json!({"topicName": n, "readQueueNums": 1, "writeQueueNums": 1, "perm": 6,
                "topicFilterType": "SINGLE_TAG", "order": false, "topicSysFlag": 0, "attributes": {}})
            })
            .collect();
        json!({"topicConfigList": topics}).to_string()
    };
    let many = list(&["O1", "O3"]);
    assert_refused(ask(&mut c, 18, &[], many.as_bytes()), 1, "max_topics");
    // What exists is changed, and used, by anybody.
    let mut other = node.client();
    assert_eq!(ask(&mut other, 17, &topic_ext("O1", 4, 6), b""), ok());
    assert_eq!(ask(&mut c, 18, &[], list(&["O1", "O2"]).as_bytes()), ok());
    assert_eq!(send(&mut other, "A3"), ok());
    // Groups get their topics nevertheless: failed messages must have a place.
    assert_eq!(beat(&mut c, &["G"]), ok());
    assert_eq!(
        ask(&mut c, 351, &[("topic", "%RETRY%G".to_owned())], b"").0,
        0
    );
    until(&node, "figures", |page| {
        used(page, "max_topics") == (own + 5) as f64
            && quota(page, "limit", "max_topics") == (own + 5) as f64
            && quota(page, "refusals_total", "max_topics") == 2.0
            && quota(page, "refusals_total", "auto_create_max_topics") == 1.0
    });
    // A deleted one makes room.
    assert_eq!(ask(&mut c, 215, &[("topic", "O2".to_owned())], b""), ok());
    assert_eq!(create_topic(&mut c, "O3"), ok());
}

#[test]
fn groups_end_at_the_quota_one_by_one() {
    let node = Node::start(|c| {
        c.auto_create_max_groups = 2;
        c.max_groups = 3;
    });
    node.topic("Known", 1);
    let mut c = node.client();
    // What fits is taken.
    assert_eq!(beat(&mut c, &["G1", "G2", "G3"]), ok());
    for (group, code) in [("G1", 0), ("G2", 0), ("G3", 1)] {
        assert_eq!(members(&mut c, group), code, "{group}");
    }
    assert_refused(beat(&mut c, &["G3"]), 26, "auto_create_max_groups = 2");
    assert_refused(
        ask(&mut c, 11, &pull_ext("G3", "Known", 0, 0), b""),
        26,
        "auto_create_max_groups",
    );
    assert_eq!(create_group(&mut c, "G3"), ok());
    assert_refused(create_group(&mut c, "G4"), 1, "max_groups = 3");
    let list = json!({"groupConfigList": [{"groupName": "G1"}, {"groupName": "G4"}]}).to_string();
    assert_refused(ask(&mut c, 225, &[], list.as_bytes()), 1, "max_groups");
    // Existing ones go on.
    assert_eq!(create_group(&mut c, "G1"), ok());
    assert_eq!(beat(&mut c, &["G1", "G2", "G3", "G4"]), ok());
    assert_eq!(members(&mut c, "G3"), 0);
    assert_eq!(commit(&mut c, "G3", "Known", 0), ok());
    // Deleted with its offsets kept it is not gone.
    assert_eq!(
        ask(
            &mut c,
            207,
            &[
                ("groupName", "G2".to_owned()),
                ("cleanOffset", "false".to_owned())
            ],
            b""
        ),
        ok()
    );
    assert_refused(create_group(&mut c, "G4"), 1, "max_groups");
    assert_eq!(beat(&mut c, &["G2"]), ok());
    assert_eq!(
        ask(
            &mut c,
            207,
            &[
                ("groupName", "G2".to_owned()),
                ("cleanOffset", "true".to_owned())
            ],
            b""
        ),
        ok()
    );
    assert_eq!(create_group(&mut c, "G4"), ok());
    // A policy is no place to store things.
    let huge = json!({"groupName": "G1", "groupRetryPolicy":
        {"type": "CUSTOMIZED", "customizedRetryPolicy": {"next": vec![1; 5_000]}}});
    assert_refused(
        ask(&mut c, 200, &[], huge.to_string().as_bytes()),
        29,
        "groupRetryPolicy",
    );
}

#[test]
fn delayed_messages_end_at_the_quota_and_failed_ones_come_back() {
    let node = Node::start(|c| c.max_delayed_messages = 20);
    node.topic("Known", 1);
    let mut c = node.client();
    assert_eq!(beat(&mut c, &["G"]), ok());
    let (head, _) = c.call(310, &send_ext("Known", 0, ""), b"fails");
    let id = head["extFields"]["msgId"].as_str().expect("id").to_owned();
    let offset = i64::from_str_radix(&id[16..], 16).expect("offset");
    // All at once: what is under way counts.
    for n in 0..40 {
        let ext = send_ext("Known", 0, "TIMER_DELAY_SEC\u{1}3600\u{2}");
        c.write(&request(310, 1_000 + n, 0, &ext, b"body"));
    }
    let mut codes = Vec::new();
    while codes.len() < 40 {
        let (head, _) = c.read().expect("an answer");
        if head["flag"] == 1 && head["opaque"].as_i64() >= Some(1_000) {
            codes.push(head["code"].as_i64().expect("code"));
        }
    }
    let count = |code| codes.iter().filter(|c| **c == code).count();
    assert_eq!((count(0), count(1)), (20, 20), "{codes:?}");
    assert_refused(delay(&mut c, "Known"), 1, "max_delayed_messages = 20");
    let mut other = node.client();
    assert_refused(
        delay(&mut other, "Known"),
        1,
        "timer message is under flow control",
    );
    let level = send_ext("Known", 0, "DELAY\u{1}18\u{2}");
    assert_refused(ask(&mut c, 310, &level, b""), 1, "max_delayed_messages");
    assert_eq!(send(&mut c, "Known"), ok(), "others go on");
    // Sent back by the consumer, and by a send to the retry topic.
    let back = [
        ("offset", offset.to_string()),
        ("group", "G".to_owned()),
        ("delayLevel", "18".to_owned()),
        ("originMsgId", id),
        ("originTopic", "Known".to_owned()),
    ];
    assert_eq!(ask(&mut c, 36, &back, b""), ok());
    let again = with(send_ext("%RETRY%G", 0, "DELAY\u{1}18\u{2}"), "j", 1);
    for _ in 0..19 {
        assert_eq!(ask(&mut c, 310, &again, b"again"), ok());
    }
    assert_refused(
        ask(&mut c, 310, &again, b"again"),
        1,
        "max_delayed_messages = 20",
    );
    assert_refused(ask(&mut c, 36, &back, b""), 1, "max_delayed_messages = 20");
}

#[test]
fn offsets_and_locks_end_at_the_quota_and_old_ones_move_on() {
    let node = Node::start(|c| c.max_group_offsets = 6);
    node.topic("Known", 16);
    let mut c = node.client();
    for group in ["G1", "G2"] {
        assert_eq!(create_group(&mut c, group), ok());
    }
    for queue in 0..4 {
        assert_eq!(commit(&mut c, "G1", "Known", queue), ok());
    }
    let lock = |c: &mut Client, client: &str, queues: &[i64]| {
        let set: Vec<_> = queues
            .iter()
            .map(|q| json!({"topic": "Known", "brokerName": "broker-a", "queueId": q}))
            .collect();
        let body = json!({"consumerGroup": "G1", "clientId": client, "mqSet": set});
        let (head, body) = c.call(41, &[], body.to_string().as_bytes());
        assert_eq!(head["code"], 0, "{head}");
        let body: Value = serde_json::from_slice(&body).expect("JSON");
        body["lockOKMQSet"].as_array().expect("set").len()
    };
    assert_eq!(lock(&mut c, "me", &[0, 1]), 2);
    // Full now.
    assert_refused(commit(&mut c, "G1", "Known", 5), 2, "max_group_offsets = 6");
    assert_refused(commit(&mut c, "G2", "Known", 0), 2, "max_group_offsets = 6");
    assert_eq!(lock(&mut c, "me", &[0, 1, 2]), 2, "renewed");
    assert_eq!(lock(&mut c, "other", &[7]), 0);
    for queue in 0..4 {
        assert_eq!(commit(&mut c, "G1", "Known", queue), ok());
    }
    // Made-up names keep nothing.
    assert_eq!(commit(&mut c, "G1", "Nothing", 0).0, 17);
    assert_eq!(commit(&mut c, "Nobody", "Known", 0).0, 26);
    assert_eq!(commit(&mut c, "G1", "Known", 99).0, 29);
    // A deleted topic takes its offsets and locks along.
    node.topic("Next", 1);
    assert_eq!(
        ask(&mut c, 215, &[("topic", "Known".to_owned())], b""),
        ok()
    );
    assert_eq!(commit(&mut c, "G2", "Next", 0), ok());
}

#[test]
fn a_connection_sends_so_many_delayed_messages_in_a_minute() {
    let cluster = Cluster::start(|c| c.connection_delayed_messages_per_minute = 2);
    cluster.nodes[0].topic("Known", 1);
    for (at, addr) in cluster.ports() {
        let mut c = Client::open(addr);
        assert_eq!(delay(&mut c, "Known"), ok(), "{at}");
        let level = send_ext("Known", 0, "DELAY\u{1}2\u{2}");
        assert_eq!(ask(&mut c, 310, &level, b"body"), ok(), "{at}");
        let setting = "connection_delayed_messages_per_minute = 2";
        assert_refused(delay(&mut c, "Known"), 1, setting);
        assert_refused(ask(&mut c, 310, &level, b"body"), 1, setting);
        // What is not delayed goes on, and so does another connection.
        assert_eq!(send(&mut c, "Known"), ok());
        assert_eq!(delay(&mut Client::open(addr), "Known"), ok());
    }
    until(&cluster.nodes[0], "refusals", |page| {
        let setting = "connection_delayed_messages_per_minute";
        quota(page, "refusals_total", setting) >= 4.0
    });
}

#[test]
fn a_connection_creates_so_many_in_a_minute_and_others_go_on() {
    let cluster = Cluster::start(|c| {
        c.connection_topics_per_minute = 2;
        c.connection_auto_topics_per_minute = 3;
        c.connection_groups_per_minute = 1;
        c.connection_auto_groups_per_minute = 3;
    });
    cluster.nodes[0].topic("Known", 1);
    for (at, addr) in cluster.ports() {
        let mut c = Client::open(addr);
        let name = |what: &str, n: usize| format!("{what}-{at}-{n}");
        for n in 0..3 {
            assert_eq!(send(&mut c, &name("A", n)), ok(), "{at}");
        }
        assert_refused(
            send(&mut c, &name("A", 3)),
            2,
            "connection_auto_topics_per_minute = 3",
        );
        assert_eq!(send(&mut c, &name("A", 0)), ok());
        for n in 0..2 {
            assert_eq!(create_topic(&mut c, &name("O", n)), ok(), "{at}");
        }
        assert_refused(
            create_topic(&mut c, &name("O", 2)),
            2,
            "connection_topics_per_minute = 2",
        );
        assert_eq!(create_topic(&mut c, &name("O", 0)), ok());
        let groups: Vec<String> = (0..6).map(|n| name("G", n)).collect();
        let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
        assert_eq!(create_group(&mut c, groups[0]), ok());
        assert_eq!(beat(&mut c, &groups), ok());
        let mut leader = cluster.client();
        let known: Vec<i64> = groups.iter().map(|g| members(&mut leader, g)).collect();
        assert_eq!(known, [0, 0, 0, 0, 1, 1], "{at}");
        let setting = "connection_auto_groups_per_minute = 3";
        assert_refused(beat(&mut c, &groups[4..]), 2, setting);
        assert_refused(
            create_group(&mut c, groups[4]),
            2,
            "connection_groups_per_minute = 1",
        );
        assert_refused(
            ask(&mut c, 11, &pull_ext(groups[4], "Known", 0, 0), b""),
            2,
            setting,
        );
        assert_eq!(beat(&mut c, &groups[..4]), ok());
        // Another connection has its own.
        let mut other = Client::open(addr);
        assert_eq!(send(&mut other, &name("A", 3)), ok());
        assert_eq!(create_topic(&mut other, &name("O", 2)), ok());
        assert_eq!(create_group(&mut other, groups[4]), ok());
    }
    let leader = &cluster.nodes[0];
    until(leader, "refusals", |page| {
        quota(page, "refusals_total", "connection_auto_topics_per_minute") == 2.0
            && quota(page, "refusals_total", "connection_topics_per_minute") == 2.0
            && quota(page, "refusals_total", "connection_auto_groups_per_minute") >= 10.0
            && quota(page, "refusals_total", "connection_groups_per_minute") == 2.0
    });
}

/// Each member decides by its own settings when it leads, and all hold the same.
#[test]
fn members_with_other_quotas_hold_the_same() {
    let cluster = Cluster::start(|c| {
        if c.node_id > 1 {
            c.max_topics = 1;
            c.auto_create_max_topics = 0;
            c.max_groups = 1;
            c.auto_create_max_groups = 0;
            c.max_delayed_messages = 1;
            c.max_group_offsets = 1;
            c.max_state_bytes = 16 << 20;
        }
    });
    let mut c = cluster.client();
    for n in 0..20 {
        let (topic, group) = (format!("T{n}"), format!("G{n}"));
        assert_eq!(send(&mut c, &topic), ok());
        assert_eq!(create_group(&mut c, &group), ok());
        assert_eq!(commit(&mut c, &group, &topic, 0), ok());
        assert_eq!(delay(&mut c, &topic), ok());
    }
    let [leader, follower] = [0, 2].map(|n| &cluster.nodes[n]);
    for name in [
        "max_topics",
        "max_groups",
        "max_delayed_messages",
        "max_group_offsets",
    ] {
        let all = used(&leader.metrics(), name);
        until(leader, name, |page| used(page, name) >= 20.0);
        until(follower, name, |page| used(page, name) >= all.max(20.0));
    }
    // More than a digest's worth of entries: a difference would be seen.
    for _ in 0..300 {
        assert_eq!(send(&mut c, "T0"), ok());
    }
    for node in &cluster.nodes {
        until(node, "digests", |page| {
            let line = page
                .lines()
                .find(|l| l.starts_with("troupe_state_differs{"));
            line.is_some_and(|l| l.ends_with(" 0"))
        });
    }
}

/// One connection asks for far more of everything than there may be, all at once.
#[test]
fn a_flood_over_one_connection_ends_at_the_quotas() {
    const FLOOD: i32 = 3_000;
    let node = Node::start(|c| {
        c.max_topics = 60;
        c.auto_create_max_topics = 50;
        c.max_groups = 40;
        c.auto_create_max_groups = 30;
        c.max_delayed_messages = 500;
        c.max_group_offsets = 100;
    });
    node.topic("Known", 64);
    // A queue takes memory from its first message on.
    assert_eq!(send(&mut node.client(), "Known"), ok());
    let limits = [
        ("max_topics", 60.0),
        ("max_groups", 40.0),
        ("max_delayed_messages", 500.0),
    ];
    let mut memory = Vec::new();
    for round in 0..2 {
        let mut c = node.client();
        let mut writer = c.stream.try_clone().expect("socket");
        let flood = std::thread::spawn(move || {
            use std::io::Write;
            let queue = |n: i32| (n % 64).to_string();
            for n in 0..FLOOD {
                let name = format!("{round}-{n}");
                let group = json!({"groupName": name}).to_string();
                let beat = json!({"clientID": name, "producerDataSet": [],
                    "consumerDataSet": [consumer(&name, "Known")]});
                let commit = [
                    ("consumerGroup", format!("{round}-{}", n % 40)),
                    ("topic", "Known".to_owned()),
                    ("queueId", queue(n)),
                    ("commitOffset", "0".to_owned()),
                ];
                let delayed = send_ext("Known", n % 64, "TIMER_DELAY_SEC\u{1}3600\u{2}");
                let all = [
                    request(310, n, 0, &send_ext(&format!("A{name}"), 0, ""), b"body"),
                    request(17, n, 0, &topic_ext(&format!("O{name}"), 4, 6), b""),
                    request(200, n, 0, &[], group.as_bytes()),
                    request(34, n, 0, &[], beat.to_string().as_bytes()),
                    request(310, n, 0, &delayed, b"body"),
                    request(15, n, 0, &commit, b""),
                ];
                writer.write_all(&all.concat()).expect("send");
            }
        });
        let mut codes = std::collections::BTreeMap::<i64, usize>::new();
        for _ in 0..6 * FLOOD {
            let head = loop {
                let (head, _) = c.read().expect("an answer");
                // Not what the node says by itself.
                if head["flag"] == 1 {
                    break head;
                }
            };
            *codes
                .entry(head["code"].as_i64().expect("code"))
                .or_default() += 1;
        }
        flood.join().expect("flood");
        let known = [0, 1, 2, 17, 26];
        assert!(codes.keys().all(|code| known.contains(code)), "{codes:?}");
        for (name, limit) in limits {
            until(&node, name, |page| used(page, name) == limit);
        }
        // Groups decide by what is applied: what is under way comes on top, and no more.
        let offsets = "max_group_offsets";
        until(&node, offsets, |page| used(page, offsets) >= 100.0);
        let held = used(&node.metrics(), offsets);
        assert!(held < 1_000.0, "{held} of 2,560 asked for");
        memory.push(used(&node.metrics(), "max_state_bytes"));
        assert_eq!(send(&mut node.client(), "Known"), ok());
    }
    assert_eq!(memory[0], memory[1], "the second one adds nothing");
}

/// A connection that may join no further group creates none by its heartbeat either.
#[test]
fn groups_that_a_connection_may_not_join_are_not_created() {
    let node = Node::start(|_| {});
    node.topic("Known", 1);
    let mut c = node.client();
    let names: Vec<String> = (0..1_003).map(|n| format!("G{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    assert_eq!(beat(&mut c, &names), ok());
    assert_refused(beat(&mut c, &["Another"]), 29, "1000 consumer groups");
    let exists = |c: &mut Client, group: &str| c.code(352, &[("group", group.to_owned())], b"");
    for (group, code) in [("G999", 0), ("G1000", 26), ("G1002", 26), ("Another", 26)] {
        assert_eq!(exists(&mut c, group), code, "{group}");
    }
}
