//! Admission policies as clients meet them.

use serde_json::{Value, json};

use super::client::Answer;
use super::{Cluster, MAPS, message};

const GROUP: &str = "/apis/admissionregistration.k8s.io/v1";
const MERGE: [(&str, &str); 1] = [("content-type", "application/merge-patch+json")];

impl Cluster {
    async fn policy(&self, name: &str, spec: &Value, binding: &Value) {
        let mut spec = spec.clone();
        if spec["matchConstraints"].is_null() {
            spec["matchConstraints"] = json!({"resourceRules": [{"apiGroups": [""],
                "apiVersions": ["v1"], "operations": ["*"], "resources": ["configmaps"]}]});
        }
        let mut bound = binding.clone();
        bound["policyName"] = json!(name);
        let kind = match spec["mutations"].is_null() {
            true => "validatingadmissionpolic",
            false => "mutatingadmissionpolic",
        };
        for (plural, spec) in [("ies", &spec), ("ybindings", &bound)] {
            let object = json!({"metadata": {"name": name}, "spec": spec});
            let made = self
                .admin
                .post(&format!("{GROUP}/{kind}{plural}"), &object)
                .await;
            assert_eq!(made.status, 201, "{}", made.text());
        }
    }

    async fn map(&self, name: &str, data: &Value) -> Answer {
        let map = json!({"metadata": {"name": name}, "data": data});
        self.admin.post(MAPS, &map).await
    }
}

fn deny() -> Value {
    json!({"validationActions": ["Deny"]})
}

#[tokio::test]
async fn a_policy_refuses_what_breaks_it_in_upstreams_words() {
    let cluster = Cluster::start().await;
    let spec = json!({
        "matchConditions": [{"name": "named", "expression": "object == null || object.metadata.name != 'free'"}],
        "variables": [
            {"name": "size", "expression": "has(object.data) ? size(object.data) : 0"},
            {"name": "twice", "expression": "variables.size * 2"}],
        "validations": [
            {"expression": "object == null || variables.twice <= 2", "reason": "Forbidden",
                "messageExpression": "'too many: ' + string(variables.size)"},
            {"expression": "request.operation != 'DELETE' || oldObject.metadata.name != 'kept'",
                "message": "it is kept"},
            {"expression": "object == null || !has(object.data) || !('secret' in object.data)"}]});
    cluster.policy("sizes", &spec, &deny()).await;
    assert_eq!(cluster.map("kept", &json!({"a": "1"})).await.status, 201);
    let refused = cluster.map("b", &json!({"a": "1", "b": "2"})).await;
    assert_eq!(refused.status, 403, "{}", refused.text());
    assert_eq!(
        message(&refused),
        "configmaps \"b\" is forbidden: ValidatingAdmissionPolicy 'sizes' with binding 'sizes' \
         denied request: too many: 2"
    );
    assert_eq!(refused.json()["reason"], "Forbidden");
    let refused = cluster.map("b", &json!({"secret": "1"})).await;
    assert_eq!(refused.status, 422);
    assert!(
        message(&refused).ends_with(
            "denied request: failed expression: object == null || \
            !has(object.data) || !('secret' in object.data)"
        ),
        "{}",
        message(&refused)
    );
    let many = json!({"a": "1", "b": "2"});
    assert_eq!(cluster.map("free", &many).await.status, 201);
    let path = format!("{MAPS}/kept");
    let patch = json!({"data": many}).to_string();
    let refused = cluster.admin.send("PATCH", &path, &MERGE, patch).await;
    assert_eq!(refused.status, 403, "{}", refused.text());
    let refused = cluster
        .admin
        .send("DELETE", &path, &[], String::new())
        .await;
    assert!(
        message(&refused).ends_with("it is kept"),
        "{}",
        message(&refused)
    );
    // A policy is out of force when its deletion is answered.
    let own = format!("{GROUP}/validatingadmissionpolicies/sizes");
    assert_eq!(
        cluster
            .admin
            .send("DELETE", &own, &[], String::new())
            .await
            .status,
        200
    );
    assert_eq!(cluster.map("b", &many).await.status, 201);
}

#[tokio::test]
async fn an_expression_that_fails_counts_as_the_policy_says() {
    let cluster = Cluster::start().await;
    let spec = |failure: &str| {
        json!({"failurePolicy": failure,
            "validations": [{"expression": "object.data.missing == 'x'"}]})
    };
    cluster.policy("ignore", &spec("Ignore"), &deny()).await;
    assert_eq!(cluster.map("a", &json!({"b": "1"})).await.status, 201);
    cluster.policy("fail", &spec("Fail"), &deny()).await;
    let refused = cluster.map("c", &json!({"b": "1"})).await;
    assert!(
        message(&refused).ends_with(
            "ValidatingAdmissionPolicy 'fail' with binding 'fail' denied request: expression \
             'object.data.missing == 'x'' resulted in error: no such key: missing"
        ),
        "{}",
        message(&refused)
    );
}

#[tokio::test]
async fn parameters_come_from_the_cluster() {
    let cluster = Cluster::start().await;
    let spec = json!({"paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "matchConditions": [{"name": "own",
            "expression": "!has(object.metadata.labels) || !('limits' in object.metadata.labels)"}],
        "validations": [{"expression": "size(object.data) <= int(params.data.max)"}]});
    let named = |name: &str, missing: &str| {
        json!({"validationActions": ["Deny"], "paramRef": {"name": name,
            "namespace": "default", "parameterNotFoundAction": missing}})
    };
    cluster
        .policy("limits", &spec, &named("limit", "Deny"))
        .await;
    let refused = cluster.map("a", &json!({"a": "1"})).await;
    assert!(
        message(&refused).ends_with(
            "ValidatingAdmissionPolicy 'limits' with binding 'limits' denied request: failed to \
             configure binding: no params found for policy binding with `Deny` \
             parameterNotFoundAction"
        ),
        "{}",
        message(&refused)
    );
    let own = format!("{GROUP}/validatingadmissionpolicybindings/limits");
    let allow = json!({"spec": {"paramRef": {"parameterNotFoundAction": "Allow"}}}).to_string();
    let answer = cluster.admin.send("PATCH", &own, &MERGE, allow).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let limit = json!({"metadata": {"name": "limit", "labels": {"limits": "x"}},
        "data": {"max": "1"}});
    assert_eq!(cluster.admin.post(MAPS, &limit).await.status, 201);
    assert_eq!(cluster.map("a", &json!({"a": "1"})).await.status, 201);
    let refused = cluster.map("b", &json!({"a": "1", "b": "2"})).await;
    assert_eq!(refused.status, 422, "{}", refused.text());
    let selected = json!({"spec": {"paramRef": {"name": null,
        "selector": {"matchLabels": {"limits": "y"}}}}});
    let answer = cluster
        .admin
        .send("PATCH", &own, &MERGE, selected.to_string())
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(
        cluster.map("b", &json!({"a": "1", "b": "2"})).await.status,
        201
    );
}

#[tokio::test]
async fn a_binding_may_warn_and_ask_the_authorizer() {
    let cluster = Cluster::start().await;
    let spec = json!({"validations": [{"expression":
        "authorizer.group('').resource('secrets').namespace('default').check('get').allowed()",
        "message": "may not read secrets"}]});
    let warn = json!({"validationActions": ["Warn", "Audit"]});
    cluster.policy("readers", &spec, &warn).await;
    assert_eq!(cluster.map("a", &json!({})).await.header("warning"), "");
    let bind = json!({"metadata": {"name": "edit-maps"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "maps"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "ann"}]});
    let role = json!({"metadata": {"name": "maps"}, "rules": [
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create"]}]});
    let rbac = "/apis/rbac.authorization.k8s.io/v1/clusterrole";
    for (plural, object) in [("s", role), ("bindings", bind)] {
        let made = cluster
            .admin
            .post(&format!("{rbac}{plural}"), &object)
            .await;
        assert_eq!(made.status, 201, "{}", made.text());
    }
    let as_ann = [("impersonate-user", "ann")];
    let map = json!({"metadata": {"name": "b"}}).to_string();
    let made = cluster.admin.send("POST", MAPS, &as_ann, map).await;
    assert_eq!(made.status, 201, "{}", made.text());
    assert_eq!(
        made.header("warning"),
        "299 - \"Validation failed for ValidatingAdmissionPolicy 'readers' with binding \
         'readers': may not read secrets\""
    );
}

#[tokio::test]
async fn connections_and_subresources_pass_policies() {
    let cluster = Cluster::start().await;
    cluster.running_pod("p").await;
    let spec = json!({"matchConstraints": {"resourceRules": [{"apiGroups": [""],
            "apiVersions": ["v1"], "operations": ["CONNECT", "CREATE", "UPDATE"],
            "resources": ["pods/exec", "pods/eviction", "pods/status"]}]},
        "validations": [{"expression": "request.subResource == 'exec' ? object.command == ['ls'] \
            : false"}]});
    cluster.policy("subresources", &spec, &deny()).await;
    let pod = "/api/v1/namespaces/default/pods/p";
    let refused = cluster
        .admin
        .send(
            "POST",
            &format!("{pod}/exec?command=sh&stdout=true"),
            &[],
            String::new(),
        )
        .await;
    assert!(
        message(&refused).contains("denied request"),
        "{}",
        refused.text()
    );
    let eviction = json!({"metadata": {"name": "p"}});
    let refused = cluster
        .admin
        .post(&format!("{pod}/eviction"), &eviction)
        .await;
    assert!(
        message(&refused).contains("denied request"),
        "{}",
        refused.text()
    );
    let patch = json!({"status": {"phase": "Failed"}}).to_string();
    let refused = cluster
        .admin
        .send("PATCH", &format!("{pod}/status"), &MERGE, patch)
        .await;
    assert!(
        message(&refused).contains("denied request"),
        "{}",
        refused.text()
    );
    let patch = json!({"metadata": {"labels": {"a": "b"}}}).to_string();
    assert_eq!(
        cluster.admin.send("PATCH", pod, &MERGE, patch).await.status,
        200
    );
}

#[tokio::test]
async fn mutating_policies_change_what_is_stored() {
    let cluster = Cluster::start().await;
    let apply = json!({"reinvocationPolicy": "IfNeeded", "mutations": [
        {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression":
            "Object{metadata: Object.metadata{labels: {'size': string(size(object.data))}}}"}}]});
    cluster.policy("a-label", &apply, &json!({})).await;
    let patch = json!({"reinvocationPolicy": "Never",
        "matchConditions": [{"name": "once", "expression": "!('added' in object.data)"}],
        "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression":
            "[JSONPatch{op: 'add', path: '/data/' + jsonpatch.escapeKey('added'), value: 'x'}]"}}]});
    cluster.policy("b-data", &patch, &json!({})).await;
    let made = cluster.map("a", &json!({"k": "v"})).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let made = made.json();
    assert_eq!(made["data"], json!({"k": "v", "added": "x"}));
    // The first policy saw what the second one added.
    assert_eq!(made["metadata"]["labels"], json!({"size": "2"}));
}

#[tokio::test]
async fn a_policys_status_tells_what_its_expressions_get_wrong() {
    let cluster = Cluster::start().await;
    let spec = json!({"validations": [{"expression": "object.dat.size() < 3"}]});
    cluster.policy("wrong", &spec, &deny()).await;
    let path = format!(
        "{GROUP}/validatingadmissionpolicies?watch=true&fieldSelector=metadata.name%3Dwrong"
    );
    let mut watch = cluster.admin.watch(&path).await;
    let status = loop {
        let event = watch.next().await;
        if event["object"]["status"]["observedGeneration"] == 1 {
            break event["object"]["status"].clone();
        }
    };
    let warnings = &status["typeChecking"]["expressionWarnings"];
    assert_eq!(warnings[0]["fieldRef"], "spec.validations[0].expression");
    assert_eq!(
        warnings[0]["warning"],
        "v1, Kind=ConfigMap: ERROR: <input>:1:7: undefined field 'dat'\n | object.dat.size() < 3\n \
         | ......^"
    );
}
