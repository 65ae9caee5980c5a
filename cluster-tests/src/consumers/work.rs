//! What members do with their queues: they read, commit, ask how far the group is; operators set that.

use super::seen::GroupSeen;
use super::shell::GroupMail;
use super::{What, IN_ORDER, NAMES, TOPIC};
use crate::seen::{Answer as Read, Seen};
use crate::sim::Sim;
use troupemq::actors::group::core::Request;
use troupemq::actors::shard::handle::QueueBounds;
use troupemq::model::{QueueKey, TopicId};

impl Sim {
    /// Reads on, and commits.
    pub(super) fn work(&mut self, n: usize, key: QueueKey) {
        let now_ms = self.members_ms();
        let member = &self.people.members[n];
        let group = member.group;
        if !self.view.topic_names.contains_key(&key.topic.0) {
            self.people.members[n].keys.retain(|k| *k != key);
            return;
        }
        if group == IN_ORDER && member.locks.get(&key).is_none_or(|until| *until <= now_ms) {
            return;
        }
        let Some(at) = member.positions.get(&key).copied() else {
            return self.query(n, key);
        };
        if let Some(to) = self.redirect(group, key, at) {
            self.people.members[n].positions.insert(key, to);
            return;
        }
        let count = self.people.rng.between(1, 8) as usize;
        let mut next = at;
        match self.read(key, at, count) {
            Some(Read::Records(records)) => {
                for (offset, uid, _) in records {
                    self.see(Seen::Group(GroupSeen::Delivered { group, uid }));
                    if group != IN_ORDER && self.fails(uid) {
                        self.people.members[n].positions.insert(key, next);
                        return self.send_back(n, key, offset, uid);
                    }
                    self.see(Seen::Group(GroupSeen::Settled { group, uid }));
                    self.counters.members_read += 1;
                    next = offset + 1;
                }
            }
            Some(Read::TooSmall { min }) => next = min,
            Some(Read::Empty { max }) => next = at.min(max),
            None => {}
        }
        self.people.members[n].positions.insert(key, next);
        if self.people.rng.chance(1, 2) {
            self.set(n, key, next);
        }
    }

    fn query(&mut self, n: usize, key: QueueKey) {
        if !self.may_answer() {
            self.counters.members_not_answered += 1;
            return;
        }
        let id = self.ask(n, What::Query(key));
        self.query_as(n, id, key);
    }

    /// An operator asks how far a group is.
    pub(super) fn look(&mut self, n: usize) {
        if !self.may_answer() {
            return;
        }
        let Some(topic) = self.view.topics.get(TOPIC) else {
            return;
        };
        let queue = self.people.rng.below(u64::from(topic.read_queues)) as u32;
        let key = QueueKey::new(TopicId(topic.id), queue);
        let id = self.ask(n, What::Look);
        self.query_as(n, id, key);
    }

    fn query_as(&mut self, n: usize, id: u64, key: QueueKey) {
        let group = self.people.members[n].group;
        let time = self.serving_time();
        self.see(Seen::Group(GroupSeen::QueryAsked {
            id,
            time,
            group,
            key,
        }));
        let what = Request::Query {
            key: (key.topic.0, key.queue),
        };
        self.send_group(group, GroupMail::Request { what, request: id });
    }

    fn offset_asked(&mut self, id: u64, at: (usize, QueueKey), offset: u64, two_way: bool) {
        let (time, (group, key)) = (self.serving_time(), at);
        self.see(Seen::Group(GroupSeen::OffsetAsked {
            id,
            time,
            group,
            key,
            offset,
            two_way,
        }));
    }

    /// Commits; one in eight one-way.
    fn set(&mut self, n: usize, key: QueueKey, offset: u64) {
        let group = self.people.members[n].group;
        let (min, max) = self.view.bounds(key);
        let two_way = self.people.rng.chance(7, 8);
        let id = self.ask(n, What::Set);
        if !two_way {
            self.people.owed.remove(&id);
            self.people.members[n].asked = None;
        }
        self.offset_asked(id, (group, key), offset, two_way);
        let mail = GroupMail::Commit {
            key: (key.topic.0, key.queue),
            offset: offset as i64,
            bounds: QueueBounds { min, max },
            request: two_way.then_some(id),
        };
        self.send_group(group, mail);
    }

    /// Members that are in the middle of a rebalance take queues for their own that others hold: locks of one
    /// queue are asked for by several at once while another queue's are decided on, or are given back by who
    /// has none.
    pub(super) fn quarrel(&mut self, n: usize) {
        let (group, at) = (IN_ORDER, self.people.members[n].at);
        let Some(topic) = self.view.topics.get(TOPIC).filter(|t| t.read_queues > 1) else {
            return;
        };
        let queue = |q: u32| QueueKey::new(TopicId(topic.id), q);
        let (first, second) = (queue(0), queue(1));
        let gives_back = self.people.rng.chance(1, 4);
        let same = |m: &super::Member| m.group == group && m.at == at && m.asked.is_none();
        let all = self.people.members.iter().enumerate();
        let all = all.filter(|(_, m)| same(m) && !m.dead && m.joined);
        let all: Vec<usize> = all.map(|(n, _)| n).collect();
        for (place, n) in all.into_iter().enumerate() {
            let key = if place == 0 { first } else { second };
            self.counters.quarrels += 1;
            if gives_back {
                let client = self.people.members[n].id.clone();
                self.lets_go(n, &[key]);
                let request = self.ask(n, What::Unlock);
                let keys = vec![(key.topic.0, key.queue)];
                let what = Request::Unlock { client, keys };
                self.send_group(group, GroupMail::Request { what, request });
            } else {
                self.lock_these(n, vec![key]);
            }
        }
    }

    /// An operator sets the group somewhere else in a queue.
    pub(super) fn reset(&mut self, n: usize) {
        let group = self.people.members[n].group;
        let Some(topic) = self.view.topics.get(TOPIC) else {
            return;
        };
        if !self.view.groups.contains_key(NAMES[group]) {
            return;
        }
        let queue = self.people.rng.below(u64::from(topic.read_queues)) as u32;
        let key = QueueKey::new(TopicId(topic.id), queue);
        let (min, max) = self.view.bounds(key);
        let offset = min + self.people.rng.below(max - min + 1);
        self.counters.members_reset += 1;
        let id = self.ask(n, What::Set);
        self.see(Seen::Group(GroupSeen::Skips {
            group,
            key,
            below: offset,
        }));
        self.offset_asked(id, (group, key), offset, true);
        let what = Request::Reset {
            topic: TOPIC.into(),
            offsets: vec![((key.topic.0, key.queue), offset)],
        };
        self.send_group(group, GroupMail::Request { what, request: id });
    }
}
