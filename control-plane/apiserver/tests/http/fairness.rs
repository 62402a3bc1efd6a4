//! Flow schemas and priority levels, as clients see that they are obeyed.

use serde_json::{Value, json};

use super::*;

const FLOW: &str = "/apis/flowcontrol.apiserver.k8s.io/v1";
const MERGE: (&str, &str) = ("content-type", "application/merge-patch+json");
const SCHEMA_UID: &str = "x-kubernetes-pf-flowschema-uid";
const LEVEL_UID: &str = "x-kubernetes-pf-prioritylevel-uid";

fn uid(object: &Value) -> String {
    object["metadata"]["uid"].as_str().unwrap().to_owned()
}

fn trap(name: &str) -> (Value, Value) {
    let level = json!({"metadata": {"name": name}, "spec": {"type": "Limited", "limited": {
        "nominalConcurrencyShares": 0, "limitResponse": {"type": "Reject"}}}});
    let everything = json!({
        "subjects": [{"kind": "Group", "group": {"name": "system:authenticated"}}],
        "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"],
            "namespaces": ["*"], "clusterScope": true}],
        "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}]});
    let schema = json!({"metadata": {"name": name}, "spec": {"matchingPrecedence": 2,
        "priorityLevelConfiguration": {"name": name}, "rules": [everything]}});
    (level, schema)
}

#[tokio::test]
async fn answers_name_the_objects_that_sorted_the_request() {
    let cluster = Cluster::start().await;
    let admin = &cluster.admin;
    let of = async |name: &str, kind: &str| {
        uid(&admin.get(&format!("{FLOW}/{kind}/{name}")).await.json())
    };
    let answer = admin.get(MAPS).await;
    assert_eq!(answer.header(SCHEMA_UID), of("exempt", "flowschemas").await);
    let exempt = of("exempt", "prioritylevelconfigurations").await;
    assert_eq!(answer.header(LEVEL_UID), exempt);
    let jane = cluster.handle.pki().client_identity("jane", &[]).unwrap();
    let refused = cluster.client(Some(&jane)).get(MAPS).await;
    assert_eq!(refused.status, 403);
    assert_eq!(
        refused.header(SCHEMA_UID),
        of("global-default", "flowschemas").await
    );
    cluster.handle.shutdown().await;
}

#[tokio::test]
async fn a_schema_is_obeyed_from_its_writing_on_and_heartbeats_go_on_whatever_it_says() {
    let cluster = Cluster::start().await;
    let admin = &cluster.admin;
    let identity = |name: &str, groups: &[&str]| {
        let identity = cluster.handle.pki().client_identity(name, groups).unwrap();
        cluster.client(Some(&identity))
    };
    let jane = identity("jane", &[]);
    let node = identity("system:node:n1", &["system:nodes"]);
    let (level, schema) = trap("trap");
    let made = admin.post(&format!("{FLOW}/flowschemas"), &schema).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let path = format!("{FLOW}/flowschemas/trap");
    let dangling = async || admin.get(&path).await.json()["status"]["conditions"][0].clone();
    until("the missing level is told", async || {
        dangling().await["status"] == "True"
    })
    .await;
    assert_eq!(
        dangling().await["message"],
        "This FlowSchema references the PriorityLevelConfiguration object named \"trap\" but \
         there is no such object"
    );
    assert_eq!(jane.get("/version").await.status, 200);
    let made = admin
        .post(&format!("{FLOW}/prioritylevelconfigurations"), &level)
        .await;
    assert_eq!(made.status, 201, "{}", made.text());
    until("the level is obeyed", async || {
        jane.get("/version").await.status == 429
    })
    .await;
    let refused = jane.get("/version").await;
    assert_eq!(refused.header("retry-after"), "1");
    assert_eq!(
        refused.header(SCHEMA_UID),
        uid(&admin.get(&path).await.json())
    );
    until("it is told", async || dangling().await["reason"] == "Found").await;
    let register = json!({"metadata": {"name": "n1"}, "status": {}});
    let heartbeat = node.post("/api/v1/nodes", &register).await;
    assert_eq!(heartbeat.status, 201, "{}", heartbeat.text());
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    let lease = json!({"metadata": {"name": "n1"}, "spec": {"holderIdentity": "n1"}});
    let made = node.post(leases, &lease).await;
    assert_eq!(made.status, 201, "{}", made.text());
    assert_eq!(node.get("/api/v1/services").await.status, 429);
    let metrics = admin.get("/metrics").await;
    for line in [
        "apiserver_flowcontrol_nominal_limit_seats{priority_level=\"trap\"} 0",
        "priority_level=\"trap\",flow_schema=\"trap\",reason=\"concurrency-limit\"",
        "apiserver_flowcontrol_lower_limit_seats{priority_level=\"node-high\"} 73",
    ] {
        assert!(metrics.text().contains(line), "{line}");
    }
    let gone = admin.send("DELETE", &path, &[], String::new()).await;
    assert_eq!(gone.status, 200, "{}", gone.text());
    until("it is forgotten", async || {
        jane.get("/version").await.status == 200
    })
    .await;
    cluster.handle.shutdown().await;
}

#[tokio::test]
async fn what_every_cluster_has_is_put_back_unless_its_owner_took_it_over() {
    let cluster = Cluster::start().await;
    let admin = &cluster.admin;
    let path = format!("{FLOW}/prioritylevelconfigurations/workload-low");
    let shares = async || {
        let level = admin.get(&path).await.json();
        level["spec"]["limited"]["nominalConcurrencyShares"].clone()
    };
    let patch = async |change: Value| {
        let answer = admin
            .send("PATCH", &path, &[MERGE], change.to_string())
            .await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    };
    let seven = json!({"spec": {"limited": {"nominalConcurrencyShares": 7}}});
    patch(seven.clone()).await;
    until("the spec is put back", async || shares().await == 100).await;
    let own = json!({"metadata": {"annotations": {"apf.kubernetes.io/autoupdate-spec": "false"}}});
    patch(own).await;
    patch(seven).await;
    let deleted = format!("{FLOW}/flowschemas/service-accounts");
    let first = uid(&admin.get(&deleted).await.json());
    assert_eq!(
        admin
            .send("DELETE", &deleted, &[], String::new())
            .await
            .status,
        200
    );
    until("the schema is made again", async || {
        let again = admin.get(&deleted).await;
        again.status == 200 && uid(&again.json()) != first
    })
    .await;
    assert_eq!(shares().await, 7, "what its owner took over stays");
    cluster.handle.shutdown().await;
}
