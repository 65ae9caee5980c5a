//! What clients are told, and what they make of it. Nobody is told twice, whether or not anybody looks
//! any more.

use crate::clients::Waiting;
use crate::defects::Planted;
use crate::seen::Seen;
use crate::sim::Sim;
use std::collections::BTreeMap;
use troupemq::model::outcome::{Outcome, Refusal, Token};
use troupemq::model::policy::{AckPolicy, FlushPolicy, MasterPolicy};
use troupemq::model::Position;

impl Sim {
    /// An answer arrives at its client.
    pub fn answered(&mut self, token: Token, outcome: Outcome) {
        let Some((_, waiting)) = self.take_answer(token.slot) else {
            return;
        };
        match (waiting, outcome) {
            (Waiting::Forwarded { from }, outcome) => self.forwarded(from, outcome),
            // It took too long; the entry goes on, and nothing more is said of it.
            (
                waiting @ (Waiting::Send { .. }
                | Waiting::Schedule { .. }
                | Waiting::SendBack { .. }),
                Outcome::Late { .. },
            ) => {
                self.counters.late += 1;
                self.told(waiting, false);
            }
            (
                Waiting::Send { uids, policy, .. },
                Outcome::Appended {
                    base_offset,
                    position,
                    ..
                },
            ) => {
                for (i, uid) in (0u64..).zip(uids) {
                    let at = Position {
                        ordinal: position.ordinal + i as u32,
                        ..position
                    };
                    self.acked(uid, at, Some(base_offset + i), policy);
                }
            }
            (Waiting::Schedule { uid, policy }, Outcome::Scheduled { position }) => {
                self.acked(uid, position, None, policy);
            }
            (Waiting::SendBack { uid, policy }, Outcome::Scheduled { position }) => {
                self.acked(uid, position, None, policy);
                self.back_told(uid, true);
            }
            (
                Waiting::SendBack { uid, policy },
                Outcome::Appended {
                    base_offset,
                    position,
                    ..
                },
            ) => {
                self.acked(uid, position, Some(base_offset), policy);
                self.back_told(uid, true);
            }
            (Waiting::Park(pull), Outcome::Wake { data }) => {
                let (key, offset) = (pull.key, pull.offset);
                if !data {
                    self.pull_ended(&pull);
                }
                if data
                    && self.view.bounds(key).1 <= offset
                    && self.view.topic_names.contains_key(&key.topic.0)
                {
                    self.fail(
                        "I6",
                        format!("a pull of {key:?} at {offset} was woken for nothing"),
                    );
                }
                let count = if data {
                    &mut self.counters.woken_by_data
                } else {
                    &mut self.counters.woken_by_time
                };
                *count += 1;
            }
            (waiting, Outcome::Refused(why)) => {
                if self.group.is_some() {
                    self.counters.followers_refuse += u64::from(why == Refusal::NotLeader);
                    self.counters.lead_lost_in_flight += u64::from(why == Refusal::Indeterminate);
                }
                let definite = self.is_definite(&why);
                self.unanswered(waiting, definite);
            }
            (waiting, outcome) => self.fail("answers", format!("{outcome:?} to {waiting:?}")),
        }
    }

    fn is_definite(&self, why: &Refusal) -> bool {
        *why != Refusal::Indeterminate || self.defect == Some(Planted::UnknownToldAsRefused)
    }

    /// An answer to this request; who waits for it still.
    fn take_answer(&mut self, slot: u64) -> Option<(usize, Waiting)> {
        if self.clients.owed.remove(&slot).is_none() {
            let what = format!("request {slot} is answered twice, or was never asked");
            self.fail("I7", what);
        }
        self.clients.waiting.remove(&slot)
    }

    /// A message is stored, as its class asks.
    pub(crate) fn acked(&mut self, uid: u64, at: Position, offset: Option<u64>, policy: AckPolicy) {
        self.counters.acked += 1;
        let node = self.here();
        // One replica has it; whether it stays is open.
        let alone = self.group.is_some() && policy.master == MasterPolicy::Async;
        self.counters.acked_alone += u64::from(alone);
        if !alone {
            self.probed(uid);
        }
        let applied = policy.master == MasterPolicy::Sync && offset.is_some();
        if applied && !self.clients.committed.contains(&uid) {
            let what = format!("message {uid} was acknowledged at {at:?}, and is in no queue");
            return self.fail("I1", what);
        }
        if policy.flush == FlushPolicy::Async && self.group.is_some() {
            // What was just answered is on no disk yet.
            self.power_fails(1, 100);
        }
        self.see(match alone {
            true => Seen::AckedAlone {
                uid,
                node,
                at,
                offset,
            },
            false => Seen::Acked { uid, at, offset },
        });
    }

    /// A proposal's answer. It counts whether or not anybody looks any more.
    pub fn proposed(&mut self, id: u64, result: Result<u64, Refusal>) {
        if id == 0 {
            return;
        }
        self.take_answer(id);
        self.see_proposed(id, &result);
    }

    /// What became of a proposal.
    pub(crate) fn see_proposed(&mut self, id: u64, result: &Result<u64, Refusal>) {
        match result {
            Ok(index) => {
                self.decided_in_time(id);
                self.counters.changes_done += 1;
                let index = *index;
                self.see(Seen::Done { id, index });
            }
            Err(why) if self.is_definite(why) => {
                self.counters.changes_refused += 1;
                self.see(Seen::NotDone { id });
            }
            Err(_) => {}
        }
    }

    fn unanswered(&mut self, waiting: Waiting, definite: bool) {
        if let Waiting::Send { key, producer, .. } = &waiting {
            if self.rng.chance(1, 2) {
                self.clients.retries.push((*producer, *key));
            }
        } else if let Waiting::Schedule { .. } = &waiting {
            // The same draw for both kinds.
            self.rng.chance(1, 2);
        }
        if !definite {
            self.note_again(&waiting);
        }
        self.told(waiting, definite);
    }

    fn told(&mut self, waiting: Waiting, definite: bool) {
        let uids = match waiting {
            Waiting::Send { uids, .. } => uids,
            Waiting::Schedule { uid, .. } => vec![uid],
            Waiting::SendBack { uid, .. } => {
                self.back_told(uid, false);
                vec![uid]
            }
            Waiting::Park(_) | Waiting::Command { .. } | Waiting::Forwarded { .. } => return,
        };
        for uid in uids {
            let count = if definite {
                &mut self.counters.refused
            } else {
                &mut self.counters.unknown
            };
            *count += 1;
            self.see(if definite {
                Seen::Refused { uid }
            } else {
                Seen::Unknown { uid }
            });
        }
    }

    /// A client's patience is over.
    pub fn timed_out(&mut self, slot: u64) {
        if let Some((_, waiting)) = self.clients.waiting.remove(&slot) {
            self.unanswered(waiting, false);
        }
    }

    /// All clients of the node here lose their connections, and it goes on with what they asked.
    pub fn hang_up(&mut self) {
        let here = self.here();
        let all = std::mem::take(&mut self.clients.waiting);
        let (gone, stay) = all.into_iter().partition(|(_, (node, waiting))| {
            // Whoever pipelines goes on, or other nodes ask for it.
            *node == here && !matches!(waiting, Waiting::Forwarded { .. })
        });
        self.clients.waiting = stay;
        let gone: BTreeMap<u64, (usize, Waiting)> = gone;
        for (_, (_, waiting)) in gone {
            self.unanswered(waiting, false);
        }
    }

    /// The node went away: nobody gets an answer.
    pub fn disconnected(&mut self) {
        let here = self.here();
        self.clients.owed.retain(|_, node| *node != here);
        self.members_disconnected();
        self.doors_disconnected();
        let all = std::mem::take(&mut self.clients.waiting);
        let (gone, stay) = all.into_iter().partition(|(_, (node, _))| *node == here);
        self.clients.waiting = stay;
        let gone: BTreeMap<u64, (usize, Waiting)> = gone;
        for (_, (_, waiting)) in gone {
            if let Waiting::Send { uids, key, .. } = &waiting {
                self.clients.ghosts.push((*key, uids.clone()));
            }
            self.unanswered(waiting, false);
        }
    }
}
