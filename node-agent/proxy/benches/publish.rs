//! What a change costs: from the new tables to the maps.
//!
//! Runs on the kernel's maps as root and with the BPF objects built, otherwise on maps in memory.
//! Prints the least, the median and the 99th percentile; the machine's other load shows in the tail.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a bench prints; what is not run is said"
)]

#[path = "../../datapath/tests/kernel/sandbox.rs"]
mod sandbox;

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use node_agent_datapath::Datapath;
use node_agent_datapath::config::MapProfile;
use node_agent_datapath::maps::ServiceMaps;
use node_agent_datapath::maps::fake::FakeServiceMaps;
use node_agent_proxy::{ProxyConfig, Reconciler};
use node_agent_state::model::{Endpoint, EndpointPort, Protocol, Service, ServicePort};
use node_agent_state::{ObjectName, ServiceEntry, Snapshot};

const SERVICES: u32 = 10_000;
const BACKENDS: u32 = 10;
const CHANGES: u32 = 500;
const LARGE: u32 = 100;

fn address(range: u8, number: u32) -> Ipv4Addr {
    let [_, b, c, d] = number.to_be_bytes();
    Ipv4Addr::new(range, b, c, d)
}

fn entry(number: u32, backends: u32) -> ServiceEntry {
    let service = Service {
        namespace: "default".into(),
        name: format!("service-{number:05}"),
        cluster_ips: vec![address(10, number + 1).into()],
        ports: vec![ServicePort {
            name: String::new(),
            protocol: Protocol::Tcp,
            port: 80,
            node_port: None,
        }],
        ..Service::default()
    };
    let endpoint = |backend: u32| Endpoint {
        address: address(11, number * BACKENDS + backend).into(),
        hostname: None,
        node: None,
        zone: None,
        pod: None,
        ready: true,
        serving: true,
        terminating: false,
        ports: vec![EndpointPort {
            name: String::new(),
            protocol: Protocol::Tcp,
            port: 8080,
        }],
    };
    ServiceEntry {
        service: Some(Arc::new(service)),
        endpoints: Arc::new((0..backends).map(endpoint).collect()),
    }
}

fn name(number: u32) -> ObjectName {
    ObjectName::new("default", format!("service-{number:05}"))
}

fn tables(services: u32) -> Snapshot {
    let entries = (0..services).map(|number| (name(number), Arc::new(entry(number, BACKENDS))));
    Snapshot {
        in_sync: true,
        services: entries.collect(),
        ..Snapshot::default()
    }
}

fn show(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |share: usize| times[(times.len() - 1) * share / 100];
    println!(
        "{what:<60} least {:>9.1?}  p50 {:>9.1?}  p99 {:>9.1?}",
        at(0),
        at(50),
        at(99)
    );
}

fn bench<M: ServiceMaps>(maps: M, kind: &str) {
    let started = Instant::now();
    let mut reconciler =
        Reconciler::new(maps, &ProxyConfig::default(), started.elapsed()).expect("empty maps");
    let full = Arc::new(tables(SERVICES));
    let begin = Instant::now();
    reconciler.observe(&full);
    let outcome = reconciler.reconcile(started.elapsed());
    let elapsed = begin.elapsed();
    assert!(outcome.applied && outcome.without_room == 0, "{outcome:?}");
    println!("{kind}: full build of {SERVICES} services with {BACKENDS} backends: {elapsed:.1?}");

    let mut current = Snapshot::clone(&full);
    let mut one = |number: u32, backends: u32| {
        current
            .services
            .insert(name(number), Arc::new(entry(number, backends)));
        let tables = Arc::new(current.clone());
        let begin = Instant::now();
        reconciler.observe(&tables);
        let outcome = reconciler.reconcile(started.elapsed());
        let elapsed = begin.elapsed();
        assert!(outcome.applied && outcome.without_room == 0, "{outcome:?}");
        elapsed
    };
    let small = (0..CHANGES).map(|change| one(change % SERVICES, BACKENDS - 1 - change % 2));
    show(
        &format!("{kind}: one backend of {BACKENDS} leaves"),
        small.collect(),
    );
    let number = SERVICES - 1;
    one(number, LARGE);
    let large = (0..CHANGES).map(|change| one(number, LARGE - change % 2));
    show(
        &format!("{kind}: one backend of {LARGE} leaves or comes back"),
        large.collect(),
    );

    let maps = reconciler.into_maps();
    let begin = Instant::now();
    let restored = Reconciler::new(maps, &ProxyConfig::default(), Duration::ZERO);
    assert!(restored.is_ok(), "{restored:?}");
    println!(
        "{kind}: taking over the maps of {SERVICES} services: {:.1?}",
        begin.elapsed()
    );
}

fn main() {
    match sandbox::Sandbox::enter("bench") {
        Some(sandbox) => {
            let mut config = sandbox.config();
            config.profile = MapProfile::Normal;
            let datapath = Datapath::start(&config).expect("the kernel runs our programs");
            bench(datapath.service_maps().expect("pinned maps"), "kernel maps");
            datapath.remove().expect("own pins");
        }
        None => bench(
            FakeServiceMaps::new(node_agent_datapath::maps::Limits {
                services: 65_536,
                slots: 1_048_576,
                backends: 262_144,
                frontends: 65_536,
            }),
            "maps in memory",
        ),
    }
}
