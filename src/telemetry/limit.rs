//! Rate-limited logging of errors that a client can cause often.

use parking_lot::Mutex;

/// Lets through at most `burst` events per period; the caller logs how many were left out.
///
/// Time is passed in as milliseconds of any clock; a clock that goes back only delays the
/// next period by at most one period.
#[derive(Debug)]
pub struct RateLimited {
    burst: u32,
    period_ms: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    period_start_ms: Option<u64>,
    passed: u32,
    suppressed: u64,
}

impl RateLimited {
    /// At most `burst` events (at least 1) in `period_ms` milliseconds.
    pub fn new(burst: u32, period_ms: u64) -> Self {
        Self {
            burst: burst.max(1),
            period_ms,
            state: Mutex::default(),
        }
    }

    /// `Some(n)`: log this event; `n` events were left out since the last one let through.
    /// `None`: leave it out.
    pub fn allow(&self, now_ms: u64) -> Option<u64> {
        let mut state = self.state.lock();
        let over = match state.period_start_ms {
            None => true,
            // A start in the future means the clock went back: begin anew.
            Some(start) => now_ms < start || now_ms - start >= self.period_ms,
        };
        if over {
            state.period_start_ms = Some(now_ms);
            state.passed = 0;
        }
        if state.passed < self.burst {
            state.passed += 1;
            Some(std::mem::take(&mut state.suppressed))
        } else {
            state.suppressed += 1;
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn burst_then_silence_then_the_count() {
        let limit = RateLimited::new(2, 1_000);
        assert_eq!(limit.allow(5_000), Some(0));
        assert_eq!(limit.allow(5_001), Some(0));
        for t in 0..100 {
            assert_eq!(limit.allow(5_100 + t), None);
        }
        assert_eq!(limit.allow(6_000), Some(100));
        assert_eq!(limit.allow(6_001), Some(0));
        assert_eq!(limit.allow(6_002), None);
    }

    #[test]
    fn a_clock_that_goes_back_does_not_silence_for_ever() {
        let limit = RateLimited::new(1, 1_000);
        assert_eq!(limit.allow(1_000_000), Some(0));
        assert_eq!(limit.allow(10), Some(0));
        assert_eq!(limit.allow(11), None);
        assert_eq!(limit.allow(1_010), Some(1));
    }
}
