//! Bodies of requests and responses.
//!
//! What we write is standard, compact JSON with fields in Java's order and numeric keys quoted;
//! the one exception are maps keyed by message queues, whose keys are raw objects because Java's
//! decoders accept nothing else ([`mq_table`]). What we read also covers Java's own dialect
//! ([`dialect`]), C++'s ordinals and Go's strings and nulls.

pub mod cluster;
pub mod config;
pub mod connection;
pub mod dialect;
pub mod heartbeat;
pub mod lenient;
pub mod lock;
pub mod mq_table;
pub mod offsets;
pub mod register;
pub mod route;
pub mod stats;

pub use cluster::{BrokerMemberGroup, ClusterInfo, GroupList, KvTable, TopicList};
pub use config::{
    DataVersion, SubscriptionGroupConfig, SubscriptionGroupWrapper, TopicConfig,
    TopicConfigAndQueueMapping, TopicConfigWrapper,
};
pub use connection::{Connection, ConsumerConnection, ProducerConnection};
pub use heartbeat::{
    ConsumeFromWhere, ConsumeType, ConsumerData, Heartbeat, MessageModel, ProducerData,
    SubscriptionData,
};
pub use lock::{ConsumerIdList, LockRequest, LockResponse};
pub use mq_table::{MessageQueue, MqTable};
pub use offsets::ResetOffsetBody;
pub use register::RegisterBrokerBody;
pub use route::{BrokerData, QueueData, TopicRouteData};
pub use stats::{ConsumeStats, ConsumeStatsList, OffsetWrapper, TopicOffset, TopicStatsTable};

use serde::de::DeserializeOwned;
use serde::Serialize;
use thiserror::Error;

/// A body that cannot be read (response code 1, or 29 where the protocol has it).
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BodyError {
    /// Not the JSON expected.
    #[error("bad JSON body: {0}")]
    Json(String),
    /// More entries, deeper nesting or more bytes than allowed.
    #[error("body exceeds the limit of {0}")]
    Limit(&'static str),
    /// The checksum of a register-broker body differs (stock text).
    #[error("crc32 not match")]
    Crc,
    /// A compressed body that does not inflate to the expected parts.
    #[error("bad compressed body: {0}")]
    Compressed(&'static str),
}

/// Reads a JSON body, also one in Java's dialect.
pub fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, BodyError> {
    let strict = match serde_json::from_slice(body) {
        Ok(value) => return Ok(value),
        Err(e) => e,
    };
    if strict.is_data() {
        return Err(BodyError::Json(strict.to_string()));
    }
    let standard = dialect::to_standard(body)?;
    serde_json::from_slice(&standard).map_err(|e| BodyError::Json(e.to_string()))
}

/// Writes a JSON body. The types of this module always serialize; should one ever fail, the
/// empty object is sent rather than nothing.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_else(|_| b"{}".to_vec())
}
