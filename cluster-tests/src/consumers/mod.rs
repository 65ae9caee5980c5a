//! Members of consumer groups: they join, leave, die and come back, share queues out among themselves, read and
//! commit, lock queues, send back what they cannot consume; operators set offsets. On each node the product's
//! group cores answer them ([`shell`]).
//!
//! Times are those of the product, by a clock that runs [`SPEED`] times as fast as the world's.

mod failed;
pub mod seen;
pub mod shell;
mod told;
mod work;

use crate::schedule::Event;
use crate::seen::Seen;
use crate::sim::Sim;
use seen::GroupSeen;
use shell::GroupMail;
use std::collections::BTreeMap;
use troupemq::actors::group::core::{Answer, Request};
use troupemq::actors::group::{
    ConsumeType, MemberHeartbeat, MessageModel, StartFrom, Subscription,
};
use troupemq::actors::link::{ConnId, Notice};
use troupemq::model::command::MetaOp;
use troupemq::model::group::GroupConfig;
use troupemq::model::outcome::Refusal;
use troupemq::model::{QueueKey, TopicId};
use troupemq::storage::SimRng;

/// The groups: one sends back what fails, the other locks its queues.
pub const NAMES: [&str; 2] = ["consumers", "consumers-in-order"];
const IN_ORDER: usize = 1;
/// What they consume, beside what is to be tried again.
const TOPIC: &str = "topic-0";
/// How much faster than the world the clocks of groups and members run.
pub const SPEED: i64 = 20;
/// A failing message is tried so often again.
pub const MAX_TRIES: i32 = 2;
/// A turn of some member comes so often, microseconds.
const TURN_US: u64 = 40_000;
/// As clients have it, ms of their clock: between two heartbeats, looks at the members, renewals of locks; and
/// how long they rely on a lock.
const BEAT_MS: i64 = 30_000;
const LIST_MS: i64 = 20_000;
const RENEW_MS: i64 = 20_000;
const RELY_MS: i64 = 30_000;
/// They wait so long for an answer, microseconds; for a lock less.
const WAIT_US: u64 = 3_000_000;
const WAIT_LOCK_US: u64 = 800_000;

/// An answer to a member.
#[derive(Debug, Clone)]
pub enum Told {
    /// Whether the heartbeat was taken in.
    Beat(bool),
    Left,
    Answer(Result<Answer, Refusal>),
}

/// What a member waits for.
#[derive(Debug, Clone)]
enum What {
    Beat,
    Leave,
    Query(QueueKey),
    /// Somebody who only wants to know asks for an offset.
    Look,
    /// A commit, or an operator's reset.
    Set,
    Lock(Vec<QueueKey>),
    Unlock,
    /// The copy of a failed message.
    Back {
        copy: u64,
        key: QueueKey,
        offset: u64,
        of: u64,
    },
}

#[derive(Debug, Clone)]
struct Asked {
    request: u64,
    what: What,
    /// When, microseconds.
    at_us: u64,
}

/// A client. Its process may be dead, and its place is taken by another one then.
#[derive(Debug, Clone)]
struct Member {
    group: usize,
    id: String,
    conn: ConnId,
    /// Where it is connected: node, and the node's life.
    at: Option<(usize, u64)>,
    dead: bool,
    joined: bool,
    beat_ms: i64,
    list_ms: i64,
    lock_ms: i64,
    keys: Vec<QueueKey>,
    positions: BTreeMap<QueueKey, u64>,
    /// Up to when it relies on each lock.
    locks: BTreeMap<QueueKey, i64>,
    asked: Option<Asked>,
}

impl Member {
    fn new(group: usize, number: u64) -> Self {
        Self {
            group,
            id: format!("member-{number}"),
            conn: ConnId(0),
            at: None,
            dead: false,
            joined: false,
            beat_ms: 0,
            list_ms: 0,
            lock_ms: 0,
            keys: Vec::new(),
            positions: BTreeMap::new(),
            locks: BTreeMap::new(),
            asked: None,
        }
    }
}

/// See the module text.
#[derive(Debug)]
pub struct People {
    pub(crate) rng: SimRng,
    members: Vec<Member>,
    /// Processes and connections so far.
    next: u64,
    next_request: u64,
    /// The node that owes an answer to each request, and the member that asked.
    pub(crate) owed: BTreeMap<u64, (usize, usize)>,
    /// Of copies of failed messages: how often the message was tried before.
    tries: BTreeMap<u64, (u64, i32)>,
    ids: [Option<u32>; 2],
}

impl People {
    pub fn new(members: u32, seed: u64) -> Self {
        let of = |n: u32| Member::new(n as usize % NAMES.len(), u64::from(n));
        Self {
            rng: SimRng::new(seed ^ 0x6d65_6d62_6572_7321),
            members: (0..members).map(of).collect(),
            next: u64::from(members),
            next_request: 0,
            owed: BTreeMap::new(),
            tries: BTreeMap::new(),
            ids: [None; 2],
        }
    }

    /// A member is told something by the broker.
    fn notice(&mut self, conn: ConnId, notice: &Notice, topic: Option<u32>) {
        let Some(member) = self.members.iter_mut().find(|m| m.conn == conn) else {
            return;
        };
        match notice {
            Notice::MembersChanged { .. } => member.list_ms = 0,
            Notice::OffsetsReset { offsets, .. } => {
                for (key, position) in &mut member.positions {
                    let is_it = Some(key.topic.0) == topic;
                    let mut all = offsets.iter();
                    let of = all.find(|(queue, _)| is_it && *queue == key.queue);
                    if let Some((_, to)) = of {
                        *position = *to;
                    }
                }
            }
        }
    }
}

impl Sim {
    /// The clients' clock, ms: not that of the node which the world is in.
    fn members_ms(&self) -> i64 {
        (self.schedule.now_us() / 1000) as i64 * SPEED
    }

    /// One turn of some member.
    pub(crate) fn members_turn(&mut self) {
        if self.is_calm() {
            return;
        }
        let next = self.people.rng.between(1_000, TURN_US);
        self.schedule.after(next, Event::Members);
        // Some moments need silence.
        if self.lull_left() > 0 {
            return;
        }
        let n = self.people.rng.below(self.people.members.len() as u64) as usize;
        let now_us = self.schedule.now_us();
        let Some(member) = self.people.members.get(n) else {
            return;
        };
        if member.dead {
            if self.people.rng.chance(1, 8) {
                self.people.next += 1;
                self.people.members[n] = Member::new(member.group, self.people.next);
            }
            return;
        }
        if let Some(asked) = &member.asked {
            if now_us - asked.at_us > WAIT_US {
                self.people.members[n].asked = None;
            }
            return;
        }
        let before = self.people.members[n].conn;
        if self.connect(n) {
            self.name_group(n);
            let here = self.here();
            // Another one serves, or soon does: whoever is there sets what is asked for here.
            let strayed = self.group.as_ref().is_some_and(|g| g.hint != here);
            let moved = before != self.people.members[n].conn;
            match self.people.rng.below(600) {
                0..100 if strayed => self.people.members[n].at = None,
                100..400 if strayed => self.look(n),
                0..150 if moved => self.reset(n),
                0..3 => self.die(n),
                3..6 => self.people.members[n].at = None,
                6..8 => self.leave(n),
                8..13 => self.reset(n),
                13..60 => self.look(n),
                60..68 if self.people.members[n].group == IN_ORDER => self.quarrel(n),
                _ => self.go_on(n),
            }
        }
    }

    /// Steps to the node that the member is connected to. `false`: there is none that serves.
    fn connect(&mut self, n: usize) -> bool {
        if let Some((node, life)) = self.people.members[n].at {
            self.enter(node);
            if self.life == life && self.node.is_some() && self.view.serving.is_some() {
                return self.paused_until <= self.schedule.now_us();
            }
        }
        self.close(n);
        let hint = self.group.as_ref().map_or(0, |g| g.hint);
        self.enter(hint);
        let runs = self.node.is_some() && self.paused_until <= self.schedule.now_us();
        if !runs || self.view.serving.is_none() {
            return false;
        }
        self.people.next += 1;
        let conn = ConnId(self.people.next);
        let member = &mut self.people.members[n];
        (member.conn, member.at) = (conn, Some((hint, self.life)));
        (member.joined, member.beat_ms) = (false, 0);
        true
    }

    /// Its connection closes, which a node that runs sees.
    fn close(&mut self, n: usize) {
        let member = &mut self.people.members[n];
        let (group, conn) = (member.group, member.conn);
        let Some((node, life)) = member.at.take() else {
            return;
        };
        self.enter(node);
        if self.life == life && self.node.is_some() {
            self.send_awake_group(group, GroupMail::ConnClosed(conn));
        }
    }

    /// Its process ends, or its machine, which nobody sees.
    fn die(&mut self, n: usize) {
        self.counters.members_dead += 1;
        if self.people.rng.chance(1, 2) {
            self.close(n);
        }
        let keys: Vec<_> = self.people.members[n].locks.keys().copied().collect();
        self.lets_go(n, &keys);
        let member = &mut self.people.members[n];
        (member.dead, member.asked) = (true, None);
    }

    fn lets_go(&mut self, n: usize, keys: &[QueueKey]) {
        for key in keys {
            let member = &mut self.people.members[n];
            if member.locks.remove(key).is_some() {
                let (group, client) = (member.group, member.id.clone());
                let key = *key;
                self.see(Seen::Group(GroupSeen::LetsGo { group, key, client }));
            }
        }
    }

    fn ask(&mut self, n: usize, what: What) -> u64 {
        self.people.next_request += 1;
        let request = self.people.next_request;
        let here = self.here();
        self.people.owed.insert(request, (here, n));
        let at_us = self.schedule.now_us();
        self.people.members[n].asked = Some(Asked {
            request,
            what,
            at_us,
        });
        request
    }

    fn leave(&mut self, n: usize) {
        let keys: Vec<_> = self.people.members[n].locks.keys().copied().collect();
        self.lets_go(n, &keys);
        let request = self.ask(n, What::Leave);
        let member = &mut self.people.members[n];
        let (group, conn, client_id) = (member.group, member.conn, member.id.clone());
        (member.keys, member.joined) = (Vec::new(), false);
        member.positions.clear();
        let mail = GroupMail::Unregister {
            conn,
            client_id,
            request,
        };
        self.send_group(group, mail);
    }

    /// Checkers are told which group it is, before anything is asked for it.
    fn name_group(&mut self, n: usize) {
        let group = self.people.members[n].group;
        let Some(id) = self.view.groups.get(NAMES[group]).copied() else {
            return;
        };
        if self.people.ids[group] != Some(id) {
            self.people.ids[group] = Some(id);
            self.see(Seen::Group(GroupSeen::Id { group, id }));
        }
    }

    /// What is due first.
    fn go_on(&mut self, n: usize) {
        let group = self.people.members[n].group;
        if !self.view.groups.contains_key(NAMES[group]) {
            if self.people.rng.chance(1, 4) {
                let config = of_group(group);
                self.command(MetaOp::PutGroup(config), "group");
            }
            return;
        }
        let now_ms = self.members_ms();
        let member = &self.people.members[n];
        if !member.joined || member.beat_ms <= now_ms {
            return self.beat(n);
        }
        if member.list_ms <= now_ms {
            return self.rebalance(n);
        }
        let unlocked = |k: &QueueKey| member.locks.get(k).is_none_or(|until| *until <= now_ms);
        let wants_locks = member.keys.iter().any(unlocked) || member.lock_ms <= now_ms;
        if group == IN_ORDER && !member.keys.is_empty() && wants_locks {
            return self.lock(n);
        }
        let at = self.people.rng.below(member.keys.len() as u64) as usize;
        if let Some(key) = self.people.members[n].keys.get(at).copied() {
            self.work(n, key);
        }
    }

    fn beat(&mut self, n: usize) {
        let request = self.ask(n, What::Beat);
        let member = &self.people.members[n];
        let beat = MemberHeartbeat {
            conn: member.conn,
            client_id: member.id.clone(),
            client_addr: String::new(),
            language: "JAVA".into(),
            version: 1,
            consume_type: ConsumeType::Passively,
            message_model: MessageModel::Clustering,
            start_from: StartFrom::FirstOffset,
            unit_mode: false,
            subscriptions: vec![Subscription::tags(TOPIC, "*", vec![], vec![], 1)],
            fingerprint: 0,
            without_sub: false,
        };
        self.send_group(member.group, GroupMail::Heartbeat { beat, request });
    }

    /// The node here leads for sure: it may answer from memory.
    fn may_answer(&self) -> bool {
        self.group.is_none() || self.lease_until > self.schedule.now_us()
    }

    /// Asks who is there, and shares the queues out.
    fn rebalance(&mut self, n: usize) {
        if !self.may_answer() {
            self.counters.members_not_answered += 1;
            return;
        }
        let member = &self.people.members[n];
        let (group, id) = (member.group, member.id.clone());
        let ids = self.listed_members(group);
        let time = self.serving_time();
        let clients = ids.clone();
        self.see(Seen::Group(GroupSeen::List {
            time,
            group,
            clients,
        }));
        let next = self.members_ms() + LIST_MS;
        self.people.members[n].list_ms = next;
        let mut all = Vec::new();
        let retry = troupemq::routing::names::retry_topic(NAMES[group]);
        for name in [TOPIC, &*retry] {
            if let Some(topic) = self.view.topics.get(name) {
                let queues = 0..topic.read_queues;
                all.extend(queues.map(|q| QueueKey::new(TopicId(topic.id), q)));
            }
        }
        let mine = ids.iter().position(|other| *other == id);
        let of = |at: usize| mine.is_some_and(|mine| at % ids.len() == mine);
        let keys = all.into_iter().enumerate().filter(|(at, _)| of(*at));
        let keys: Vec<QueueKey> = keys.map(|(_, key)| key).collect();
        let member = &mut self.people.members[n];
        let before = member.keys.iter().copied();
        let gone = before.filter(|k| !keys.contains(k) && member.locks.contains_key(k));
        let locked: Vec<QueueKey> = gone.collect();
        self.counters.rebalances += u64::from(member.keys != keys);
        member.keys = keys;
        member.positions.retain(|key, _| member.keys.contains(key));
        if !locked.is_empty() {
            self.lets_go(n, &locked);
            let request = self.ask(n, What::Unlock);
            let keys = locked.iter().map(|k| (k.topic.0, k.queue)).collect();
            let client = self.people.members[n].id.clone();
            let what = Request::Unlock { client, keys };
            self.send_group(group, GroupMail::Request { what, request });
        }
    }

    fn lock(&mut self, n: usize) {
        let keys = self.people.members[n].keys.clone();
        let now_ms = self.members_ms();
        self.people.members[n].lock_ms = now_ms + RENEW_MS;
        self.lock_these(n, keys);
    }

    fn lock_these(&mut self, n: usize, keys: Vec<QueueKey>) {
        let asked = keys.iter().map(|k| (k.topic.0, k.queue)).collect();
        let request = self.ask(n, What::Lock(keys));
        let member = &self.people.members[n];
        let (group, client) = (member.group, member.id.clone());
        let what = Request::Lock {
            client,
            keys: asked,
        };
        self.counters.members_lock += 1;
        self.send_group(group, GroupMail::Request { what, request });
    }
}

/// The configuration of a group.
fn of_group(group: usize) -> GroupConfig {
    GroupConfig {
        retry_max_times: MAX_TRIES,
        ..GroupConfig::with_defaults(NAMES[group])
    }
}
