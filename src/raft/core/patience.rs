//! For how long a follower hears nothing before it stands for election.
//!
//! The election timeout is for a machine with time to spare. Where processors are busy a leader's
//! signs of life come in fits and starts although nothing is wrong, and an election makes more work
//! still. So a follower remembers how long its leader was silent at most, and waits for some times
//! that. It forgets within minutes, and never waits for more than some election timeouts.

/// Times the longest silence of late.
const TIMES: usize = 3;
/// Election timeouts.
const LONGEST: usize = 3;
/// After so long the longest silence counts for half.
const HALVES_MS: u64 = 30_000;

/// What a follower has seen of its leader.
#[derive(Debug, Default)]
pub(super) struct Patience {
    /// The leader's term.
    term: u64,
    /// Ticks since it was heard.
    silent: usize,
    /// The most of late.
    longest: usize,
    /// Ticks since that was halved.
    since: u64,
}

impl Patience {
    /// One tick in which the leader could have been heard.
    pub fn tick(&mut self, tick_ms: u64) {
        self.silent = self.silent.saturating_add(1);
        self.since += 1;
        if self.since.saturating_mul(tick_ms) >= HALVES_MS {
            (self.since, self.longest) = (0, self.longest / 2);
        }
    }

    /// The leader of this term was heard.
    pub fn heard(&mut self, term: u64) {
        // A silence that ended with an election, or without a leader, says nothing of this one.
        if self.term == term {
            self.longest = self.longest.max(self.silent);
        }
        (self.term, self.silent) = (term, 0);
    }

    /// The least ticks of silence before an election.
    pub fn ticks(&self, election_ticks: usize) -> usize {
        let longest = election_ticks.saturating_mul(LONGEST);
        self.longest
            .saturating_mul(TIMES)
            .clamp(election_ticks, longest)
    }

    /// No more than this is ever waited for, the random part included.
    pub fn most(election_ticks: usize) -> usize {
        election_ticks.saturating_mul(LONGEST + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn silence(patience: &mut Patience, ticks: usize) {
        for _ in 0..ticks {
            patience.tick(100);
        }
        patience.heard(1);
    }

    #[test]
    fn a_leader_that_comes_late_is_waited_for_longer_and_that_is_forgotten() {
        let mut patience = Patience::default();
        silence(&mut patience, 50);
        assert_eq!(patience.ticks(10), 10, "the first leader that is heard");
        silence(&mut patience, 3);
        assert_eq!(patience.ticks(10), 10);
        silence(&mut patience, 6);
        silence(&mut patience, 1);
        assert_eq!(patience.ticks(10), 18);
        silence(&mut patience, 9);
        assert_eq!(patience.ticks(10), 27);
        silence(&mut patience, 99);
        assert_eq!(patience.ticks(10), 30, "not for ever");
        for _ in 0..2_000 {
            silence(&mut patience, 1);
        }
        assert_eq!(patience.ticks(10), 10);
        // The silence before another leader's term is no measure of that one.
        for _ in 0..20 {
            patience.tick(100);
        }
        patience.heard(2);
        assert_eq!(patience.ticks(10), 10);
    }
}
