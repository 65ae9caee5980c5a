//! Message queues as JSON, and maps keyed by them.

use super::lenient;
use serde::de::{self, DeserializeOwned, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

/// A queue as clients name it. Equality is on all three fields.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MessageQueue {
    /// Broker name.
    #[serde(deserialize_with = "lenient::nullable")]
    pub broker_name: String,
    /// Queue id.
    #[serde(deserialize_with = "lenient::i32")]
    pub queue_id: i32,
    /// Topic.
    #[serde(deserialize_with = "lenient::nullable")]
    pub topic: String,
}

/// A map keyed by queues. On the wire the keys are raw objects, which is not JSON, but the only
/// form every Java client decodes; it is therefore written by [`MqTable::write`], not by serde.
#[derive(Debug, Clone, PartialEq)]
pub struct MqTable<V>(pub BTreeMap<MessageQueue, V>);

impl<V> Default for MqTable<V> {
    fn default() -> Self {
        MqTable(BTreeMap::new())
    }
}

impl<V> FromIterator<(MessageQueue, V)> for MqTable<V> {
    fn from_iter<I: IntoIterator<Item = (MessageQueue, V)>>(entries: I) -> Self {
        MqTable(entries.into_iter().collect())
    }
}

impl<V: Serialize> MqTable<V> {
    /// Appends the map with raw object keys.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.push(b'{');
        for (i, (queue, value)) in self.0.iter().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            out.extend(super::encode(queue));
            out.push(b':');
            out.extend(super::encode(value));
        }
        out.push(b'}');
    }
}

/// Reads what the dialect rewriter made of an object key (its JSON text in a string), and C++'s
/// form, an array of queues with the value beside their fields.
impl<'de, V: DeserializeOwned> Deserialize<'de> for MqTable<V> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(TableVisitor(PhantomData))
    }
}

struct TableVisitor<V>(PhantomData<V>);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArrayEntry<V> {
    broker_name: String,
    queue_id: i32,
    topic: String,
    offset: V,
}

impl<'de, V: DeserializeOwned> Visitor<'de> for TableVisitor<V> {
    type Value = MqTable<V>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map keyed by message queues")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut table = BTreeMap::new();
        while let Some((key, value)) = map.next_entry::<String, V>()? {
            let queue = serde_json::from_str(&key).map_err(de::Error::custom)?;
            table.insert(queue, value);
        }
        Ok(MqTable(table))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut table = BTreeMap::new();
        while let Some(entry) = seq.next_element::<ArrayEntry<V>>()? {
            let queue = MessageQueue {
                broker_name: entry.broker_name,
                queue_id: entry.queue_id,
                topic: entry.topic,
            };
            table.insert(queue, entry.offset);
        }
        Ok(MqTable(table))
    }

    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(MqTable::default())
    }
}
