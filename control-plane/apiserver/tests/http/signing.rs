//! Certificate requests: approved by who may, signed by the cluster, refused when a signer does not
//! give what is asked for.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::*;

const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
const NODE_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";

/// A request of the API, and the key that it is signed with.
fn request(name: &str, signer: &str, user: &str, group: &str, usages: &Value) -> (Value, String) {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let mut params = rcgen::CertificateParams::default();
    let mut subject = rcgen::DistinguishedName::new();
    subject.push(rcgen::DnType::OrganizationName, group);
    subject.push(rcgen::DnType::CommonName, user);
    params.distinguished_name = subject;
    let pem = params.serialize_request(&key).unwrap().pem().unwrap();
    let object = json!({"metadata": {"name": name}, "spec": {"signerName": signer,
        "request": STANDARD.encode(pem), "usages": usages, "expirationSeconds": 3600}});
    (object, key.serialize_pem())
}

impl Cluster {
    async fn approve(&self, name: &str) {
        let path = format!("{REQUESTS}/{name}");
        let mut object = self.admin.get(&path).await.json();
        object["status"]["conditions"] = json!([{"type": "Approved", "status": "True",
            "reason": "Test", "message": "by the test"}]);
        let path = format!("{path}/approval");
        let approved = self.admin.send("PUT", &path, &[], object.to_string()).await;
        assert_eq!(approved.status, 200, "{}", approved.text());
    }

    async fn status_of(&self, name: &str) -> Value {
        let request = self.admin.get(&format!("{REQUESTS}/{name}")).await.json();
        request["status"].clone()
    }

    /// A client that shows the certificate of a request.
    async fn holder(&self, name: &str, key_pem: String) -> Client {
        let status = self.status_of(name).await;
        let pem = status["certificate"].as_str().unwrap();
        let certificate_pem = String::from_utf8(STANDARD.decode(pem).unwrap()).unwrap();
        self.client(Some(&Identity {
            certificate_pem,
            key_pem,
        }))
    }
}

async fn who(client: &Client) -> Value {
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let answer = client.post(path, &json!({})).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    answer.json()["status"]["userInfo"].clone()
}

#[tokio::test]
async fn an_approved_request_gets_a_certificate_that_the_server_knows() {
    let cluster = Cluster::start().await;
    let usages = json!(["client auth", "digital signature"]);
    let (object, key) = request("jane", CLIENT, "jane", "dev", &usages);
    assert_eq!(cluster.admin.post(REQUESTS, &object).await.status, 201);
    assert_eq!(
        cluster.status_of("jane").await.get("certificate"),
        None,
        "nobody approved it"
    );
    cluster.approve("jane").await;
    until("it is signed", async || {
        cluster.status_of("jane").await.get("certificate").is_some()
    })
    .await;
    let user = who(&cluster.holder("jane", key).await).await;
    assert_eq!(user["username"], "jane");
    assert_eq!(user["groups"], json!(["dev", "system:authenticated"]));

    let usages = json!(["client auth", "server auth"]);
    let (object, _) = request("wide", CLIENT, "jane", "dev", &usages);
    assert_eq!(cluster.admin.post(REQUESTS, &object).await.status, 201);
    cluster.approve("wide").await;
    until("it fails", async || {
        let conditions = cluster.status_of("wide").await["conditions"].clone();
        conditions[1]["type"] == "Failed"
            && conditions[1]["message"] == "invalid usage for client certificate: server auth"
    })
    .await;
    assert_eq!(cluster.status_of("wide").await.get("certificate"), None);
    cluster.handle.shutdown().await;
}

#[tokio::test]
async fn a_nodes_request_is_approved_for_who_may_bring_nodes() {
    let cluster = Cluster::start().await;
    let jane = cluster.handle.pki().client_identity("jane", &[]).unwrap();
    let jane = cluster.client(Some(&jane));
    let rbac = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
    for role in [
        "system:node-bootstrapper",
        "system:certificates.k8s.io:certificatesigningrequests:nodeclient",
    ] {
        let binding = json!({"metadata": {"name": format!("jane-{}", role.len())},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"kind": "User", "name": "jane"}]});
        assert_eq!(cluster.admin.post(rbac, &binding).await.status, 201);
    }
    let usages = json!(["client auth", "digital signature", "key encipherment"]);
    let (object, key) = request("n7", NODE_CLIENT, "system:node:n7", "system:nodes", &usages);
    let made = jane.post(REQUESTS, &object).await;
    assert_eq!(made.status, 201, "{}", made.text());
    until("it is approved and signed", async || {
        cluster.status_of("n7").await.get("certificate").is_some()
    })
    .await;
    let user = who(&cluster.holder("n7", key).await).await;
    assert_eq!(user["username"], "system:node:n7");
    // One that is no node's waits for a person, who cannot make it one either.
    let (object, _) = request("fake", NODE_CLIENT, "admin", "system:masters", &usages);
    assert_eq!(jane.post(REQUESTS, &object).await.status, 201);
    cluster.approve("fake").await;
    until("it fails", async || {
        cluster.status_of("fake").await["conditions"][1]["type"] == "Failed"
    })
    .await;
    cluster.handle.shutdown().await;
}
