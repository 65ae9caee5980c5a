//! Queue locks of one group (remoting-client §8.10). Pure.
//!
//! One lock command is in flight at a time, and who gets what is decided when the command is made:
//! every earlier decision is applied by then, so two holders cannot be.
//!
//! How long a lock lives is measured by this node's clock that nobody sets. What another leader
//! decided lives from when it was loaded here: its own stamp is of another clock, and who holds a
//! lock may have renewed it just before.

use super::offsets::Key;
use crate::model::command::LockedQueue;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A lock lives this long without renewal, ms.
pub const LOCK_MS: i64 = 60_000;
/// Most queues in one command, and in one request.
pub const MAX_BATCH: usize = 4_096;
/// Longest client id, bytes: as long as heartbeats may have it. With it a command stays far below
/// what one frame between nodes holds.
pub const MAX_CLIENT_ID: usize = 255;
/// Most requests that wait.
pub const MAX_WAITING: usize = 10_000;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Lock {
    client: String,
    /// When it was decided or loaded, by this node's monotonic clock.
    at_ms: i64,
    /// It was asked for here: one that was loaded may be of a client that went long ago.
    asked_here: bool,
}

impl Lock {
    fn live(&self, now_ms: i64) -> bool {
        now_ms.saturating_sub(self.at_ms) <= LOCK_MS
    }
}

#[derive(Debug)]
struct Ask {
    request: u64,
    client: String,
    keys: Vec<Key>,
    release: bool,
}

/// One answer of a lock command, valid once it is applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockAnswer {
    pub request: u64,
    /// Queues the client holds, in the order asked; `None` for a release.
    pub held: Option<Vec<Key>>,
}

/// A lock command to propose. With no `changes` the answers can be given at once.
#[derive(Debug, Clone, PartialEq)]
pub struct LockBatch {
    pub changes: Vec<LockedQueue>,
    /// When it was decided, by this node's monotonic clock.
    pub at_ms: i64,
    pub answers: Vec<LockAnswer>,
    /// Free queues that nobody got because there is no room for locks in further queues.
    pub left_out: u64,
}

/// See the module text.
#[derive(Debug, Default)]
pub struct Locks {
    applied: BTreeMap<Key, Lock>,
    asks: VecDeque<Ask>,
    in_flight: Option<LockBatch>,
}

impl Locks {
    /// Replaces the applied locks by what the shard has, with a whole life for each from now on.
    pub fn restore(&mut self, applied: impl IntoIterator<Item = (Key, String, i64)>, now_ms: i64) {
        self.applied = applied
            .into_iter()
            .filter(|(_, client, _)| !client.is_empty())
            .map(|(key, client, _)| {
                let lock = Lock {
                    client,
                    at_ms: now_ms,
                    asked_here: false,
                };
                (key, lock)
            })
            .collect();
    }

    /// Nothing waits or is in flight.
    pub fn is_idle(&self) -> bool {
        self.asks.is_empty() && self.in_flight.is_none()
    }

    /// Takes a lock (`release` false) or unlock request; `false`: too many wait.
    pub fn ask(&mut self, request: u64, client: String, keys: Vec<Key>, release: bool) -> bool {
        if self.asks.len() >= MAX_WAITING {
            return false;
        }
        self.asks.push_back(Ask {
            request,
            client,
            keys,
            release,
        });
        true
    }

    /// Who holds a live lock.
    pub fn holder(&self, key: Key, now_ms: i64) -> Option<&str> {
        self.applied
            .get(&key)
            .filter(|l| l.live(now_ms))
            .map(|l| l.client.as_str())
    }

    /// Any lock lives that a client asked for, or renewed, since the locks were loaded.
    pub fn any_asked_for(&self, now_ms: i64) -> bool {
        let mut all = self.applied.values();
        all.any(|lock| lock.asked_here && lock.live(now_ms))
    }

    /// Decides on the requests that wait, in order; stops before one that needs a queue an earlier
    /// request of this batch changes. Without `room` only queues are locked that were before.
    pub fn next_batch(&mut self, now_ms: i64, room: bool) -> Option<LockBatch> {
        if self.in_flight.is_some() || self.asks.is_empty() {
            return None;
        }
        let mut batch = LockBatch {
            changes: Vec::new(),
            at_ms: now_ms,
            answers: Vec::new(),
            left_out: 0,
        };
        let mut changed: BTreeSet<Key> = BTreeSet::new();
        while let Some(ask) = self.asks.front() {
            let full = batch.changes.len().saturating_add(ask.keys.len()) > MAX_BATCH;
            if !batch.answers.is_empty() && (full || ask.keys.iter().any(|k| changed.contains(k))) {
                break;
            }
            let Some(ask) = self.asks.pop_front() else {
                break;
            };
            let mut held = Vec::with_capacity(ask.keys.len());
            for key in &ask.keys {
                let holder = self.holder(*key, now_ms);
                let mine = holder == Some(ask.client.as_str());
                let act = if ask.release {
                    mine
                } else {
                    mine || holder.is_none()
                };
                if !act {
                    continue;
                }
                if !room && !self.applied.contains_key(key) {
                    batch.left_out += 1;
                    continue;
                }
                held.push(*key);
                if changed.insert(*key) {
                    let client = if ask.release {
                        String::new()
                    } else {
                        ask.client.clone()
                    };
                    batch.changes.push(LockedQueue {
                        topic: key.0,
                        queue: key.1,
                        client,
                    });
                }
            }
            let held = (!ask.release).then_some(held);
            batch.answers.push(LockAnswer {
                request: ask.request,
                held,
            });
        }
        if !batch.changes.is_empty() {
            self.in_flight = Some(batch.clone());
        }
        Some(batch)
    }

    /// A command that releases locks whose life is over; none while another one is in flight.
    pub fn dead_batch(&mut self, now_ms: i64) -> Option<LockBatch> {
        if self.in_flight.is_some() {
            return None;
        }
        let dead = self.applied.iter().filter(|(_, lock)| !lock.live(now_ms));
        let changes: Vec<_> = dead
            .take(MAX_BATCH)
            .map(|(key, _)| LockedQueue {
                topic: key.0,
                queue: key.1,
                client: String::new(),
            })
            .collect();
        if changes.is_empty() {
            return None;
        }
        let batch = LockBatch {
            changes,
            at_ms: now_ms,
            answers: Vec::new(),
            left_out: 0,
        };
        self.in_flight = Some(batch.clone());
        Some(batch)
    }

    /// The command in flight was applied: the answers to give.
    pub fn applied(&mut self) -> Vec<LockAnswer> {
        let Some(batch) = self.in_flight.take() else {
            return Vec::new();
        };
        for change in batch.changes {
            let key = (change.topic, change.queue);
            if change.client.is_empty() {
                self.applied.remove(&key);
            } else {
                self.applied.insert(
                    key,
                    Lock {
                        client: change.client,
                        at_ms: batch.at_ms,
                        asked_here: true,
                    },
                );
            }
        }
        batch.answers
    }

    /// The command in flight was refused: requests that fail.
    pub fn refused(&mut self) -> Vec<u64> {
        self.in_flight
            .take()
            .into_iter()
            .flat_map(|b| b.answers)
            .map(|a| a.request)
            .collect()
    }

    /// Who holds what is no longer known: hands out the requests that wait and are not in flight.
    pub fn forget_applied(&mut self) -> Vec<u64> {
        self.applied.clear();
        std::mem::take(&mut self.asks)
            .into_iter()
            .map(|a| a.request)
            .collect()
    }

    /// Everything is forgotten (the group is gone): requests that fail.
    pub fn clear(&mut self) -> Vec<u64> {
        let mut failed = self.refused();
        failed.extend(self.forget_applied());
        failed
    }
}
