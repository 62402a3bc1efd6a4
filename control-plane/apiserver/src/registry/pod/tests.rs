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

#[test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn every_part_of_a_spec_is_checked_in_upstreams_words() {
    let container = || json!({"name": "c", "image": "i"});
    let with = |field: &str, value: Value| {
        let mut one = container();
        one[field] = value;
        problems(json!({"containers": [one]}))
    };
    let spec = |field: &str, value: Value| {
        let mut spec = json!({"containers": [container()]});
        spec[field] = value;
        problems(spec)
    };
    let cases = [
        (
            spec(
                "volumes",
                json!([{"name": "v", "emptyDir": {}, "hostPath": {"path": "/x"}}]),
            ),
            "spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type",
        ),
        (
            spec(
                "volumes",
                json!([{"name": "v", "emptyDir": {"sizeLimit": "-1Mi"}}]),
            ),
            "spec.volumes[0].emptyDir.sizeLimit: Forbidden: SizeLimit field must be a valid \
             resource quantity",
        ),
        (
            spec(
                "volumes",
                json!([{"name": "v", "hostPath": {"path": "/a/../b"}}]),
            ),
            "spec.volumes[0].hostPath.path: Invalid value: \"/a/../b\": must not contain '..'",
        ),
        (
            spec(
                "volumes",
                json!([{"name": "v", "nfs": {"server": "s", "path": "rel"}}]),
            ),
            "spec.volumes[0].nfs.path: Invalid value: \"rel\": must be an absolute path",
        ),
        (
            spec("volumes", json!([{"name": "v", "csi": {}}])),
            "spec.volumes[0].csi.driver: Required value",
        ),
        (
            spec("hostAliases", json!([{"ip": "x", "hostnames": ["a"]}])),
            "spec.hostAliases[0].ip: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        ),
        (
            spec("dnsPolicy", json!("None")),
            "spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None",
        ),
        (
            spec("securityContext", json!({"runAsUser": -1})),
            "spec.securityContext.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive",
        ),
        (
            spec(
                "securityContext",
                json!({"sysctls": [{"name": "Net", "value": "1"}]}),
            ),
            "spec.securityContext.sysctls[0].name: Invalid value: \"Net\": must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$",
        ),
        (
            spec(
                "securityContext",
                json!({"seccompProfile": {"type": "Localhost"}}),
            ),
            "spec.securityContext.seccompProfile.localhostProfile: Required value: must be set when seccomp type is Localhost",
        ),
        (
            spec(
                "affinity",
                json!({"nodeAffinity":
                {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}}),
            ),
            "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms: Required value: must have at least one node selector term",
        ),
        (
            spec(
                "topologySpreadConstraints",
                json!([{"maxSkew": 0, "topologyKey": "zone",
                "whenUnsatisfiable": "DoNotSchedule"}]),
            ),
            "spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero",
        ),
        (
            with("envFrom", json!([{}])),
            "spec.containers[0].envFrom: Invalid value: \"\": must specify one of: `configMapRef` or `secretRef`",
        ),
        (
            with(
                "env",
                json!([{"name": "a", "valueFrom": {"fieldRef": {"fieldPath": "spec.x"}}}]),
            ),
            "spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Invalid value: \"spec.x\": error converting fieldPath: field label not supported: spec.x",
        ),
        (
            with("lifecycle", json!({"preStop": {"sleep": {"seconds": 60}}})),
            "spec.containers[0].lifecycle.preStop.sleep: Invalid value: 60: must be non-negative and less than terminationGracePeriodSeconds (30)",
        ),
        (
            with(
                "securityContext",
                json!({"privileged": true, "allowPrivilegeEscalation": false}),
            ),
            "spec.containers[0].securityContext: Invalid value: {\"privileged\":true,\"allowPrivilegeEscalation\":false}: cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
        ),
        (
            with("resources", json!({"requests": {"example.com/gpu": "1"}})),
            "spec.containers[0].resources.limits: Required value: Limit must be set for non overcommitable resources",
        ),
        (
            with(
                "resizePolicy",
                json!([{"resourceName": "disk", "restartPolicy": "NotRequired"}]),
            ),
            "spec.containers[0].resizePolicy: Unsupported value: \"disk\": supported values: \"cpu\", \"memory\"",
        ),
        (
            spec(
                "initContainers",
                json!([{"name": "d", "image": "i",
                "livenessProbe": {"exec": {"command": ["true"]}}}]),
            ),
            "spec.initContainers[0].livenessProbe: Forbidden: may not be set for init containers without restartPolicy=Always",
        ),
    ];
    for (found, expected) in cases {
        assert_eq!(found, [expected]);
    }
}

#[test]
fn a_gated_pod_may_only_be_confined_further() {
    let mut old = pod(json!({"containers": [{"name": "c", "image": "i:1"}],
        "schedulingGates": [{"name": "example.com/hold"}]}));
    let change = |field: &str, value: Value| {
        let mut new = old.clone();
        new["spec"][field] = value;
        let errors = Pod.validate_update(&new, &old, Prepare::Main);
        errors.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert!(change("nodeSelector", json!({"zone": "a"})).is_empty());
    assert!(change("schedulingGates", json!([])).is_empty());
    assert_eq!(
        change("schedulingGates", json!([{"name": "example.com/other"}])),
        [
            "spec.schedulingGates[0].name: Forbidden: only deletion is allowed, but found new scheduling gate 'example.com/other'"
        ]
    );
    old["spec"]["nodeSelector"] = json!({"zone": "a"});
    let mut new = old.clone();
    new["spec"]["nodeSelector"] = json!({"zone": "b"});
    let errors = Pod.validate_update(&new, &old, Prepare::Main);
    assert_eq!(errors.len(), 1);
    assert!(
        errors[0].to_string().ends_with(
            "only additions to spec.nodeSelector are allowed (no mutations or deletions)"
        )
    );
}

#[test]
fn an_ended_container_stays_ended_when_nothing_restarts_it() {
    let mut old = pod(json!({"restartPolicy": "Never",
        "containers": [{"name": "c", "image": "i"}]}));
    old["status"] = json!({"containerStatuses": [
        {"name": "c", "state": {"terminated": {"exitCode": 1}}}]});
    let mut new = old.clone();
    new["status"]["containerStatuses"][0]["state"] = json!({"running": {}});
    let errors = Pod.validate_update(&new, &old, Prepare::Status);
    assert_eq!(
        errors[0].to_string(),
        "status.containerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state"
    );
    old["spec"]["restartPolicy"] = json!("OnFailure");
    assert!(Pod.validate_update(&new, &old, Prepare::Status).is_empty());
}
