//! When a peer counts as gone. Time during which this process did not run is not held against it.

use std::time::{Duration, Instant};

/// Judges one connection; ask at every ping.
#[derive(Debug)]
pub struct Silence {
    heard: Instant,
    asked: Instant,
    every: Duration,
    after: Duration,
}

impl Silence {
    /// Asked about `every` so often; silence of `after` is too long.
    pub fn new(now: Instant, every: Duration, after: Duration) -> Self {
        Self {
            heard: now,
            asked: now,
            every,
            after,
        }
    }

    /// Something came.
    pub fn heard(&mut self, now: Instant) {
        self.heard = now;
    }

    /// Whether the peer was silent for too long, seen from a process that could have heard it.
    pub fn too_long(&mut self, now: Instant) -> bool {
        let asleep = now.saturating_duration_since(self.asked) > self.every * 2;
        self.asked = now;
        if asleep {
            // What came meanwhile waits in the socket: read first.
            self.heard = now;
        }
        now.saturating_duration_since(self.heard) >= self.after
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_of_this_process_is_not_the_peers_silence() {
        let ms = Duration::from_millis;
        let start = Instant::now();
        let mut silence = Silence::new(start, ms(100), ms(400));
        for n in 1..4 {
            assert!(!silence.too_long(start + ms(100 * n)));
        }
        assert!(silence.too_long(start + ms(400)));
        silence.heard(start + ms(450));
        assert!(!silence.too_long(start + ms(500)));
        // Ten seconds later the process runs again: the peer gets its time anew.
        let later = start + ms(10_500);
        assert!(!silence.too_long(later));
        assert!(!silence.too_long(later + ms(200)));
        assert!(silence.too_long(later + ms(400)));
    }
}
