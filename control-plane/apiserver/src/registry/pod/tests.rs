//! Pods: defaults, refusals in upstream's words, updates, grace.

use serde_json::json;

use super::*;

fn pod(spec: Value) -> Value {
    let mut pod =
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "d"}});
    pod["spec"] = spec;
    Pod.default(&mut pod);
    pod
}

fn problems(spec: Value) -> Vec<String> {
    Pod.validate(&pod(spec))
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn defaults_are_upstreams() {
    let pod = pod(
        json!({"containers": [{"name": "c", "image": "nginx", "ports": [{"containerPort": 80}],
        "resources": {"limits": {"cpu": "1"}}, "livenessProbe": {"httpGet": {"port": 80}}}],
        "volumes": [{"name": "v"}, {"name": "s", "secret": {"secretName": "x"}}]}),
    );
    let spec = &pod["spec"];
    assert_eq!(spec["restartPolicy"], "Always");
    assert_eq!(spec["enableServiceLinks"], true);
    let container = &spec["containers"][0];
    assert_eq!(container["imagePullPolicy"], "Always");
    assert_eq!(container["ports"][0]["protocol"], "TCP");
    assert_eq!(container["resources"]["requests"]["cpu"], "1");
    assert_eq!(container["livenessProbe"]["httpGet"]["path"], "/");
    assert_eq!(container["livenessProbe"]["failureThreshold"], 3);
    assert_eq!(spec["volumes"][0]["emptyDir"], json!({}));
    assert_eq!(spec["volumes"][1]["secret"]["defaultMode"], 420);
    assert!(Pod.validate(&pod).is_empty(), "{:?}", Pod.validate(&pod));
}

#[test]
fn an_image_with_a_tag_or_digest_is_not_pulled_always() {
    for (image, policy) in [
        ("a/b:1", "IfNotPresent"),
        ("a/b:latest", "Always"),
        ("host:5000/b", "Always"),
        ("a/b@sha256:0", "IfNotPresent"),
    ] {
        let pod = pod(json!({"containers": [{"name": "c", "image": image}]}));
        assert_eq!(
            pod["spec"]["containers"][0]["imagePullPolicy"], policy,
            "{image}"
        );
    }
}

#[test]
fn broken_pods_are_refused_in_upstreams_words() {
    assert_eq!(
        problems(json!({"containers": []})),
        ["spec.containers: Required value"]
    );
    assert_eq!(
        problems(json!({"containers": [{"name": "c"}, {"name": "c", "image": "i:1"}]})),
        [
            "spec.containers[0].image: Required value",
            "spec.containers[1].name: Duplicate value: \"c\"",
        ]
    );
    assert_eq!(
        problems(
            json!({"restartPolicy": "Sometimes", "containers": [{"name": "c", "image": "i"}]})
        ),
        [
            "spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"OnFailure\", \"Never\""
        ]
    );
    assert_eq!(
        problems(json!({"containers": [{"name": "c", "image": "i",
            "volumeMounts": [{"name": "x", "mountPath": "/x"}]}]})),
        ["spec.containers[0].volumeMounts[0].name: Not found: \"x\""]
    );
    assert_eq!(
        problems(json!({"containers": [{"name": "c", "image": "i",
            "resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}}]})),
        [
            "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1"
        ]
    );
}

#[test]
fn only_images_tolerations_and_deadlines_may_change() {
    let old = pod(json!({"containers": [{"name": "c", "image": "i:1"}]}));
    let mut new = old.clone();
    new["spec"]["containers"][0]["image"] = json!("i:2");
    new["spec"]["tolerations"] = json!([{"key": "a", "operator": "Exists"}]);
    assert!(Pod.validate_update(&new, &old, Prepare::Main).is_empty());
    new["spec"]["nodeName"] = json!("n");
    let errors = Pod.validate_update(&new, &old, Prepare::Main);
    assert_eq!(errors.len(), 1);
    assert!(
        errors[0]
            .to_string()
            .starts_with("spec: Forbidden: pod updates may not change")
    );
}

#[test]
fn a_scheduled_pod_gets_its_grace_and_an_unscheduled_one_none() {
    let mut pod = pod(json!({"containers": [{"name": "c", "image": "i"}]}));
    assert_eq!(Pod.graceful(&pod, None), Graceful::Now);
    pod["spec"]["nodeName"] = json!("n");
    assert_eq!(Pod.graceful(&pod, None), Graceful::After(30));
    assert_eq!(Pod.graceful(&pod, Some(5)), Graceful::After(5));
    assert_eq!(Pod.graceful(&pod, Some(0)), Graceful::Now);
    pod["status"] = json!({"phase": "Failed"});
    assert_eq!(Pod.graceful(&pod, Some(5)), Graceful::Now);
}

#[test]
fn quality_of_service_follows_cpu_and_memory() {
    let class = |resources: Value| {
        let spec = json!({"containers": [{"name": "c", "image": "i", "resources": resources}]});
        let mut pod = pod(spec);
        Pod.prepare_create(&mut pod);
        pod["status"]["qosClass"].as_str().unwrap().to_owned()
    };
    assert_eq!(class(json!({})), "BestEffort");
    assert_eq!(class(json!({"requests": {"cpu": "1"}})), "Burstable");
    assert_eq!(
        class(json!({"limits": {"cpu": "1", "memory": "1Gi"}})),
        "Guaranteed"
    );
}
