//! A replica that hears from the others that their state is another: as if its own were damaged. It must not lead
//! until it hears better, or starts anew.

use crate::schedule::Event;
use crate::sim::Sim;
use std::collections::BTreeSet;

/// A replica hears wrong digests for so long, microseconds.
const FOR_US: (u64, u64) = (2_000_000, 8_000_000);
/// The leader hands over to it within this time, microseconds.
const SOON_US: u64 = 1_000_000;

/// Who hears what is wrong, and who believes it.
#[derive(Debug, Default)]
pub(crate) struct Fooled {
    node: Option<(usize, u64)>,
    /// Node and life.
    barred: BTreeSet<(usize, u64)>,
}

impl Sim {
    /// The digest as a node hears it.
    pub(crate) fn digest_as_heard(&mut self, to: usize, digest: u64) -> u64 {
        let now_us = self.schedule.now_us();
        let one_in = [0, 0, 0, 60][(self.seed / 16 % 4) as usize];
        let fooled = &mut self.extra.fooled.node;
        fooled.take_if(|(_, until)| *until <= now_us);
        if self.is_calm() || one_in == 0 {
            return digest;
        }
        if self.extra.fooled.node.is_none() && self.extra.rng.chance(1, one_in) {
            self.counters.fooled += 1;
            let lasts = self.extra.rng.between(FOR_US.0, FOR_US.1);
            self.extra.fooled.node = Some((to, now_us + lasts));
        }
        match self.extra.fooled.node {
            Some((node, _)) if node == to => digest ^ 1,
            _ => digest,
        }
    }

    /// The replica here has compared its state with the others'. `false`: nobody told it anything wrong.
    pub(crate) fn compared(&mut self, outvoted: bool) -> bool {
        let fooled = self.seed / 16 % 4 == 3;
        self.note_barred(outvoted);
        if outvoted && !self.is_calm() {
            // Whoever leads knows nothing of it, and hands over.
            self.counters.barred += 1;
            for _ in 0..2 {
                let after = self.extra.rng.below(SOON_US);
                self.schedule
                    .after(after, Event::LeadAgain { node: self.here() });
            }
        }
        fooled
    }

    /// It may hold the newest log, and then all wait for it until it starts anew.
    pub(crate) fn note_barred(&mut self, outvoted: bool) {
        let at = (self.here(), self.life);
        match outvoted {
            true => self.extra.fooled.barred.insert(at),
            false => self.extra.fooled.barred.remove(&at),
        };
    }

    /// A majority told the replica here that its state is wrong.
    pub(crate) fn is_barred(&self) -> bool {
        self.extra.fooled.barred.contains(&(self.here(), self.life))
    }
}
