//! Kinds beside those of daily use: each is created, shown, explained, and left alone by an apply
//! that changes nothing.

use anyhow::{Result, ensure};
use tests::{Cluster, shared};

/// Kind as kubectl takes it, name, manifest. Names of cluster-scoped objects are this test's own.
const OBJECTS: [(&str, &str, &str); 15] = [
    (
        "limitranges",
        "limits",
        "{apiVersion: v1, kind: LimitRange, metadata: {name: limits}, spec: {limits: [
            {type: PersistentVolumeClaim, max: {storage: 1Gi}}]}}",
    ),
    (
        "resourcequotas",
        "quota",
        "{apiVersion: v1, kind: ResourceQuota, metadata: {name: quota},
            spec: {hard: {persistentvolumeclaims: '5', count/secrets: '9'}}}",
    ),
    (
        "persistentvolumeclaims",
        "claim",
        "{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: claim},
            spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}",
    ),
    (
        "persistentvolumes",
        "kinds-volume",
        "{apiVersion: v1, kind: PersistentVolume, metadata: {name: kinds-volume},
            spec: {capacity: {storage: 1Gi}, accessModes: [ReadWriteOnce],
                storageClassName: none, hostPath: {path: /tmp/none}}}",
    ),
    (
        "podtemplates",
        "template",
        "{apiVersion: v1, kind: PodTemplate, metadata: {name: template}, template: {
            metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: i}]}}}",
    ),
    (
        "replicationcontrollers",
        "rc",
        "{apiVersion: v1, kind: ReplicationController, metadata: {name: rc},
            spec: {replicas: 0, template: {metadata: {labels: {a: b}},
                spec: {containers: [{name: c, image: i}]}}}}",
    ),
    (
        "controllerrevisions",
        "revision",
        "{apiVersion: apps/v1, kind: ControllerRevision, metadata: {name: revision},
            revision: 1, data: {spec: {}}}",
    ),
    (
        "daemonsets",
        "daemons",
        "{apiVersion: apps/v1, kind: DaemonSet, metadata: {name: daemons},
            spec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}},
                spec: {nodeSelector: {kinds: none}, containers: [{name: c, image: i}]}}}}",
    ),
    (
        "statefulsets",
        "stateful",
        "{apiVersion: apps/v1, kind: StatefulSet, metadata: {name: stateful},
            spec: {replicas: 0, serviceName: s, selector: {matchLabels: {a: b}},
                template: {metadata: {labels: {a: b}},
                    spec: {containers: [{name: c, image: i}]}}}}",
    ),
    (
        "validatingwebhookconfigurations",
        "kinds-validating",
        "{apiVersion: admissionregistration.k8s.io/v1, kind: ValidatingWebhookConfiguration,
            metadata: {name: kinds-validating}, webhooks: [{name: a.kinds.example,
                rules: [{operations: [CREATE], apiGroups: [kinds.example], apiVersions: [v1],
                    resources: [nothings], scope: '*'}], sideEffects: None, admissionReviewVersions: [v1],
                failurePolicy: Ignore, clientConfig: {url: 'https://127.0.0.1:1/check'}}]}",
    ),
    (
        "mutatingwebhookconfigurations",
        "kinds-mutating",
        "{apiVersion: admissionregistration.k8s.io/v1, kind: MutatingWebhookConfiguration,
            metadata: {name: kinds-mutating}, webhooks: [{name: a.kinds.example,
                rules: [{operations: [CREATE], apiGroups: [kinds.example], apiVersions: [v1],
                    resources: [nothings], scope: '*'}], sideEffects: None, admissionReviewVersions: [v1],
                failurePolicy: Ignore, clientConfig: {url: 'https://127.0.0.1:1/check'}}]}",
    ),
    (
        "validatingadmissionpolicies",
        "kinds-policy",
        "{apiVersion: admissionregistration.k8s.io/v1, kind: ValidatingAdmissionPolicy,
            metadata: {name: kinds-policy}, spec: {matchConstraints: {resourceRules: [
                {operations: [CREATE], apiGroups: [kinds.example], apiVersions: [v1],
                    resources: [nothings], scope: '*'}]}, validations: [{expression: 'true'}]}}",
    ),
    (
        "validatingadmissionpolicybindings",
        "kinds-binding",
        "{apiVersion: admissionregistration.k8s.io/v1, kind: ValidatingAdmissionPolicyBinding,
            metadata: {name: kinds-binding},
            spec: {policyName: kinds-policy, validationActions: [Audit]}}",
    ),
    (
        "mutatingadmissionpolicies",
        "kinds-changes",
        "{apiVersion: admissionregistration.k8s.io/v1, kind: MutatingAdmissionPolicy,
            metadata: {name: kinds-changes}, spec: {reinvocationPolicy: Never,
                matchConstraints: {resourceRules: [{operations: [CREATE],
                    apiGroups: [kinds.example], apiVersions: [v1], resources: [nothings], scope: '*'}]},
                mutations: [{patchType: JSONPatch, jsonPatch: {expression: '[]'}}]}}",
    ),
    (
        "mutatingadmissionpolicybindings",
        "kinds-changes-binding",
        "{apiVersion: admissionregistration.k8s.io/v1, kind: MutatingAdmissionPolicyBinding,
            metadata: {name: kinds-changes-binding}, spec: {policyName: kinds-changes}}",
    ),
];

const NAMESPACE: &str = "kinds";

fn run(cluster: &Cluster, words: &[&str]) -> Result<String> {
    let words = [&["--namespace", NAMESPACE], words].concat();
    Ok(cluster
        .kubectl(&words)?
        .success()?
        .without_warning()?
        .stdout)
}

#[test]
fn each_kind_is_created_shown_explained_and_left_alone_by_the_same_apply() -> Result<()> {
    let cluster = shared()?;
    cluster.namespace(NAMESPACE)?;
    for (kind, name, manifest) in OBJECTS {
        let apply = |expected: &str| -> Result<()> {
            let words = ["apply", "--namespace", NAMESPACE, "--filename=-"];
            let output = cluster.kubectl_with_input(&words, manifest)?.success()?;
            ensure!(
                output.stdout.trim().ends_with(expected),
                "{kind}: apply said {}",
                output.stdout
            );
            Ok(())
        };
        apply("created")?;
        apply("unchanged")?;
        for form in ["", "wide", "yaml"] {
            let shown = run(&cluster, &["get", kind, name, &format!("--output={form}")])?;
            ensure!(shown.contains(name), "{kind}: {shown}");
        }
        run(&cluster, &["describe", kind, name])?;
        let explained = run(&cluster, &["explain", kind])?;
        ensure!(explained.contains("FIELDS"), "{kind}: {explained}");
    }
    let quota = run(&cluster, &["get", "quota", "quota"])?;
    ensure!(quota.contains("persistentvolumeclaims: 1/5"), "{quota}");
    for (kind, name, _) in OBJECTS {
        // kubectl warns of a namespace that is given for what has none.
        let delete = [
            "--namespace",
            NAMESPACE,
            "delete",
            kind,
            name,
            "--wait=false",
        ];
        cluster.kubectl(&delete)?.success()?;
    }
    Ok(())
}

#[test]
fn the_components_of_the_control_plane_are_healthy() -> Result<()> {
    let cluster = shared()?;
    let shown = cluster.kubectl(&["get", "componentstatuses"])?.success()?;
    for component in ["controller-manager", "scheduler", "etcd-0"] {
        let healthy = shown
            .stdout
            .lines()
            .any(|line| line.starts_with(component) && line.contains("Healthy"));
        ensure!(healthy, "{component} in:\n{}", shown.stdout);
    }
    Ok(())
}
