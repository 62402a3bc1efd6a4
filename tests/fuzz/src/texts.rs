//! Decoders of single values and of selectors.

use proto_api::quantity::Amount;
use proto_api::selector::{Fields, Labels};
use serde_json::json;

use crate::{bodies, text};

pub(crate) fn quantity(data: &[u8]) {
    if let Ok(amount) = text(data).parse::<Amount>() {
        let written = amount.to_string();
        let again = written.parse::<Amount>().map(|again| again.to_string());
        assert_eq!(again, Ok(written));
    }
}

/// Times, durations, bytes, ports: a text in the places that have a grammar of their own.
pub(crate) fn scalars(data: &[u8]) {
    let text = text(data);
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": "l", "creationTimestamp": text},
        "spec": {"renewTime": text},
    });
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "data": {"a": text}});
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "spec": {"containers": [{
            "name": "c", "resources": {"limits": {"cpu": text}},
            "livenessProbe": {"httpGet": {"port": text}},
        }]},
    });
    for object in [lease, secret, pod] {
        bodies::json(object.to_string().as_bytes());
    }
}

pub(crate) fn label_selector(data: &[u8]) {
    if let Ok(labels) = Labels::parse(&text(data)) {
        let _matches = labels.matches(|key| (key == "a").then_some("b"));
    }
}

pub(crate) fn field_selector(data: &[u8]) {
    let _fields = Fields::parse(&text(data)).is_ok();
}
