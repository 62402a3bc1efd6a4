//! What every cluster has from its first second: four namespaces, and the `kubernetes` service
//! that leads to this server.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use serde_json::{Value, json};

use crate::auth::User;
use crate::registry::Kind;
use crate::server::{Server, Target, WriteContext};
use crate::status::StatusError;

const NAMESPACES: [&str; 4] = ["default", "kube-node-lease", "kube-public", "kube-system"];
const SERVICE: &str = "kubernetes";

/// Creates what is missing and points the `kubernetes` service at `advertise`.
///
/// # Errors
/// The store refuses a write.
pub(crate) async fn bootstrap(server: &Server, advertise: SocketAddr) -> Result<(), StatusError> {
    let context = WriteContext::of(Arc::new(User::control_plane("apiserver")));
    let namespaces = server.kind("", "v1", "namespaces")?;
    for name in NAMESPACES {
        server
            .ensure(
                &namespaces,
                "",
                json!({"metadata": {"name": name}}),
                &context,
            )
            .await?;
    }
    let services = server.kind("", "v1", "services")?;
    let address = server.service_cidr.address(1);
    let service = json!({
        "metadata": {
            "name": SERVICE,
            "labels": {"component": "apiserver", "provider": "kubernetes"},
        },
        "spec": {
            "type": "ClusterIP", "clusterIP": address.to_string(),
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": advertise.port()}],
        },
    });
    server
        .ensure(&services, "default", service, &context)
        .await?;
    let endpoints = json!({
        "metadata": {
            "name": SERVICE,
            "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"},
        },
        "subsets": [{
            "addresses": [{"ip": advertise.ip().to_string()}],
            "ports": [{"name": "https", "port": advertise.port(), "protocol": "TCP"}],
        }],
    });
    hold(
        server,
        &server.kind("", "v1", "endpoints")?,
        endpoints,
        &context,
    )
    .await?;
    let family = match advertise.ip() {
        IpAddr::V4(_) => "IPv4",
        IpAddr::V6(_) => "IPv6",
    };
    let slice = json!({
        "metadata": {"name": SERVICE, "labels": {"kubernetes.io/service-name": SERVICE}},
        "addressType": family,
        "endpoints": [
            {"addresses": [advertise.ip().to_string()], "conditions": {"ready": true}},
        ],
        "ports": [{"name": "https", "port": advertise.port(), "protocol": "TCP"}],
    });
    hold(
        server,
        &server.kind("discovery.k8s.io", "v1", "endpointslices")?,
        slice,
        &context,
    )
    .await
}

/// Makes the object of `default` what `wanted` says, created or changed.
async fn hold(
    server: &Server,
    kind: &Arc<Kind>,
    wanted: Value,
    context: &WriteContext,
) -> Result<(), StatusError> {
    server
        .ensure(kind, "default", wanted.clone(), context)
        .await?;
    let target = Target::new(kind, "default", SERVICE);
    server
        .modify(&target, context, |_| Ok(wanted.clone()))
        .await
        .map(|_| ())
}
