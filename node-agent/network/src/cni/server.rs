//! The agent's side: a Unix socket that answers the plugin, one call a connection.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use super::{Answer, Call, MESSAGE_SIZE_MAX, code, error, version_of};
use crate::ipam::AllocateError;
use crate::pod::{Attached, PodNetwork, PodNetworkError};
use crate::routes::chain;

/// Calls served at the same time; more wait.
const CALLS_MAX: usize = 64;

/// Listens for the plugin.
#[derive(Debug)]
pub struct CniServer {
    listener: UnixListener,
    path: PathBuf,
    pods: Arc<PodNetwork>,
}

impl CniServer {
    /// Binds the socket at `path` (0600), in place of one that a dead agent left.
    ///
    /// # Errors
    /// The directory or socket cannot be made.
    pub fn bind(path: &Path, pods: Arc<PodNetwork>) -> io::Result<Self> {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        Ok(Self {
            listener,
            path: path.to_owned(),
            pods,
        })
    }

    /// Serves calls until `stop`, then lets those under way end.
    pub async fn run(self, stop: CancellationToken) {
        let tasks = TaskTracker::new();
        let places = Arc::new(Semaphore::new(CALLS_MAX));
        loop {
            // Cancel-safe: `accept` loses no connection.
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = self.listener.accept() => accepted,
            };
            let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                break;
            };
            match accepted {
                Ok((stream, _)) => {
                    let pods = Arc::clone(&self.pods);
                    tasks.spawn(async move {
                        if let Err(error) = serve(stream, &pods).await {
                            warn!(%error, "a CNI call was not answered");
                        }
                        drop(place);
                    });
                }
                Err(error) => warn!(%error, "cannot accept a CNI call"),
            }
        }
        tasks.close();
        tasks.wait().await;
        if let Err(error) = std::fs::remove_file(&self.path) {
            debug!(%error, "the CNI socket was gone already");
        }
    }
}

async fn serve(mut stream: UnixStream, pods: &PodNetwork) -> io::Result<()> {
    let mut request = Vec::new();
    (&mut stream)
        .take(MESSAGE_SIZE_MAX)
        .read_to_end(&mut request)
        .await?;
    let answer = match serde_json::from_slice::<Call>(&request) {
        Ok(call) => answer(&call, pods).await,
        Err(failure) => error(
            "1.0.0",
            code::DECODE,
            "the call is not one",
            &failure.to_string(),
        ),
    };
    stream.write_all(&serde_json::to_vec(&answer)?).await?;
    stream.shutdown().await
}

async fn answer(call: &Call, pods: &PodNetwork) -> Answer {
    let version = version_of(&call.config);
    let needs_sandbox = matches!(call.command.as_str(), "ADD" | "DEL" | "CHECK");
    if needs_sandbox && call.container_id.is_empty() {
        let message = "CNI_CONTAINERID is empty";
        return error(version, code::INVALID_ENVIRONMENT, message, "");
    }
    let sandbox = call.container_id.as_str();
    let done = match call.command.as_str() {
        "ADD" if call.netns.is_empty() || call.interface.is_empty() => {
            let message = "CNI_NETNS or CNI_IFNAME is empty";
            return error(version, code::INVALID_ENVIRONMENT, message, "");
        }
        "ADD" => {
            let added = pods
                .add(sandbox, Path::new(&call.netns), &call.interface)
                .await;
            added.map(|attached| {
                info!(sandbox, device = %attached.host_device, addresses = ?attached.addresses,
                    "pod network added");
                result(version, call, &attached)
            })
        }
        "DEL" => pods.delete(sandbox).await.map(|()| Value::Null),
        "CHECK" => pods.check(sandbox).await.map(|()| Value::Null),
        // Dead sandboxes are found by the agent itself at start.
        "GC" => Ok(Value::Null),
        "STATUS" if pods.has_range() => Ok(Value::Null),
        "STATUS" => {
            let message = "this node has no pod address range yet";
            return error(version, code::NOT_AVAILABLE, message, "");
        }
        other => {
            let message = format!("CNI_COMMAND {other:?} is not known");
            return error(version, code::INVALID_ENVIRONMENT, &message, "");
        }
    };
    match done {
        Ok(body) => Answer { ok: true, body },
        Err(failure) => {
            warn!(sandbox, command = %call.command, error = %chain(&failure), "CNI call failed");
            let again = matches!(failure, PodNetworkError::Address(AllocateError::NoRange));
            let code = if again {
                code::TRY_AGAIN
            } else {
                code::NETWORK
            };
            error(version, code, &failure.to_string(), &chain(&failure))
        }
    }
}

/// The result of ADD (CNI 1.0.0, "ADD Success"; before 1.0.0 each address names its family).
fn result(version: &str, call: &Call, attached: &Attached) -> Value {
    let address = |family: &str, text: String, gateway: &str| {
        let mut one = json!({"address": text, "gateway": gateway, "interface": 1});
        if version.starts_with("0.") {
            one["version"] = json!(family);
        }
        one
    };
    let v4 = attached
        .addresses
        .v4
        .map(|a| address("4", format!("{a}/32"), "169.254.1.1"));
    let v6 = attached
        .addresses
        .v6
        .map(|a| address("6", format!("{a}/128"), "fe80::1"));
    let route = |destination: &str| json!({"dst": destination});
    let routes: Vec<Value> = v4
        .iter()
        .map(|_| route("0.0.0.0/0"))
        .chain(v6.iter().map(|_| route("::/0")))
        .collect();
    json!({
        "cniVersion": version,
        "interfaces": [
            {"name": attached.host_device, "mac": attached.host_mac.to_string()},
            {"name": call.interface, "mac": attached.pod_mac.to_string(), "sandbox": call.netns},
        ],
        "ips": v4.into_iter().chain(v6).collect::<Vec<_>>(),
        "routes": routes,
        "dns": {},
    })
}
