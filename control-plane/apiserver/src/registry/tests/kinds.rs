//! Smallest good objects of the kinds, and how bad ones are refused.

use serde_json::{Value, json};

use crate::registry::{Prepare, Registry, Strategy};

fn template() -> Value {
    json!({"metadata": {"labels": {"a": "b"}},
        "spec": {"containers": [{"name": "c", "image": "i"}]}})
}

/// Plural and a small object of each kind, without metadata.
#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn samples() -> Vec<(&'static str, &'static str, Value)> {
    let selector = json!({"matchLabels": {"a": "b"}});
    let rule = json!({"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"],
        "resources": ["pods"]});
    let hook = json!([{"name": "a.b.example", "rules": [rule], "sideEffects": "None",
        "admissionReviewVersions": ["v1"], "clientConfig": {"service": {
            "name": "s", "namespace": "n", "path": "/check"}}}]);
    let group = "admissionregistration.k8s.io";
    let storage = json!({"requests": {"storage": "1Gi"}});
    vec![
        (
            "",
            "limitranges",
            json!({"spec": {"limits": [
            {"type": "Container", "max": {"cpu": "1"}, "min": {"cpu": "100m"}}]}}),
        ),
        (
            "",
            "persistentvolumes",
            json!({"spec": {"capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/data"}}}),
        ),
        (
            "",
            "persistentvolumeclaims",
            json!({"spec": {"accessModes": ["ReadWriteOnce"],
            "resources": storage}}),
        ),
        ("", "podtemplates", json!({"template": template()})),
        (
            "",
            "replicationcontrollers",
            json!({"spec": {"template": template()}}),
        ),
        (
            "",
            "resourcequotas",
            json!({"spec": {"hard": {"pods": "10", "requests.cpu": "2"}}}),
        ),
        (
            "apps",
            "controllerrevisions",
            json!({"data": {"spec": {}}, "revision": 1}),
        ),
        (
            "apps",
            "daemonsets",
            json!({"spec": {"selector": selector, "template": template()}}),
        ),
        (
            "apps",
            "statefulsets",
            json!({"spec": {"selector": selector, "template": template(),
            "serviceName": "s", "volumeClaimTemplates": [{"metadata": {"name": "data"},
                "spec": {"accessModes": ["ReadWriteOnce"], "resources": storage}}]}}),
        ),
        (
            group,
            "validatingwebhookconfigurations",
            json!({"webhooks": hook}),
        ),
        (
            group,
            "mutatingwebhookconfigurations",
            json!({"webhooks": hook}),
        ),
        (
            group,
            "validatingadmissionpolicies",
            json!({"spec": {
            "matchConstraints": {"resourceRules": [rule]},
            "validations": [{"expression": "true"}]}}),
        ),
        (
            group,
            "validatingadmissionpolicybindings",
            json!({"spec": {"policyName": "p",
            "validationActions": ["Deny"]}}),
        ),
        (
            group,
            "mutatingadmissionpolicies",
            json!({"spec": {"reinvocationPolicy": "Never",
            "matchConstraints": {"resourceRules": [rule]},
            "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": "[]"}}]}}),
        ),
        (
            group,
            "mutatingadmissionpolicybindings",
            json!({"spec": {"policyName": "p"}}),
        ),
    ]
}

fn with_strategy<T>(group: &str, plural: &str, run: impl FnOnce(&dyn Strategy) -> T) -> T {
    let kind = Registry::default().by_plural(group, "v1", plural).unwrap();
    run(&*kind.strategy)
}

fn complete(group: &str, plural: &str, mut object: Value) -> Value {
    object["metadata"] = json!({"name": "x", "namespace": "n"});
    with_strategy(group, plural, |strategy| {
        strategy.default(&mut object);
        strategy.prepare_create(&mut object);
    });
    object
}

fn problems(group: &str, plural: &str, object: Value) -> Vec<String> {
    let object = complete(group, plural, object);
    with_strategy(group, plural, |strategy| {
        let errors = strategy.validate(&object);
        errors.iter().map(ToString::to_string).collect()
    })
}

#[test]
fn the_smallest_object_of_each_kind_is_good_and_stays_as_it_is_when_sent_again() {
    for (group, plural, sample) in samples() {
        let errors = problems(group, plural, sample.clone());
        assert!(errors.is_empty(), "{plural}: {errors:?}");
        let object = complete(group, plural, sample);
        let mut again = object.clone();
        with_strategy(group, plural, |strategy| {
            strategy.default(&mut again);
            strategy.prepare_update(&mut again, &object, Prepare::Main);
            assert_eq!(again, object, "{plural}");
            let errors = strategy.validate_update(&again, &object, Prepare::Main);
            assert!(errors.is_empty(), "{plural}: {errors:?}");
        });
    }
}

#[test]
fn defaults_of_workloads_are_upstreams() {
    let selector = json!({"matchLabels": {"a": "b"}});
    let spec = json!({"spec": {"selector": selector, "template": template()}});
    let set = complete("apps", "statefulsets", spec.clone());
    assert_eq!(set["spec"]["podManagementPolicy"], "OrderedReady");
    assert_eq!(
        set["spec"]["updateStrategy"],
        json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0}})
    );
    assert_eq!(
        set["spec"]["persistentVolumeClaimRetentionPolicy"]["whenScaled"],
        "Retain"
    );
    let daemons = complete("apps", "daemonsets", spec);
    assert_eq!(
        daemons["spec"]["updateStrategy"]["rollingUpdate"],
        json!({"maxUnavailable": 1, "maxSurge": 0})
    );
    assert_eq!(daemons["spec"]["revisionHistoryLimit"], 10);
    let controller = complete(
        "",
        "replicationcontrollers",
        json!({"spec": {"template": template()}}),
    );
    assert_eq!(controller["spec"]["selector"], json!({"a": "b"}));
    assert_eq!(controller["metadata"]["labels"], json!({"a": "b"}));
    let limits = complete(
        "",
        "limitranges",
        json!({"spec": {"limits": [
        {"type": "Container", "max": {"cpu": "2"}, "min": {"memory": "1Gi"}}]}}),
    );
    assert_eq!(
        limits["spec"]["limits"][0]["defaultRequest"],
        json!({"cpu": "2", "memory": "1Gi"})
    );
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn broken_objects_are_refused_in_upstreams_words() {
    let cases = [
        (
            "",
            "persistentvolumeclaims",
            json!({"spec": {}}),
            vec![
                "spec.accessModes: Required value: at least 1 access mode is required",
                "spec.resources[storage]: Required value",
            ],
        ),
        (
            "",
            "persistentvolumes",
            json!({"spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["Sometimes"]}}),
            vec![
                "spec.accessModes: Unsupported value: \"Sometimes\": supported values: \"ReadOnlyMany\", \"ReadWriteMany\", \"ReadWriteOnce\", \"ReadWriteOncePod\"",
                "spec: Required value: must specify a volume type",
            ],
        ),
        (
            "",
            "resourcequotas",
            json!({"spec": {"hard": {"pods": "1500m", "disk": "1"}}}),
            vec![
                "spec.hard[pods]: Invalid value: \"1500m\": must be an integer",
                "spec.hard[disk]: Invalid value: \"disk\": must be a standard resource type or fully qualified",
            ],
        ),
        (
            "",
            "limitranges",
            json!({"spec": {"limits": [{"type": "Pod", "max": {"cpu": "1"}, "min": {"cpu": "2"}}]}}),
            vec![
                "spec.limits[0].min[cpu]: Invalid value: \"2\": min value 2 is greater than max value 1",
            ],
        ),
        (
            "apps",
            "daemonsets",
            json!({"spec": {"selector": {"matchLabels": {"a": "z"}}, "template": template(),
                "updateStrategy": {"type": "RollingUpdate",
                    "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 0}}}}),
            vec![
                "spec.template.metadata.labels: Invalid value: {\"a\":\"b\"}: `selector` does not match template `labels`",
                "spec.updateStrategy.rollingUpdate.maxUnavailable: Required value: cannot be 0 when maxSurge is 0",
            ],
        ),
        (
            "admissionregistration.k8s.io",
            "validatingwebhookconfigurations",
            json!({"webhooks": [{"name": "short", "sideEffects": "Some",
                "admissionReviewVersions": ["v9"], "clientConfig": {}}]}),
            vec![
                "webhooks[0].name: Invalid value: \"short\": should be a domain with at least three segments separated by dots",
                "webhooks[0].sideEffects: Unsupported value: \"Some\": supported values: \"None\", \"NoneOnDryRun\"",
                "webhooks[0].clientConfig: Required value: exactly one of url or service is required",
                "webhooks[0].admissionReviewVersions: Invalid value: [\"v9\"]: must include at least one of v1, v1beta1",
            ],
        ),
        (
            "admissionregistration.k8s.io",
            "validatingadmissionpolicybindings",
            json!({"spec": {"policyName": "p", "validationActions": ["Deny", "Warn"]}}),
            vec![
                "spec.validationActions: Invalid value: [\"Deny\",\"Warn\"]: must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)",
            ],
        ),
        (
            "certificates.k8s.io",
            "certificatesigningrequests",
            json!({"spec": {"request": "eA==", "signerName": "x", "usages": ["client auth", "tea"]}}),
            vec![
                "spec.request: Invalid value: \"eA==\": PEM block type must be CERTIFICATE REQUEST",
                "spec.usages[1]: Unsupported value: \"tea\": supported values: \"any\", \"cert sign\", \"client auth\", \"code signing\", \"content commitment\", \"crl sign\", \"data encipherment\", \"decipher only\", \"digital signature\", \"email protection\", \"encipher only\", \"ipsec end system\", \"ipsec tunnel\", \"ipsec user\", \"key agreement\", \"key encipherment\", \"microsoft sgc\", \"netscape sgc\", \"ocsp signing\", \"s/mime\", \"server auth\", \"signing\", \"timestamping\"",
                "spec.signerName: Invalid value: \"x\": must be a fully qualified domain and path of the form 'example.com/signer-name'",
            ],
        ),
    ];
    for (group, plural, object, expected) in cases {
        assert_eq!(problems(group, plural, object), expected, "{plural}");
    }
}

#[test]
fn what_a_kind_freezes_does_not_change() {
    let change = |group: &str, plural: &str, sample: Value, at: &str, value: Value| {
        let old = complete(group, plural, sample);
        let mut new = old.clone();
        *new.pointer_mut(at).unwrap() = value;
        with_strategy(group, plural, |strategy| {
            let errors = strategy.validate_update(&new, &old, Prepare::Main);
            errors.iter().map(ToString::to_string).collect::<Vec<_>>()
        })
    };
    let sample = |plural: &str| {
        let all = samples();
        let found = all
            .into_iter()
            .find(|(_, name, _)| *name == plural)
            .unwrap();
        (found.0, found.2)
    };
    let (group, set) = sample("statefulsets");
    assert_eq!(
        change(
            group,
            "statefulsets",
            set,
            "/spec/serviceName",
            json!("other")
        ),
        [
            "spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"
        ]
    );
    let (group, claim) = sample("persistentvolumeclaims");
    let errors = change(
        group,
        "persistentvolumeclaims",
        claim,
        "/spec/accessModes",
        json!(["ReadOnlyMany"]),
    );
    assert_eq!(
        errors,
        [
            "spec: Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims"
        ]
    );
    let (group, revision) = sample("controllerrevisions");
    let errors = change(group, "controllerrevisions", revision, "/data", json!({}));
    assert_eq!(errors, ["data: Invalid value: {}: field is immutable"]);
}
