//! Which queue actor is awake, and the way to it that keeps the order of its senders.
//!
//! A queue that sleeps is woken by the shard's actor: what is sent to it meanwhile makes a detour
//! by the shard. While a detour is under way nobody may use the direct way, or a later message
//! would overtake; so detours are counted, and a queue is listed once there are none. A queue
//! falls asleep only after it was unlisted and then found idle with nothing sent to it since.

use super::actor::ShardActor;
use crate::actors::abort::AbortOnPanic;
use crate::actors::effect::Effect;
use crate::actors::queue::actor::{QueueActor, QueueMail, StillIdle};
use crate::actors::queue::core::QueueInput;
use crate::model::outcome::Refusal;
use crate::model::QueueKey;
use actix::prelude::*;
use parking_lot::RwLock;
use rustc_hash::FxHashMap;
use std::sync::Arc;

/// An event for a queue that may be asleep, by way of the shard.
#[derive(Message)]
#[rtype(result = "()")]
pub struct ToQueue {
    pub key: QueueKey,
    pub input: QueueInput,
}

/// A queue would go to sleep.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Retire {
    pub key: QueueKey,
    pub queue: Addr<QueueActor>,
}

/// The answer to [`StillIdle`].
#[derive(Message)]
#[rtype(result = "()")]
pub struct IdleIs {
    pub key: QueueKey,
    pub queue: Addr<QueueActor>,
    pub idle: bool,
}

#[derive(Default)]
struct Ways {
    awake: FxHashMap<QueueKey, Addr<QueueActor>>,
    /// Messages on their way by the shard; no entry for none.
    detours: FxHashMap<QueueKey, u64>,
}

/// See the module text.
#[derive(Clone, Default)]
pub struct QueueDirectory {
    ways: Arc<RwLock<Ways>>,
}

impl QueueDirectory {
    /// Sends to the queue, directly or by way of the shard. Sending never blocks, so it is done
    /// under the lock: what was sent here is in a mailbox before the way changes.
    pub(super) fn send(&self, key: QueueKey, input: QueueInput, shard: &Addr<ShardActor>) {
        let awake = |ways: &Ways| ways.awake.get(&key).filter(|q| q.connected()).cloned();
        let ways = self.ways.read();
        if let Some(queue) = awake(&ways) {
            return queue.do_send(QueueMail(input));
        }
        drop(ways);
        let mut ways = self.ways.write();
        if let Some(queue) = awake(&ways) {
            return queue.do_send(QueueMail(input));
        }
        *ways.detours.entry(key).or_default() += 1;
        shard.do_send(ToQueue { key, input });
    }

    /// A detour has ended. `queue` is the actor awake now, if it may be listed.
    fn arrived(&self, key: QueueKey, queue: Option<&Addr<QueueActor>>) {
        let mut ways = self.ways.write();
        if let Some(left) = ways.detours.get_mut(&key) {
            *left -= 1;
            if *left == 0 {
                ways.detours.remove(&key);
            }
        }
        drop(ways);
        if let Some(queue) = queue {
            self.list(key, queue);
        }
    }

    /// Opens the direct way, unless a detour is under way.
    pub(super) fn list(&self, key: QueueKey, queue: &Addr<QueueActor>) {
        let mut ways = self.ways.write();
        if !ways.detours.contains_key(&key) {
            ways.awake.insert(key, queue.clone());
        }
    }

    pub(super) fn remove(&self, key: QueueKey) {
        self.ways.write().awake.remove(&key);
    }

    /// Queues awake now.
    pub fn len(&self) -> usize {
        self.ways.read().awake.len()
    }

    /// No queue is awake.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Handler<ToQueue> for ShardActor {
    type Result = ();
    fn handle(&mut self, ToQueue { key, input }: ToQueue, ctx: &mut Self::Context) {
        let _guard = AbortOnPanic;
        self.carry_out(vec![Effect::ToQueue(key, input)], ctx);
        let awake = self
            .queues
            .get(&key)
            .filter(|_| !self.leaving.contains_key(&key));
        self.deps.directory.arrived(key, awake);
    }
}

impl Handler<Retire> for ShardActor {
    type Result = ();
    fn handle(&mut self, Retire { key, queue }: Retire, _: &mut Self::Context) {
        // Its place may have been given to another meanwhile.
        if self.queues.get(&key) == Some(&queue) {
            self.deps.directory.remove(key);
            self.leaving.insert(key, false);
            queue.do_send(StillIdle);
        }
    }
}

impl Handler<IdleIs> for ShardActor {
    type Result = ();
    fn handle(&mut self, IdleIs { key, queue, idle }: IdleIs, _: &mut Self::Context) {
        if self.queues.get(&key) != Some(&queue) {
            return;
        }
        if self.leaving.remove(&key) == Some(false) && idle {
            self.queues.remove(&key);
            // Nothing is left to be closed: this ends the actor.
            queue.do_send(QueueMail(QueueInput::Closed(Refusal::NotLeader)));
        } else {
            self.deps.directory.list(key, &queue);
        }
    }
}
