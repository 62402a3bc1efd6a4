//! The rules of lists, watches, deletions and writes that every kind shares, in upstream's words.

use serde_json::{Value, json};

use super::client::Answer;
use super::{Cluster, MAPS, PODS, message};

const MERGE: [(&str, &str); 1] = [("content-type", "application/merge-patch+json")];

fn names(list: &Value) -> Vec<&str> {
    let items = list["items"].as_array().unwrap();
    items
        .iter()
        .map(|item| item["metadata"]["name"].as_str().unwrap())
        .collect()
}

async fn maps(cluster: &Cluster, count: usize) {
    for i in 0..count {
        let map =
            json!({"metadata": {"name": format!("m{i}"), "labels": {"odd": (i % 2).to_string()}}});
        assert_eq!(cluster.admin.post(MAPS, &map).await.status, 201);
    }
}

async fn delete(cluster: &Cluster, path: &str, options: &Value) -> Answer {
    cluster
        .admin
        .send("DELETE", path, &[], options.to_string())
        .await
}

#[tokio::test]
async fn a_list_is_of_the_revision_that_was_asked_for() {
    let cluster = Cluster::start().await;
    maps(&cluster, 2).await;
    let list = async |query: &str| cluster.admin.get(&format!("{MAPS}?{query}")).await;
    let first = list("").await.json();
    let rv = first["metadata"]["resourceVersion"].as_str().unwrap();
    cluster
        .admin
        .send("DELETE", &format!("{MAPS}/m0"), &[], String::new())
        .await;
    let exact = list(&format!("resourceVersion={rv}&resourceVersionMatch=Exact")).await;
    assert_eq!(names(&exact.json()), ["m0", "m1"]);
    assert_eq!(exact.json()["metadata"]["resourceVersion"], rv);
    let legacy = list(&format!("resourceVersion={rv}&limit=5")).await.json();
    assert_eq!(
        names(&legacy),
        ["m0", "m1"],
        "a limit at a revision is exact"
    );
    for query in [
        String::new(),
        "resourceVersion=0".to_owned(),
        format!("resourceVersion={rv}"),
        format!("resourceVersion={rv}&resourceVersionMatch=NotOlderThan"),
    ] {
        assert_eq!(names(&list(&query).await.json()), ["m1"], "{query}");
    }
    let future = list("resourceVersion=99999999&resourceVersionMatch=NotOlderThan").await;
    assert_eq!(future.status, 504);
    assert_eq!(
        future.json()["details"]["causes"][0]["reason"],
        "ResourceVersionTooLarge"
    );
    let bad = list("resourceVersion=x").await;
    assert_eq!(
        (bad.status, bad.json()["reason"].clone()),
        (400, json!("BadRequest"))
    );
    let forbidden = list("resourceVersionMatch=Exact").await;
    assert_eq!(forbidden.status, 422);
    assert_eq!(
        forbidden.json()["details"]["causes"][0]["field"],
        "resourceVersionMatch"
    );
    cluster.handle.shutdown().await;
}

#[tokio::test]
async fn pages_follow_a_snapshot_and_count_what_remains() {
    let cluster = Cluster::start().await;
    maps(&cluster, 5).await;
    let page = async |query: &str| cluster.admin.get(&format!("{MAPS}?{query}")).await.json();
    let first = page("limit=2").await;
    assert_eq!(names(&first), ["m0", "m1"]);
    assert_eq!(first["metadata"]["remainingItemCount"], 3);
    delete(&cluster, &format!("{MAPS}/m2"), &json!({})).await;
    let token = first["metadata"]["continue"].as_str().unwrap();
    let second = page(&format!("limit=2&continue={token}")).await;
    assert_eq!(names(&second), ["m2", "m3"], "as it was at the first page");
    let rv = |list: &Value| list["metadata"]["resourceVersion"].clone();
    assert_eq!(rv(&second), rv(&first));
    let selected = page("limit=1&labelSelector=odd%3D1").await;
    assert_eq!(names(&selected), ["m1"]);
    assert_eq!(selected["metadata"].get("remainingItemCount"), None);
    let last = page("limit=1&fieldSelector=metadata.name%3Dm4").await;
    assert_eq!(last["metadata"].get("continue"), None);
    let both = cluster
        .admin
        .get(&format!("{MAPS}?continue={token}&resourceVersion=3"))
        .await;
    assert_eq!(
        message(&both),
        "specifying resource version is not allowed when using continue"
    );
    let unknown = cluster
        .admin
        .get(&format!("{MAPS}?fieldSelector=spec.x%3D1"))
        .await;
    assert!(message(&unknown).contains("field label not supported: spec.x"));
    cluster.handle.shutdown().await;
}

#[tokio::test]
async fn deletions_keep_their_preconditions_and_finalizers() {
    let cluster = Cluster::start().await;
    let map = json!({"metadata": {"name": "m", "finalizers": ["x.y/z"]}});
    let made = cluster.admin.post(MAPS, &map).await.json();
    let path = format!("{MAPS}/m");
    let uid = made["metadata"]["uid"].as_str().unwrap();
    let refused = delete(&cluster, &path, &json!({"preconditions": {"uid": "other"}})).await;
    assert_eq!(
        message(&refused),
        format!(
            "Operation cannot be fulfilled on ConfigMap \"m\": the UID in the precondition (other) \
             does not match the UID in record ({uid}). The object might have been deleted and then \
             recreated"
        )
    );
    let refused = delete(
        &cluster,
        &path,
        &json!({"preconditions": {"resourceVersion": "1"}}),
    )
    .await;
    assert_eq!(refused.status, 409);
    let options = json!({"propagationPolicy": "Sideways", "dryRun": ["Some"]});
    let refused = delete(&cluster, &path, &options).await;
    assert_eq!(refused.status, 422);
    assert_eq!(
        message(&refused),
        "DeleteOptions.meta.k8s.io \"\" is invalid: [propagationPolicy: Unsupported value: \
         \"Sideways\": supported values: \"Foreground\", \"Background\", \"Orphan\", \"nil\", dryRun: \
         Unsupported value: []string{\"Some\"}: supported values: \"All\"]"
    );
    let dry = delete(&cluster, &path, &json!({"dryRun": ["All"]})).await;
    assert_eq!(dry.status, 200);
    let live = cluster.admin.get(&path).await.json();
    assert_eq!(live["metadata"].get("deletionTimestamp"), None);
    let marked = delete(&cluster, &path, &json!({"propagationPolicy": "Foreground"}))
        .await
        .json();
    assert_eq!(
        marked["metadata"]["finalizers"],
        json!(["x.y/z", "foregroundDeletion"])
    );
    let release = json!({"metadata": {"finalizers": null}}).to_string();
    let gone = cluster.admin.send("PATCH", &path, &MERGE, release).await;
    assert_eq!(gone.status, 200);
    assert_eq!(cluster.admin.get(&path).await.status, 404);
    cluster.handle.shutdown().await;
}

#[tokio::test]
async fn a_collection_is_deleted_by_selector_limit_and_options() {
    let cluster = Cluster::start().await;
    maps(&cluster, 40).await;
    let left = async || names(&cluster.admin.get(MAPS).await.json()).len();
    let odd = format!("{MAPS}?labelSelector=odd%3D1");
    let dry = delete(&cluster, &format!("{odd}&dryRun=All"), &json!({})).await;
    assert_eq!((dry.status, left().await), (200, 41 - 1));
    let gone = delete(&cluster, &format!("{MAPS}?limit=3"), &json!({})).await;
    assert_eq!(names(&gone.json()).len(), 3);
    assert_eq!(left().await, 37);
    let gone = delete(&cluster, &odd, &json!({"propagationPolicy": "Background"})).await;
    assert_eq!(gone.json()["kind"], "ConfigMapList");
    assert_eq!(left().await, 18);
    cluster.handle.shutdown().await;
}

#[tokio::test]
async fn dry_runs_commit_nothing_and_their_options_are_checked() {
    let cluster = Cluster::start().await;
    let map = json!({"metadata": {"generateName": "m-"}});
    let dry = cluster
        .admin
        .post(&format!("{MAPS}?dryRun=All"), &map)
        .await;
    assert_eq!(dry.status, 201);
    let name = dry.json()["metadata"]["name"].as_str().unwrap().to_owned();
    assert_eq!(name.len(), 7);
    assert!(
        name[2..]
            .bytes()
            .all(|byte| b"bcdfghjklmnpqrstvwxz2456789".contains(&byte))
    );
    assert_eq!(
        cluster.admin.get(&format!("{MAPS}/{name}")).await.status,
        404
    );
    let refused = cluster
        .admin
        .post(&format!("{MAPS}?dryRun=None"), &map)
        .await;
    assert_eq!(
        message(&refused),
        "CreateOptions.meta.k8s.io \"\" is invalid: dryRun: Unsupported value: \
         []string{\"None\"}: supported values: \"All\""
    );
    let made = cluster.admin.post(MAPS, &map).await.json();
    let path = format!("{MAPS}/{}", made["metadata"]["name"].as_str().unwrap());
    let patch = json!({"data": {"a": "b"}}).to_string();
    let patched = cluster
        .admin
        .send("PATCH", &format!("{path}?dryRun=All"), &MERGE, patch)
        .await
        .json();
    assert_eq!(patched["data"], json!({"a": "b"}));
    let mut body = made.clone();
    body["data"] = json!({"c": "d"});
    let put = cluster
        .admin
        .send("PUT", &format!("{path}?dryRun=All"), &[], body.to_string())
        .await;
    assert_eq!(put.status, 200);
    assert_eq!(cluster.admin.get(&path).await.json(), made);
    cluster.handle.shutdown().await;
}

#[tokio::test]
async fn unknown_and_duplicate_fields_are_refused_told_or_dropped() {
    let cluster = Cluster::start().await;
    let body = r#"{"metadata":{"name":"p"},"spec":{"containers":[{"name":"c","image":"i",
        "imagee":"x"}],"nodeName":"n","nodeName":"m"}}"#;
    let post = async |validation: &str| {
        let path = format!("{PODS}?fieldValidation={validation}&dryRun=All");
        cluster
            .admin
            .send("POST", &path, &[], body.to_owned())
            .await
    };
    let strict = post("Strict").await;
    assert_eq!(strict.status, 400);
    assert_eq!(
        message(&strict),
        "Pod in version \"v1\" cannot be handled as a Pod: strict decoding error: duplicate field \
         \"spec.nodeName\", unknown field \"spec.containers[0].imagee\""
    );
    let warned = post("Warn").await;
    assert_eq!(warned.status, 201);
    assert!(warned.header("warning").starts_with("299 - \""));
    let ignored = post("Ignore").await;
    assert_eq!((ignored.status, ignored.header("warning")), (201, ""));
    assert_eq!(post("Loud").await.status, 422);
    maps(&cluster, 1).await;
    let patch = json!({"dat": {}}).to_string();
    let path = format!("{MAPS}/m0?fieldValidation=Strict");
    let refused = cluster.admin.send("PATCH", &path, &MERGE, patch).await;
    assert_eq!(refused.status, 422);
    assert!(message(&refused).ends_with("strict decoding error: unknown field \"dat\""));
    cluster.handle.shutdown().await;
}

#[tokio::test]
async fn a_watch_that_cannot_begin_says_so_in_its_stream() {
    let cluster = Cluster::start().await;
    maps(&cluster, 1).await;
    let path = format!("{MAPS}?watch=1&resourceVersion=1");
    // What is older than the server's start is not kept.
    let mut watch = cluster.admin.watch(&path).await;
    let first = watch.next().await;
    if first["type"] == "ERROR" {
        assert_eq!(
            (&first["object"]["code"], &first["object"]["reason"]),
            (&json!(410), &json!("Expired"))
        );
        assert!(watch.try_next().await.is_none());
    } else {
        assert_eq!(first["type"], "ADDED", "a fresh store keeps all");
    }
    let refused = cluster
        .admin
        .get(&format!("{MAPS}?watch=1&resourceVersionMatch=NotOlderThan"))
        .await;
    assert_eq!(refused.status, 422);
    let named = format!("{MAPS}?watch=1&fieldSelector=metadata.name%3Dm1");
    let mut named = cluster.admin.watch(&named).await;
    maps_named(&cluster, &["m1", "m2"]).await;
    delete(&cluster, &format!("{MAPS}/m1"), &json!({})).await;
    let told = [named.next().await, named.next().await];
    assert_eq!(
        told.map(|line| line["type"].clone()),
        [json!("ADDED"), json!("DELETED")]
    );
    cluster.handle.shutdown().await;
}

async fn maps_named(cluster: &Cluster, names: &[&str]) {
    for name in names {
        let map = json!({"metadata": {"name": name}});
        assert_eq!(cluster.admin.post(MAPS, &map).await.status, 201);
    }
}

/// Manager and operation of each entry, with its fields.
fn owners(object: &Value) -> Vec<(String, Value)> {
    let entries = object["metadata"]["managedFields"].as_array();
    let one = |entry: &Value| {
        let text = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
        let owner = format!("{} {}", text("manager"), text("operation"));
        (owner, entry["fieldsV1"].clone())
    };
    entries.into_iter().flatten().map(one).collect()
}

async fn apply(cluster: &Cluster, data: &Value, query: &str) -> Answer {
    let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"},
        "data": data});
    let headers = [("content-type", "application/apply-patch+yaml")];
    let path = format!("{MAPS}/m?fieldManager=applier{query}");
    cluster
        .admin
        .send("PATCH", &path, &headers, body.to_string())
        .await
}

#[tokio::test]
async fn every_client_owns_what_it_writes_until_the_entries_are_reset() {
    let cluster = Cluster::start().await;
    let agent = [("user-agent", "tool/1.0")];
    let map = json!({"metadata": {"name": "m"}, "data": {"a": "1"}}).to_string();
    cluster.admin.send("POST", MAPS, &agent, map).await;
    let path = format!("{MAPS}/m");
    let patch = json!({"data": {"b": "2"}}).to_string();
    let by = format!("{path}?fieldManager=other");
    let made = cluster.admin.send("PATCH", &by, &MERGE, patch).await.json();
    assert_eq!(
        owners(&made),
        [
            ("other Update".to_owned(), json!({"f:data": {"f:b": {}}})),
            (
                "tool Update".to_owned(),
                json!({"f:data": {".": {}, "f:a": {}}})
            ),
        ]
    );
    let conflict = apply(&cluster, &json!({"a": "9", "b": "2"}), "").await;
    assert_eq!(conflict.status, 409);
    assert_eq!(
        conflict.json()["details"]["causes"][0]["reason"],
        "FieldManagerConflict"
    );
    assert_eq!(conflict.json()["details"]["causes"][0]["field"], ".data.a");
    let forced = apply(&cluster, &json!({"a": "9", "b": "2"}), "&force=true")
        .await
        .json();
    assert_eq!(
        owners(&forced)[0],
        (
            "applier Apply".to_owned(),
            json!({"f:data": {"f:a": {}, "f:b": {}}})
        )
    );
    let fewer = apply(&cluster, &json!({"a": "9"}), "").await.json();
    assert_eq!(
        fewer["data"],
        json!({"a": "9", "b": "2"}),
        "the other still owns b"
    );
    let reset = json!({"metadata": {"managedFields": [{}]}}).to_string();
    let reset = cluster
        .admin
        .send("PATCH", &path, &MERGE, reset)
        .await
        .json();
    assert_eq!(owners(&reset), []);
    cluster.handle.shutdown().await;
}
