//! JSON bodies that the client reads.

use serde::de::DeserializeOwned;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// Route of a topic (answer to 105). Fields that are not listed are ignored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Route {
    /// The brokers.
    pub broker_datas: Vec<BrokerData>,
    /// The queues on each broker.
    pub queue_datas: Vec<QueueData>,
}

/// One broker name and its addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BrokerData {
    /// Broker name.
    pub broker_name: String,
    /// Cluster name.
    pub cluster: String,
    /// Addresses by broker id; id 0 takes writes.
    pub broker_addrs: BTreeMap<i64, String>,
}

/// Queues of a topic on one broker name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct QueueData {
    /// Broker name.
    pub broker_name: String,
    /// Queues 0 to this number can be read.
    pub read_queue_nums: i32,
    /// Queues 0 to this number can be written.
    pub write_queue_nums: i32,
    /// 2 = write, 4 = read.
    pub perm: i32,
}

/// Clusters and brokers (answer to 106).
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterInfo {
    /// Brokers by name.
    pub broker_addr_table: BTreeMap<String, BrokerData>,
    /// Broker names by cluster.
    pub cluster_addr_table: BTreeMap<String, BTreeSet<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct TopicList {
    pub topic_list: BTreeSet<String>,
}

impl BrokerData {
    /// The address that takes writes.
    pub fn master(&self) -> Option<&str> {
        self.broker_addrs.get(&0).map(String::as_str)
    }

    /// The address to read from: the master, else the one of the lowest id.
    pub fn reader(&self) -> Option<&str> {
        self.broker_addrs.values().next().map(String::as_str)
    }
}

impl Route {
    /// The broker of that name.
    pub fn broker(&self, name: &str) -> Option<&BrokerData> {
        self.broker_datas.iter().find(|b| b.broker_name == name)
    }

    /// Broker address and queue id of every queue that can be written.
    pub fn write_queues(&self) -> Vec<(String, i32)> {
        self.queues(2, |q| q.write_queue_nums, BrokerData::master)
    }

    /// Broker address and queue id of every queue that can be read.
    pub fn read_queues(&self) -> Vec<(String, i32)> {
        self.queues(4, |q| q.read_queue_nums, BrokerData::reader)
    }

    fn queues(
        &self,
        perm: i32,
        count: impl Fn(&QueueData) -> i32,
        address: impl Fn(&BrokerData) -> Option<&str>,
    ) -> Vec<(String, i32)> {
        /// More than any topic has; a strange route must not fill the memory.
        const MOST: i32 = 65_536;
        let mut found = Vec::new();
        for data in self.queue_datas.iter().filter(|q| q.perm & perm != 0) {
            let Some(addr) = self.broker(&data.broker_name).and_then(&address) else {
                continue;
            };
            for id in 0..count(data).min(MOST) {
                if found.len() >= MOST as usize {
                    return found;
                }
                found.push((addr.to_owned(), id));
            }
        }
        found
    }
}

/// Decodes a body, standard JSON or Java's form with bare numbers as keys.
pub(super) fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    serde_json::from_slice(&quote_numeric_keys(body)).map_err(|e| e.to_string())
}

/// Java name servers write `{0:"host:port"}`; puts the quotes around such keys.
fn quote_numeric_keys(json: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(json.len() + 64);
    let mut in_string = false;
    let mut i = 0;
    // Whether the next token may be a key: after `{`, or after `,` (in an array no number is
    // followed by a colon, so that nothing is changed there).
    let mut key_place = false;
    while let Some(&b) = json.get(i) {
        if in_string {
            let len = if b == b'\\' { 2 } else { 1 };
            in_string = b != b'"';
            out.extend_from_slice(&json[i..(i + len).min(json.len())]);
            i += len;
            continue;
        }
        let digits = json[i..]
            .iter()
            .take_while(|c| c.is_ascii_digit() || **c == b'-')
            .count();
        if key_place && digits > 0 {
            let number = &json[i..i + digits];
            let rest = &json[i + digits..];
            let is_key = rest.iter().find(|c| !c.is_ascii_whitespace()) == Some(&b':');
            if is_key {
                out.push(b'"');
            }
            out.extend_from_slice(number);
            if is_key {
                out.push(b'"');
            }
            i += digits;
            key_place = false;
            continue;
        }
        if !b.is_ascii_whitespace() {
            key_place = matches!(b, b'{' | b',');
        }
        in_string = b == b'"';
        out.push(b);
        i += 1;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_a_route_decode() {
        let quoted = br#"{"brokerDatas":[{"brokerAddrs":{"0":"h:1","1":"h:2"},"brokerName":"b","cluster":"c","enableActingMaster":false}],
            "filterServerTable":{},"queueDatas":[{"brokerName":"b","perm":6,"readQueueNums":2,"writeQueueNums":1,"topicSysFlag":0}]}"#;
        let bare = String::from_utf8_lossy(quoted)
            .replace("\"0\"", "0")
            .replace("\"1\"", " 1 ");
        let route: Route = decode(quoted).unwrap();
        assert_eq!(decode::<Route>(bare.as_bytes()).unwrap(), route);
        assert_eq!(route.write_queues(), [("h:1".to_owned(), 0)]);
        assert_eq!(
            route.read_queues(),
            [("h:1".to_owned(), 0), ("h:1".to_owned(), 1)]
        );
    }

    #[test]
    fn only_keys_are_quoted() {
        for (json, wanted) in [
            (
                r#"{"a":[1,2,-3],"b":{7:1}}"#,
                r#"{"a":[1,2,-3],"b":{"7":1}}"#,
            ),
            (r#"{"a":"{0:1,\"2:3","c":4}"#, r#"{"a":"{0:1,\"2:3","c":4}"#),
            (r#"{-1 : "x", 2:3}"#, r#"{"-1" : "x", "2":3}"#),
            (r#"{"a\"#, r#"{"a\"#),
        ] {
            assert_eq!(
                String::from_utf8(quote_numeric_keys(json.as_bytes())).unwrap(),
                wanted
            );
        }
    }

    #[test]
    fn queues_need_permission_and_an_address() {
        let route = |perm, id| Route {
            broker_datas: vec![BrokerData {
                broker_name: "b".into(),
                cluster: "c".into(),
                broker_addrs: BTreeMap::from([(id, "h:1".to_owned())]),
            }],
            queue_datas: vec![QueueData {
                broker_name: "b".into(),
                read_queue_nums: 1,
                write_queue_nums: 1,
                perm,
            }],
        };
        assert_eq!(
            (
                route(2, 0).write_queues().len(),
                route(2, 0).read_queues().len()
            ),
            (1, 0)
        );
        assert_eq!(
            (
                route(4, 0).write_queues().len(),
                route(4, 0).read_queues().len()
            ),
            (0, 1)
        );
        assert_eq!(
            (
                route(6, 1).write_queues().len(),
                route(6, 1).read_queues().len()
            ),
            (0, 1)
        );
        let mut huge = route(6, 0);
        huge.queue_datas[0].write_queue_nums = i32::MAX;
        assert_eq!(huge.write_queues().len(), 65_536);
        huge.queue_datas[0].write_queue_nums = -5;
        assert!(huge.write_queues().is_empty());
    }
}
