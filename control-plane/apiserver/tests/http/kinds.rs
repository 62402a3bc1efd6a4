//! Every kind of the workload, policy, network, scheduling and storage groups, as clients use it:
//! applied twice, shown as a table, patched, refused, deleted.

use serde_json::{Value, json};

use super::{Cluster, message, until};

/// One object and what its table says.
struct Case {
    path: &'static str,
    object: Value,
    columns: &'static [&'static str],
    /// The row, without the age.
    cells: Value,
}

fn pod_template(restart: &str) -> Value {
    json!({"spec": {"restartPolicy": restart, "containers": [{"name": "c", "image": "i:1"}]}})
}

fn workload_cases() -> Vec<Case> {
    vec![
        Case {
            path: "/apis/batch/v1/namespaces/default/jobs",
            object: json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "once"},
                "spec": {"template": pod_template("Never")}}),
            columns: &[
                "Name",
                "Status",
                "Completions",
                "Duration",
                "Age",
                "Containers",
                "Images",
                "Selector",
            ],
            cells: json!(["once", "Running", "0/1", ""]),
        },
        Case {
            path: "/apis/batch/v1/namespaces/default/cronjobs",
            object: json!({"apiVersion": "batch/v1", "kind": "CronJob",
                "metadata": {"name": "nightly"}, "spec": {"schedule": "0 3 * * *",
                    "jobTemplate": {"spec": {"template": pod_template("OnFailure")}}}}),
            columns: &[
                "Name",
                "Schedule",
                "Timezone",
                "Suspend",
                "Active",
                "Last Schedule",
                "Age",
                "Containers",
                "Images",
                "Selector",
            ],
            cells: json!(["nightly", "0 3 * * *", "<none>", "False", 0, "<none>"]),
        },
        Case {
            path: "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers",
            object: json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
                "metadata": {"name": "web"}, "spec": {"maxReplicas": 5,
                    "scaleTargetRef": {"kind": "Deployment", "name": "web"}}}),
            columns: &[
                "Name",
                "Reference",
                "Targets",
                "MinPods",
                "MaxPods",
                "Replicas",
                "Age",
            ],
            cells: json!(["web", "Deployment/web", "cpu: <unknown>/80%", "1", 5, 0]),
        },
        Case {
            path: "/apis/policy/v1/namespaces/default/poddisruptionbudgets",
            object: json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
                "metadata": {"name": "web"}, "spec": {"minAvailable": "50%",
                    "selector": {"matchLabels": {"app": "web"}}}}),
            columns: &[
                "Name",
                "Min Available",
                "Max Unavailable",
                "Allowed Disruptions",
                "Age",
            ],
            cells: json!(["web", "50%", "N/A", 0]),
        },
    ]
}

fn network_cases() -> Vec<Case> {
    let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
    vec![
        Case {
            path: "/apis/networking.k8s.io/v1/namespaces/default/ingresses",
            object: json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
                "metadata": {"name": "web"}, "spec": {"rules": [{"host": "web.example",
                    "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}],
                    "tls": [{"hosts": ["web.example"], "secretName": "web"}]}}),
            columns: &["Name", "Class", "Hosts", "Address", "Ports", "Age"],
            cells: json!(["web", "<none>", "web.example", "", "80, 443"]),
        },
        Case {
            path: "/apis/networking.k8s.io/v1/ingressclasses",
            object: json!({"apiVersion": "networking.k8s.io/v1", "kind": "IngressClass",
                "metadata": {"name": "edge"}, "spec": {"controller": "example.com/edge",
                    "parameters": {"apiGroup": "example.com", "kind": "Edge", "name": "e"}}}),
            columns: &["Name", "Controller", "Parameters", "Age"],
            cells: json!(["edge", "example.com/edge", "Edge.example.com/e"]),
        },
        Case {
            path: "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies",
            object: json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
                "metadata": {"name": "web"}, "spec": {"podSelector": {"matchLabels": {"app": "web"}},
                    "ingress": [{"ports": [{"port": 80}], "from": [{"podSelector": {}}]}]}}),
            columns: &["Name", "Pod-Selector", "Age"],
            cells: json!(["web", "app=web"]),
        },
        Case {
            path: "/apis/networking.k8s.io/v1/ipaddresses",
            object: json!({"apiVersion": "networking.k8s.io/v1", "kind": "IPAddress",
                "metadata": {"name": "10.96.7.7"}, "spec": {"parentRef": {"group": "",
                    "resource": "services", "namespace": "default", "name": "web"}}}),
            columns: &["Name", "ParentRef", "Age"],
            cells: json!(["10.96.7.7", "services/default/web"]),
        },
        Case {
            path: "/apis/networking.k8s.io/v1/servicecidrs",
            object: json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR",
                "metadata": {"name": "more"}, "spec": {"cidrs": ["10.97.0.0/16"]}}),
            columns: &["Name", "CIDRs", "Age"],
            cells: json!(["more", "10.97.0.0/16"]),
        },
    ]
}

fn class_cases() -> Vec<Case> {
    vec![
        Case {
            path: "/apis/scheduling.k8s.io/v1/priorityclasses",
            object: json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass",
                "metadata": {"name": "high"}, "value": 1000}),
            columns: &["Name", "Value", "Global-Default", "Age", "PreemptionPolicy"],
            cells: json!(["high", 1000, false]),
        },
        Case {
            path: "/apis/node.k8s.io/v1/runtimeclasses",
            object: json!({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass",
                "metadata": {"name": "sandboxed"}, "handler": "runsc"}),
            columns: &["Name", "Handler", "Age"],
            cells: json!(["sandboxed", "runsc"]),
        },
        Case {
            path: "/apis/storage.k8s.io/v1/storageclasses",
            object: json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
                "metadata": {"name": "fast", "annotations": {
                    "storageclass.kubernetes.io/is-default-class": "true"}},
                "provisioner": "example.com/fast"}),
            columns: &[
                "Name",
                "Provisioner",
                "ReclaimPolicy",
                "VolumeBindingMode",
                "AllowVolumeExpansion",
                "Age",
            ],
            cells: json!([
                "fast (default)",
                "example.com/fast",
                "Delete",
                "Immediate",
                false
            ]),
        },
        Case {
            path: "/apis/storage.k8s.io/v1/volumeattributesclasses",
            object: json!({"apiVersion": "storage.k8s.io/v1", "kind": "VolumeAttributesClass",
                "metadata": {"name": "gold"}, "driverName": "example.com",
                "parameters": {"iops": "100"}}),
            columns: &["Name", "DriverName", "Age"],
            cells: json!(["gold", "example.com"]),
        },
    ]
}

fn csi_cases() -> Vec<Case> {
    vec![
        Case {
            path: "/apis/storage.k8s.io/v1/csidrivers",
            object: json!({"apiVersion": "storage.k8s.io/v1", "kind": "CSIDriver",
                "metadata": {"name": "csi.example.com"}, "spec": {"attachRequired": false}}),
            columns: &[
                "Name",
                "AttachRequired",
                "PodInfoOnMount",
                "StorageCapacity",
                "TokenRequests",
                "RequiresRepublish",
                "Modes",
                "Age",
            ],
            cells: json!([
                "csi.example.com",
                false,
                false,
                false,
                "<unset>",
                false,
                "Persistent"
            ]),
        },
        Case {
            path: "/apis/storage.k8s.io/v1/csinodes",
            object: json!({"apiVersion": "storage.k8s.io/v1", "kind": "CSINode",
                "metadata": {"name": "n1"}, "spec": {"drivers": [
                    {"name": "csi.example.com", "nodeID": "n1", "topologyKeys": []}]}}),
            columns: &["Name", "Drivers", "Age"],
            cells: json!(["n1", 1]),
        },
        Case {
            path: "/apis/storage.k8s.io/v1/namespaces/default/csistoragecapacities",
            object: json!({"apiVersion": "storage.k8s.io/v1", "kind": "CSIStorageCapacity",
                "metadata": {"name": "c"}, "storageClassName": "fast", "capacity": "10Gi"}),
            columns: &["Name", "StorageClassName", "Capacity"],
            cells: json!(["c", "fast", "10Gi"]),
        },
        Case {
            path: "/apis/storage.k8s.io/v1/volumeattachments",
            object: json!({"apiVersion": "storage.k8s.io/v1", "kind": "VolumeAttachment",
                "metadata": {"name": "a"}, "spec": {"attacher": "csi.example.com",
                    "nodeName": "n1", "source": {"persistentVolumeName": "pv-1"}}}),
            columns: &["Name", "Attacher", "PV", "Node", "Attached", "Age"],
            cells: json!(["a", "csi.example.com", "pv-1", "n1", false]),
        },
    ]
}

const TABLE: (&str, &str) = ("accept", "application/json;as=Table;v=v1;g=meta.k8s.io");
const APPLY: (&str, &str) = ("content-type", "application/apply-patch+yaml");
const STRATEGIC: (&str, &str) = ("content-type", "application/strategic-merge-patch+json");

async fn lives(cluster: &Cluster, case: &Case) {
    let name = case.object["metadata"]["name"].as_str().unwrap();
    let path = format!("{}/{name}", case.path);
    let apply = format!("{path}?fieldManager=test&fieldValidation=Strict");
    let body = case.object.to_string();
    let admin = &cluster.admin;
    let first = admin.send("PATCH", &apply, &[APPLY], body.clone()).await;
    assert_eq!(first.status, 201, "{path}: {}", first.text());
    let first = settled(cluster, &path, first.json()).await;
    let again = admin.send("PATCH", &apply, &[APPLY], body).await;
    assert_eq!(again.status, 200, "{path}: {}", again.text());
    assert_eq!(again.json(), first, "{path}: applied twice, changed");

    let table = admin
        .send("GET", &path, &[TABLE], String::new())
        .await
        .json();
    let columns: Vec<&str> = table["columnDefinitions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|column| column["name"].as_str().unwrap())
        .collect();
    assert_eq!(columns, case.columns, "{path}");
    let cells = table["rows"][0]["cells"].as_array().unwrap();
    let wanted = case.cells.as_array().unwrap();
    assert_eq!(cells[..wanted.len()], wanted[..], "{path}");

    let patch = json!({"metadata": {"labels": {"seen": "yes"}}}).to_string();
    let patched = admin.send("PATCH", &path, &[STRATEGIC], patch).await;
    assert_eq!(patched.status, 200, "{path}: {}", patched.text());
    let list = admin
        .get(&format!("{}?labelSelector=seen%3Dyes", case.path))
        .await
        .json();
    assert_eq!(list["items"].as_array().map(Vec::len), Some(1), "{path}");
    let replaced = admin
        .send("PUT", &path, &[], patched.text().to_owned())
        .await;
    assert_eq!(replaced.status, 200, "{path}: {}", replaced.text());

    // Jobs and replication controllers would wait for a garbage collector, as upstream's do.
    let background = format!("{path}?propagationPolicy=Background");
    let gone = admin.send("DELETE", &background, &[], String::new()).await;
    assert_eq!(gone.status, 200, "{path}: {}", gone.text());
    if is_range(&first) {
        until("the range goes", async || {
            admin.get(&path).await.status == 404
        })
        .await;
    }
    assert_eq!(admin.get(&path).await.status, 404, "{path}");
}

fn is_range(object: &Value) -> bool {
    object["kind"] == "ServiceCIDR"
}

/// The object once the server has done what it does about it.
async fn settled(cluster: &Cluster, path: &str, made: Value) -> Value {
    if !is_range(&made) {
        return made;
    }
    let get = async || cluster.admin.get(path).await.json();
    let ready = async || get().await["status"]["conditions"][0]["status"] == "True";
    until("the range is ready", ready).await;
    get().await
}

#[tokio::test]
async fn every_kind_is_applied_shown_patched_and_deleted() {
    let cluster = Cluster::start().await;
    let cases = [
        workload_cases(),
        network_cases(),
        class_cases(),
        csi_cases(),
    ];
    for case in cases.iter().flatten() {
        lives(&cluster, case).await;
    }
    cluster.handle.shutdown().await;
}

#[tokio::test]
async fn an_autoscaler_is_one_object_in_two_versions() {
    let cluster = Cluster::start().await;
    let v1 = "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers";
    let v2 = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers";
    let object = json!({"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "web"}, "spec": {"maxReplicas": 5,
            "targetCPUUtilizationPercentage": 40,
            "scaleTargetRef": {"kind": "Deployment", "name": "web"}}});
    let made = cluster.admin.post(v1, &object).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let shown = cluster.admin.get(&format!("{v2}/web")).await.json();
    assert_eq!(shown["apiVersion"], "autoscaling/v2");
    let cpu = &shown["spec"]["metrics"][0]["resource"];
    assert_eq!(cpu["target"]["averageUtilization"], 40);
    let patch = json!({"spec": {"targetCPUUtilizationPercentage": 60}}).to_string();
    let path = format!("{v1}/web");
    let patched = cluster
        .admin
        .send("PATCH", &path, &[STRATEGIC], patch)
        .await;
    assert_eq!(patched.status, 200, "{}", patched.text());
    assert_eq!(patched.json()["spec"]["targetCPUUtilizationPercentage"], 60);
    let listed = cluster.admin.get(v2).await.json();
    assert_eq!(listed["apiVersion"], "autoscaling/v2");
    let cpu = &listed["items"][0]["spec"]["metrics"][0]["resource"];
    assert_eq!(cpu["target"]["averageUtilization"], 60);
    cluster.handle.shutdown().await;
}

#[tokio::test]
async fn a_pods_class_decides_its_priority() {
    let cluster = Cluster::start().await;
    let classes = "/apis/scheduling.k8s.io/v1/priorityclasses";
    let names: Vec<String> = cluster.admin.get(classes).await.json()["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|class| class["metadata"]["name"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(names, ["system-cluster-critical", "system-node-critical"]);
    let path = format!("{classes}/system-node-critical");
    let refused = cluster
        .admin
        .send("DELETE", &path, &[], String::new())
        .await;
    assert_eq!(refused.status, 403);
    let class = |name: &str, value: i64| {
        json!({"metadata": {"name": name}, "value": value, "globalDefault": true,
            "preemptionPolicy": "Never"})
    };
    let made = cluster.admin.post(classes, &class("usual", 7)).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let second = cluster.admin.post(classes, &class("other", 8)).await;
    assert_eq!(second.status, 403);
    assert!(
        message(&second).ends_with(
            "PriorityClass usual is already marked as default. Only one default can exist"
        )
    );
    let pod = |name: &str, class: &str| {
        json!({"metadata": {"name": name}, "spec": {"priorityClassName": class,
            "containers": [{"name": "c", "image": "i"}]}})
    };
    let made = cluster.admin.post(super::PODS, &pod("p", "")).await.json();
    assert_eq!(made["spec"]["priorityClassName"], "usual");
    assert_eq!(made["spec"]["priority"], 7);
    assert_eq!(made["spec"]["preemptionPolicy"], "Never");
    let critical = pod("q", "system-node-critical");
    let made = cluster.admin.post(super::PODS, &critical).await.json();
    assert_eq!(made["spec"]["priority"], 2_000_001_000);
    let refused = cluster.admin.post(super::PODS, &pod("r", "unheard")).await;
    assert!(message(&refused).ends_with("no PriorityClass with name unheard was found"));
    cluster.handle.shutdown().await;
}

#[tokio::test]
async fn refusals_name_the_field_as_upstream_does() {
    let cluster = Cluster::start().await;
    let cases = [
        (
            "/apis/policy/v1/namespaces/default/poddisruptionbudgets",
            json!({"metadata": {"name": "x"}, "spec": {"minAvailable": 1, "maxUnavailable": 1}}),
            "minAvailable and maxUnavailable cannot be both set",
        ),
        (
            "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies",
            json!({"metadata": {"name": "x"}, "spec": {"podSelector": {}, "ingress": [{"from": [
                {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16"]}}]}]}}),
            "spec.ingress[0].from[0].ipBlock.except[0]: Invalid value: \"11.0.0.0/16\": must be a \
             strict subset of `cidr`",
        ),
        (
            "/apis/networking.k8s.io/v1/namespaces/default/ingresses",
            json!({"metadata": {"name": "x"}, "spec": {}}),
            "spec: Invalid value: null: either `defaultBackend` or `rules` must be specified",
        ),
        (
            "/apis/networking.k8s.io/v1/ipaddresses",
            json!({"metadata": {"name": "2001:DB8::1"}, "spec": {"parentRef": {
                "resource": "services", "name": "x"}}}),
            "metadata.name: Invalid value: \"2001:DB8::1\": must be in canonical form \
             (\"2001:db8::1\")",
        ),
        (
            "/apis/scheduling.k8s.io/v1/priorityclasses",
            json!({"metadata": {"name": "x"}, "value": 1_000_000_001}),
            "value: Forbidden: maximum allowed value of a user defined priority is 1000000000",
        ),
        (
            "/apis/storage.k8s.io/v1/storageclasses",
            json!({"metadata": {"name": "x"}, "provisioner": "p", "reclaimPolicy": "Recycle"}),
            "reclaimPolicy: Unsupported value: \"Recycle\": supported values: \"Delete\", \"Retain\"",
        ),
        (
            "/apis/batch/v1/namespaces/default/jobs",
            json!({"metadata": {"name": "x"}, "spec": {"template": pod_template("Always")}}),
            "spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\"",
        ),
    ];
    for (path, object, expected) in cases {
        let refused = cluster.admin.post(path, &object).await;
        assert_eq!(refused.status, 422, "{path}: {}", refused.text());
        assert!(
            message(&refused).ends_with(expected),
            "{}",
            message(&refused)
        );
    }
    cluster.handle.shutdown().await;
}
