//! The actix shell of a topic queue.

use super::core::{QueueCore, QueueInput};
use crate::actors::abort::AbortOnPanic;
use crate::actors::effect::Effect;
use crate::actors::shard::actor::{Retire, ShardActor, ShardMail, ToQueue};
use crate::actors::sinks::{Outbox, Sinks};
use crate::model::QueueKey;
use actix::prelude::*;
use std::time::Duration;

/// A queue without work for this long goes to sleep.
const IDLE_MS: i64 = 600_000;
/// How long a sleeping queue still passes on what was sent to it.
const GRACE: Duration = Duration::from_secs(10);

/// An event for a queue's core.
#[derive(Message)]
#[rtype(result = "()")]
pub struct QueueMail(pub QueueInput);

/// See the module text.
pub struct QueueActor {
    key: QueueKey,
    core: QueueCore,
    shard: Addr<ShardActor>,
    sinks: Sinks,
    outbox: Outbox,
    effects: Vec<Effect>,
    /// Set once this actor gave its place back; what still arrives is passed on.
    retired: bool,
    closed: bool,
}

impl QueueActor {
    /// A queue that a serving shard activates.
    pub fn new(key: QueueKey, core: QueueCore, shard: Addr<ShardActor>, sinks: Sinks) -> Self {
        Self {
            key,
            core,
            shard,
            sinks,
            outbox: Outbox::default(),
            effects: Vec::new(),
            retired: false,
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
        if self.retired {
            if !matches!(input, QueueInput::Tick { .. }) {
                self.shard.do_send(ToQueue {
                    key: self.key,
                    input,
                });
            }
            return;
        }
        let tick = match &input {
            QueueInput::Tick { now_ms } => Some(*now_ms),
            _ => None,
        };
        if matches!(input, QueueInput::Closed(_)) && !self.closed {
            self.closed = true;
            self.end(ctx);
        }
        self.core.step(input, &mut self.effects);
        for effect in self.effects.drain(..) {
            match effect {
                Effect::Answer(token, outcome) => self.outbox.push(token, outcome),
                Effect::ToShard(input) => self.shard.do_send(ShardMail(input)),
                other => tracing::error!(?other, "a queue core asked for what it may not"),
            }
        }
        self.outbox.flush(&self.sinks);
        if tick.is_some_and(|now| self.core.is_idle(now, IDLE_MS)) && !self.closed {
            self.retired = true;
            self.shard.do_send(Retire {
                key: self.key,
                queue: ctx.address(),
            });
            self.end(ctx);
        }
    }
}
