//! Service addresses and their ranges as objects.

use serde_json::{Value, json};

use super::*;

const NETWORKING: &str = "/apis/networking.k8s.io/v1";
const SERVICES: &str = "/api/v1/namespaces/default/services";

fn service(name: &str, ip: &str) -> Value {
    let mut service = json!({"metadata": {"name": name}, "spec": {"ports": [{"port": 80}]}});
    if !ip.is_empty() {
        service["spec"]["clusterIP"] = json!(ip);
    }
    service
}

#[tokio::test]
async fn every_address_of_a_service_is_an_object_of_the_same_revision() {
    let cluster = Cluster::start().await;
    let admin = &cluster.admin;
    let made = admin.post(SERVICES, &service("web", "")).await.json();
    let ip = made["spec"]["clusterIP"].as_str().unwrap();
    let path = format!("{NETWORKING}/ipaddresses/{ip}");
    let address = admin.get(&path).await.json();
    assert_eq!(
        address["spec"]["parentRef"],
        json!({"resource": "services", "namespace": "default", "name": "web"})
    );
    assert_eq!(
        address["metadata"]["resourceVersion"],
        made["metadata"]["resourceVersion"]
    );
    assert_eq!(
        address["metadata"]["labels"]["ipaddress.kubernetes.io/ip-family"],
        "IPv4"
    );
    let api = admin
        .get("/api/v1/namespaces/default/services/kubernetes")
        .await
        .json();
    let api = api["spec"]["clusterIP"].as_str().unwrap();
    assert_eq!(
        admin
            .get(&format!("{NETWORKING}/ipaddresses/{api}"))
            .await
            .status,
        200
    );
    // Somebody deletes it: it is the service's still.
    assert_eq!(
        admin.send("DELETE", &path, &[], String::new()).await.status,
        200
    );
    until("the address is put back", async || {
        admin.get(&path).await.status == 200
    })
    .await;
    let taken = admin.post(SERVICES, &service("other", ip)).await;
    assert_eq!(taken.status, 422);
    assert!(
        message(&taken).contains("provided IP is already allocated"),
        "{}",
        message(&taken)
    );
    let gone = admin
        .send("DELETE", &format!("{SERVICES}/web"), &[], String::new())
        .await;
    assert_eq!(gone.status, 200);
    assert_eq!(admin.get(&path).await.status, 404);
    // An address that somebody else wrote is no service's.
    let foreign = json!({"metadata": {"name": ip}, "spec": {"parentRef": {
        "group": "gateway.networking.k8s.io", "resource": "gateways", "namespace": "d", "name": "g"}}});
    assert_eq!(
        admin
            .post(&format!("{NETWORKING}/ipaddresses"), &foreign)
            .await
            .status,
        201
    );
    assert_eq!(
        admin.post(SERVICES, &service("other", ip)).await.status,
        422
    );
    cluster.handle.shutdown().await;
}

#[tokio::test]
async fn a_range_that_is_added_gives_addresses_and_stays_while_one_is_used() {
    let cluster = Cluster::start().await;
    let admin = &cluster.admin;
    let ranges = format!("{NETWORKING}/servicecidrs");
    let ready = async |name: &str| {
        let range = admin.get(&format!("{ranges}/{name}")).await.json();
        range["status"]["conditions"][0].clone()
    };
    until("the first range is ready", async || {
        ready("kubernetes").await["status"] == "True"
    })
    .await;
    assert_eq!(
        admin
            .post(SERVICES, &service("far", "10.200.0.9"))
            .await
            .status,
        422
    );
    let range = json!({"metadata": {"name": "more"}, "spec": {"cidrs": ["10.200.0.0/24"]}});
    assert_eq!(admin.post(&ranges, &range).await.status, 201);
    until("it is ready", async || {
        ready("more").await["status"] == "True"
    })
    .await;
    let made = admin.post(SERVICES, &service("far", "10.200.0.9")).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let path = format!("{ranges}/more");
    assert_eq!(
        admin.send("DELETE", &path, &[], String::new()).await.status,
        200
    );
    until("it is told why it stays", async || {
        ready("more").await["reason"] == "Terminating"
    })
    .await;
    assert_eq!(
        admin
            .post(SERVICES, &service("next", "10.200.0.10"))
            .await
            .status,
        422
    );
    let gone = admin
        .send("DELETE", &format!("{SERVICES}/far"), &[], String::new())
        .await;
    assert_eq!(gone.status, 200);
    until("the range goes", async || {
        admin.get(&path).await.status == 404
    })
    .await;
    let own = format!("{ranges}/kubernetes");
    assert_eq!(
        admin.send("DELETE", &own, &[], String::new()).await.status,
        200
    );
    assert_eq!(ready("kubernetes").await["type"], "Ready", "it is needed");
    cluster.handle.shutdown().await;
}
