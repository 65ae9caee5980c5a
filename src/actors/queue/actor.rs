//! The actix shell of a topic queue.

use super::core::{QueueCore, QueueInput};
use crate::actors::abort::AbortOnPanic;
use crate::actors::effect::Effect;
use crate::actors::shard::actor::{ShardActor, ShardMail};
use crate::actors::shard::directory::{IdleIs, Retire};
use crate::actors::sinks::SharedOutbox;
use crate::model::QueueKey;
use actix::prelude::*;
use std::rc::Rc;
use std::time::Duration;

/// A queue without work for this long goes to sleep.
const IDLE_MS: i64 = 600_000;
/// How long a closed queue still answers what was sent to it.
const GRACE: Duration = Duration::from_secs(10);

/// An event for a queue's core.
#[derive(Message)]
#[rtype(result = "()")]
pub struct QueueMail(pub QueueInput);

/// The shard asks, after nobody can send here any more but itself, whether the queue is idle.
#[derive(Message)]
#[rtype(result = "()")]
pub struct StillIdle;

/// See the module text.
pub struct QueueActor {
    key: QueueKey,
    core: QueueCore,
    shard: Addr<ShardActor>,
    outbox: Rc<SharedOutbox>,
    effects: Vec<Effect>,
    /// It offered to go to sleep and waits to be asked.
    offered: bool,
    closed: bool,
}

impl QueueActor {
    /// A queue that a serving shard activates.
    pub fn new(
        key: QueueKey,
        core: QueueCore,
        shard: Addr<ShardActor>,
        outbox: Rc<SharedOutbox>,
    ) -> Self {
        Self {
            key,
            core,
            shard,
            outbox,
            effects: Vec::new(),
            offered: false,
            closed: false,
        }
    }

    fn end(&mut self, ctx: &mut Context<Self>) {
        ctx.run_later(GRACE, |_, ctx| ctx.stop());
    }
}

impl Actor for QueueActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        // Back-pressure is in bytes, before a message is sent here.
        ctx.set_mailbox_capacity(0);
    }
}

impl Handler<QueueMail> for QueueActor {
    type Result = ();

    fn handle(&mut self, QueueMail(input): QueueMail, ctx: &mut Self::Context) {
        let _guard = AbortOnPanic;
        let tick = match &input {
            QueueInput::Tick { now_ms } => Some(*now_ms),
            _ => None,
        };
        self.core.step(input, &mut self.effects);
        if self.core.is_closed() && !self.closed {
            self.closed = true;
            self.end(ctx);
        }
        for effect in self.effects.drain(..) {
            match effect {
                Effect::Answer(token, outcome) => self.outbox.push(token, outcome),
                Effect::ToShard(input) => self.shard.do_send(ShardMail(input)),
                other => tracing::error!(?other, "a queue core asked for what it may not"),
            }
        }
        let idle = tick.is_some_and(|now| self.core.is_idle(now, IDLE_MS));
        if idle && !self.closed && !self.offered {
            self.offered = true;
            self.shard.do_send(Retire {
                key: self.key,
                queue: ctx.address(),
            });
        }
    }
}

impl Handler<StillIdle> for QueueActor {
    type Result = ();

    fn handle(&mut self, _: StillIdle, ctx: &mut Self::Context) {
        self.offered = false;
        self.shard.do_send(IdleIs {
            key: self.key,
            queue: ctx.address(),
            // Nothing but ticks since the queue offered to go.
            idle: self.core.is_idle(i64::MAX, 0),
        });
    }
}
