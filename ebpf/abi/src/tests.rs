// SPDX-License-Identifier: Apache-2.0 OR MIT OR GPL-2.0-only
//! What the derives cannot prove: packing, names, costs, golden bytes.
extern crate std;

use std::{collections::BTreeSet, format, vec::Vec};

use zerocopy::IntoBytes as _;

use crate::{
    addr,
    counter::{DropReason, Metric},
    frontend::{Fe4Key, Frontend},
    map::{self, MAPS, MapKind},
    program::PROGRAMS,
    service::{Backend, Head, Slot},
};

#[test]
fn a_head_survives_packing_at_its_bounds() {
    for base in [0, 1, 1_048_575, u32::MAX] {
        for len in [0, 1, u16::MAX] {
            for generation in [0, 1, u16::MAX] {
                let head = Head {
                    base,
                    len,
                    generation,
                };
                assert_eq!(Head::unpack(head.pack()), head);
            }
        }
    }
    assert_eq!(
        Head {
            base: 0x1122_3344,
            len: 0x5566,
            generation: 0x7788
        }
        .pack(),
        0x7788_5566_1122_3344
    );
}

#[test]
fn values_have_the_bytes_that_inspection_expects() {
    let key = Fe4Key {
        vip: [10, 96, 0, 1],
        port: 443u16.to_be_bytes(),
        proto: 6,
        pad: 0,
    };
    assert_eq!(key.as_bytes(), [10, 96, 0, 1, 1, 0xbb, 6, 0]);
    let value = Frontend {
        svc: 0x0102_0304,
        flags: 0x0506,
        pad: 0,
    };
    assert_eq!(value.as_bytes().len(), 8);
    let backend = Backend {
        addr: addr::from_v4([10, 244, 1, 2]),
        port: 8080u16.to_be_bytes(),
        ..Backend::default()
    };
    assert_eq!(
        backend.as_bytes()[10..18],
        [0xff, 0xff, 10, 244, 1, 2, 0x1f, 0x90]
    );
    assert_eq!(Slot::default().as_bytes(), [0; 8]);
}

#[test]
fn an_ipv4_address_keeps_its_family_in_sixteen_bytes() {
    let mapped = addr::from_v4([192, 0, 2, 1]);
    assert!(addr::is_v4(&mapped));
    assert_eq!(addr::low_v4(&mapped), [192, 0, 2, 1]);
    assert!(!addr::is_v4(&[0; 16]));
    assert!(!addr::is_v4(&[0xfd; 16]));
}

#[test]
fn names_are_unique_and_fit_the_kernel() {
    let mut names = BTreeSet::new();
    for map in MAPS {
        assert!(
            map.name.len() < 16,
            "{} is longer than BPF_OBJ_NAME_LEN allows",
            map.name
        );
        assert!(names.insert(map.name), "{} is there twice", map.name);
    }
    for program in PROGRAMS {
        assert!(program.name.len() < 16);
        assert!(
            names.insert(program.name),
            "{} is there twice",
            program.name
        );
    }
}

#[test]
fn counters_fit_their_maps_and_are_listed_by_index() {
    assert!(DropReason::ALL.len() <= map::DROP_SLOTS as usize);
    assert!(Metric::ALL.len() <= map::METRIC_SLOTS as usize);
    let drops: Vec<u32> = DropReason::ALL
        .iter()
        .map(|reason| reason.index())
        .collect();
    assert_eq!(
        drops,
        (0..drops.len())
            .map(|i| u32::try_from(i).unwrap())
            .collect::<Vec<_>>()
    );
    let names: BTreeSet<&str> = Metric::ALL.iter().map(|metric| metric.name()).collect();
    assert_eq!(names.len(), Metric::ALL.len());
}

#[test]
fn mapped_values_are_a_plain_slice() {
    for map in MAPS.iter().filter(|map| map.kind == MapKind::MappedArray) {
        assert_eq!(
            map.value_size % 8,
            0,
            "{}: elements lie 8 bytes apart",
            map.name
        );
    }
}

#[test]
fn all_maps_stay_within_their_memory_budget() {
    let full: u64 = MAPS.iter().map(|map| map.memory(map.entries, 4)).sum();
    let small: u64 = MAPS
        .iter()
        .map(|map| map.memory(map.entries_small, 4))
        .sum();
    assert!(full < 150 << 20, "{} MiB", full >> 20);
    assert!(small < 40 << 20, "{} MiB", small >> 20);
    assert!(
        small > 10 << 20,
        "{} MiB: the documented figure is wrong",
        small >> 20
    );
}

#[test]
fn the_pin_directory_carries_the_version() {
    assert_eq!(map::PIN_DIR, format!("v{}", crate::ABI_VERSION));
}
