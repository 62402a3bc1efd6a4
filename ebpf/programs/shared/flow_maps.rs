// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! `ct4`, `ct6`: the tables of translated flows, one for each family.

use aya_ebpf::{bindings::BPF_NOEXIST, btf_maps::HashMap, macros::btf_map};
use ebpf::family::{Family, V4, V6};
use ebpf_abi::{
    conntrack::{Ct4Key, Ct6Key, CtEntry},
    map,
};

#[btf_map(name = "ct4")]
pub(crate) static CT4: HashMap<Ct4Key, CtEntry, { map::CT4.entries as usize }> = HashMap::new();

#[btf_map(name = "ct6")]
pub(crate) static CT6: HashMap<Ct6Key, CtEntry, { map::CT6.entries as usize }> = HashMap::new();

/// Why an entry was not inserted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum InsertError {
    /// The key is in use.
    Exists,
    /// The table is full.
    Full,
}

const EEXIST: i32 = -17;

/// The flow table of a family.
pub(crate) trait Flows: Family {
    /// The entry under `key`. It stays readable during the run; it may be removed meanwhile, and
    /// then be another flow's, which only an idle flow's removal brings about.
    fn flow(key: &Self::CtKey) -> Option<*mut CtEntry>;
    /// Inserts an entry under a free key.
    fn insert(key: &Self::CtKey, entry: &CtEntry) -> Result<(), InsertError>;
    /// Removes an entry; `false` if there was none.
    fn remove(key: &Self::CtKey) -> bool;
}

macro_rules! flows {
    ($family:ty, $map:ident) => {
        impl Flows for $family {
            #[inline(always)]
            fn flow(key: &Self::CtKey) -> Option<*mut CtEntry> {
                $map.get_ptr_mut(key)
            }

            #[inline(always)]
            fn insert(key: &Self::CtKey, entry: &CtEntry) -> Result<(), InsertError> {
                $map.insert(key, entry, u64::from(BPF_NOEXIST))
                    .map_err(|error| match error {
                        EEXIST => InsertError::Exists,
                        _ => InsertError::Full,
                    })
            }

            #[inline(always)]
            fn remove(key: &Self::CtKey) -> bool {
                $map.remove(key).is_ok()
            }
        }
    };
}

flows!(V4, CT4);
flows!(V6, CT6);
