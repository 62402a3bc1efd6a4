//! Who is calling: the node, or the control plane, that the client certificate names.

use tonic::{Request, Status};

/// Prefix of a node's common name (Kubernetes, "Using Node Authorization").
const NODE_USER_PREFIX: &str = "system:node:";
/// Organisation of nodes.
const NODE_GROUP: &str = "system:nodes";

/// Common name of control planes among themselves.
pub const CONTROL_PLANE_USER: &str = "system:skep-control-plane";
/// Organisation of control planes.
pub const CONTROL_PLANE_GROUP: &str = "system:skep-control-planes";

/// Refuses who is not another control plane.
pub(crate) fn control_plane<T>(request: &Request<T>) -> Result<(), Status> {
    let certificates = request.peer_certs().unwrap_or_default();
    let is_one = certificates.first().is_some_and(|certificate| {
        subject(certificate, CONTROL_PLANE_GROUP).as_deref() == Some(CONTROL_PLANE_USER)
    });
    if is_one {
        return Ok(());
    }
    Err(Status::permission_denied(
        "this call is for other control planes of the cluster",
    ))
}

/// The node that a verified client certificate names.
pub(crate) fn node_name<T>(request: &Request<T>) -> Result<String, Status> {
    let certificates = request.peer_certs().unwrap_or_default();
    let Some(certificate) = certificates.first() else {
        return Err(Status::unauthenticated(
            "this call needs a node's client certificate; join the cluster first",
        ));
    };
    node_of(certificate).ok_or_else(|| {
        Status::permission_denied("the client certificate is not that of a node (system:nodes)")
    })
}

fn node_of(certificate: &[u8]) -> Option<String> {
    let name = subject(certificate, NODE_GROUP)?;
    let name = name.strip_prefix(NODE_USER_PREFIX)?;
    (!name.is_empty()).then(|| name.to_owned())
}

/// The common name, when the certificate is of `group`.
fn subject(certificate: &[u8], group: &str) -> Option<String> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let subject = parsed.subject();
    let belongs = subject
        .iter_organization()
        .any(|found| found.as_str().ok() == Some(group));
    let name = subject.iter_common_name().next()?.as_str().ok()?;
    belongs.then(|| name.to_owned())
}
