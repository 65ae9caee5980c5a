//! Where a record lies in the log, and the 64-bit *physical offset* clients see for it.

/// Bits of a physical offset that hold the ordinal: an entry carries at most 2^20 records.
pub const ORDINAL_BITS: u32 = 20;
/// The most records one entry may carry.
pub const MAX_ORDINALS: u32 = 1 << ORDINAL_BITS;

/// Log index of the entry and ordinal of the record in it. The same on every replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    pub index: u64,
    pub ordinal: u32,
}

impl Position {
    /// The physical offset: `index << 20 | ordinal`. Never negative for indices below 2^43.
    pub fn to_physical(self) -> i64 {
        ((self.index << ORDINAL_BITS) | u64::from(self.ordinal)) as i64
    }

    /// Resolves a physical offset that a client sent back; `None` for negative ones.
    pub fn from_physical(offset: i64) -> Option<Self> {
        let raw = u64::try_from(offset).ok()?;
        Some(Self {
            index: raw >> ORDINAL_BITS,
            ordinal: (raw & u64::from(MAX_ORDINALS - 1)) as u32,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn physical_offset_resolves_back() {
        let p = Position {
            index: 77,
            ordinal: MAX_ORDINALS - 1,
        };
        assert_eq!(Position::from_physical(p.to_physical()), Some(p));
        assert_eq!(Position::from_physical(-1), None);
    }
}
