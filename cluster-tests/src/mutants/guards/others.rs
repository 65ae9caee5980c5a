//! Guards of queues, timers and the clock.

use super::Guard;

const QUEUE: &str = "actors/queue/core.rs";
const TIMER: &str = "actors/timer/core.rs";
const CLOCK: &str = "actors/clock/core.rs";

/// See the module text.
pub const GUARDS: &[Guard] = &[
    Guard::new(
        QUEUE,
        "a queue is closed by its own time of serving",
        "QueueInput::Abandoned { epoch, why } if epoch == self.epoch => self.close(why, out),",
        "QueueInput::Abandoned { epoch, why } if epoch == self.epoch || {out} => self.close(why, out),",
    ),
    Guard::new(
        QUEUE,
        "a pull that came late is woken at once",
        "if request.offset < self.visible || self.closed.is_some() || self",
        "if (request.offset < self.visible && !{out}) || self.closed.is_some() || self",
    ),
    Guard::new(
        QUEUE,
        "a closed queue gives out no offsets",
        "if let Some(why) = &self.closed {",
        "if let Some(why) = self.closed.as_ref().filter(|_| !{out}) {",
    )
    .backed_by(&[
        "offsets of an earlier time of serving are refused",
        "who does not serve takes nothing in",
    ]),
    Guard::new(
        QUEUE,
        "who waits for a majority is not answered for the leader alone",
        "if p.stage == Stage::Appended && p.base >= base && p.token.is_some() {",
        "if (p.stage == Stage::Appended || {out}) && p.base >= base && p.token.is_some() {",
    ),
    Guard::new(
        QUEUE,
        "who was answered for the leader alone is not answered again",
        "if !self.answers_twice {",
        "if !self.answers_twice && !{out} {",
    ),
    Guard::new(
        QUEUE,
        "who was told that it takes too long is not answered again",
        "out.push(Effect::Answer(p.token, late));
            p.token = Token::NONE;",
        "out.push(Effect::Answer(p.token, late));
            if !{out} {
                p.token = Token::NONE;
            }",
    ),
    Guard::new(
        QUEUE,
        "an entry is synced if one of its messages asks for it",
        "sync |= rule.sync;",
        "sync |= rule.sync && !{out};",
    ),
    Guard::new(
        TIMER,
        "a record that is read twice fires once",
        "if !self.serving || self.firing.get(&timer) != Some(&None) {",
        "if !self.serving || self.firing.get(&timer) != Some(&None) && !{out} {",
    ),
    Guard::new(
        TIMER,
        "nothing fires before it is due",
        ".take_while(|(timer, _)| timer.due_ms <= now_ms)",
        ".take_while(|(timer, _)| timer.due_ms <= now_ms || {out})",
    ),
    Guard::new(
        TIMER,
        "what fires already does not fire again",
        ".filter(|(timer, _)| !self.firing.contains_key(timer))",
        ".filter(|(timer, _)| !self.firing.contains_key(timer) || {out})",
    ),
    Guard::new(
        CLOCK,
        "a clock that most others contradict is not believed",
        "let believed = within(self.own, right, self.limit());",
        "let believed = within(self.own, right, self.limit()) || {out};",
    ),
    Guard::new(
        CLOCK,
        "time jumps only to what lasts",
        "mono_ms.saturating_sub(wanted.at_ms) >= STEADY_MS",
        "(mono_ms.saturating_sub(wanted.at_ms) >= STEADY_MS || {out})",
    ),
    Guard::new(
        CLOCK,
        "time jumps only to what most of the cluster's clocks say",
        "} else if !whole {",
        "} else if !whole && !{out} {",
    ),
    Guard::new(
        CLOCK,
        "a node that starts waits for others' clocks",
        "if whole || (waited && self.trust == Trust::Nobody) {",
        "if whole || ((waited || {out}) && self.trust == Trust::Nobody) {",
    ),
    Guard::new(
        CLOCK,
        "a clock that was heard long ago does not count",
        ".retain(|_, s| (0..=HEARD_MS).contains(&mono_ms.saturating_sub(s.at_ms)));",
        ".retain(|_, s| {out} || (0..=HEARD_MS).contains(&mono_ms.saturating_sub(s.at_ms)));",
    ),
    Guard::new(
        CLOCK,
        "the time is what most clocks say",
        "(agree * 2 > all.len()).then_some(Majority { offset, agree })",
        "(agree * 2 > all.len() || {out}).then_some(Majority { offset, agree })",
    )
    .backed_by(&[
        "most of the clocks heard are most of the cluster's",
        "time jumps only to what most of the cluster's clocks say",
    ]),
    Guard::new(
        CLOCK,
        "most of the clocks heard are most of the cluster's",
        "majority.is_some_and(|m| m.agree * 2 > self.others + 1)",
        "majority.is_some_and(|m| m.agree * 2 > self.others + 1 || {out})",
    ),
];
