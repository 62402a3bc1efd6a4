//! The gRPC service that nodes call.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;

use control_plane_client::informers::Informers;
use futures::{Stream, StreamExt as _};
use proto::agent::v1 as pb;
use proto::agent::v1::node_link_server::{NodeLink, NodeLinkServer};
use proto::agent::v1::node_message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming};
use tracing::{info, warn};

use crate::authority::{AuthorityError, NodeAuthority};
use crate::feed::Feed;
use crate::index::Index;
use crate::lag::{NodeProgress, Progress};
use crate::peer;
use crate::relay;
use crate::reports::Reports;
use crate::stream::{DOWN_QUEUE, NodeStream};
use crate::tunnel::Tunnels;

/// Protocol version spoken here.
const PROTOCOL: u32 = 1;
/// How often nodes say that they are alive (`kubelet --node-status-update-frequency`).
const HEARTBEAT_SECONDS: u32 = 10;
/// Largest message taken from a node: a pod's status or a node's, with room.
const MESSAGE_SIZE_MAX: usize = 4 << 20;

/// What every node is told about the cluster.
#[derive(Debug, Clone, Default)]
pub struct NodeStateConfig {
    /// Zone of cluster names.
    pub cluster_domain: String,
    /// Addresses of the cluster DNS service.
    pub cluster_dns: Vec<IpAddr>,
    /// Ranges of service addresses.
    pub service_cidrs: Vec<String>,
    /// Ranges of pod addresses.
    pub pod_cidrs: Vec<String>,
    /// API servers, `https://host:port`.
    pub api_servers: Vec<String>,
    /// Lowest and highest node port.
    pub node_ports: (u16, u16),
}

/// The nodes' side of the control plane.
#[derive(Clone)]
pub struct NodeState {
    shared: Arc<Shared>,
}

struct Shared {
    index: Arc<Index>,
    progress: Arc<Progress>,
    tunnels: Tunnels,
    reports: Arc<Reports>,
    authority: Arc<dyn NodeAuthority>,
    epoch: String,
    config: NodeStateConfig,
    tasks: TaskTracker,
    stop: CancellationToken,
    _feed: Feed,
}

impl std::fmt::Debug for NodeState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeState")
            .field("epoch", &self.shared.epoch)
            .finish_non_exhaustive()
    }
}

impl NodeState {
    /// Waits for the informers' first lists, then is ready to serve nodes. `tunnels` is shared with
    /// whoever opens sessions.
    pub async fn start(
        informers: Informers,
        authority: Arc<dyn NodeAuthority>,
        tunnels: Tunnels,
        config: NodeStateConfig,
        stop: CancellationToken,
    ) -> Self {
        let index = Arc::new(Index::default());
        let feed = Feed::start(&informers, &index).await;
        let shared = Shared {
            index,
            progress: Arc::default(),
            tunnels,
            reports: Arc::new(Reports::new(informers)),
            authority,
            epoch: uuid::Uuid::new_v4().to_string(),
            config,
            tasks: TaskTracker::new(),
            stop,
            _feed: feed,
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// The service for a tonic server. Its TLS must verify client certificates where they are shown
    /// and let connections without one in: those can only join.
    #[must_use]
    pub fn into_service(self) -> NodeLinkServer<Self> {
        NodeLinkServer::new(self).max_decoding_message_size(MESSAGE_SIZE_MAX)
    }

    /// How far each node is.
    #[must_use]
    pub fn progress(&self) -> Vec<NodeProgress> {
        self.shared.progress.all()
    }

    /// Ends every node's stream; agents connect again.
    pub fn stop_streams(&self) {
        self.shared.stop.cancel();
    }

    /// Waits until every stream has ended, which is after `stop`.
    pub async fn stopped(&self) {
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
        self.shared.tunnels.stopped().await;
    }

    fn welcome(&self) -> pb::Welcome {
        let config = &self.shared.config;
        pb::Welcome {
            epoch: self.shared.epoch.clone(),
            protocol: PROTOCOL,
            heartbeat_seconds: HEARTBEAT_SECONDS,
            cluster: Some(pb::ClusterConfig {
                cluster_domain: config.cluster_domain.clone(),
                cluster_dns: config.cluster_dns.iter().map(ToString::to_string).collect(),
                service_cidrs: config.service_cidrs.clone(),
                pod_cidrs: config.pod_cidrs.clone(),
                api_servers: config.api_servers.clone(),
                ca: self.shared.authority.ca(),
                node_port_first: config.node_ports.0.into(),
                node_port_last: config.node_ports.1.into(),
            }),
        }
    }

    /// Reads what the node says until it stops saying it.
    async fn listen(&self, node: &str, mut up: Streaming<pb::NodeMessage>) {
        loop {
            let message = tokio::select! {
                () = self.shared.stop.cancelled() => return,
                message = up.message() => message,
            };
            let message = match message {
                Ok(Some(message)) => message.message,
                Ok(None) => return,
                Err(error) => {
                    info!(node, error = %error.message(), "the node's stream broke");
                    return;
                }
            };
            match message {
                Some(node_message::Message::Ack(ack)) => {
                    self.shared.progress.acknowledged(node, &ack);
                }
                Some(node_message::Message::Heartbeat(_)) => {
                    if let Err(error) = self.shared.reports.heartbeat(node).await {
                        warn!(node, %error, "the node's lease could not be renewed");
                    }
                }
                Some(node_message::Message::Hello(_)) | None => {}
            }
        }
    }

    /// Serves one stream until it ends.
    async fn serve(
        self,
        node: String,
        hello: pb::Hello,
        up: Streaming<pb::NodeMessage>,
        down: mpsc::Sender<Result<pb::ServerMessage, Status>>,
    ) {
        let shared = &self.shared;
        let generation = shared.tunnels.join(&node, down.clone());
        shared.progress.connected(&node, true);
        info!(node, "connected");
        let stream = NodeStream {
            node: node.clone(),
            index: Arc::clone(&shared.index),
            progress: Arc::clone(&shared.progress),
            down,
            stop: shared.stop.clone(),
        };
        tokio::select! {
            () = self.listen(&node, up) => {}
            () = stream.run(hello, self.welcome()) => {}
        }
        if shared.tunnels.leave(&node, generation) {
            shared.progress.connected(&node, false);
            info!(node, "disconnected");
        }
    }
}

fn authority_status(error: &AuthorityError) -> Status {
    match error {
        AuthorityError::Token => Status::unauthenticated(error.to_string()),
        AuthorityError::Request { .. } => Status::invalid_argument(error.to_string()),
        AuthorityError::Internal { .. } => Status::unavailable(error.to_string()),
    }
}

#[tonic::async_trait]
impl NodeLink for NodeState {
    async fn join(
        &self,
        request: Request<pb::JoinRequest>,
    ) -> Result<Response<pb::JoinResponse>, Status> {
        let request = request.into_inner();
        let authority = &self.shared.authority;
        authority
            .check_token(&request.token)
            .await
            .map_err(|error| authority_status(&error))?;
        let certificate = authority
            .sign(&request.node_name, &request.csr)
            .await
            .map_err(|error| authority_status(&error))?;
        info!(node = %request.node_name, "joined");
        Ok(Response::new(pb::JoinResponse {
            certificate,
            ca: authority.ca(),
        }))
    }

    async fn renew(
        &self,
        request: Request<pb::RenewRequest>,
    ) -> Result<Response<pb::JoinResponse>, Status> {
        let node = peer::node_name(&request)?;
        let authority = &self.shared.authority;
        let certificate = authority
            .sign(&node, &request.into_inner().csr)
            .await
            .map_err(|error| authority_status(&error))?;
        Ok(Response::new(pb::JoinResponse {
            certificate,
            ca: authority.ca(),
        }))
    }

    type SyncStream = Pin<Box<dyn Stream<Item = Result<pb::ServerMessage, Status>> + Send>>;

    async fn sync(
        &self,
        request: Request<Streaming<pb::NodeMessage>>,
    ) -> Result<Response<Self::SyncStream>, Status> {
        let node = peer::node_name(&request)?;
        let mut up = request.into_inner();
        let first = up.message().await?.and_then(|first| first.message);
        let Some(node_message::Message::Hello(hello)) = first else {
            return Err(Status::invalid_argument(
                "the first message of a stream must be a hello",
            ));
        };
        if hello.node_name != node {
            return Err(Status::permission_denied(format!(
                "the certificate is that of node {node}, the hello names {:?}",
                hello.node_name
            )));
        }
        if !(hello.protocol_min..=hello.protocol_max).contains(&PROTOCOL) {
            return Err(Status::failed_precondition(format!(
                "this control plane speaks protocol {PROTOCOL}, the agent {} to {}: upgrade the older",
                hello.protocol_min, hello.protocol_max
            )));
        }
        let (down, outgoing) = mpsc::channel(DOWN_QUEUE);
        self.shared
            .tasks
            .spawn(self.clone().serve(node, hello, up, down));
        Ok(Response::new(ReceiverStream::new(outgoing).boxed()))
    }

    async fn report_pods(
        &self,
        request: Request<pb::ReportPodsRequest>,
    ) -> Result<Response<pb::ReportPodsResponse>, Status> {
        let node = peer::node_name(&request)?;
        let pods = request.into_inner().pods;
        let results = pods
            .iter()
            .map(|report| self.shared.reports.pod(&node, report));
        let results = futures::future::join_all(results).await;
        Ok(Response::new(pb::ReportPodsResponse { results }))
    }

    async fn report_node(
        &self,
        request: Request<pb::ReportNodeRequest>,
    ) -> Result<Response<pb::ReportNodeResponse>, Status> {
        let node = peer::node_name(&request)?;
        let stored = self
            .shared
            .reports
            .node(&node, &request.into_inner().node)
            .await?;
        Ok(Response::new(pb::ReportNodeResponse { node: stored }))
    }

    async fn report_events(
        &self,
        request: Request<pb::ReportEventsRequest>,
    ) -> Result<Response<pb::ReportEventsResponse>, Status> {
        peer::node_name(&request)?;
        for event in &request.into_inner().events {
            self.shared.reports.event(event).await?;
        }
        Ok(Response::new(pb::ReportEventsResponse {}))
    }

    async fn issue_token(
        &self,
        request: Request<pb::IssueTokenRequest>,
    ) -> Result<Response<pb::IssueTokenResponse>, Status> {
        let node = peer::node_name(&request)?;
        let issued = self
            .shared
            .reports
            .token(&node, &request.into_inner())
            .await?;
        Ok(Response::new(issued))
    }

    type SessionStream = Pin<Box<dyn Stream<Item = Result<pb::SessionDown, Status>> + Send>>;

    async fn session(
        &self,
        request: Request<Streaming<pb::SessionUp>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let node = peer::node_name(&request)?;
        let down = self
            .shared
            .tunnels
            .accept(&node, request.into_inner())
            .await?;
        Ok(Response::new(ReceiverStream::new(down).map(Ok).boxed()))
    }

    type RelayStream = Pin<Box<dyn Stream<Item = Result<pb::SessionUp, Status>> + Send>>;

    async fn relay(
        &self,
        request: Request<Streaming<pb::RelayDown>>,
    ) -> Result<Response<Self::RelayStream>, Status> {
        peer::control_plane(&request)?;
        let up = relay::accept(&self.shared.tunnels, request.into_inner()).await?;
        Ok(Response::new(ReceiverStream::new(up).map(Ok).boxed()))
    }
}
