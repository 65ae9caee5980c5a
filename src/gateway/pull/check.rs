//! What a pull may read, and by what it may: broker, group, topic and subscription. No reads.

use super::follower::Place;
use crate::actors::group::types::Subscription;
use crate::gateway::connection::Conn;
use crate::gateway::reply::Reply;
use crate::gateway::shared::BrokerSide;
use crate::model::group::GroupConfig;
use crate::model::topic::TopicConfig;
use crate::model::{QueueKey, TopicId};
use crate::wire::message::names;
use crate::wire::message::tags::TagFilter;
use crate::wire::remoting::code::response as rc;
use crate::wire::remoting::requests::PullRequest;
use std::sync::Arc;

/// Longest expression a pull may bring, bytes.
const MAX_EXPRESSION: usize = 64 * 1024;

/// Why a pull does not begin.
pub(super) enum Refused {
    Reply(Reply),
    /// An operator reset the queue, and this node may lead no longer: where the group reads on is
    /// not its to say.
    NotCurrent,
    /// It does not exist, but may be created.
    NoGroup,
}

impl From<Reply> for Refused {
    fn from(reply: Reply) -> Self {
        Refused::Reply(reply)
    }
}

pub(super) fn no_group(group: &str) -> Reply {
    let text = format!("subscription group [{group}] does not exist");
    Reply::err(rc::SUBSCRIPTION_GROUP_NOT_EXIST, text)
}

/// Sorted tag codes that pass; `None` lets all pass.
pub(super) type Tags = Option<Arc<[i32]>>;

/// What a pull was begun on. A pull that is held, or that waits for the disk, ends without a message
/// when it is no longer so: the client tries again at once and is judged anew.
pub(super) struct Premises {
    pub group: Arc<GroupConfig>,
    pub topic: Arc<TopicConfig>,
    /// The group's subscription as it was registered then. The client filters what it gets by what
    /// it had subscribed to when it asked, and so does the pull: once another filter is registered
    /// both would pass over messages for good that are wanted now.
    pub registered: Option<Arc<Subscription>>,
}

impl Premises {
    /// The group's filter on the topic is still the same.
    pub fn same_filter(&self, now: Option<&Subscription>) -> bool {
        match (self.registered.as_deref(), now) {
            (None, None) => true,
            (Some(then), Some(now)) => then.same_filter(now),
            _ => false,
        }
    }

    /// All of it still holds at the leader.
    pub fn hold(&self, conn: &Conn, broker: &BrokerSide) -> bool {
        let meta = broker.shard.meta();
        let (group, topic) = (meta.group(&self.group.name), meta.topic(&self.topic.name));
        let now = broker
            .groups
            .subscription(&self.group.name, &self.topic.name);
        conn.shared().broker_readable()
            && group.is_some_and(|g| g.id == self.group.id && g.consume_enable)
            && topic.is_some_and(|t| t.id == self.topic.id && t.readable())
            && self.same_filter(now.as_deref())
    }
}

/// What a pull was begun on, which tags pass, and where the group reads what is far behind.
pub(super) struct Checked {
    pub premises: Premises,
    pub tags: Tags,
    pub place: Place,
}

/// Checks a pull at the leader.
pub(super) fn check(
    conn: &Conn,
    broker: &BrokerSide,
    request: &PullRequest<'_>,
) -> Result<Checked, Refused> {
    let (topic, group) = allowed(conn, broker, request)?;
    let place = Place::Leader {
        prefers: group.which_broker_when_consume_slowly,
    };
    // Looked up before the tags: when it changes in between, the pull asks again.
    let registered = broker
        .groups
        .subscription(request.consumer_group, request.topic);
    let premises = Premises {
        group,
        topic,
        registered,
    };
    let key = QueueKey::new(TopicId(premises.topic.id), request.queue_id as u32);
    let forward = conn.shared().forward.as_ref();
    if broker.groups.is_reset(request.consumer_group, key) && forward.is_some_and(|f| !f.current())
    {
        return Err(Refused::NotCurrent);
    }
    let tags = tags_of(conn, broker, request)?;
    Ok(Checked {
        premises,
        tags,
        place,
    })
}

/// The topic and group of a pull that may read there.
pub(super) fn allowed(
    conn: &Conn,
    broker: &BrokerSide,
    request: &PullRequest<'_>,
) -> Result<(Arc<TopicConfig>, Arc<GroupConfig>), Refused> {
    let shared = conn.shared();
    if shared.is_stopping() {
        let text = "service not available now: the broker is stopping";
        return Err(Reply::err(rc::SERVICE_NOT_AVAILABLE, text).into());
    }
    if !shared.broker_readable() {
        let text = format!(
            "the broker[{}] pulling message is forbidden",
            shared.broker_name
        );
        return Err(forbidden(text, 1).into());
    }
    let name = request.consumer_group;
    let Some(group) = broker.shard.meta().group(name) else {
        names::check_group(name)
            .map_err(|e| Reply::err(rc::SUBSCRIPTION_GROUP_NOT_EXIST, e.to_string()))?;
        if !shared.config.auto_create_subscription_group {
            return Err(no_group(name).into());
        }
        return Err(Refused::NoGroup);
    };
    if !group.consume_enable {
        let text = format!("subscription group no permission, {name}");
        return Err(forbidden(text, 2).into());
    }
    let topic = broker.shard.meta().topic(request.topic).ok_or_else(|| {
        let text = format!("topic[{}] not exist, apply first please!", request.topic);
        Reply::err(rc::TOPIC_NOT_EXIST, text)
    })?;
    if !topic.readable() {
        let text = format!("the topic[{}] pulling message is forbidden", request.topic);
        return Err(forbidden(text, 3).into());
    }
    if !u32::try_from(request.queue_id).is_ok_and(|q| q < topic.read_queues) {
        let text = format!(
            "queueId[{}] is illegal, topic:[{}] topicConfig.readQueueNums:[{}]",
            request.queue_id, topic.name, topic.read_queues
        );
        return Err(Reply::err(rc::INVALID_PARAMETER, text).into());
    }
    Ok((topic, group))
}

fn forbidden(text: String, kind: i64) -> Reply {
    Reply::err(rc::NO_PERMISSION, text).with("forbiddenType", kind)
}

fn no_sql() -> Reply {
    let text = "The broker does not support consumer to filter message by SQL92";
    Reply::err(rc::SYSTEM_ERROR, text)
}

/// Which tags pass by the request's own expression.
pub(super) fn requested_tags(request: &PullRequest<'_>) -> Result<Tags, Reply> {
    if !request.is_tag_type() {
        return Err(no_sql());
    }
    let expression = request.subscription.unwrap_or("");
    let filter = (expression.len() <= MAX_EXPRESSION).then(|| TagFilter::parse(expression));
    match filter {
        Some(Ok(TagFilter::All)) => Ok(None),
        Some(Ok(TagFilter::Codes(codes))) => Ok(Some(codes.as_slice().into())),
        _ => {
            let text = "parse the consumer's subscription failed";
            Err(Reply::err(rc::SUBSCRIPTION_PARSE_FAILED, text))
        }
    }
}

/// Which tags pass: the request's expression, else the group's subscription.
fn tags_of(conn: &Conn, broker: &BrokerSide, request: &PullRequest<'_>) -> Result<Tags, Reply> {
    if request.has_subscription() {
        return requested_tags(request);
    }
    let group = request.consumer_group;
    let Some(members) = broker.groups.members(group) else {
        return Err(not_subscribed(format!(
            "the consumer's group info not exist, group: {group}"
        )));
    };
    let Some(subscription) = members.subscriptions.get(request.topic) else {
        let text = format!(
            "the consumer's subscription not exist, topic: {}",
            request.topic
        );
        return Err(not_subscribed(text));
    };
    let version = request.sub_version.unwrap_or(0);
    if subscription.sub_version < version {
        if request.is_tag_type()
            && subscription.is_tag_type()
            && conn.stale_may_pass(group, request.topic, version)
        {
            return Ok(None);
        }
        let text = "the consumer's subscription not latest";
        return Err(Reply::err(rc::SUBSCRIPTION_NOT_LATEST, text));
    }
    if !subscription.is_tag_type() {
        return Err(no_sql());
    }
    Ok(subscription.tag_filter())
}

fn not_subscribed(text: String) -> Reply {
    Reply::err(rc::SUBSCRIPTION_NOT_EXIST, text).with("forbiddenType", 5)
}
