use std::sync::Arc;

use control_plane_client::{Cached, ObjectKey};
use proto_api::types::core::v1::{Endpoints, Pod, Service};
use serde_json::{Value, json};

use super::plan::{self, ADDRESSES_MAX};

#[expect(clippy::needless_pass_by_value, reason = "test data are literals")]
fn service(extra: Value) -> Cached<Service> {
    let mut spec = json!({
        "selector": {"app": "web"},
        "ports": [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}],
    });
    for (key, value) in extra.as_object().expect("object") {
        spec[key] = value.clone();
    }
    let value = json!({"metadata": {"name": "web", "namespace": "default"}, "spec": spec});
    let value = serde_json::from_value(value).expect("service");
    Cached {
        key: ObjectKey::new("default", "web"),
        revision: 1,
        value,
    }
}

fn pod(number: usize, ready: bool) -> Arc<Cached<Pod>> {
    let name = format!("p{number:05}");
    let status = if ready { "True" } else { "False" };
    let value = json!({
        "metadata": {"name": name, "namespace": "default", "uid": name, "labels": {"app": "web"}},
        "spec": {"nodeName": "n", "containers": []},
        "status": {"phase": "Running", "podIP": format!("10.0.{}.{}", number / 200, number % 200 + 1),
                   "conditions": [{"type": "Ready", "status": status}]},
    });
    let value = serde_json::from_value(value).expect("pod");
    Arc::new(Cached {
        key: ObjectKey::new("default", name),
        revision: 1,
        value,
    })
}

fn endpoints(service: &Cached<Service>, pods: &[Arc<Cached<Pod>>]) -> Endpoints {
    plan::endpoints(
        service,
        service.spec.as_ref().expect("spec"),
        pods.iter(),
        None,
    )
}

#[test]
fn ready_and_unready_addresses_are_apart_unless_all_are_published() {
    let pods = [pod(1, true), pod(2, false)];
    let count = |extra: Value| {
        let made = endpoints(&service(extra), &pods);
        let subset = &made.subsets[0];
        (subset.addresses.len(), subset.not_ready_addresses.len())
    };
    assert_eq!(count(json!({})), (1, 1));
    assert_eq!(count(json!({"publishNotReadyAddresses": true})), (2, 0));
}

#[test]
fn a_headless_service_without_ports_lists_addresses_without_ports() {
    let made = endpoints(
        &service(json!({"clusterIP": "None", "ports": []})),
        &[pod(1, true)],
    );
    assert!(made.subsets[0].ports.is_empty());
    assert!(
        made.metadata
            .labels
            .contains_key("service.kubernetes.io/headless")
    );
}

#[test]
fn at_most_a_thousand_addresses_are_listed_and_ready_ones_first() {
    let pods: Vec<_> = (0..ADDRESSES_MAX + 200)
        .map(|number| pod(number, number % 2 == 0))
        .collect();
    let made = endpoints(&service(json!({})), &pods);
    let subset = &made.subsets[0];
    assert_eq!(subset.addresses.len(), 600);
    assert_eq!(subset.not_ready_addresses.len(), 400);
    assert_eq!(
        made.metadata.annotations["endpoints.kubernetes.io/over-capacity"],
        "truncated"
    );
}

#[test]
fn the_same_pods_in_another_order_make_no_difference() {
    let pods = [pod(1, true), pod(2, true), pod(3, false)];
    let mut reversed = pods.to_vec();
    reversed.reverse();
    let service = service(json!({}));
    assert!(!plan::differs(
        &endpoints(&service, &pods),
        &endpoints(&service, &reversed)
    ));
}
