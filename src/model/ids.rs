//! Numeric ids. Names from clients never become keys or paths: a topic or group gets a number
//! when its creation is applied, and keys use the number.

/// A Raft group; RocketMQ's *broker name* on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShardId(pub u32);

/// A topic of one shard. Never reused: a topic that is deleted and created again gets a new id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicId(pub u32);

/// A consumer group of one shard. Never used for another name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupId(pub u32);

/// One topic queue of one shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueueKey {
    pub topic: TopicId,
    pub queue: u32,
}

impl QueueKey {
    /// The queue `queue` of `topic`.
    pub fn new(topic: TopicId, queue: u32) -> Self {
        Self { topic, queue }
    }
}
