//! Messages that cannot be consumed: sent back, tried again later, and dead letters in the end.

use super::seen::GroupSeen;
use super::{of_group, What};
use crate::clients::Waiting;
use crate::defects::Planted;
use crate::seen::Seen;
use crate::sim::Sim;
use crate::view::make_record;
use troupemq::actors::queue::core::QueueInput;
use troupemq::actors::shard::core::{Schedule, ShardInput};
use troupemq::gateway::{next_try, NextTry};
use troupemq::model::append::{AppendBatch, AppendRequest, RecordMeta};
use troupemq::model::command::MetaOp;
use troupemq::model::policy::{AckPolicy, FlushPolicy};
use troupemq::model::{QueueKey, TopicId};
use troupemq::routing::auto_create;

/// One message in so many fails however often it is tried, and one fails once.
const POISON: u64 = 9;
const WEAK: u64 = 7;
/// A delay level, ms.
const LEVEL_MS: i64 = 100;
/// Producers of copies have numbers from here on.
const PRODUCERS: u32 = 1_000;

impl Sim {
    /// The message first sent, and how often it was tried before.
    fn tries(&self, uid: u64) -> (u64, i32) {
        self.people.tries.get(&uid).copied().unwrap_or((uid, 0))
    }

    pub(crate) fn fails(&self, uid: u64) -> bool {
        let (first, tries) = self.tries(uid);
        first.is_multiple_of(POISON) || first.is_multiple_of(WEAK) && tries == 0
    }

    /// A member sends a message back; the broker stores it again.
    pub(crate) fn send_back(&mut self, n: usize, key: QueueKey, offset: u64, uid: u64) {
        let group = self.people.members[n].group;
        let (first, tries) = self.tries(uid);
        let next = match self.defect {
            Some(Planted::RetriesForever) => NextTry::Retry(1),
            _ => next_try(&of_group(group), None, tries, 0),
        };
        let config = of_group(group);
        let topic = match next {
            NextTry::DeadLetter => auto_create::dlq_topic(&config.name),
            NextTry::Retry(_) => auto_create::retry_topic(&config.name, config.retry_queue_nums),
        };
        let Some(id) = self.view.topics.get(&topic.name).map(|t| t.id) else {
            return self.command(MetaOp::EnsureTopic(topic), "topic");
        };
        let target = QueueKey::new(TopicId(id), 0);
        let due_ms = match next {
            NextTry::DeadLetter => None,
            NextTry::Retry(level) => Some(self.node_ms() + i64::from(level) * LEVEL_MS),
        };
        let producer = PRODUCERS + n as u32;
        let policy = AckPolicy::STRICTEST;
        let dead = due_ms.is_none();
        let copy = self.new_uid(producer, target, FlushPolicy::Sync, due_ms);
        self.people.tries.insert(copy, (first, tries + 1));
        self.see(Seen::Group(GroupSeen::SentBack {
            of: uid,
            copy,
            dead,
            due_ms,
        }));
        self.counters.sent_back += 1;
        self.counters.dead_letters += u64::from(dead);
        let at_us = self.schedule.now_us();
        let what = What::Back {
            copy,
            key,
            offset,
            of: uid,
        };
        self.people.members[n].asked = Some(super::Asked {
            request: 0,
            what,
            at_us,
        });
        if self.defect == Some(Planted::SendBackDropped) && self.people.rng.chance(1, 20) {
            return self.back_told(copy, true);
        }
        let here = self.here();
        let token = self
            .clients
            .slot(here, Waiting::SendBack { uid: copy, policy });
        self.timeout(token);
        let record = make_record(copy, 0);
        match due_ms {
            Some(due_ms) => self.post_shard(ShardInput::Schedule(Schedule {
                token,
                policy,
                due_ms,
                target,
                tag: 0,
                record,
                again: true,
            })),
            None => {
                let size = record.len() as u32;
                let batch = AppendBatch {
                    metas: vec![RecordMeta { size, tag: 0 }],
                    records: record,
                    requests: vec![AppendRequest {
                        token,
                        count: 1,
                        policy,
                    }],
                };
                let fired = Vec::new();
                self.post_queue(target, QueueInput::Append { batch, fired });
            }
        }
    }

    /// The member is told whether the copy is stored. If not, or if that is not known, it tries again.
    pub(crate) fn back_told(&mut self, copy: u64, stored: bool) {
        if stored {
            self.see(Seen::Group(GroupSeen::BackTold { copy }));
        }
        let is_it = |what: &What| matches!(what, What::Back { copy: c, .. } if *c == copy);
        let mut members = self.people.members.iter_mut();
        let Some(member) = members.find(|m| m.asked.as_ref().is_some_and(|a| is_it(&a.what)))
        else {
            return;
        };
        let asked = member.asked.take();
        if let (
            Some(What::Back {
                key, offset, of, ..
            }),
            true,
        ) = (asked.map(|a| a.what), stored)
        {
            if member.positions.get(&key) == Some(&offset) {
                member.positions.insert(key, offset + 1);
            }
            let group = member.group;
            self.see(Seen::Group(GroupSeen::Settled { group, uid: of }));
        }
    }
}
