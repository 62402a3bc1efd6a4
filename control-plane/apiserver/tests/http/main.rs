//! The server as clients see it: TLS, credentials, formats, watches, streams.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail the test"
)]

mod addresses;
mod admission_webhooks;
mod authority;
mod client;
mod conversion_webhooks;
mod custom;
mod encodings;
mod fairness;
mod hooks;
mod kinds;
mod limits;
mod nodes;
mod policies;
mod refusals;
mod rules;
mod signing;

use std::sync::Arc;
use std::time::Duration;

use client::{Answer, Client};
use control_plane_apiserver::pki::{Identity, Pki};
use control_plane_apiserver::{ApiServer, ApiServerConfig, ApiServerHandle};
use control_plane_storage::MemoryStore;
use serde_json::{Value, json};

struct Cluster {
    handle: ApiServerHandle,
    admin: Client,
    _dir: tempfile::TempDir,
}

/// A server on a free port of this machine.
fn config(pki: &Arc<Pki>) -> ApiServerConfig {
    let address = ([127, 0, 0, 1], 0).into();
    ApiServerConfig {
        pki: Arc::clone(pki),
        identity: "test".to_owned(),
        bind: vec![address],
        shared_bind: Vec::new(),
        nodes: None,
        advertise: address,
        extra_names: Vec::new(),
        service_cidr: "10.96.0.0/16".to_owned(),
        cluster_domain: "cluster.local".to_owned(),
        kubeconfig: None,
        kubeconfig_server: None,
        audit: None,
    }
}

impl Cluster {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let pki = Arc::new(Pki::open(&dir.path().join("pki")).unwrap());
        let config = ApiServerConfig {
            kubeconfig: Some(dir.path().join("kubeconfig")),
            ..config(&pki)
        };
        let store = Arc::new(MemoryStore::new());
        let handle = ApiServer::start(config, store, Arc::new(nodes::EchoNodes))
            .await
            .unwrap();
        let identity = pki.client_identity("admin", &["system:masters"]).unwrap();
        let admin = Client::new(handle.addresses()[0], &pki, Some(&identity));
        let cluster = Self {
            handle,
            admin,
            _dir: dir,
        };
        let account = json!({"metadata": {"name": "default"}});
        let path = "/api/v1/namespaces/default/serviceaccounts";
        assert_eq!(cluster.admin.post(path, &account).await.status, 201);
        cluster
    }

    fn client(&self, identity: Option<&Identity>) -> Client {
        Client::new(self.handle.addresses()[0], self.handle.pki(), identity)
    }

    async fn running_pod(&self, name: &str) {
        let pod = json!({"metadata": {"name": name},
            "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]}});
        assert_eq!(self.admin.post(PODS, &pod).await.status, 201);
        let status = json!({"status": {"phase": "Running", "containerStatuses": [
            {"name": "c", "ready": true, "state": {"running": {}}}]}});
        let path = format!("{PODS}/{name}/status");
        let headers = [("content-type", "application/merge-patch+json")];
        let answer = self
            .admin
            .send("PATCH", &path, &headers, status.to_string())
            .await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

const PODS: &str = "/api/v1/namespaces/default/pods";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// Waits for what the server does by itself.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(10), async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    waited.await.unwrap_or_else(|_late| panic!("never: {what}"));
}

fn message(answer: &Answer) -> String {
    answer.json()["message"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

#[tokio::test]
async fn credentials_decide_what_is_answered() {
    let cluster = Cluster::start().await;
    let nobody = cluster.client(None);
    assert_eq!(nobody.get("/readyz").await.text(), "ok");
    assert_eq!(nobody.get("/version").await.json()["minor"], "37");
    let refused = nobody.get("/api/v1/pods").await;
    assert_eq!(
        (refused.status, message(&refused).as_str()),
        (401, "Unauthorized")
    );
    let node = cluster
        .handle
        .pki()
        .client_identity("system:node:n1", &["system:nodes"])
        .unwrap();
    let node = cluster.client(Some(&node));
    let refused = node.get("/api/v1/namespaces/default/secrets/s").await;
    assert_eq!(
        message(&refused),
        "secrets \"s\" is forbidden: User \"system:node:n1\" cannot get resource \"secrets\" in API \
         group \"\" in the namespace \"default\": no relationship found between node 'n1' and this \
         object"
    );
    let as_bob = [("impersonate-user", "bob")];
    let refused = cluster
        .admin
        .send("GET", PODS, &as_bob, String::new())
        .await;
    assert_eq!(refused.status, 403);
    cluster.handle.shutdown().await;
}

#[tokio::test]
async fn a_token_speaks_for_its_account() {
    let cluster = Cluster::start().await;
    let nobody = cluster.client(None);
    let path = "/api/v1/namespaces/default/serviceaccounts/default/token";
    let issued = cluster
        .admin
        .post(path, &json!({"spec": {"expirationSeconds": 600}}))
        .await;
    assert_eq!(issued.status, 201, "{}", issued.text());
    let token = issued.json()["status"]["token"]
        .as_str()
        .unwrap()
        .to_owned();
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str())];
    assert_eq!(
        nobody
            .send("GET", "/apis", &headers, String::new())
            .await
            .status,
        200
    );
    let refused = nobody.send("GET", PODS, &headers, String::new()).await;
    assert!(
        message(&refused).contains("User \"system:serviceaccount:default:default\" cannot list")
    );
    let broken = [("authorization", "Bearer x.y.z")];
    assert_eq!(
        nobody
            .send("GET", "/apis", &broken, String::new())
            .await
            .status,
        401
    );
    let review = json!({});
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let me = nobody
        .send("POST", path, &headers, review.to_string())
        .await
        .json();
    assert_eq!(
        me["status"]["userInfo"]["username"],
        "system:serviceaccount:default:default"
    );
    cluster.handle.shutdown().await;
}

#[tokio::test]
async fn bodies_are_checked_before_anything_is_stored() {
    let cluster = Cluster::start().await;
    let admin = &cluster.admin;
    let unknown = json!({"metadata": {"name": "a"}, "dataa": {}});
    let strict = admin
        .post(&format!("{MAPS}?fieldValidation=Strict"), &unknown)
        .await;
    assert_eq!(strict.status, 400);
    assert_eq!(
        message(&strict),
        "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: \
         unknown field \"dataa\""
    );
    let warned = admin.post(MAPS, &unknown).await;
    assert_eq!(warned.status, 201);
    assert_eq!(
        warned.header("warning"),
        "299 - \"unknown field \\\"dataa\\\"\""
    );
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: yam\ndata:\n  a: b\n";
    let headers = [("content-type", "application/yaml")];
    let made = admin.send("POST", MAPS, &headers, yaml.to_owned()).await;
    assert_eq!(
        (made.status, made.json()["data"]["a"].as_str()),
        (201, Some("b"))
    );
    let headers = [("content-type", "application/cbor")];
    assert_eq!(
        admin
            .send("POST", MAPS, &headers, "x".to_owned())
            .await
            .status,
        415
    );
    let other = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}});
    let refused = admin.post(MAPS, &other).await;
    assert_eq!(refused.status, 400);
    assert_eq!(
        message(&refused),
        "Secret in version \"v1\" cannot be handled as a ConfigMap: converting (v1.Secret) to \
         (core.ConfigMap): unknown conversion"
    );
    let large = "x".repeat(4 << 20);
    let refused = admin.send("POST", MAPS, &[], large).await;
    assert_eq!(
        (refused.status, refused.json()["reason"].as_str()),
        (413, Some("RequestEntityTooLarge"))
    );
    assert_eq!(admin.get("/apis/apps/v2/deployments").await.status, 404);
    assert_eq!(
        admin.send("PUT", MAPS, &[], "{}".to_owned()).await.status,
        405
    );
    let accept = [("accept", "text/html")];
    assert_eq!(
        admin.send("GET", MAPS, &accept, String::new()).await.status,
        406
    );
    cluster.handle.shutdown().await;
}

#[tokio::test]
async fn discovery_and_openapi_are_cached_by_etag() {
    let cluster = Cluster::start().await;
    let admin = &cluster.admin;
    let accept =
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
    let first = admin
        .send("GET", "/apis", &[("accept", accept)], String::new())
        .await;
    assert_eq!(first.json()["kind"], "APIGroupDiscoveryList");
    assert!(
        first
            .header("content-type")
            .contains("as=APIGroupDiscoveryList")
    );
    let etag = first.header("etag").to_owned();
    let headers = [("accept", accept), ("if-none-match", etag.as_str())];
    assert_eq!(
        admin
            .send("GET", "/apis", &headers, String::new())
            .await
            .status,
        304
    );
    assert_eq!(admin.get("/apis").await.json()["kind"], "APIGroupList");
    let index = admin.get("/openapi/v3").await.json();
    let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"]
        .as_str()
        .unwrap()
        .to_owned();
    let document = admin.get(&url).await;
    assert!(document.header("cache-control").contains("immutable"));
    let schemas = &document.json()["components"]["schemas"];
    assert!(schemas["io.k8s.api.apps.v1.Deployment"].is_object());
    let old = admin.get("/openapi/v2").await.json();
    assert_eq!(old["swagger"], "2.0");
    let pod = &old["definitions"]["io.k8s.api.core.v1.Pod"];
    assert_eq!(
        pod["properties"]["spec"]["$ref"],
        "#/definitions/io.k8s.api.core.v1.PodSpec"
    );
    let create = &old["paths"]["/api/v1/namespaces/{namespace}/pods"]["post"];
    assert_eq!(create["x-kubernetes-group-version-kind"]["kind"], "Pod");
    cluster.handle.shutdown().await;
}

#[tokio::test]
async fn lists_come_as_objects_tables_or_metadata_and_in_pages() {
    let cluster = Cluster::start().await;
    let admin = &cluster.admin;
    for name in ["a", "b", "c"] {
        admin
            .post(
                MAPS,
                &json!({"metadata": {"name": name}, "data": {"k": "v"}}),
            )
            .await;
    }
    let list = admin.get(&format!("{MAPS}?limit=2")).await.json();
    assert_eq!(list["kind"], "ConfigMapList");
    assert_eq!(list["items"][0]["kind"], "ConfigMap");
    assert_eq!(list["metadata"]["remainingItemCount"], 1);
    let token = list["metadata"]["continue"].as_str().unwrap();
    let rest = admin
        .get(&format!("{MAPS}?limit=2&continue={token}"))
        .await
        .json();
    assert_eq!(rest["items"][0]["metadata"]["name"], "c");
    assert_eq!(
        rest["metadata"]["resourceVersion"],
        list["metadata"]["resourceVersion"]
    );
    let accept = [(
        "accept",
        "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
    )];
    let table = admin.send("GET", MAPS, &accept, String::new()).await.json();
    assert_eq!(table["columnDefinitions"][1]["name"], "Data");
    assert_eq!(table["rows"][2]["cells"][0], "c");
    assert_eq!(table["rows"][2]["object"]["kind"], "PartialObjectMetadata");
    let accept = [(
        "accept",
        "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
    )];
    let partial = admin.send("GET", MAPS, &accept, String::new()).await.json();
    assert_eq!(partial["items"][0].get("data"), None);
    let future = admin.get(&format!("{MAPS}?resourceVersion=99999999")).await;
    assert_eq!((future.status, future.header("retry-after")), (504, "1"));
    assert!(message(&future).starts_with("Timeout: Too large resource version: 99999999"));
    cluster.handle.shutdown().await;
}

fn told(line: &Value) -> (String, String) {
    let object = &line["object"];
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    (line["type"].as_str().unwrap().to_owned(), name.to_owned())
}

#[tokio::test]
async fn a_watch_tells_the_state_its_end_and_every_change() {
    let cluster = Cluster::start().await;
    let admin = &cluster.admin;
    admin
        .post(
            MAPS,
            &json!({"metadata": {"name": "a", "labels": {"x": "1"}}}),
        )
        .await;
    let query = "watch=true&allowWatchBookmarks=true&sendInitialEvents=true\
                 &resourceVersionMatch=NotOlderThan&labelSelector=x%3D1";
    let mut watch = admin.watch(&format!("{MAPS}?{query}")).await;
    assert_eq!(
        told(&watch.next().await),
        ("ADDED".to_owned(), "a".to_owned())
    );
    let end = watch.next().await;
    assert_eq!(end["type"], "BOOKMARK");
    assert_eq!(
        end["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"],
        "true"
    );
    admin.post(MAPS, &json!({"metadata": {"name": "b"}})).await;
    admin
        .post(
            MAPS,
            &json!({"metadata": {"name": "c", "labels": {"x": "1"}}}),
        )
        .await;
    assert_eq!(
        told(&watch.next().await),
        ("ADDED".to_owned(), "c".to_owned())
    );
    let headers = [("content-type", "application/merge-patch+json")];
    let unlabel = json!({"metadata": {"labels": null}}).to_string();
    admin
        .send("PATCH", &format!("{MAPS}/c"), &headers, unlabel)
        .await;
    assert_eq!(
        told(&watch.next().await),
        ("DELETED".to_owned(), "c".to_owned())
    );
    let refused = admin
        .get(&format!("{MAPS}?watch=1&sendInitialEvents=true"))
        .await;
    assert_eq!(refused.status, 422);
    let short =
        format!("{MAPS}?watch=1&allowWatchBookmarks=true&timeoutSeconds=1&resourceVersion=1");
    let mut short = admin.watch(&short).await;
    let mut last = Value::Null;
    while let Some(line) = short.try_next().await {
        last = line;
    }
    assert_eq!(
        last["type"], "BOOKMARK",
        "a watch that ends says how far it came"
    );
    cluster.handle.shutdown().await;
    assert!(watch.try_next().await.is_none(), "shutdown ends watches");
}

#[tokio::test]
async fn events_are_one_store_with_two_faces() {
    let cluster = Cluster::start().await;
    let admin = &cluster.admin;
    let event = json!({"metadata": {"name": "e"}, "involvedObject": {"kind": "Pod", "name": "p",
        "namespace": "default"}, "reason": "Started", "message": "m", "type": "Normal"});
    let made = admin
        .post("/api/v1/namespaces/default/events", &event)
        .await;
    assert_eq!(made.status, 201, "{}", made.text());
    let path = "/apis/events.k8s.io/v1/namespaces/default/events";
    let list = admin
        .get(&format!("{path}?fieldSelector=regarding.name%3Dp"))
        .await
        .json();
    let shown = &list["items"][0];
    assert_eq!(
        (&shown["note"], &shown["regarding"]["name"]),
        (&json!("m"), &json!("p"))
    );
    assert_eq!(shown["apiVersion"], "events.k8s.io/v1");
    let headers = [("content-type", "application/merge-patch+json")];
    let patch = json!({"note": "n"}).to_string();
    let patched = admin
        .send("PATCH", &format!("{path}/e"), &headers, patch)
        .await;
    assert_eq!(patched.json()["note"], "n");
    let core = admin
        .get("/api/v1/namespaces/default/events/e")
        .await
        .json();
    assert_eq!(
        (&core["message"], &core["apiVersion"]),
        (&json!("n"), &json!("v1"))
    );
    cluster.handle.shutdown().await;
}

#[tokio::test]
async fn logs_and_exec_reach_the_node() {
    let cluster = Cluster::start().await;
    cluster.running_pod("p").await;
    let log = cluster
        .admin
        .get(&format!("{PODS}/p/log?tailLines=2&follow=true"))
        .await;
    assert_eq!(
        log.text(),
        "n1 default/p/c tail=Some(2) follow=true\nline\n"
    );
    let (out, status) = cluster
        .admin
        .exec(
            &format!("{PODS}/p/exec?command=exit&command=3&stdin=1&stdout=1"),
            b"hello",
        )
        .await;
    assert_eq!(out, b"hello");
    assert_eq!(status["details"]["causes"][0]["message"], "3");
    let (_, status) = cluster
        .admin
        .exec(
            &format!("{PODS}/p/exec?command=exit&command=0&stdin=1&stdout=1"),
            b"",
        )
        .await;
    assert_eq!(status["status"], "Success");
    let plain = cluster
        .admin
        .get(&format!("{PODS}/p/exec?command=ls&stdout=1"))
        .await;
    assert_eq!(plain.status, 400);
    let none = cluster
        .admin
        .get(&format!("{PODS}/p/log?container=x"))
        .await;
    assert_eq!(message(&none), "container x is not valid for pod p");
    cluster.handle.shutdown().await;
}

#[tokio::test]
async fn many_clients_write_one_object_over_one_connection_each() {
    let cluster = Arc::new(Cluster::start().await);
    cluster
        .admin
        .post(MAPS, &json!({"metadata": {"name": "m"}}))
        .await;
    let writers = (0..16).map(|i| {
        let cluster = Arc::clone(&cluster);
        async move {
            let headers = [("content-type", "application/merge-patch+json")];
            let patch = json!({"data": {format!("k{i}"): "v"}}).to_string();
            cluster
                .admin
                .send("PATCH", &format!("{MAPS}/m"), &headers, patch)
                .await
                .status
        }
    });
    let all = tokio::time::timeout(Duration::from_secs(20), futures::future::join_all(writers));
    assert!(all.await.unwrap().into_iter().all(|status| status == 200));
    let map = cluster.admin.get(&format!("{MAPS}/m")).await.json();
    assert_eq!(map["data"].as_object().unwrap().len(), 16);
}
