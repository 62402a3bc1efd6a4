//! Admission webhooks: every write passes them, and what they say is done.

use serde_json::{Value, json};

use super::hooks::{Hook, allowed, denied, patch};
use super::{Cluster, MAPS, PODS, message};

const MUTATING: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
const VALIDATING: &str = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
const MERGE: [(&str, &str); 1] = [("content-type", "application/merge-patch+json")];

/// A webhook that is asked about everything in the namespace `default` that has label `hooked`, or
/// had.
fn hook(name: &str, client: &Value, resources: &[&str]) -> Value {
    json!({
        "name": name, "clientConfig": client, "sideEffects": "None",
        "admissionReviewVersions": ["v1"], "timeoutSeconds": 5,
        "rules": [{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"],
            "resources": resources, "scope": "Namespaced"}],
    })
}

fn with(mut hook: Value, more: &Value) -> Value {
    for (name, value) in more.as_object().into_iter().flatten() {
        hook[name] = value.clone();
    }
    hook
}

impl Cluster {
    async fn configure(&self, path: &str, name: &str, hooks: &[Value]) {
        let made = json!({"metadata": {"name": name}, "webhooks": hooks});
        let made = self.admin.post(path, &made).await;
        assert_eq!(made.status, 201, "{}", made.text());
    }
}

type Headers<'a> = &'a [(&'a str, &'a str)];

fn map(name: &str) -> Value {
    json!({"metadata": {"name": name}, "data": {"a": "b"}})
}

#[expect(clippy::too_many_lines, reason = "one webhook, every way to write")]
#[tokio::test]
async fn a_mutating_webhook_changes_what_is_written() {
    let cluster = Cluster::start().await;
    let server = Hook::serve(|_, question| {
        let operations = json!([{"op": "add", "path": "/data/hooked", "value": "yes"},
            {"op": "add", "path": "/metadata/labels", "value": {"by": "hook"}}]);
        let mut more = patch(&operations);
        more["warnings"] = json!(["mind \"this\""]);
        allowed(question, &more)
    })
    .await;
    let own = hook("a.example.com", &server.at("/mutate"), &["configmaps"]);
    cluster.configure(MUTATING, "first", &[own]).await;
    let path = format!("{MAPS}?fieldManager=me&fieldValidation=Strict");
    let made = cluster.admin.post(&path, &map("one")).await;
    assert_eq!(made.status, 201, "{}", made.text());
    assert_eq!(made.json()["data"], json!({"a": "b", "hooked": "yes"}));
    assert_eq!(made.json()["metadata"]["labels"]["by"], "hook");
    assert_eq!(made.header("warning"), "299 - \"mind \\\"this\\\"\"");
    let fields = made.json()["metadata"]["managedFields"][0]["fieldsV1"].clone();
    assert!(fields["f:data"].get("f:a").is_some(), "{fields}");
    assert!(fields["f:data"].get("f:hooked").is_none(), "{fields}");
    let [(asked, review)] = &server.asked()[..] else {
        panic!("asked once");
    };
    assert_eq!(asked, "/mutate?timeout=5s");
    assert_eq!(review["apiVersion"], "admission.k8s.io/v1");
    let mut request = review["request"].clone();
    assert!(!request["uid"].as_str().unwrap().is_empty());
    assert_eq!(request["object"]["data"], json!({"a": "b"}));
    assert_eq!(request["object"]["kind"], "ConfigMap");
    let extra = request["userInfo"]["extra"].take();
    let credential = &extra["authentication.kubernetes.io/credential-id"][0];
    assert!(
        credential
            .as_str()
            .is_some_and(|id| id.starts_with("X509SHA256="))
    );
    let user = request["userInfo"].as_object_mut().unwrap();
    user.shift_remove("extra");
    for given in ["uid", "object"] {
        request.as_object_mut().unwrap().shift_remove(given);
    }
    let (kind, resource) = (
        json!({"group": "", "version": "v1", "kind": "ConfigMap"}),
        json!({"group": "", "version": "v1", "resource": "configmaps"}),
    );
    let expected = json!({
        "kind": kind, "resource": resource, "requestKind": kind, "requestResource": resource,
        "name": "one", "namespace": "default", "operation": "CREATE",
        "userInfo": {"username": "admin", "groups": ["system:masters", "system:authenticated"]},
        "oldObject": null, "dryRun": false,
        "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1",
            "fieldManager": "me", "fieldValidation": "Strict"},
    });
    assert_eq!(request, expected);
    let patched = cluster
        .admin
        .send(
            "PATCH",
            &format!("{MAPS}/one"),
            &MERGE,
            json!({"data": {"hooked": "no"}}).to_string(),
        )
        .await;
    assert_eq!(
        patched.json()["data"]["hooked"],
        "yes",
        "{}",
        patched.text()
    );
    let review = server.asked().remove(0).1;
    assert_eq!(review["request"]["operation"], "UPDATE");
    assert_eq!(review["request"]["oldObject"]["data"]["hooked"], "yes");
    assert_eq!(review["request"]["object"]["data"]["hooked"], "no");
    assert_eq!(server.connections(), 1, "the connection is kept");
    cluster.handle.shutdown().await;
}

#[tokio::test]
async fn every_write_passes_a_validating_webhook() {
    let cluster = Cluster::start().await;
    let admin = &cluster.admin;
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    cluster.running_pod("p").await;
    assert_eq!(admin.post(MAPS, &map("one")).await.status, 201);
    let pod = json!({"metadata": {"labels": {"a": "b"}},
        "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let deployment = json!({"metadata": {"name": "d"}, "spec": {"replicas": 1,
        "selector": {"matchLabels": {"a": "b"}}, "template": pod}});
    assert_eq!(admin.post(deployments, &deployment).await.status, 201);
    let pending = json!({"metadata": {"name": "q"}, "spec": pod["spec"]});
    assert_eq!(admin.post(PODS, &pending).await.status, 201);
    let server = Hook::serve(|_, question| {
        denied(
            question,
            &json!({"code": 403, "reason": "Forbidden", "message": "not today"}),
        )
    })
    .await;
    let own = hook("deny.example.com", &server.at("/"), &["*/*"]);
    cluster.configure(VALIDATING, "deny", &[own]).await;
    let apply = [("content-type", "application/apply-patch+yaml")];
    let applied = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "two"}});
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "q"},
        "target": {"kind": "Node", "name": "n1"}});
    let eviction =
        json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}});
    let token = json!({"spec": {}});
    let cases: [(&str, String, Headers<'_>, Value, &str); 12] = [
        (
            "POST",
            MAPS.to_owned(),
            &[],
            map("two"),
            "CREATE configmaps",
        ),
        (
            "PUT",
            format!("{MAPS}/one"),
            &[],
            map("one"),
            "UPDATE configmaps",
        ),
        (
            "PATCH",
            format!("{MAPS}/one"),
            &MERGE,
            json!({"data": {"x": "y"}}),
            "UPDATE configmaps",
        ),
        (
            "PATCH",
            format!("{MAPS}/two?fieldManager=me"),
            &apply,
            applied,
            "CREATE configmaps",
        ),
        (
            "DELETE",
            format!("{MAPS}/one"),
            &[],
            Value::Null,
            "DELETE configmaps",
        ),
        (
            "DELETE",
            MAPS.to_owned(),
            &[],
            Value::Null,
            "DELETE configmaps",
        ),
        (
            "PATCH",
            format!("{deployments}/d/scale"),
            &MERGE,
            json!({"spec": {"replicas": 2}}),
            "UPDATE deployments/scale",
        ),
        (
            "PATCH",
            format!("{PODS}/p/status"),
            &MERGE,
            json!({"status": {"message": "m"}}),
            "UPDATE pods/status",
        ),
        (
            "POST",
            format!("{PODS}/p/eviction"),
            &[],
            eviction,
            "CREATE pods/eviction",
        ),
        (
            "POST",
            format!("{PODS}/q/binding"),
            &[],
            binding,
            "CREATE pods/binding",
        ),
        (
            "POST",
            "/api/v1/namespaces/default/serviceaccounts/default/token".to_owned(),
            &[],
            token,
            "CREATE serviceaccounts/token",
        ),
        (
            "POST",
            format!("{PODS}/p/exec?command=true&stdout=true"),
            &[],
            Value::Null,
            "CONNECT pods/exec",
        ),
    ];
    for (method, path, headers, body, expected) in cases {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let refused = admin.send(method, &path, headers, body).await;
        assert_eq!(refused.status, 403, "{method} {path}: {}", refused.text());
        assert_eq!(
            message(&refused),
            "admission webhook \"deny.example.com\" denied the request: not today"
        );
        assert_eq!(refused.json()["reason"], "Forbidden");
        for (_, review) in server.asked() {
            let request = &review["request"];
            let mut told = format!(
                "{} {}",
                request["operation"].as_str().unwrap(),
                request["resource"]["resource"].as_str().unwrap()
            );
            if let Some(subresource) = request["subResource"].as_str() {
                told = format!("{told}/{subresource}");
            }
            assert_eq!(told, expected);
        }
    }
    // Nothing was written, and the configuration itself is not asked about.
    assert_eq!(
        admin.get(&format!("{MAPS}/one")).await.json()["data"],
        json!({"a": "b"})
    );
    let path = format!("{VALIDATING}/deny");
    let deleted = admin.send("DELETE", &path, &[], String::new()).await;
    assert_eq!(deleted.status, 200, "{}", deleted.text());
    let deleted = admin
        .send("DELETE", &format!("{MAPS}/one"), &[], String::new())
        .await;
    assert_eq!(deleted.status, 200, "{}", deleted.text());
    cluster.handle.shutdown().await;
}

#[tokio::test]
async fn a_webhook_that_does_not_answer_fails_closed_or_open() {
    let cluster = Cluster::start().await;
    let admin = &cluster.admin;
    let gone = json!({"url": "https://127.0.0.1:1/x"});
    let fail = hook("gone.example.com", &gone, &["configmaps"]);
    cluster.configure(VALIDATING, "gone", &[fail]).await;
    let refused = admin.post(MAPS, &map("one")).await;
    assert_eq!(refused.status, 500, "{}", refused.text());
    assert_eq!(refused.json()["reason"], "InternalError");
    let text = message(&refused);
    let expected = "Internal error occurred: failed calling webhook \"gone.example.com\": failed \
                    to call webhook: Post \"https://127.0.0.1:1/x?timeout=5s\": dial tcp \
                    127.0.0.1:1: Connection refused";
    assert!(text.starts_with(expected), "{text}");
    let open = json!([{"op": "replace", "path": "/webhooks/0/failurePolicy", "value": "Ignore"}]);
    let json_patch = [("content-type", "application/json-patch+json")];
    let path = format!("{VALIDATING}/gone");
    let changed = admin
        .send("PATCH", &path, &json_patch, open.to_string())
        .await;
    assert_eq!(changed.status, 200, "{}", changed.text());
    assert_eq!(admin.post(MAPS, &map("one")).await.status, 201);
    let metrics = admin.get("/metrics").await;
    for line in [
        "apiserver_admission_webhook_rejection_count{name=\"gone.example.com\",\
         type=\"validating\",operation=\"CREATE\",error_type=\"calling_webhook_error\",\
         rejection_code=\"503\"} 1",
        "apiserver_admission_webhook_fail_open_count{name=\"gone.example.com\",\
         type=\"validating\"} 1",
        "apiserver_admission_webhook_request_total{name=\"gone.example.com\",\
         type=\"validating\",operation=\"CREATE\",code=\"503\",rejected=\"false\"} 1",
    ] {
        assert!(metrics.text().contains(line), "{line}\n{}", metrics.text());
    }
    // A certificate of nobody known is no answer either.
    let server = Hook::serve(|_, question| allowed(question, &json!({}))).await;
    let other = Hook::serve(|_, question| allowed(question, &json!({}))).await;
    let mut wrong = server.at("/");
    wrong["caBundle"] = json!(other.ca_bundle);
    let wrong = hook("wrong.example.com", &wrong, &["configmaps"]);
    cluster.configure(VALIDATING, "wrong", &[wrong]).await;
    let text = message(&admin.post(MAPS, &map("two")).await);
    assert!(
        text.contains("tls: failed to verify certificate: x509: "),
        "{text}"
    );
    cluster.handle.shutdown().await;
}

#[tokio::test]
async fn webhooks_are_asked_in_order_and_again_if_they_want() {
    let cluster = Cluster::start().await;
    let admin = &cluster.admin;
    let server = Hook::serve(|path, question| {
        // The first notes what it sees; the second adds something once.
        let seen = question["request"]["object"]["data"].get("b").is_some();
        let operations = match path.split('?').next().unwrap() {
            "/first" => json!([{"op": "add", "path": format!("/data/saw-{seen}"), "value": "1"}]),
            _ => json!([{"op": "add", "path": "/data/b", "value": "1"}]),
        };
        allowed(question, &patch(&operations))
    })
    .await;
    let first = hook("first.example.com", &server.at("/first"), &["configmaps"]);
    let first = with(first, &json!({"reinvocationPolicy": "IfNeeded"}));
    let second = hook("second.example.com", &server.at("/second"), &["configmaps"]);
    // By the configurations' names, whatever came first.
    cluster.configure(MUTATING, "b", &[second]).await;
    cluster.configure(MUTATING, "a", &[first]).await;
    let made = admin.post(MAPS, &map("one")).await;
    let expected = json!({"a": "b", "saw-false": "1", "b": "1", "saw-true": "1"});
    assert_eq!(made.json()["data"], expected, "{}", made.text());
    let paths: Vec<String> = server.asked().into_iter().map(|(path, _)| path).collect();
    let expected = ["/first", "/second", "/first"].map(|path| format!("{path}?timeout=5s"));
    assert_eq!(paths, expected);
    cluster.handle.shutdown().await;
}

#[tokio::test]
async fn selectors_conditions_and_equivalent_versions_decide_who_is_asked() {
    let cluster = Cluster::start().await;
    let admin = &cluster.admin;
    let server = Hook::serve(|_, question| allowed(question, &json!({}))).await;
    let labelled = hook(
        "labelled.example.com",
        &server.at("/labelled"),
        &["configmaps"],
    );
    let labelled = with(
        labelled,
        &json!({"objectSelector": {"matchLabels": {"a": "b"}}}),
    );
    let elsewhere = hook(
        "elsewhere.example.com",
        &server.at("/elsewhere"),
        &["configmaps"],
    );
    let elsewhere = with(
        elsewhere,
        &json!({"namespaceSelector": {"matchLabels":
        {"kubernetes.io/metadata.name": "other"}}}),
    );
    let condition = hook(
        "condition.example.com",
        &server.at("/condition"),
        &["configmaps"],
    );
    let condition = with(
        condition,
        &json!({"matchConditions": [
        {"name": "big", "expression": "object.data.a == 'big' && request.operation == 'CREATE' \
            && authorizer.group('').resource('secrets').check('get').allowed()"}]}),
    );
    let scaler = hook(
        "scaler.example.com",
        &server.at("/scaler"),
        &["horizontalpodautoscalers"],
    );
    let scaler = with(
        scaler,
        &json!({"rules": [{"operations": ["CREATE"],
        "apiGroups": ["autoscaling"], "apiVersions": ["v2"],
        "resources": ["horizontalpodautoscalers"]}]}),
    );
    cluster
        .configure(VALIDATING, "all", &[labelled, elsewhere, condition, scaler])
        .await;
    let paths = || -> Vec<String> { server.asked().into_iter().map(|(path, _)| path).collect() };
    assert_eq!(admin.post(MAPS, &map("one")).await.status, 201);
    assert!(paths().is_empty());
    let big = json!({"metadata": {"name": "two", "labels": {"a": "b"}}, "data": {"a": "big"}});
    assert_eq!(admin.post(MAPS, &big).await.status, 201);
    let mut asked = paths();
    asked.sort();
    assert_eq!(asked, ["/condition?timeout=5s", "/labelled?timeout=5s"]);
    let scaler = json!({"metadata": {"name": "s"}, "spec": {"maxReplicas": 3,
        "targetCPUUtilizationPercentage": 50,
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}}});
    let path = "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers";
    let made = admin.post(path, &scaler).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let review = server.asked().remove(0).1;
    let request = &review["request"];
    assert_eq!(request["kind"]["version"], "v2");
    assert_eq!(request["requestKind"]["version"], "v1");
    assert_eq!(request["object"]["apiVersion"], "autoscaling/v2");
    assert_eq!(request["object"]["spec"]["metrics"][0]["type"], "Resource");
    cluster.handle.shutdown().await;
}

#[tokio::test]
async fn a_dry_run_is_asked_about_as_one() {
    let cluster = Cluster::start().await;
    let server = Hook::serve(|_, question| allowed(question, &json!({}))).await;
    let own = hook("dry.example.com", &server.at("/"), &["configmaps"]);
    cluster.configure(VALIDATING, "dry", &[own]).await;
    let path = format!("{MAPS}?dryRun=All");
    assert_eq!(cluster.admin.post(&path, &map("one")).await.status, 201);
    let request = server.asked().remove(0).1["request"].clone();
    assert_eq!(request["dryRun"], true);
    assert_eq!(request["options"]["dryRun"], json!(["All"]));
    cluster.handle.shutdown().await;
}

#[tokio::test]
async fn a_webhook_behind_a_service_is_reached_through_its_node() {
    let cluster = Cluster::start().await;
    let admin = &cluster.admin;
    let server = Hook::serve(|_, question| allowed(question, &json!({}))).await;
    let service = json!({"namespace": "default", "name": "hook", "path": "/v", "port": 8443});
    let client = json!({"service": service, "caBundle": server.ca_bundle});
    let own = hook("service.example.com", &client, &["configmaps"]);
    cluster.configure(VALIDATING, "service", &[own]).await;
    let refusal = || async {
        let refused = admin.post(MAPS, &map("one")).await;
        let text = message(&refused);
        let prefix = "Internal error occurred: failed calling webhook \"service.example.com\": \
                      failed to call webhook: Post \"https://hook.default.svc:8443/v?timeout=5s\": ";
        let why = text.strip_prefix(prefix);
        why.unwrap_or_else(|| panic!("{text}")).to_owned()
    };
    assert_eq!(refusal().await, "service \"hook\" not found");
    let made = json!({"metadata": {"name": "hook"},
        "spec": {"ports": [{"name": "https", "port": 8443}]}});
    let services = "/api/v1/namespaces/default/services";
    assert_eq!(admin.post(services, &made).await.status, 201);
    assert_eq!(
        refusal().await,
        "no endpoints available for service \"hook\""
    );
    cluster.running_pod("hook-1").await;
    let slice = json!({"metadata": {"name": "hook-x",
        "labels": {"kubernetes.io/service-name": "hook"}}, "addressType": "IPv4",
        "ports": [{"name": "https", "port": server.port}], "endpoints": [{
            "addresses": ["10.244.0.9"], "conditions": {"ready": true}, "nodeName": "n1",
            "targetRef": {"kind": "Pod", "namespace": "default", "name": "hook-1"}}]});
    let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
    let made = admin.post(slices, &slice).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let made = admin.post(MAPS, &map("one")).await;
    assert_eq!(made.status, 201, "{}", made.text());
    assert_eq!(server.asked().len(), 1);
    cluster.handle.shutdown().await;
}
