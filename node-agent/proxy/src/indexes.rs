//! Which elements of an array are free. Index 0 is never given out.
//!
//! An index that comes back waits behind all others that did, so it is reused as late as possible.

use std::collections::{BTreeSet, VecDeque};

/// Free indexes of one array.
#[derive(Debug)]
pub(crate) struct Indexes {
    limit: u32,
    /// The lowest that was never given out.
    fresh: u32,
    returned: VecDeque<u32>,
}

impl Indexes {
    /// Indexes `1..limit`, of which `used` are taken already.
    pub(crate) fn new(limit: u32, used: &BTreeSet<u32>) -> Self {
        let fresh = used.last().map_or(1, |last| last + 1).max(1);
        Self {
            limit,
            fresh,
            returned: (1..fresh).filter(|index| !used.contains(index)).collect(),
        }
    }

    /// Takes an index; `None` when all are taken.
    pub(crate) fn allocate(&mut self) -> Option<u32> {
        if let Some(index) = self.returned.pop_front() {
            return Some(index);
        }
        if self.fresh >= self.limit {
            return None;
        }
        self.fresh += 1;
        Some(self.fresh - 1)
    }

    /// Gives an index back.
    pub(crate) fn release(&mut self, index: u32) {
        self.returned.push_back(index);
    }

    /// Indexes that are taken.
    pub(crate) fn used(&self) -> u32 {
        self.fresh - 1 - u32::try_from(self.returned.len()).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_but_zero_are_given_out_once_and_come_back_in_turn() {
        let mut indexes = Indexes::new(4, &BTreeSet::new());
        let taken: Vec<_> = std::iter::from_fn(|| indexes.allocate()).collect();
        assert_eq!(taken, [1, 2, 3]);
        indexes.release(2);
        indexes.release(1);
        assert_eq!(indexes.used(), 1);
        assert_eq!(indexes.allocate(), Some(2));
        assert_eq!(indexes.allocate(), Some(1));
        assert_eq!(indexes.allocate(), None);
    }

    #[test]
    fn what_a_restart_finds_is_not_given_out() {
        let mut indexes = Indexes::new(6, &BTreeSet::from([2, 4]));
        let taken: Vec<_> = std::iter::from_fn(|| indexes.allocate()).collect();
        assert_eq!(taken, [1, 3, 5]);
    }
}
