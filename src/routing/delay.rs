//! The delay-level table (`messageDelayLevel`; remoting-client §8.7).

/// Stock levels 1 to 18.
pub const DEFAULT_LEVELS: &str = "1s 5s 10s 30s 1m 2m 3m 4m 5m 6m 7m 8m 9m 10m 20m 30m 1h 2h";
/// The most levels a table may have.
pub const MAX_LEVELS: usize = 256;

/// Delay of each level; level 1 is the first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DelayLevels {
    delays_ms: Vec<i64>,
}

/// Why a table was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DelayError {
    #[error("delay level {0:?} is not a number followed by s, m, h or d")]
    Malformed(String),
    #[error("{0} delay levels, 1 to {MAX_LEVELS} are possible")]
    Count(usize),
}

impl DelayLevels {
    /// Reads `"1s 5s 10s …"`; units s, m, h, d.
    pub fn parse(text: &str) -> Result<Self, DelayError> {
        let delays_ms = text
            .split_ascii_whitespace()
            .map(delay)
            .collect::<Result<Vec<_>, _>>()?;
        if delays_ms.is_empty() || delays_ms.len() > MAX_LEVELS {
            return Err(DelayError::Count(delays_ms.len()));
        }
        Ok(Self { delays_ms })
    }

    /// ms of a level: `None` for 0 and below (no delay); the largest level for greater ones.
    pub fn delay_ms(&self, level: i32) -> Option<i64> {
        let level = usize::try_from(level).ok().filter(|l| *l > 0)?;
        self.delays_ms
            .get(level.min(self.delays_ms.len()) - 1)
            .copied()
    }

    /// The level that a greater one stands for.
    pub fn clamp(&self, level: i32) -> i32 {
        level.min(self.max_level())
    }

    /// Number of levels.
    pub fn max_level(&self) -> i32 {
        self.delays_ms.len() as i32
    }
}

impl Default for DelayLevels {
    fn default() -> Self {
        let s = 1_000;
        let m = 60 * s;
        let h = 60 * m;
        let delays_ms = vec![
            s,
            5 * s,
            10 * s,
            30 * s,
            m,
            2 * m,
            3 * m,
            4 * m,
            5 * m,
            6 * m,
            7 * m,
            8 * m,
            9 * m,
            10 * m,
            20 * m,
            30 * m,
            h,
            2 * h,
        ];
        Self { delays_ms }
    }
}

fn delay(word: &str) -> Result<i64, DelayError> {
    let malformed = || DelayError::Malformed(word.to_owned());
    let unit = match word.as_bytes().last() {
        Some(b's') => 1_000,
        Some(b'm') => 60_000,
        Some(b'h') => 3_600_000,
        Some(b'd') => 86_400_000,
        _ => return Err(malformed()),
    };
    let number: u32 = word[..word.len() - 1].parse().map_err(|_| malformed())?;
    i64::from(number).checked_mul(unit).ok_or_else(malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stock_table() {
        let levels = DelayLevels::parse(DEFAULT_LEVELS).expect("stock text");
        assert_eq!(levels, DelayLevels::default());
        assert_eq!(levels.max_level(), 18);
        assert_eq!(levels.delay_ms(0), None);
        assert_eq!(levels.delay_ms(-1), None);
        assert_eq!(levels.delay_ms(1), Some(1_000));
        assert_eq!(levels.delay_ms(3), Some(10_000));
        assert_eq!(levels.delay_ms(18), Some(7_200_000));
        assert_eq!(levels.delay_ms(i32::MAX), Some(7_200_000));
        assert_eq!((levels.clamp(3), levels.clamp(99)), (3, 18));
    }

    #[test]
    fn bad_tables() {
        for bad in ["1", "s", "1x", "-1s", "1s 2", "1.5s", "ä"] {
            assert!(
                matches!(DelayLevels::parse(bad), Err(DelayError::Malformed(_))),
                "{bad}"
            );
        }
        assert_eq!(DelayLevels::parse(" "), Err(DelayError::Count(0)));
        assert_eq!(
            DelayLevels::parse(&"1s ".repeat(257)),
            Err(DelayError::Count(257))
        );
    }
}
