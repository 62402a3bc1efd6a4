//! Webhooks that run in the cluster they are asked about: admission and conversion through a
//! Service.

use std::time::Duration;

use anyhow::{Result, ensure};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use tests::{Cluster, shared, until};

const NAMESPACE: &str = "webhooks";
const WAIT: Duration = Duration::from_secs(30);

/// A certificate for the service, and who vouches for it.
struct Certificate {
    authority: String,
    certificate: String,
    key: String,
}

impl Certificate {
    fn make() -> Result<Self> {
        let mut authority = CertificateParams::new(Vec::<String>::new())?;
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority_key = KeyPair::generate()?;
        let own = authority.self_signed(&authority_key)?;
        let issuer = Issuer::new(authority, authority_key);
        let key = KeyPair::generate()?;
        let names = vec![format!("hook.{NAMESPACE}.svc")];
        let certificate = CertificateParams::new(names)?.signed_by(&key, &issuer)?;
        Ok(Self {
            authority: own.pem(),
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    }
}

/// The program of this package in a pod; what it needs of libraries it finds on the machine.
fn server(certificate: &Certificate) -> Value {
    let program = env!("CARGO_BIN_EXE_webhook");
    let host = ["/lib", "/lib64", "/usr"];
    let name = |path: &str| path.trim_start_matches('/').to_owned();
    let mut volumes: Vec<Value> = host
        .iter()
        .map(|path| json!({"name": name(path), "hostPath": {"path": path}}))
        .collect();
    volumes.push(json!({"name": "tls", "secret": {"secretName": "hook"}}));
    volumes.push(json!({"name": "program", "hostPath": {"path": program, "type": "File"}}));
    let mut mounts: Vec<Value> = host
        .iter()
        .map(|path| json!({"name": name(path), "mountPath": path, "readOnly": true}))
        .collect();
    mounts.push(json!({"name": "tls", "mountPath": "/tls"}));
    mounts.push(json!({"name": "program", "mountPath": "/webhook", "readOnly": true}));
    let container = json!({"name": "hook", "image": "skep.local/busybox:latest",
        "imagePullPolicy": "Never", "command": ["/webhook"], "volumeMounts": mounts,
        "ports": [{"containerPort": 8443}],
        "readinessProbe": {"periodSeconds": 1,
            "httpGet": {"scheme": "HTTPS", "port": 8443, "path": "/healthz"}}});
    json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "hook"},
            "type": "kubernetes.io/tls",
            "stringData": {"tls.crt": certificate.certificate, "tls.key": certificate.key}},
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "hook"},
            "spec": {"selector": {"app": "hook"}, "ports": [{"port": 443, "targetPort": 8443}]}},
        {"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "hook", "labels": {"app": "hook"}},
            "spec": {"containers": [container], "volumes": volumes,
                "terminationGracePeriodSeconds": 1}},
    ]})
}

fn base64(text: &str) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in text.as_bytes().chunks(3) {
        let bits = chunk.iter().enumerate().fold(0_u32, |bits, (i, byte)| {
            bits | (u32::from(*byte) << (16 - 8 * i))
        });
        for place in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * place)) as usize & 63];
            out.push(if place > chunk.len() {
                '='
            } else {
                char::from(letter)
            });
        }
    }
    out
}

fn client(certificate: &Certificate, path: &str) -> Value {
    json!({"service": {"namespace": NAMESPACE, "name": "hook", "path": path},
        "caBundle": base64(&certificate.authority)})
}

fn configuration(kind: &str, failure: &str, client: &Value) -> Value {
    json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind,
        "metadata": {"name": "tests-webhooks"},
        "webhooks": [{"name": "hook.example.com", "clientConfig": client, "sideEffects": "None",
            "admissionReviewVersions": ["v1"], "failurePolicy": failure, "timeoutSeconds": 5,
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": NAMESPACE}},
            "rules": [{"operations": ["CREATE", "UPDATE"], "apiGroups": [""],
                "apiVersions": ["v1"], "resources": ["configmaps"]}]}]})
}

fn definition(client: &Value) -> Value {
    let version = |name: &str, field: &str| {
        json!({"name": name, "served": true, "storage": name == "v1",
            "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                "spec": {"type": "object", "properties": {field: {"type": "integer"}}}}}}})
    };
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "crates.hooks.example.com"},
        "spec": {"group": "hooks.example.com", "scope": "Namespaced",
            "names": {"plural": "crates", "kind": "Crate"},
            "versions": [version("v1", "size"), version("v2", "width")],
            "conversion": {"strategy": "Webhook", "webhook": {
                "conversionReviewVersions": ["v1"], "clientConfig": client}}}})
}

fn map(name: &str, labels: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": labels}})
}

fn apply(cluster: &Cluster, object: &Value) -> Result<tests::Output> {
    let words = ["-n", NAMESPACE, "apply", "-f", "-"];
    cluster.kubectl_with_input(&words, &object.to_string())
}

fn read(cluster: &Cluster, what: &[&str]) -> Result<String> {
    let words: Vec<&str> = ["-n", NAMESPACE, "get"]
        .iter()
        .chain(what)
        .copied()
        .collect();
    Ok(cluster.kubectl(&words)?.success()?.stdout)
}

#[test]
fn webhooks_in_pods_are_asked_and_their_absence_is_told() -> Result<()> {
    let cluster = shared()?;
    cluster.namespace(NAMESPACE)?;
    let certificate = Certificate::make()?;
    apply(&cluster, &server(&certificate))?.success()?;
    let ready = [
        "-n",
        NAMESPACE,
        "wait",
        "--for=condition=Ready",
        "pod/hook",
        "--timeout=60s",
    ];
    cluster.kubectl(&ready)?.success()?;
    let outcome = asked(&cluster, &certificate).and_then(|()| absent(&cluster));
    // The cluster is shared: nobody else is to be asked.
    for what in [
        "mutatingwebhookconfigurations",
        "validatingwebhookconfigurations",
    ] {
        cluster.kubectl(&["delete", "--ignore-not-found", what, "tests-webhooks"])?;
    }
    cluster.kubectl(&[
        "delete",
        "--ignore-not-found",
        "crd",
        "crates.hooks.example.com",
    ])?;
    outcome
}

fn asked(cluster: &Cluster, certificate: &Certificate) -> Result<()> {
    let mutating = client(certificate, "/mutate");
    let mutating = configuration("MutatingWebhookConfiguration", "Ignore", &mutating);
    apply(cluster, &mutating)?.success()?;
    let validating = client(certificate, "/validate");
    let validating = configuration("ValidatingWebhookConfiguration", "Fail", &validating);
    apply(cluster, &validating)?.success()?;
    // The service's endpoints may follow a moment later.
    until(WAIT, "the webhook to be asked", || {
        let made = apply(cluster, &map("one", &json!({"a": "b"})))?.success()?;
        ensure!(
            made.stderr.contains("looked at by a pod"),
            "{}",
            made.stderr
        );
        Ok(())
    })?;
    let seen = read(
        cluster,
        &["configmap", "one", "-o", "jsonpath={.metadata.labels.seen}"],
    )?;
    ensure!(seen == "yes", "the label is {seen:?}");
    apply(cluster, &map("two", &json!({"refuse": "me"})))?.failure_saying(
        "admission webhook \"hook.example.com\" denied the request: the label says no",
    )?;
    let conversion = definition(&client(certificate, "/convert"));
    apply(cluster, &conversion)?.success()?;
    let crd = "crd/crates.hooks.example.com";
    cluster
        .kubectl(&["wait", "--for=condition=established", crd, "--timeout=10s"])?
        .success()?;
    let made = json!({"apiVersion": "hooks.example.com/v2", "kind": "Crate",
        "metadata": {"name": "one"}, "spec": {"width": 3}});
    apply(cluster, &made)?.success()?;
    let size = read(
        cluster,
        &[
            "crates.v1.hooks.example.com",
            "one",
            "-o",
            "jsonpath={.spec.size}",
        ],
    )?;
    ensure!(size == "3", "spec.size is {size:?}");
    Ok(())
}

fn absent(cluster: &Cluster) -> Result<()> {
    let delete = [
        "-n",
        NAMESPACE,
        "delete",
        "pod",
        "hook",
        "--wait=true",
        "--timeout=20s",
    ];
    cluster.kubectl(&delete)?.success()?;
    until(WAIT, "the webhook to be missed", || {
        apply(cluster, &map("three", &json!({"a": "b"})))?
            .failure_saying("failed calling webhook \"hook.example.com\"")
    })?;
    let open = r#"[{"op": "replace", "path": "/webhooks/0/failurePolicy", "value": "Ignore"}]"#;
    let patch = [
        "patch",
        "validatingwebhookconfiguration",
        "tests-webhooks",
        "--type=json",
        "-p",
    ];
    let patch: Vec<&str> = patch.into_iter().chain([open]).collect();
    cluster.kubectl(&patch)?.success()?;
    apply(cluster, &map("three", &json!({"a": "b"})))?.success()?;
    let seen = read(
        cluster,
        &[
            "configmap",
            "three",
            "-o",
            "jsonpath={.metadata.labels.seen}",
        ],
    )?;
    ensure!(
        seen.is_empty(),
        "nobody was there to set the label, yet it is {seen:?}"
    );
    // What was converted before is still known; a new revision is not, and its stored version needs
    // nobody.
    let change = [
        "annotate",
        "crates.v1.hooks.example.com",
        "one",
        "changed=yes",
    ];
    let change: Vec<&str> = ["-n", NAMESPACE].into_iter().chain(change).collect();
    cluster.kubectl(&change)?.success()?;
    cluster
        .kubectl(&["-n", NAMESPACE, "get", "crates.v2.hooks.example.com", "one"])?
        .failure_saying("conversion webhook for hooks.example.com/v1, Kind=Crate failed")?;
    Ok(())
}
