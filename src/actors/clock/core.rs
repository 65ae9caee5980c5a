//! The clock of a node as a pure state machine (reliability §6, decision 18).
//!
//! Time runs with the monotonic clock; what is kept is how far it is from that, the *offset*. It
//! follows the node's own wall clock as long as that is within [`NEAR_MS`] of it and of what most
//! clocks say. A wall clock that is further off is not believed: time is then held to the median of
//! the majority, or runs on by itself where there is none. Only when a majority of the cluster's clocks
//! says for [`STEADY_MS`] that time is far from where it runs, it goes there.

use std::collections::BTreeMap;

/// Clocks within this agree, ms.
pub const NEAR_MS: i64 = 5 * 60_000;
/// What is heard of others is late by its way, which a busy machine makes long: within this time runs
/// on by itself while it is held, ms.
const ROUGH_MS: i64 = 1_000;
/// A clock counts for so long after it was heard, ms.
pub const HEARD_MS: i64 = 10_000;
/// What a majority says must last so long before time jumps to it, ms. A clock that is set and set
/// back, or a node that reads what was said before it was stopped, moves nothing.
pub const STEADY_MS: i64 = 60_000;
/// A node that starts waits so long for a majority of the cluster's clocks, ms.
pub const BOOT_MS: i64 = 30_000;

/// What became of the clock at a look; worth a line in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The first time is known. `own_ahead_ms`: the own wall clock minus it.
    Settled { own_ahead_ms: i64, confirmed: bool },
    /// The own wall clock is not believed any more.
    Held { own_ahead_ms: i64 },
    /// It is believed again.
    Freed,
    /// Time went where the majority is.
    Jumped { by_ms: i64 },
}

/// Whom the time is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Trust {
    /// The node starts: the own wall clock, as long as no others were heard.
    Nobody,
    /// Not enough clocks were heard in [`BOOT_MS`].
    Few,
    /// A majority of the cluster's clocks.
    Majority,
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    offset: i64,
    at_ms: i64,
}

/// Most heard clocks agree.
#[derive(Debug, Clone, Copy)]
struct Majority {
    /// The median.
    offset: i64,
    /// Clocks near it.
    agree: usize,
}

/// See the module text. All `mono_ms` are of one clock that is never set and that counts the time
/// in which the machine sleeps.
#[derive(Debug)]
pub struct ClockCore {
    /// Other nodes of the cluster; 0: there is nobody to ask.
    others: usize,
    started_ms: i64,
    /// Time minus monotonic time.
    offset: i64,
    /// The own wall clock minus monotonic time, at the last look.
    own: i64,
    heard: BTreeMap<u64, Sample>,
    trust: Trust,
    /// Where the majority wants time to be, and since when.
    wanted: Option<Sample>,
    held: bool,
    holds: u64,
    jumps: u64,
}

impl ClockCore {
    /// The clock of a node that starts, in a cluster with so many others.
    pub fn new(others: usize, mono_ms: i64, wall_ms: i64) -> Self {
        let own = wall_ms.saturating_sub(mono_ms);
        let trust = match others {
            0 => Trust::Majority,
            _ => Trust::Nobody,
        };
        Self {
            others,
            started_ms: mono_ms,
            offset: own,
            own,
            heard: BTreeMap::new(),
            trust,
            wanted: None,
            held: false,
            holds: 0,
            jumps: 0,
        }
    }

    /// Another node's wall clock was heard.
    pub fn heard(&mut self, node: u64, wall_ms: i64, mono_ms: i64) {
        let offset = wall_ms.saturating_sub(mono_ms);
        let at_ms = mono_ms;
        self.heard.insert(node, Sample { offset, at_ms });
        // Nodes may join.
        self.others = self.others.max(self.heard.len());
    }

    /// Looks at the own wall clock. Ask several times a second.
    pub fn look(&mut self, mono_ms: i64, wall_ms: i64) -> Option<Event> {
        self.own = wall_ms.saturating_sub(mono_ms);
        self.heard
            .retain(|_, s| (0..=HEARD_MS).contains(&mono_ms.saturating_sub(s.at_ms)));
        let majority = self.majority();
        let right = majority.map_or(self.offset, |m| m.offset);
        let believed = within(self.own, right, self.limit());
        let want = match believed {
            true => self.own,
            false if within(self.offset, right, ROUGH_MS) => self.offset,
            false => right,
        };
        // Most of the cluster, not only of those that were heard.
        let whole = majority.is_some_and(|m| m.agree * 2 > self.others + 1);
        if self.trust < Trust::Majority {
            let waited = mono_ms.saturating_sub(self.started_ms) >= BOOT_MS;
            if whole || (waited && self.trust == Trust::Nobody) {
                return Some(self.settle(want, whole));
            }
        }
        if self.trust == Trust::Nobody {
            self.offset = self.own;
            return None;
        }
        if near(want, self.offset) {
            self.offset = want;
            self.wanted = None;
        } else if !whole {
            // A few that were cut off with clocks that are wrong alike.
            self.wanted = None;
        } else if self.lasted(want, mono_ms) {
            let by_ms = want.saturating_sub(self.offset);
            self.jumps += 1;
            (self.offset, self.wanted) = (want, None);
            self.held = !near(self.own, self.offset);
            return Some(Event::Jumped { by_ms });
        }
        self.tell_held(!believed || !near(self.own, self.offset))
    }

    /// How near the own clock must be to be believed: one that is not must come nearer than one that
    /// is, or time would go to and fro at the limit.
    fn limit(&self) -> i64 {
        match self.held {
            true => NEAR_MS / 2,
            false => NEAR_MS,
        }
    }

    fn settle(&mut self, offset: i64, confirmed: bool) -> Event {
        (self.offset, self.wanted) = (offset, None);
        self.trust = match confirmed {
            true => Trust::Majority,
            false => Trust::Few,
        };
        self.held = !near(self.own, offset);
        self.holds += u64::from(self.held);
        Event::Settled {
            own_ahead_ms: self.own_ahead_ms(),
            confirmed,
        }
    }

    fn tell_held(&mut self, held: bool) -> Option<Event> {
        if held == self.held {
            return None;
        }
        self.held = held;
        self.holds += u64::from(held);
        Some(match held {
            true => Event::Held {
                own_ahead_ms: self.own_ahead_ms(),
            },
            false => Event::Freed,
        })
    }

    /// The majority has wanted this for long enough.
    fn lasted(&mut self, want: i64, mono_ms: i64) -> bool {
        let new = Sample {
            offset: want,
            at_ms: mono_ms,
        };
        let wanted = match &mut self.wanted {
            Some(wanted) if near(wanted.offset, want) => wanted,
            other => other.insert(new),
        };
        mono_ms.saturating_sub(wanted.at_ms) >= STEADY_MS
    }

    fn majority(&self) -> Option<Majority> {
        if self.heard.is_empty() && self.others > 0 {
            return None;
        }
        let mut all: Vec<i64> = self.heard.values().map(|s| s.offset).collect();
        all.push(self.own);
        all.sort_unstable();
        // More than half of them in a row hold the median.
        let offset = all[(all.len() - 1) / 2];
        let agree = all.iter().filter(|o| near(**o, offset)).count();
        (agree * 2 > all.len()).then_some(Majority { offset, agree })
    }

    /// Time, ms since 1970.
    pub fn now_ms(&self, mono_ms: i64) -> i64 {
        mono_ms.saturating_add(self.offset)
    }

    /// Time minus monotonic time.
    pub fn offset_ms(&self) -> i64 {
        self.offset
    }

    /// Time is from more than the own wall clock, or others were waited for.
    pub fn is_settled(&self) -> bool {
        self.trust > Trust::Nobody
    }

    /// The own wall clock is not believed.
    pub fn is_held(&self) -> bool {
        self.held
    }

    /// The own wall clock minus time.
    pub fn own_ahead_ms(&self) -> i64 {
        self.own.saturating_sub(self.offset)
    }

    /// Times the own wall clock ceased to be believed, and times that time jumped.
    pub fn counts(&self) -> (u64, u64) {
        (self.holds, self.jumps)
    }
}

fn within(a: i64, b: i64, limit: i64) -> bool {
    a.saturating_sub(b).saturating_abs() <= limit
}

fn near(a: i64, b: i64) -> bool {
    within(a, b, NEAR_MS)
}

#[cfg(test)]
#[path = "core_tests.rs"]
mod tests;
