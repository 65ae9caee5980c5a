//! Producers, consumers and operators, and what they know of their requests.

use crate::plan::policy;
use crate::seen::{Answer, Seen};
use crate::sim::Sim;
use crate::view::{make_record, Unread};
use std::collections::BTreeMap;
use std::sync::Arc;
use troupemq::actors::queue::core::QueueInput;
use troupemq::actors::shard::core::{Schedule, ShardInput};
use troupemq::model::append::{AppendBatch, AppendRequest, ParkRequest, RecordMeta};
use troupemq::model::command::{CommitOffsets, MetaOp, QueueOffset};
use troupemq::model::group::GroupConfig;
use troupemq::model::outcome::{Outcome, Refusal, Token};
use troupemq::model::policy::{AckPolicy, FlushPolicy, MasterPolicy};
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
    },
    Schedule {
        uid: u64,
        policy: AckPolicy,
    },
    Park {
        key: QueueKey,
        offset: u64,
    },
    Command {
        what: &'static str,
    },
}

/// See the module text.
#[derive(Debug, Default)]
pub struct Clients {
    next_uid: u64,
    next_slot: u64,
    /// The node asked, and what for.
    pub waiting: BTreeMap<u64, (usize, Waiting)>,
    /// Where each group reads on.
    positions: BTreeMap<(u32, QueueKey), u64>,
    /// Producer and queue of messages whose fate is unknown: sent again.
    retries: Vec<(u32, QueueKey)>,
    /// Requests of earlier lives, for a planted defect.
    pub ghosts: Vec<(QueueKey, Vec<u64>)>,
}

impl Clients {
    fn slot(&mut self, node: usize, waiting: Waiting) -> Token {
        self.next_slot += 1;
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
        if self.view.groups.len() < self.plan.groups as usize {
            let name = format!("group-{}", self.view.groups.len());
            return self.command(MetaOp::PutGroup(GroupConfig::with_defaults(name)), "group");
        }
        let id = config.id;
        let key = QueueKey::new(
            TopicId(id),
            self.rng.below(u64::from(self.plan.queues)) as u32,
        );
        match self.rng.below(100) {
            0..=54 => {
                let producer = self.rng.below(u64::from(self.plan.producers)) as u32;
                self.produce(producer, key);
            }
            55..=79 => self.consume(key),
            80..=87 => self.read_anywhere(key),
            88..=91 => self.move_offset(key),
            92..=96 => self.park(key),
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
        let n = self.rng.below(self.view.groups.len().max(1) as u64) as usize;
        let Some(name) = self.view.groups.keys().nth(n) else {
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

    fn command(&mut self, op: MetaOp, what: &'static str) {
        let token = self.clients.slot(
            self.group.as_ref().map_or(0, |g| g.here),
            Waiting::Command { what },
        );
        self.timeout(token);
        let epoch = self.node.as_ref().map_or(0, |n| n.shard.epoch());
        let id = token.slot;
        self.post_shard(ShardInput::Propose { id, epoch, op });
    }

    fn timeout(&mut self, token: Token) {
        self.schedule.after(
            TIMEOUT_US,
            crate::schedule::Event::Timeout { slot: token.slot },
        );
    }

    /// Sends one batch, or one delayed message.
    pub fn produce(&mut self, producer: u32, key: QueueKey) {
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
            let mut uids = Vec::new();
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

    fn new_uid(
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
        let n = self.rng.below(self.view.groups.len().max(1) as u64) as usize;
        self.view.groups.values().nth(n).copied()
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

    fn read(&mut self, key: QueueKey, offset: u64, count: usize) -> Option<Answer> {
        self.counters.reads += 1;
        match self.view.read(&self.store, key, offset, count) {
            Ok((answer, from_store)) => {
                self.counters.store_reads += u64::from(from_store);
                self.counters.too_small_reads +=
                    u64::from(matches!(answer, Answer::TooSmall { .. }));
                if self.is_current() {
                    self.see(Seen::Read {
                        key,
                        offset,
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
        let token = self.clients.slot(here, Waiting::Park { key, offset });
        let deadline_ms = self.mono_ms() + self.rng.between(100, 3_000) as i64;
        let tags: Option<Arc<[i32]>> = self.rng.chance(1, 3).then(|| Arc::from(vec![1, 2]));
        self.post_queue(
            key,
            QueueInput::Park(ParkRequest {
                token,
                offset,
                deadline_ms,
                tags,
            }),
        );
    }

    /// An answer arrives at its client.
    pub fn answered(&mut self, token: Token, outcome: Outcome) {
        let Some((_, waiting)) = self.clients.waiting.remove(&token.slot) else {
            // After a timeout nobody looks any more; another second answer is a defect.
            if token.slot > self.clients.next_slot {
                self.fail("I7", format!("an answer to {token:?}, which nobody asked"));
            }
            return;
        };
        match (waiting, outcome) {
            // It took too long; the entry goes on, and nothing more is said of it.
            (waiting @ (Waiting::Send { .. } | Waiting::Schedule { .. }), Outcome::Late { .. }) => {
                self.counters.late += 1;
                self.told(waiting, false);
            }
            // One replica has it; whether it stays is open.
            (
                waiting @ (Waiting::Send {
                    policy:
                        AckPolicy {
                            master: MasterPolicy::Async,
                            ..
                        },
                    ..
                }
                | Waiting::Schedule {
                    policy:
                        AckPolicy {
                            master: MasterPolicy::Async,
                            ..
                        },
                    ..
                }),
                Outcome::Appended { .. } | Outcome::Scheduled { .. },
            ) if self.group.is_some() => {
                self.counters.acked += 1;
                self.told(waiting, false);
            }
            (
                Waiting::Send { uids, .. },
                Outcome::Appended {
                    base_offset,
                    position,
                    ..
                },
            ) => {
                for (i, uid) in (0u64..).zip(uids) {
                    let at = troupemq::model::Position {
                        ordinal: position.ordinal + i as u32,
                        ..position
                    };
                    self.counters.acked += 1;
                    self.see(Seen::Acked {
                        uid,
                        at,
                        offset: Some(base_offset + i),
                    });
                }
            }
            (Waiting::Schedule { uid, .. }, Outcome::Scheduled { position }) => {
                self.counters.acked += 1;
                self.see(Seen::Acked {
                    uid,
                    at: position,
                    offset: None,
                });
            }
            (Waiting::Park { key, offset }, Outcome::Wake { data }) => {
                if data
                    && self.view.bounds(key).1 <= offset
                    && self.view.topic_names.contains_key(&key.topic.0)
                {
                    self.fail(
                        "I6",
                        format!("a pull of {key:?} at {offset} was woken for nothing"),
                    );
                }
                let count = if data {
                    &mut self.counters.woken_by_data
                } else {
                    &mut self.counters.woken_by_time
                };
                *count += 1;
            }
            (waiting, Outcome::Refused(why)) => {
                if self.group.is_some() {
                    self.counters.followers_refuse += u64::from(why == Refusal::NotLeader);
                    self.counters.lead_lost_in_flight += u64::from(why == Refusal::Indeterminate);
                }
                let definite = why != Refusal::Indeterminate
                    || self.defect == Some(crate::defects::Planted::UnknownToldAsRefused);
                self.unanswered(waiting, definite);
            }
            (waiting, outcome) => self.fail("answers", format!("{outcome:?} to {waiting:?}")),
        }
    }

    /// A proposal's answer.
    pub fn proposed(&mut self, id: u64) {
        if id != 0 {
            self.clients.waiting.remove(&id);
        }
    }

    fn unanswered(&mut self, waiting: Waiting, definite: bool) {
        if let Waiting::Send { key, producer, .. } = &waiting {
            if self.rng.chance(1, 2) {
                self.clients.retries.push((*producer, *key));
            }
        } else if let Waiting::Schedule { .. } = &waiting {
            // The same draw for both kinds.
            self.rng.chance(1, 2);
        }
        self.told(waiting, definite);
    }

    fn told(&mut self, waiting: Waiting, definite: bool) {
        let uids = match waiting {
            Waiting::Send { uids, .. } => uids,
            Waiting::Schedule { uid, .. } => vec![uid],
            Waiting::Park { .. } | Waiting::Command { .. } => return,
        };
        for uid in uids {
            let count = if definite {
                &mut self.counters.refused
            } else {
                &mut self.counters.unknown
            };
            *count += 1;
            self.see(if definite {
                Seen::Refused { uid }
            } else {
                Seen::Unknown { uid }
            });
        }
    }

    /// A client's patience is over.
    pub fn timed_out(&mut self, slot: u64) {
        if let Some((_, waiting)) = self.clients.waiting.remove(&slot) {
            self.unanswered(waiting, false);
        }
    }

    /// The node went away: nobody gets an answer.
    pub fn disconnected(&mut self) {
        let here = self.here();
        let all = std::mem::take(&mut self.clients.waiting);
        let (gone, stay) = all.into_iter().partition(|(_, (node, _))| *node == here);
        self.clients.waiting = stay;
        let gone: BTreeMap<u64, (usize, Waiting)> = gone;
        for (_, (_, waiting)) in gone {
            if let Waiting::Send { uids, key, .. } = &waiting {
                self.clients.ghosts.push((*key, uids.clone()));
            }
            self.unanswered(waiting, false);
        }
    }
}
