//! Clocks of the nodes: the machine's, which may be set, and the node's own time, which goes by what
//! most machines say. True time is the world's; a clock that is right is seconds off at most.

use crate::defects::Planted;
use crate::schedule::Event;
use crate::seen::Seen;
use crate::sim::Sim;
use troupemq::actors::clock::core::{ClockCore, Event as Told};

/// True time begins here, ms.
const EPOCH_MS: i64 = 1_700_000_000_000;
/// A clock takes so long to another node, microseconds.
const CLOCK_US: u64 = 1_000;
/// A jump is ten minutes at least, and two days at most.
const LEAST_JUMP_MS: i64 = 600_000;
const JUMP_FACTOR: i64 = 17_000;
/// In the end all clocks are at least so far ahead, ms.
const LAST_AHEAD_MS: i64 = 30_000;
/// A node whose clock was set far goes on by its own rate, as long as it is no further than 1 s from what
/// most clocks say, and they are heard a tick later.
const HELD_ROUGHLY_MS: i64 = 1_100;
/// One that is stopped hears nothing for up to a minute, and its clock that nobody sets runs by up to a quarter too
/// fast meanwhile.
const STOPPED_MS: i64 = 16_000;

impl Sim {
    fn true_ms(&self) -> i64 {
        EPOCH_MS + (self.schedule.now_us() / 1000) as i64
    }

    /// A clock that nobody sets.
    pub fn mono_ms(&self) -> i64 {
        let now_ms = self.schedule.now_us() / 1000;
        match self.plan.extra.drift {
            true => self.rhythm().own_ms(now_ms) as i64,
            false => now_ms as i64,
        }
    }

    /// How far the clock of a node has run ahead since the beginning; it runs well when all is over.
    fn drift_ms(&self, node: usize) -> i64 {
        if !self.plan.extra.drift {
            return 0;
        }
        let until = self.settling.unwrap_or(self.schedule.now_us()) / 1000;
        self.rhythm_of(node).own_ms(until) as i64 - until as i64
    }

    /// The machine's clock, had nobody set it.
    pub fn clock_ms(&self) -> i64 {
        self.true_ms() + self.ahead_ms()
    }

    /// How far the clock here is ahead, had nobody set it.
    fn ahead_ms(&self) -> i64 {
        self.skew_ms + self.drift_ms(self.here())
    }

    /// All clocks are ahead of what any said: one that was set back, or is slow, would hold delayed
    /// messages for longer than we wait.
    pub(crate) fn set_ahead(&mut self) {
        self.skew_ms = self.skew_ms.max(LAST_AHEAD_MS);
        if self.plan.extra.drift {
            let ahead = self.most_ahead_ms.max(LAST_AHEAD_MS);
            self.skew_ms = ahead - self.drift_ms(self.here());
        }
        self.most_ahead_ms = self.most_ahead_ms.max(self.ahead_ms());
    }

    /// Whoever comes to lead has its clock set.
    pub(crate) fn step_as_it_leads(&mut self) {
        if self.plan.extra.steps && !self.is_calm() && self.extra.rng.chance(1, 3) {
            self.counters.clock_steps += 1;
            let by = self.extra.rng.below(20_000) as i64 - 10_000;
            self.set_clock(by);
        }
    }

    fn wall_ms(&self) -> i64 {
        self.clock_ms() + self.jump_ms
    }

    /// Checkers are shown the latest that any clock can say that is right: what happens before its
    /// time by that is early.
    pub fn see_clock(&mut self) {
        if self.plan.extra.drift {
            self.most_ahead_ms = self.most_ahead_ms.max(self.ahead_ms());
        }
        let mut now_ms = self.true_ms() + self.most_ahead_ms;
        if self.plan.extra.drift {
            now_ms += HELD_ROUGHLY_MS;
            let stops = self.plan.extra.long_pauses + self.plan.net.pauses + self.plan.extra.slow;
            now_ms += if stops > 0 { STOPPED_MS } else { 0 };
        }
        self.see(Seen::Clock { now_ms });
    }

    /// The clock of a process that starts. Links open with a ping: whoever runs and is reached is
    /// heard at once. At the beginning all start together.
    pub fn new_clock(&self) -> ClockCore {
        let mono_ms = self.mono_ms();
        let mut clock = ClockCore::new(self.nodes() - 1, mono_ms, self.wall_ms());
        let Some(group) = &self.group else {
            return clock;
        };
        for (n, place) in group.places.iter().enumerate() {
            let runs = place.node.is_some() || mono_ms == 0;
            if n != group.here && runs && !group.is_cut(n, group.here) {
                let ahead_ms = place.skew_ms + self.drift_ms(n);
                let wall_ms = self.true_ms() + ahead_ms + place.jump_ms;
                clock.heard(n as u64 + 1, wall_ms, mono_ms);
            }
        }
        clock
    }

    fn settled(&self) -> Option<&ClockCore> {
        let clock = self.node.as_ref().map(|node| &node.clock);
        clock.filter(|_| self.defect != Some(Planted::RawClock))
    }

    /// The node's time, for stamps.
    pub fn node_ms(&self) -> i64 {
        let mono_ms = self.mono_ms();
        let clock = self.settled();
        clock.map_or_else(|| self.wall_ms(), |clock| clock.now_ms(mono_ms))
    }

    /// The node's time, for what happens when it is due.
    pub fn due_ms(&self) -> i64 {
        match self.settled() {
            Some(clock) if !clock.is_settled() => 0,
            _ => self.node_ms(),
        }
    }

    /// A tick of the shard.
    pub fn look_at_clock(&mut self) {
        let (mono_ms, wall_ms) = (self.mono_ms(), self.wall_ms());
        let Some(node) = &mut self.node else { return };
        let told = node.clock.look(mono_ms, wall_ms);
        let held = matches!(told, Some(Told::Held { .. }));
        self.counters.clocks_held += u64::from(held);
    }

    /// The node here tells the others what its machine says.
    pub fn tell_clock(&mut self) {
        if self.node.is_none() {
            return;
        }
        let (from, wall_ms) = (self.here(), self.wall_ms());
        for to in (0..self.nodes()).filter(|to| *to != from) {
            let clock = Event::Clock { from, to, wall_ms };
            self.schedule.after(CLOCK_US, clock);
        }
    }

    /// Another's clock arrives, unless the line is cut.
    pub fn clock_heard(&mut self, from: usize, to: usize, wall_ms: i64) {
        let cut = self.group.as_ref().is_some_and(|g| g.is_cut(from, to));
        if cut || self.is_silent(from, to) {
            return;
        }
        let mono_ms = self.mono_ms();
        if let Some(node) = &mut self.node {
            node.clock.heard(from as u64 + 1, wall_ms, mono_ms);
        }
    }

    /// The machine's clock is set: somewhat off, or far; then only where most are right.
    pub fn set_clock(&mut self, by_ms: i64) {
        let far = by_ms % 3 == 0 && self.may_be_far_off();
        if far && self.jump_ms == 0 {
            self.counters.clocks_far_off += 1;
            self.jump_ms = by_ms.signum() * LEAST_JUMP_MS + by_ms * JUMP_FACTOR;
        } else if far {
            self.jump_ms = 0;
        } else {
            self.skew_ms += by_ms;
            self.most_ahead_ms = self.most_ahead_ms.max(self.skew_ms);
        }
        self.see_clock();
    }

    fn may_be_far_off(&self) -> bool {
        let Some(group) = &self.group else {
            return false;
        };
        let others = group.places.iter().enumerate();
        let off = others.filter(|(n, place)| *n != group.here && place.jump_ms != 0);
        off.count() < (group.places.len() - 1) / 2
    }
}
