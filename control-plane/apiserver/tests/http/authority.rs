//! Who may do what, as clients see it: roles, escalation, reviews, impersonation, bound tokens,
//! nodes, and what the store holds of secrets.

use control_plane_apiserver::pki;
use control_plane_storage::EmbeddedStore;
use serde_json::{Value, json};

use super::*;

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
const REVIEWS: &str = "/apis/authorization.k8s.io/v1";
const MERGE: (&str, &str) = ("content-type", "application/merge-patch+json");

impl Cluster {
    fn user(&self, name: &str, groups: &[&str]) -> Client {
        let identity = self.handle.pki().client_identity(name, groups).unwrap();
        self.client(Some(&identity))
    }

    /// Posts as the owner, and fails the test when that is refused.
    async fn made(&self, path: &str, body: Value) -> Value {
        let answer = self.admin.post(path, &body).await;
        assert_eq!(answer.status, 201, "{path}: {}", answer.text());
        answer.json()
    }

    async fn bind(&self, name: &str, role: &str, user: &str) {
        let binding = json!({"metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"kind": "User", "name": user}]});
        self.made(&format!("{RBAC}/namespaces/default/rolebindings"), binding)
            .await;
    }
}

async fn may(client: &Client, verb: &str, resource: &str, namespace: &str) -> Value {
    let (resource, sub) = resource.split_once('/').unwrap_or((resource, ""));
    let spec = json!({"resourceAttributes": {
        "verb": verb, "resource": resource, "subresource": sub, "namespace": namespace}});
    let path = format!("{REVIEWS}/selfsubjectaccessreviews");
    client.post(&path, &json!({"spec": spec})).await.json()["status"].clone()
}

#[tokio::test]
async fn the_default_roles_are_there_and_aggregated() {
    let cluster = Cluster::start().await;
    let edit = cluster
        .admin
        .get(&format!("{RBAC}/clusterroles/edit"))
        .await
        .json();
    let admin = cluster
        .admin
        .get(&format!("{RBAC}/clusterroles/admin"))
        .await
        .json();
    let rules = |role: &Value| role["rules"].as_array().unwrap().len();
    assert!(rules(&edit) > 20 && rules(&admin) > rules(&edit));
    assert_eq!(
        edit["metadata"]["annotations"]["rbac.authorization.kubernetes.io/autoupdate"],
        "true"
    );
    let labels = json!({"rbac.authorization.k8s.io/aggregate-to-view": "true"});
    let role = json!({"metadata": {"name": "crontabs", "labels": labels},
        "rules": [{"verbs": ["get"], "apiGroups": ["acme.com"], "resources": ["crontabs"]}]});
    let path = format!("{RBAC}/clusterroles/view?watch=1&fieldSelector=metadata.name%3Dview");
    let mut views = cluster.admin.watch(&path).await;
    cluster.made(&format!("{RBAC}/clusterroles"), role).await;
    loop {
        let event = views.next().await;
        let rules = event["object"]["rules"].to_string();
        if rules.contains("acme.com") {
            break;
        }
    }
    cluster.handle.shutdown().await;
}

#[tokio::test]
async fn a_binding_opens_a_namespace_and_nobody_grants_more_than_they_hold() {
    let cluster = Cluster::start().await;
    let bob = cluster.user("bob", &["dev"]);
    let refused = bob.get(PODS).await;
    assert_eq!(
        message(&refused),
        "pods is forbidden: User \"bob\" cannot list resource \"pods\" in API group \"\" in the \
         namespace \"default\""
    );
    cluster.bind("bob", "admin", "bob").await;
    assert_eq!(bob.get(PODS).await.status, 200);
    assert_eq!(bob.get("/api/v1/namespaces/default").await.status, 200);
    assert_eq!(bob.get("/api/v1/namespaces/kube-system").await.status, 403);
    assert_eq!(bob.get("/api/v1/pods").await.status, 403);
    let roles = format!("{RBAC}/namespaces/default/roles");
    let role = |resource: &str| {
        json!({"metadata": {"name": resource},
            "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": [resource]}]})
    };
    assert_eq!(bob.post(&roles, &role("pods")).await.status, 201);
    let refused = bob.post(&roles, &role("nodes")).await;
    assert_eq!(refused.status, 403);
    assert_eq!(
        message(&refused),
        "roles.rbac.authorization.k8s.io \"nodes\" is forbidden: user \"bob\" (groups=[\"dev\" \
         \"system:authenticated\"]) is attempting to grant RBAC permissions not currently held:\n\
         {APIGroups:[\"\"], Resources:[\"nodes\"], Verbs:[\"get\"]}"
    );
    let binding = |role: &str| {
        json!({"metadata": {"name": format!("more-{role}")},
            "roleRef": {"kind": "ClusterRole", "name": role},
            "subjects": [{"kind": "User", "name": "eve"}]})
    };
    let bindings = format!("{RBAC}/namespaces/default/rolebindings");
    assert_eq!(bob.post(&bindings, &binding("view")).await.status, 201);
    assert_eq!(
        bob.post(&bindings, &binding("cluster-admin")).await.status,
        403
    );
    assert_eq!(bob.post(&bindings, &binding("nothing")).await.status, 404);
    // The same holds for a change.
    let patch = json!({"rules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]});
    let path = format!("{roles}/pods");
    let refused = bob.send("PATCH", &path, &[MERGE], patch.to_string()).await;
    assert_eq!(refused.status, 403);
    // Nor may who can only change make something by changing it.
    let role = json!({"metadata": {"name": "changer"}, "rules": [{
        "verbs": ["update", "patch"], "apiGroups": ["", "coordination.k8s.io"],
        "resources": ["configmaps", "leases"]}]});
    cluster.made(&format!("{RBAC}/clusterroles"), role).await;
    cluster.bind("changer", "changer", "carl").await;
    let carl = cluster.user("carl", &[]);
    let leases = "/apis/coordination.k8s.io/v1/namespaces/default/leases/l";
    let lease = json!({"metadata": {"name": "l"}}).to_string();
    let refused = carl.send("PUT", leases, &[], lease).await;
    assert!(message(&refused).contains("User \"carl\" cannot create resource \"leases\""));
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}});
    let apply = [("content-type", "application/apply-patch+yaml")];
    let path = format!("{MAPS}/m?fieldManager=carl");
    let refused = carl.send("PATCH", &path, &apply, map.to_string()).await;
    assert!(message(&refused).contains("User \"carl\" cannot create resource \"configmaps\""));
    // What a role reference is cannot be changed by anybody.
    let patch = json!({"roleRef": {"name": "edit"}});
    let path = format!("{bindings}/bob");
    let refused = cluster
        .admin
        .send("PATCH", &path, &[MERGE], patch.to_string())
        .await;
    assert_eq!(refused.status, 422);
    assert!(message(&refused).contains("cannot change roleRef"));
    cluster.handle.shutdown().await;
}

#[tokio::test]
async fn reviews_answer_as_requests_would() {
    let cluster = Cluster::start().await;
    let bob = cluster.user("bob", &[]);
    cluster.bind("bob", "view", "bob").await;
    assert_eq!(may(&bob, "get", "pods", "default").await["allowed"], true);
    assert_eq!(
        may(&bob, "get", "secrets", "default").await["allowed"],
        false
    );
    assert_eq!(
        may(&bob, "create", "pods/exec", "default").await["allowed"],
        false
    );
    let review = json!({"spec": {"user": "bob", "resourceAttributes": {
        "verb": "list", "resource": "pods", "namespace": "default"}}});
    let path = format!("{REVIEWS}/subjectaccessreviews");
    let answer = cluster.admin.post(&path, &review).await.json();
    assert_eq!(
        answer["status"]["reason"],
        "RBAC: allowed by RoleBinding \"bob/default\" of ClusterRole \"view\" to User \"bob\""
    );
    assert_eq!(bob.post(&path, &review).await.status, 403);
    let local = format!("{REVIEWS}/namespaces/default/localsubjectaccessreviews");
    assert_eq!(
        cluster.admin.post(&local, &review).await.json()["status"]["allowed"],
        true
    );
    let elsewhere = format!("{REVIEWS}/namespaces/kube-system/localsubjectaccessreviews");
    assert_eq!(cluster.admin.post(&elsewhere, &review).await.status, 422);
    let rules = json!({"spec": {"namespace": "default"}});
    let path = format!("{REVIEWS}/selfsubjectrulesreviews");
    let status = bob.post(&path, &rules).await.json()["status"].clone();
    assert!(status["resourceRules"].to_string().contains("configmaps"));
    assert!(status["nonResourceRules"].to_string().contains("/apis/*"));
    assert_eq!(status["incomplete"], false);
    assert_eq!(bob.post(&path, &json!({})).await.status, 400);
    cluster.handle.shutdown().await;
}

#[tokio::test]
async fn a_user_acts_as_another_only_where_a_role_says_so() {
    let cluster = Cluster::start().await;
    let bob = cluster.user("bob", &[]);
    let role = json!({"metadata": {"name": "actor"}, "rules": [
        {"verbs": ["impersonate"], "apiGroups": [""], "resources": ["users"], "resourceNames": ["eve"]},
        {"verbs": ["impersonate"], "apiGroups": ["authentication.k8s.io"],
            "resources": ["userextras/scope"]}]});
    cluster.made(&format!("{RBAC}/clusterroles"), role).await;
    let binding = json!({"metadata": {"name": "actor"},
        "roleRef": {"kind": "ClusterRole", "name": "actor"},
        "subjects": [{"kind": "User", "name": "bob"}]});
    cluster
        .made(&format!("{RBAC}/clusterrolebindings"), binding)
        .await;
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let body = || json!({}).to_string();
    let eve = [
        ("impersonate-user", "eve"),
        ("impersonate-extra-scope", "x"),
    ];
    let me = bob.send("POST", path, &eve, body()).await;
    let info = me.json()["status"]["userInfo"].clone();
    assert_eq!(info["username"], "eve", "{}", me.text());
    assert_eq!(info["groups"], json!(["system:authenticated"]));
    assert_eq!(info["extra"]["scope"], json!(["x"]));
    for headers in [
        [("impersonate-user", "root"), ("x-a", "")],
        [
            ("impersonate-user", "eve"),
            ("impersonate-group", "system:masters"),
        ],
        [("impersonate-user", "eve"), ("impersonate-uid", "1")],
        [
            ("impersonate-user", "eve"),
            ("impersonate-extra-other", "x"),
        ],
        [
            ("impersonate-user", "system:serviceaccount:default:default"),
            ("x-a", ""),
        ],
    ] {
        let refused = bob.send("POST", path, &headers, body()).await;
        assert_eq!(refused.status, 403, "{headers:?}");
    }
    cluster.handle.shutdown().await;
}

async fn token(cluster: &Cluster, spec: Value) -> Answer {
    let path = "/api/v1/namespaces/default/serviceaccounts/default/token";
    cluster.admin.post(path, &json!({"spec": spec})).await
}

#[tokio::test]
async fn a_bound_token_ends_with_what_it_is_bound_to() {
    let cluster = Cluster::start().await;
    let secrets = "/api/v1/namespaces/default/secrets";
    cluster
        .made(secrets, json!({"metadata": {"name": "s"}}))
        .await;
    let bound = json!({"boundObjectRef": {"kind": "Secret", "apiVersion": "v1", "name": "s"},
        "audiences": ["vault", "https://kubernetes.default.svc"]});
    let issued = token(&cluster, bound).await;
    assert_eq!(issued.status, 201, "{}", issued.text());
    let text = issued.json()["status"]["token"]
        .as_str()
        .unwrap()
        .to_owned();
    let bearer = format!("Bearer {text}");
    let nobody = cluster.client(None);
    let headers = [("authorization", bearer.as_str())];
    let get = || nobody.send("GET", "/apis", &headers, String::new());
    assert_eq!(get().await.status, 200);
    let reviews = "/apis/authentication.k8s.io/v1/tokenreviews";
    let review = json!({"spec": {"token": text, "audiences": ["vault", "other"]}});
    let seen = cluster.admin.post(reviews, &review).await.json()["status"].clone();
    assert_eq!(
        (&seen["authenticated"], &seen["audiences"]),
        (&json!(true), &json!(["vault"]))
    );
    let path = format!("{secrets}/s");
    cluster
        .admin
        .send("DELETE", &path, &[], String::new())
        .await;
    assert_eq!(get().await.status, 401);
    let seen = cluster.admin.post(reviews, &review).await.json()["status"].clone();
    assert_eq!(seen["error"], "secret has been invalidated");
    let elsewhere = token(
        &cluster,
        json!({"boundObjectRef": {"kind": "Service", "name": "x"}}),
    )
    .await;
    assert_eq!(elsewhere.status, 422);
    let keys = cluster.admin.get("/openid/v1/jwks").await;
    assert_eq!(keys.header("content-type"), "application/jwk-set+json");
    assert_eq!(keys.json()["keys"][0]["alg"], "ES256");
    let config = nobody.get("/.well-known/openid-configuration").await;
    assert_eq!(config.status, 401);
    cluster.handle.shutdown().await;
}

#[tokio::test]
async fn a_node_speaks_for_itself_and_its_pods() {
    let cluster = Cluster::start().await;
    let secrets = "/api/v1/namespaces/default/secrets";
    for name in ["mine", "other"] {
        cluster
            .made(secrets, json!({"metadata": {"name": name}}))
            .await;
    }
    for name in ["n1", "n2"] {
        cluster
            .made("/api/v1/nodes", json!({"metadata": {"name": name}}))
            .await;
    }
    let pod = json!({"metadata": {"name": "p"}, "spec": {
        "nodeName": "n1", "volumes": [{"name": "v", "secret": {"secretName": "mine"}}],
        "containers": [{"name": "c", "image": "i"}]}});
    let pod = cluster.made(PODS, pod).await;
    let node = cluster.user("system:node:n1", &["system:nodes"]);
    assert_eq!(node.get(&format!("{secrets}/mine")).await.status, 200);
    assert_eq!(node.get(&format!("{secrets}/other")).await.status, 403);
    assert_eq!(node.get("/api/v1/nodes/n1").await.status, 200);
    assert_eq!(node.get("/api/v1/nodes/n2").await.status, 403);
    assert_eq!(node.get("/api/v1/pods").await.status, 403);
    assert_eq!(
        node.get("/api/v1/pods?fieldSelector=spec.nodeName%3Dn1")
            .await
            .status,
        200
    );
    let patch = async |client: &Client, path: &str, body: Value| {
        client.send("PATCH", path, &[MERGE], body.to_string()).await
    };
    let own = "/api/v1/nodes/n1";
    let label = |key: &str| json!({"metadata": {"labels": {key: "x"}}});
    assert_eq!(patch(&node, own, label("a")).await.status, 200);
    let refused = patch(&node, own, label("node-restriction.kubernetes.io/a")).await;
    assert_eq!(
        message(&refused),
        "nodes \"n1\" is forbidden: node \"n1\" is not allowed to modify labels: \
         node-restriction.kubernetes.io/a"
    );
    let taint = json!({"spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}});
    assert_eq!(patch(&node, own, taint).await.status, 403);
    let owner = json!({"metadata": {"ownerReferences": [
        {"apiVersion": "v1", "kind": "Node", "name": "n2", "uid": "x"}]}});
    assert_eq!(patch(&node, own, owner).await.status, 403);
    let status = json!({"status": {"phase": "Running"}});
    let path = format!("{PODS}/p/status");
    assert_eq!(patch(&node, &path, status.clone()).await.status, 200);
    let stranger = cluster.user("system:node:n2", &["system:nodes"]);
    assert_eq!(patch(&stranger, &path, status).await.status, 403);
    let tokens = "/api/v1/namespaces/default/serviceaccounts/default/token";
    let bound = |uid: &Value| {
        json!({"spec": {"boundObjectRef": {
            "kind": "Pod", "apiVersion": "v1", "name": "p", "uid": uid}}})
    };
    let uid = &pod["metadata"]["uid"];
    assert_eq!(node.post(tokens, &bound(uid)).await.status, 201);
    assert_eq!(stranger.post(tokens, &bound(uid)).await.status, 403);
    assert_eq!(node.post(tokens, &json!({"spec": {}})).await.status, 403);
    cluster.handle.shutdown().await;
}

/// Starts a server over the embedded store in `dir`.
async fn over_files(dir: &std::path::Path) -> (ApiServerHandle, Client, Arc<EmbeddedStore>) {
    let pki = Arc::new(Pki::open(&dir.join("pki")).unwrap());
    let store = Arc::new(EmbeddedStore::open(dir.join("store")).await.unwrap());
    let handle = ApiServer::start(
        config(&pki),
        Arc::<EmbeddedStore>::clone(&store),
        Arc::new(nodes::EchoNodes),
    )
    .await
    .unwrap();
    let identity = pki.client_identity("admin", &["system:masters"]).unwrap();
    let admin = Client::new(handle.addresses()[0], &pki, Some(&identity));
    (handle, admin, store)
}

/// How often `needle` is in the files below `dir`.
fn count(dir: &std::path::Path, needle: &[u8]) -> usize {
    let mut found = 0;
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found += count(&path, needle);
        } else {
            let bytes = std::fs::read(&path).unwrap();
            found += bytes.windows(needle.len()).filter(|w| *w == needle).count();
        }
    }
    found
}

#[tokio::test]
async fn the_store_holds_no_secret_that_can_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let canary = |i: usize| format!("canary-{i:04}-of-a-secret");
    let secrets = "/api/v1/namespaces/default/secrets";
    let text = base64(b"canary-");
    {
        let (handle, admin, store) = over_files(dir.path()).await;
        for i in 0..100 {
            let body =
                json!({"metadata": {"name": format!("s{i}")}, "stringData": {"k": canary(i)}});
            assert_eq!(admin.post(secrets, &body).await.status, 201);
        }
        let map = json!({"metadata": {"name": "m"}, "data": {"k": "plain-canary-of-a-map"}});
        assert_eq!(admin.post(MAPS, &map).await.status, 201);
        handle.shutdown().await;
        Arc::into_inner(store).unwrap().close().await;
    }
    let files = dir.path().join("store");
    assert!(
        count(&files, b"plain-canary-of-a-map") > 0,
        "the search finds what is there"
    );
    // "canary-" in base64, without the end that depends on what follows.
    let encoded = &text.as_bytes()[..9];
    assert_eq!(
        (count(&files, b"of-a-secret"), count(&files, encoded)),
        (0, 0)
    );
    assert!(count(&files, b"skep-sealed-1:") >= 100);
    pki::rotate_sealing_key(&dir.path().join("pki")).unwrap();
    let (handle, admin, store) = over_files(dir.path()).await;
    let read = admin.get(&format!("{secrets}/s42")).await.json();
    assert_eq!(read["data"]["k"], base64(canary(42).as_bytes()));
    handle.shutdown().await;
    Arc::into_inner(store).unwrap().close().await;
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

const POLICY: &str = "
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  nonResourceURLs: ['*']
- level: Metadata
  resources: [{group: '', resources: [secrets]}]
- level: RequestResponse
";

#[expect(clippy::too_many_lines, reason = "one policy, every level of it")]
#[tokio::test]
async fn the_audit_log_tells_who_did_what() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Arc::new(Pki::open(&dir.path().join("pki")).unwrap());
    let path = dir.path().join("audit.log");
    let audit = control_plane_apiserver::AuditConfig {
        policy: Arc::new(control_plane_apiserver::AuditPolicy::parse(POLICY).unwrap()),
        path: path.clone(),
        bytes_max: 1 << 20,
        backups: 1,
    };
    let config = ApiServerConfig {
        audit: Some(audit),
        ..config(&pki)
    };
    let store = Arc::new(MemoryStore::new());
    let handle = ApiServer::start(config, store, Arc::new(nodes::EchoNodes))
        .await
        .unwrap();
    let identity = pki.client_identity("admin", &["system:masters"]).unwrap();
    let admin = Client::new(handle.addresses()[0], &pki, Some(&identity));
    let map = json!({"metadata": {"name": "m"}, "data": {"k": "v"}});
    let made = admin.post(MAPS, &map).await;
    assert_eq!(made.header("audit-id").len(), 36);
    let secret = json!({"metadata": {"name": "s"}, "stringData": {"k": "hidden"}});
    let secrets = "/api/v1/namespaces/default/secrets";
    assert_eq!(admin.post(secrets, &secret).await.status, 201);
    let as_bob = [("impersonate-user", "bob")];
    assert_eq!(
        admin.send("GET", MAPS, &as_bob, String::new()).await.status,
        403
    );
    admin.get("/version").await;
    let mut watch = admin.watch(&format!("{MAPS}?watch=true")).await;
    watch.next().await;
    drop(watch);
    assert_eq!(admin.get(MAPS).await.status, 200);
    assert_eq!(admin.get(secrets).await.status, 200);
    until("all is told, the end of the watch too", async || {
        std::fs::read_to_string(&path).unwrap().lines().count() == 7
    })
    .await;
    handle.shutdown().await;
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(!text.contains("hidden") && !text.contains(&base64(b"hidden")));
    let events: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(events.len(), 7, "{text}");
    let of = |stage: &str, verb: &str, resource: &str| {
        let mut found = events.iter().filter(|event| {
            event["stage"] == stage
                && event["verb"] == verb
                && event["objectRef"]["resource"] == resource
        });
        found.next_back().unwrap().clone()
    };
    let listed = of("ResponseComplete", "list", "configmaps");
    assert_eq!(listed["responseObject"]["items"][0]["data"]["k"], "v");
    let secrets = of("ResponseComplete", "list", "secrets");
    assert_eq!(secrets.get("responseObject"), None);
    let started = of("ResponseStarted", "watch", "configmaps");
    let ended = of("ResponseComplete", "watch", "configmaps");
    assert_eq!(ended["auditID"], started["auditID"]);
    assert_eq!(ended.get("responseObject"), None);
    assert_eq!(events[0]["auditID"], made.header("audit-id"));
    assert_eq!(events[0]["requestObject"]["data"]["k"], "v");
    assert_eq!(events[0]["responseObject"]["metadata"]["name"], "m");
    assert_eq!(events[1]["level"], "Metadata");
    assert_eq!(events[2]["impersonatedUser"]["username"], "bob");
    assert_eq!(events[2]["responseStatus"]["reason"], "Forbidden");
    assert_eq!(
        events[2]["annotations"]["authorization.k8s.io/decision"],
        "forbid"
    );
}

/// A certificate request for `signer`, as kubectl sends it.
fn signing_request(name: &str, signer: &str, group: &str) -> Value {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let mut params = rcgen::CertificateParams::default();
    let mut subject = rcgen::DistinguishedName::new();
    subject.push(rcgen::DnType::OrganizationName, group);
    subject.push(rcgen::DnType::CommonName, "somebody");
    params.distinguished_name = subject;
    let pem = params.serialize_request(&key).unwrap().pem().unwrap();
    json!({"metadata": {"name": name}, "spec": {
        "request": base64(pem.as_bytes()), "signerName": signer,
        "usages": ["client auth", "digital signature"], "username": "root"}})
}

#[tokio::test]
async fn certificates_are_approved_by_who_may_for_the_signer() {
    let cluster = Cluster::start().await;
    let path = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    let role = json!({"metadata": {"name": "csr"}, "rules": [
        {"verbs": ["create", "get", "patch", "update"], "apiGroups": ["certificates.k8s.io"],
            "resources": ["certificatesigningrequests", "certificatesigningrequests/approval"]},
        {"verbs": ["approve"], "apiGroups": ["certificates.k8s.io"], "resources": ["signers"],
            "resourceNames": ["acme.com/*"]}]});
    cluster.made(&format!("{RBAC}/clusterroles"), role).await;
    let binding = json!({"metadata": {"name": "csr"},
        "roleRef": {"kind": "ClusterRole", "name": "csr"},
        "subjects": [{"kind": "User", "name": "bob"}]});
    cluster
        .made(&format!("{RBAC}/clusterrolebindings"), binding)
        .await;
    let bob = cluster.user("bob", &["dev"]);
    let client = "kubernetes.io/kube-apiserver-client";
    for (name, signer) in [("ours", "acme.com/x"), ("theirs", client)] {
        let made = bob.post(path, &signing_request(name, signer, "dev")).await;
        assert_eq!(made.status, 201, "{}", made.text());
        assert_eq!(
            made.json()["spec"]["username"],
            "bob",
            "who asks, not who it says"
        );
    }
    let refused = bob
        .post(path, &signing_request("m", client, "system:masters"))
        .await;
    assert!(message(&refused).contains("with system:masters group is not allowed"));
    let approve = json!({"status": {"conditions": [{
        "type": "Approved", "status": "True", "reason": "Test", "message": "m"}]}});
    let approval = async |client: &Client, name: &str| {
        let path = format!("{path}/{name}/approval");
        client
            .send("PATCH", &path, &[MERGE], approve.to_string())
            .await
    };
    let approved = approval(&bob, "ours").await;
    assert_eq!(approved.status, 200, "{}", approved.text());
    let refused = approval(&bob, "theirs").await;
    assert!(
        message(&refused).contains(
            "user not permitted to approve requests with signerName \
             \"kubernetes.io/kube-apiserver-client\""
        ),
        "{}",
        refused.text()
    );
    assert_eq!(approval(&cluster.admin, "theirs").await.status, 200);
    cluster.handle.shutdown().await;
}
