//! NodeRestriction: what a node may write, field by field.
//!
//! An allow-list: a field that is not named here is not writable, also one that a later version
//! adds. The same list holds for creation and change. No node sets owners, finalizers or labels
//! that others rely on.

use serde_json::Value;

use super::Admission;
use crate::auth::{User, claims_audience, node_name};
use crate::object::ObjKey;
use crate::registry::Subresource;
use crate::server::Target;
use crate::status::StatusError;
use crate::tree;

/// What the server itself sets, whoever writes.
const SERVER_FIELDS: &[&str] = &[
    "metadata.creationTimestamp",
    "metadata.generation",
    "metadata.managedFields",
    "metadata.name",
    "metadata.namespace",
    "metadata.resourceVersion",
    "metadata.uid",
];

/// What is compared: fields below these, one by one; all others as a whole.
const PARTS: [&str; 3] = ["metadata", "spec", "status"];

/// Fields of one kind that a node may write into its own object.
struct Writable {
    kind: &'static str,
    subresource: Option<Subresource>,
    create: &'static [&'static str],
    update: &'static [&'static str],
}

const WRITABLE: &[Writable] = &[
    Writable {
        kind: "Node",
        subresource: None,
        create: &[
            "metadata.annotations",
            "metadata.labels",
            "spec.providerID",
            "spec.taints",
        ],
        update: &["metadata.annotations", "metadata.labels"],
    },
    Writable {
        kind: "Node",
        subresource: Some(Subresource::Status),
        create: &[],
        update: &[
            "status.addresses",
            "status.allocatable",
            "status.capacity",
            "status.conditions",
            "status.daemonEndpoints",
            "status.features",
            "status.images",
            "status.nodeInfo",
            "status.phase",
            "status.runtimeHandlers",
            "status.volumesInUse",
        ],
    },
    Writable {
        kind: "Pod",
        subresource: Some(Subresource::Status),
        create: &[],
        update: &[
            "status.allocatedResources",
            "status.conditions",
            "status.containerStatuses",
            "status.ephemeralContainerStatuses",
            "status.hostIP",
            "status.hostIPs",
            "status.initContainerStatuses",
            "status.message",
            "status.observedGeneration",
            "status.phase",
            "status.podIP",
            "status.podIPs",
            "status.qosClass",
            "status.reason",
            "status.resize",
            "status.resources",
            "status.startTime",
        ],
    },
    Writable {
        kind: "Lease",
        subresource: None,
        create: LEASE,
        update: LEASE,
    },
    Writable {
        kind: "CSINode",
        subresource: None,
        create: &["metadata.annotations", "spec.drivers"],
        update: &["metadata.annotations", "spec.drivers"],
    },
    Writable {
        kind: "PersistentVolumeClaim",
        subresource: Some(Subresource::Status),
        create: &[],
        update: &[
            "status.allocatedResourceStatuses",
            "status.allocatedResources",
            "status.capacity",
            "status.conditions",
        ],
    },
];

const LEASE: &[&str] = &[
    "metadata.annotations",
    "metadata.labels",
    "spec.acquireTime",
    "spec.holderIdentity",
    "spec.leaseDurationSeconds",
    "spec.leaseTransitions",
    "spec.renewTime",
];

/// Kinds that a node may make as anybody may.
const UNRESTRICTED: &[&str] = &["CertificateSigningRequest", "Event"];

impl Admission {
    /// Refuses what a node may not write. `old`: `None` for a creation.
    pub(super) fn check_node_write(
        target: &Target,
        user: &User,
        new: &Value,
        old: Option<&Value>,
    ) -> Result<(), StatusError> {
        let Some(node) = node_name(user) else {
            return Ok(());
        };
        if UNRESTRICTED.contains(&target.kind.kind) {
            return Ok(());
        }
        check_owner(target, node, old)?;
        let row = WRITABLE
            .iter()
            .find(|row| row.kind == target.kind.kind && row.subresource == target.subresource);
        let Some(row) = row else {
            return Err(refusal(target, node, "modify this object"));
        };
        let allowed = if old.is_some() {
            row.update
        } else {
            row.create
        };
        let before = old.unwrap_or(&Value::Null);
        for field in changed(new, before) {
            if !SERVER_FIELDS.contains(&&*field) && !allowed.contains(&&*field) {
                return Err(refusal(target, node, &format!("modify {field}")));
            }
        }
        if target.kind.kind == "Node" {
            check_labels(target, node, new, before)?;
        }
        Ok(())
    }

    /// Refuses a deletion (or eviction) by a node of what is not its own.
    pub(super) fn check_node_delete(
        target: &Target,
        user: &User,
        old: &Value,
    ) -> Result<(), StatusError> {
        let Some(node) = node_name(user) else {
            return Ok(());
        };
        match target.kind.kind {
            "Pod" | "Lease" | "CSINode" => check_owner(target, node, Some(old)),
            _ => Err(refusal(target, node, "delete this object")),
        }
    }

    /// Refuses a token that a node asks for: it must be bound to a pod that runs there, for an
    /// audience that the pod asks for.
    ///
    /// # Errors
    /// 403 with what is wrong.
    pub(crate) fn check_node_token(
        &self,
        target: &Target,
        user: &User,
        request: &Value,
    ) -> Result<(), StatusError> {
        let Some(node) = node_name(user) else {
            return Ok(());
        };
        let refuse =
            |why: &str| StatusError::forbidden(target.kind.group_resource(), &target.key.name, why);
        let bound = tree::at(request, &["spec", "boundObjectRef"]);
        if tree::text(bound, &["kind"]) != "Pod" {
            return Err(refuse("node requested token not bound to a pod"));
        }
        let uid = tree::text(bound, &["uid"]);
        if uid.is_empty() {
            return Err(refuse(
                "node requested token with a pod binding without a uid",
            ));
        }
        let key = ObjKey::new(&target.key.namespace, tree::text(bound, &["name"]));
        let pod = self
            .registry
            .by_plural("", "v1", "pods")
            .and_then(|pods| self.cache.of(&pods).get(&key))
            .filter(|pod| *pod.meta.uid == *uid);
        let Some(pod) = pod else {
            return Err(refuse(
                "node requested token bound to a pod that does not exist",
            ));
        };
        let pod = pod.value();
        if tree::text(&pod, &["spec", "nodeName"]) != node {
            return Err(refuse(
                "node requested token bound to a pod scheduled on a different node",
            ));
        }
        let audiences = tree::list(request, &["spec", "audiences"]);
        let named = audiences.iter().filter_map(Value::as_str);
        for audience in named.filter(|audience| !audience.is_empty()) {
            if audience != crate::auth::ISSUER && !claims_audience(&pod, audience) {
                return Err(refuse(&format!(
                    "audience {audience:?} not found in pod spec volume, {node} is not authorized \
                     to request tokens for this audience"
                )));
            }
        }
        Ok(())
    }
}

/// Whether the object is the node's own.
fn check_owner(target: &Target, node: &str, old: Option<&Value>) -> Result<(), StatusError> {
    let own = match target.kind.kind {
        "Pod" => old.is_some_and(|pod| tree::text(pod, &["spec", "nodeName"]) == node),
        "Node" | "CSINode" => &*target.key.name == node,
        "Lease" => &*target.key.name == node && &*target.key.namespace == "kube-node-lease",
        // Authorised by reference.
        "PersistentVolumeClaim" => true,
        _ => false,
    };
    if own {
        return Ok(());
    }
    Err(refusal(target, node, "modify what is not its own"))
}

fn refusal(target: &Target, node: &str, what: &str) -> StatusError {
    let why = format!("node \"{node}\" is not allowed to {what}");
    StatusError::forbidden(target.kind.group_resource(), &target.key.name, &why)
}

/// The fields that differ, as `part.field`, or the whole top-level field.
fn changed(new: &Value, old: &Value) -> Vec<String> {
    let mut fields = Vec::new();
    for top in keys(new, old) {
        let (now, before) = (tree::at(new, &[&top]), tree::at(old, &[&top]));
        if matches!(top.as_str(), "apiVersion" | "kind") || tree::same(now, before) {
            continue;
        }
        if !PARTS.contains(&top.as_str()) {
            fields.push(top);
            continue;
        }
        let below = keys(now, before)
            .into_iter()
            .filter(|name| !tree::same(tree::at(now, &[name]), tree::at(before, &[name])));
        fields.extend(below.map(|name| format!("{top}.{name}")));
    }
    fields
}

fn keys(a: &Value, b: &Value) -> Vec<String> {
    let of = |value: &Value| -> Vec<String> {
        value
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, _)| name.clone())
            .collect()
    };
    let mut all = of(a);
    all.extend(of(b));
    all.sort();
    all.dedup();
    all
}

/// Labels of Kubernetes' own domains that a node may set on itself.
const OWN_LABELS: &[&str] = &[
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/instance-type",
    "beta.kubernetes.io/os",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "kubernetes.io/arch",
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "node.kubernetes.io/instance-type",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
];

fn check_labels(target: &Target, node: &str, new: &Value, old: &Value) -> Result<(), StatusError> {
    let of = |value: &Value| tree::at(value, &["metadata", "labels"]).clone();
    let (now, before) = (of(new), of(old));
    let refused: Vec<String> = keys(&now, &before)
        .into_iter()
        .filter(|key| tree::at(&now, &[key]) != tree::at(&before, &[key]))
        .filter(|key| !may_label(key))
        .collect();
    if refused.is_empty() {
        return Ok(());
    }
    let what = format!("modify labels: {}", refused.join(", "));
    Err(refusal(target, node, &what))
}

fn may_label(key: &str) -> bool {
    let domain = key.split_once('/').map_or("", |(domain, _)| domain);
    let within = |root: &str| {
        domain
            .strip_suffix(root)
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    if within("node-restriction.kubernetes.io") {
        return false;
    }
    let theirs = within("kubernetes.io") || within("k8s.io");
    !theirs
        || OWN_LABELS.contains(&key)
        || within("kubelet.kubernetes.io")
        || within("node.kubernetes.io")
}

#[cfg(test)]
mod tests;
