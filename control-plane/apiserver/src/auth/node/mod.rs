//! The node authoriser: a node reads only what its own pods refer to.
//!
//! A node is who is named `system:node:NAME` and in the group `system:nodes`. What no node may is
//! refused by the rules of the role `system:node`; what is left is narrowed here. What a node may
//! write into its objects is admission's. Nodes of this platform use a stream of their own and ask
//! nothing here; their certificate could, so it must be safe.

mod references;

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use proto_api::selector::Fields;
use serde_json::json;

pub(crate) use self::references::claims_audience;
use self::references::{References, Sources};
use super::rbac::{PolicyRule, Role, node_rules};
use super::{Attributes, Decision, NODES, User};
use crate::cache::WatchCache;
use crate::registry::Registry;

/// How many nodes' references are kept; a node beyond them is looked up anew.
const KEPT_MAX: usize = 1024;
const LEASES: &str = "kube-node-lease";

/// The name of the node that `user` is.
pub(crate) fn node_name(user: &User) -> Option<&str> {
    let name = user.name.strip_prefix("system:node:")?;
    (!name.is_empty() && user.in_group(NODES)).then_some(name)
}

/// The state of the cache that references were read from, and the references.
type Kept = (u64, Arc<References>);

/// Decides for nodes.
#[derive(Debug)]
pub(super) struct NodeAuthorizer {
    sources: Sources,
    rules: Role,
    /// By node: what its pods refer to, and the state of the cache that it was read from.
    kept: Mutex<HashMap<Box<str>, Kept>>,
}

impl NodeAuthorizer {
    pub(super) fn new(cache: &WatchCache, registry: &Registry) -> Self {
        let rules = PolicyRule::all_of(&json!({"rules": node_rules()}));
        Self {
            sources: Sources::new(cache, registry),
            rules: Role::new(rules),
            kept: Mutex::default(),
        }
    }

    /// The decision, when `user` is a node.
    pub(super) fn authorize(&self, user: &User, asked: &Attributes) -> Option<Decision> {
        let node = node_name(user)?;
        if !self.rules.allows(asked) {
            return None;
        }
        Some(match self.narrowed(node, asked) {
            Ok(()) => Decision::allowed("node"),
            Err(why) => Decision::Denied {
                reason: Arc::from(why),
            },
        })
    }

    fn narrowed(&self, node: &str, asked: &Attributes) -> Result<(), String> {
        let resource = (asked.group.as_str(), asked.resource.as_str());
        match (resource, asked.subresource.as_str()) {
            (("", "nodes"), _) => own_node(node, asked),
            (("", "pods"), _) => self.own_pod(node, asked),
            (("coordination.k8s.io", "leases"), _) => {
                if asked.namespace != LEASES {
                    return Err(format!(
                        "can only access leases in the \"{LEASES}\" system namespace"
                    ));
                }
                own_name(node, asked, "lease")
            }
            (("storage.k8s.io", "csinodes"), _) => own_name(node, asked, "CSINode"),
            (
                ("", "secrets" | "configmaps" | "persistentvolumeclaims" | "persistentvolumes"),
                _,
            )
            | (("", "serviceaccounts"), _) => self.referenced(node, asked),
            (
                ("storage.k8s.io", "volumeattachments")
                | ("resource.k8s.io", "resourceclaims" | "resourceslices"),
                _,
            ) => Err("not served to nodes".to_owned()),
            _ => Ok(()),
        }
    }

    fn own_pod(&self, node: &str, asked: &Attributes) -> Result<(), String> {
        match asked.verb.as_str() {
            "create" if asked.subresource.is_empty() => {
                Err("a node may not create pods".to_owned())
            }
            "list" | "watch" => {
                let fields = Fields::parse(&asked.fields).unwrap_or_default();
                if fields.exact("spec.nodeName") == Some(node) {
                    return Ok(());
                }
                Err("can only list/watch pods with spec.nodeName field selector".to_owned())
            }
            _ => self.referenced(node, asked),
        }
    }

    /// Whether the object is one that pods of `node` refer to, or such a pod.
    fn referenced(&self, node: &str, asked: &Attributes) -> Result<(), String> {
        if asked.name.is_empty() {
            return Err("can only read resources of this type by name".to_owned());
        }
        let references = self.references(node);
        let plural = asked.resource.as_str();
        if references.has(plural, &asked.namespace, &asked.name) {
            return Ok(());
        }
        Err(format!(
            "no relationship found between node '{node}' and this object"
        ))
    }

    fn references(&self, node: &str) -> Arc<References> {
        let state = self.sources.state();
        let kept = self.kept.lock().get(node).cloned();
        if let Some((seen, references)) = kept
            && seen == state
        {
            return references;
        }
        let references = Arc::new(self.sources.references_of(node));
        self.keep(node, state, &references);
        references
    }

    fn keep(&self, node: &str, state: u64, references: &Arc<References>) {
        let mut kept = self.kept.lock();
        if kept.len() >= KEPT_MAX {
            kept.clear();
        }
        kept.insert(node.into(), (state, Arc::clone(references)));
    }
}

fn own_node(node: &str, asked: &Attributes) -> Result<(), String> {
    if asked.verb == "create" && asked.subresource.is_empty() && asked.name.is_empty() {
        return Ok(());
    }
    if asked.name == node {
        return Ok(());
    }
    Err(format!("node '{node}' can only access its own Node object"))
}

fn own_name(node: &str, asked: &Attributes, what: &str) -> Result<(), String> {
    // A new object's name is not in the path; admission looks at it.
    if asked.name == node || (asked.verb == "create" && asked.name.is_empty()) {
        return Ok(());
    }
    Err(format!(
        "can only access node {what} with the same name as the requesting node"
    ))
}

#[cfg(test)]
mod tests;
