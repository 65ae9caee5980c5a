//! Clients tell what they are: heartbeats 34, goodbyes 35, members 38, locks 41 and 42, filter
//! checks 46.

use super::convert;
use super::ctx::{group_name, Ctx};
use super::reply::Reply;
use super::shared::BrokerSide;
use crate::actors::clock::boot_ms;
use crate::actors::group::types::{Connection, MemberHeartbeat};
use crate::model::command::MetaOp;
use crate::model::group::GroupConfig;
use crate::model::quota::QuotaKind;
use crate::model::{QueueKey, TopicId};
use crate::routing::auto_create;
use crate::wire::remoting::body::heartbeat::{CheckClientConfig, MAX_CLIENT_ID};
use crate::wire::remoting::body::{
    self, ConsumerData, ConsumerIdList, Heartbeat, LockRequest, LockResponse, MessageQueue,
};
use crate::wire::remoting::code::response as rc;
use crate::wire::remoting::requests::{ConsumerList, UnregisterClient};
use crate::wire::remoting::Command;
use rustc_hash::FxHashSet;

type Answer = Result<Reply, Reply>;

/// Most queues that one request locks or unlocks.
const MAX_LOCKS: usize = 4_096;

/// What became of the groups of one heartbeat. A group that is refused does not keep the others
/// out: a client puts all its groups into one heartbeat, and can do nothing about a single one.
#[derive(Default)]
struct Taken {
    groups: usize,
    /// The first refusal that concerns its group alone.
    refused: Option<Reply>,
}

impl Taken {
    /// Notes what became of a group.
    ///
    /// # Errors
    /// The node cannot take any group now: another one has to, or the client tries again.
    fn note<T>(
        &mut self,
        ctx: &Ctx,
        group: &str,
        result: Result<T, Reply>,
    ) -> Result<Option<T>, Reply> {
        match result {
            Ok(done) => Ok(Some(done)),
            Err(reply) if reply.code == rc::SERVICE_NOT_AVAILABLE => Err(reply),
            Err(reply) => {
                let text = reply.remark.as_deref().unwrap_or("");
                let text = format!("group {group} of a heartbeat: {text}");
                ctx.shared().bad_input("heartbeat", ctx.conn.peer, &text);
                self.refused.get_or_insert(reply);
                Ok(None)
            }
        }
    }

    /// The answer: as stock brokers 0, whatever was refused. Where nothing else was asked for, the
    /// client's log shall say why.
    fn answer(self) -> Answer {
        match self.refused {
            Some(reply) if self.groups == 0 => Err(reply),
            _ => Ok(Reply::ok()),
        }
    }
}

/// HEART_BEAT 34.
pub async fn heartbeat(ctx: &Ctx, broker: &BrokerSide, command: &Command) -> Answer {
    let beat = Heartbeat::parse(&command.body).map_err(Reply::failed)?;
    let mut taken = Taken::default();
    if beat.left_out > 0 {
        let text = format!("{} groups beyond the limits of a heartbeat", beat.left_out);
        taken.note(ctx, "…", Err::<(), _>(Reply::err(rc::SYSTEM_ERROR, text)))?;
    }
    for producer in &beat.producer_data_set {
        let connection = Connection {
            conn: ctx.conn.id,
            client_id: beat.client_id.clone(),
            client_addr: ctx.conn.peer.to_string(),
            language: command.language.name().to_owned(),
            version: command.version,
            last_update_ms: boot_ms(),
        };
        let name = &producer.group_name;
        let result = group_name(name).and_then(|()| {
            let heard = broker.groups.producer_heartbeat(name, connection);
            heard.map_err(Reply::from)
        });
        let result = taken.note(ctx, name, result)?;
        taken.groups += usize::from(result.is_some());
    }
    let short = beat.is_short();
    // Everything is created first: once a group knows the member, clients rebalance at once.
    let mut prepared = Vec::with_capacity(beat.consumer_data_set.len());
    for consumer in beat.consumer_data_set {
        let name = &consumer.group_name;
        // Nothing is created that it may not join.
        let result = match broker.groups.may_join(name, ctx.conn.id, prepared.len()) {
            Ok(()) => prepare_group(ctx, broker, name).await,
            Err(refusal) => Err(refusal.into()),
        };
        if taken.note(ctx, &consumer.group_name, result)?.is_some() {
            prepared.push(consumer);
        }
    }
    let mut changed = false;
    for consumer in prepared {
        let name = consumer.group_name.clone();
        let member = member(
            ctx,
            command,
            &beat.client_id,
            consumer,
            beat.heartbeat_fingerprint,
            short,
        );
        let heard = broker.groups.heartbeat(&name, member).await;
        if let Some(heard) = taken.note(ctx, &name, heard.map_err(Reply::from))? {
            taken.groups += 1;
            changed |= heard.sub_changed;
        }
    }
    let reply = taken.answer()?;
    if beat.heartbeat_fingerprint == 0 {
        return Ok(reply);
    }
    Ok(reply
        .with("IS_SUPPORT_HEART_BEAT_V2", true)
        .with("IS_SUB_CHANGE", changed))
}

fn member(
    ctx: &Ctx,
    command: &Command,
    client_id: &str,
    data: ConsumerData,
    fingerprint: i32,
    without_sub: bool,
) -> MemberHeartbeat {
    MemberHeartbeat {
        conn: ctx.conn.id,
        client_id: client_id.to_owned(),
        client_addr: ctx.conn.peer.to_string(),
        language: command.language.name().to_owned(),
        version: command.version,
        consume_type: convert::consume_type(data.consume_type),
        message_model: convert::message_model(data.message_model),
        start_from: convert::start_from(data.consume_from_where),
        unit_mode: data.unit_mode,
        subscriptions: data
            .subscription_data_set
            .into_iter()
            .map(convert::subscription)
            .collect(),
        fingerprint,
        without_sub,
    }
}

/// Creates the group when allowed, and its retry topic.
async fn prepare_group(ctx: &Ctx, broker: &BrokerSide, group: &str) -> Result<(), Reply> {
    group_name(group)?;
    let meta = broker.shard.meta();
    let config = match meta.group(group) {
        Some(config) => config,
        None if ctx.shared().config.auto_create_subscription_group => {
            ctx.conn.may_create(QuotaKind::ConnectionAutoGroups, 1)?;
            let new = GroupConfig::with_defaults(group);
            ctx.shared()
                .change(broker, MetaOp::EnsureGroup(new))
                .await?;
            meta.group(group).ok_or_else(|| no_group(group))?
        }
        None => return Err(no_group(group)),
    };
    if config.retry_queue_nums > 0 {
        let topic = auto_create::retry_topic(group, config.retry_queue_nums);
        ctx.shared().ensure_topic(broker, topic).await?;
    }
    Ok(())
}

fn no_group(group: &str) -> Reply {
    let text = format!("subscription group [{group}] does not exist");
    Reply::err(rc::SUBSCRIPTION_GROUP_NOT_EXIST, text)
}

/// UNREGISTER_CLIENT 35.
pub async fn unregister(ctx: &Ctx, broker: &BrokerSide, command: &Command) -> Answer {
    let request = UnregisterClient::parse(command)?;
    if let Some(group) = request.producer_group {
        broker.groups.producer_unregister(group, ctx.conn.id);
    }
    if let Some(group) = request.consumer_group {
        // Whatever is wrong with it, the client leaves.
        let _ = broker
            .groups
            .unregister(group, ctx.conn.id, request.client_id)
            .await;
    }
    Ok(Reply::ok())
}

/// GET_CONSUMER_LIST_BY_GROUP 38.
pub fn consumer_list(broker: &BrokerSide, command: &Command) -> Answer {
    let request = ConsumerList::parse(command)?;
    let ids = broker.groups.consumer_ids(request.consumer_group);
    if ids.is_empty() {
        let text = format!("no consumer for this group, {}", request.consumer_group);
        return Err(Reply::err(rc::SYSTEM_ERROR, text));
    }
    Ok(Reply::body(body::encode(&ConsumerIdList {
        consumer_id_list: ids,
    })))
}

fn known(broker: &BrokerSide, queue: &MessageQueue) -> Option<QueueKey> {
    let topic = broker.shard.meta().topic(&queue.topic)?;
    let id = u32::try_from(queue.queue_id)
        .ok()
        .filter(|q| *q < topic.queues())?;
    Some(QueueKey::new(TopicId(topic.id), id))
}

fn lock_request(command: &Command) -> Result<LockRequest, Reply> {
    let request: LockRequest = body::decode(&command.body).map_err(Reply::failed)?;
    // Checked before it is copied for the group.
    if request.mq_set.len() > MAX_LOCKS {
        let text = format!("more than {MAX_LOCKS} queues in one request");
        return Err(Reply::err(rc::INVALID_PARAMETER, text));
    }
    if request.client_id.is_empty() || request.client_id.len() > MAX_CLIENT_ID {
        let text = format!("the client id must have 1 to {MAX_CLIENT_ID} bytes");
        return Err(Reply::err(rc::INVALID_PARAMETER, text));
    }
    Ok(request)
}

/// LOCK_BATCH_MQ 41. Queues that do not exist are not locked.
pub async fn lock(ctx: &Ctx, broker: &BrokerSide, command: &Command) -> Answer {
    let request = lock_request(command)?;
    ctx.group_exists(broker, &request.consumer_group)?;
    let asked: Vec<_> = request
        .mq_set
        .iter()
        .filter_map(|q| known(broker, q).map(|key| (key, q)))
        .collect();
    let keys = asked.iter().map(|(key, _)| *key).collect();
    let held: FxHashSet<QueueKey> = broker
        .groups
        .lock(&request.consumer_group, &request.client_id, keys)
        .await?
        .into_iter()
        .collect();
    let ok = asked
        .iter()
        .filter(|(key, _)| held.contains(key))
        .map(|(_, q)| (*q).clone());
    Ok(Reply::body(body::encode(&LockResponse {
        lock_ok_mq_set: ok.collect(),
    })))
}

/// UNLOCK_BATCH_MQ 42.
pub async fn unlock(ctx: &Ctx, broker: &BrokerSide, command: &Command) -> Answer {
    let request = lock_request(command)?;
    ctx.group_exists(broker, &request.consumer_group)?;
    let keys = request
        .mq_set
        .iter()
        .filter_map(|q| known(broker, q))
        .collect();
    broker
        .groups
        .unlock(&request.consumer_group, &request.client_id, keys)
        .await?;
    Ok(Reply::ok())
}

/// CHECK_CLIENT_CONFIG 46: only tag expressions are filtered on the server.
pub fn check_config(command: &Command) -> Answer {
    let request: CheckClientConfig = body::decode(&command.body).map_err(Reply::failed)?;
    let data = request.subscription_data;
    if !data.is_tag_type() {
        let text = "The broker does not support consumer to filter message by SQL92";
        return Err(Reply::err(rc::SYSTEM_ERROR, text));
    }
    match data.tag_filter() {
        Ok(_) => Ok(Reply::ok()),
        Err(e) => Err(Reply::err(rc::SUBSCRIPTION_PARSE_FAILED, e.to_string())),
    }
}
