//! Attributes of topics and groups.

use super::harness::topic_ext;
use super::node;
use serde_json::{json, Value};

#[test]
fn attributes_are_refused_in_every_request() {
    let node = node();
    let mut c = node.client();
    let mut topic = |name: &str, text: &str| {
        let mut ext = topic_ext(name, 1, 6);
        ext.push(("attributes", text.to_owned()));
        let (head, _) = c.call(17, &ext, b"");
        (
            head["code"].as_i64(),
            head["remark"].as_str().unwrap_or("").to_owned(),
        )
    };
    let refused = |code, remark: &str| (Some(code), remark.to_owned());
    for (text, answer) in [
        ("+nosuch=1", refused(1, "unsupported key: nosuch")),
        (
            "+queue.type=BatchCQ",
            refused(1, "the attribute queue.type=BatchCQ is not supported yet"),
        ),
        (
            "+message.type=MIXED",
            refused(29, "MIXED message type is not supported."),
        ),
    ] {
        assert_eq!(topic("AgainAttr", text), answer, "{text}");
    }
    assert_eq!(topic("AgainAttr", "+message.type=FIFO").0, Some(0));
    assert_eq!(topic("AgainAttr", "").0, Some(0));
    let mut c = node.client();
    let config = |name: &str, attributes: Value| {
        json!({"topicName": name, "readQueueNums": 1, "writeQueueNums": 1, "perm": 6,
               "topicFilterType": "SINGLE_TAG", "attributes": attributes})
    };
    let mut list = |configs: Value| {
        let body = json!({ "topicConfigList": configs }).to_string();
        c.code(18, &[], body.as_bytes())
    };
    let bad = config("AgainAttrC", json!({"+nosuch": "1"}));
    assert_eq!(list(json!([config("AgainAttrB", json!({})), bad])), 1);
    assert_eq!(
        list(json!([config(
            "AgainAttrD",
            json!({"+message.type": "DELAY"})
        )])),
        0
    );
    // What was read may be sent back, and what is not named stays.
    assert_eq!(
        list(json!([config(
            "AgainAttrD",
            json!({"message.type": "DELAY"})
        )])),
        0
    );
    assert_eq!(list(json!([config("AgainAttrD", json!({}))])), 0);
    let mut c = node.client();
    let mut get = |code: i32, field: &'static str, name: &str| {
        let (head, body) = c.call(code, &[(field, name.to_owned())], b"");
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        (head["code"].as_i64(), body["attributes"].clone())
    };
    assert_eq!(
        get(351, "topic", "AgainAttr"),
        (Some(0), json!({"message.type": "FIFO"}))
    );
    assert_eq!(
        get(351, "topic", "AgainAttrD"),
        (Some(0), json!({"message.type": "DELAY"}))
    );
    assert_eq!(
        get(351, "topic", "AgainAttrB").0,
        Some(17),
        "one is bad, none is created"
    );
    let mut c = node.client();
    let mut group = |code: i32, body: Value| {
        let (head, _) = c.call(code, &[], body.to_string().as_bytes());
        head["code"].as_i64()
    };
    let with = |attributes: Value| json!({"groupName": "AgainAttrG", "attributes": attributes});
    assert_eq!(group(200, with(json!({"+nosuch": "1"}))), Some(1));
    assert_eq!(group(200, with(json!({"+priority.factor": "50"}))), Some(1));
    assert_eq!(
        group(
            225,
            json!({"groupConfigList": [with(json!({"+nosuch": "1"}))]})
        ),
        Some(1)
    );
    assert_eq!(
        group(200, with(json!({"+priority.factor": "100"}))),
        Some(0)
    );
    assert_eq!(group(200, with(json!({}))), Some(0));
}
