//! Pulls that a follower answers itself (`slave_read_enable`, RocketMQ `slaveReadEnable`): what is
//! committed and applied here is the same on every replica and never changes. A leader suggests it
//! to a consumer whose messages it has to read from its store; the consumer comes here until it
//! is near the end of the queue, and is sent back to the leader then. Everything else a pull may
//! want goes to the leader.

use super::check::{allowed, requested_tags, Checked, Premises, Tags};
use super::rules::Step;
use super::Pull;
use crate::actors::group::types::Subscription;
use crate::gateway::connection::Conn;
use crate::gateway::shared::BrokerSide;
use crate::model::{QueueKey, TopicId};
use crate::wire::remoting::requests::PullRequest;
use crate::wire::remoting::Command;
use std::rc::Rc;
use std::sync::Arc;

/// Where a pull is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// At the leader; the broker id that the group prefers for reading what is far behind
    /// (`whichBrokerWhenConsumeSlowly`).
    Leader { prefers: i64 },
    /// At this follower.
    Follower,
}

/// The broker id that a pull's answer names for the next one. `stored`: the messages were not in
/// the cache of the newest ones. `readers`: followers that may answer.
pub(super) fn suggest(place: Place, stored: bool, node: u64, readers: &[u64], queue: u32) -> i64 {
    let id = |node: u64| i64::try_from(node).unwrap_or(0);
    match place {
        _ if !stored => 0,
        Place::Follower => id(node),
        Place::Leader { prefers } => {
            let preferred = readers.iter().copied().find(|node| id(*node) == prefers);
            // Queues share the followers.
            let any = || readers.get(queue as usize % readers.len().max(1)).copied();
            preferred.or_else(any).map_or(0, id)
        }
    }
}

/// Answers a pull at this follower; false when the leader must.
pub fn pull_here(conn: &Rc<Conn>, broker: &BrokerSide, command: &Command) -> bool {
    if !conn.shared().config.slave_read_enable {
        return false;
    }
    let Ok(request) = PullRequest::parse(command) else {
        return false;
    };
    // Offsets are committed at the leader.
    if request.commits_offset() {
        return false;
    }
    let Ok((topic, group)) = allowed(conn, broker, &request) else {
        return false;
    };
    // Its state is not the majority's.
    if broker.shard.status().compared().outvoted {
        return false;
    }
    // An operator moved the group: only the leader tells its consumers where to go on.
    if broker.shard.status().was_reset(group.id, topic.id) {
        return false;
    }
    let key = QueueKey::new(TopicId(topic.id), request.queue_id as u32);
    let bounds = broker.shard.bounds(key);
    let Step::Read(offset) = Step::of(bounds, request.queue_offset) else {
        return false;
    };
    // Members are known to the leader; this connection remembers what its client told it.
    let (name, topic_name) = (request.consumer_group, request.topic);
    let registered = conn.outward.borrow_mut().subscription(name, topic_name);
    let Some(tags) = tags(registered.as_ref(), &request) else {
        return false;
    };
    let premises = Premises {
        group,
        topic,
        registered: registered.map(Arc::new),
    };
    let place = Place::Follower;
    let checked = Checked {
        premises,
        tags,
        place,
    };
    let pull = Pull::new(conn.ticket(command), key, &request, checked);
    pull.read(broker, offset, bounds);
    true
}

/// Which tags pass, as far as this node can know: `None` when it cannot.
fn tags(registered: Option<&Subscription>, request: &PullRequest<'_>) -> Option<Tags> {
    if request.has_subscription() {
        return requested_tags(request).ok();
    }
    let subscription = registered?;
    if !subscription.is_tag_type() || !request.is_tag_type() {
        return None;
    }
    // Ahead of its heartbeat: nothing is filtered, because clients filter by tag themselves as well
    // (see the module `stale`).
    let known = subscription.sub_version >= request.sub_version.unwrap_or(0);
    Some(subscription.tag_filter().filter(|_| known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn far_behind_goes_to_a_follower_and_near_the_end_to_the_leader() {
        let leader = Place::Leader { prefers: 3 };
        assert_eq!(suggest(leader, false, 1, &[2, 3], 0), 0);
        assert_eq!(suggest(leader, true, 1, &[2, 3], 0), 3);
        assert_eq!(suggest(leader, true, 1, &[], 0), 0);
        let other = Place::Leader { prefers: 1 };
        assert_eq!(suggest(other, true, 1, &[2, 3], 0), 2);
        assert_eq!(suggest(other, true, 1, &[2, 3], 1), 3);
        assert_eq!(suggest(Place::Follower, true, 2, &[], 0), 2);
        assert_eq!(suggest(Place::Follower, false, 2, &[], 0), 0);
    }
}
