//! JSON bodies: what Java writes is read, and written again to the same bytes.

use crate::load::{file, vector};
use serde::de::DeserializeOwned;
use serde::Serialize;
use serde_json::Value;
use troupemq::wire::remoting::body::{self, *};

const FILE: &str = "remoting-json-bodies.json";

fn same_bytes<T: DeserializeOwned + Serialize>(name: &str) -> T {
    let v = vector(FILE, name);
    let value: T = body::decode(&v.bytes).unwrap_or_else(|e| panic!("{name}: {e}"));
    let ours = String::from_utf8(body::encode(&value)).unwrap();
    assert_eq!(ours.as_bytes(), &v.bytes[..], "{name}: {ours}");
    value
}

#[test]
fn heartbeats() {
    let v1: Heartbeat = same_bytes("heartbeat_v1_body");
    assert!(!v1.is_short());
    let group = &v1.consumer_data_set[0];
    let expected = SubscriptionData::tags("TopicTest", "TagA", 1_700_000_000_000);
    assert_eq!(Ok(&group.subscription_data_set[0]), expected.as_ref());
    let full: Heartbeat = same_bytes("heartbeat_v2_full_body");
    assert!(full.heartbeat_fingerprint != 0 && !full.is_short());
    let short: Heartbeat = same_bytes("heartbeat_v2_short_body");
    assert!(short.is_short());
    assert!(short.consumer_data_set[0].subscription_data_set.is_empty());
}

#[test]
fn routes() {
    let standard: TopicRouteData = same_bytes("route_standard_json");
    assert_eq!(standard.broker_datas[0].broker_addrs[&0], "127.0.0.1:10911");
    let dialect = vector(FILE, "route_java_default_encoding").bytes;
    assert_eq!(body::decode::<TopicRouteData>(&dialect), Ok(standard));
}

#[test]
fn locks_lists_and_checks() {
    let lock: LockRequest = same_bytes("lock_batch_mq_body");
    let answer: LockResponse = same_bytes("lock_batch_mq_response_body");
    assert_eq!(lock.mq_set, answer.lock_ok_mq_set);
    let ids: ConsumerIdList = same_bytes("consumer_list_response_body");
    assert_eq!(ids.consumer_id_list, ["c1", "c2"]);
    let check: heartbeat::CheckClientConfig = same_bytes("check_client_config_body");
    assert!(!check.subscription_data.is_tag_type());
}

#[test]
fn reset_offset_in_both_forms() {
    let java = vector(FILE, "reset_offset_body_java").bytes;
    let cpp = vector(FILE, "reset_offset_body_cpp").bytes;
    let table: ResetOffsetBody = body::decode(&java).unwrap();
    assert_eq!(table.offset_table.0.len(), 2);
    assert_eq!(table.encode(), java);
    assert_eq!(table.encode_for_cpp(), cpp);
    assert_eq!(body::decode::<ResetOffsetBody>(&cpp), Ok(table));
}

#[test]
fn register_broker_in_both_forms() {
    let file = file("admin-register-broker.json");
    let text = |key: &str| file[key].as_str().unwrap();
    let crc = |key: &str| file[key].as_i64().unwrap() as i32;
    let plain_bytes = text("plain_json").as_bytes();
    let plain = RegisterBrokerBody::parse(plain_bytes, crc("plain_bodyCrc32"), 513).unwrap();
    let topic = &plain.topic_config_serialize_wrapper.topic_config_table["TopicA"];
    assert_eq!((topic.read_queue_nums, topic.write_queue_nums), (8, 4));
    assert!(topic.order && topic.topic_sys_flag == 1);

    // Said to be uncompressed, as stock 5.x brokers do; the form is told by the bytes.
    let packed_bytes = hex::decode(text("compressed_hex")).unwrap();
    let packed =
        RegisterBrokerBody::parse(&packed_bytes, crc("compressed_bodyCrc32"), 513).unwrap();
    assert_eq!(packed.filter_server_list, plain.filter_server_list);
    let mut expected = plain.topic_config_serialize_wrapper.clone();
    let lost = expected.topic_config_table.get_mut("TopicA").unwrap();
    (lost.order, lost.topic_sys_flag) = (false, 0);
    expected.mapping_data_version = DataVersion::default();
    assert_eq!(packed.topic_config_serialize_wrapper, expected);

    let wrong = RegisterBrokerBody::parse(&packed_bytes, 1, 513);
    assert_eq!(wrong, Err(BodyError::Crc));
    // Reading what we write gives the same again.
    let ours = body::encode(&plain);
    assert_eq!(RegisterBrokerBody::parse(&ours, 0, 513), Ok(plain));
}

/// Decodes `input` as `T` and writes it with `write`: equal, as JSON, to what Java 5.5.0 wrote.
fn shape<T: DeserializeOwned>(case: &Value, write: impl Fn(&T) -> Vec<u8>) {
    let input = case["input"].as_str().unwrap();
    let value: T = body::decode(input.as_bytes()).unwrap_or_else(|e| panic!("{input}: {e}"));
    let Some(java) = case["reencoded_by_5.5.0"].as_str() else {
        return;
    };
    let ours = write(&value);
    let standard = |bytes: &[u8]| -> Value {
        serde_json::from_slice(&dialect::to_standard(bytes).unwrap()).unwrap()
    };
    let (ours, java) = (standard(&ours), standard(java.as_bytes()));
    // We may write more keys than Java (defaults it leaves out), never other values.
    for (key, value) in java.as_object().unwrap() {
        assert_eq!(&ours[key], value, "{input}: {key}");
    }
}

#[test]
fn admin_json_shapes() {
    let file = file("admin-json-shapes.json");
    let mut seen = 0;
    for case in file["cases"].as_array().unwrap() {
        let class = case["class"].as_str().unwrap();
        seen += 1;
        match class {
            "TopicStatsTable" => shape(case, TopicStatsTable::encode),
            "ConsumeStats" => shape(case, ConsumeStats::encode),
            "ResetOffsetBody" => shape(case, ResetOffsetBody::encode),
            "ClusterInfo" => shape(case, body::encode::<ClusterInfo>),
            "RouteData" => shape(case, body::encode::<TopicRouteData>),
            "BrokerMemberGroup" => shape(case, body::encode::<BrokerMemberGroup>),
            "GetBrokerMemberGroupResponseBody" => {
                shape(case, body::encode::<cluster::MemberGroupBody>)
            }
            "SubscriptionGroupWrapper" => shape(case, body::encode::<SubscriptionGroupWrapper>),
            "TopicConfigSerializeWrapper" => shape(case, body::encode::<TopicConfigWrapper>),
            "KVTable" => shape(case, body::encode::<KvTable>),
            "TopicList" => shape(case, body::encode::<TopicList>),
            "GroupList" => shape(case, body::encode::<GroupList>),
            "ProducerTableInfo" => shape(case, body::encode::<connection::ProducerTableInfo>),
            "ConsumerConnection" => {
                let input = case["input"].as_str().unwrap();
                body::decode::<ConsumerConnection>(input.as_bytes()).unwrap();
            }
            _ => seen -= 1,
        }
    }
    assert!(seen >= 28, "{seen} shapes");
}

#[test]
fn what_we_write_has_the_form_every_tool_accepts() {
    let queue = |id| MessageQueue {
        broker_name: "b".into(),
        queue_id: id,
        topic: "T".into(),
    };
    let stats = ConsumeStats {
        consume_tps: 1.5,
        offset_table: [(queue(3), OffsetWrapper::default())].into_iter().collect(),
    };
    assert_eq!(
        String::from_utf8(stats.encode()).unwrap(),
        r#"{"consumeTps":1.5,"offsetTable":{{"brokerName":"b","queueId":3,"topic":"T"}:{"brokerOffset":0,"consumerOffset":0,"lastTimestamp":0,"pullOffset":0}}}"#
    );
    assert_eq!(
        TopicStatsTable {
            topic_put_tps: f64::NAN,
            ..Default::default()
        }
        .encode(),
        br#"{"offsetTable":{},"topicPutTps":0.0}"#
    );
}
