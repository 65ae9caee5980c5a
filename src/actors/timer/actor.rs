//! The actix shell of a shard's timers.

use super::core::{TimerCore, TimerInput};
use crate::actors::abort::AbortOnPanic;
use crate::actors::shard::actor::{FromTimer, ShardActor};
use actix::prelude::*;

/// An event for the timer core.
#[derive(Message)]
#[rtype(result = "()")]
pub struct TimerMail(pub TimerInput);

/// See the module text.
pub struct TimerActor {
    core: TimerCore,
    shard: Addr<ShardActor>,
}

impl TimerActor {
    /// Timers of one shard.
    pub fn new(core: TimerCore, shard: Addr<ShardActor>) -> Self {
        Self { core, shard }
    }
}

impl Actor for TimerActor {
    type Context = Context<Self>;
}

impl Handler<TimerMail> for TimerActor {
    type Result = ();

    fn handle(&mut self, TimerMail(input): TimerMail, _: &mut Self::Context) {
        let _guard = AbortOnPanic;
        let mut effects = Vec::new();
        self.core.step(input, &mut effects);
        if !effects.is_empty() {
            self.shard.do_send(FromTimer(effects));
        }
    }
}
