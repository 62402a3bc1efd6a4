use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use control_plane_client::{Cached, ObjectKey};
use jiff::Timestamp;
use proptest::prelude::*;
use proto_api::types::core::v1::{Pod, Service};
use proto_api::types::discovery::v1::{EndpointPort, EndpointSlice};
use serde_json::{Value, json};

use super::desired::{self, Group, Template};
use super::plan::{self, ENDPOINTS_MAX, Slice, Writes};
use super::trigger::Triggers;
use crate::service_pods::Family;

#[expect(clippy::needless_pass_by_value, reason = "test data are literals")]
fn service(spec: Value) -> Arc<Cached<Service>> {
    let value = json!({
        "metadata": {"name": "web", "namespace": "default", "uid": "s", "labels": {"team": "a"},
                     "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": spec,
    });
    let value = serde_json::from_value(value).expect("service");
    Arc::new(Cached {
        key: ObjectKey::new("default", "web"),
        revision: 1,
        value,
    })
}

fn plain() -> Arc<Cached<Service>> {
    service(json!({
        "clusterIP": "10.96.0.7", "selector": {"app": "web"},
        "ports": [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}],
    }))
}

#[expect(clippy::needless_pass_by_value, reason = "test data are literals")]
fn pod(name: &str, ip: &str, change: Value) -> Arc<Cached<Pod>> {
    let mut value = json!({
        "metadata": {"name": name, "namespace": "default", "uid": name, "labels": {"app": "web"}},
        "spec": {"nodeName": "n", "containers": [
            {"name": "c", "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}]},
        ]},
        "status": {"phase": "Running", "podIP": ip, "conditions": [
            {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:10Z"},
        ]},
    });
    for (pointer, to) in change.as_object().expect("pointers") {
        let (parent, field) = pointer.rsplit_once('/').expect("pointer");
        value.pointer_mut(parent).expect("parent")[field] = to.clone();
    }
    let value = serde_json::from_value(value).expect("pod");
    Arc::new(Cached {
        key: ObjectKey::new("default", name),
        revision: 1,
        value,
    })
}

fn groups(service: &Cached<Service>, family: Family, pods: &[Arc<Cached<Pod>>]) -> Vec<Group> {
    let zone = |node: &str| (node == "n").then(|| "z".to_owned());
    let spec = service.spec.as_ref().expect("spec");
    desired::groups(&service.key, spec, family, pods.iter(), &zone)
}

/// Address, ready, serving, terminating.
type Shown = (String, Option<bool>, Option<bool>, Option<bool>);

#[test]
fn an_endpoint_says_where_its_pod_is_and_how_it_is() {
    let ready = pod("ready", "10.0.0.1", json!({}));
    let unready = pod("unready", "10.0.0.2", json!({"/status/conditions": []}));
    let going = pod(
        "going",
        "10.0.0.3",
        json!({"/metadata/deletionTimestamp": "2026-01-01T00:00:00Z"}),
    );
    let ended = pod("ended", "10.0.0.4", json!({"/status/phase": "Failed"}));
    let addressless = pod("addressless", "", json!({}));
    let pods = [ready, unready, going, ended, addressless];
    let found = groups(&plain(), Family::V4, &pods);
    assert_eq!(found.len(), 1);
    let shown = |published: Option<bool>| -> Vec<Shown> {
        let mut spec = serde_json::to_value(plain().spec.as_ref()).expect("json");
        spec["publishNotReadyAddresses"] = json!(published);
        groups(&service(spec), Family::V4, &pods)[0]
            .endpoints
            .iter()
            .map(|endpoint| {
                let c = endpoint.conditions.clone().expect("conditions");
                (
                    endpoint.addresses[0].clone(),
                    c.ready,
                    c.serving,
                    c.terminating,
                )
            })
            .collect()
    };
    let (yes, no) = (Some(true), Some(false));
    assert_eq!(
        shown(None),
        [
            ("10.0.0.1".to_owned(), yes, yes, no),
            ("10.0.0.2".to_owned(), no, no, no),
            ("10.0.0.3".to_owned(), no, yes, yes),
        ]
    );
    assert_eq!(
        shown(yes)
            .iter()
            .map(|(_, ready, ..)| *ready)
            .collect::<Vec<_>>(),
        [yes, yes, yes]
    );
    let first = &found[0].endpoints[0];
    assert_eq!(first.node_name.as_deref(), Some("n"));
    assert_eq!(first.zone.as_deref(), Some("z"));
    assert_eq!(
        first.target_ref.as_ref().and_then(|t| t.uid.as_deref()),
        Some("ready")
    );
    assert_eq!(found[0].ports[0].port, Some(8080));
}

#[test]
fn pods_whose_named_port_differs_are_in_different_groups() {
    let other = json!([{"name": "c", "ports": [{"name": "http", "containerPort": 9090, "protocol": "TCP"}]}]);
    let pods = [
        pod("a", "10.0.0.1", json!({})),
        pod("b", "10.0.0.2", json!({"/spec/containers": other})),
    ];
    let numbers: Vec<_> = groups(&plain(), Family::V4, &pods)
        .iter()
        .map(|group| group.ports[0].port)
        .collect();
    assert_eq!(numbers, [Some(8080), Some(9090)]);
}

#[test]
fn each_family_has_its_own_addresses() {
    let dual = pod(
        "a",
        "10.0.0.1",
        json!({"/status/podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]}),
    );
    let single = pod("b", "10.0.0.2", json!({}));
    let addresses = |family| -> Vec<String> {
        groups(&plain(), family, &[Arc::clone(&dual), Arc::clone(&single)])
            .into_iter()
            .flat_map(|group| group.endpoints)
            .flat_map(|endpoint| endpoint.addresses)
            .collect()
    };
    assert_eq!(addresses(Family::V4), ["10.0.0.1", "10.0.0.2"]);
    assert_eq!(addresses(Family::V6), ["fd00::1"]);
}

#[test]
fn a_headless_service_shows_in_labels_and_host_names() {
    let headless = service(json!({"clusterIP": "None", "selector": {"app": "web"}}));
    let named = pod(
        "a",
        "10.0.0.1",
        json!({"/spec/hostname": "first", "/spec/subdomain": "web"}),
    );
    let template = Template::of(&headless, headless.spec.as_ref().expect("spec"));
    assert_eq!(template.labels["service.kubernetes.io/headless"], "");
    assert_eq!(template.labels["kubernetes.io/service-name"], "web");
    assert_eq!(template.labels["team"], "a");
    let groups = groups(&headless, Family::V4, &[named]);
    assert!(groups[0].ports.is_empty());
    assert_eq!(groups[0].endpoints[0].hostname.as_deref(), Some("first"));
}

/// The slices as the API would hold them after the writes.
#[derive(Default)]
struct Stored {
    slices: BTreeMap<String, EndpointSlice>,
    next: u64,
}

impl Stored {
    fn present(&self) -> Vec<Slice> {
        self.slices
            .iter()
            .map(|(name, slice)| {
                let key = ObjectKey::new("default", name.as_str());
                Arc::new(Cached {
                    key,
                    revision: 1,
                    value: slice.clone(),
                })
            })
            .collect()
    }

    fn apply(&mut self, writes: Writes) {
        for slice in writes.create {
            self.next += 1;
            self.slices.insert(format!("web-{}", self.next), slice);
        }
        for (present, next) in writes.update {
            self.slices.insert(present.key.name.to_string(), next);
        }
        for slice in writes.delete {
            self.slices.remove(&*slice.key.name);
        }
    }
}

fn template() -> Template {
    let service = plain();
    Template::of(&service, service.spec.as_ref().expect("spec"))
}

fn group(port: i32, hosts: &BTreeSet<u16>) -> Group {
    let ports = vec![EndpointPort {
        port: Some(port),
        ..EndpointPort::default()
    }];
    let pods: Vec<_> = hosts
        .iter()
        .map(|host| {
            let ip = format!("10.{port}.{}.{}", host / 250, host % 250 + 1);
            pod(&format!("p{port}-{host}"), &ip, json!({}))
        })
        .collect();
    let endpoints = groups(&plain(), Family::V4, &pods)
        .into_iter()
        .flat_map(|g| g.endpoints);
    Group {
        ports,
        endpoints: endpoints.collect(),
    }
}

fn shown(stored: &Stored) -> BTreeSet<(Option<i32>, String)> {
    stored
        .slices
        .values()
        .flat_map(|slice| {
            let port = slice.ports.first().and_then(|port| port.port);
            slice
                .endpoints
                .iter()
                .map(move |endpoint| (port, endpoint.addresses[0].clone()))
        })
        .collect()
}

#[test]
fn a_service_without_endpoints_has_one_empty_slice() {
    let mut stored = Stored::default();
    stored.apply(plan::plan(
        &template(),
        vec![(Family::V4, vec![])],
        &stored.present(),
    ));
    assert_eq!(stored.slices.len(), 1);
    let again = plan::plan(&template(), vec![(Family::V4, vec![])], &stored.present());
    assert!(again.is_empty(), "{again:?}");
    // The empty slice becomes the first real one and back, instead of coming and going.
    let one = group(1, &BTreeSet::from([1]));
    let writes = plan::plan(
        &template(),
        vec![(Family::V4, vec![one])],
        &stored.present(),
    );
    assert_eq!(
        (
            writes.create.len(),
            writes.update.len(),
            writes.delete.len()
        ),
        (0, 1, 0)
    );
    stored.apply(writes);
    let writes = plan::plan(&template(), vec![(Family::V4, vec![])], &stored.present());
    assert_eq!(
        (
            writes.create.len(),
            writes.update.len(),
            writes.delete.len()
        ),
        (0, 1, 0)
    );
}

#[test]
fn one_more_endpoint_writes_one_slice() {
    let mut stored = Stored::default();
    let hosts: BTreeSet<u16> = (0..250).collect();
    stored.apply(plan::plan(
        &template(),
        vec![(Family::V4, vec![group(1, &hosts)])],
        &[],
    ));
    assert_eq!(
        stored.slices.values().map(|s| s.endpoints.len()).max(),
        Some(ENDPOINTS_MAX)
    );
    assert_eq!(stored.slices.len(), 3);
    let more: BTreeSet<u16> = (0..251).collect();
    let writes = plan::plan(
        &template(),
        vec![(Family::V4, vec![group(1, &more)])],
        &stored.present(),
    );
    assert_eq!(
        (
            writes.create.len(),
            writes.update.len(),
            writes.delete.len()
        ),
        (0, 1, 0)
    );
}

#[test]
fn a_family_that_is_no_longer_wanted_loses_its_slices() {
    let mut stored = Stored::default();
    let hosts = BTreeSet::from([1]);
    stored.apply(plan::plan(
        &template(),
        vec![(Family::V4, vec![group(1, &hosts)])],
        &[],
    ));
    let writes = plan::plan(&template(), vec![(Family::V6, vec![])], &stored.present());
    assert_eq!(
        (
            writes.create.len(),
            writes.update.len(),
            writes.delete.len()
        ),
        (1, 0, 1)
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn slices_show_exactly_the_endpoints_never_more_than_a_hundred_and_settle_at_once(
        rounds in proptest::collection::vec(
            (proptest::collection::btree_set(0_u16..400, 0..300),
             proptest::collection::btree_set(0_u16..400, 0..40)),
            1..6),
    ) {
        let mut stored = Stored::default();
        for (first, second) in rounds {
            let wanted: Vec<Group> = [(1, &first), (2, &second)]
                .into_iter()
                .filter(|(_, hosts)| !hosts.is_empty())
                .map(|(port, hosts)| group(port, hosts))
                .collect();
            let present = stored.present();
            let before = present.len();
            let writes = plan::plan(&template(), vec![(Family::V4, wanted.clone())], &present);
            let count = writes.create.len() + writes.update.len() + writes.delete.len();
            prop_assert!(count <= before + wanted.iter().map(|g| g.endpoints.len().div_ceil(100)).sum::<usize>() + 1);
            stored.apply(writes);
            let expected: BTreeSet<(Option<i32>, String)> = wanted
                .iter()
                .flat_map(|g| g.endpoints.iter().map(|e| (g.ports[0].port, e.addresses[0].clone())))
                .collect();
            let listed: usize = stored.slices.values().map(|slice| slice.endpoints.len()).sum();
            prop_assert_eq!(listed, expected.len(), "an endpoint is listed twice");
            prop_assert_eq!(shown(&stored), expected);
            prop_assert!(stored.slices.values().all(|s| s.endpoints.len() <= ENDPOINTS_MAX));
            prop_assert!(!stored.slices.is_empty());
            let again = plan::plan(&template(), vec![(Family::V4, wanted)], &stored.present());
            prop_assert!(again.is_empty(), "{:?}", again);
        }
    }
}

#[test]
fn the_trigger_is_the_oldest_change_since_the_last_look() {
    let triggers = Triggers::default();
    let service = plain();
    let at = |text: &str| -> Timestamp { text.parse().expect("time") };
    let ready_at = |second: u32| {
        let since = format!("2026-01-01T00:00:{second:02}Z");
        pod(
            "a",
            "10.0.0.1",
            json!({"/status/conditions": [
                {"type": "Ready", "status": "True", "lastTransitionTime": since},
            ]}),
        )
    };
    assert_eq!(
        triggers.take(&service, &[ready_at(10)]),
        Some(at("2026-01-01T00:00:00Z"))
    );
    assert_eq!(triggers.take(&service, &[ready_at(10)]), None);
    assert_eq!(
        triggers.take(&service, &[ready_at(30)]),
        Some(at("2026-01-01T00:00:30Z"))
    );
    assert_eq!(triggers.take(&service, &[]), None);
}
