//! The name server as a pure state machine.

use crate::routing::AdvertisedAddr;
use std::collections::BTreeMap;

/// Answer of REGISTER_BROKER.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RegisterReply {
    /// Set only for a slave whose master is alive.
    pub ha_addr: Option<String>,
    /// See [`RegisterReply::ha_addr`].
    pub master_addr: Option<AdvertisedAddr>,
    /// KV namespace `ORDER_TOPIC_CONFIG` (the answer's body).
    pub order_conf: BTreeMap<String, String>,
}

/// See the module text.
#[derive(Debug, Default)]
pub struct RegistryCore {}
