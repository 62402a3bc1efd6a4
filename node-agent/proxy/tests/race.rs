//! Ten million choices in the kernel race a thousand changes of the set they choose from.
//!
//! The writer is the proxy's own reconciler on pinned maps; the reader is the programs' own
//! selection, run by `BPF_PROG_TEST_RUN`, which checks each choice. Needs root and the BPF objects.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test's own steps; what is not run is said"
)]

#[path = "race/parity.rs"]
mod parity;
#[path = "../../datapath/tests/kernel/sandbox.rs"]
mod sandbox;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use node_agent_datapath::abi::pick::{PICKS_PER_RUN, PickRun};
use node_agent_datapath::abi::service::Slot;
use node_agent_datapath::maps::{HeadKind, ReadServiceMaps as _, ServiceMaps as _};
use node_agent_datapath::{Datapath, DatapathConfig, Picker};
use node_agent_proxy::{ProxyConfig, Reconciler};
use node_agent_state::Snapshot;

use parity::{Parity, backends, tables};
use sandbox::Sandbox;

const PICKS: u64 = 10_000_000;
const CHANGES: u64 = 1_000;
/// Runs a call into the kernel: some 150 us.
const REPEAT: u32 = 200;
/// The reader tells how far it is between two calls, when nothing races: the writer waits up to so
/// long after that, each time another while.
const STRAY_US: u64 = 150;

/// Chooses until told to stop and at least `PICKS` times; counts on the way.
fn read(config: &DatapathConfig, service: u32, picked: &AtomicU64, stop: &AtomicBool) -> PickRun {
    let picker = Picker::open(config).unwrap();
    let mut total = PickRun::default();
    while !stop.load(Ordering::Relaxed) || total.picked < PICKS {
        let run = picker.run(service, REPEAT).unwrap();
        total.picked += run.picked;
        total.empty += run.empty;
        total.wrong += run.wrong;
        total.inconsistent += run.inconsistent;
        picked.store(total.picked, Ordering::Relaxed);
    }
    total
}

/// Waits until the reader has done its share of the work before the next change, and is in the
/// middle of more.
fn wait_for(picked: &AtomicU64, count: u64, change: u64) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while picked.load(Ordering::Relaxed) < count {
        assert!(Instant::now() < deadline, "the reader does not get on");
        std::thread::yield_now();
    }
    let stray = Duration::from_micros(change.wrapping_mul(0x9e37_79b9) % STRAY_US);
    let begin = Instant::now();
    while begin.elapsed() < stray {
        std::hint::spin_loop();
    }
}

#[test]
fn ten_million_choices_race_a_thousand_changes_and_none_is_wrong() {
    let Some(sandbox) = Sandbox::enter("race") else {
        return;
    };
    let config = sandbox.config();
    let datapath = Datapath::start(&config).unwrap();
    let maps = Parity(datapath.service_maps().unwrap());
    let mut reconciler = Reconciler::new(maps, &ProxyConfig::default(), Duration::ZERO).unwrap();
    let started = Instant::now();
    let publish = |reconciler: &mut Reconciler<Parity>, change: u64| {
        // The set's parity follows the generation that the next publication will have.
        let service = reconciler.maps().service(1).unwrap();
        let next = HeadKind::Ready.of(&service).generation.wrapping_add(1);
        let tables: Arc<Snapshot> = tables(&backends(next, change), change);
        reconciler.observe(&tables);
        let outcome = reconciler.reconcile(started.elapsed());
        assert!(outcome.applied && outcome.without_room == 0, "{outcome:?}");
        let service = reconciler.maps().service(1).unwrap();
        assert_eq!(
            HeadKind::Ready.of(&service).generation,
            next,
            "one publication a change"
        );
    };
    // The element itself first, with an empty set: its generation is where the count starts.
    reconciler.observe(&tables(&[], 0));
    assert!(reconciler.reconcile(started.elapsed()).applied);
    publish(&mut reconciler, 1);
    let (picked, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let total = std::thread::scope(|scope| {
        let reader = scope.spawn(|| read(&config, 1, &picked, &stop));
        for change in 1..=CHANGES {
            wait_for(&picked, change * (PICKS / CHANGES), change);
            publish(&mut reconciler, change + 1);
        }
        stop.store(true, Ordering::Relaxed);
        reader.join().unwrap()
    });
    println!(
        "{} choices, {CHANGES} changes, {:?}",
        total.picked,
        started.elapsed()
    );
    assert!(total.picked >= PICKS);
    assert_eq!((total.wrong, total.inconsistent, total.empty), (0, 0, 0));
    datapath.remove().unwrap();
}

/// The test above can fail: this writer changes the slots under the head, and is caught.
#[test]
fn a_writer_that_rewrites_slots_in_place_is_caught() {
    let Some(sandbox) = Sandbox::enter("rewrite") else {
        return;
    };
    let config = sandbox.config();
    let datapath = Datapath::start(&config).unwrap();
    let maps = Parity(datapath.service_maps().unwrap());
    let mut reconciler = Reconciler::new(maps, &ProxyConfig::default(), Duration::ZERO).unwrap();
    // Both halves, so that all backends exist and stay; the head's generation is odd or even.
    let both: Vec<_> = backends(0, 1).into_iter().chain(backends(1, 1)).collect();
    reconciler.observe(&tables(&both, 1));
    assert!(reconciler.reconcile(Duration::ZERO).applied);
    let mut maps = reconciler.into_maps();
    let head = HeadKind::Ready.of(&maps.service(1).unwrap());
    let slots = maps.slots(head.base, head.len).unwrap();
    let half = |bit: u16| -> Vec<Slot> {
        let member = |slot: &&Slot| maps.backend(slot.backend).unwrap().node & (1 << bit) != 0;
        let members: Vec<Slot> = slots.iter().filter(member).copied().collect();
        members.iter().copied().cycle().take(slots.len()).collect()
    };
    let (right, wrong) = (half(head.generation & 1), half(1 - (head.generation & 1)));
    // Without a race: the check knows right from wrong.
    let picker = Picker::open(&config).unwrap();
    maps.write_slots(head.base, &wrong).unwrap();
    let run = picker.run(1, 10).unwrap();
    assert_eq!(run.wrong, run.picked);
    maps.write_slots(head.base, &right).unwrap();
    assert_eq!(picker.run(1, 10).unwrap().wrong, 0);
    let (picked, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let total = std::thread::scope(|scope| {
        let reader = scope.spawn(|| read(&config, 1, &picked, &stop));
        // Between the two writes the reader has made at least two calls.
        maps.write_slots(head.base, &wrong).unwrap();
        let calls = 3 * u64::from(REPEAT) * u64::from(PICKS_PER_RUN);
        wait_for(&picked, picked.load(Ordering::Relaxed) + calls, 1);
        maps.write_slots(head.base, &right).unwrap();
        stop.store(true, Ordering::Relaxed);
        reader.join().unwrap()
    });
    println!("{} of {} choices were wrong", total.wrong, total.picked);
    assert!(total.wrong > 0, "the check sees nothing");
    datapath.remove().unwrap();
}
