//! The operator's socket: `inspect/v1` over what the datapath's pins and the other rooms say.
//!
//! Owns: the Unix socket and the mapping to messages. Answers are read from the kernel's maps at the
//! moment of the question, so they show what is in force. Reading takes milliseconds and is done on
//! a blocking thread.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use node_agent_datapath::inspect::{InspectError, Inspector, Query};
use node_agent_proxy::{LagHistogram, Proxy};
use node_agent_state::StateHub;
use node_agent_state::link::Link;
use proto::inspect::v1 as pb;
use proto::inspect::v1::inspect_server::{Inspect, InspectServer};
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

/// Who may ask: root and the socket's group.
const SOCKET_MODE: u32 = 0o660;

/// Where answers come from.
#[derive(Debug)]
pub(crate) struct Sources {
    pub(crate) node: String,
    /// As given in the configuration.
    pub(crate) link: Link,
    pub(crate) hub: StateHub,
    pub(crate) proxy: Proxy,
    /// Where the BPF file system is mounted.
    pub(crate) bpffs: PathBuf,
}

/// Serves the socket until `stop`, then removes it.
/// # Errors
/// The socket cannot be made, or the listener failed.
pub(crate) async fn serve(
    socket: &Path,
    sources: Sources,
    stop: CancellationToken,
) -> io::Result<()> {
    let listener = bind(socket)?;
    let service = InspectService {
        sources,
        started: SystemTime::now(),
    };
    let served = tonic::transport::Server::builder()
        .add_service(InspectServer::new(service))
        .serve_with_incoming_shutdown(UnixListenerStream::new(listener), stop.cancelled_owned())
        .await;
    // Only ours: a successor that is already there has replaced it.
    if let Err(error) = fs::remove_file(socket) {
        tracing::debug!(error = %error, "socket not removed");
    }
    served.map_err(io::Error::other)
}

/// Binds the socket in place of one that a killed agent has left.
fn bind(socket: &Path) -> io::Result<UnixListener> {
    if let Some(directory) = socket.parent() {
        fs::create_dir_all(directory)?;
    }
    match fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(socket)?;
    fs::set_permissions(socket, Permissions::from_mode(SOCKET_MODE))?;
    Ok(listener)
}

#[derive(Debug)]
struct InspectService {
    sources: Sources,
    started: SystemTime,
}

fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_secs())
}

fn microseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn lag(histogram: &LagHistogram) -> pb::Lag {
    let quantile = |share| histogram.quantile(share).map_or(0, microseconds);
    pb::Lag {
        changes: histogram.count(),
        p50_us: quantile(0.5),
        p99_us: quantile(0.99),
        max_us: microseconds(histogram.max()),
    }
}

impl InspectService {
    fn components(&self) -> Vec<pb::Component> {
        let proxy = self.sources.proxy.status();
        let consumers = self.sources.hub.consumers();
        let component = |state: &node_agent_state::ConsumerState| {
            // The others have no trouble of their own to tell: they retry until they have applied.
            let trouble = match state.name {
                "proxy" => proxy.last_error.clone(),
                _ => None,
            };
            pb::Component {
                name: state.name.to_owned(),
                healthy: trouble.is_none(),
                message: trouble.unwrap_or_default(),
                revision_applied: state.revision,
            }
        };
        consumers.iter().map(component).collect()
    }

    fn status(&self) -> pb::StatusResponse {
        let snapshot = self.sources.hub.snapshot();
        let proxy = self.sources.proxy.status();
        let count = |len: usize| u32::try_from(len).unwrap_or(u32::MAX);
        let link = self.sources.link.status().borrow().clone();
        let mut components = self.components();
        components.push(pb::Component {
            name: "link".to_owned(),
            healthy: link.connected,
            message: link.error.unwrap_or_default(),
            revision_applied: snapshot.revision,
        });
        pb::StatusResponse {
            node: self.sources.node.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started_unix_seconds: unix_seconds(self.started),
            connected: link.connected,
            control_plane: self.sources.link.control_plane().to_owned(),
            revision_seen: snapshot.revision,
            revision_applied: self.sources.hub.progress().borrow().revision,
            pods: count(snapshot.pods.len()),
            services: count(snapshot.services.len()),
            components,
            lag: Some(lag(&proxy.lag)),
        }
    }

    fn names(&self) -> pb::NamesResponse {
        let table = self.sources.proxy.names().table();
        let services = table
            .services
            .into_iter()
            .map(|(index, name)| pb::ServiceName {
                index,
                namespace: name.namespace,
                name: name.name,
                port_name: name.port_name,
            });
        let backends = table
            .backends
            .into_iter()
            .map(|(index, name)| pb::BackendName {
                index,
                namespace: name.namespace,
                pod: name.pod,
                node: name.node,
            });
        pb::NamesResponse {
            services: services.collect(),
            backends: backends.collect(),
        }
    }
}

fn query(request: pb::ReadRequest) -> Result<Query, Status> {
    Ok(match pb::View::try_from(request.view) {
        Ok(pb::View::LoadBalancer) => Query::LoadBalancer,
        Ok(pb::View::Maps) => Query::Maps,
        Ok(pb::View::Map) => Query::Map { name: request.name },
        Ok(pb::View::Flows) => Query::Flows,
        Ok(pb::View::Counters) => Query::Counters,
        Ok(pb::View::Programs) => Query::Programs,
        Ok(pb::View::Pods) => Query::Pods,
        Ok(pb::View::Routes) => Query::Routes,
        Ok(pb::View::Writer) => Query::Writer,
        Ok(pb::View::Unspecified) | Err(_) => {
            return Err(Status::invalid_argument(format!(
                "view {} is not known to this version of the agent",
                request.view
            )));
        }
    })
}

fn refuse(error: &InspectError) -> Status {
    let message = error.to_string();
    match error {
        InspectError::NotFound { .. } | InspectError::NoSuchMap { .. } => {
            Status::not_found(message)
        }
        InspectError::Denied { .. } => Status::permission_denied(message),
        InspectError::Open { .. } | InspectError::Read { .. } | InspectError::Map(_) => {
            Status::internal(message)
        }
    }
}

#[tonic::async_trait]
impl Inspect for InspectService {
    async fn status(
        &self,
        _request: Request<pb::StatusRequest>,
    ) -> Result<Response<pb::StatusResponse>, Status> {
        Ok(Response::new(InspectService::status(self)))
    }

    async fn names(
        &self,
        _request: Request<pb::NamesRequest>,
    ) -> Result<Response<pb::NamesResponse>, Status> {
        Ok(Response::new(InspectService::names(self)))
    }

    async fn read(
        &self,
        request: Request<pb::ReadRequest>,
    ) -> Result<Response<pb::ReadResponse>, Status> {
        let query = query(request.into_inner())?;
        let bpffs = self.sources.bpffs.clone();
        let read = tokio::task::spawn_blocking(move || {
            Inspector::open(&bpffs).and_then(|inspector| inspector.document(&query))
        });
        match read.await {
            Ok(Ok(document)) => Ok(Response::new(pb::ReadResponse { document })),
            Ok(Err(error)) => Err(refuse(&error)),
            Err(error) => Err(Status::internal(format!(
                "reading the maps failed: {error}"
            ))),
        }
    }
}
