//! Maps without room: the service that does not fit is told, the others are not held up, and it
//! gets in as soon as there is room.

#![expect(clippy::unwrap_used, reason = "a test's own steps")]

use std::sync::Arc;
use std::time::Duration;

use node_agent_datapath::maps::fake::FakeServiceMaps;
use node_agent_datapath::maps::view::LoadBalancerView;
use node_agent_datapath::maps::{Limits, dump};
use node_agent_proxy::{Outcome, ProxyConfig, Reconciler};
use node_agent_state::model::{Endpoint, EndpointPort, Protocol, Service, ServicePort};
use node_agent_state::{ObjectName, ServiceEntry, Snapshot};

fn add(tables: &mut Snapshot, name: &str, vip: &str, backends: u8) {
    let service = Service {
        namespace: "default".into(),
        name: name.into(),
        cluster_ips: vec![vip.parse().unwrap()],
        ports: vec![ServicePort {
            name: String::new(),
            protocol: Protocol::Tcp,
            port: 80,
            node_port: None,
        }],
        ..Service::default()
    };
    let endpoint = |last: u8| Endpoint {
        address: [10, 244, 1, last].into(),
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
            port: 80,
        }],
    };
    let entry = ServiceEntry {
        service: Some(Arc::new(service)),
        endpoints: Arc::new((1..=backends).map(endpoint).collect()),
    };
    tables
        .services
        .insert(ObjectName::new("default", name), Arc::new(entry));
}

fn round(reconciler: &mut Reconciler<FakeServiceMaps>, tables: &Snapshot, seconds: u64) -> Outcome {
    reconciler.observe(&Arc::new(tables.clone()));
    reconciler.reconcile(Duration::from_secs(seconds))
}

fn ready(maps: &FakeServiceMaps) -> Vec<usize> {
    let view = LoadBalancerView::read(maps).unwrap();
    view.services
        .values()
        .map(|service| service.ready.len())
        .collect()
}

const LIMITS: Limits = Limits {
    services: 3,
    slots: 4,
    backends: 8,
    frontends: 8,
};

#[test]
fn a_set_without_slots_waits_until_an_old_one_has_rested() {
    let maps = FakeServiceMaps::new(LIMITS);
    let mut reconciler =
        Reconciler::new(maps.clone(), &ProxyConfig::default(), Duration::ZERO).unwrap();
    let mut tables = Snapshot {
        in_sync: true,
        ..Snapshot::default()
    };
    add(&mut tables, "a", "10.96.0.1", 3);
    assert_eq!(round(&mut reconciler, &tables, 0).without_room, 0);
    // Three slots are in use, two more are wanted: the old set stays in force.
    add(&mut tables, "a", "10.96.0.1", 2);
    let outcome = round(&mut reconciler, &tables, 1);
    assert_eq!((outcome.without_room, outcome.applied), (1, true));
    assert!(outcome.last_error.unwrap().contains("slot"));
    assert_eq!(ready(&maps), [3]);
    // Another service that fits is not held up.
    add(&mut tables, "b", "10.96.0.2", 1);
    assert_eq!(round(&mut reconciler, &tables, 2).without_room, 1);
    assert_eq!(ready(&maps), [3, 1]);
    // It goes; after its rest there is room for one slot only; the service shrinks to it.
    tables.services.remove(&ObjectName::new("default", "b"));
    add(&mut tables, "a", "10.96.0.1", 1);
    assert_eq!(round(&mut reconciler, &tables, 3).without_room, 1);
    let outcome = round(&mut reconciler, &tables, 14);
    assert_eq!(ready(&maps), [3]);
    assert!(outcome.wake_at.is_some(), "tried again without a change");
    assert_eq!(round(&mut reconciler, &tables, 20).without_room, 0);
    assert_eq!(ready(&maps), [1]);
}

#[test]
fn services_beyond_the_last_element_are_told_and_the_others_work() {
    let maps = FakeServiceMaps::new(LIMITS);
    let mut reconciler =
        Reconciler::new(maps.clone(), &ProxyConfig::default(), Duration::ZERO).unwrap();
    let mut tables = Snapshot {
        in_sync: true,
        ..Snapshot::default()
    };
    for (name, vip) in [("a", "10.96.0.1"), ("b", "10.96.0.2"), ("c", "10.96.0.3")] {
        add(&mut tables, name, vip, 1);
    }
    let outcome = round(&mut reconciler, &tables, 0);
    assert_eq!((outcome.changed, outcome.without_room), (2, 1));
    let text = dump::text(&LoadBalancerView::read(&maps).unwrap());
    assert!(
        text.contains("10.96.0.2:80/TCP cluster-ip ready=10.244.1.1:80"),
        "{text}"
    );
    assert!(!text.contains("10.96.0.3:80/TCP"), "{text}");
    tables.services.remove(&ObjectName::new("default", "a"));
    round(&mut reconciler, &tables, 1);
    assert_eq!(
        round(&mut reconciler, &tables, 12).without_room,
        1,
        "freed in this round"
    );
    assert_eq!(round(&mut reconciler, &tables, 13).without_room, 0);
    let text = dump::text(&LoadBalancerView::read(&maps).unwrap());
    assert!(
        text.contains("10.96.0.3:80/TCP cluster-ip ready=10.244.1.1:80"),
        "{text}"
    );
}
