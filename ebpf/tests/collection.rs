// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Collection over tables filled by hand: what has ended goes, what lives stays. Needs root and
//! the built objects.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[path = "maps/mod.rs"]
mod maps;

use aya::{
    maps::HashMap,
    programs::{SchedClassifier, TestRun as _, TestRunOptions},
};
use ebpf::{
    conntrack::{Opening, forward_entry, reverse_entry, reverse_key},
    family::{Family, Tuple, V4, V6},
    words,
};
use ebpf_abi::{
    addr::from_v4,
    config::Config,
    conntrack::{CT_ANSWERED, CT_FORWARD, CtEntry},
    gc::{GC_PACKET_LEN, GC_REPORT_OFFSET, GcReport},
    service::{Backend, BackendLoad},
};
use zerocopy::FromBytes as _;

use crate::maps::{Maps, load};

const BACKEND: u32 = 3;
const GENERATION: u32 = 9;
const IDLE_S: u32 = 1000;

/// Time-outs that tell the states apart; a machine must be up for longer than `IDLE_S`.
fn config() -> Config {
    Config {
        tcp_syn_s: 10,
        tcp_established_s: 1_000_000,
        udp_new_s: 10,
        udp_assured_s: 1_000_000,
        ..Config::DEFAULT
    }
}

fn collector() -> Maps {
    let mut bpf = load("gc", &config(), &[]);
    for name in ["gc4", "gc6"] {
        let program: &mut SchedClassifier = bpf.program_mut(name).unwrap().try_into().unwrap();
        program.load().unwrap_or_else(|error| panic!("{error:?}"));
    }
    let mut maps = Maps::new(bpf);
    maps.set_backend(
        BACKEND,
        Backend {
            generation: GENERATION,
            ..Backend::default()
        },
    );
    maps
}

fn run(maps: &mut Maps, name: &str) -> GcReport {
    let program: &mut SchedClassifier = maps.bpf.program_mut(name).unwrap().try_into().unwrap();
    let packet = [0; GC_PACKET_LEN];
    let mut out = [0; GC_PACKET_LEN];
    let result = program
        .test_run(TestRunOptions {
            data_in: Some(&packet),
            data_out: Some(&mut out),
            ..TestRunOptions::default()
        })
        .unwrap();
    assert_eq!(result.return_value, 0);
    GcReport::read_from_bytes(&out[GC_REPORT_OFFSET..]).unwrap()
}

/// Ages of the forward and the reverse entry, in seconds; `None` leaves the entry out.
type Ages = (Option<u32>, Option<u32>);

fn fill<F: Family>(maps: &mut Maps, table: &str, now_s: u32, flows: &[(F::Addr, Ages, u64)])
where
    F::CtKey: aya::Pod,
{
    for (client, (forward_age, reverse_age), flags) in flows {
        let tuple = Tuple {
            src: *client,
            dst: *client,
            sport: 1,
            dport: 2,
            proto: 6,
        };
        let opening = Opening {
            addr: *client,
            port: 3,
            hairpin: None,
            svc: 1,
            backend: BACKEND,
            backend_generation: GENERATION,
        };
        let mut forward = forward_entry::<F>(&opening);
        let mut reverse = reverse_entry::<F>(&tuple, &opening);
        (forward.flags, reverse.flags) = (*flags, *flags);
        let mut entries: HashMap<_, F::CtKey, CtEntry> =
            maps.bpf.map_mut(table).unwrap().try_into().unwrap();
        if let Some(age) = forward_age {
            forward.last_s = now_s - age;
            entries
                .insert(F::ct_key(&tuple, CT_FORWARD), forward, 0)
                .unwrap();
        }
        if let Some(age) = reverse_age {
            reverse.last_s = now_s - age;
            entries
                .insert(reverse_key::<F>(&tuple, &opening), reverse, 0)
                .unwrap();
        }
    }
}

fn remaining<F: Family>(maps: &mut Maps, table: &str) -> usize
where
    F::CtKey: aya::Pod,
{
    maps.hash::<F::CtKey, CtEntry>(table).keys().count()
}

/// (name, ages, flags, entries that stay)
const CASES: [(&str, Ages, u64, usize); 7] = [
    ("both idle", (Some(20), Some(20)), 0, 0),
    ("the client just sent", (Some(0), Some(20)), 0, 2),
    ("the backend just sent", (Some(20), Some(0)), 0, 2),
    ("established and idle", (Some(20), Some(20)), CT_ANSWERED, 2),
    ("a forward entry alone", (Some(20), None), 0, 0),
    ("a reverse entry alone, idle", (None, Some(20)), 0, 0),
    ("a reverse entry alone, young", (None, Some(0)), 0, 1),
];

#[track_caller]
fn check<F: Family>(program: &str, table: &str, client: F::Addr)
where
    F::CtKey: aya::Pod,
{
    for (name, ages, flags, stay) in CASES {
        let mut maps = collector();
        maps.array::<BackendLoad>("be_load")
            .set(
                BACKEND,
                BackendLoad {
                    in_flight: 5,
                    ..BackendLoad::default()
                },
                0,
            )
            .unwrap();
        let now_s = run(&mut maps, program).now_s;
        assert!(now_s > IDLE_S / 10, "the machine has just started");
        fill::<F>(&mut maps, table, now_s, &[(client, ages, flags)]);
        let filled = remaining::<F>(&mut maps, table);
        let report = run(&mut maps, program);
        assert_eq!(report.error, 0, "{name}");
        assert_eq!(remaining::<F>(&mut maps, table), stay, "{name}");
        assert_eq!(report.removed, (filled - stay) as u64, "{name}");
        let ended = i64::from(ages.0.is_some() && stay == 0);
        assert_eq!(maps.load_of(BACKEND).0, 5 - ended, "{name}");
        let expired = maps
            .take_counters()
            .get("conntrack_expired")
            .map_or(0, |count| count.0);
        assert_eq!(i64::try_from(expired).unwrap(), ended, "{name}");
        let live = u64::from(ages.0.is_some() && stay != 0);
        assert_eq!(report.live_flows, live, "{name}");
    }
}

#[test]
fn ipv4_flows_go_when_both_their_entries_are_idle() {
    check::<V4>(
        "gc4",
        "ct4",
        words::as_v4(&words::from_bytes(from_v4([10, 244, 1, 10]))).unwrap(),
    );
}

#[test]
fn ipv6_flows_go_when_both_their_entries_are_idle() {
    check::<V6>("gc6", "ct6", words::from_bytes([0xfd; 16]));
}

#[test]
fn a_large_table_is_walked_in_one_run() {
    let mut maps = collector();
    let now_s = run(&mut maps, "gc4").now_s;
    let flows: Vec<_> = (0..10_000u32)
        .map(|i| (i.to_be(), (Some(20 * (i % 2)), Some(20)), 0))
        .collect();
    fill::<V4>(&mut maps, "ct4", now_s, &flows);
    let report = run(&mut maps, "gc4");
    assert_eq!((report.removed, report.live_flows), (10_000, 5_000));
    // A flow's second entry is seen only if the walk comes to it before the first one.
    assert!(
        (15_000..=20_000).contains(&report.scanned),
        "{}",
        report.scanned
    );
}

#[test]
fn a_backend_s_id_given_away_is_not_counted_down() {
    let mut maps = collector();
    let now_s = run(&mut maps, "gc4").now_s;
    fill::<V4>(&mut maps, "ct4", now_s, &[(1, (Some(20), Some(20)), 0)]);
    maps.set_backend(
        BACKEND,
        Backend {
            generation: GENERATION + 1,
            ..Backend::default()
        },
    );
    assert_eq!(run(&mut maps, "gc4").removed, 2);
    assert_eq!(maps.load_of(BACKEND).0, 0);
}
