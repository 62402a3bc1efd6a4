//! What each level says of pods.

use serde_json::{Value, json};

use super::checks::evaluate;
use super::*;

fn pod(spec: Value, mut container: Value) -> Value {
    container["name"] = json!("c");
    let mut pod = json!({"kind": "Pod", "metadata": {"name": "p"}});
    pod["spec"] = spec;
    pod["spec"]["containers"] = Value::from(vec![container]);
    pod
}

#[test]
fn a_plain_pod_is_baseline_but_not_restricted() {
    let pod = pod(json!({}), json!({}));
    assert!(evaluate(Level::Baseline, Version::Latest, &pod).is_empty());
    assert_eq!(
        evaluate(Level::Restricted, Version::Latest, &pod).join(", "),
        "allowPrivilegeEscalation != false (container \"c\" must set \
         securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container \
         \"c\" must set securityContext.capabilities.drop=[\"ALL\"]), runAsNonRoot != true (pod or \
         container \"c\" must set securityContext.runAsNonRoot=true), seccompProfile (pod or \
         container \"c\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \
         \"Localhost\")"
    );
}

#[test]
fn a_confined_pod_is_restricted() {
    let context = json!({"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}});
    let container = json!({"securityContext": {"allowPrivilegeEscalation": false,
        "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}}});
    let pod = pod(json!({"securityContext": context}), container);
    let found = evaluate(Level::Restricted, Version::Latest, &pod);
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn each_rule_of_the_baseline_says_what_is_wrong() {
    let cases = [
        (
            json!({"hostNetwork": true, "hostPID": true}),
            json!({}),
            "host namespaces (hostNetwork=true, hostPID=true)",
        ),
        (
            json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}),
            json!({}),
            "hostPath volumes (volume \"v\")",
        ),
        (
            json!({}),
            json!({"ports": [{"hostPort": 80}, {"hostPort": 443}]}),
            "hostPort (container \"c\" uses hostPorts 443, 80)",
        ),
        (
            json!({}),
            json!({"securityContext": {"privileged": true}}),
            "privileged (container \"c\" must not set securityContext.privileged=true)",
        ),
        (
            json!({}),
            json!({"securityContext": {"capabilities": {"add": ["NET_ADMIN"]}}}),
            "non-default capabilities (container \"c\" must not include \"NET_ADMIN\" in securityContext.capabilities.add)",
        ),
        (
            json!({"securityContext": {"seccompProfile": {"type": "Unconfined"}}}),
            json!({}),
            "seccompProfile (pod must not set securityContext.seccompProfile.type to \"Unconfined\")",
        ),
        (
            json!({"securityContext": {"sysctls": [{"name": "kernel.sem"}]}}),
            json!({}),
            "forbidden sysctls (kernel.sem)",
        ),
        (
            json!({"securityContext": {"seLinuxOptions": {"type": "spc_t", "user": "u"}}}),
            json!({}),
            "seLinuxOptions (pod set forbidden securityContext.seLinuxOptions: type \"spc_t\"; user may not be set)",
        ),
        (
            json!({}),
            json!({"livenessProbe": {"httpGet": {"host": "10.0.0.1"}}}),
            "probe or lifecycle host (container \"c\" uses probe or lifecycle host \"10.0.0.1\")",
        ),
    ];
    for (spec, container, expected) in cases {
        let pod = pod(spec, container);
        assert_eq!(evaluate(Level::Baseline, Version::Latest, &pod), [expected]);
    }
}

#[test]
fn a_rule_does_not_hold_before_its_version() {
    let probe = json!({"livenessProbe": {"httpGet": {"host": "10.0.0.1"}}});
    let pod = pod(json!({}), probe);
    assert!(evaluate(Level::Baseline, Version::Minor(33), &pod).is_empty());
    assert_eq!(Version::parse("v1.27"), Some(Version::Minor(27)));
    assert_eq!(Version::parse("latest"), Some(Version::Latest));
    for bad in ["1.27", "v1.027", "v2.0", ""] {
        assert_eq!(Version::parse(bad), None, "{bad}");
    }
}
