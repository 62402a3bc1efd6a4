//! The node stream from end to end: the control plane's side and the agent's, over real TLS, with the
//! API in memory.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use control_plane_client::fake::FakeApi;
use control_plane_client::{Informers, ObjectKey, resources};
use control_plane_node_state::{
    AuthorityError, NodeAuthority, NodeState, NodeStateConfig, Tunnels,
};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use node_agent_state::link::{Link, LinkConfig, SessionHandler};
use node_agent_state::{ObjectName, PodRef, Snapshot, StateHub, Upstream, UpstreamError};
use proto::agent::v1 as pb;
use proto::agent::v1::{open_session, session_down, session_up};
use proto_api::types::core::v1::PodStatus;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer, DnType,
    IsCa, KeyPair,
};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;

const DEADLINE: Duration = Duration::from_secs(20);

/// A CA that signs for whoever shows the token.
struct TestAuthority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl TestAuthority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "test CA");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { issuer }
    }

    fn server(&self) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".into()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }
}

#[async_trait]
impl NodeAuthority for TestAuthority {
    async fn check_token(&self, token: &str) -> Result<(), AuthorityError> {
        if token == "right" {
            Ok(())
        } else {
            Err(AuthorityError::Token)
        }
    }

    async fn sign(&self, node_name: &str, csr: &[u8]) -> Result<String, AuthorityError> {
        let refuse = |error: rcgen::Error| AuthorityError::Request {
            reason: error.to_string(),
        };
        let request = CertificateSigningRequestParams::from_der(&csr.into()).map_err(refuse)?;
        let mut params = request.params;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::OrganizationName, "system:nodes");
        params
            .distinguished_name
            .push(DnType::CommonName, format!("system:node:{node_name}"));
        let certificate = params
            .signed_by(&request.public_key, &self.issuer)
            .map_err(refuse)?;
        Ok(certificate.pem())
    }

    fn ca(&self) -> String {
        self.issuer.pem()
    }
}

/// A control plane's node listener.
struct Server {
    state: NodeState,
    tunnels: Tunnels,
    address: SocketAddr,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    async fn start(api: &FakeApi, authority: &Arc<TestAuthority>, address: &str) -> Self {
        let stop = CancellationToken::new();
        let informers = Informers::new(api.handle(), stop.clone());
        let tunnels = Tunnels::default();
        let signer: Arc<dyn NodeAuthority> = Arc::<TestAuthority>::clone(authority);
        let config = NodeStateConfig {
            cluster_domain: "cluster.local".into(),
            cluster_dns: vec!["10.96.0.10".parse().unwrap()],
            ..NodeStateConfig::default()
        };
        let state =
            NodeState::start(informers, signer, tunnels.clone(), config, stop.clone()).await;
        let (certificate, key) = authority.server();
        let tls = tonic::transport::ServerTlsConfig::new()
            .identity(tonic::transport::Identity::from_pem(certificate, key))
            .client_ca_root(tonic::transport::Certificate::from_pem(authority.ca()))
            .client_auth_optional(true);
        let listener = tokio::net::TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = state.clone().into_service();
        let ended = stop.clone().cancelled_owned();
        let task = tokio::spawn(async move {
            tonic::transport::Server::builder()
                .tls_config(tls)
                .unwrap()
                .add_service(service)
                .serve_with_incoming_shutdown(TcpListenerStream::new(listener), ended)
                .await
                .unwrap();
        });
        Self {
            state,
            tunnels,
            address,
            stop,
            task,
        }
    }

    async fn end(self) {
        self.stop.cancel();
        self.state.stopped().await;
        self.task.await.unwrap();
    }
}

/// Echoes input in upper case and ends with the code that the command names.
struct Echo;

#[async_trait]
impl SessionHandler for Echo {
    async fn serve(
        &self,
        request: open_session::Request,
        mut down: BoxStream<'static, pb::SessionDown>,
        up: mpsc::Sender<pb::SessionUp>,
    ) -> pb::SessionEnd {
        let open_session::Request::Exec(exec) = request else {
            return pb::SessionEnd {
                error: "only exec".into(),
                ..pb::SessionEnd::default()
            };
        };
        while let Some(message) = down.next().await {
            match message.message {
                Some(session_down::Message::Stdin(bytes)) => {
                    let loud = bytes.to_ascii_uppercase().into();
                    let message = Some(session_up::Message::Stdout(loud));
                    up.send(pb::SessionUp { message }).await.unwrap();
                }
                Some(session_down::Message::StdinClosed(_)) => break,
                Some(session_down::Message::Resize(_)) | None => {}
            }
        }
        let exit_code = exec.command[0].parse().unwrap();
        pb::SessionEnd {
            exit_code,
            ..pb::SessionEnd::default()
        }
    }
}

struct Agent {
    link: Link,
    hub: StateHub,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

fn link_config(dir: &std::path::Path, ca: &str, token: &str, server: SocketAddr) -> LinkConfig {
    std::fs::write(dir.join("ca.crt"), ca).unwrap();
    std::fs::write(dir.join("token"), token).unwrap();
    LinkConfig {
        node_name: "node-1".into(),
        control_planes: vec![server.to_string()],
        ca_file: dir.join("ca.crt"),
        join_token_file: dir.join("token"),
        pki_dir: dir.join("pki"),
        boot_id: "boot".into(),
    }
}

impl Agent {
    async fn start(config: LinkConfig) -> Self {
        let (writer, hub) = StateHub::new();
        let consumer = hub.consumer("test");
        let link = Link::connect(config).await.unwrap();
        let stop = CancellationToken::new();
        let (running, readers, ended) = (link.clone(), hub.clone(), stop.clone());
        let mut snapshots = hub.subscribe();
        let task = tokio::spawn(async move {
            let applying = async {
                while snapshots.changed().await.is_ok() {
                    let snapshot = Arc::clone(&snapshots.borrow_and_update());
                    consumer.applied(&snapshot);
                }
            };
            let link = running.run(writer, readers, Arc::new(Echo), ended);
            tokio::select! { () = link => {}, () = applying => {} }
        });
        Self {
            link,
            hub,
            stop,
            task,
        }
    }

    async fn until(&self, what: &str, holds: impl Fn(&Snapshot) -> bool) -> Arc<Snapshot> {
        let mut snapshots = self.hub.subscribe();
        let found = tokio::time::timeout(DEADLINE, snapshots.wait_for(|now| holds(now)));
        let found = found
            .await
            .unwrap_or_else(|_| panic!("not within {DEADLINE:?}: {what}"));
        Arc::clone(&found.unwrap())
    }

    async fn end(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

fn seed_service(api: &FakeApi, name: &str, ip: &str) {
    api.seed(
        resources::SERVICES,
        json!({"apiVersion": "v1", "kind": "Service",
            "metadata": {"namespace": "default", "name": name},
            "spec": {"clusterIP": ip, "clusterIPs": [ip], "ports": [{"port": 80}]}}),
    );
}

fn seed_pod(api: &FakeApi, name: &str, node: &str) -> String {
    let pod = api.seed(
        resources::PODS,
        json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"namespace": "default", "name": name},
            "spec": {"nodeName": node, "serviceAccountName": "default",
                "containers": [{"name": "c", "image": "i", "envFrom": [{"configMapRef": {"name": "settings"}}]}]},
            "status": {"phase": "Pending"}}),
    );
    let value: serde_json::Value = serde_json::from_slice(&pod.json).unwrap();
    value["metadata"]["uid"].as_str().unwrap().to_owned()
}

fn service_name(name: &str) -> ObjectName {
    ObjectName::new("default", name)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_joins_and_follows_the_cluster_over_restarts_of_the_control_plane() {
    let api = FakeApi::new();
    seed_service(&api, "one", "10.96.0.7");
    api.seed(
        resources::CONFIG_MAPS,
        json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"namespace": "default", "name": "settings"}, "data": {"a": "1"}}),
    );
    seed_pod(&api, "mine", "node-1");
    seed_pod(&api, "other", "node-2");
    let authority = Arc::new(TestAuthority::new());
    let server = Server::start(&api, &authority, "127.0.0.1:0").await;
    let address = server.address;
    let dir = tempfile::tempdir().unwrap();
    let agent = Agent::start(link_config(dir.path(), &authority.ca(), "right\n", address)).await;

    let first = agent
        .until("the snapshot is complete", |now| now.in_sync)
        .await;
    assert_eq!(first.pods.len(), 1);
    assert_eq!(first.config_maps.len(), 1);
    assert!(first.services.contains_key(&service_name("one")));
    assert_eq!(&*first.cluster.cluster_domain, "cluster.local");

    seed_service(&api, "two", "10.96.0.8");
    agent
        .until("a change arrives", |now| {
            now.services.contains_key(&service_name("two"))
        })
        .await;
    let acknowledged = async {
        loop {
            let node = server
                .state
                .progress()
                .into_iter()
                .find(|node| node.node == "node-1");
            if node.is_some_and(|node| node.sent == node.applied && node.lag.is_some()) {
                break;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, acknowledged)
        .await
        .expect("the change is acknowledged");

    // The control plane goes away; what it knew changes meanwhile; nothing is blanked.
    server.end().await;
    let epoch = Arc::clone(&first.epoch);
    assert_eq!(agent.hub.snapshot().services.len(), 2);
    let delete = control_plane_client::DeleteOptions::default();
    let key = ObjectKey::new("default", "one");
    api.handle()
        .delete(resources::SERVICES, &key, &delete)
        .await
        .unwrap();
    let server = Server::start(&api, &authority, &address.to_string()).await;
    let again = agent
        .until("the new control plane's snapshot is complete", |now| {
            now.epoch != epoch && now.in_sync && now.services.len() == 1
        })
        .await;
    assert!(again.services.contains_key(&service_name("two")));

    agent.end().await;
    server.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_token_is_refused_with_a_message_that_helps() {
    let authority = Arc::new(TestAuthority::new());
    let server = Server::start(&FakeApi::new(), &authority, "127.0.0.1:0").await;
    let dir = tempfile::tempdir().unwrap();
    let config = link_config(dir.path(), &authority.ca(), "wrong", server.address);
    let error = Link::connect(config).await.unwrap_err().to_string();
    assert!(error.contains("refused to let node node-1 join"), "{error}");
    assert!(
        error.contains("the join token is not valid in this cluster"),
        "{error}"
    );
    server.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reports_are_stored_and_only_for_the_nodes_own_pods() {
    let api = FakeApi::new();
    let uid = seed_pod(&api, "mine", "node-1");
    let other = seed_pod(&api, "other", "node-2");
    let authority = Arc::new(TestAuthority::new());
    let server = Server::start(&api, &authority, "127.0.0.1:0").await;
    let dir = tempfile::tempdir().unwrap();
    let agent = Agent::start(link_config(
        dir.path(),
        &authority.ca(),
        "right",
        server.address,
    ))
    .await;

    let pod = |name: &str, uid: &str| PodRef {
        namespace: "default".into(),
        name: name.into(),
        uid: uid.into(),
    };
    let status = PodStatus {
        phase: Some("Running".into()),
        ..PodStatus::default()
    };
    agent
        .link
        .pod_status(&pod("mine", &uid), &status)
        .await
        .unwrap();
    let key = ObjectKey::new("default", "mine");
    let stored = api.handle().get(resources::PODS, &key).await.unwrap();
    let stored: serde_json::Value = serde_json::from_slice(&stored.json).unwrap();
    assert_eq!(stored["status"]["phase"], "Running");

    let foreign = agent
        .link
        .pod_status(&pod("other", &other), &status)
        .await
        .unwrap_err();
    assert!(
        matches!(foreign, UpstreamError::Rejected { .. }),
        "{foreign}"
    );
    let gone = agent
        .link
        .pod_status(&pod("mine", "another-uid"), &status)
        .await
        .unwrap_err();
    assert!(matches!(gone, UpstreamError::Gone { .. }), "{gone}");

    agent.link.pod_finished(&pod("mine", &uid)).await.unwrap();
    assert!(
        api.handle()
            .get(resources::PODS, &key)
            .await
            .unwrap_err()
            .is_not_found()
    );
    agent.end().await;
    server.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_carries_input_output_and_the_exit_code() {
    let authority = Arc::new(TestAuthority::new());
    let server = Server::start(&FakeApi::new(), &authority, "127.0.0.1:0").await;
    let dir = tempfile::tempdir().unwrap();
    let agent = Agent::start(link_config(
        dir.path(),
        &authority.ca(),
        "right",
        server.address,
    ))
    .await;
    agent.until("connected", |now| now.in_sync).await;

    let exec = pb::ExecRequest {
        command: vec!["7".into()],
        ..pb::ExecRequest::default()
    };
    let mut session = server
        .tunnels
        .open("node-1", open_session::Request::Exec(exec))
        .await
        .unwrap();
    let send = |message| pb::SessionDown {
        message: Some(message),
    };
    session
        .down
        .send(send(session_down::Message::Stdin("hello".into())))
        .await
        .unwrap();
    session
        .down
        .send(send(session_down::Message::StdinClosed(pb::StdinClosed {})))
        .await
        .unwrap();
    let Some(session_up::Message::Stdout(bytes)) = session.up.recv().await else {
        panic!("no output")
    };
    assert_eq!(&bytes[..], b"HELLO");
    let Some(session_up::Message::End(end)) = session.up.recv().await else {
        panic!("no end")
    };
    assert_eq!(end.exit_code, 7);

    let absent = server
        .tunnels
        .open("node-9", open_session::Request::Log(Default::default()));
    assert_eq!(
        absent.await.unwrap_err().to_string(),
        "node node-9 is not connected to the control plane"
    );
    agent.end().await;
    server.end().await;
}
