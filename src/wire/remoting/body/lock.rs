//! LOCK_BATCH_MQ (41), UNLOCK_BATCH_MQ (42) and GET_CONSUMER_LIST_BY_GROUP (38).

use super::lenient;
use super::mq_table::MessageQueue;
use serde::{Deserialize, Serialize};

/// Body of 41 and 42.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LockRequest {
    /// The client that locks.
    #[serde(deserialize_with = "lenient::nullable")]
    pub client_id: String,
    /// Its group.
    #[serde(deserialize_with = "lenient::nullable")]
    pub consumer_group: String,
    /// The queues.
    #[serde(deserialize_with = "lenient::nullable")]
    pub mq_set: Vec<MessageQueue>,
    /// 5.x: do not ask other brokers of the set.
    #[serde(deserialize_with = "lenient::nullable")]
    pub only_this_broker: bool,
}

/// Answer of 41: the queues the client now holds, echoed unchanged.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LockResponse {
    /// The queues.
    #[serde(rename = "lockOKMQSet", deserialize_with = "lenient::nullable")]
    pub lock_ok_mq_set: Vec<MessageQueue>,
}

/// Answer of 38.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumerIdList {
    /// Client ids, each once.
    #[serde(deserialize_with = "lenient::nullable")]
    pub consumer_id_list: Vec<String>,
}
