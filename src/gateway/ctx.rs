//! What a handler that may wait is given.

use super::connection::Conn;
use super::reply::Reply;
use super::shared::{BrokerSide, Shared};
use crate::model::topic::TopicConfig;
use crate::model::{QueueKey, TopicId};
use crate::wire::message::names;
use crate::wire::remoting::code::response as rc;
use std::rc::Rc;
use std::sync::Arc;

/// A request's connection and the node behind it.
#[derive(Clone)]
pub struct Ctx {
    pub conn: Rc<Conn>,
}

impl Ctx {
    /// What all threads share.
    pub fn shared(&self) -> &Arc<Shared> {
        self.conn.shared()
    }

    /// The topic, or the answer 17.
    pub fn topic(&self, broker: &BrokerSide, name: &str) -> Result<Arc<TopicConfig>, Reply> {
        broker
            .shard
            .meta()
            .topic(name)
            .ok_or_else(|| Reply::err(rc::TOPIC_NOT_EXIST, format!("topic[{name}] not exist")))
    }

    /// A queue of a topic, or the answer 17 or 29.
    pub fn queue(&self, broker: &BrokerSide, name: &str, queue: i32) -> Result<QueueKey, Reply> {
        let topic = self.topic(broker, name)?;
        match u32::try_from(queue).ok().filter(|q| *q < topic.queues()) {
            Some(queue) => Ok(QueueKey::new(TopicId(topic.id), queue)),
            None => {
                let text = format!("queueId[{queue}] of topic[{name}] is out of range");
                Err(Reply::err(rc::INVALID_PARAMETER, text))
            }
        }
    }

    /// Answers 26 when the group does not exist.
    pub fn group_exists(&self, broker: &BrokerSide, group: &str) -> Result<(), Reply> {
        match broker.shard.meta().group(group) {
            Some(_) => Ok(()),
            None => {
                let text = format!("Group {group} not exist!");
                Err(Reply::err(rc::SUBSCRIPTION_GROUP_NOT_EXIST, text))
            }
        }
    }

    /// Runs a read that may wait for the disk.
    pub async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Reply> {
        Ok(self.shared().reads.run(read).await?)
    }
}

/// Checks a group's name, or answers 29.
pub fn group_name(group: &str) -> Result<(), Reply> {
    names::check_group(group).map_err(|e| Reply::err(rc::INVALID_PARAMETER, e.to_string()))
}

/// Unsigned offsets as the wire has them.
pub fn wire(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
