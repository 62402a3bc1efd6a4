//! The volumes of a pod's spec: defaults, and one source each.

use std::collections::HashMap;

use proto_api::names;
use serde_json::{Value, json};

use super::volume_source::{self, VolumeOwner};
use crate::tree::{self, Object};
use crate::validation::{Errors, Place};

const DEFAULT_MODE: i64 = 0o644;
const TOKEN_SECONDS: i64 = 3600;

/// Names of the volumes, each with its definition: what mounts may refer to.
pub(super) type Volumes<'a> = HashMap<&'a str, &'a Value>;

/// Fills what the client left out of a volume.
pub(super) fn default_volume(volume: &mut Object) {
    let unnamed = |(name, value): &(&String, &Value)| *name != "name" && !value.is_null();
    if !volume.iter().any(|entry| unnamed(&entry)) {
        volume.insert("emptyDir".to_owned(), json!({}));
    }
    for name in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = volume.get_mut(name).filter(|source| !source.is_null()) {
            tree::default(tree::as_object(source), "defaultMode", DEFAULT_MODE);
        }
    }
    if let Some(path) = volume.get_mut("hostPath").filter(|path| !path.is_null()) {
        tree::default(tree::as_object(path), "type", "");
    }
    if let Some(Value::Object(downward)) = volume.get_mut("downwardAPI") {
        default_downward(downward);
    }
    default_legacy(volume);
    if let Some(claim) = volume.get_mut("ephemeral")
        && let Some(template) = claim.get_mut("volumeClaimTemplate")
    {
        let spec = tree::object_mut(template, "spec");
        tree::default_text(spec, "volumeMode", "Filesystem");
    }
    if let Some(Value::Object(image)) = volume.get_mut("image") {
        let reference = image.get("reference").and_then(Value::as_str);
        let policy = super::container::pull_policy(reference.unwrap_or_default());
        tree::default_text(image, "pullPolicy", policy);
    }
    let Some(projected) = volume.get_mut("projected").and_then(Value::as_object_mut) else {
        return;
    };
    for source in tree::list_mut(projected, "sources") {
        let source = tree::as_object(source);
        if let Some(token) = source
            .get_mut("serviceAccountToken")
            .filter(|t| !t.is_null())
        {
            tree::default(tree::as_object(token), "expirationSeconds", TOKEN_SECONDS);
        }
        if let Some(Value::Object(downward)) = source.get_mut("downwardAPI") {
            default_downward(downward);
        }
    }
}

fn default_downward(source: &mut Object) {
    for item in tree::list_mut(source, "items") {
        if let Some(Value::Object(field)) = item.get_mut("fieldRef") {
            tree::default_text(field, "apiVersion", "v1");
        }
    }
}

/// Defaults of drivers that clusters of today seldom have; persistent volumes share them.
pub(crate) fn default_legacy(source: &mut Object) {
    let texts: &[(&str, &[(&str, &str)])] = &[
        ("iscsi", &[("iscsiInterface", "default")]),
        (
            "rbd",
            &[
                ("pool", "rbd"),
                ("user", "admin"),
                ("keyring", "/etc/ceph/keyring"),
            ],
        ),
        (
            "azureDisk",
            &[
                ("cachingMode", "ReadWrite"),
                ("kind", "Shared"),
                ("fsType", "ext4"),
            ],
        ),
        (
            "scaleIO",
            &[("storageMode", "ThinProvisioned"), ("fsType", "xfs")],
        ),
    ];
    for (name, fields) in texts {
        if let Some(Value::Object(one)) = source.get_mut(*name) {
            for (field, value) in *fields {
                tree::default_text(one, field, value);
            }
            if *name == "azureDisk" {
                tree::default(one, "readOnly", false);
            }
        }
    }
}

/// Checks the volumes and returns them by name.
pub(super) fn validate<'a>(volumes: &Place<'a>, errors: &mut Errors) -> Volumes<'a> {
    let mut seen = Volumes::new();
    for volume in volumes.items() {
        let name = volume.get("name");
        if name.required_text(errors) {
            let before = errors.len();
            name.named(names::dns_label, errors);
            if errors.len() == before && seen.contains_key(name.text()) {
                name.duplicate(errors);
            }
        }
        validate_source(&volume, errors);
        seen.insert(name.text(), volume.value);
    }
    seen
}

fn validate_source(volume: &Place<'_>, errors: &mut Errors) {
    let mut found = false;
    for (name, value) in tree::entries(volume.value, &[]) {
        if name == "name" || value.is_null() {
            continue;
        }
        let source = volume.get(name);
        if found {
            source.forbidden("may not specify more than 1 volume type", errors);
        } else {
            volume_source::validate(name, &source, VolumeOwner::Pod, errors);
        }
        found = true;
    }
    if !found {
        volume.required("must specify a volume type", errors);
    }
}
