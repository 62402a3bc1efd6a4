//! Where a container sees the pod's volumes: mounts and block devices.

use std::collections::HashSet;

use serde_json::Value;

use super::volume::Volumes;
use crate::field::FieldError;
use crate::tree;
use crate::validation::{Errors, Place};

const PROPAGATIONS: &[&str] = &["Bidirectional", "HostToContainer", "None"];
const READ_ONLY_MODES: &[&str] = &["Disabled", "Enabled", "IfPossible"];

/// Checks `volumeMounts` and `volumeDevices` of a container.
pub(super) fn validate(container: &Place<'_>, volumes: &Volumes<'_>, errors: &mut Errors) {
    let mut paths = HashSet::new();
    let devices = container.get("volumeDevices");
    for mount in container.get("volumeMounts").items() {
        validate_mount(&mount, volumes, &mut paths, errors);
        overlap(&mount, "mountPath", &devices, "devicePath", errors);
        validate_propagation(&mount, container, errors);
    }
    let mounts = container.get("volumeMounts");
    let (mut names, mut places) = (HashSet::new(), HashSet::new());
    for device in devices.items() {
        validate_device(&device, volumes, &mut names, &mut places, errors);
        overlap(&device, "devicePath", &mounts, "mountPath", errors);
    }
}

fn validate_mount<'a>(
    mount: &Place<'a>,
    volumes: &Volumes<'_>,
    paths: &mut HashSet<&'a str>,
    errors: &mut Errors,
) {
    let name = mount.get("name");
    name.required_text(errors);
    let volume = volumes.get(name.text());
    if volume.is_none() {
        errors.push(FieldError::not_found(&name.path, name.text()));
    }
    let target = mount.get("mountPath");
    target.required_text(errors);
    if !paths.insert(target.text()) {
        target.invalid("must be unique", errors);
    }
    let (sub, expression) = (mount.get("subPath"), mount.get("subPathExpr"));
    if volume.is_some_and(|volume| tree::at(volume, &["image"]).is_object()) {
        for place in [&sub, &expression] {
            if !place.text().is_empty() {
                place.invalid("not allowed in image volume sources", errors);
            }
        }
    }
    sub.descending_path(errors);
    if !expression.text().is_empty() && !sub.text().is_empty() {
        let detail = "subPathExpr and subPath are mutually exclusive";
        expression.invalid(detail, errors);
    }
    expression.descending_path(errors);
}

fn validate_propagation(mount: &Place<'_>, container: &Place<'_>, errors: &mut Errors) {
    let propagation = mount.get("mountPropagation");
    propagation.one_of(PROPAGATIONS, errors);
    let privileged = container.get("securityContext").get("privileged").flag();
    if propagation.text() == "Bidirectional" && !privileged {
        let detail = "Bidirectional mount propagation is available only to privileged containers";
        propagation.forbidden(detail, errors);
    }
    let recursive = mount.get("recursiveReadOnly");
    recursive.one_of(READ_ONLY_MODES, errors);
    if !matches!(recursive.text(), "Enabled" | "IfPossible") {
        return;
    }
    if !mount.get("readOnly").flag() {
        let detail = "may only be specified when readOnly is true";
        recursive.forbidden(detail, errors);
    }
    if !matches!(propagation.text(), "" | "None") {
        let detail = "may only be specified when mountPropagation is None or not specified";
        recursive.forbidden(detail, errors);
    }
}

/// A volume, or a path, is either mounted or a device.
fn overlap(
    one: &Place<'_>,
    path_field: &str,
    others: &Place<'_>,
    other_field: &str,
    errors: &mut Errors,
) {
    let list = if path_field == "mountPath" {
        "volumeDevices"
    } else {
        "volumeMounts"
    };
    let (name, path) = (one.get("name"), one.get(path_field));
    let taken = |place: &Place<'_>, field: &str| {
        !place.text().is_empty() && others.items().any(|o| o.get(field).value == place.value)
    };
    if taken(&name, "name") {
        name.invalid(format!("must not already exist in {list}"), errors);
    }
    if taken(&path, other_field) {
        let detail = format!("must not already exist as a path in {list}");
        path.invalid(detail, errors);
    }
}

fn validate_device<'a>(
    device: &Place<'a>,
    volumes: &Volumes<'_>,
    names: &mut HashSet<&'a str>,
    places: &mut HashSet<&'a str>,
    errors: &mut Errors,
) {
    let (name, path) = (device.get("name"), device.get("devicePath"));
    name.required_text(errors);
    if !name.text().is_empty() && !names.insert(name.text()) {
        name.invalid("must be unique", errors);
    }
    let claimed = |volume: &Value| {
        ["persistentVolumeClaim", "ephemeral"]
            .iter()
            .any(|source| tree::at(volume, &[source]).is_object())
    };
    match volumes.get(name.text()) {
        None => errors.push(FieldError::not_found(&name.path, name.text())),
        Some(volume) if !claimed(volume) => {
            let detail = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
            name.invalid(detail, errors);
        }
        Some(_) => {}
    }
    path.required_text(errors);
    if !path.text().is_empty() && !places.insert(path.text()) {
        path.invalid("must be unique", errors);
    }
    if path.text().split('/').any(|part| part == "..") {
        path.invalid("can not contain backsteps ('..')", errors);
    }
}
