//! Requests of one gateway thread that wait for a core's answer, under numbers that are never
//! mistaken for each other: a slot's number holds a generation beside its place.

use slab::Slab;

/// Values under generation-checked numbers.
pub struct Slots<T> {
    slab: Slab<(u32, T)>,
    generation: u32,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self {
            slab: Slab::new(),
            generation: 0,
        }
    }
}

impl<T> Slots<T> {
    /// Stores a value and gives its number.
    pub fn insert(&mut self, value: T) -> u64 {
        self.insert_with(|_| value)
    }

    /// [`Slots::insert`] for a value that holds its own number.
    pub fn insert_with(&mut self, make: impl FnOnce(u64) -> T) -> u64 {
        self.generation = self.generation.wrapping_add(1);
        let entry = self.slab.vacant_entry();
        let number = u64::from(self.generation) << 32 | entry.key() as u64;
        entry.insert((self.generation, make(number)));
        number
    }

    /// Takes the value out; `None` when the number is old.
    pub fn remove(&mut self, number: u64) -> Option<T> {
        let at = (number & u64::from(u32::MAX)) as usize;
        match self.slab.get(at) {
            Some((generation, _)) if u64::from(*generation) == number >> 32 => {
                Some(self.slab.remove(at).1)
            }
            _ => None,
        }
    }

    /// The numbers of the values that `wanted` names.
    pub fn numbers(&self, wanted: impl Fn(&T) -> bool) -> Vec<u64> {
        let all = self.slab.iter();
        all.filter(|(_, (_, value))| wanted(value))
            .map(|(key, (generation, _))| u64::from(*generation) << 32 | key as u64)
            .collect()
    }

    /// Stored values.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.slab.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_number_never_finds_a_newer_value() {
        let mut slots = Slots::default();
        let a = slots.insert("a");
        assert_eq!(slots.remove(a), Some("a"));
        let b = slots.insert("b");
        assert_eq!(a & 0xFFFF_FFFF, b & 0xFFFF_FFFF, "the place is used again");
        assert_eq!(slots.remove(a), None);
        assert_eq!(slots.remove(u64::MAX), None);
        assert_eq!(slots.numbers(|value| *value == "b"), [b]);
        assert_eq!(slots.numbers(|value| *value == "a"), [0; 0]);
        assert_eq!(slots.remove(b), Some("b"));
        assert_eq!(slots.len(), 0);
    }
}
