//! Which answer a pull gets before anything is read (remoting-client §8.2). No I/O.

use crate::actors::shard::handle::QueueBounds;
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
}
