// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Packets with a few bytes changed at random: whatever they are, the verdict is one of three,
//! a drop has its one reason, and a packet that goes on has the checksums it came with.

use std::cell::RefCell;

use proptest::prelude::*;

use crate::{
    ALL, check_sums,
    node::{DROP, PASS, REDIRECT, SERVER},
    node_with, question,
};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_mutated_packet_is_dropped_for_a_reason_or_stays_sound(
        case in 0usize..4,
        mutations in prop::collection::vec(
            prop::collection::vec((12usize..80, any::<u8>()), 0..4), 100,
        ),
        cut in prop::option::of(14usize..80),
    ) {
        let (v4, l4) = ALL[case];
        let node = RefCell::new(node_with(v4, l4, &[SERVER.ip(v4)]));
        for mutation in mutations {
            let mut sent = question(v4, l4).bytes();
            for (at, value) in mutation {
                if let Some(byte) = sent.get_mut(at) {
                    *byte = value;
                }
            }
            // The kernel itself refuses a test run shorter than its Ethernet and IP header.
            let least = if v4 { 34 } else { 54 };
            sent.truncate(cut.unwrap_or(sent.len()).max(least));
            for program in ["from_pod", "to_pod"] {
                let (verdict, got) = node.borrow_mut().run(program, &sent);
                let counters = node.borrow_mut().take_counters();
                prop_assert!([PASS, DROP, REDIRECT].contains(&verdict), "{verdict}");
                let reasons = ebpf_abi::counter::DropReason::ALL;
                let dropped: u64 = reasons
                    .iter()
                    .filter_map(|reason| counters.get(reason.name()))
                    .map(|count| count.0)
                    .sum();
                prop_assert_eq!(dropped, u64::from(verdict == DROP), "{:?}", counters);
                if verdict == DROP {
                    prop_assert!(got == sent, "a dropped packet is not half translated");
                } else {
                    prop_assert_eq!(check_sums(&got), check_sums(&sent), "{:x?}", sent);
                }
            }
        }
    }
}
