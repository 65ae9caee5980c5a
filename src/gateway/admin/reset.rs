//! INVOKE_BROKER_TO_RESET_OFFSET 222, on the server's side: the next pull of each queue is sent to
//! the new position (remoting-admin §10.1).

use super::super::ctx::{wire, Ctx};
use super::super::reply::Reply;
use super::super::shared::BrokerSide;
use super::Answer;
use crate::actors::shard::handle::{Boundary, QueueBounds};
use crate::model::{QueueKey, TopicId};
use crate::wire::remoting::body::{MessageQueue, ResetOffsetBody};
use crate::wire::remoting::code::response as rc;
use crate::wire::remoting::requests::ResetOffset;
use crate::wire::remoting::Command;

/// Where one queue goes: a given offset must lie in its bounds.
fn given(bounds: QueueBounds, offset: i64) -> Option<u64> {
    u64::try_from(offset)
        .ok()
        .filter(|o| (bounds.min..=bounds.max).contains(o))
}

/// Handles 222.
pub async fn reset(ctx: &Ctx, broker: &BrokerSide, command: &Command) -> Answer {
    let request = ResetOffset::parse(command)?;
    let topic = ctx.topic(broker, request.topic)?;
    ctx.group_exists(broker, request.group)?;
    let id = TopicId(topic.id);
    let one_queue = request.queue_id.filter(|q| *q >= 0);
    let queues: Vec<(u32, u64)> = if let Some(queue) = one_queue {
        let key = ctx.queue(broker, request.topic, queue)?;
        let bounds = broker.shard.bounds(key);
        let offset = match request.offset.filter(|o| *o != -1) {
            Some(offset) => given(bounds, offset).ok_or_else(|| {
                let text = format!(
                    "Target offset {offset} should be in consume queue range [{}-{}]",
                    bounds.min, bounds.max
                );
                Reply::err(rc::SYSTEM_ERROR, text)
            })?,
            None => by_time(ctx, broker, vec![key], request.timestamp).await?[0].1,
        };
        vec![(key.queue, offset)]
    } else {
        let keys = (0..topic.read_queues)
            .map(|q| QueueKey::new(id, q))
            .collect();
        by_time(ctx, broker, keys, request.timestamp).await?
    };
    let offset_table = queues
        .iter()
        .map(|(queue, offset)| {
            let name = MessageQueue {
                broker_name: ctx.shared().broker_name.clone(),
                queue_id: *queue as i32,
                topic: topic.name.clone(),
            };
            (name, wire(*offset))
        })
        .collect();
    broker
        .groups
        .reset_offsets(request.group, &topic.name, topic.id, queues)
        .await?;
    Ok(Reply::body(ResetOffsetBody { offset_table }.encode()))
}

/// Offsets at a time; -1 is the end.
async fn by_time(
    ctx: &Ctx,
    broker: &BrokerSide,
    keys: Vec<QueueKey>,
    at: i64,
) -> Result<Vec<(u32, u64)>, Reply> {
    let shard = broker.shard.clone();
    let found: Result<Vec<_>, String> = ctx
        .read(move || {
            keys.into_iter()
                .map(|key| {
                    if at < 0 {
                        return Ok((key.queue, shard.bounds(key).max));
                    }
                    let offset = shard.offset_by_time(key, at, Boundary::Lower);
                    offset.map(|o| (key.queue, o)).map_err(|e| e.to_string())
                })
                .collect()
        })
        .await?;
    found.map_err(Reply::failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_given_offset_lies_in_the_queue() {
        let bounds = QueueBounds { min: 5, max: 9 };
        assert_eq!(given(bounds, 5), Some(5));
        assert_eq!(given(bounds, 9), Some(9));
        for bad in [4, 10, -2, i64::MIN, i64::MAX] {
            assert_eq!(given(bounds, bad), None);
        }
    }
}
