//! What every cluster has from its first second: four namespaces, and the `kubernetes` service.
//! Where that service leads is told by `members`.

use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::json;

use crate::auth::User;
use crate::server::{Server, WriteContext};
use crate::status::StatusError;

const NAMESPACES: [&str; 4] = ["default", "kube-node-lease", "kube-public", "kube-system"];
const SERVICE: &str = "kubernetes";

/// Creates what is missing. `advertise`: its port is where the service's own port leads.
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
    server.ensure(&services, "default", service, &context).await
}
