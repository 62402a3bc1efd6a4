//! Answers in protobuf say the same as answers in JSON.

use proto_api::schema::{Gvk, builtin};
use proto_api::transcode;
use serde_json::{Value, json};

use super::client::Answer;
use super::{Cluster, MAPS, PODS};

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

fn decoded(body: &[u8]) -> Value {
    let value = transcode::to_json(builtin(), body).unwrap();
    let text = |name: &str| value[name].as_str().unwrap_or_default();
    let id = builtin().kind(Gvk::parse(text("apiVersion"), text("kind")));
    // Zero values that JSON leaves out are dropped by the check.
    let checked = proto_api::decode::check(builtin(), id.unwrap(), value.clone());
    checked.unwrap().0
}

async fn protobuf(cluster: &Cluster, path: &str) -> Answer {
    let headers = [(
        "accept",
        "application/vnd.kubernetes.protobuf,application/json",
    )];
    let answer = cluster
        .admin
        .send("GET", path, &headers, String::new())
        .await;
    assert_eq!(answer.header("content-type"), PROTOBUF, "{path}");
    answer
}

#[tokio::test]
async fn objects_lists_and_refusals_are_the_same_in_protobuf() {
    let cluster = Cluster::start().await;
    cluster.running_pod("p").await;
    for name in ["a", "b"] {
        let map = json!({"metadata": {"name": name, "labels": {"x": "1"}}, "data": {"k": "v"}});
        assert_eq!(cluster.admin.post(MAPS, &map).await.status, 201);
    }
    for path in [
        format!("{PODS}/p"),
        "/api/v1/nodes".to_owned(),
        "/api/v1/namespaces/default".to_owned(),
        "/api/v1/services".to_owned(),
        "/apis/discovery.k8s.io/v1/endpointslices".to_owned(),
        "/apis/events.k8s.io/v1/events".to_owned(),
        "/api".to_owned(),
        "/apis".to_owned(),
        "/apis/apps/v1".to_owned(),
        format!("{PODS}/missing"),
    ] {
        let wire = protobuf(&cluster, &path).await;
        let plain = cluster.admin.get(&path).await;
        assert_eq!(wire.status, plain.status, "{path}");
        let id = plain.json();
        let text = |name: &str| id[name].as_str().unwrap_or_default();
        let id = builtin().kind(Gvk::parse(text("apiVersion"), text("kind")));
        let mut plain = plain.json();
        // Items of a list say their kind in JSON only.
        let listed = plain.get_mut("items").and_then(Value::as_array_mut);
        for item in listed
            .into_iter()
            .flatten()
            .filter_map(Value::as_object_mut)
        {
            item.remove("kind");
            item.remove("apiVersion");
        }
        let expected = proto_api::decode::check(builtin(), id.unwrap(), plain);
        assert_eq!(decoded(wire.bytes()), expected.unwrap().0, "{path}");
    }
    for query in ["", "?limit=1", "?labelSelector=x%3D1&limit=1"] {
        let path = format!("{MAPS}{query}");
        let list = decoded(protobuf(&cluster, &path).await.bytes());
        let plain = cluster.admin.get(&path).await.json();
        assert_eq!(list["metadata"], plain["metadata"]);
        assert_eq!(list["items"][0]["data"], json!({"k": "v"}));
        let count = |list: &Value| list["items"].as_array().unwrap().len();
        assert_eq!(count(&list), count(&plain));
    }
    cluster.handle.shutdown().await;
}

#[tokio::test]
async fn a_watch_in_protobuf_tells_the_same_events() {
    let cluster = Cluster::start().await;
    let map = json!({"metadata": {"name": "a"}, "data": {"k": "v"}});
    cluster.admin.post(MAPS, &map).await;
    let query = "watch=true&allowWatchBookmarks=true&sendInitialEvents=true\
                 &resourceVersionMatch=NotOlderThan";
    let mut watch = cluster
        .admin
        .watch_protobuf(&format!("{MAPS}?{query}"))
        .await;
    cluster
        .admin
        .send("DELETE", &format!("{MAPS}/a"), &[], String::new())
        .await;
    let mut told = Vec::new();
    for _ in 0..3 {
        let message = watch.next().await;
        // The event's own type is the first field of the message.
        let (kind_len, rest) = (usize::from(message[1]), &message[2..]);
        let kind = String::from_utf8(rest[..kind_len].to_vec()).unwrap();
        let body = rest.windows(4).position(|four| four == b"k8s\0").unwrap();
        let object = decoded(&rest[body..]);
        told.push((
            kind,
            object["metadata"]["name"].clone(),
            object["data"].clone(),
        ));
    }
    let data = json!({"k": "v"});
    assert_eq!(
        told,
        [
            ("ADDED".to_owned(), json!("a"), data.clone()),
            ("BOOKMARK".to_owned(), Value::Null, Value::Null),
            ("DELETED".to_owned(), json!("a"), data),
        ]
    );
    cluster.handle.shutdown().await;
}

#[tokio::test]
async fn metadata_alone_and_writes_are_answered_in_protobuf() {
    let cluster = Cluster::start().await;
    let accept = format!("{PROTOBUF};as=PartialObjectMetadataList;g=meta.k8s.io;v=v1");
    let headers = [("accept", accept.as_str())];
    let map = json!({"metadata": {"name": "a"}, "data": {"k": "only-in-data"}});
    cluster.admin.post(MAPS, &map).await;
    let list = cluster
        .admin
        .send("GET", MAPS, &headers, String::new())
        .await;
    assert_eq!((list.status, list.header("content-type")), (200, PROTOBUF));
    let contains = |text: &[u8]| list.bytes().windows(text.len()).any(|part| part == text);
    assert!(contains(b"PartialObjectMetadataList") && contains(b"default"));
    assert!(!contains(b"only-in-data"));
    let headers = [("accept", PROTOBUF), ("content-type", "application/json")];
    let body = json!({"metadata": {"name": "b"}}).to_string();
    let made = cluster.admin.send("POST", MAPS, &headers, body).await;
    assert_eq!(made.status, 201);
    assert_eq!(decoded(made.bytes())["metadata"]["name"], "b");
    let table = format!("{PROTOBUF};as=Table;g=meta.k8s.io;v=v1");
    let refused = cluster
        .admin
        .send("GET", MAPS, &[("accept", &table)], String::new())
        .await;
    assert_eq!(refused.status, 406, "cells have no message");
    let gone = cluster
        .admin
        .send("DELETE", &format!("{MAPS}/b"), &headers[..1], String::new())
        .await;
    assert_eq!(decoded(gone.bytes())["details"]["kind"], "configmaps");
    cluster.handle.shutdown().await;
}

#[tokio::test]
async fn objects_lists_tables_and_refusals_are_the_same_in_yaml_and_indented() {
    let cluster = Cluster::start().await;
    cluster.running_pod("p").await;
    for name in ["a", "b"] {
        let map = json!({"metadata": {"name": name}, "data": {"k": "a\nb\n", "yes": "no"}});
        assert_eq!(cluster.admin.post(MAPS, &map).await.status, 201);
    }
    let table = ";as=Table;v=v1;g=meta.k8s.io";
    for (path, form) in [
        (format!("{PODS}/p"), ""),
        (PODS.to_owned(), ""),
        (MAPS.to_owned(), ""),
        (MAPS.to_owned(), table),
        ("/api/v1/secrets?labelSelector=none".to_owned(), ""),
        ("/apis".to_owned(), ""),
        (format!("{PODS}/missing"), ""),
    ] {
        let ask = async |accept: String, more: &str| {
            let headers = [("accept", accept.as_str())];
            let separator = if path.contains('?') { '&' } else { '?' };
            let path = format!("{path}{separator}{more}");
            cluster
                .admin
                .send("GET", &path, &headers, String::new())
                .await
        };
        let plain = ask(format!("application/json{form}"), "").await;
        let yaml = ask(format!("application/yaml{form}"), "").await;
        assert_eq!(yaml.header("content-type"), "application/yaml", "{path}");
        assert_eq!(yaml.status, plain.status, "{path}");
        let (read, findings) =
            proto_api::decode::parse(yaml.bytes(), proto_api::decode::Encoding::Yaml).unwrap();
        assert_eq!(read, plain.json(), "{path}");
        assert!(findings.is_empty());
        let pretty = ask(format!("application/json{form}"), "pretty=true").await;
        assert_eq!(pretty.json(), plain.json(), "{path}");
        assert!(pretty.text().starts_with("{\n  \""), "{path}");
    }
    let headers = [("accept", "application/yaml")];
    let path = format!("{MAPS}?watch=true");
    let refused = cluster
        .admin
        .send("GET", &path, &headers, String::new())
        .await;
    assert_eq!(refused.status, 406);
    cluster.handle.shutdown().await;
}
