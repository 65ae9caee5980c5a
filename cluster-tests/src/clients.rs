//! Producers, consumers and operators, and what they know of their requests.

use crate::behind::SENDS;
use crate::plan::policy;
use crate::schedule::Mail;
use crate::seen::{Answer, Seen};
use crate::sim::Sim;
use crate::view::{make_record, Unread};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use troupemq::actors::queue::core::QueueInput;
use troupemq::actors::shard::core::{Schedule, ShardInput};
use troupemq::model::append::{AppendBatch, AppendRequest, ParkRequest, RecordMeta};
use troupemq::model::command::{CommitOffsets, LockChange, LockedQueue, MetaOp, QueueOffset};
use troupemq::model::group::GroupConfig;
use troupemq::model::outcome::Token;
use troupemq::model::policy::{AckPolicy, FlushPolicy};
use troupemq::model::topic::{TopicConfig, PERM_READ, PERM_WRITE};
use troupemq::model::{QueueKey, TopicId};

/// How long a client waits for an answer, microseconds.
const TIMEOUT_US: u64 = 3_000_000;

/// A request that waits for its answer.
#[derive(Debug, Clone)]
pub enum Waiting {
    /// Consecutive messages of one request.
    Send {
        uids: Vec<u64>,
        key: QueueKey,
        producer: u32,
        policy: AckPolicy,
        /// Tag and padding of each, where they may be sent again as they are.
        bodies: Vec<(i32, usize)>,
    },
    Schedule {
        uid: u64,
        policy: AckPolicy,
    },
    /// A failed message, stored again.
    SendBack {
        uid: u64,
        policy: AckPolicy,
    },
    Park(Pull),
    Command {
        what: &'static str,
    },
    /// A connection of any node, see [`crate::doors`].
    Forwarded {
        from: crate::doors::From,
    },
}

/// A pull that found nothing.
#[derive(Debug, Clone)]
pub struct Pull {
    pub key: QueueKey,
    pub offset: u64,
    /// It wants messages of any tag.
    pub any_tag: bool,
    /// The node's serving epoch when it was asked.
    pub epoch: u64,
}

/// See the module text.
#[derive(Debug, Default)]
pub struct Clients {
    next_uid: u64,
    next_slot: u64,
    /// The node asked, and what for.
    pub waiting: BTreeMap<u64, (usize, Waiting)>,
    /// The node that owes an answer to each request, whether or not anybody waits for it.
    pub owed: BTreeMap<u64, usize>,
    /// Commands, and the serving epoch in which each was decided on.
    pub decided: BTreeMap<u64, u64>,
    /// Messages that were committed somewhere.
    pub committed: BTreeSet<u64>,
    /// Where each group reads on.
    positions: BTreeMap<(u32, QueueKey), u64>,
    /// Producer and queue of messages whose fate is unknown: sent again.
    pub(crate) retries: Vec<(u32, QueueKey)>,
    /// Requests that are sent again as they were.
    pub(crate) again: Vec<Waiting>,
    /// Requests of earlier lives, for a planted defect.
    pub ghosts: Vec<(QueueKey, Vec<u64>)>,
}

impl Clients {
    pub(crate) fn slot(&mut self, node: usize, waiting: Waiting) -> Token {
        self.next_slot += 1;
        self.owed.insert(self.next_slot, node);
        self.waiting.insert(self.next_slot, (node, waiting));
        Token {
            sink: 0,
            slot: self.next_slot,
        }
    }
}

fn topic_name(n: u64) -> String {
    format!("topic-{n}")
}

impl Sim {
    /// One operation of some client.
    pub fn client(&mut self) {
        // Alone, nobody answers the connection; one of several refuses.
        if self.view.serving.is_none() && (self.group.is_none() || self.rng.chance(3, 4)) {
            return;
        }
        let topic = topic_name(self.rng.below(u64::from(self.plan.topics)));
        let Some(config) = self.view.topics.get(&topic) else {
            return self.create_topic(topic);
        };
        let groups = self.plain_groups().count();
        if groups < self.plan.groups as usize {
            let name = format!("group-{groups}");
            return self.command(MetaOp::PutGroup(GroupConfig::with_defaults(name)), "group");
        }
        let id = config.id;
        let key = QueueKey::new(
            TopicId(id),
            self.rng.below(u64::from(self.plan.queues)) as u32,
        );
        let drawn = self.rng.below(100);
        match self.mostly_sends(drawn) {
            0..SENDS => {
                let producer = self.rng.below(u64::from(self.plan.producers)) as u32;
                self.produce(producer, key);
            }
            55..=79 => self.consume(key),
            80..=87 => self.read_anywhere(key),
            88..=91 => self.move_offset(key),
            92..=94 => self.park(key),
            95..=96 => self.change_lock(key),
            97 if self.plan.churn => {
                self.see(Seen::DeleteAsked {
                    name: topic.clone(),
                });
                self.command(MetaOp::DeleteTopic(topic), "delete topic");
            }
            98 => self.create_topic(topic),
            _ if self.plan.churn => self.remake_group(),
            _ => {}
        }
    }

    fn create_topic(&mut self, name: String) {
        let config = TopicConfig::new(name, self.plan.queues, PERM_READ | PERM_WRITE);
        let op = if self.rng.chance(1, 2) {
            MetaOp::PutTopic(config)
        } else {
            MetaOp::EnsureTopic(config)
        };
        self.command(op, "topic");
    }

    /// Deletes a group, or makes it again; its offsets are kept.
    fn remake_group(&mut self) {
        let groups = self.plain_groups().count();
        let n = self.rng.below(groups.max(1) as u64) as usize;
        let Some((name, _)) = self.plain_groups().nth(n) else {
            return;
        };
        let group = GroupConfig::with_defaults(name);
        let op = match self.rng.chance(1, 2) {
            true => MetaOp::PutGroup(GroupConfig {
                deleted: true,
                ..group
            }),
            false => MetaOp::EnsureGroup(group),
        };
        self.command(op, "group");
    }

    /// A queue's lock is taken, renewed or given back.
    fn change_lock(&mut self, key: QueueKey) {
        let Some(group) = self.group() else { return };
        let client = match self.rng.chance(1, 3) {
            true => String::new(),
            false => format!("client-{}", self.rng.below(3)),
        };
        self.counters.locks += 1;
        let lock = LockedQueue {
            topic: key.topic.0,
            queue: key.queue,
            client,
        };
        let change = LockChange {
            group,
            queues: vec![lock],
            at_ms: 0,
        };
        self.command(MetaOp::Locks(change), "lock");
    }

    pub(crate) fn timeout(&mut self, token: Token) {
        self.schedule.after(
            TIMEOUT_US,
            crate::schedule::Event::Timeout { slot: token.slot },
        );
    }

    /// Sends one batch, or one delayed message.
    pub fn produce(&mut self, producer: u32, key: QueueKey) {
        if self.send_again() {
            return;
        }
        let (mut producer, mut key) = (producer, key);
        // A message whose fate is unknown is sent again, to the same queue if it is still there.
        if let Some((p, k)) = self.clients.retries.pop() {
            if self.view.topic_names.contains_key(&k.topic.0) {
                self.counters.retries += 1;
                (producer, key) = (p, k);
            }
        }
        if self.rng.chance(self.plan.delayed_share, 100) {
            return self.schedule_one(producer, key);
        }
        let here = self.here();
        let mut batch = AppendBatch::default();
        for _ in 0..self.rng.between(1, 3) {
            let policy = policy(&mut self.rng, self.plan.sync_share);
            let one_way = self.rng.chance(1, 8);
            let (mut uids, mut bodies) = (Vec::new(), Vec::new());
            for _ in 0..if self.rng.chance(1, 4) {
                self.rng.between(2, 4)
            } else {
                1
            } {
                let uid = self.new_uid(producer, key, policy.flush, None);
                let padding = self.rng.below(200) as usize;
                let record = make_record(uid, padding);
                let tag = self.rng.below(4) as i32;
                batch.metas.push(RecordMeta {
                    size: record.len() as u32,
                    tag,
                });
                batch.records.extend_from_slice(&record);
                uids.push(uid);
                bodies.push((tag, padding));
            }
            let count = uids.len() as u32;
            let token = if one_way {
                self.counters.one_way += 1;
                Token::NONE
            } else {
                let token = self.clients.slot(
                    here,
                    Waiting::Send {
                        uids,
                        key,
                        producer,
                        policy,
                        bodies,
                    },
                );
                self.timeout(token);
                token
            };
            batch.requests.push(AppendRequest {
                token,
                count,
                policy,
            });
        }
        self.post_queue(
            key,
            QueueInput::Append {
                batch,
                fired: Vec::new(),
            },
        );
    }

    pub(crate) fn new_uid(
        &mut self,
        producer: u32,
        key: QueueKey,
        flush: FlushPolicy,
        due_ms: Option<i64>,
    ) -> u64 {
        self.clients.next_uid += 1;
        self.counters.sent += 1;
        let uid = self.clients.next_uid;
        // Order is kept on one connection.
        let producer = producer * 16 + self.here() as u32;
        self.see(Seen::Sent {
            uid,
            producer,
            key,
            sync: flush == FlushPolicy::Sync,
            due_ms,
        });
        uid
    }

    fn schedule_one(&mut self, producer: u32, key: QueueKey) {
        let policy = policy(&mut self.rng, self.plan.sync_share);
        let due_ms = self.node_ms() + self.rng.between(0, 10_000) as i64;
        let uid = self.new_uid(producer, key, policy.flush, Some(due_ms));
        let here = self.here();
        let token = self.clients.slot(here, Waiting::Schedule { uid, policy });
        self.timeout(token);
        let record = make_record(uid, 0);
        let tag = self.rng.below(4) as i32;
        self.counters.scheduled += 1;
        self.post_shard(ShardInput::Schedule(Schedule {
            token,
            policy,
            due_ms,
            target: key,
            tag,
            record,
            again: false,
        }));
    }

    fn group(&mut self) -> Option<u32> {
        let groups = self.plain_groups().count();
        let n = self.rng.below(groups.max(1) as u64) as usize;
        self.plain_groups().nth(n).map(|(_, id)| *id)
    }

    /// Groups whose offsets and locks clients set without a group's core.
    fn plain_groups(&self) -> impl Iterator<Item = (&String, &u32)> {
        self.view.groups.range("group-".to_owned()..)
    }

    /// Reads on where the group stands, and commits.
    fn consume(&mut self, key: QueueKey) {
        let Some(group) = self.group() else { return };
        let committed = self.view.offsets.get(&(group, key)).copied();
        let at = self
            .clients
            .positions
            .get(&(group, key))
            .copied()
            .or(committed)
            .unwrap_or(0);
        let count = self.rng.between(1, 32) as usize;
        let next = match self.read(key, at, count) {
            Some(Answer::Records(records)) => {
                records.last().map_or(at, |(offset, _, _)| offset + 1)
            }
            Some(Answer::TooSmall { min }) => min,
            // The unsynced tail may be gone after a power loss.
            Some(Answer::Empty { max }) => at.min(max),
            None => at,
        };
        self.clients.positions.insert((group, key), next);
        if self.rng.chance(1, 2) {
            self.commit(group, key, next, false);
        }
    }

    fn commit(&mut self, group: u32, key: QueueKey, offset: u64, reset: bool) {
        self.see(Seen::CommitAsked {
            group,
            key,
            offset,
            reset,
        });
        if reset {
            self.counters.resets += 1;
        }
        let offsets = vec![QueueOffset {
            topic: key.topic.0,
            queue: key.queue,
            offset,
        }];
        self.command(
            MetaOp::CommitOffsets(CommitOffsets {
                group,
                offsets,
                reset,
            }),
            "offsets",
        );
    }

    /// Commits that must be ignored, and resets.
    fn move_offset(&mut self, key: QueueKey) {
        let Some(group) = self.group() else { return };
        let (_, max) = self.view.bounds(key);
        let at = self.rng.below(max + 1);
        match self.rng.below(3) {
            0 => self.commit(group, key, at, false),
            1 => self.commit(group, key, max + 1 + self.rng.clone().below(5), false),
            _ => {
                self.clients.positions.insert((group, key), at);
                self.commit(group, key, at, true);
            }
        }
    }

    fn read_anywhere(&mut self, key: QueueKey) {
        let (min, max) = self.view.bounds(key);
        let at = match self.rng.below(4) {
            0 => min.saturating_sub(1),
            1 => max.saturating_sub(1),
            _ => self.rng.below(max + 2),
        };
        let count = self.rng.between(1, 8) as usize;
        self.read(key, at, count);
    }

    pub(crate) fn read(&mut self, key: QueueKey, offset: u64, count: usize) -> Option<Answer> {
        self.counters.reads += 1;
        match self.view.read(&self.store, key, offset, count) {
            Ok((answer, from_store)) => {
                self.counters.store_reads += u64::from(from_store);
                self.counters.too_small_reads +=
                    u64::from(matches!(answer, Answer::TooSmall { .. }));
                let current = self.is_current() && !self.view.filling;
                self.counters.stale_reads += u64::from(!current);
                if !self.is_apart() {
                    self.see(Seen::Read {
                        key,
                        offset,
                        current,
                        answer: answer.clone(),
                    });
                }
                Some(answer)
            }
            // The client asks again.
            Err(Unread::Bad(index)) => {
                self.counters.bad_reads += 1;
                self.post_shard(ShardInput::BadEntry { index });
                None
            }
            Err(Unread::Lost) => None,
            Err(Unread::Wrong(_)) if self.view.given_up => None,
            Err(Unread::Wrong(what)) => {
                self.fail("I17", what);
                None
            }
        }
    }

    fn park(&mut self, key: QueueKey) {
        let (_, max) = self.view.bounds(key);
        let offset = max + self.rng.below(2);
        let here = self.here();
        let deadline_ms = self.mono_ms() + self.rng.between(100, 3_000) as i64;
        let tags: Option<Arc<[i32]>> = self.rng.chance(1, 3).then(|| Arc::from(vec![1, 2]));
        let pull = Pull {
            key,
            offset,
            any_tag: tags.is_none(),
            epoch: self.node.as_ref().map_or(0, |n| n.shard.epoch()),
        };
        let token = self.clients.slot(here, Waiting::Park(pull));
        let park = QueueInput::Park(ParkRequest {
            token,
            offset,
            deadline_ms,
            tags,
        });
        // Much may be stored between the look and the wait.
        match self.rng.chance(1, 2) {
            true => self.post(Mail::Parking(key, park)),
            false => self.post_queue(key, park),
        }
    }
}
