//! What every cluster has from its first second: four namespaces, the system's priority classes,
//! flow schemas and priority levels, the range of service addresses, and the `kubernetes` service.
//! Where that service leads is told by `members`.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::addresses;
use crate::registry::{flow_control, priority_class};
use crate::server::{Server, WriteContext};
use crate::status::StatusError;

const NAMESPACES: [&str; 4] = ["default", "kube-node-lease", "kube-public", "kube-system"];
const SERVICE: &str = "kubernetes";

/// Creates what is missing. `advertise`: its port is where the service's own port leads.
///
/// # Errors
/// The store refuses a write.
pub(crate) async fn bootstrap(server: &Server, advertise: SocketAddr) -> Result<(), StatusError> {
    let context = WriteContext::own();
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
    for (group, plural, object) in fixed_objects(server) {
        let kind = server.kind(group, "v1", plural)?;
        server.ensure(&kind, "", object, &context).await?;
    }
    let services = server.kind("", "v1", "services")?;
    let address = server.service_ranges.primary.address(1);
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

/// Objects of the cluster that are made once: group, plural, object.
fn fixed_objects(server: &Server) -> Vec<(&'static str, &'static str, Value)> {
    let classes = priority_class::system_classes()
        .map(|class| ("scheduling.k8s.io", "priorityclasses", class));
    let group = "flowcontrol.apiserver.k8s.io";
    let levels = flow_control::levels().into_iter();
    let levels = levels.map(|level| (group, "prioritylevelconfigurations", level));
    let schemas = flow_control::schemas().into_iter();
    let schemas = schemas.map(|schema| (group, "flowschemas", schema));
    let range = addresses::default_range(server);
    let range = ("networking.k8s.io", "servicecidrs", range);
    let all = classes.chain(levels).chain(schemas);
    all.chain(std::iter::once(range)).collect()
}
