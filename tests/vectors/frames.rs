//! Frames and headers: captured from clients, and made by Java's codec.

use crate::load::{command, raw_frame, vector, vectors};
use bytes::BytesMut;
use serde_json::Value;
use troupemq::wire::message::{batch, properties};
use troupemq::wire::remoting::body::{Heartbeat, LockRequest};
use troupemq::wire::remoting::code::{request, response};
use troupemq::wire::remoting::requests::*;
use troupemq::wire::remoting::*;

fn text(value: &Value) -> String {
    match value {
        Value::String(s) => s.clone(),
        other => other.to_string(),
    }
}

#[test]
fn captured_client_frames_decode_to_what_the_capture_says() {
    let mut seen = 0;
    for v in vectors("remoting-client-frames.json", 40) {
        let header = &v.json["input"]["header"];
        if !header.is_object() {
            continue;
        }
        seen += 1;
        let cmd = command(&v.bytes);
        assert_eq!(
            i64::from(cmd.code),
            header["code"].as_i64().unwrap(),
            "{}",
            v.name
        );
        assert_eq!(i64::from(cmd.opaque), header["opaque"].as_i64().unwrap());
        assert_eq!(i64::from(cmd.flag), header["flag"].as_i64().unwrap());
        assert_eq!(i64::from(cmd.version), header["version"].as_i64().unwrap());
        assert_eq!(cmd.language.name(), header["language"].as_str().unwrap());
        let fields = header["extFields"].as_object();
        assert_eq!(cmd.ext.len(), fields.map_or(0, |f| f.len()), "{}", v.name);
        for (key, value) in fields.into_iter().flatten() {
            assert_eq!(cmd.ext(key), Some(text(value).as_str()), "{} {key}", v.name);
        }
        let body = v.json["input"]["bodyHex"].as_str().unwrap_or("");
        if !body.is_empty() {
            assert_eq!(hex::encode(&cmd.body), body, "{}", v.name);
        }
        typed(&cmd, &v.name);
    }
    assert!(seen >= 38, "{seen} captured frames");
}

/// Every captured request parses with its typed view.
fn typed(cmd: &Command, name: &str) {
    let ok = match (cmd.is_response(), cmd.code) {
        (true, _) => true,
        (_, 10 | 310 | 320 | 324 | 325) => {
            let send = SendRequest::parse(cmd).unwrap();
            properties::check(send.properties.as_bytes(), properties::MAX_SENT).unwrap();
            assert_eq!(send.batch, cmd.code == 320, "{name}");
            if send.batch {
                let entries = batch::parse(&cmd.body, &Default::default()).unwrap();
                assert_eq!(entries.len(), 3, "{name}");
                for e in &entries {
                    assert_eq!(properties::get(e.properties, "TAGS"), Some("TagB"));
                }
            }
            !send.topic.is_empty() && !send.producer_group.is_empty()
        }
        (_, 11) => PullRequest::parse(cmd).is_ok_and(|p| p.may_suspend() && p.is_tag_type()),
        (_, 14) => QueryConsumerOffset::parse(cmd).is_ok(),
        (_, 15) => UpdateConsumerOffset::parse(cmd).is_ok_and(|u| u.commit_offset >= 2),
        (_, 34) => {
            let beat = Heartbeat::parse(&cmd.body).unwrap();
            let group = &beat.consumer_data_set[0];
            group.subscription_data_set.iter().all(|s| {
                s.sub_version > 1_700_000_000_000
                    && s.tags_set.len() == s.code_set.len()
                    && s.tag_filter().is_ok()
            })
        }
        (_, 36) => SendBack::parse(cmd).is_ok_and(|s| s.max_reconsume_times == Some(16)),
        (_, 37) => EndTransaction::parse(cmd).is_ok_and(|e| e.commit_or_rollback == 8),
        (_, 38) => ConsumerList::parse(cmd).is_ok(),
        (_, 41) => body::decode::<LockRequest>(&cmd.body).is_ok_and(|l| l.mq_set.len() == 1),
        (_, 105) => TopicRequest::parse(cmd).is_ok(),
        _ => true,
    };
    assert!(ok, "{name}");
}

#[test]
fn cpp_shapes() {
    let cmd = command(&vector("remoting-client-frames.json", "constructed_cpp_send_v2").bytes);
    assert_eq!((cmd.language, cmd.version), (Language::CPP, 333));
    let send = SendRequest::parse(&cmd).unwrap();
    assert_eq!((send.queue_id, send.default_topic_queue_nums), (2, 4));
    assert_eq!(send.max_reconsume_times, Some(0));
    assert_eq!(&cmd.body[..], b"hello");

    let body = vector(
        "remoting-client-frames.json",
        "constructed_cpp_heartbeat_body",
    )
    .bytes;
    let beat = Heartbeat::parse(&body).unwrap();
    let group = &beat.consumer_data_set[0];
    assert_eq!(group.consume_type, body::ConsumeType::Passively);
    assert_eq!(group.message_model, body::MessageModel::Clustering);
    assert_eq!(group.consume_from_where, body::ConsumeFromWhere::LastOffset);
    assert_eq!(
        group.subscription_data_set[0].sub_version,
        1_700_000_000_000
    );
}

/// Captured from the C++ client 2.0 in the Python wheel: what is no batch has `batch` 0.
#[test]
fn a_cpp_batch_is_flagged_with_a_number() {
    for (batch, expected) in [("1", true), ("0", false), ("true", true), ("false", false)] {
        let header = format!(
            r#"{{"code":10,"extFields":{{"AccessKey":"","OnsChannel":"ALIYUN","Signature":"OqhwdvnG9EjPE8AJHPYeqo0sheE=","batch":"{batch}","bornTimestamp":"1796046842705","defaultTopic":"TBW102","defaultTopicQueueNums":4,"flag":0,"producerGroup":"PG","properties":"WAIT\u0001true\u0002","queueId":0,"reconsumeTimes":"0","sysFlag":0,"topic":"T","unitMode":"0"}},"flag":0,"language":"CPP","opaque":17,"remark":"","version":63}}"#
        );
        let mut bytes = Vec::new();
        bytes.extend((header.len() as u32 + 4).to_be_bytes());
        bytes.extend((header.len() as u32).to_be_bytes());
        bytes.extend(header.as_bytes());
        let cmd = command(&bytes);
        let send = SendRequest::parse(&cmd).unwrap();
        assert_eq!(send.batch, expected, "{batch}");
        assert_eq!((send.topic, send.unit_mode), ("T", false));
    }
}

#[test]
fn java_frames_decode_alike_in_both_forms() {
    let json = command(&vector("remoting-frames.json", "json_request_send_v2").bytes);
    let binary = command(&vector("remoting-frames.json", "binary_request_send_v2").bytes);
    let v1 = command(&vector("remoting-frames.json", "json_request_send_v1").bytes);
    let expected = SendRequest::parse(&json).unwrap();
    assert_eq!(expected.topic, "TopicTest");
    assert_eq!(expected.broker_name, Some("broker-a"));
    assert_eq!(expected.born_timestamp, 1_700_000_000_000);
    assert_eq!(
        properties::get(expected.properties.as_bytes(), "UNIQ_KEY"),
        Some("7F00000100012A139A5500000000ABCD")
    );
    assert_eq!(SendRequest::parse(&binary).unwrap(), expected);
    assert_eq!(SendRequest::parse(&v1).unwrap(), expected);
    assert_eq!(binary.format, HeaderFormat::Binary);

    for name in [
        "json_response_topic_not_exist_utf8_remark",
        "binary_response_topic_not_exist_utf8_remark",
    ] {
        let cmd = command(&vector("remoting-frames.json", name).bytes);
        assert!(cmd.is_response());
        assert_eq!((cmd.code, cmd.opaque), (response::TOPIC_NOT_EXIST, 77));
        assert_eq!(cmd.remark.as_deref(), Some("no route 主题"));
    }
    let pop = command(&vector("remoting-frames.json", "binary_request_pop_code_truncated").bytes);
    assert_eq!(pop.code, request::POP_MESSAGE);
    let oneway = command(&vector("remoting-frames.json", "json_oneway_update_offset").bytes);
    assert!(oneway.is_oneway() && !oneway.is_response());
    let pull = command(&vector("remoting-frames.json", "binary_request_pull").bytes);
    let pull = PullRequest::parse(&pull).unwrap();
    assert!(pull.commits_offset() && pull.may_suspend() && !pull.has_subscription());
    assert_eq!((pull.queue_offset, pull.commit_offset), (100, Some(99)));
}

#[test]
fn binary_requests_encode_to_javas_bytes() {
    for name in ["binary_request_send_v2", "binary_request_pull"] {
        let v = vector("remoting-frames.json", name);
        let cmd = command(&v.bytes);
        let ext: Vec<_> = cmd.ext.iter().map(|(k, v)| (k, Val::Str(v))).collect();
        let header = RequestHeader {
            code: cmd.code,
            opaque: cmd.opaque,
            oneway: cmd.is_oneway(),
            remark: None,
            ext: &ext,
        };
        let mut out = BytesMut::new();
        encode_request(&mut out, HeaderFormat::Binary, &header, &[&cmd.body]);
        assert_eq!(hex::encode(&out), hex::encode(&v.bytes), "{name}");
    }
    let pop = vector("remoting-frames.json", "binary_request_pop_code_truncated");
    let mut out = BytesMut::new();
    let header = RequestHeader {
        code: request::POP_MESSAGE,
        opaque: 11,
        oneway: false,
        remark: None,
        ext: &[],
    };
    encode_request(&mut out, HeaderFormat::Binary, &header, &[]);
    assert_eq!(hex::encode(&out), hex::encode(&pop.bytes));
}

/// Code, flag, opaque, version and the fields of two responses, in any key order.
fn same_response(ours: &Command, javas: &Command) {
    assert_eq!(ours.code, javas.code);
    assert_eq!(ours.opaque, javas.opaque);
    assert_eq!(ours.flag, javas.flag);
    assert_eq!(ours.version, javas.version);
    assert_eq!(ours.language, javas.language);
    assert_eq!(ours.remark, javas.remark);
    for (key, value) in ours.ext.iter() {
        assert_eq!(javas.ext(key), Some(value), "{key}");
    }
}

#[test]
fn responses_say_what_javas_say() {
    let java = command(&vector("remoting-frames.json", "json_response_send_ok").bytes);
    let mut out = BytesMut::new();
    let reply = SendReply {
        msg_id: "7F00000100002A9F0000000000000400",
        queue_id: 2,
        queue_offset: 1001,
        transaction_id: Some("7F00000100012A139A5500000000ABCD"),
        recall_handle: None,
        region: "DefaultRegion",
        trace_on: true,
    };
    encode_send_response(&mut out, 0, 2, None, &reply);
    let ours = command(&out);
    same_response(&ours, &java);
    assert_eq!(ours.ext.len(), java.ext.len());

    let java = command(&vector("remoting-frames.json", "json_response_pull_not_found").bytes);
    let mut out = BytesMut::new();
    let reply = PullReply {
        suggest_which_broker_id: 0,
        next_begin_offset: 132,
        min_offset: 0,
        max_offset: 500,
    };
    let remark = Some("OFFSET_OVERFLOW_ONE");
    encode_pull_response(&mut out, 19, java.opaque, remark, &reply, &[]);
    same_response(&command(&out), &java);

    let name = "json_response_topic_not_exist_utf8_remark";
    let java = command(&vector("remoting-frames.json", name).bytes);
    let mut out = BytesMut::new();
    let header = ResponseHeader {
        code: 17,
        opaque: 77,
        remark: Some("no route 主题"),
        ext: &[],
    };
    encode_response(&mut out, &header, &[]);
    same_response(&command(&out), &java);
    let text = String::from_utf8_lossy(&raw_frame(&out).unwrap().header).into_owned();
    assert!(!text.contains("extFields"), "{text}");
}

#[test]
fn signed_frames_keep_every_field_as_received() {
    for v in vectors("remoting-acl.json", 5) {
        let cmd = command(&v.bytes);
        let fields = v.json["sortedFields"].as_object().unwrap();
        let mut content = String::new();
        let mut names: Vec<_> = fields.keys().collect();
        names.sort_unstable();
        for name in names {
            let value = cmd.ext(name).unwrap_or_else(|| panic!("{} {name}", v.name));
            assert_eq!(Some(value), fields[name].as_str());
            content.push_str(value);
        }
        let signed = [content.as_bytes(), &cmd.body].concat();
        assert_eq!(
            hex::encode(signed),
            v.json["signedContentHex"].as_str().unwrap()
        );
        assert_eq!(cmd.ext("Signature"), v.json["signature"].as_str());
    }
}
