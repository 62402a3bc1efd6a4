//! Who is calling: the node named by the client certificate.

use tonic::{Request, Status};

/// Prefix of a node's common name (Kubernetes, "Using Node Authorization").
const NODE_USER_PREFIX: &str = "system:node:";
/// Organisation of nodes.
const NODE_GROUP: &str = "system:nodes";

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
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let subject = parsed.subject();
    let is_node = subject
        .iter_organization()
        .any(|group| group.as_str().ok() == Some(NODE_GROUP));
    let name = subject.iter_common_name().next()?.as_str().ok()?;
    let name = name.strip_prefix(NODE_USER_PREFIX)?;
    (is_node && !name.is_empty()).then(|| name.to_owned())
}
