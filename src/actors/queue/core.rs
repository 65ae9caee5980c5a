//! A topic queue on the leader as a pure state machine: assigns offsets when messages are
//! proposed, keeps their replies until the stage they wait for is reached, and holds the pulls
//! that found nothing.

use crate::actors::effect::Effect;
use crate::actors::shard::core::{AppendProposal, ShardInput};
use crate::model::append::{AppendBatch, ParkRequest};
use crate::model::outcome::{Outcome, Refusal, Token};
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
        }
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
                    p.token = Token::NONE;
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
mod tests {
    use super::*;
    use crate::model::append::{AppendRequest, RecordMeta};
    use crate::model::policy::AckPolicy;
    use crate::model::TopicId;

    fn token(slot: u64) -> Token {
        Token { sink: 0, slot }
    }
    fn batch(slots: &[(u64, u32)], policy: AckPolicy) -> AppendBatch {
        let mut b = AppendBatch::default();
        for (slot, count) in slots {
            b.requests.push(AppendRequest {
                token: token(*slot),
                count: *count,
                policy,
            });
            for _ in 0..*count {
                b.metas.push(RecordMeta {
                    size: 0,
                    tag: *slot as i32,
                });
            }
        }
        b
    }
    fn queue() -> QueueCore {
        QueueCore::new(QueueKey::new(TopicId(1), 0), 1, 10)
    }
    fn answers(out: &[Effect]) -> Vec<(u64, u64)> {
        out.iter()
            .filter_map(|e| match e {
                Effect::Answer(t, Outcome::Appended { base_offset, .. }) => {
                    Some((t.slot, *base_offset))
                }
                _ => None,
            })
            .collect()
    }
    const FIRST: Position = Position {
        index: 5,
        ordinal: 0,
    };

    #[test]
    fn offsets_follow_each_other_and_replies_wait_for_commit() {
        let mut q = queue();
        let mut out = Vec::new();
        q.step(
            QueueInput::Append {
                batch: batch(&[(1, 1), (2, 3)], AckPolicy::STRICTEST),
                fired: vec![],
            },
            &mut out,
        );
        q.step(
            QueueInput::Append {
                batch: batch(&[(3, 1)], AckPolicy::STRICTEST),
                fired: vec![],
            },
            &mut out,
        );
        let bases: Vec<u64> = out
            .iter()
            .filter_map(|e| match e {
                Effect::ToShard(ShardInput::Append(p)) => Some(p.base),
                _ => None,
            })
            .collect();
        assert_eq!(bases, [10, 14]);
        out.clear();
        let reached = |stage| QueueInput::Reached {
            stage,
            base: 10,
            count: 4,
            first: FIRST,
            tags: vec![],
        };
        q.step(reached(Stage::Appended), &mut out);
        assert!(
            answers(&out).is_empty(),
            "SYNC_MASTER does not answer at the leader's append"
        );
        q.step(reached(Stage::Committed), &mut out);
        assert_eq!(answers(&out), [(1, 10), (2, 11)]);
        assert_eq!(q.pending(), 1);
    }

    #[test]
    fn what_an_earlier_epoch_left_behind_closes_nothing() {
        let mut q = queue();
        let mut out = Vec::new();
        let abandoned = |epoch| QueueInput::Abandoned {
            epoch,
            why: Refusal::NotLeader,
        };
        q.step(abandoned(0), &mut out);
        assert!(!q.is_closed());
        q.step(abandoned(1), &mut out);
        assert!(q.is_closed());
    }

    #[test]
    fn async_master_is_answered_once_when_appended() {
        let mut q = queue();
        let mut out = Vec::new();
        q.step(
            QueueInput::Append {
                batch: batch(&[(1, 1)], AckPolicy::LEADER_APPENDED),
                fired: vec![],
            },
            &mut out,
        );
        for stage in [Stage::Appended, Stage::Committed] {
            q.step(
                QueueInput::Reached {
                    stage,
                    base: 10,
                    count: 1,
                    first: FIRST,
                    tags: vec![],
                },
                &mut out,
            );
        }
        assert_eq!(answers(&out), [(1, 10)]);
    }

    #[test]
    fn a_parked_pull_wakes_for_matching_data_once_or_at_its_deadline() {
        let mut q = queue();
        let mut out = Vec::new();
        let park = |slot, offset, tags: Option<Vec<i32>>| {
            QueueInput::Park(ParkRequest {
                token: token(slot),
                offset,
                deadline_ms: 100,
                tags: tags.map(Into::into),
            })
        };
        q.step(park(1, 9, None), &mut out);
        assert!(
            matches!(&out[..], [Effect::Answer(_, Outcome::Wake { data: true })]),
            "already there"
        );
        out.clear();
        q.step(park(2, 10, Some(vec![7])), &mut out);
        q.step(park(3, 10, Some(vec![8])), &mut out);
        q.step(park(4, 10, None), &mut out);
        q.step(
            QueueInput::Reached {
                stage: Stage::Committed,
                base: 10,
                count: 1,
                first: FIRST,
                tags: vec![7],
            },
            &mut out,
        );
        let woken: Vec<u64> = out
            .iter()
            .filter_map(|e| match e {
                Effect::Answer(t, Outcome::Wake { data: true }) => Some(t.slot),
                _ => None,
            })
            .collect();
        assert_eq!(woken, [2, 4]);
        out.clear();
        q.step(QueueInput::Tick { now_ms: 100 }, &mut out);
        assert!(
            matches!(&out[..], [Effect::Answer(t, Outcome::Wake { data: false })] if t.slot == 3)
        );
    }

    #[test]
    fn a_closed_queue_answers_everything_and_takes_nothing() {
        let mut q = queue();
        let mut out = Vec::new();
        let append = |slot| QueueInput::Append {
            batch: batch(&[(slot, 1)], AckPolicy::STRICTEST),
            fired: vec![],
        };
        q.step(append(1), &mut out);
        out.clear();
        q.step(QueueInput::Closed(Refusal::Indeterminate), &mut out);
        q.step(append(2), &mut out);
        let refusals: Vec<_> = out
            .iter()
            .filter_map(|e| match e {
                Effect::Answer(t, Outcome::Refused(why)) => Some((t.slot, why.clone())),
                _ => None,
            })
            .collect();
        assert_eq!(
            refusals,
            [(1, Refusal::Indeterminate), (2, Refusal::NotLeader)]
        );
    }
}
