//! When a shard's lead goes back to the node that is to have it. Each return stops writes until
//! the other has caught up and leads, so one that fails, or does not last, makes the next wait
//! longer.

use std::time::{Duration, Instant};

/// Looks in a row at which the preferred node must be fit to lead.
const STEADY: u32 = 4;
/// Wait in front of a return, and the longest one.
const WAIT: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(300));
/// A transfer that has done nothing for so long has failed.
const FAILED_AFTER: Duration = Duration::from_secs(1);
/// A return that lasted so long was a good one.
const LASTS: Duration = Duration::from_secs(10);

/// One shard's, on a node that may lead it.
#[derive(Debug, Default)]
pub(super) struct Homing {
    fit: u32,
    /// Times in a row that it went wrong.
    failures: u32,
    not_before: Option<Instant>,
    /// When leadership was given back last, and whether this node has lost it since.
    tried: Option<(Instant, bool)>,
}

impl Homing {
    /// A look. `leads`: this node does; `fit`: the preferred one could. Whether leadership is to go
    /// back now.
    pub fn look(&mut self, leads: bool, fit: bool, now: Instant) -> bool {
        if !leads {
            if let Some((_, gone)) = &mut self.tried {
                *gone = true;
            }
            self.fit = 0;
            return false;
        }
        if let Some((at, gone)) = self.tried {
            let since = now.duration_since(at);
            if !gone && since < FAILED_AFTER {
                return false;
            }
            self.tried = None;
            if gone && since >= LASTS {
                (self.failures, self.not_before) = (0, None);
            } else {
                self.failures += 1;
                let (least, most) = WAIT;
                let wait = least.saturating_mul(1 << self.failures.min(16)).min(most);
                self.not_before = Some(now + wait);
            }
        }
        if !fit {
            self.fit = 0;
            return false;
        }
        self.fit += 1;
        if self.fit < STEADY || self.not_before.is_some_and(|at| now < at) {
            return false;
        }
        self.fit = 0;
        self.tried = Some((now, false));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOK: Duration = Duration::from_millis(500);

    /// Time until leadership is to go back, of a node that leads.
    fn until_back(homing: &mut Homing, now: &mut Instant) -> Duration {
        let begun = *now;
        while !homing.look(true, true, *now) {
            *now += LOOK;
            assert!(*now - begun < Duration::from_secs(400));
        }
        *now - begun
    }

    #[test]
    fn leadership_goes_back_soon_and_ever_later_where_that_goes_wrong() {
        let (mut homing, mut now) = (Homing::default(), Instant::now());
        assert_eq!(until_back(&mut homing, &mut now), LOOK * 3);
        // It stays.
        let mut waits = Vec::new();
        for _ in 0..9 {
            now += LOOK;
            waits.push(until_back(&mut homing, &mut now).as_secs());
        }
        assert!(waits[0] >= 4 && waits[8] >= 300 && waits[8] < 303);
        assert!(
            waits.windows(2).all(|w| w[0] < w[1] || w[1] >= 300),
            "{waits:?}"
        );
        // It goes and comes back too soon, then lasts.
        now += LOOK;
        assert!(!homing.look(false, true, now));
        now += LOOK;
        assert!(until_back(&mut homing, &mut now).as_secs() >= 300);
        now += LOOK;
        assert!(!homing.look(false, true, now));
        now += LASTS;
        assert_eq!(until_back(&mut homing, &mut now), LOOK * 3);
    }

    #[test]
    fn the_preferred_node_must_be_fit_for_a_while() {
        let (mut homing, mut now) = (Homing::default(), Instant::now());
        for fit in [true, true, true, false, true, true, true] {
            assert!(!homing.look(true, fit, now));
            now += LOOK;
        }
        assert!(homing.look(true, true, now));
    }
}
