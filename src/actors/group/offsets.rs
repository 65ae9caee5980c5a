//! Consumer offsets of one group: what is applied, what is on its way, what waits. Pure.
//!
//! At most one offset command is in flight, so the order of commands is the order of decisions.
//! An operator's reset goes before waiting commits.

use crate::model::command::QueueOffset;
use std::collections::{BTreeMap, BTreeSet};

/// (topic id, queue).
pub type Key = (u32, u32);

/// One-way commits wait at most about this long, ms.
pub const COALESCE_MS: i64 = 200;
/// After a refusal, commits are offered again no sooner than this, ms.
pub const RETRY_MS: i64 = 1_000;
/// One-way commits are given up when they were refused for this long, ms, …
pub const GIVE_UP_MS: i64 = 60_000;
/// … and this often in a row.
pub const GIVE_UP_AFTER: u32 = 30;
/// Most offsets in one command.
pub const MAX_BATCH: usize = 4_096;

/// Who waits for an offset command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiter {
    /// A two-way commit.
    Commit { request: u64 },
    /// A query that must see the commit before it.
    Query { request: u64, key: Key },
    /// A reset.
    Reset { request: u64 },
}

/// An offset command to propose.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    pub offsets: Vec<QueueOffset>,
    pub reset: bool,
    /// For a reset: the topic's name.
    pub topic: Option<String>,
    pub waiters: Vec<Waiter>,
}

#[derive(Debug)]
struct PendingReset {
    waiters: Vec<Waiter>,
    /// `None`: a client set its own offset back; nobody is told and later commits count.
    topic: Option<String>,
    offsets: Vec<(Key, u64)>,
}

impl PendingReset {
    fn names(&self, key: Key) -> bool {
        self.offsets.iter().any(|(k, _)| *k == key)
    }
}

/// See the module text.
#[derive(Debug, Default)]
pub struct Offsets {
    applied: BTreeMap<Key, u64>,
    waiting: BTreeMap<Key, u64>,
    /// Time of the oldest waiting one-way commit.
    waiting_since_ms: Option<i64>,
    waiters: Vec<(Key, Waiter)>,
    resets: Vec<PendingReset>,
    in_flight: Option<Batch>,
    /// Queues an operator reset, until a client pulls from the new position.
    moved: BTreeMap<Key, u64>,
    not_before_ms: i64,
    failing_since_ms: Option<i64>,
    failures: u32,
}

impl Offsets {
    /// Replaces the applied offsets by what the shard has.
    pub fn restore(&mut self, applied: impl IntoIterator<Item = (Key, u64)>) {
        self.applied = applied.into_iter().collect();
        let (applied, resets) = (&self.applied, &self.resets);
        let owed: BTreeSet<Key> = self.waiters.iter().map(|(key, _)| *key).collect();
        // What waits behind a set-back counts from there, not from what is applied now.
        self.waiting.retain(|key, offset| {
            owed.contains(key)
                || resets.iter().any(|r| r.names(*key))
                || applied.get(key).is_none_or(|a| a < offset)
        });
    }

    /// Nothing waits or is in flight. Pending resets do not count: with no member online nobody
    /// commits old offsets, and whoever joins starts at the new one.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.resets.is_empty() && self.in_flight.is_none()
    }

    /// Something waits to be proposed.
    pub fn has_waiting(&self) -> bool {
        !self.waiting.is_empty() || !self.resets.is_empty()
    }

    /// Takes a commit; `false`: a reset of this queue is pending, the commit is ignored.
    pub fn commit(&mut self, key: Key, offset: u64, request: Option<u64>, now_ms: i64) -> bool {
        if self.moved.contains_key(&key) {
            return false;
        }
        let stale = self.newest(key).is_some_and(|newest| newest >= offset);
        if let Some(request) = request {
            // Goes into the log even when it changes nothing: its answer then proves leadership.
            let slot = self.waiting.entry(key).or_insert(offset);
            *slot = offset.max(*slot);
            self.waiters.push((key, Waiter::Commit { request }));
            self.waiting_since_ms.get_or_insert(now_ms);
        } else if !stale {
            self.waiting.insert(key, offset);
            self.waiting_since_ms.get_or_insert(now_ms);
        }
        true
    }

    /// Answers a query at once (`Some`), or keeps it until the newer commit before it is applied.
    pub fn query(&mut self, key: Key, request: u64) -> Option<Option<u64>> {
        let waiter = Waiter::Query { request, key };
        let resetting = self.resets.iter().any(|r| r.names(key));
        if resetting || self.waiting.contains_key(&key) {
            self.waiters.push((key, waiter));
            return None;
        }
        if let Some(batch) = &mut self.in_flight {
            if batch.offsets.iter().any(|o| (o.topic, o.queue) == key) {
                batch.waiters.push(waiter);
                return None;
            }
        }
        Some(self.applied.get(&key).copied())
    }

    /// Takes an operator's reset: from now on commits of these queues are ignored.
    pub fn reset(&mut self, topic: String, offsets: Vec<(Key, u64)>, request: u64) -> Vec<Waiter> {
        let mut overtaken = Vec::new();
        for (key, offset) in &offsets {
            self.waiting.remove(key);
            self.moved.insert(*key, *offset);
        }
        // Two-way commits overtaken by the reset are ignored like later ones; queries wait for it.
        let keys: BTreeSet<Key> = offsets.iter().map(|(k, _)| *k).collect();
        self.waiters.retain(|(key, waiter)| {
            let drop = keys.contains(key) && matches!(waiter, Waiter::Commit { .. });
            if drop {
                overtaken.push(*waiter);
            }
            !drop
        });
        self.resets.push(PendingReset {
            waiters: vec![Waiter::Reset { request }],
            topic: Some(topic),
            offsets,
        });
        overtaken
    }

    /// Whether a commit of `offset` has to be set to be true: it is behind what was committed, or
    /// a set-back on its way may still be refused.
    pub fn goes_back(&self, key: Key, offset: u64) -> bool {
        self.resetting(key) || self.newest(key).is_some_and(|newest| offset < newest)
    }

    /// The offset the queue will have once everything on its way is applied.
    pub(super) fn newest(&self, key: Key) -> Option<u64> {
        let waiting = self.waiting.get(&key).copied();
        let set = self.resets.iter().rev().find_map(|r| {
            let of = r.offsets.iter().find(|(k, _)| *k == key);
            of.map(|(_, offset)| *offset)
        });
        if set.is_some() {
            return waiting.max(set);
        }
        let flying = self.in_flight_offset(key);
        if flying.is_some() && self.in_flight.as_ref().is_some_and(|b| b.reset) {
            return waiting.max(flying);
        }
        waiting.max(flying).max(self.applied.get(&key).copied())
    }

    /// A client sets its own offset back, which it asked for (decision 6). `false`: an operator's
    /// reset of this queue is pending, it is ignored.
    pub fn set_back(&mut self, key: Key, offset: u64, request: Option<u64>) -> bool {
        if self.moved.contains_key(&key) {
            return false;
        }
        self.waiting.remove(&key);
        let mut waiters: Vec<Waiter> = Vec::new();
        // Commits this one overtakes are done with it; queries wait for it.
        self.waiters.retain(|(k, waiter)| {
            let take = *k == key && matches!(waiter, Waiter::Commit { .. });
            if take {
                waiters.push(*waiter);
            }
            !take
        });
        waiters.extend(request.map(|request| Waiter::Commit { request }));
        // One command for all that wait, and one offset a queue: bounded by the queues.
        let asked_before = self.resets.iter().position(|r| r.names(key));
        let at = asked_before.or_else(|| {
            let last = self.resets.last()?;
            let room = last.topic.is_none() && last.offsets.len() < MAX_BATCH;
            room.then(|| self.resets.len() - 1)
        });
        if let Some(pending) = at.and_then(|at| self.resets.get_mut(at)) {
            pending.offsets.retain(|(k, _)| *k != key);
            pending.offsets.push((key, offset));
            pending.waiters.extend(waiters);
        } else {
            self.resets.push(PendingReset {
                waiters,
                topic: None,
                offsets: vec![(key, offset)],
            });
        }
        true
    }

    /// A client pulled from the new position: the reset is over.
    pub fn reset_done(&mut self, key: Key, offset: u64) {
        if self.moved.get(&key) == Some(&offset) && !self.resetting(key) {
            self.moved.remove(&key);
        }
    }

    /// Commits of the queue are ignored because of a reset.
    pub fn ignores_commits(&self, key: Key) -> bool {
        self.moved.contains_key(&key)
    }

    /// Resets that are applied and that no client has followed yet: pulls are redirected.
    pub fn redirects(&self) -> BTreeMap<Key, u64> {
        let applied = self.moved.iter().filter(|(key, _)| !self.resetting(**key));
        applied.map(|(key, offset)| (*key, *offset)).collect()
    }

    /// A reset of the queue waits or is in flight.
    fn resetting(&self, key: Key) -> bool {
        let waits = self.resets.iter().any(|r| r.names(key));
        waits
            || self
                .in_flight
                .as_ref()
                .is_some_and(|b| b.reset && b.offsets.iter().any(|o| (o.topic, o.queue) == key))
    }

    /// The command to propose now, if any; call [`Offsets::done`] with its outcome.
    pub fn next_batch(&mut self, now_ms: i64) -> Option<Batch> {
        if self.in_flight.is_some() {
            return None;
        }
        let batch = if !self.resets.is_empty() {
            let reset = self.resets.remove(0);
            let keys: BTreeSet<Key> = reset.offsets.iter().map(|(k, _)| *k).collect();
            let later: Vec<&PendingReset> = self.resets.iter().collect();
            let mut waiters = reset.waiters;
            // A query waits for the last reset of its queue, and for commits after it.
            let waiting = &self.waiting;
            self.waiters.retain(|(key, waiter)| {
                let take = keys.contains(key)
                    && matches!(waiter, Waiter::Query { .. })
                    && !waiting.contains_key(key)
                    && !later.iter().any(|r| r.names(*key));
                if take {
                    waiters.push(*waiter);
                }
                !take
            });
            let offsets = reset
                .offsets
                .iter()
                .map(|(k, offset)| item(*k, *offset))
                .collect();
            Batch {
                offsets,
                reset: true,
                topic: reset.topic,
                waiters,
            }
        } else {
            if self.waiting.is_empty() {
                return None;
            }
            let asked = !self.waiters.is_empty();
            let due = self
                .waiting_since_ms
                .is_some_and(|since| now_ms >= since.saturating_add(COALESCE_MS));
            let held_back = now_ms < self.not_before_ms;
            if !asked && (!due || held_back) {
                return None;
            }
            self.take_waiting(now_ms)
        };
        self.in_flight = Some(batch.clone());
        Some(batch)
    }

    fn take_waiting(&mut self, now_ms: i64) -> Batch {
        let mut offsets = Vec::with_capacity(self.waiting.len().min(MAX_BATCH));
        // Queues somebody waits for go first, so that a full batch does not hold them up.
        let mut taken = BTreeSet::new();
        let mut waiters = Vec::new();
        let mut kept = Vec::new();
        for (key, waiter) in std::mem::take(&mut self.waiters) {
            if let Some(offset) = self
                .waiting
                .get(&key)
                .copied()
                .filter(|_| offsets.len() < MAX_BATCH)
            {
                self.waiting.remove(&key);
                offsets.push(item(key, offset));
                taken.insert(key);
                waiters.push(waiter);
            } else if taken.contains(&key) {
                waiters.push(waiter);
            } else {
                kept.push((key, waiter));
            }
        }
        self.waiters = kept;
        while offsets.len() < MAX_BATCH {
            let Some((key, offset)) = self.waiting.pop_first() else {
                break;
            };
            offsets.push(item(key, offset));
        }
        self.waiting_since_ms = (!self.waiting.is_empty()).then_some(now_ms);
        Batch {
            offsets,
            reset: false,
            topic: None,
            waiters,
        }
    }

    /// The command in flight was applied: its batch.
    pub fn applied(&mut self) -> Option<Batch> {
        let batch = self.in_flight.take()?;
        for o in &batch.offsets {
            let slot = self.applied.entry((o.topic, o.queue)).or_insert(o.offset);
            *slot = if batch.reset {
                o.offset
            } else {
                o.offset.max(*slot)
            };
        }
        self.failing_since_ms = None;
        self.failures = 0;
        self.not_before_ms = 0;
        Some(batch)
    }

    /// The command in flight was refused: its batch. Commits wait again and are offered later;
    /// a reset is not repeated (the operator is told). What was to be set back is offered again as
    /// a commit: later ones that were dropped in its favour relied on it.
    pub fn refused(&mut self, now_ms: i64) -> Option<Batch> {
        let batch = self.in_flight.take()?;
        let since = *self.failing_since_ms.get_or_insert(now_ms);
        self.failures = self.failures.saturating_add(1);
        let hopeless = self.failures >= GIVE_UP_AFTER && now_ms.saturating_sub(since) >= GIVE_UP_MS;
        self.not_before_ms = now_ms.saturating_add(RETRY_MS);
        if batch.topic.is_some() {
            for o in &batch.offsets {
                self.reset_done((o.topic, o.queue), o.offset);
            }
        } else if !hopeless {
            for o in &batch.offsets {
                let key = (o.topic, o.queue);
                if !self.moved.contains_key(&key) && !self.resets.iter().any(|r| r.names(key)) {
                    self.wait_again(key, o.offset);
                }
            }
            if !self.waiting.is_empty() {
                self.waiting_since_ms.get_or_insert(now_ms);
            }
        }
        Some(batch)
    }

    fn wait_again(&mut self, key: Key, offset: u64) {
        let slot = self.waiting.entry(key).or_insert(offset);
        *slot = offset.max(*slot);
    }

    /// Everything that waits fails (the group is gone).
    pub fn clear(&mut self) -> Vec<Waiter> {
        let old = std::mem::take(self);
        let mut waiters: Vec<Waiter> = old.waiters.into_iter().map(|(_, w)| w).collect();
        waiters.extend(old.resets.into_iter().flat_map(|r| r.waiters));
        waiters.extend(old.in_flight.into_iter().flat_map(|b| b.waiters));
        waiters
    }

    /// What is applied is no longer known (leadership may be elsewhere): pending resets end, and
    /// everybody who waits for a command not proposed yet is handed out; commits stay.
    pub fn forget_applied(&mut self, now_ms: i64) -> Vec<Waiter> {
        let mut waiters: Vec<Waiter> = std::mem::take(&mut self.waiters)
            .into_iter()
            .map(|(_, w)| w)
            .collect();
        for reset in std::mem::take(&mut self.resets) {
            waiters.extend(reset.waiters);
            for (key, offset) in reset.offsets {
                if reset.topic.is_none() && !self.moved.contains_key(&key) {
                    self.wait_again(key, offset);
                    self.waiting_since_ms.get_or_insert(now_ms);
                }
            }
        }
        self.moved.clear();
        self.applied.clear();
        waiters
    }

    /// The applied offset.
    pub fn get(&self, key: Key) -> Option<u64> {
        self.applied.get(&key).copied()
    }

    /// Applied offsets with waiting commits on top.
    pub fn all(&self) -> BTreeMap<Key, u64> {
        let mut all = self.applied.clone();
        let mut raise = |key: Key, offset: u64, set: bool| {
            let slot = all.entry(key).or_insert(offset);
            *slot = if set { offset } else { offset.max(*slot) };
        };
        if let Some(batch) = &self.in_flight {
            for o in &batch.offsets {
                raise((o.topic, o.queue), o.offset, batch.reset);
            }
        }
        for (key, offset) in self.resets.iter().flat_map(|r| &r.offsets) {
            raise(*key, *offset, true);
        }
        for (key, offset) in &self.waiting {
            raise(*key, *offset, false);
        }
        all.extend(self.moved.iter().map(|(k, o)| (*k, *o)));
        all
    }

    fn in_flight_offset(&self, key: Key) -> Option<u64> {
        let batch = self.in_flight.as_ref()?;
        batch
            .offsets
            .iter()
            .find(|o| (o.topic, o.queue) == key)
            .map(|o| o.offset)
    }
}

fn item(key: Key, offset: u64) -> QueueOffset {
    QueueOffset {
        topic: key.0,
        queue: key.1,
        offset,
    }
}
