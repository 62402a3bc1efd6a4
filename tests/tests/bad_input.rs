//! Bad input is refused in the words of Kubernetes, and nothing of it is stored.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::Value;
use tests::{Cluster, shared, until};

/// Names of what a namespace holds of the kinds that the manifests here name.
fn holds(cluster: &Cluster, namespace: &str) -> Result<Vec<String>> {
    let kinds = "deployments,replicasets,pods,services,endpointslices,configmaps,secrets";
    let get = ["get", kinds, "--namespace", namespace, "--output=name"];
    let shown = cluster.kubectl(&get)?.success()?;
    let own = |name: &&str| *name != "configmap/kube-root-ca.crt";
    Ok(shown
        .stdout
        .lines()
        .filter(own)
        .map(str::to_owned)
        .collect())
}

/// Creates each manifest, expects the sentence, and that the namespace stays empty.
fn check(name: &str, cases: &[(&str, &str)]) -> Result<()> {
    let cluster = shared()?;
    cluster.namespace(name)?;
    for (manifest, sentence) in cases {
        for verb in ["create", "apply"] {
            let words = [verb, "--namespace", name, "--filename=-"];
            cluster
                .kubectl_with_input(&words, manifest)?
                .failure_saying(sentence)?;
        }
        let stored = holds(&cluster, name)?;
        ensure!(
            stored.is_empty(),
            "{manifest} was refused and left {stored:?}"
        );
    }
    Ok(())
}

#[test]
fn unknown_fields_are_named_with_their_path() -> Result<()> {
    check(
        "unknown-field",
        &[
            (
                "{apiVersion: apps/v1, kind: Deployment, metadata: {name: d}, spec: {replica: 1, \
                 template: {spec: {containers: [{name: a, imagee: x}]}}}}",
                "Deployment in version \"v1\" cannot be handled as a Deployment: strict decoding \
                 error: unknown field \"spec.replica\", unknown field \
                 \"spec.template.spec.containers[0].imagee\"",
            ),
            (
                "{apiVersion: v1, kind: Service, metadata: {name: s}, spec: {ports: [{port: 80, \
                 target: 8080}]}}",
                "strict decoding error: unknown field \"spec.ports[0].target\"",
            ),
        ],
    )
}

#[test]
fn wrong_types_are_refused_as_go_does() -> Result<()> {
    check(
        "wrong-type",
        &[
            (
                "{apiVersion: apps/v1, kind: Deployment, metadata: {name: d}, spec: {replicas: two}}",
                "Deployment in version \"v1\" cannot be handled as a Deployment: json: cannot \
                 unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
            ),
            (
                "{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: {name: a}}}",
                "json: cannot unmarshal object into Go struct field PodSpec.spec.containers of type \
                 []v1.Container",
            ),
            (
                "{apiVersion: v1, kind: ConfigMap, metadata: {name: c}, data: {port: 80}}",
                "json: cannot unmarshal number into Go struct field ConfigMap.data of type string",
            ),
            (
                "{apiVersion: v1, kind: Secret, metadata: {name: s}, data: {a: \"!!\"}}",
                "Secret in version \"v1\" cannot be handled as a Secret: illegal base64 data at \
                 input byte 0",
            ),
            (
                "{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: [{name: a, \
                 image: x, resources: {requests: {cpu: lots}}}]}}",
                "quantities must match the regular expression \
                 '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
            ),
        ],
    )
}

#[test]
fn kinds_that_are_not_served_are_named() -> Result<()> {
    check(
        "unknown-kind",
        &[
            (
                "{apiVersion: v1, kind: Foo, metadata: {name: f}}",
                "no matches for kind \"Foo\" in version \"v1\"",
            ),
            (
                "{apiVersion: example.com/v1, kind: Foo, metadata: {name: f}}",
                "no matches for kind \"Foo\" in version \"example.com/v1\"",
            ),
        ],
    )
}

#[test]
fn duplicate_ports_are_refused() -> Result<()> {
    check(
        "duplicate-port",
        &[
            (
                "{apiVersion: v1, kind: Service, metadata: {name: s}, spec: {ports: [{name: a, \
                 port: 80}, {name: b, port: 80}]}}",
                "The Service \"s\" is invalid: spec.ports[1]: Duplicate value: ",
            ),
            (
                "{apiVersion: v1, kind: Service, metadata: {name: s}, spec: {ports: [{name: a, \
                 port: 80}, {name: a, port: 81}]}}",
                "The Service \"s\" is invalid: spec.ports[1].name: Duplicate value: \"a\"",
            ),
            (
                "{apiVersion: v1, kind: Service, metadata: {name: s}, spec: {ports: [{port: 80}, \
                 {port: 81}]}}",
                "spec.ports[0].name: Required value",
            ),
            (
                "{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: [{name: a, \
                 image: x, ports: [{name: h, containerPort: 1}, {name: h, containerPort: 2}]}]}}",
                "The Pod \"p\" is invalid: spec.containers[0].ports[1].name: Duplicate value: \"h\"",
            ),
        ],
    )
}

#[test]
fn names_that_are_no_names_are_refused() -> Result<()> {
    const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric \
        characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  \
        or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
    const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric \
        characters, '-' or '.', and must start and end with an alphanumeric character";
    let namespace = format!("metadata.name: Invalid value: \"a.b\": {LABEL}");
    let pod =
        format!("The Pod \"p_x\" is invalid: metadata.name: Invalid value: \"p_x\": {SUBDOMAIN}");
    let container = format!("spec.containers[0].name: Invalid value: \"A\": {LABEL}");
    check(
        "bad-name",
        &[
            (
                "{apiVersion: v1, kind: Pod, metadata: {name: p_x}, spec: {containers: [{name: a, \
                 image: x}]}}",
                &pod,
            ),
            (
                "{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: [{name: A, \
                 image: x}]}}",
                &container,
            ),
            (
                "{apiVersion: v1, kind: ConfigMap, metadata: {name: c}, data: {x/y: z}}",
                "data[x/y]: Invalid value: \"x/y\": a valid config key must consist of alphanumeric \
                 characters, '-', '_' or '.'",
            ),
        ],
    )?;
    // A namespace lives in none.
    let manifest = "{apiVersion: v1, kind: Namespace, metadata: {name: a.b}}";
    let words = ["create", "--filename=-"];
    let refused = shared()?.kubectl_with_input(&words, manifest)?;
    refused.failure_saying(&namespace)?;
    Ok(())
}

#[test]
fn a_body_of_ten_megabytes_is_refused() -> Result<()> {
    const BODY_LEN: usize = 10 * 1024 * 1024;
    let mut manifest = String::with_capacity(BODY_LEN + 1024);
    manifest.push_str("{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",");
    write!(
        manifest,
        "\"metadata\":{{\"name\":\"c\"}},\"data\":{{\"a\":\"{}\"}}}}",
        "a".repeat(BODY_LEN)
    )?;
    let cluster = shared()?;
    cluster.namespace("large-body")?;
    let words = ["create", "--namespace=large-body", "--filename=-"];
    let refused = cluster.kubectl_with_input(&words, &manifest)?;
    refused.failure_saying("Request entity too large: limit is 3145728")?;
    ensure!(holds(&cluster, "large-body")?.is_empty());
    Ok(())
}

#[test]
fn a_virtual_address_that_is_taken_stays_its_owners() -> Result<()> {
    let cluster = shared()?;
    let dns = ["get", "service", "kube-dns", "--namespace=kube-system"];
    let jsonpath = "--output=jsonpath={.spec.clusterIP}";
    let address = cluster
        .kubectl(&[&dns[..], &[jsonpath]].concat())?
        .success()?;
    let address = address.text();
    let manifest = format!(
        "{{apiVersion: v1, kind: Service, metadata: {{name: s}}, spec: {{clusterIP: {address}, \
         ports: [{{port: 80}}]}}}}"
    );
    let sentence = format!("failed to allocate IP {address}: provided IP is already allocated");
    check("taken-address", &[(&manifest, &sentence)])?;
    cluster.kubectl(&dns)?.success()?;
    Ok(())
}

#[test]
fn a_refused_service_keeps_neither_address_nor_node_port() -> Result<()> {
    let cluster = shared()?;
    cluster.namespace("given-back")?;
    let service = |second: &str| {
        format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: s}}, spec: {{type: NodePort, ports: \
             [{{name: a, port: 80, nodePort: 31999}}, {{name: {second}, port: 81}}]}}}}"
        )
    };
    let words = ["create", "--namespace=given-back", "--filename=-"];
    let refused = cluster.kubectl_with_input(&words, &service("a"))?;
    refused.failure_saying("Duplicate value: \"a\"")?;
    cluster
        .kubectl_with_input(&words, &service("b"))?
        .success()?;
    let words = ["create", "--namespace=default", "--filename=-"];
    let taken = cluster.kubectl_with_input(&words, &service("b"))?;
    taken.failure_saying("provided port is already allocated")?;
    cluster
        .kubectl(&["delete", "service", "s", "--namespace=given-back"])?
        .success()?;
    Ok(())
}

#[test]
fn an_image_that_does_not_exist_is_told_in_status_and_events() -> Result<()> {
    let cluster = shared()?;
    cluster.namespace("no-image")?;
    let image = "--image=skep.local/there-is-no-such-image:v1";
    let run = ["run", "p", image, "--restart=Never", "--namespace=no-image"];
    cluster.kubectl(&run)?.success()?;
    let reason = "--output=jsonpath={.status.containerStatuses[0].state.waiting.reason}";
    let get = ["get", "pod", "p", "--namespace=no-image", reason];
    let limit = Duration::from_secs(60);
    until(limit, "the pod waits for its image and backs off", || {
        let shown = cluster.kubectl(&get)?.success()?;
        ensure!(shown.text() == "ImagePullBackOff", "{shown:?}");
        Ok(())
    })?;
    until(limit, "an event says so", || {
        let words = ["get", "events", "--namespace=no-image", "--output=json"];
        let events: Value = serde_json::from_str(&cluster.kubectl(&words)?.success()?.stdout)?;
        let failed = events["items"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|event| {
                let message = event["message"].as_str().unwrap_or_default();
                event["reason"] == "Failed" && message.contains("there-is-no-such-image")
            });
        ensure!(failed.is_some(), "{events}");
        Ok(())
    })?;
    let delete = [
        "delete",
        "pod",
        "p",
        "--namespace=no-image",
        "--timeout=60s",
    ];
    cluster.kubectl(&delete)?.success()?;
    ensure!(holds(&cluster, "no-image")?.is_empty());
    Ok(())
}
