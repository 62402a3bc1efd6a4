//! Defaults, refusals, columns and the view of autoscalers.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;
use crate::tables::Printer as _;

fn autoscaler(spec: Value) -> Value {
    let mut object = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "h", "namespace": "n"}});
    object["spec"] = spec;
    HorizontalPodAutoscaler.default(&mut object);
    object
}

fn target() -> Value {
    json!({"kind": "Deployment", "name": "web", "apiVersion": "apps/v1"})
}

#[test]
fn a_minimal_autoscaler_watches_the_cpu() {
    let object = autoscaler(json!({"scaleTargetRef": target(), "maxReplicas": 3, "behavior": {}}));
    assert_eq!(object["spec"]["minReplicas"], 1);
    let cpu = &object["spec"]["metrics"][0]["resource"];
    assert_eq!(cpu["target"]["averageUtilization"], 80);
    let behavior = &object["spec"]["behavior"];
    assert_eq!(behavior["scaleUp"]["policies"][0]["value"], 4);
    assert!(
        behavior["scaleDown"]
            .get("stabilizationWindowSeconds")
            .is_none()
    );
    assert!(HorizontalPodAutoscaler.validate(&object).is_empty());
    let cells = TABLE.row(&object, Timestamp::UNIX_EPOCH);
    assert_eq!(
        cells[1..5],
        [
            json!("Deployment/web"),
            json!("cpu: <unknown>/80%"),
            json!("1"),
            json!(3)
        ]
    );
}

#[test]
fn refusals_are_upstreams() {
    let cases = [
        (
            json!({"scaleTargetRef": target()}),
            "spec.maxReplicas: Invalid value: 0: must be greater than 0",
        ),
        (
            json!({"scaleTargetRef": target(), "minReplicas": 5, "maxReplicas": 3}),
            "spec.maxReplicas: Invalid value: 3: must be greater than or equal to `minReplicas`",
        ),
        (
            json!({"scaleTargetRef": target(), "maxReplicas": 3, "metrics": [{"type": "Pods"}]}),
            "spec.metrics[0].pods: Required value: must populate information for the given metric source",
        ),
        (
            json!({"scaleTargetRef": target(), "maxReplicas": 3, "metrics": [{"type": "Resource",
                "resource": {"name": "cpu", "target": {"type": "Utilization"}}}]}),
            "spec.metrics[0].resource.target.averageUtilization: Required value: must set either \
             a target raw value or a target utilization",
        ),
        (
            json!({"scaleTargetRef": {"kind": "Deployment"}, "maxReplicas": 3}),
            "spec.scaleTargetRef.name: Required value",
        ),
        (
            json!({"scaleTargetRef": target(), "maxReplicas": 3,
                "behavior": {"scaleUp": {"stabilizationWindowSeconds": 3601}}}),
            "spec.behavior.scaleUp.stabilizationWindowSeconds: Invalid value: 3601: must be less \
             than or equal to 3600",
        ),
    ];
    for (spec, expected) in cases {
        let errors = HorizontalPodAutoscaler.validate(&autoscaler(spec));
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert!(texts.iter().any(|text| text == expected), "{texts:?}");
    }
}

#[test]
fn the_view_of_v1_loses_nothing() {
    let memory = json!({"type": "Resource", "resource": {"name": "memory",
        "target": {"type": "AverageValue", "averageValue": "1Gi"}}});
    let requests = json!({"type": "Pods", "pods": {"metric": {"name": "requests"},
        "target": {"type": "AverageValue", "averageValue": "10"}}});
    let cpu = json!({"type": "Resource", "resource": {"name": "cpu",
        "target": {"averageUtilization": 50, "type": "Utilization"}}});
    let mut stored = autoscaler(json!({"scaleTargetRef": target(), "maxReplicas": 3,
        "metrics": [cpu, memory, requests], "behavior": {}}));
    stored["status"] = json!({"currentReplicas": 1, "desiredReplicas": 1,
        "conditions": [{"type": "AbleToScale", "status": "True"}]});
    let shown = (VIEW.show)(stored.clone());
    assert_eq!(shown["apiVersion"], "autoscaling/v1");
    assert_eq!(shown["spec"]["targetCPUUtilizationPercentage"], 50);
    assert!(shown["spec"].get("metrics").is_none());
    let note = &shown["metadata"]["annotations"]["autoscaling.alpha.kubernetes.io/metrics"];
    assert!(
        note.as_str()
            .unwrap()
            .contains("\"targetAverageValue\":\"1Gi\""),
        "{note}"
    );
    assert_eq!((VIEW.store)(shown.clone()), stored);
    let now = Timestamp::UNIX_EPOCH;
    assert_eq!(TABLE_V1.row(&shown, now), TABLE.row(&stored, now));
}
