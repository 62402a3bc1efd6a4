//! What objects use, and what quotas say of it.

use serde_json::json;

use super::*;

fn pod(resources: &Value) -> Value {
    json!({"spec": {"containers": [{"name": "c", "resources": resources}]}})
}

fn quota(hard: &Value, used: &Value) -> Value {
    json!({"metadata": {"name": "q"}, "spec": {"hard": hard}, "status": {"used": used}})
}

#[test]
fn a_pod_uses_itself_and_what_its_containers_ask_for_until_it_ends() {
    let mut pod = pod(&json!({"requests": {"cpu": "100m"}, "limits": {"memory": "1Gi"}}));
    pod["spec"]["initContainers"] = json!([{"name": "i", "resources": {"requests": {"cpu": "1"}}}]);
    let used = to_value(&usage("", "pods", &pod));
    assert_eq!(
        used,
        json!({"count/pods": "1", "pods": "1", "cpu": "1", "requests.cpu": "1",
            "limits.memory": "1Gi"})
    );
    pod["status"] = json!({"phase": "Succeeded"});
    let used = to_value(&usage("", "pods", &pod));
    assert_eq!(used, json!({"count/pods": "1"}));
}

#[test]
fn services_and_claims_use_what_they_hold() {
    let service = json!({"spec": {"type": "LoadBalancer", "ports": [{}, {}]}});
    assert_eq!(
        to_value(&usage("", "services", &service)),
        json!({"count/services": "1", "services": "1", "services.loadbalancers": "1",
            "services.nodeports": "2"})
    );
    let claim = json!({"spec": {"storageClassName": "fast",
        "resources": {"requests": {"storage": "1Gi"}}}});
    let used = usage("", "persistentvolumeclaims", &claim);
    let text = |name: &str| used.get(name).map(ToString::to_string);
    assert_eq!(text("requests.storage").as_deref(), Some("1Gi"));
    let class = "fast.storageclass.storage.k8s.io/requests.storage";
    assert_eq!(text(class).as_deref(), Some("1Gi"));
}

#[test]
fn a_quota_is_filled_to_the_brim_and_not_beyond() {
    let one = usage("", "pods", &pod(&json!({"requests": {"cpu": "400m"}})));
    let hard = json!({"pods": "2", "requests.cpu": "1"});
    let quota = |used: Value| quota(&hard, &used);
    let none = Usage::new();
    let found = judge(
        &quota(json!({"pods": "1", "requests.cpu": "600m"})),
        &none,
        &one,
    );
    let expected = json!({"pods": "2", "requests.cpu": "1"});
    assert!(matches!(found, Verdict::Used(used) if to_value(&used) == expected));
    assert_eq!(
        judge(
            &quota(json!({"pods": "2", "requests.cpu": "700m"})),
            &none,
            &one
        ),
        Verdict::Exceeded(
            "exceeded quota: q, requested: pods=1,requests.cpu=400m, used: \
             pods=2,requests.cpu=700m, limited: pods=2,requests.cpu=1"
                .to_owned()
        )
    );
    // What goes is given back, whatever the quota says.
    let found = judge(
        &quota(json!({"pods": "9", "requests.cpu": "9"})),
        &one,
        &none,
    );
    let expected = json!({"pods": "8", "requests.cpu": "8600m"});
    assert!(matches!(found, Verdict::Used(used) if to_value(&used) == expected));
    let map = usage("", "configmaps", &json!({}));
    assert_eq!(judge(&quota(json!({})), &none, &map), Verdict::Untouched);
}

#[test]
fn a_quota_of_compute_wants_it_named() {
    let hard = json!({"limits.cpu": "1", "requests.memory": "1Gi"});
    let quota = quota(&hard, &json!({}));
    assert_eq!(
        missing(&quota, &pod(&json!({}))).as_deref(),
        Some("failed quota: q: must specify limits.cpu for: c; requests.memory for: c")
    );
    let named = json!({"limits": {"cpu": "1"}, "requests": {"memory": "1"}});
    assert_eq!(missing(&quota, &pod(&named)), None);
}

#[test]
fn scopes_narrow_a_quota_to_the_pods_in_them() {
    let scoped = |scopes: Value| json!({"spec": {"hard": {"pods": "1"}, "scopes": scopes}});
    let lazy = pod(&json!({}));
    let busy = pod(&json!({"requests": {"cpu": "1"}}));
    assert!(counts(&scoped(json!(["BestEffort"])), "", "pods", &lazy));
    assert!(!counts(&scoped(json!(["BestEffort"])), "", "pods", &busy));
    assert!(counts(
        &scoped(json!(["NotBestEffort", "NotTerminating"])),
        "",
        "pods",
        &busy
    ));
    assert!(!counts(&scoped(json!(["Terminating"])), "", "pods", &busy));
    assert!(!counts(
        &scoped(json!(["NotTerminating"])),
        "",
        "services",
        &json!({})
    ));
    let selector = json!({"spec": {"scopeSelector": {"matchExpressions": [
        {"scopeName": "PriorityClass", "operator": "In", "values": ["high"]}]}}});
    let mut high = busy.clone();
    high["spec"]["priorityClassName"] = json!("high");
    assert!(counts(&selector, "", "pods", &high));
    assert!(!counts(&selector, "", "pods", &busy));
}
