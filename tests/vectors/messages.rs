//! Records, batches, ids, properties, tag codes and checksums.

use crate::load::{vector, vectors};
use bytes::BytesMut;
use std::net::SocketAddr;
use troupemq::model::record as layout;
use troupemq::wire::message::record::{records, BadRecord, RecordInput, RecordView};
use troupemq::wire::message::tags::{split_tags, tag_code, TagFilter};
use troupemq::wire::message::{batch, crc, ids, properties};

#[test]
fn records_decode_and_encode_to_the_same_bytes() {
    for v in vectors("remoting-records.json", 11) {
        let view = RecordView::parse(&v.bytes).unwrap_or_else(|e| panic!("{}: {e}", v.name));
        let input = &v.json["input"];
        for (field, value) in [
            ("queueId", i64::from(view.queue_id())),
            ("flag", i64::from(view.flag())),
            ("queueOffset", view.queue_offset()),
            ("physicalOffset", view.phys_offset()),
            ("sysFlag", i64::from(view.sys_flag())),
            ("bornTimestamp", view.born_ts()),
            ("storeTimestamp", view.store_ts()),
            ("reconsumeTimes", i64::from(view.reconsume_times())),
            ("preparedTransactionOffset", view.prepared_txn_offset()),
        ] {
            if let Some(expected) = input[field].as_i64() {
                assert_eq!(value, expected, "{} {field}", v.name);
            }
        }
        if let Some(topic) = input["topic"].as_str() {
            assert_eq!(view.topic(), topic);
            assert_eq!(view.is_v2(), topic.len() > 127);
        }
        for (field, host) in [
            ("bornHost", view.born_host()),
            ("storeHost", view.store_host()),
        ] {
            if let Some(expected) = input[field].as_str() {
                assert_eq!(host, expected.parse::<SocketAddr>().unwrap(), "{}", v.name);
            }
        }
        if let Some(expected) = input["properties"].as_object() {
            assert_eq!(properties::iter(view.properties()).count(), expected.len());
            for (name, value) in expected {
                assert_eq!(view.property(name), value.as_str(), "{} {name}", v.name);
            }
        }
        let mut out = BytesMut::new();
        assert_eq!(view.to_input().encode(&mut out), Ok(v.bytes.len()));
        assert_eq!(hex::encode(&out), hex::encode(&v.bytes), "{}", v.name);
        assert_eq!(view.to_input().encoded_len(), v.bytes.len());
    }
}

#[test]
fn a_record_patched_late_is_the_record_encoded_at_once() {
    for v in vectors("remoting-records.json", 11) {
        let view = RecordView::parse(&v.bytes).unwrap();
        let unassigned = RecordInput {
            queue_offset: 0,
            phys_offset: 0,
            store_ts: 0,
            ..view.to_input()
        };
        let mut out = BytesMut::new();
        unassigned.encode(&mut out).unwrap();
        let (q, p, t) = (view.queue_offset(), view.phys_offset(), view.store_ts());
        layout::patch(&mut out, q, p, t).unwrap();
        assert_eq!(out, v.bytes, "{}", v.name);
    }
}

#[test]
fn damaged_records_are_refused() {
    for v in vectors("remoting-records.json", 11) {
        for cut in 0..v.bytes.len() {
            assert!(
                RecordView::parse(&v.bytes[..cut]).is_err(),
                "{} {cut}",
                v.name
            );
        }
        let view = RecordView::parse(&v.bytes).unwrap();
        let body_at = view.body().as_ptr() as usize - v.bytes.as_ptr() as usize;
        let mut bad = v.bytes.to_vec();
        bad[body_at] ^= 1;
        assert_eq!(RecordView::parse(&bad).unwrap_err(), BadRecord::Crc);
        assert!(RecordView::parse_unverified(&bad).is_ok());
        let mut bad = v.bytes.to_vec();
        bad[7] = 0;
        assert!(matches!(RecordView::parse(&bad), Err(BadRecord::Magic(_))));
        for at in [0, body_at - 4] {
            for value in [i32::MIN, -1, i32::MAX] {
                let mut bad = v.bytes.to_vec();
                bad[at..at + 4].copy_from_slice(&value.to_be_bytes());
                assert_eq!(RecordView::parse(&bad).unwrap_err(), BadRecord::Length);
            }
        }
    }
}

#[test]
fn a_batch_expands_to_the_records_a_broker_stores() {
    let body = vector("remoting-batch.json", "batch_request_body").bytes;
    let entries = batch::parse(&body, &Default::default()).unwrap();
    let mut again = BytesMut::new();
    let mut stored = BytesMut::new();
    let mut msg_ids = Vec::new();
    let store_host: SocketAddr = "127.0.0.1:10911".parse().unwrap();
    for (i, entry) in entries.iter().enumerate() {
        batch::put_entry(&mut again, entry).unwrap();
        let phys_offset = 16384 + stored.len() as i64;
        msg_ids.push(ids::offset_msg_id(store_host, phys_offset));
        RecordInput {
            topic: "TopicTest",
            body: entry.body,
            queue_id: 3,
            flag: entry.flag,
            queue_offset: 50 + i as i64,
            phys_offset,
            sys_flag: 0,
            born_ts: 1_700_000_000_000,
            born_host: "192.168.1.10:51234".parse().unwrap(),
            store_ts: 1_700_000_000_123,
            store_host,
            reconsume_times: 0,
            prepared_txn_offset: 0,
            properties: entry.properties,
        }
        .encode(&mut stored)
        .unwrap();
    }
    assert_eq!(again, body);
    let expected = vector("remoting-batch.json", "batch_expanded_records").bytes;
    assert_eq!(hex::encode(&stored), hex::encode(&expected));
    let offsets: Vec<_> = records(&stored)
        .map(|r| r.unwrap().queue_offset())
        .collect();
    assert_eq!(offsets, [50, 51]);
    let joined = vector("remoting-batch.json", "batch_response_offset_msg_ids");
    assert_eq!(
        Some(msg_ids.join(",").as_str()),
        joined.json["text"].as_str()
    );
}

#[test]
fn offset_ids() {
    for name in ["offset_msg_id_ipv4", "offset_msg_id_ipv6"] {
        let v = vector("remoting-ids.json", name);
        let host: SocketAddr = v.json["input"]["storeHost"]
            .as_str()
            .unwrap()
            .parse()
            .unwrap();
        let offset = v.json["input"]["physicalOffset"].as_i64().unwrap();
        let text = v.json["text"].as_str().unwrap();
        assert_eq!(ids::offset_msg_id(host, offset), text);
        assert_eq!(ids::parse_offset_msg_id(text), Some((host, offset)));
        assert_eq!(
            ids::parse_offset_msg_id(&text.to_lowercase()),
            Some((host, offset))
        );
    }
}

#[test]
fn property_text() {
    let v = vector("remoting-properties.json", "properties_encode");
    let pairs = v.json["input"].as_object().unwrap();
    let pairs = pairs.iter().map(|(k, v)| (k.as_str(), v.as_str().unwrap()));
    assert_eq!(properties::encode(pairs), v.bytes);
    for v in vectors("remoting-properties.json", 9) {
        let Some(expected) = v.json["expected"].as_object() else {
            continue;
        };
        let got: std::collections::BTreeMap<_, _> = properties::iter(&v.bytes).collect();
        assert_eq!(got.len(), expected.len(), "{}", v.name);
        for (name, value) in expected {
            assert_eq!(
                got.get(name.as_str()).copied(),
                value.as_str(),
                "{}",
                v.name
            );
            assert_eq!(
                properties::get(&v.bytes, name),
                value.as_str(),
                "{}",
                v.name
            );
        }
    }
}

#[test]
fn hashes() {
    let mut seen = 0;
    for v in vectors("remoting-hashes.json", 17) {
        let input = &v.json["input"];
        let expected = &v.json["expected"];
        if v.name.starts_with("tag_hash") {
            seen += 1;
            let code = i64::from(tag_code(input.as_str().unwrap()));
            assert_eq!(Some(code), expected.as_i64(), "{}", v.name);
        } else if v.name.starts_with("body_crc") {
            seen += 1;
            let crc = i64::from(crc::body_crc(&v.bytes));
            assert_eq!(Some(crc), expected["bodyCRC"].as_i64(), "{}", v.name);
        } else if v.name == "subscription_tags" {
            seen += 1;
            let text = input["subString"].as_str().unwrap();
            let tags: Vec<_> = split_tags(text).collect();
            assert_eq!(serde_json::json!(tags), expected["tagsSet"]);
            let codes = expected["codeSet"].as_array().unwrap();
            let codes = codes.iter().map(|c| c.as_i64().unwrap() as i32);
            assert_eq!(TagFilter::parse(text), Ok(TagFilter::from_codes(codes)));
        }
    }
    assert_eq!(seen, 16);
}
