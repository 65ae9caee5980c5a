//! Bad moments: a node stops when it has just said what others will rest on, comes back at once, and does
//! not know all of it any more. Who asked it comes and goes just then.
//!
//! Such a moment is prepared by a leader *a* with two other voters: *b*, which is to stop, and *c*, which
//! hears nothing of *a* from then on and wants to lead.

use crate::schedule::Event;
use crate::sim::Sim;
use bytes::Bytes;
use troupemq::raft::Said;
use troupemq::storage::SimRng;

/// What *b* is to have said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    /// It holds entries of *a*, of which the machine keeps what was synced. Then *a* is stopped.
    Held,
    /// The same, and what it said comes late: when *a* has heard of its next life, and can tell it nothing.
    /// Then *a* is stopped.
    HeldLate,
    /// The same, and *a* is killed when it has heard that; it is stopped once it leads again.
    Heard,
    /// It follows *a*, which may answer from memory then. The process starts again.
    Followed,
    /// It votes for *c*, as *a* was stopped; it begins with an empty disk, and *a* is back.
    Voted,
}

impl Word {
    /// What is said rests on entries.
    fn is_held(self) -> bool {
        matches!(self, Word::Held | Word::HeldLate | Word::Heard)
    }
}

/// See the module text. Nodes are places.
#[derive(Debug, Clone)]
pub struct Moment {
    word: Word,
    a: usize,
    b: usize,
    c: usize,
    /// Since then *c* hears nothing of *a*, microseconds.
    since: u64,
    /// Over then.
    until: u64,
    /// What *a* said to *b* last.
    said: Option<Bytes>,
}

/// A moment that does not come is given up after this time, microseconds.
const WAITS_US: u64 = 5_000_000;
/// The leader is stopped for so long: others are elected meanwhile.
const STOPPED_US: (u64, u64) = (1_200_000, 3_000_000);
/// The same where *b* must give a vote first, which it does not for a while after its start.
const LATE_US: u64 = 4_000_000;
/// *b* follows *a* for so long while *c* hears nothing: no promise of *c* is left. Clients are silent
/// meanwhile, so that its log is no shorter.
const DEAF_US: u64 = 1_300_000;
/// What was said before they fell silent has come to all.
const SILENT_US: u64 = 500_000;
/// A vote may be under way for so long.
const VOTE_US: u64 = 1_500_000;

impl Sim {
    /// A tick of the node here: if it leads, a moment may be prepared.
    pub(crate) fn prepare_moment(&mut self) {
        let now = self.schedule.now_us();
        if self.view.serving.is_none() || !self.rng.chance(self.plan.net.moments, 1000) {
            return;
        }
        let Some(group) = &self.group else { return };
        if group.moment.as_ref().is_some_and(|m| m.until > now) {
            return;
        }
        let (a, nodes) = (group.here, group.places.len());
        let votes = |n: &usize| *n != a && group.oracle.members.has_vote(*n as u64 + 1);
        let others: Vec<usize> = (0..nodes).filter(votes).collect();
        if others.len() < 2 {
            return;
        }
        let at = self.rng.below(others.len() as u64) as usize;
        let (b, c) = (others[at], others[(at + 1) % others.len()]);
        let words = [Word::Held, Word::Followed, Word::Voted, Word::HeldLate];
        let mut word = words[self.rng.below(4) as usize];
        if self.plan.behind.moments {
            let words = [Word::Held, Word::HeldLate, Word::Heard, Word::Heard];
            word = words[(self.seed ^ now) as usize / 7 % 4];
        }
        let (until, said) = (now + WAITS_US, None);
        let since = match word {
            Word::Followed => now + SILENT_US,
            _ => now,
        };
        let Some(group) = &mut self.group else { return };
        group.moment = Some(Moment {
            word,
            a,
            b,
            c,
            since,
            until,
            said,
        });
        let cut = Event::Cut {
            from: a,
            to: c,
            both: !word.is_held(),
            until,
        };
        self.schedule.after(since - now, cut);
        if word == Word::Voted {
            let (least, most) = STOPPED_US;
            self.paused_until = now + self.rng.between(least, most);
        }
    }

    /// Nothing gets through between two nodes.
    pub(crate) fn cut(&mut self, from: usize, to: usize, both: bool, until: u64) {
        let calm = self.is_calm();
        let Some(group) = self.group.as_mut().filter(|_| !calm) else {
            return;
        };
        let nodes = group.places.len();
        group.heal_at_us = group.heal_at_us.max(until);
        group.cut[from * nodes + to] = true;
        group.cut[to * nodes + from] |= both;
    }

    /// Clients are silent for so long, microseconds.
    pub(crate) fn lull_left(&self) -> u64 {
        let moment = self.group.as_ref().and_then(|g| g.moment.as_ref());
        let moment = moment.filter(|m| m.word == Word::Followed);
        let until = moment.map_or(0, |m| m.until).max(self.extra.lull_until);
        until.saturating_sub(self.schedule.now_us())
    }

    /// The node here says something, which takes so long; how much longer it is on its way.
    pub(crate) fn says(
        &mut self,
        to: usize,
        said: Option<Said>,
        bytes: &Bytes,
        delay_us: u64,
    ) -> u64 {
        let now = self.schedule.now_us();
        let from = self.here();
        let Some(group) = &mut self.group else {
            return 0;
        };
        let Some(moment) = group.moment.as_mut().filter(|m| m.until > now) else {
            return 0;
        };
        if (from, to) == (moment.a, moment.b) && said.is_some_and(|s| s.appends) {
            moment.said = Some(bytes.clone());
        }
        let (word, since) = (moment.word, moment.since);
        let (a, b, c) = (moment.a, moment.b, moment.c);
        let voted = said.and_then(|s| s.vote) == Some(to as u64 + 1);
        let is_it = match word {
            Word::Held | Word::HeldLate | Word::Heard => {
                (from, to) == (b, a) && said.is_some_and(|s| s.holds.is_some())
            }
            Word::Followed if now < since + DEAF_US => false,
            Word::Followed => (from, to) == (b, a) && said.is_some_and(|s| s.follows),
            Word::Voted => from != a && to != a && voted,
        };
        if !is_it {
            return 0;
        }
        let last = group.moment.take().and_then(|m| m.said);
        let nodes = group.places.len();
        let life = self.life;
        let stops = self.rng.below(2_000);
        let (wipe, power) = (word == Word::Voted, word.is_held());
        let stop = Event::Stop {
            node: from,
            life,
            wipe,
            power,
        };
        self.schedule.after(stops, stop);
        match word {
            Word::Heard => {
                self.is_to_lead_again((a, c), now + delay_us);
                0
            }
            Word::Held => {
                self.counters.stopped_after_held += 1;
                let (least, most) = STOPPED_US;
                let lasts_us = self.rng.between(least, most);
                let after = delay_us + self.rng.below(5_000);
                let pause = Event::Pause { node: a, lasts_us };
                self.schedule.after(after, pause);
                // It comes once more.
                if let Some(bytes) = last {
                    let again = stops + self.rng.below(50_000);
                    self.packet(again, a, b, bytes);
                }
                0
            }
            Word::HeldLate => {
                self.counters.stopped_after_late_word += 1;
                let deaf = stops + self.rng.between(50_000, 600_000);
                let until = now + WAITS_US;
                let (to, both) = (b, false);
                self.schedule.after(
                    deaf,
                    Event::Cut {
                        from: a,
                        to,
                        both,
                        until,
                    },
                );
                let late = deaf + self.rng.below(100_000);
                let (node, lasts_us) = (a, LATE_US);
                let after = delay_us + late + self.rng.below(50_000);
                self.schedule.after(after, Event::Pause { node, lasts_us });
                late
            }
            Word::Followed => {
                self.counters.stopped_after_followed += 1;
                // Nothing else that it says comes to the leader, and the other one sees no leader.
                if let Some(group) = &mut self.group {
                    group.cut[a * nodes + b] = true;
                }
                let after = self.rng.below(50_000);
                let closed = Event::LinkClosed { node: c, to: a };
                self.schedule.after(after, closed);
                0
            }
            Word::Voted => {
                self.counters.stopped_after_voted += 1;
                let lasts_us = self.rng.below(100_000);
                let back = Event::Pause { node: a, lasts_us };
                self.schedule.after(stops, back);
                if let Some(group) = &mut self.group {
                    group.cut.fill(false);
                    group.cut[a * nodes + to] = true;
                    group.cut[to * nodes + a] = true;
                }
                self.rng.below(VOTE_US)
            }
        }
    }

    /// *a* is killed when it has heard that, and *c* hears it again: it is elected, and knows no more of what it has
    /// committed than its disk does.
    fn is_to_lead_again(&mut self, (a, c): (usize, usize), hears_us: u64) {
        let now = self.schedule.now_us();
        let mut own = SimRng::new(self.seed ^ now);
        let Some(group) = &mut self.group else {
            return;
        };
        self.counters.stopped_after_heard += 1;
        let stop = Event::Stop {
            node: a,
            life: group.places[a].life,
            wipe: false,
            power: false,
        };
        let after = hears_us - now + own.below(5_000);
        group.heal_at_us = now + after;
        self.extra.again = Some((a, c, now + after + WAITS_US));
        self.schedule.after(after, stop);
    }

    /// The node here leads: *a* stops when it has said so to *b*, and *c* hears nothing of it.
    pub(crate) fn leads_again_and_stops(&mut self) {
        let (here, now) = (self.here(), self.schedule.now_us());
        let Some((a, c, _)) = self
            .extra
            .again
            .take_if(|again| again.0 == here || again.2 < now)
        else {
            return;
        };
        if a != here || self.is_calm() {
            return;
        }
        self.counters.led_again += 1;
        self.cut(a, c, false, now + WAITS_US);
        let mut own = SimRng::new(self.seed ^ now);
        let most = [4_000, 200_000][own.below(2) as usize];
        let (node, lasts_us) = (a, LATE_US);
        self.schedule
            .after(own.below(most), Event::Pause { node, lasts_us });
    }

    /// The node here stops, as the class allows, and comes back soon.
    pub(crate) fn stop(&mut self, wipe: bool, power: bool) {
        if self.node.is_none() || self.is_calm() {
            return;
        }
        let wipe = wipe && self.may_lose_store();
        let power = power && self.may_lose_power();
        let most = [3_000, 30_000, 100_000][self.rng.below(3) as usize];
        self.comes_back_in = Some(self.rng.below(most));
        self.crash(power);
        if wipe {
            self.lose_store();
        }
    }

    /// The process here is stopped for so long from now, however long it was to be.
    pub(crate) fn pause(&mut self, lasts_us: u64) {
        if self.node.is_some() && !self.is_calm() {
            self.counters.pauses += 1;
            // What waits looks again at certain times, and keeps its order.
            let until = self.schedule.now_us() + lasts_us;
            self.paused_until = match self.paused_until > until {
                true => self.paused_until.min(self.looks_at()),
                false => until,
            };
        }
    }
}
