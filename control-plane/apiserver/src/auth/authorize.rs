//! Authorisation: a trait, and the rules that hold without any policy object.
//!
//! Role-based rules are kinds of a later step; they become another [`Authorizer`] in front.

use super::{AUTHENTICATED, MASTERS, NODES, User};

/// What is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes {
    /// `get`, `list`, `create`, … ; lower-case HTTP method for other paths.
    pub verb: String,
    /// API group, empty for core.
    pub group: String,
    /// API version.
    pub version: String,
    /// Plural; empty for paths that name no resource.
    pub resource: String,
    /// Subresource, or empty.
    pub subresource: String,
    /// Namespace, or empty.
    pub namespace: String,
    /// Object name, or empty.
    pub name: String,
    /// The path, for requests that name no resource.
    pub path: String,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It may.
    Allowed {
        /// Why.
        reason: String,
    },
    /// Nothing allows it.
    Denied,
}

/// Decides whether a user may do something.
pub trait Authorizer: Send + Sync + std::fmt::Debug {
    /// The decision for one request.
    fn authorize(&self, user: &User, attributes: &Attributes) -> Decision;
}

/// Owners may everything, nodes what a node needs, everybody known may look around.
#[derive(Debug, Default)]
pub struct BuiltinAuthorizer;

const HEALTH_PATHS: &[&str] = &["/healthz", "/livez", "/readyz", "/version"];
const DISCOVERY_PATHS: &[&str] = &["/api", "/apis", "/openapi"];

impl Authorizer for BuiltinAuthorizer {
    fn authorize(&self, user: &User, attributes: &Attributes) -> Decision {
        let allowed = |reason: &str| Decision::Allowed {
            reason: reason.to_owned(),
        };
        if user.in_group(MASTERS) {
            return allowed("member of system:masters");
        }
        if attributes.resource.is_empty() {
            let below = |roots: &[&str]| {
                roots.iter().any(|root| {
                    attributes
                        .path
                        .strip_prefix(root)
                        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
                })
            };
            if below(HEALTH_PATHS) && attributes.verb == "get" {
                return allowed("health and version are public");
            }
            if user.in_group(AUTHENTICATED) && below(DISCOVERY_PATHS) && attributes.verb == "get" {
                return allowed("discovery");
            }
            return Decision::Denied;
        }
        if user.in_group(AUTHENTICATED) && is_self_review(attributes) {
            return allowed("reviews of oneself");
        }
        if user.in_group(NODES) && node_may(user, attributes) {
            return allowed("node");
        }
        Decision::Denied
    }
}

fn is_self_review(attributes: &Attributes) -> bool {
    attributes.verb == "create"
        && matches!(
            attributes.resource.as_str(),
            "selfsubjectreviews" | "selfsubjectaccessreviews" | "selfsubjectrulesreviews"
        )
}

/// The least a node needs over REST; its pods and their secrets come over its own stream.
fn node_may(user: &User, attributes: &Attributes) -> bool {
    let Some(node) = user.name.strip_prefix("system:node:") else {
        return false;
    };
    let reads = matches!(attributes.verb.as_str(), "get" | "list" | "watch");
    match attributes.resource.as_str() {
        "nodes" => {
            attributes.name == node
                && matches!(attributes.verb.as_str(), "get" | "update" | "patch")
        }
        "services" | "endpointslices" => reads,
        "leases" => {
            attributes.namespace == "kube-node-lease"
                && attributes.name == node
                && matches!(attributes.verb.as_str(), "get" | "update" | "patch")
        }
        "events" => matches!(attributes.verb.as_str(), "create" | "patch" | "update"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn may(user: &User, verb: &str, resource: &str, name: &str, path: &str) -> bool {
        let attributes = Attributes {
            verb: verb.to_owned(),
            resource: resource.to_owned(),
            name: name.to_owned(),
            path: path.to_owned(),
            ..Attributes::default()
        };
        matches!(
            BuiltinAuthorizer.authorize(user, &attributes),
            Decision::Allowed { .. }
        )
    }

    #[test]
    fn each_group_may_what_it_needs_and_no_more() {
        let master = User::known("admin", [MASTERS.to_owned()]);
        let node = User::known("system:node:n1", [NODES.to_owned()]);
        let pod = User::known("system:serviceaccount:d:default", []);
        let nobody = User::anonymous();
        assert!(may(&master, "delete", "secrets", "x", ""));
        assert!(may(&node, "update", "nodes", "n1", ""));
        assert!(!may(&node, "update", "nodes", "n2", ""));
        assert!(!may(&node, "get", "secrets", "x", ""));
        assert!(!may(&pod, "list", "pods", "", ""));
        assert!(may(&pod, "create", "selfsubjectreviews", "", ""));
        assert!(may(&pod, "get", "", "", "/apis/apps/v1"));
        assert!(!may(&pod, "get", "", "", "/apisx"));
        assert!(may(&nobody, "get", "", "", "/readyz"));
        assert!(!may(&nobody, "get", "", "", "/api"));
        assert!(!may(&nobody, "get", "", "", "/metrics"));
    }
}
