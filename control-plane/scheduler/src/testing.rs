//! Nodes and pods for tests, from the few fields a test is about.

use std::sync::Arc;

use control_plane_client::{Cached, ObjectKey};
use proto_api::types::core::v1::{Node, Pod};
use serde_json::{Value, json};

use crate::pod_info::PodInfo;

/// A node of 4 CPUs, 8 Gi and 10 pods; `extra` is merged at the top.
pub(crate) fn node(name: &str, extra: Value) -> Node {
    let mut value = json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "spec": {},
        "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "10"}},
    });
    merge(&mut value, extra);
    serde_json::from_value(value).expect("node")
}

/// A pod of one container that asks for `cpu`; `spec` is merged into its spec.
pub(crate) fn pod(name: &str, cpu: &str, labels: Value, spec: Value) -> Arc<PodInfo> {
    pod_in("default", name, cpu, labels, spec)
}

/// The same in another namespace.
#[expect(clippy::needless_pass_by_value, reason = "test data are literals")]
pub(crate) fn pod_in(
    namespace: &str,
    name: &str,
    cpu: &str,
    labels: Value,
    spec: Value,
) -> Arc<PodInfo> {
    let mut whole = json!({
        "containers": [{"name": "c", "resources": {"requests": {"cpu": cpu, "memory": "1Gi"}}}],
    });
    merge(&mut whole, spec);
    let value = json!({
        "metadata": {"name": name, "namespace": namespace, "uid": name, "labels": labels},
        "spec": whole,
    });
    let value: Pod = serde_json::from_value(value).expect("pod");
    let key = ObjectKey::new(namespace, name);
    Arc::new(PodInfo::of(&Arc::new(Cached {
        key,
        revision: 1,
        value,
    })))
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}
