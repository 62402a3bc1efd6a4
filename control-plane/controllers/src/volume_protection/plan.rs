//! Whether a claim or a volume is in use, and what becomes of its finalizer. Pure.

use proto_api::types::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use proto_api::types::meta::v1::ObjectMeta;

use crate::owner::controller_uid;
use crate::pods;

pub(super) const CLAIM_FINALIZER: &str = "kubernetes.io/pvc-protection";
pub(super) const VOLUME_FINALIZER: &str = "kubernetes.io/pv-protection";

/// What an object's metadata call for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// It lives and has no finalizer yet.
    Protect,
    /// It goes as soon as nobody uses it.
    Release,
    Nothing,
}

pub(super) fn step(metadata: &ObjectMeta, finalizer: &str) -> Step {
    let held = metadata.finalizers.iter().any(|held| held == finalizer);
    match (metadata.deletion_timestamp.is_some(), held) {
        (false, false) => Step::Protect,
        (true, true) => Step::Release,
        (false, true) | (true, false) => Step::Nothing,
    }
}

/// The finalizers with or without `finalizer`.
pub(super) fn finalizers(metadata: &ObjectMeta, finalizer: &str, step: Step) -> Vec<String> {
    let mut all = metadata.finalizers.clone();
    match step {
        Step::Protect => all.push(finalizer.to_owned()),
        Step::Release => all.retain(|held| held != finalizer),
        Step::Nothing => {}
    }
    all
}

/// The names of all claims that a pod names or is to get.
pub(super) fn claims(pod: &Pod) -> Vec<String> {
    let volumes = pod.spec.iter().flat_map(|spec| &spec.volumes);
    volumes
        .filter_map(|volume| {
            let named = volume.persistent_volume_claim.as_ref();
            named.map(|named| named.claim_name.clone()).or_else(|| {
                volume.ephemeral.as_ref()?;
                Some(own_claim(pod, &volume.name))
            })
        })
        .collect()
}

fn own_claim(pod: &Pod, volume: &str) -> String {
    format!(
        "{}-{volume}",
        pod.metadata.name.as_deref().unwrap_or_default()
    )
}

/// Whether its node is done with it, or nobody waits for the node.
fn is_shut_down(pod: &Pod) -> bool {
    pods::is_terminating(pod) && pod.metadata.deletion_grace_period_seconds == Some(0)
}

/// Whether a pod keeps a claim. One without a node does not: no node starts a pod whose claim goes.
pub(super) fn uses(pod: &Pod, claim: &PersistentVolumeClaim) -> bool {
    if pods::node_name(pod).is_empty() {
        return false;
    }
    let name = claim.metadata.name.as_deref().unwrap_or_default();
    let is_owner = || {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        !uid.is_empty() && controller_uid(&claim.metadata) == uid
    };
    let mut volumes = pod.spec.iter().flat_map(|spec| &spec.volumes);
    volumes.any(|volume| {
        let named = volume.persistent_volume_claim.as_ref();
        named.is_some_and(|named| named.claim_name == name)
            || volume.ephemeral.is_some()
                && own_claim(pod, &volume.name) == name
                && !is_shut_down(pod)
                && is_owner()
    })
}

/// Whether a claim has the volume.
pub(super) fn is_bound(volume: &PersistentVolume) -> bool {
    let phase = volume
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    phase == Some("Bound")
}

/// Whether a change of this pod may set a claim free.
pub(super) fn may_release(pod: &Pod) -> bool {
    pods::is_terminal(pod) || is_shut_down(pod) || pods::node_name(pod).is_empty()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(value: Value) -> Pod {
        serde_json::from_value(value).expect("a pod")
    }

    fn claim(value: Value) -> PersistentVolumeClaim {
        serde_json::from_value(value).expect("a claim")
    }

    #[test]
    fn finalizers_are_set_while_it_lives_and_taken_when_it_goes() {
        let meta = |value: Value| claim(json!({"metadata": value})).metadata;
        let cases = [
            (json!({}), Step::Protect),
            (json!({"finalizers": [CLAIM_FINALIZER]}), Step::Nothing),
            (
                json!({"finalizers": ["x", CLAIM_FINALIZER], "deletionTimestamp": "2026-01-01T00:00:00Z"}),
                Step::Release,
            ),
            (
                json!({"deletionTimestamp": "2026-01-01T00:00:00Z"}),
                Step::Nothing,
            ),
        ];
        for (value, expected) in cases {
            let meta = meta(value);
            assert_eq!(step(&meta, CLAIM_FINALIZER), expected, "{meta:?}");
            let after = finalizers(&meta, CLAIM_FINALIZER, expected);
            let held = after.iter().any(|held| held == CLAIM_FINALIZER);
            assert_eq!(held, meta.deletion_timestamp.is_none());
        }
    }

    #[test]
    fn a_claim_is_used_by_pods_that_have_a_node() {
        let named = json!([{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]);
        let own = json!([{"name": "v", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}}]);
        let plain = claim(json!({"metadata": {"name": "c"}}));
        let owned = claim(json!({"metadata": {"name": "p-v", "ownerReferences": [{
            "apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u", "controller": true}]}}));
        let of = |node: &str, volumes: &Value, meta: Value| {
            let mut value =
                json!({"metadata": meta, "spec": {"containers": [], "volumes": volumes}});
            value["metadata"]["name"] = json!("p");
            value["metadata"]["uid"] = json!("u");
            value["spec"]["nodeName"] = json!(node);
            pod(value)
        };
        let gone =
            json!({"deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": 0});
        assert!(uses(&of("n", &named, json!({})), &plain));
        assert!(!uses(&of("", &named, json!({})), &plain), "it has no node");
        assert!(
            uses(&of("n", &named, gone.clone()), &plain),
            "the node may mount it still"
        );
        assert!(uses(&of("n", &own, json!({})), &owned));
        assert!(!uses(&of("n", &own, gone), &owned));
        let foreign = claim(json!({"metadata": {"name": "p-v"}}));
        assert!(
            !uses(&of("n", &own, json!({})), &foreign),
            "it is not the pod's"
        );
        assert_eq!(claims(&of("n", &own, json!({}))), ["p-v"]);
    }
}
