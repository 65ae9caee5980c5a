//! The core's way to the shard: what is proposed, and what follows from its outcome. Pure.

use super::core::{Flight, GroupCore, StateOf};
use super::effect::{Answer, Effect, Request};
use super::locks::LockAnswer;
use super::offsets::Waiter;
use super::types::Committed;
use crate::actors::link::Notice;
use crate::model::command::{CommitOffsets, LockChange, LockedQueue, MetaOp};
use crate::model::outcome::Refusal;
use crate::model::GroupId;

impl GroupCore {
    /// Proposes what can be proposed now. Also the 200 ms tick while [`GroupCore::wants_flush`].
    pub fn propose(&mut self, now_ms: i64, out: &mut Vec<Effect>) {
        let Some(GroupId(group)) = self.group else {
            return;
        };
        // While the state is read, or has to be read first, nothing new starts.
        if self.state != StateOf::Known
            && (self.state != StateOf::Unknown || !self.waiting.is_empty())
        {
            return;
        }
        if let Some(batch) = self.offsets.next_batch(now_ms) {
            let id = self.fly(Flight::Offsets);
            let op = CommitOffsets {
                group,
                offsets: batch.offsets,
                reset: batch.reset,
            };
            out.push(Effect::Propose {
                id,
                op: MetaOp::CommitOffsets(op),
            });
        }
        while let Some(batch) = self.locks.next_batch(now_ms, self.room.is_ok()) {
            if batch.left_out > 0 {
                out.push(Effect::LeftOut(batch.left_out));
            }
            if batch.changes.is_empty() {
                self.answer_locks(batch.answers, out);
                continue;
            }
            self.propose_locks(group, batch.changes, out);
        }
    }

    fn propose_locks(&mut self, group: u32, queues: Vec<LockedQueue>, out: &mut Vec<Effect>) {
        let id = self.fly(Flight::Locks);
        let op = LockChange {
            group,
            queues,
            // The shard stamps it.
            at_ms: 0,
        };
        out.push(Effect::Propose {
            id,
            op: MetaOp::Locks(op),
        });
    }

    /// Locks that nobody renewed are taken out of the replicated state: who holds them says nothing
    /// any more, and they would be kept for ever.
    pub(super) fn drop_dead_locks(&mut self, now_ms: i64, out: &mut Vec<Effect>) {
        let Some(GroupId(group)) = self.group.filter(|_| self.state == StateOf::Known) else {
            return;
        };
        if let Some(batch) = self.locks.dead_batch(now_ms) {
            self.propose_locks(group, batch.changes, out);
        }
    }

    fn fly(&mut self, flight: Flight) -> u64 {
        let id = self.id();
        self.in_flight.insert(id, flight);
        id
    }

    pub(super) fn id(&mut self) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        id
    }

    /// The outcome of [`Effect::Propose`]. One that belongs to a deleted group is ignored.
    pub fn proposal_done(
        &mut self,
        id: u64,
        result: Result<u64, Refusal>,
        now_ms: i64,
        out: &mut Vec<Effect>,
    ) {
        let Some(flight) = self.in_flight.remove(&id) else {
            return;
        };
        match (flight, result) {
            (Flight::Offsets, Ok(_)) => self.offsets_applied(out),
            (Flight::Locks, Ok(_)) => {
                let answers = self.locks.applied();
                self.answer_locks(answers, out);
            }
            (flight, Err(refusal)) => self.proposal_refused(flight, &refusal, now_ms, out),
        }
        if let (Some(group), false) = (self.group, self.waiting.is_empty()) {
            self.load(group, out);
        }
        self.propose(now_ms, out);
    }

    fn offsets_applied(&mut self, out: &mut Vec<Effect>) {
        let Some(batch) = self.offsets.applied() else {
            return;
        };
        for waiter in &batch.waiters {
            if let (Waiter::Query { request, key }, true) = (waiter, self.state != StateOf::Known) {
                // The rest of the state was lost meanwhile: a smaller commit says nothing.
                self.waiting.push((*request, Request::Query { key: *key }));
                continue;
            }
            let answer = match waiter {
                Waiter::Commit { .. } => Answer::Committed(Committed::Applied),
                Waiter::Query { key, .. } => Answer::Offset(self.offsets.get(*key)),
                Waiter::Reset { .. } => Answer::Reset,
            };
            out.push(Effect::Answer {
                request: request_of(waiter),
                answer: Ok(answer),
            });
        }
        if let Some(topic) = batch.topic {
            out.push(Effect::PublishResets);
            let offsets = batch.offsets.iter().map(|o| (o.queue, o.offset)).collect();
            let notice = Notice::OffsetsReset {
                group: self.name.clone(),
                topic,
                offsets,
            };
            if !self.members.is_empty() {
                out.push(Effect::Notify {
                    conns: self.members.conns(),
                    notice,
                });
            }
        }
    }

    fn proposal_refused(
        &mut self,
        flight: Flight,
        refusal: &Refusal,
        now_ms: i64,
        out: &mut Vec<Effect>,
    ) {
        match flight {
            Flight::Offsets => {
                if let Some(batch) = self.offsets.refused(now_ms) {
                    refuse(waiting_requests(&batch.waiters), refusal, out);
                    if batch.reset {
                        out.push(Effect::PublishResets);
                    }
                }
            }
            Flight::Locks => refuse(self.locks.refused(), refusal, out),
        }
        if matches!(
            refusal,
            Refusal::NotLeader | Refusal::Indeterminate | Refusal::Unavailable(_)
        ) {
            // Somebody else may have changed the state, or this change may still happen: what
            // waits fails, and the state is read again before it is used.
            let had_resets = !self.offsets.redirects().is_empty();
            let mut failed = waiting_requests(&self.offsets.forget_applied(now_ms));
            failed.extend(self.locks.forget_applied());
            refuse(failed, refusal, out);
            if had_resets {
                out.push(Effect::PublishResets);
            }
            self.state = StateOf::Unknown;
        }
    }

    fn answer_locks(&mut self, answers: Vec<LockAnswer>, out: &mut Vec<Effect>) {
        for a in answers {
            let answer = Ok(a.held.map_or(Answer::Unlocked, Answer::Locked));
            out.push(Effect::Answer {
                request: a.request,
                answer,
            });
        }
    }
}

pub(super) fn request_of(waiter: &Waiter) -> u64 {
    match waiter {
        Waiter::Commit { request } | Waiter::Query { request, .. } | Waiter::Reset { request } => {
            *request
        }
    }
}

pub(super) fn waiting_requests(waiters: &[Waiter]) -> Vec<u64> {
    waiters.iter().map(request_of).collect()
}

pub(super) fn refuse(
    requests: impl IntoIterator<Item = u64>,
    refusal: &Refusal,
    out: &mut Vec<Effect>,
) {
    for request in requests {
        out.push(Effect::Answer {
            request,
            answer: Err(refusal.clone()),
        });
    }
}
