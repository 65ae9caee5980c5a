//! Which answer a pull gets before anything is read (remoting-client §8.2). No I/O.

use crate::actors::shard::handle::QueueBounds;
use crate::config::Config;
use crate::wire::remoting::code::response as rc;

/// What to do with a pull.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Read from this offset on.
    Read(u64),
    /// Nothing there yet: hold the request, or answer 19 with this offset.
    Wait(u64),
    /// Answer 21: the client must go to this offset.
    Moved(u64),
}

impl Step {
    /// Decides for a queue with these bounds.
    pub fn of(bounds: QueueBounds, asked: i64) -> Step {
        let Ok(asked) = u64::try_from(asked) else {
            return Step::Moved(bounds.min);
        };
        if asked < bounds.min {
            Step::Moved(bounds.min)
        } else if asked == bounds.max {
            Step::Wait(asked)
        } else if asked > bounds.max {
            Step::Moved(bounds.max)
        } else {
            Step::Read(asked)
        }
    }
}

/// Longest a pull is held, whatever it asks for, ms.
const MAX_HOLD_MS: i64 = 60_000;

/// How long a pull is held whose client asks for `asked`, ms. One that does not want to be held asks
/// for 0.
pub fn hold_ms(config: &Config, asked: i64) -> i64 {
    match config.long_polling_enable {
        true => asked.min(MAX_HOLD_MS),
        false => {
            let short = i64::try_from(config.short_polling_ms).unwrap_or(MAX_HOLD_MS);
            short.min(asked.max(0)).min(MAX_HOLD_MS)
        }
    }
}

/// Remarks of pull answers, as stock brokers name the outcome.
pub fn remark(code: i32) -> &'static str {
    match code {
        rc::SUCCESS => "FOUND",
        rc::PULL_NOT_FOUND => "OFFSET_OVERFLOW_ONE",
        rc::PULL_RETRY_IMMEDIATELY => "NO_MATCHED_MESSAGE",
        _ => "OFFSET_OVERFLOW_BADLY",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_reading_rules() {
        let empty = QueueBounds { min: 0, max: 0 };
        assert_eq!(Step::of(empty, 0), Step::Wait(0));
        assert_eq!(Step::of(empty, 5), Step::Moved(0));
        assert_eq!(Step::of(empty, -1), Step::Moved(0));
        let queue = QueueBounds { min: 10, max: 20 };
        assert_eq!(Step::of(queue, 9), Step::Moved(10));
        assert_eq!(Step::of(queue, i64::MIN), Step::Moved(10));
        assert_eq!(Step::of(queue, 10), Step::Read(10));
        assert_eq!(Step::of(queue, 19), Step::Read(19));
        assert_eq!(Step::of(queue, 20), Step::Wait(20));
        assert_eq!(Step::of(queue, 21), Step::Moved(20));
        assert_eq!(Step::of(queue, i64::MAX), Step::Moved(20));
        let trimmed = QueueBounds { min: 20, max: 20 };
        assert_eq!(Step::of(trimmed, 20), Step::Wait(20));
    }

    #[test]
    fn pulls_are_held_as_asked_and_shortly_without_long_polling() {
        let long = Config::default();
        let asked = [0, 500, 15_000, 90_000];
        assert_eq!(asked.map(|ms| hold_ms(&long, ms)), [0, 500, 15_000, 60_000]);
        let short = Config {
            long_polling_enable: false,
            short_polling_ms: 1_000,
            ..long
        };
        assert_eq!(asked.map(|ms| hold_ms(&short, ms)), [0, 500, 1_000, 1_000]);
    }
}
