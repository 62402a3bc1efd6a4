//! Which slots are free: runs of one array, given out whole.
//!
//! Best fit, so that large runs stay large; neighbours are joined on release. Time per call is
//! logarithmic in the number of free runs.

use std::collections::{BTreeMap, BTreeSet};

/// A run of slots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Extent {
    pub(crate) base: u32,
    pub(crate) len: u32,
}

/// The free runs.
#[derive(Debug)]
pub(crate) struct Extents {
    by_base: BTreeMap<u32, u32>,
    by_len: BTreeSet<(u32, u32)>,
    free: u32,
    total: u32,
}

impl Extents {
    /// All of `total` slots are free.
    pub(crate) fn new(total: u32) -> Self {
        let mut extents = Self {
            by_base: BTreeMap::new(),
            by_len: BTreeSet::new(),
            free: 0,
            total,
        };
        extents.insert(Extent {
            base: 0,
            len: total,
        });
        extents
    }

    /// Free slots.
    pub(crate) fn free(&self) -> u32 {
        self.free
    }

    /// Slots in all.
    pub(crate) fn total(&self) -> u32 {
        self.total
    }

    /// True when this slot is in a free run.
    pub(crate) fn is_free(&self, slot: u32) -> bool {
        self.by_base
            .range(..=slot)
            .next_back()
            .is_some_and(|(base, len)| slot - base < *len)
    }

    fn insert(&mut self, extent: Extent) {
        if extent.len > 0 {
            self.by_base.insert(extent.base, extent.len);
            self.by_len.insert((extent.len, extent.base));
            self.free += extent.len;
        }
    }

    fn remove(&mut self, extent: Extent) {
        self.by_base.remove(&extent.base);
        self.by_len.remove(&(extent.len, extent.base));
        self.free -= extent.len;
    }

    /// Takes `len` slots, at least one; `None` when no run is long enough.
    pub(crate) fn allocate(&mut self, len: u32) -> Option<Extent> {
        let (found, base) = *self.by_len.range((len.max(1), 0)..).next()?;
        self.remove(Extent { base, len: found });
        self.insert(Extent {
            base: base + len,
            len: found - len,
        });
        Some(Extent { base, len })
    }

    /// Takes a given run out of the free ones: what a restart finds in use. Returns whether all of
    /// it was free.
    pub(crate) fn reserve(&mut self, extent: Extent) -> bool {
        if extent.len == 0 {
            return true;
        }
        let Some(end) = extent.base.checked_add(extent.len) else {
            return false;
        };
        let found = self.by_base.range(..=extent.base).next_back();
        let Some((base, len)) = found.map(|(base, len)| (*base, *len)) else {
            return false;
        };
        if base + len < end {
            return false;
        }
        self.remove(Extent { base, len });
        self.insert(Extent {
            base,
            len: extent.base - base,
        });
        self.insert(Extent {
            base: end,
            len: base + len - end,
        });
        true
    }

    /// Gives a run back that was taken whole.
    pub(crate) fn release(&mut self, extent: Extent) {
        let mut joined = extent;
        let before = self.by_base.range(..extent.base).next_back();
        if let Some((base, len)) = before.map(|(base, len)| (*base, *len))
            && base + len == extent.base
        {
            self.remove(Extent { base, len });
            joined = Extent {
                base,
                len: len + joined.len,
            };
        }
        let after = extent.base + extent.len;
        if let Some(len) = self.by_base.get(&after).copied() {
            self.remove(Extent { base: after, len });
            joined.len += len;
        }
        self.insert(joined);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn everything_can_be_taken_and_comes_back_as_one_run() {
        let mut extents = Extents::new(10);
        let parts: Vec<_> = [3, 3, 4].map(|len| extents.allocate(len).unwrap()).into();
        assert_eq!(extents.allocate(1), None);
        for part in [parts[1], parts[0], parts[2]] {
            extents.release(part);
        }
        assert_eq!(extents.allocate(10), Some(Extent { base: 0, len: 10 }));
    }

    #[test]
    fn a_reserved_run_is_not_given_out_and_not_reserved_twice() {
        let mut extents = Extents::new(10);
        assert!(extents.reserve(Extent { base: 4, len: 2 }));
        assert!(!extents.reserve(Extent { base: 5, len: 2 }));
        assert!(!extents.reserve(Extent {
            base: 9,
            len: u32::MAX
        }));
        assert_eq!(extents.allocate(5), None);
        assert_eq!(extents.allocate(4), Some(Extent { base: 0, len: 4 }));
        assert_eq!(extents.free(), 4);
    }

    proptest! {
        #[test]
        fn runs_in_use_never_overlap_and_nothing_is_lost(
            steps in prop::collection::vec((any::<bool>(), 1u32..40, any::<prop::sample::Index>()), 1..300)
        ) {
            let mut extents = Extents::new(500);
            let mut used: Vec<Extent> = Vec::new();
            for (take, len, which) in steps {
                if take {
                    let Some(new) = extents.allocate(len) else { continue };
                    let apart = used
                        .iter()
                        .all(|old| new.base + new.len <= old.base || old.base + old.len <= new.base);
                    prop_assert!(apart && new.base + new.len <= 500);
                    used.push(new);
                } else if !used.is_empty() {
                    let index = which.index(used.len());
                    extents.release(used.swap_remove(index));
                }
                let in_use: u32 = used.iter().map(|extent| extent.len).sum();
                prop_assert_eq!(extents.free() + in_use, 500);
            }
            for extent in used {
                extents.release(extent);
            }
            prop_assert_eq!(extents.allocate(500), Some(Extent { base: 0, len: 500 }));
        }
    }
}
