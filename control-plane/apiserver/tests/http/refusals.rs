//! What is refused, in the words that clients know.

use serde_json::{Value, json};

use super::client::Answer;
use super::{Cluster, MAPS, message};

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const JSON_PATCH: &str = "application/json-patch+json";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";

async fn patch(cluster: &Cluster, path: &str, kind: &str, body: &str) -> Answer {
    let headers = [("content-type", kind)];
    cluster
        .admin
        .send("PATCH", path, &headers, body.to_owned())
        .await
}

async fn with_objects() -> Cluster {
    let cluster = Cluster::start().await;
    let map = json!({"metadata": {"name": "m"}, "data": {"k": "v"}});
    assert_eq!(cluster.admin.post(MAPS, &map).await.status, 201);
    let deployment = json!({"metadata": {"name": "d"}, "spec": {
        "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    let path = format!("{DEPLOYMENTS}?fieldManager=first");
    assert_eq!(cluster.admin.post(&path, &deployment).await.status, 201);
    cluster
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
async fn patches_that_do_not_fit_are_refused_in_upstreams_words() {
    let cluster = with_objects().await;
    let (map, deployment) = (format!("{MAPS}/m"), format!("{DEPLOYMENTS}/d"));
    let generic = "the server rejected our request due to an error in our request";
    let cases = [
        (
            &map,
            JSON_PATCH,
            r#"[{"op":"test","path":"/data/k","value":"no"}]"#,
            422,
            generic,
        ),
        (
            &map,
            JSON_PATCH,
            r#"[{"op":"nonsense","path":"/data/k"}]"#,
            422,
            generic,
        ),
        (
            &map,
            JSON_PATCH,
            r#"{"op":"test"}"#,
            400,
            "error decoding patch: json: cannot unmarshal object into Go value of type \
             []handlers.jsonPatchOp",
        ),
        (
            &map,
            MERGE,
            "[]",
            400,
            "error decoding patch: json: cannot unmarshal array into Go value of type \
             map[string]interface {}",
        ),
        (
            &map,
            MERGE,
            r#"{"metadata":{"name":"other"}}"#,
            400,
            "the name of the object (other) does not match the name on the URL (m)",
        ),
        (
            &map,
            MERGE,
            r#"{"metadata":{"namespace":"other"}}"#,
            400,
            "the namespace of the provided object does not match the namespace sent on the request",
        ),
        (
            &deployment,
            STRATEGIC,
            r#"{"spec":{"replicas":"x"}}"#,
            422,
            " \"\" is invalid: patch: Invalid value: \"map[spec:map[replicas:x]]\": unrecognized \
             type: int32",
        ),
        (
            &deployment,
            APPLY,
            r#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"d"}}"#,
            422,
            "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required \
             for apply patch",
        ),
    ];
    for (path, kind, body, code, expected) in cases {
        let refused = patch(&cluster, path, kind, body).await;
        assert_eq!(
            (refused.status, message(&refused).as_str()),
            (code, expected)
        );
    }
    let path = format!("{map}?force=true");
    let refused = patch(&cluster, &path, MERGE, "{}").await;
    assert_eq!(
        message(&refused),
        "PatchOptions.meta.k8s.io \"\" is invalid: force: Forbidden: may not be specified for \
         non-apply patch"
    );
    let refused = patch(&cluster, &map, MERGE, r#"{"kind":"Pod"}"#).await;
    assert!(
        message(&refused).ends_with("converting (v1.Pod) to (core.ConfigMap): unknown conversion")
    );
    cluster.handle.shutdown().await;
}

#[tokio::test]
async fn a_scale_is_applied_and_its_conflicts_are_told() {
    let cluster = with_objects().await;
    let scale = format!("{DEPLOYMENTS}/d/scale");
    let config = r#"{"apiVersion":"autoscaling/v1","kind":"Scale","metadata":{"name":"d"},"spec":{"replicas":3}}"#;
    let path = format!("{scale}?fieldManager=second");
    let refused = patch(&cluster, &path, APPLY, config).await;
    assert_eq!(refused.status, 409);
    assert!(message(&refused).starts_with("Apply failed with 1 conflict: conflict with \"first\""));
    let path = format!("{path}&force=true");
    let scaled = patch(&cluster, &path, APPLY, config).await;
    assert_eq!(scaled.status, 200, "{}", scaled.text());
    assert_eq!(scaled.json()["kind"], "Scale");
    assert_eq!(scaled.json()["spec"]["replicas"], 3);
    cluster.handle.shutdown().await;
}

#[tokio::test]
async fn metadata_that_breaks_the_rules_is_refused() {
    let cluster = Cluster::start().await;
    let owner = |kind: &str, name: &str| json!({"apiVersion": "v1", "kind": kind, "name": name, "uid": "1", "controller": true});
    let of = "metadata";
    let cases: [(Value, &str); 5] = [
        (
            json!({"name": "x", "finalizers": ["x"]}),
            "metadata.finalizers[0]: Invalid value: \"x\": name is neither a standard finalizer \
             name nor is it fully qualified",
        ),
        (
            json!({"name": "x", "finalizers": ["orphan", "foregroundDeletion"]}),
            "finalizer orphan and foregroundDeletion cannot be both set",
        ),
        (
            json!({"name": "x", "ownerReferences": [owner("Event", "a")]}),
            "/v1, Kind=Event is disallowed from being an owner",
        ),
        (
            json!({"name": "x", "ownerReferences": [owner("Pod", "a"), owner("Pod", "b")]}),
            "Only one reference can have Controller set to true. Found \"true\" in references for \
             Pod/a and Pod/b",
        ),
        (
            json!({"name": "x", "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "",
                "uid": "1"}]}),
            "metadata.ownerReferences.name: Invalid value: \"\": must not be empty",
        ),
    ];
    for (meta, expected) in cases {
        let refused = cluster.admin.post(MAPS, &json!({of: meta})).await;
        assert_eq!(refused.status, 422);
        assert!(message(&refused).ends_with(expected), "{}", refused.text());
    }
    let refused = cluster
        .admin
        .post(MAPS, &json!({"metadata": {"generateName": "A_"}}))
        .await;
    assert!(message(&refused).contains("metadata.generateName: Invalid value: \"A_\""));
    cluster.handle.shutdown().await;
}

#[tokio::test]
async fn options_and_bodies_that_make_no_sense_are_refused() {
    let cluster = Cluster::start().await;
    let admin = &cluster.admin;
    let map = json!({"metadata": {"name": "x"}});
    let long = "x".repeat(129);
    for (query, expected) in [
        (
            "fieldValidation=x".to_owned(),
            "fieldValidation: Unsupported value: \"x\": supported values: \"\", \"Ignore\", \
             \"Strict\", \"Warn\"",
        ),
        (
            format!("fieldManager={long}"),
            "fieldManager: Too long: may not be more than 128 bytes",
        ),
        (
            "fieldManager=a%07".to_owned(),
            "fieldManager: Invalid value: \"a\\u0007\": should only contain printable characters",
        ),
    ] {
        let path = format!("{MAPS}?{query}");
        let strange = json!({"metadata": {"name": "x"}, "unknown": 1});
        let refused = admin.post(&path, &strange).await;
        let expected = format!("CreateOptions.meta.k8s.io \"\" is invalid: {expected}");
        assert_eq!((refused.status, message(&refused)), (422, expected));
    }
    for (body, expected) in [
        (
            "{",
            "the object provided is unrecognized (must be of type ConfigMap): couldn't get \
             version/kind; json parse error: unexpected end of JSON input ({)",
        ),
        (
            r#"{"kind":"Foo","apiVersion":"foo.io/v3"}"#,
            "Foo in version \"v3\" cannot be handled as a ConfigMap: no kind \"Foo\" is registered \
             for version \"foo.io/v3\" in scheme",
        ),
    ] {
        let refused = admin.send("POST", MAPS, &[], body.to_owned()).await;
        assert_eq!(
            (refused.status, message(&refused).as_str()),
            (400, expected)
        );
    }
    assert_eq!(admin.post(MAPS, &map).await.status, 201);
    let other = json!({"metadata": {"name": "x", "namespace": "other"}});
    let refused = admin
        .send("PUT", &format!("{MAPS}/x"), &[], other.to_string())
        .await;
    assert_eq!(
        message(&refused),
        "the namespace of the object (other) does not match the namespace on the request (default)"
    );
    cluster.handle.shutdown().await;
}

#[tokio::test]
async fn health_and_watches_of_the_old_form_answer() {
    let cluster = Cluster::start().await;
    let admin = &cluster.admin;
    for path in ["/healthz/etcd", "/livez/ping", "/readyz/informer-sync"] {
        assert_eq!(admin.get(path).await.text(), "ok", "{path}");
    }
    assert_eq!(admin.get("/livez/informer-sync").await.status, 404);
    let shown = admin.get("/readyz?verbose&exclude=etcd&exclude=x").await;
    let expected = "[+]ping ok\n[+]log ok\n[+]etcd excluded: ok\n[+]informer-sync ok\n\
                    [+]shutdown ok\nwarn: some health checks cannot be excluded: no matches for \
                    \"x\"\nreadyz check passed\n";
    assert_eq!(shown.text(), expected);
    assert_eq!(shown.header("audit-id").len(), 36);
    let map = json!({"metadata": {"name": "x"}});
    assert_eq!(admin.post(MAPS, &map).await.status, 201);
    let path = "/api/v1/watch/namespaces/default/configmaps/x?timeoutSeconds=1";
    let watched = admin.get(path).await;
    assert!(
        watched.text().starts_with("{\"type\":\"ADDED\""),
        "{}",
        watched.text()
    );
    cluster.handle.shutdown().await;
}

#[tokio::test]
async fn old_kinds_and_owners_named_twice_are_warned_of() {
    let cluster = Cluster::start().await;
    let admin = &cluster.admin;
    for (path, expected) in [
        (
            "/api/v1/endpoints",
            "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice",
        ),
        (
            "/api/v1/componentstatuses",
            "v1 ComponentStatus is deprecated in v1.19+",
        ),
    ] {
        let answer = admin.get(path).await;
        assert_eq!(answer.header("warning"), format!("299 - \"{expected}\""));
    }
    assert_eq!(admin.get(MAPS).await.header("warning"), "");
    let owner = json!({"apiVersion": "v1", "kind": "Pod", "name": "a", "uid": "u1"});
    let map = json!({"metadata": {"name": "x", "ownerReferences": [owner, owner]}});
    let made = admin.post(MAPS, &map).await;
    assert_eq!(made.json()["metadata"]["ownerReferences"], json!([owner]));
    assert!(
        made.header("warning")
            .contains("duplicate UID(s) observed: u1")
    );
    cluster.handle.shutdown().await;
}
