//! When to read how much of a shard's stored log, as a pure state machine: the whole of it within a week, in
//! small parts, or at once.

/// Within this time the whole log is read; less than a week, because a node may be stopped for a while.
const WITHIN_MS: u64 = 5 * 24 * 3600 * 1000;
/// A part, bytes, and the longest pause after one: a small log is read sooner.
const PART: u64 = 1 << 20;
const LONGEST_PAUSE_MS: u64 = 60_000;

/// See the module text.
#[derive(Debug, Clone, Default)]
pub struct Scrub {
    next: u64,
    /// A scrub at once: whether it has begun.
    hurry: Option<bool>,
    wait_until_ms: u64,
}

impl Scrub {
    /// Goes on at this index.
    pub fn new(next: u64) -> Self {
        Self {
            next,
            ..Self::default()
        }
    }

    /// From the first entry to the last, without pauses.
    pub fn at_once(&mut self) {
        self.hurry = Some(false);
    }

    /// A scrub at once is under way.
    pub fn hurries(&self) -> bool {
        self.hurry.is_some()
    }

    /// The next index to be read.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// First index and bytes to be read now; `None`: not yet. `log_bytes` is the size of the whole log.
    pub fn next_read(&mut self, now_ms: u64, log_bytes: impl Fn() -> u64) -> Option<(u64, u64)> {
        if let Some(began) = &mut self.hurry {
            if !std::mem::replace(began, true) {
                self.next = 0;
            }
            return Some((self.next, PART));
        }
        if now_ms < self.wait_until_ms {
            return None;
        }
        let bytes = log_bytes().max(1);
        // Who asks does so every half second: of a large log more is read at a time.
        let part = PART.max(bytes / (WITHIN_MS / 1000));
        let pause = WITHIN_MS.saturating_mul(part) / bytes;
        self.wait_until_ms = now_ms + pause.min(LONGEST_PAUSE_MS);
        Some((self.next, part))
    }

    /// What [`Scrub::next_read`] asked for was read up to `next`; `ended`: the log ends there.
    pub fn read(&mut self, now_ms: u64, next: u64, ended: bool) {
        self.next = next;
        if ended {
            self.next = 0;
            self.hurry = None;
            self.wait_until_ms = self.wait_until_ms.max(now_ms + LONGEST_PAUSE_MS);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Milliseconds until a log of so many entries of 1 MiB was read once.
    fn turn(entries: u64) -> u64 {
        let mut scrub = Scrub::new(0);
        let (mut now, mut read) = (0, 0);
        loop {
            now += 500;
            let Some((from, bytes)) = scrub.next_read(now, || entries << 20) else {
                continue;
            };
            let next = (from.max(1) + (bytes >> 20).max(1)).min(entries + 1);
            assert!(next > from);
            read += next - from.max(1);
            let ended = next > entries;
            scrub.read(now, next, ended);
            if ended {
                assert_eq!(read, entries, "everything, once");
                return now;
            }
        }
    }

    #[test]
    fn the_whole_log_is_read_within_a_week_and_a_small_one_sooner() {
        let day = 24 * 3600 * 1000;
        for (entries, days) in [(10u64, 1), (10_000, 7), (100_000, 7), (500_000, 7)] {
            let took = turn(entries);
            assert!(took < days * day, "{entries} MiB took {took} ms");
        }
        assert!(turn(100_000) > 3 * day, "slowly");
    }

    #[test]
    fn at_once_begins_at_the_beginning_and_pauses_nowhere() {
        let mut scrub = Scrub::new(70);
        assert!(scrub.next_read(0, || 100 << 20).is_some());
        scrub.read(0, 71, false);
        assert_eq!(scrub.next_read(1, || 100 << 20), None, "a pause");
        scrub.at_once();
        for next in 1..=100 {
            let (from, _) = scrub.next_read(1, || 100 << 20).unwrap();
            assert_eq!(from, next - u64::from(next == 1));
            assert!(scrub.hurries());
            scrub.read(1, next + 1, next == 100);
        }
        assert!(!scrub.hurries() && scrub.next() == 0);
        assert_eq!(scrub.next_read(2, || 100 << 20), None);
    }
}
