//! What tools and dashboards ask about traffic and groups: 315, 317, 343, 345, the rates in 202 and 208, and the
//! housekeeping of stock brokers.

#[allow(dead_code)]
#[path = "gateway/harness.rs"]
mod harness;

use harness::{pull_ext, send_ext, with, Client, Node};
use serde_json::Value;

const TOPIC_STATS: i32 = 202;
const CONSUME_STATS: i32 = 208;
const STATS_DATA: i32 = 315;
const ALL_CONSUME_STATS: i32 = 317;

fn fields<const N: usize>(pairs: [(&'static str, &str); N]) -> Vec<(&'static str, String)> {
    pairs.into_iter().map(|(k, v)| (k, v.to_owned())).collect()
}

fn body(client: &mut Client, code: i32, ext: &[(&str, String)]) -> Value {
    let (head, body) = client.call(code, ext, b"");
    assert_eq!(head["code"], 0, "{code}: {head}");
    serde_json::from_slice(&body).expect("JSON")
}

/// `sum` over the last minute; `None` for a figure that does not exist.
fn in_a_minute(client: &mut Client, name: &str, key: &str) -> Option<u64> {
    let ext = fields([("statsName", name), ("statsKey", key)]);
    let (head, body) = client.call(STATS_DATA, &ext, b"");
    if head["code"] == 1 {
        let remark = head["remark"].as_str().expect("remark");
        assert!(remark.contains("not exist"), "{remark}");
        return None;
    }
    let json: Value = serde_json::from_slice(&body).expect("JSON");
    for window in ["statsHour", "statsDay"] {
        assert_eq!(json[window]["sum"], json["statsMinute"]["sum"], "{json}");
    }
    assert!(json["statsMinute"]["tps"].as_f64().expect("tps") > 0.0);
    json["statsMinute"]["sum"].as_u64()
}

/// Five messages of ten bytes, three of them consumed and committed by `G`.
fn five_of_which_three(node: &Node, client: &mut Client) {
    node.topic("T", 1);
    for _ in 0..5 {
        let (head, _) = client.call(310, &send_ext("T", 0, ""), b"ten bytes.");
        assert_eq!(head["code"], 0, "{head}");
    }
    let pull = with(pull_ext("G", "T", 0, 0), "maxMsgNums", 3);
    assert_eq!(client.code(11, &pull, b""), 0);
    let commit = fields([
        ("consumerGroup", "G"),
        ("topic", "T"),
        ("queueId", "0"),
        ("commitOffset", "3"),
    ]);
    assert_eq!(client.code(15, &commit, b""), 0);
}

#[test]
fn what_went_through_topics_and_groups_is_told() {
    let node = Node::start(|_| {});
    let mut client = node.client();
    five_of_which_three(&node, &mut client);
    assert_eq!(in_a_minute(&mut client, "TOPIC_PUT_NUMS", "T"), Some(5));
    assert_eq!(in_a_minute(&mut client, "TOPIC_PUT_SIZE", "T"), Some(50));
    assert_eq!(in_a_minute(&mut client, "GROUP_GET_NUMS", "T@G"), Some(3));
    for (name, key) in [
        ("TOPIC_PUT_NUMS", "nothing"),
        ("GROUP_GET_NUMS", "T@nobody"),
        ("GROUP_GET_NUMS", "T"),
        ("NO_SUCH_FIGURE", "T"),
    ] {
        assert_eq!(in_a_minute(&mut client, name, key), None, "{name} {key}");
    }
    let text = |client: &mut Client, code, ext: &[(&str, String)]| {
        let (head, body) = client.call(code, ext, b"");
        assert_eq!(head["code"], 0, "{head}");
        String::from_utf8(body).expect("text")
    };
    let topic = text(&mut client, TOPIC_STATS, &fields([("topic", "T")]));
    assert!(!topic.contains("\"topicPutTps\":0.0"), "{topic}");
    let group = text(
        &mut client,
        CONSUME_STATS,
        &fields([("consumerGroup", "G")]),
    );
    assert!(!group.contains("\"consumeTps\":0.0"), "{group}");
}

#[test]
fn the_progress_of_every_group_is_told_at_once() {
    let node = Node::start(|_| {});
    let mut client = node.client();
    five_of_which_three(&node, &mut client);
    let (head, answer) = client.call(ALL_CONSUME_STATS, &fields([("isOrder", "false")]), b"");
    assert_eq!(head["code"], 0, "{head}");
    let text = String::from_utf8(answer).expect("text");
    let broker = format!("\"brokerAddr\":\"{}\"", node.broker);
    let queue = r#"{"brokerName":"broker-a","queueId":0,"topic":"T"}:{"brokerOffset":5,"consumerOffset":3,"#;
    for part in [&broker, "\"totalDiff\":2", "[{\"G\":[{", queue] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let (_, ordered) = client.call(ALL_CONSUME_STATS, &fields([("isOrder", "true")]), b"");
    let ordered: Value = serde_json::from_slice(&ordered).expect("JSON");
    assert_eq!(ordered["consumeStatsList"], Value::Array(vec![]));
    assert_eq!(ordered["totalDiff"], 0);
}

#[test]
fn topics_and_subscriptions_of_a_group() {
    let node = Node::start(|_| {});
    let mut client = node.client();
    five_of_which_three(&node, &mut client);
    let topics = body(&mut client, 343, &fields([("group", "G")]));
    assert_eq!(topics["topicList"], serde_json::json!(["T"]));
    let none = body(&mut client, 343, &fields([("group", "nobody")]));
    assert_eq!(none["topicList"], serde_json::json!([]));

    let asked = fields([("group", "G"), ("topic", "T")]);
    assert_eq!(
        body(&mut client, 345, &asked)["subscriptionData"],
        Value::Null
    );
    let beat = r#"{"clientID":"c","producerDataSet":[],"consumerDataSet":[{"groupName":"G",
        "consumeType":"CONSUME_PASSIVELY","messageModel":"CLUSTERING","consumeFromWhere":"CONSUME_FROM_FIRST_OFFSET",
        "subscriptionDataSet":[{"topic":"T","subString":"A || B","tagsSet":["A","B"],"codeSet":[65,66],"subVersion":1}]}]}"#;
    assert_eq!(client.code(34, &[], beat.as_bytes()), 0);
    let told = body(&mut client, 345, &asked);
    assert_eq!((&told["group"], &told["topic"]), (&"G".into(), &"T".into()));
    assert_eq!(told["subscriptionData"]["subString"], "A || B");
}

/// Scripts of operators run these on every broker.
#[test]
fn housekeeping_has_nothing_to_do() {
    let node = Node::start(|_| {});
    let mut client = node.client();
    for code in [306, 316, 329] {
        assert_eq!(client.code(code, &[], b""), 0, "{code}");
    }
}
