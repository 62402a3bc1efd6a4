//! Every command of daily use works on the kinds we serve, without a warning and without a hang.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::{Cluster, Output, shared, until};

/// A command that takes longer than this hangs.
const HANGS_AFTER: Duration = Duration::from_secs(60);

/// Kind as kubectl takes it, and whether it lives in a namespace.
const KINDS: [(&str, bool); 12] = [
    ("namespaces", false),
    ("nodes", false),
    ("pods", true),
    ("services", true),
    ("endpointslices", true),
    ("configmaps", true),
    ("secrets", true),
    ("serviceaccounts", true),
    ("events", true),
    ("leases", true),
    ("deployments", true),
    ("replicasets", true),
];

/// A namespace of the shared cluster.
struct Place {
    cluster: std::sync::Arc<Cluster>,
    namespace: &'static str,
}

impl Place {
    fn new(namespace: &'static str) -> Result<Self> {
        let cluster = shared()?;
        cluster.namespace(namespace)?;
        Ok(Self { cluster, namespace })
    }

    /// Runs kubectl in the namespace; it must succeed in time and warn of nothing.
    fn run(&self, words: &[&str]) -> Result<Output> {
        let start = Instant::now();
        let place = ["--namespace", self.namespace];
        let words: Vec<&str> = place.iter().chain(words).copied().collect();
        let output = self.cluster.kubectl(&words)?.success()?.without_warning()?;
        ensure!(
            start.elapsed() < HANGS_AFTER,
            "`{}` took {:?}",
            output.line,
            start.elapsed()
        );
        Ok(output)
    }

    fn says(&self, words: &[&str], expected: &str) -> Result<()> {
        let output = self.run(words)?;
        ensure!(
            output.stdout.contains(expected),
            "`{}` said:\n{}\nwithout: {expected}",
            output.line,
            output.stdout
        );
        Ok(())
    }

    fn apply(&self, manifest: &str) -> Result<Output> {
        let words = ["apply", "--namespace", self.namespace, "--filename=-"];
        self.cluster
            .kubectl_with_input(&words, manifest)?
            .success()?
            .without_warning()
    }

    fn json(&self, words: &[&str]) -> Result<Value> {
        let output = self.run(&[words, &["--output=json"]].concat())?;
        serde_json::from_str(&output.stdout).with_context(|| output.line)
    }
}

/// A deployment of our HTTP server and a service of it.
fn hello(replicas: u8) -> String {
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata:
  name: hello
spec:
  replicas: {replicas}
  selector:
    matchLabels: {{app: hello}}
  template:
    metadata:
      labels: {{app: hello}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: hello
        image: skep.local/hello
        imagePullPolicy: IfNotPresent
        ports:
        - containerPort: 8080
---
apiVersion: v1
kind: Service
metadata:
  name: hello
spec:
  selector: {{app: hello}}
  ports:
  - port: 80
    targetPort: 8080
"
    )
}

#[test]
fn get_and_describe_show_every_kind() -> Result<()> {
    let place = Place::new("verbs-get")?;
    place.apply(&hello(1))?;
    place.run(&["create", "secret", "generic", "s", "--from-literal=a=b"])?;
    place.run(&["rollout", "status", "deploy/hello", "--timeout=50s"])?;
    for (kind, namespaced) in KINDS {
        for form in ["", "wide", "name", "yaml", "json"] {
            let output = format!("--output={form}");
            place.run(&["get", kind, &output])?;
        }
        place.run(&["describe", kind])?;
        if namespaced {
            place.run(&["get", kind, "--all-namespaces"])?;
        }
    }
    for verb in ["get", "describe"] {
        let words = ["--namespace", place.namespace, verb, "endpoints"];
        let said = place.cluster.kubectl(&words)?.success()?;
        ensure!(
            said.stderr
                .contains("Warning: v1 Endpoints is deprecated in v1.33+"),
            "{verb}: {}",
            said.stderr
        );
    }
    place.says(&["get", "deployments"], "hello   1/1     1            1")?;
    place.says(&["get", "pods", "--selector=app=hello"], "Running")?;
    place.says(
        &["get", "pods", "--field-selector=status.phase=Running"],
        "hello-",
    )?;
    place.says(&["get", "pods", "--show-labels"], "app=hello")?;
    place.says(
        &["get", "pods", "--chunk-size=1", "--sort-by=.metadata.name"],
        "hello-",
    )?;
    place.says(&["get", "all"], "replicaset.apps/hello-")?;
    place.says(
        &["describe", "deployment", "hello"],
        "Scaled up replica set hello-",
    )?;
    place.says(
        &["describe", "service", "hello"],
        "TargetPort:               8080/TCP",
    )?;
    Ok(())
}

#[test]
fn apply_creates_changes_and_leaves_alone() -> Result<()> {
    let place = Place::new("verbs-apply")?;
    let created = place.apply(&hello(0))?;
    ensure!(created.stdout == "deployment.apps/hello created\nservice/hello created\n");
    let again = place.apply(&hello(0))?;
    ensure!(again.stdout == "deployment.apps/hello unchanged\nservice/hello unchanged\n");
    let diff = ["diff", "--namespace", place.namespace, "--filename=-"];
    let same = place.cluster.kubectl_with_input(&diff, &hello(0))?;
    ensure!(same.code == Some(0), "{same:?}");
    let differs = place
        .cluster
        .kubectl_with_input(&diff, &hello(1))?
        .without_warning()?;
    ensure!(differs.code == Some(1), "{differs:?}");
    ensure!(
        differs.stdout.contains("-  replicas: 0\n+  replicas: 1"),
        "{}",
        differs.stdout
    );
    let changed = place.apply(&hello(1).replace("targetPort: 8080", "targetPort: 8081"))?;
    ensure!(changed.stdout == "deployment.apps/hello configured\nservice/hello configured\n");
    let service = place.json(&["get", "service", "hello"])?;
    ensure!(
        service["spec"]["ports"][0]["targetPort"] == 8081,
        "{service}"
    );
    let dry = [
        "apply",
        "--namespace",
        place.namespace,
        "--dry-run=server",
        "--filename=-",
    ];
    let dry = place
        .cluster
        .kubectl_with_input(&dry, &hello(3))?
        .success()?
        .without_warning()?;
    ensure!(
        dry.stdout.contains("configured (server dry run)"),
        "{}",
        dry.stdout
    );
    ensure!(place.json(&["get", "deploy", "hello"])?["spec"]["replicas"] == 1);
    Ok(())
}

#[test]
fn server_side_apply_shares_an_object_between_managers() -> Result<()> {
    let place = Place::new("verbs-ssa")?;
    let apply = |manager: &str, more: &[&str], manifest: &str| {
        let manager = format!("--field-manager={manager}");
        let place_of = [
            "apply",
            "--server-side",
            "--namespace",
            place.namespace,
            "--filename=-",
        ];
        let words = [&place_of[..], &[manager.as_str()], more].concat();
        place.cluster.kubectl_with_input(&words, manifest)
    };
    let map = |data: &str| {
        format!("{{apiVersion: v1, kind: ConfigMap, metadata: {{name: c}}, data: {data}}}")
    };
    apply("a", &[], &map("{x: one, y: one}"))?
        .success()?
        .without_warning()?;
    apply("b", &[], &map("{z: two}"))?
        .success()?
        .without_warning()?;
    let conflict = "Apply failed with 1 conflict: conflict with \"a\": .data.x";
    apply("b", &[], &map("{x: two, z: two}"))?.failure_saying(conflict)?;
    apply("b", &["--force-conflicts"], &map("{x: two, z: two}"))?.success()?;
    // What a stops to state goes, unless b owns it by now.
    apply("a", &[], &map("{}"))?.success()?.without_warning()?;
    let data = &place.json(&["get", "configmap", "c"])?["data"];
    ensure!(
        *data == serde_json::json!({"x": "two", "z": "two"}),
        "{data}"
    );
    let unknown = "field not declared in schema";
    let deployment = hello(0).replace("replicas: 0", "replica: 0");
    apply("a", &[], &deployment)?.failure_saying(unknown)?;
    Ok(())
}

#[test]
fn label_annotate_scale_and_patch_change_what_they_say() -> Result<()> {
    let place = Place::new("verbs-change")?;
    place.apply(&hello(0))?;
    place.says(&["label", "deploy", "hello", "tier=web"], "labeled")?;
    place.says(
        &["label", "deploy", "hello", "tier=db", "--overwrite"],
        "labeled",
    )?;
    place.says(&["label", "deploy", "hello", "tier-"], "unlabeled")?;
    place.says(
        &["annotate", "service", "hello", "note=some text"],
        "annotated",
    )?;
    place.says(&["annotate", "service", "hello", "note-"], "annotated")?;
    place.says(&["scale", "deploy", "hello", "--replicas=2"], "scaled")?;
    let wrong = [
        "scale",
        "deploy/hello",
        "--current-replicas=7",
        "--replicas=1",
    ];
    let in_place = [&wrong[..], &["--namespace", place.namespace]].concat();
    place
        .cluster
        .kubectl(&in_place)?
        .failure_saying("Expected replicas to be 7, was 2")?;
    place.says(&["scale", "deploy", "hello", "--replicas=0"], "scaled")?;
    let by_type = [
        ("strategic", r#"{"spec":{"paused":true}}"#),
        ("merge", r#"{"spec":{"paused":null}}"#),
        (
            "json",
            r#"[{"op":"add","path":"/metadata/labels","value":{"a":"b"}}]"#,
        ),
    ];
    for (kind, patch) in by_type {
        let kind = format!("--type={kind}");
        place.says(
            &["patch", "deploy", "hello", &kind, "--patch", patch],
            "patched",
        )?;
    }
    place.says(
        &["set", "image", "deploy/hello", "hello=skep.local/busybox"],
        "image updated",
    )?;
    let deployment = place.json(&["get", "deploy", "hello"])?;
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    ensure!(container["image"] == "skep.local/busybox", "{deployment}");
    ensure!(
        container["ports"][0]["containerPort"] == 8080,
        "{deployment}"
    );
    ensure!(deployment["metadata"]["labels"]["a"] == "b", "{deployment}");
    ensure!(deployment["spec"].get("paused").is_none(), "{deployment}");
    Ok(())
}

#[test]
fn edit_writes_what_the_editor_left() -> Result<()> {
    let place = Place::new("verbs-edit")?;
    place.run(&["create", "configmap", "c", "--from-literal=a=before"])?;
    let words = ["edit", "configmap", "c", "--namespace", place.namespace];
    let mut edit = place.cluster.kubectl_command(&words);
    let output = edit.env("KUBE_EDITOR", "sed -i s/before/after/").output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success() && said.is_empty(), "{said}");
    ensure!(place.json(&["get", "configmap", "c"])?["data"]["a"] == "after");
    Ok(())
}

#[test]
fn rollouts_are_watched_recorded_and_undone() -> Result<()> {
    let place = Place::new("verbs-rollout")?;
    let create = [
        "create",
        "deployment",
        "web",
        "--image=skep.local/hello:latest",
    ];
    place.run(&create)?;
    let policy = r#"{"spec":{"template":{"spec":{"terminationGracePeriodSeconds":1,
        "containers":[{"name":"hello","imagePullPolicy":"IfNotPresent"}]}}}}"#;
    place.run(&["patch", "deploy", "web", "--patch", policy])?;
    let status = ["rollout", "status", "deploy/web", "--timeout=50s"];
    place.says(&status, "successfully rolled out")?;
    place.run(&["set", "env", "deploy/web", "COLOUR=blue"])?;
    place.says(&status, "successfully rolled out")?;
    place.says(&["rollout", "history", "deploy/web"], "CHANGE-CAUSE")?;
    let colour = || -> Result<Value> {
        let deployment = place.json(&["get", "deploy", "web"])?;
        let container = &deployment["spec"]["template"]["spec"]["containers"][0];
        Ok(container["env"][0]["value"].clone())
    };
    ensure!(colour()? == "blue");
    place.says(&["rollout", "undo", "deploy/web"], "rolled back")?;
    place.says(&status, "successfully rolled out")?;
    ensure!(colour()?.is_null());
    place.says(&["rollout", "restart", "deploy/web"], "restarted")?;
    place.says(&status, "successfully rolled out")?;
    Ok(())
}

#[test]
fn logs_exec_and_wait_reach_the_pod() -> Result<()> {
    let place = Place::new("verbs-pod")?;
    place.apply(&hello(1))?;
    let wait = [
        "wait",
        "--for=condition=Available",
        "deploy/hello",
        "--timeout=50s",
    ];
    place.says(&wait, "condition met")?;
    place.says(&["logs", "deploy/hello"], "listening on")?;
    place.says(
        &["logs", "--selector=app=hello", "--tail=1", "--timestamps"],
        "Z ",
    )?;
    let image = "--image=skep.local/busybox";
    let policy = "--image-pull-policy=IfNotPresent";
    let run = [
        "run",
        "box",
        image,
        policy,
        "--restart=Never",
        "--",
        "sleep",
        "600",
    ];
    place.run(&run)?;
    place.says(
        &["wait", "--for=condition=Ready", "pod/box", "--timeout=50s"],
        "condition met",
    )?;
    place.says(&["exec", "box", "--", "echo", "hello there"], "hello there")?;
    let exit = [
        "exec",
        "--namespace",
        place.namespace,
        "box",
        "--",
        "sh",
        "-c",
        "exit 3",
    ];
    let failed = place.cluster.kubectl(&exit)?;
    ensure!(failed.code == Some(3), "{failed:?}");
    let cat = [
        "exec",
        "--stdin",
        "--namespace",
        place.namespace,
        "box",
        "--",
        "cat",
    ];
    let echoed = place
        .cluster
        .kubectl_with_input(&cat, "through standard input")?
        .success()?;
    ensure!(echoed.text() == "through standard input", "{echoed:?}");
    place.says(&["delete", "pod", "box", "--grace-period=1"], "deleted")?;
    let gone = ["wait", "--for=delete", "pod/box", "--timeout=30s"];
    place.run(&gone)?;
    Ok(())
}

#[test]
fn explain_and_api_resources_tell_what_is_served() -> Result<()> {
    let place = Place::new("verbs-tell")?;
    for (kind, _) in KINDS {
        place.says(&["explain", kind], "DESCRIPTION:")?;
    }
    place.says(
        &["explain", "pods.spec.containers.livenessProbe.httpGet.port"],
        "IntOrString",
    )?;
    place.says(
        &["explain", "deploy.spec.strategy", "--recursive"],
        "maxSurge",
    )?;
    place.says(
        &["explain", "endpointslices.endpoints.conditions"],
        "serving",
    )?;
    let resources = place.run(&["api-resources", "--output=name"])?;
    for kind in [
        "namespaces",
        "nodes",
        "pods",
        "services",
        "deployments.apps",
        "leases.coordination.k8s.io",
    ] {
        ensure!(
            resources.stdout.lines().any(|line| line == kind),
            "no {kind} in {resources:?}"
        );
    }
    place.says(&["api-versions"], "discovery.k8s.io/v1")?;
    place.says(&["version"], "Server Version: v1.37")?;
    Ok(())
}

#[test]
fn events_tell_what_happened_to_an_object() -> Result<()> {
    let place = Place::new("verbs-events")?;
    place.apply(&hello(1))?;
    let limit = Duration::from_secs(50);
    until(limit, "the start of a container is told", || {
        place.says(&["events"], "Started")?;
        place.says(
            &["events", "--for", "deployment/hello"],
            "ScalingReplicaSet",
        )
    })?;
    place.says(&["events", "--types=Normal", "--output=json"], "\"Event")?;
    Ok(())
}

#[test]
fn delete_removes_what_it_names_and_what_belongs_to_it() -> Result<()> {
    let place = Place::new("verbs-delete")?;
    place.apply(&hello(2))?;
    place.run(&["rollout", "status", "deploy/hello", "--timeout=50s"])?;
    place.says(
        &["delete", "pod", "--selector=app=hello", "--wait=false"],
        "deleted",
    )?;
    place.says(&["delete", "deploy/hello", "service/hello"], "deleted")?;
    until(Duration::from_secs(50), "owned objects are gone", || {
        let left = place.run(&["get", "replicasets,pods,endpointslices", "--output=name"])?;
        ensure!(left.stdout.is_empty(), "{}", left.stdout);
        Ok(())
    })?;
    let again = ["delete", "deploy", "hello", "--namespace", place.namespace];
    let missing = "Error from server (NotFound): deployments.apps \"hello\" not found";
    place.cluster.kubectl(&again)?.failure_saying(missing)?;
    place.run(&["delete", "deploy", "hello", "--ignore-not-found"])?;
    place.run(&["create", "configmap", "c"])?;
    // Without `--namespace`: kubectl warns that it does not matter here.
    let delete = ["delete", "namespace", place.namespace, "--timeout=50s"];
    place
        .cluster
        .kubectl(&delete)?
        .success()?
        .without_warning()?;
    let namespace = ["get", "namespace", place.namespace];
    place
        .cluster
        .kubectl(&namespace)?
        .failure_saying("NotFound")?;
    Ok(())
}
