//! What drivers of the Container Storage Interface tell and are told: CSIDriver, CSINode,
//! CSIStorageCapacity, VolumeAttachment.

use std::collections::HashSet;

use jiff::Timestamp;
use proto_api::names;
use serde_json::{Value, json};

use super::strategy::{Prepare, Strategy};
use crate::field::FieldError;
use crate::tables::{self, AGE, Column, NAME, Table, age, column};
use crate::tree;
use crate::validation::{self, Place};

const NODE_ID_MAX: usize = 256;
const UPDATE_SECONDS_MIN: i64 = 10;
const TOKEN_SECONDS_MIN: i64 = 600;
const TOKEN_SECONDS_MAX: i64 = 1 << 32;
const METADATA_BYTES_MAX: usize = 256 * 1024;
const ERROR_BYTES_MAX: usize = 1024;
const GROUP_POLICIES: &[&str] = &["File", "None", "ReadWriteOnceWithFSType"];
const LIFECYCLE_MODES: &[&str] = &["Persistent", "Ephemeral"];

#[derive(Debug)]
pub(super) struct Driver;

#[derive(Debug)]
pub(super) struct Node;

#[derive(Debug)]
pub(super) struct StorageCapacity;

#[derive(Debug)]
pub(super) struct VolumeAttachment;

pub(super) static DRIVER_TABLE: Table = Table {
    columns: &[
        NAME,
        column(
            "AttachRequired",
            "boolean",
            "Whether volumes are attached to a node before use.",
        ),
        column(
            "PodInfoOnMount",
            "boolean",
            "Whether the driver is told which pod mounts.",
        ),
        column(
            "StorageCapacity",
            "boolean",
            "Whether the driver tells its capacity.",
        ),
        column(
            "TokenRequests",
            "string",
            "Audiences of the tokens that the driver gets.",
        ),
        column(
            "RequiresRepublish",
            "boolean",
            "Whether mounts are renewed again and again.",
        ),
        column("Modes", "string", "Kinds of volumes that the driver makes."),
        AGE,
    ],
    row: driver_row,
};

pub(super) static NODE_TABLE: Table = Table {
    columns: &[
        NAME,
        column(
            "Drivers",
            "integer",
            "Number of drivers that are registered on the node.",
        ),
        AGE,
    ],
    row: node_row,
};

pub(super) static CAPACITY_TABLE: Table = Table {
    columns: &[
        NAME,
        column(
            "StorageClassName",
            "string",
            "The class that the capacity is of.",
        ),
        column("Capacity", "string", "How much is left."),
    ],
    row: capacity_row,
};

pub(super) static ATTACHMENT_TABLE: Table = Table {
    columns: &[
        NAME,
        Column {
            format: "name",
            ..column("Attacher", "string", "The driver that attaches.")
        },
        column("PV", "string", "The volume."),
        column("Node", "string", "Where it is attached to."),
        column("Attached", "boolean", "Whether it is attached."),
        AGE,
    ],
    row: attachment_row,
};

fn joined(texts: &[&str], none: &str) -> Value {
    json!(if texts.is_empty() {
        none.to_owned()
    } else {
        texts.join(",")
    })
}

fn driver_row(object: &Value, now: Timestamp) -> Vec<Value> {
    let audiences: Vec<&str> = tree::list(object, &["spec", "tokenRequests"])
        .iter()
        .map(|request| tree::text(request, &["audience"]))
        .collect();
    let modes: Vec<&str> = tree::list(object, &["spec", "volumeLifecycleModes"])
        .iter()
        .filter_map(Value::as_str)
        .collect();
    vec![
        tables::name(object),
        json!(
            tree::at(object, &["spec", "attachRequired"])
                .as_bool()
                .unwrap_or(true)
        ),
        json!(tree::flag(object, &["spec", "podInfoOnMount"])),
        json!(tree::flag(object, &["spec", "storageCapacity"])),
        joined(&audiences, "<unset>"),
        json!(tree::flag(object, &["spec", "requiresRepublish"])),
        joined(&modes, "<none>"),
        age(object, now),
    ]
}

fn node_row(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        tables::name(object),
        json!(tree::list(object, &["spec", "drivers"]).len()),
        age(object, now),
    ]
}

fn capacity_row(object: &Value, _now: Timestamp) -> Vec<Value> {
    vec![
        tables::name(object),
        tables::text_or(object, &["storageClassName"], ""),
        tables::scalar_or(object, &["capacity"], "<unset>"),
    ]
}

fn attachment_row(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        tables::name(object),
        tables::text_or(object, &["spec", "attacher"], ""),
        tables::text_or(object, &["spec", "source", "persistentVolumeName"], ""),
        tables::text_or(object, &["spec", "nodeName"], ""),
        json!(tree::flag(object, &["status", "attached"])),
        age(object, now),
    ]
}

fn check_token_requests(requests: &Place<'_>, errors: &mut Vec<FieldError>) {
    let mut audiences = HashSet::new();
    for request in requests.items() {
        let audience = request.get("audience");
        if !audiences.insert(audience.text()) {
            errors.push(FieldError::duplicate(&audience.path, audience.text()));
            continue;
        }
        let seconds = request.get("expirationSeconds");
        match seconds.int() {
            Some(number) if number < TOKEN_SECONDS_MIN => {
                seconds.invalid("may not specify a duration less than 10 minutes", errors);
            }
            Some(number) if number > TOKEN_SECONDS_MAX => {
                let detail = "may not specify a duration larger than 2^32 seconds";
                seconds.invalid(detail, errors);
            }
            _ => {}
        }
    }
}

impl Strategy for Driver {
    fn updates_unconditionally(&self) -> bool {
        false
    }

    fn default(&self, object: &mut Value) {
        let spec = tree::object_mut(object, "spec");
        tree::default(spec, "attachRequired", true);
        for flag in [
            "podInfoOnMount",
            "storageCapacity",
            "requiresRepublish",
            "seLinuxMount",
        ] {
            tree::default(spec, flag, false);
        }
        tree::default(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
        if spec.get("volumeLifecycleModes").is_none_or(tree::is_unset) {
            spec.insert("volumeLifecycleModes".to_owned(), json!(["Persistent"]));
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let spec = Place::root(object, "spec");
        spec.get("fsGroupPolicy")
            .one_of(GROUP_POLICIES, &mut errors);
        check_token_requests(&spec.get("tokenRequests"), &mut errors);
        let modes = spec.get("volumeLifecycleModes");
        for mode in modes
            .items()
            .filter(|mode| !LIFECYCLE_MODES.contains(&mode.text()))
        {
            // The list as a whole is named, as upstream does.
            let error = FieldError::not_supported(&modes.path, mode.text(), LIFECYCLE_MODES);
            errors.push(error);
        }
        let period = spec.get("nodeAllocatableUpdatePeriodSeconds");
        if period
            .int()
            .is_some_and(|seconds| seconds < UPDATE_SECONDS_MIN)
        {
            period.invalid("must be greater than or equal to 10 seconds", &mut errors);
        }
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value, _write: Prepare) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let attach = Place {
            // The field's name in messages, as upstream spells it.
            path: Place::root(new, "spec").path.child("attachedRequired"),
            value: tree::at(new, &["spec", "attachRequired"]),
        };
        attach.unchanged(&Place::root(old, "spec").get("attachRequired"), &mut errors);
        validation::immutable(new, old, &["spec", "volumeLifecycleModes"], &mut errors);
        errors
    }
}

fn check_node_driver(driver: &Place<'_>, errors: &mut Vec<FieldError>) {
    driver.get("name").named(names::dns_subdomain, errors);
    let id = driver.get("nodeID");
    if id.required_text(errors) && id.text().len() > NODE_ID_MAX {
        id.invalid(format!("must be {NODE_ID_MAX} characters or less"), errors);
    }
    driver.get("allocatable").get("count").non_negative(errors);
    let mut keys = HashSet::new();
    for key in driver.get("topologyKeys").items() {
        let at_driver = Place {
            value: key.value,
            path: driver.path.clone(),
        };
        at_driver.required_text(errors);
        if !keys.insert(key.text()) {
            errors.push(FieldError::duplicate(&driver.path, key.text()));
        }
        at_driver.named(names::qualified_name, errors);
    }
}

impl Strategy for Node {
    fn updates_unconditionally(&self) -> bool {
        false
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let mut seen = HashSet::new();
        for driver in Place::root(object, "spec").get("drivers").items() {
            check_node_driver(&driver, &mut errors);
            let name = driver.get("name");
            if !seen.insert(name.text()) {
                errors.push(FieldError::duplicate(&name.path, name.text()));
            }
        }
        errors
    }

    /// An entry stays what it is, except how many volumes the node can take.
    fn validate_update(&self, new: &Value, old: &Value, _write: Prepare) -> Vec<FieldError> {
        let fixed = |driver: &Value| {
            let mut driver = driver.clone();
            tree::as_object(&mut driver).shift_remove("allocatable");
            driver
        };
        let before = tree::list(old, &["spec", "drivers"]);
        let drivers = Place::root(new, "spec").get("drivers");
        let changed = drivers.items().filter(|driver| {
            let same_name = |old: &&Value| tree::text(old, &["name"]) == driver.get("name").text();
            let known = before.iter().find(same_name);
            known.is_some_and(|old| fixed(old) != fixed(driver.value))
        });
        let report = |driver: Place<'_>| {
            FieldError::invalid(&drivers.path, fixed(driver.value), validation::IMMUTABLE)
        };
        changed.map(report).collect()
    }
}

impl Strategy for StorageCapacity {
    fn updates_unconditionally(&self) -> bool {
        false
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let topology = Place::root(object, "nodeTopology");
        validation::label_selector(topology.value, &topology.path, &mut errors);
        Place::root(object, "storageClassName").named(names::dns_subdomain, &mut errors);
        Place::root(object, "capacity").quantity(&mut errors);
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value, _write: Prepare) -> Vec<FieldError> {
        let mut errors = Vec::new();
        for field in ["nodeTopology", "storageClassName"] {
            validation::immutable(new, old, &[field], &mut errors);
        }
        errors
    }
}

fn check_volume_error(error: &Place<'_>, errors: &mut Vec<FieldError>) {
    let message = error.get("message");
    if message.text().len() > ERROR_BYTES_MAX {
        errors.push(FieldError::too_long(&message.path, METADATA_BYTES_MAX));
    }
    let code = error.get("errorCode");
    if code.int().is_some_and(|code| code < 0) {
        code.invalid("must be between 0 and 2147483647, inclusive", errors);
    }
}

impl Strategy for VolumeAttachment {
    fn has_status(&self) -> bool {
        true
    }

    fn updates_unconditionally(&self) -> bool {
        false
    }

    fn prepare_create(&self, object: &mut Value) {
        tree::as_object(object).insert("status".to_owned(), json!({"attached": false}));
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let spec = Place::root(object, "spec");
        spec.get("attacher")
            .required_named(names::dns_subdomain, &mut errors);
        let source = spec.get("source");
        let volume = source.get("persistentVolumeName");
        let inline = source.get("inlineVolumeSpec");
        let one = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
        match (volume.is_present(), inline.is_present()) {
            (false, false) => source.required(one, &mut errors),
            (true, true) => source.forbidden(one, &mut errors),
            (true, false) if volume.text().is_empty() => {
                volume.required("must specify non empty persistentVolumeName", &mut errors);
            }
            (true, false) => volume.named(names::dns_subdomain, &mut errors),
            (false, true) => {}
        }
        spec.get("nodeName")
            .named(names::dns_subdomain, &mut errors);
        let status = Place::root(object, "status");
        let metadata = status.get("attachmentMetadata");
        let size: usize = tree::entries(metadata.value, &[])
            .map(|(key, value)| key.len() + value.as_str().map_or(0, str::len))
            .sum();
        if size > METADATA_BYTES_MAX {
            errors.push(FieldError::too_long(&metadata.path, METADATA_BYTES_MAX));
        }
        check_volume_error(&status.get("attachError"), &mut errors);
        check_volume_error(&status.get("detachError"), &mut errors);
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value, _write: Prepare) -> Vec<FieldError> {
        let mut errors = Vec::new();
        validation::immutable(new, old, &["spec"], &mut errors);
        errors
    }
}
