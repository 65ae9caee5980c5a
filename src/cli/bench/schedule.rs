//! When each message of an open loop is due.

const SECOND: u128 = 1_000_000_000;

/// The due times of one of several connections that share a rate. They do not depend on how
/// quickly the server answers, so that a stall of the server is seen in the latencies of all
/// messages that were due meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Schedule {
    start: u64,
    rate: u64,
    step: u64,
    next: u64,
}

impl Schedule {
    /// Connection `index` of `of`, at `rate` messages a second in all, from `start` (ns).
    pub(super) fn new(start: u64, rate: u64, index: u64, of: u64) -> Self {
        Self {
            start,
            rate: rate.max(1),
            step: of.max(1),
            next: index,
        }
    }

    /// When the next message is due, ns.
    pub(super) fn due(&self) -> u64 {
        let after = u128::from(self.next) * SECOND / u128::from(self.rate);
        self.start
            .saturating_add(u64::try_from(after).unwrap_or(u64::MAX))
    }

    /// The next message was sent.
    pub(super) fn advance(&mut self) {
        self.next = self.next.saturating_add(self.step);
    }

    /// How many messages are due before `at` and were not sent.
    pub(super) fn behind(&self, at: u64) -> u64 {
        let mut late = *self;
        if late.due() >= at {
            return 0;
        }
        let passed = u128::from(at - self.start) * u128::from(self.rate);
        let before = u64::try_from(passed.div_ceil(SECOND)).unwrap_or(u64::MAX);
        late.next = late.next.min(before);
        (before - late.next).div_ceil(self.step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_connections_share_the_rate_evenly() {
        let mut all: Vec<u64> = Vec::new();
        for index in 0..3 {
            let mut s = Schedule::new(1_000, 1_000, index, 3);
            for _ in 0..100 {
                all.push(s.due());
                s.advance();
            }
        }
        all.sort_unstable();
        for (i, due) in all.iter().enumerate() {
            assert_eq!(*due, 1_000 + i as u64 * 1_000_000);
        }
    }

    #[test]
    fn rates_that_do_not_divide_do_not_drift() {
        let mut s = Schedule::new(0, 3, 0, 1);
        for _ in 0..3_000_000 {
            s.advance();
        }
        assert_eq!(s.due(), 1_000_000 * SECOND as u64);
    }

    #[test]
    fn what_is_late_is_counted() {
        let mut s = Schedule::new(100, 1_000, 1, 4);
        assert_eq!(s.behind(0), 0);
        assert_eq!(s.behind(s.due()), 0);
        for at in [1_000_101, 5_000_100, 5_000_101, 77_123_456] {
            let mut counted = 0;
            let mut walk = s;
            while walk.due() < at {
                counted += 1;
                walk.advance();
            }
            assert_eq!(s.behind(at), counted, "{at}");
        }
        s.advance();
        assert_eq!(s.behind(1_000_101), 0);
    }
}
