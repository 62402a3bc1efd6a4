//! Typed structs read and write what Kubernetes does.

use serde_json::{Value, json};

use super::core::v1::{Container, Pod, Service};
use super::*;

#[test]
fn a_pod_survives_reading_and_writing_and_states_its_kind() {
    let text = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "a", "labels": {"app": "x"}},
        "spec": {
            "containers": [{
                "name": "c",
                "ports": [{"containerPort": 80}],
                "resources": {"requests": {"cpu": "100m"}},
                "livenessProbe": {"httpGet": {"port": "http"}}
            }]
        }
    });
    let pod: Pod = serde_json::from_value(text.clone()).unwrap();
    assert_eq!(pod.name(), "a");
    assert_eq!(serde_json::to_value(&pod).unwrap(), text);
}

#[test]
fn null_reads_as_absent_everywhere() {
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "a", "creationTimestamp": null, "labels": null},
        "spec": {"containers": null, "nodeName": null},
        "status": {}
    }))
    .unwrap();
    assert!(pod.spec.unwrap().containers.is_empty());
    let container: Container = serde_json::from_value(json!({"name": null})).unwrap();
    assert_eq!(container.name, "");
}

#[test]
fn a_default_object_writes_only_what_is_required() {
    assert_eq!(
        serde_json::to_value(Service::default()).unwrap(),
        json!({"apiVersion": "v1", "kind": "Service"})
    );
}

#[test]
fn kinds_know_their_place() {
    assert_eq!(
        (
            Pod::API_VERSION,
            Pod::KIND,
            Pod::PLURAL,
            Pod::GROUP,
            Pod::NAMESPACED
        ),
        ("v1", "Pod", "pods", "", true)
    );
    type Slice = discovery::v1::EndpointSlice;
    assert_eq!(Slice::API_VERSION, "discovery.k8s.io/v1");
}

#[test]
fn times_have_the_precision_of_their_type() {
    let at: jiff::Timestamp = "2026-01-31T12:00:00.1234567Z".parse().unwrap();
    assert_eq!(Time::from(at).0, "2026-01-31T12:00:00Z");
    assert_eq!(MicroTime::from(at).0, "2026-01-31T12:00:00.123456Z");
}

#[test]
fn percentages_round_as_told() {
    let quarter = IntOrString::String("25%".to_owned());
    assert_eq!(quarter.scaled(10, Round::Up), Some(3));
    assert_eq!(quarter.scaled(10, Round::Down), Some(2));
    assert_eq!(IntOrString::Int(7).scaled(10, Round::Up), Some(7));
    assert_eq!(
        IntOrString::String("http".to_owned()).scaled(10, Round::Up),
        None
    );
}

#[test]
fn a_list_reads_items_of_any_kind() {
    let list: meta::v1::List<Value> =
        serde_json::from_value(json!({"kind": "PodList", "items": null})).unwrap();
    assert!(list.items.is_empty());
}
