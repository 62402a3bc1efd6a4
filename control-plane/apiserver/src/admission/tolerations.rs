//! DefaultTolerationSeconds: a pod stays for five minutes on a node that is not ready.

use serde_json::{Value, json};

use crate::tree;

const SECONDS: i64 = 300;
const TAINTS: [&str; 2] = [
    "node.kubernetes.io/not-ready",
    "node.kubernetes.io/unreachable",
];

pub(super) fn complete(pod: &mut Value) {
    let spec = tree::object_mut(pod, "spec");
    let slot = spec
        .entry("tolerations".to_owned())
        .or_insert_with(|| json!([]));
    if slot.is_null() {
        *slot = json!([]);
    }
    let Some(tolerations) = slot.as_array_mut() else {
        return;
    };
    for taint in TAINTS {
        let tolerated = tolerations.iter().any(|toleration| {
            let key = tree::text(toleration, &["key"]);
            let effect = tree::text(toleration, &["effect"]);
            (key == taint || key.is_empty()) && matches!(effect, "" | "NoExecute")
        });
        if !tolerated {
            tolerations.push(json!({
                "key": taint, "operator": "Exists", "effect": "NoExecute",
                "tolerationSeconds": SECONDS,
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_gets_both_tolerations_once_and_keeps_its_own() {
        let own = json!({"key": TAINTS[0], "operator": "Exists", "effect": "NoExecute"});
        let mut pod = json!({"spec": {"tolerations": [own]}});
        complete(&mut pod);
        complete(&mut pod);
        let tolerations = tree::list(&pod, &["spec", "tolerations"]);
        assert_eq!(tolerations.len(), 2);
        assert_eq!(tolerations[0], own);
        assert_eq!(tolerations[1]["tolerationSeconds"], 300);
    }
}
