//! A topic queue on the leader as a pure state machine: assigns offsets when messages are
//! proposed, keeps their replies until the stage they wait for is reached, and holds the pulls
//! that found nothing.

use crate::actors::effect::Effect;
use crate::actors::shard::core::{AppendProposal, ShardInput};
use crate::model::append::{AppendBatch, ParkRequest};
use crate::model::outcome::{Late, Outcome, Refusal, Token};
use crate::model::{Position, QueueKey};
use crate::raft::ack::{self, Stage};
use crate::raft::entry::TimerKey;
use std::collections::VecDeque;

/// The most pulls one queue holds; further ones are woken at once (reliability §8 row 14).
pub const MAX_PARKED: usize = 100_000;

/// Events of one queue.
#[derive(Debug, Clone)]
pub enum QueueInput {
    /// Messages to append. `fired` are timers whose records these are.
    Append {
        batch: AppendBatch,
        fired: Vec<TimerKey>,
    },
    /// Records `base..base + count`, the first at `first`, reached a stage.
    Reached {
        stage: Stage,
        base: u64,
        count: u32,
        first: Position,
        tags: Vec<i32>,
    },
    /// Records `base..base + count`, the first at `first`, are in the log and wait for too long.
    Late {
        why: Late,
        base: u64,
        count: u32,
        first: Position,
    },
    /// The topic vanished, or the replica stopped serving: everything pending is answered.
    Closed(Refusal),
    /// As [`QueueInput::Closed`], for the queue core of this serving epoch only: a later one may
    /// own the key by now.
    Abandoned {
        epoch: u64,
        why: Refusal,
    },
    Park(ParkRequest),
    Unpark(Vec<Token>),
    /// The shard's clock.
    Tick {
        now_ms: i64,
    },
}

#[derive(Debug, Clone, Copy)]
struct Pending {
    base: u64,
    token: Token,
    stage: Stage,
}

/// See the module text.
#[derive(Debug)]
pub struct QueueCore {
    key: QueueKey,
    epoch: u64,
    /// Offset the next proposed message gets.
    assigned: u64,
    /// Offset the next committed message gets.
    visible: u64,
    pending: VecDeque<Pending>,
    parked: Vec<ParkRequest>,
    /// Set once the queue may take nothing more in this term.
    closed: Option<Refusal>,
    idle_since_ms: Option<i64>,
    answers_twice: bool,
}

impl QueueCore {
    /// A queue of a leader in this serving epoch: `next` is the offset after the last applied
    /// message.
    pub fn new(key: QueueKey, epoch: u64, next: u64) -> Self {
        Self {
            key,
            epoch,
            assigned: next,
            visible: next,
            pending: VecDeque::new(),
            parked: Vec::new(),
            closed: None,
            idle_since_ms: None,
            answers_twice: false,
        }
    }

    /// Planted defect: who is answered when the leader has a message is answered again when a
    /// majority has it.
    #[must_use]
    pub fn that_answers_twice(mut self, twice: bool) -> Self {
        self.answers_twice = twice;
        self
    }

    /// Nothing is pending or parked since `now_ms - for_ms`.
    pub fn is_idle(&self, now_ms: i64, for_ms: i64) -> bool {
        self.idle_since_ms
            .is_some_and(|since| now_ms - since >= for_ms)
    }

    /// Takes nothing more.
    pub fn is_closed(&self) -> bool {
        self.closed.is_some()
    }

    /// Requests that wait for a stage.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Takes one event.
    pub fn step(&mut self, input: QueueInput, out: &mut Vec<Effect>) {
        match input {
            QueueInput::Append { batch, fired } => self.append(batch, fired, out),
            QueueInput::Reached {
                stage,
                base,
                count,
                first,
                tags,
            } => self.reached(stage, base, count, first, &tags, out),
            QueueInput::Late {
                why,
                base,
                count,
                first,
            } => self.late(why, base, count, first, out),
            QueueInput::Closed(why) => self.close(why, out),
            QueueInput::Abandoned { epoch, why } if epoch == self.epoch => self.close(why, out),
            QueueInput::Abandoned { .. } => {}
            QueueInput::Park(request) => self.park(request, out),
            QueueInput::Unpark(mut tokens) => {
                tokens.sort_unstable();
                self.parked
                    .retain(|p| tokens.binary_search(&p.token).is_err());
            }
            QueueInput::Tick { now_ms } => self.tick(now_ms, out),
        }
    }

    fn append(&mut self, batch: AppendBatch, fired: Vec<TimerKey>, out: &mut Vec<Effect>) {
        self.idle_since_ms = None;
        if let Some(why) = &self.closed {
            refuse_batch(&batch, why, out);
            return;
        }
        let records: u64 = batch.requests.iter().map(|r| u64::from(r.count)).sum();
        if records != batch.metas.len() as u64 || records == 0 {
            let why = Refusal::Invalid("request counts do not match the records".into());
            refuse_batch(&batch, &why, out);
            return;
        }
        let base = self.assigned;
        let mut sync = false;
        let mut early = false;
        for request in &batch.requests {
            let rule = ack::rule(request.policy);
            sync |= rule.sync;
            early |= rule.stage == Stage::Appended;
            self.pending.push_back(Pending {
                base: self.assigned,
                token: request.token,
                stage: rule.stage,
            });
            self.assigned += u64::from(request.count);
        }
        out.push(Effect::ToShard(ShardInput::Append(AppendProposal {
            key: self.key,
            epoch: self.epoch,
            base,
            metas: batch.metas,
            records: batch.records,
            sync,
            early,
            fired,
        })));
    }

    fn reached(
        &mut self,
        stage: Stage,
        base: u64,
        count: u32,
        first: Position,
        tags: &[i32],
        out: &mut Vec<Effect>,
    ) {
        let end = base + u64::from(count);
        let position = |p: &Pending| Position {
            index: first.index,
            ordinal: first.ordinal + (p.base - base) as u32,
        };
        if stage == Stage::Appended {
            for p in self.pending.iter_mut().take_while(|p| p.base < end) {
                if p.stage == Stage::Appended && p.base >= base && p.token.is_some() {
                    out.push(Effect::Answer(
                        p.token,
                        appended(self.key, p.base, position(p)),
                    ));
                    if !self.answers_twice {
                        p.token = Token::NONE;
                    }
                }
            }
            return;
        }
        while let Some(p) = self.pending.front().copied().filter(|p| p.base < end) {
            self.pending.pop_front();
            if p.token.is_some() {
                out.push(Effect::Answer(
                    p.token,
                    appended(self.key, p.base, position(&p)),
                ));
            }
        }
        self.visible = self.visible.max(end);
        let visible = self.visible;
        self.parked.retain(|parked| {
            if parked.offset >= visible || !wanted(parked, base, tags) {
                return true;
            }
            out.push(Effect::Answer(parked.token, Outcome::Wake { data: true }));
            false
        });
    }

    /// Whoever still waits for these records is told so; the records go on.
    fn late(&mut self, why: Late, base: u64, count: u32, first: Position, out: &mut Vec<Effect>) {
        let end = base + u64::from(count);
        let waiting = self.pending.iter_mut().take_while(|p| p.base < end);
        for p in waiting.filter(|p| p.base >= base && p.token.is_some()) {
            let position = Position {
                index: first.index,
                ordinal: first.ordinal + (p.base - base) as u32,
            };
            let base_offset = p.base;
            let late = Outcome::Late {
                why,
                base_offset,
                position,
            };
            out.push(Effect::Answer(p.token, late));
            p.token = Token::NONE;
        }
    }

    fn park(&mut self, request: ParkRequest, out: &mut Vec<Effect>) {
        self.idle_since_ms = None;
        // What was committed between the caller's look and this event wakes it at once.
        if request.offset < self.visible || self.closed.is_some() || self.parked.len() >= MAX_PARKED
        {
            let data = request.offset < self.visible;
            out.push(Effect::Answer(request.token, Outcome::Wake { data }));
        } else {
            self.parked.push(request);
        }
    }

    fn tick(&mut self, now_ms: i64, out: &mut Vec<Effect>) {
        self.parked.retain(|parked| {
            if parked.deadline_ms > now_ms {
                return true;
            }
            out.push(Effect::Answer(parked.token, Outcome::Wake { data: false }));
            false
        });
        if self.pending.is_empty() && self.parked.is_empty() {
            self.idle_since_ms.get_or_insert(now_ms);
        } else {
            self.idle_since_ms = None;
        }
    }

    fn close(&mut self, why: Refusal, out: &mut Vec<Effect>) {
        for p in self.pending.drain(..) {
            if p.token.is_some() {
                out.push(Effect::Answer(p.token, Outcome::Refused(why.clone())));
            }
        }
        for parked in self.parked.drain(..) {
            out.push(Effect::Answer(parked.token, Outcome::Wake { data: false }));
        }
        self.closed = Some(match why {
            Refusal::Indeterminate => Refusal::NotLeader,
            other => other,
        });
    }
}

/// Answers every request of a batch with a refusal.
pub fn refuse_batch(batch: &AppendBatch, why: &Refusal, out: &mut Vec<Effect>) {
    for request in batch.requests.iter().filter(|r| r.token.is_some()) {
        out.push(Effect::Answer(request.token, Outcome::Refused(why.clone())));
    }
}

fn appended(key: QueueKey, base_offset: u64, position: Position) -> Outcome {
    Outcome::Appended {
        queue: key.queue,
        base_offset,
        position,
    }
}

fn wanted(parked: &ParkRequest, base: u64, tags: &[i32]) -> bool {
    let Some(filter) = &parked.tags else {
        return true;
    };
    // Records below the parked offset were seen; anything at or above counts.
    let skip = parked.offset.saturating_sub(base) as usize;
    tags.iter()
        .skip(skip)
        .any(|tag| filter.binary_search(tag).is_ok())
}

#[cfg(test)]
#[path = "core_tests.rs"]
mod tests;
