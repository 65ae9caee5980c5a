//! Delayed messages as a pure state machine: knows what is due when, asks for the records that
//! are due, and hands them to their queues. A timer is gone only when its firing was applied.

use super::super::queue::core::QueueInput;
use crate::actors::effect::Effect;
use crate::actors::shard::core::ShardInput;
use crate::model::append::{AppendBatch, AppendRequest, RecordMeta};
use crate::model::outcome::Token;
use crate::model::policy::AckPolicy;
use crate::model::{record, QueueKey};
use crate::raft::entry::TimerKey;
use bytes::Bytes;
use std::collections::BTreeMap;

/// The most timers that are between "due" and "fired" at a time.
pub const MAX_FIRING: usize = 1024;
/// No more records are asked for while so many bytes of them are between "loaded" and "fired":
/// they are held in memory, and no permit covers them any more.
pub const MAX_FIRING_BYTES: usize = 16 << 20;

/// Events of the timer core.
#[derive(Debug, Clone)]
pub enum TimerInput {
    /// A delayed message was applied.
    Added {
        timer: TimerKey,
        target: QueueKey,
    },
    /// A firing was applied.
    Fired(TimerKey),
    /// This replica serves (in a new term) or stopped serving.
    Serving(bool),
    /// The record asked for; `None` when it could not be read.
    Loaded {
        timer: TimerKey,
        target: QueueKey,
        tag: i32,
        record: Option<Bytes>,
    },
    Tick {
        now_ms: i64,
    },
}

/// See the module text.
#[derive(Debug, Default)]
pub struct TimerCore {
    waiting: BTreeMap<TimerKey, QueueKey>,
    /// Timers asked for (`None`), or handed to their queue with so many bytes.
    firing: BTreeMap<TimerKey, Option<usize>>,
    firing_bytes: usize,
    serving: bool,
    /// The node's time at the last tick, ms.
    now_ms: i64,
    policy: Option<AckPolicy>,
}

impl TimerCore {
    /// `waiting` are the timers the state store holds; `policy` is the class firings are written in.
    pub fn new(waiting: impl IntoIterator<Item = (TimerKey, QueueKey)>, policy: AckPolicy) -> Self {
        Self {
            waiting: waiting.into_iter().collect(),
            policy: Some(policy),
            ..Self::default()
        }
    }

    /// Timers not fired yet.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// No timer waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Takes one event.
    pub fn step(&mut self, input: TimerInput, out: &mut Vec<Effect>) {
        match input {
            TimerInput::Added { timer, target } => {
                self.waiting.insert(timer, target);
            }
            TimerInput::Fired(timer) => {
                self.waiting.remove(&timer);
                let bytes = self.firing.remove(&timer).flatten().unwrap_or(0);
                self.firing_bytes = self.firing_bytes.saturating_sub(bytes);
            }
            TimerInput::Serving(serving) => {
                self.serving = serving;
                self.firing.clear();
                self.firing_bytes = 0;
            }
            TimerInput::Loaded {
                timer,
                target,
                tag,
                record,
            } => self.loaded(timer, target, tag, record, out),
            TimerInput::Tick { now_ms } => self.tick(now_ms, out),
        }
    }

    fn tick(&mut self, now_ms: i64, out: &mut Vec<Effect>) {
        self.now_ms = now_ms;
        if !self.serving || self.firing_bytes >= MAX_FIRING_BYTES {
            return;
        }
        let room = MAX_FIRING.saturating_sub(self.firing.len());
        let due: Vec<_> = self
            .waiting
            .iter()
            .take_while(|(timer, _)| timer.due_ms <= now_ms)
            .filter(|(timer, _)| !self.firing.contains_key(timer))
            .take(room)
            .map(|(timer, target)| (*timer, *target))
            .collect();
        if due.is_empty() {
            return;
        }
        self.firing
            .extend(due.iter().map(|(timer, _)| (*timer, None)));
        out.push(Effect::LoadScheduled(due));
    }

    fn loaded(
        &mut self,
        timer: TimerKey,
        target: QueueKey,
        tag: i32,
        loaded: Option<Bytes>,
        out: &mut Vec<Effect>,
    ) {
        // An answer from before leadership was lost must not fire, nor may a second answer.
        if !self.serving || self.firing.get(&timer) != Some(&None) {
            return;
        }
        let full = self.firing_bytes >= MAX_FIRING_BYTES;
        let Some(loaded) = loaded.filter(|_| !full) else {
            // Not now; a later tick asks again.
            self.firing.remove(&timer);
            return;
        };
        self.firing.insert(timer, Some(loaded.len()));
        self.firing_bytes += loaded.len();
        let mut bytes = loaded.to_vec();
        record::stamp_dequeued(&mut bytes, self.now_ms);
        let batch = AppendBatch {
            requests: vec![AppendRequest {
                token: Token::NONE,
                count: 1,
                policy: self.policy.unwrap_or(AckPolicy::STRICTEST),
            }],
            metas: vec![RecordMeta {
                size: bytes.len() as u32,
                tag,
            }],
            records: bytes,
        };
        out.push(Effect::ToQueue(
            target,
            QueueInput::Append {
                batch,
                fired: vec![timer],
            },
        ));
    }
}

/// What becomes of a firing whose queue is gone: the timer ends without a message.
pub fn orphans(fired: Vec<TimerKey>) -> Option<Effect> {
    (!fired.is_empty()).then(|| Effect::ToShard(ShardInput::Orphans(fired)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Position, TopicId};

    fn timer(due_ms: i64) -> TimerKey {
        TimerKey {
            due_ms,
            position: Position {
                index: 1,
                ordinal: due_ms as u32,
            },
        }
    }
    const TARGET: QueueKey = QueueKey {
        topic: TopicId(1),
        queue: 0,
    };

    #[test]
    fn nothing_fires_early_twice_or_while_not_serving() {
        let mut t = TimerCore::new(
            [(timer(100), TARGET), (timer(200), TARGET)],
            AckPolicy::STRICTEST,
        );
        let mut out = Vec::new();
        t.step(TimerInput::Tick { now_ms: 500 }, &mut out);
        assert!(out.is_empty(), "a follower fires nothing");
        t.step(TimerInput::Serving(true), &mut out);
        t.step(TimerInput::Tick { now_ms: 99 }, &mut out);
        assert!(out.is_empty());
        t.step(TimerInput::Tick { now_ms: 100 }, &mut out);
        t.step(TimerInput::Tick { now_ms: 150 }, &mut out);
        assert!(
            matches!(&out[..], [Effect::LoadScheduled(due)] if due[..] == [(timer(100), TARGET)])
        );
        out.clear();
        t.step(
            TimerInput::Loaded {
                timer: timer(100),
                target: TARGET,
                tag: 0,
                record: Some(Bytes::from_static(b"r")),
            },
            &mut out,
        );
        assert!(
            matches!(&out[..], [Effect::ToQueue(_, QueueInput::Append { fired, .. })] if fired[..] == [timer(100)])
        );
        assert_eq!(t.len(), 2, "gone only when applied");
        t.step(TimerInput::Fired(timer(100)), &mut out);
        assert_eq!(t.len(), 1);
    }

    #[test]
    fn bytes_under_way_are_bounded_and_a_second_answer_fires_nothing() {
        let due = |n| (timer(n), TARGET);
        let mut t = TimerCore::new([due(1), due(2), due(3)], AckPolicy::STRICTEST);
        let loaded = |n, record| TimerInput::Loaded {
            timer: timer(n),
            target: TARGET,
            tag: 0,
            record,
        };
        let big = || Some(Bytes::from(vec![0; MAX_FIRING_BYTES]));
        let mut out = Vec::new();
        t.step(TimerInput::Serving(true), &mut out);
        t.step(TimerInput::Tick { now_ms: 5 }, &mut out);
        out.clear();
        t.step(loaded(1, big()), &mut out);
        assert_eq!(out.len(), 1);
        t.step(loaded(1, big()), &mut out);
        assert_eq!(out.len(), 1, "answered twice, handed over once");
        t.step(loaded(2, big()), &mut out);
        t.step(loaded(3, None), &mut out);
        t.step(TimerInput::Tick { now_ms: 6 }, &mut out);
        assert_eq!(out.len(), 1, "no room");
        t.step(TimerInput::Fired(timer(1)), &mut out);
        t.step(TimerInput::Tick { now_ms: 7 }, &mut out);
        assert!(
            matches!(&out[1..], [Effect::LoadScheduled(again)] if again[..] == [due(2), due(3)])
        );
    }

    #[test]
    fn a_timer_message_is_told_when_it_was_dequeued() {
        let due = 1_800_000_000_000;
        let mut t = TimerCore::new([(timer(due), TARGET)], AckPolicy::STRICTEST);
        let mut out = Vec::new();
        t.step(TimerInput::Serving(true), &mut out);
        t.step(TimerInput::Tick { now_ms: due + 42 }, &mut out);
        out.clear();
        t.step(
            TimerInput::Loaded {
                timer: timer(due),
                target: TARGET,
                tag: 0,
                record: Some(Bytes::from_static(
                    b"r\x02TIMER_DEQUEUE_MS\x011800000000000\x02",
                )),
            },
            &mut out,
        );
        let [Effect::ToQueue(_, QueueInput::Append { batch, .. })] = &out[..] else {
            panic!("{out:?}");
        };
        assert_eq!(batch.records, b"r\x02TIMER_DEQUEUE_MS\x011800000000042\x02");
    }

    #[test]
    fn a_lost_term_fires_again_after_a_new_one() {
        let mut t = TimerCore::new([(timer(1), TARGET)], AckPolicy::STRICTEST);
        let mut out = Vec::new();
        t.step(TimerInput::Serving(true), &mut out);
        t.step(TimerInput::Tick { now_ms: 5 }, &mut out);
        t.step(TimerInput::Serving(false), &mut out);
        out.clear();
        t.step(
            TimerInput::Loaded {
                timer: timer(1),
                target: TARGET,
                tag: 0,
                record: Some(Bytes::from_static(b"r")),
            },
            &mut out,
        );
        assert!(out.is_empty(), "a late answer is dropped");
        t.step(TimerInput::Serving(true), &mut out);
        t.step(TimerInput::Tick { now_ms: 5 }, &mut out);
        assert_eq!(out.len(), 1);
    }
}
