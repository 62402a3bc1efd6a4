//! Pod: defaults, validation, what may change after creation, graceful deletion, columns.

mod affinity;
mod container;
mod downward;
mod ephemeral;
mod mounts;
mod probes;
mod resize;
mod resources;
mod security;
mod spec;
mod table;
mod update;
mod volume;
mod volume_source;

use serde_json::{Value, json};

use super::FieldReader;
use super::strategy::{Graceful, Prepare, Strategy};
use crate::field::{FieldError, Path};
use crate::tree;
use crate::validation::{Errors, Place};

pub(crate) use self::affinity::{node_selector, validate_tolerations};
pub(crate) use self::ephemeral::{prepare_ephemeral, validate_ephemeral_update};
pub(crate) use self::resize::{prepare_resize, validate_resize};
pub(crate) use self::spec::{SpecOwner, default_spec, validate_spec};
pub(super) use self::table::TABLE;
pub(crate) use self::volume::default_legacy;
pub(crate) use self::volume_source::{VolumeOwner, validate as validate_source};

/// Fields that pods are selected by.
pub(super) const FIELDS: &[(&str, FieldReader)] = &[
    ("spec.nodeName", |p| p.spec.node_name.or("")),
    ("spec.restartPolicy", |p| p.spec.restart_policy.or("")),
    ("spec.schedulerName", |p| p.spec.scheduler_name.or("")),
    ("spec.serviceAccountName", |p| {
        p.spec.service_account_name.or("")
    }),
    ("spec.hostNetwork", |p| p.spec.host_network.or("false")),
    ("status.phase", |p| p.status.phase.or("")),
    ("status.podIP", |p| p.status.pod_ip.or("")),
    ("status.nominatedNodeName", |p| {
        p.status.nominated_node_name.or("")
    }),
];

/// Seconds a pod gets when it does not say (`terminationGracePeriodSeconds`).
const GRACE_SECONDS: i64 = 30;

#[derive(Debug)]
pub(crate) struct Pod;

impl Strategy for Pod {
    fn has_generation(&self) -> bool {
        true
    }

    fn has_status(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        default_spec(tree::object_mut(object, "spec"), SpecOwner::Pod);
    }

    fn prepare_create(&self, object: &mut Value) {
        let qos = resources::qos_class(object);
        let status = json!({"phase": "Pending", "qosClass": qos});
        tree::as_object(object).insert("status".to_owned(), status);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, write: Prepare) {
        match write {
            Prepare::Main | Prepare::Approval => tree::carry(new, old, "status"),
            Prepare::Status => update::prepare_status(new, old),
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let spec = tree::at(object, &["spec"]);
        validate_spec(spec, &Path::root("spec"), SpecOwner::Pod, &mut errors);
        validate_tokens(&Place::root(object, "spec"), &mut errors);
        errors
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let spec = Place::root(object, "spec");
        let ephemeral = spec.get("ephemeralContainers");
        if !ephemeral.is_unset() {
            ephemeral.forbidden("cannot be set on create", &mut errors);
        }
        let node = spec.get("nodeName");
        if !node.is_unset() && !spec.get("schedulingGates").is_unset() {
            let detail = "cannot be set until all schedulingGates have been cleared";
            node.forbidden(detail, &mut errors);
        }
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value, write: Prepare) -> Vec<FieldError> {
        match write {
            Prepare::Main | Prepare::Approval => update::validate(new, old),
            Prepare::Status => update::validate_status(new, old),
        }
    }

    /// A pod without a node, or one that has ended, goes at once; otherwise its node gets the
    /// time that the client, or the pod itself, grants.
    fn graceful(&self, object: &Value, grace_seconds: Option<i64>) -> Graceful {
        let unscheduled = tree::text(object, &["spec", "nodeName"]).is_empty();
        let ended = matches!(
            tree::text(object, &["status", "phase"]),
            "Failed" | "Succeeded"
        );
        if unscheduled || ended {
            return Graceful::Now;
        }
        let own = tree::int(object, &["spec", "terminationGracePeriodSeconds"]);
        match grace_seconds.or(own).unwrap_or(GRACE_SECONDS) {
            0 => Graceful::Now,
            seconds => Graceful::After(seconds.max(1)),
        }
    }
}

/// A token is of an account.
fn validate_tokens(spec: &Place<'_>, errors: &mut Errors) {
    if !spec.get("serviceAccountName").is_unset() {
        return;
    }
    for volume in spec.get("volumes").items() {
        for source in volume.get("projected").get("sources").items() {
            let detail = "must not be specified when serviceAccountName is not set";
            source.get("serviceAccountToken").forbid(detail, errors);
        }
    }
}

#[cfg(test)]
mod tests;
