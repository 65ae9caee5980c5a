//! Topic configuration, as replicated through the log.

use std::collections::BTreeMap;

/// Permission bits of RocketMQ routes.
pub const PERM_READ: u32 = 4;
/// See [`PERM_READ`].
pub const PERM_WRITE: u32 = 2;
/// May serve as a template for auto-creation.
pub const PERM_INHERIT: u32 = 1;

/// The most queues a topic may have on one shard.
pub const MAX_QUEUES: u32 = 65_536;

/// A topic on one shard. Field meanings are those of RocketMQ's `TopicConfig`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct TopicConfig {
    #[prost(string, tag = "1")]
    pub name: String,
    /// 0 in a request to create; set when applied.
    #[prost(uint32, tag = "2")]
    pub id: u32,
    #[prost(uint32, tag = "3")]
    pub read_queues: u32,
    #[prost(uint32, tag = "4")]
    pub write_queues: u32,
    #[prost(uint32, tag = "5")]
    pub perm: u32,
    /// `topicSysFlag`: bit 0 unit, bit 1 has unit sub.
    #[prost(uint32, tag = "6")]
    pub sys_flag: u32,
    #[prost(bool, tag = "7")]
    pub order: bool,
    /// `MULTI_TAG` filter type instead of `SINGLE_TAG`.
    #[prost(bool, tag = "8")]
    pub multi_tag: bool,
    #[prost(btree_map = "string, string", tag = "9")]
    pub attributes: BTreeMap<String, String>,
}

impl TopicConfig {
    /// A topic with `queues` read and write queues.
    pub fn new(name: impl Into<String>, queues: u32, perm: u32) -> Self {
        Self {
            name: name.into(),
            read_queues: queues,
            write_queues: queues,
            perm,
            ..Default::default()
        }
    }
    /// Queues a client may address: the larger of both counts.
    pub fn queues(&self) -> u32 {
        self.read_queues.max(self.write_queues)
    }
    /// Consumers may pull from it.
    pub fn readable(&self) -> bool {
        self.perm & PERM_READ != 0
    }
    /// Producers see it as writable.
    pub fn writable(&self) -> bool {
        self.perm & PERM_WRITE != 0
    }
}
