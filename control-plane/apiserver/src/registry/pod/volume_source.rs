//! Where a volume's data comes from: the rules of every source, for pods and persistent volumes.

use proto_api::names;
use serde_json::Value;

use super::downward;
use crate::registry::volume_claim;
use crate::validation::{Errors, Place, amount, label_selector};

/// Whose volume it is; some sources differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum VolumeOwner {
    /// A pod, or a template of pods.
    Pod,
    /// A persistent volume.
    PersistentVolume,
}

/// Fields that a source cannot do without.
const REQUIRED: &[(&str, &[&str])] = &[
    ("awsElasticBlockStore", &["volumeID"]),
    ("azureDisk", &["diskName", "diskURI"]),
    ("azureFile", &["secretName", "shareName"]),
    ("cephfs", &["monitors"]),
    ("cinder", &["volumeID"]),
    ("configMap", &["name"]),
    ("ephemeral", &["volumeClaimTemplate"]),
    ("flexVolume", &["driver"]),
    ("gcePersistentDisk", &["pdName"]),
    ("gitRepo", &["repository"]),
    ("glusterfs", &["endpoints", "path"]),
    ("hostPath", &["path"]),
    ("iscsi", &["targetPortal", "iqn"]),
    ("local", &["path"]),
    ("nfs", &["server", "path"]),
    ("persistentVolumeClaim", &["claimName"]),
    ("photonPersistentDisk", &["pdID"]),
    ("portworxVolume", &["volumeID"]),
    ("quobyte", &["volume"]),
    ("rbd", &["monitors", "image"]),
    ("scaleIO", &["gateway", "system", "volumeName"]),
    ("secret", &["secretName"]),
    ("storageos", &["volumeName"]),
    ("vsphereVolume", &["volumePath"]),
];

const HOST_PATH_TYPES: &[&str] = &[
    "",
    "BlockDevice",
    "CharDevice",
    "Directory",
    "DirectoryOrCreate",
    "File",
    "FileOrCreate",
    "Socket",
];
const PULL_POLICIES: &[&str] = &["Always", "IfNotPresent", "Never"];
const MODES: std::ops::RangeInclusive<i64> = 0..=0o777;
const MODE_DETAIL: &str = "must be a number between 0 and 0777 (octal), both inclusive";
const PARTITION_DETAIL: &str = "must be between 1 and 255, inclusive";
const TOKEN_SECONDS_MIN: i64 = 600;
const TOKEN_SECONDS_MAX: i64 = 1 << 32;
const DRIVER_BYTES_MAX: usize = 63;
const TENANT_BYTES_MAX: usize = 64;

/// Checks the source `name` of a volume.
pub(crate) fn validate(name: &str, source: &Place<'_>, owner: VolumeOwner, errors: &mut Errors) {
    for (_, fields) in REQUIRED.iter().filter(|(known, _)| *known == name) {
        for field in *fields {
            let place = source.get(field);
            if place.is_unset() {
                place.required("", errors);
            }
        }
    }
    match name {
        "secret" | "configMap" => keyed(source, errors),
        "downwardAPI" => {
            mode(&source.get("defaultMode"), errors);
            for item in source.get("items").items() {
                downward::file(&item, &source.path, errors);
            }
        }
        "projected" => projected(source, errors),
        "hostPath" if !source.get("path").is_unset() => {
            source.get("path").no_backsteps(errors);
            source.get("type").one_of(HOST_PATH_TYPES, errors);
        }
        "emptyDir" => {
            let limit = source.get("sizeLimit");
            if amount(limit.value).is_some_and(|limit| limit.nano() < 0) {
                let detail = "SizeLimit field must be a valid resource quantity";
                limit.forbidden(detail, errors);
            }
        }
        "local" => source.get("path").no_backsteps(errors),
        "gitRepo" => source.get("directory").descending_path(errors),
        "nfs" if !source.get("path").text().starts_with('/') => {
            source
                .get("path")
                .invalid("must be an absolute path", errors);
        }
        "csi" => csi(source, owner, errors),
        "ephemeral" => {
            let template = source.get("volumeClaimTemplate");
            if template.is_present() {
                volume_claim::validate_spec(&template.get("spec"), errors);
            }
        }
        "image" => source.get("pullPolicy").one_of(PULL_POLICIES, errors),
        _ => validate_legacy(name, source, owner, errors),
    }
}

/// Sources of drivers that clusters of today seldom have.
fn validate_legacy(name: &str, source: &Place<'_>, owner: VolumeOwner, errors: &mut Errors) {
    match name {
        "gcePersistentDisk" | "awsElasticBlockStore" => {
            let partition = source.get("partition");
            if partition
                .int()
                .is_some_and(|number| !(0..=255).contains(&number))
            {
                partition.invalid(PARTITION_DETAIL, errors);
            }
        }
        "iscsi" => iscsi(source, errors),
        "fc" => fibre_channel(source, errors),
        "flexVolume" => {
            for (key, option) in source.get("options").entries() {
                let domain = key.split_once('/').map_or(key, |(domain, _)| domain);
                let domain = format!(".{}", domain.to_lowercase());
                if domain.ends_with(".kubernetes.io") || domain.ends_with(".k8s.io") {
                    let detail = "kubernetes.io and k8s.io namespaces are reserved";
                    let key = Value::from(key);
                    Place::new(&key, option.path).invalid(detail, errors);
                }
            }
        }
        "flocker" => flocker(source, errors),
        "quobyte" => quobyte(source, errors),
        "azureDisk" => {
            let caching = &["None", "ReadOnly", "ReadWrite"];
            source.get("cachingMode").one_of(caching, errors);
            let kinds = &["Dedicated", "Managed", "Shared"];
            source.get("kind").one_of(kinds, errors);
        }
        "cinder" | "storageos" => {
            let secret = source.get("secretRef");
            if secret.is_present() {
                secret.get("name").required_text(errors);
                if owner == VolumeOwner::PersistentVolume {
                    secret.get("namespace").required_text(errors);
                }
            }
        }
        _ => {}
    }
}

fn mode(place: &Place<'_>, errors: &mut Errors) {
    if place.int().is_some_and(|mode| !MODES.contains(&mode)) {
        place.invalid(MODE_DETAIL, errors);
    }
}

/// `items` of secrets and config maps.
fn keyed(source: &Place<'_>, errors: &mut Errors) {
    mode(&source.get("defaultMode"), errors);
    for item in source.get("items").items() {
        key_to_path(&item, errors);
    }
}

fn key_to_path(item: &Place<'_>, errors: &mut Errors) {
    item.get("key").required_text(errors);
    item.get("path").required_text(errors);
    item.get("path").non_reserved_path(errors);
    mode(&item.get("mode"), errors);
}

fn projected(source: &Place<'_>, errors: &mut Errors) {
    mode(&source.get("defaultMode"), errors);
    let mut paths = std::collections::HashSet::new();
    let mut take = |path: &str, at: &Place<'_>, errors: &mut Errors| {
        if !path.is_empty() && !paths.insert(path.to_owned()) {
            let path = Value::from(path);
            Place::new(&path, at.path.clone()).invalid("conflicting duplicate paths", errors);
        }
    };
    for one in source.get("sources").items() {
        for name in ["secret", "configMap"] {
            let part = one.get(name);
            if part.is_present() {
                part.get("name").required_text(errors);
                for item in part.get("items").items() {
                    key_to_path(&item, errors);
                    take(item.get("path").text(), source, errors);
                }
            }
        }
        let part = one.get("downwardAPI");
        for item in part.get("items").items() {
            downward::file(&item, &part.path, errors);
            take(item.get("path").text(), source, errors);
        }
        token(&one.get("serviceAccountToken"), source, errors);
        let bundle = one.get("clusterTrustBundle");
        if bundle.is_present() {
            trust_bundle(&bundle, errors);
            take(bundle.get("path").text(), source, errors);
        }
        let parts = ["secret", "configMap", "downwardAPI", "serviceAccountToken"];
        let count = parts
            .into_iter()
            .chain(["clusterTrustBundle", "podCertificate"])
            .filter(|part| one.get(part).is_present())
            .count();
        if count > 1 {
            one.forbidden("may not specify more than 1 volume type per source", errors);
        }
    }
}

fn token(token: &Place<'_>, volume: &Place<'_>, errors: &mut Errors) {
    if !token.is_present() {
        return;
    }
    let seconds = token.get("expirationSeconds");
    match seconds.int().unwrap_or_default() {
        ..TOKEN_SECONDS_MIN => {
            seconds.invalid("may not specify a duration less than 10 minutes", errors);
        }
        TOKEN_SECONDS_MIN..=TOKEN_SECONDS_MAX => {}
        _ => seconds.invalid(
            "may not specify a duration larger than 2^32 seconds",
            errors,
        ),
    }
    let path = token.get("path");
    // Upstream reports the path at the volume.
    let place = Place::new(path.value, volume.path.child("path"));
    if place.required_text(errors) {
        place.non_reserved_path(errors);
    }
}

fn trust_bundle(bundle: &Place<'_>, errors: &mut Errors) {
    let (name, signer) = (bundle.get("name"), bundle.get("signerName"));
    match (name.is_present(), signer.is_present()) {
        (true, true) => bundle.invalid("only one of name and signerName may be used", errors),
        (true, false) => {
            if name.text().is_empty() {
                name.required("must be a valid object name", errors);
            }
            let selector = bundle.get("labelSelector");
            if selector.is_present() {
                let detail = "labelSelector must be unset if name is specified";
                selector.invalid(detail, errors);
            }
        }
        (false, true) => {
            if signer.text().is_empty() {
                signer.required("must be a valid signer name", errors);
            }
            let selector = bundle.get("labelSelector");
            label_selector(selector.value, &selector.path, errors);
        }
        (false, false) => {
            bundle.required("either name or signerName must be specified", errors);
        }
    }
    let path = bundle.get("path");
    if path.required_text(errors) {
        path.non_reserved_path(errors);
    }
}

/// Checks the name of a storage driver.
pub(crate) fn driver_name(driver: &Place<'_>, errors: &mut Errors) {
    if !driver.required_text(errors) {
        return;
    }
    if driver.text().len() > DRIVER_BYTES_MAX {
        let error = crate::field::FieldError::too_long(&driver.path, DRIVER_BYTES_MAX);
        errors.push(error);
    }
    for detail in names::dns_subdomain(&driver.text().to_lowercase()) {
        driver.invalid(detail, errors);
    }
}

fn csi(source: &Place<'_>, owner: VolumeOwner, errors: &mut Errors) {
    driver_name(&source.get("driver"), errors);
    if owner == VolumeOwner::Pod {
        let secret = source.get("nodePublishSecretRef");
        if secret.is_present() && secret.get("name").required_text(errors) {
            secret.get("name").named(names::dns_subdomain, errors);
        }
        return;
    }
    source.get("volumeHandle").required_text(errors);
    for field in [
        "controllerPublishSecretRef",
        "controllerExpandSecretRef",
        "nodePublishSecretRef",
        "nodeExpandSecretRef",
    ] {
        let secret = source.get(field);
        if !secret.is_present() {
            continue;
        }
        if secret.get("name").required_text(errors) {
            secret.get("name").named(names::dns_subdomain, errors);
        }
        if secret.get("namespace").required_text(errors) {
            secret.get("namespace").named(names::dns_label, errors);
        }
    }
}

fn iscsi(source: &Place<'_>, errors: &mut Errors) {
    for field in ["iqn", "initiatorName"] {
        let name = source.get(field);
        let text = name.text();
        let known = ["iqn", "eui", "naa"]
            .iter()
            .any(|prefix| text.starts_with(prefix));
        if !text.is_empty() && !known {
            let detail = "must be valid format starting with iqn, eui, or naa";
            name.invalid(detail, errors);
        }
    }
    source.get("lun").in_range(0..=255, errors);
    let authenticates =
        source.get("chapAuthDiscovery").flag() || source.get("chapAuthSession").flag();
    if authenticates && !source.get("secretRef").is_present() {
        source.get("secretRef").required("", errors);
    }
}

fn fibre_channel(source: &Place<'_>, errors: &mut Errors) {
    let (names, ids) = (source.get("targetWWNs"), source.get("wwids"));
    match (names.is_unset(), ids.is_unset()) {
        (true, true) => {
            let detail = "must specify either targetWWNs or wwids, but not both";
            names.required(detail, errors);
        }
        (false, false) => {
            let detail = "targetWWNs and wwids can not be specified simultaneously";
            names.invalid(detail, errors);
        }
        _ => {}
    }
    let lun = source.get("lun");
    if !names.is_unset() && !lun.is_present() {
        lun.required("lun is required if targetWWNs is specified", errors);
    }
    lun.in_range(0..=255, errors);
}

fn flocker(source: &Place<'_>, errors: &mut Errors) {
    let (name, uuid) = (source.get("datasetName"), source.get("datasetUUID"));
    match (name.is_unset(), uuid.is_unset()) {
        (true, true) => {
            source.required("one of datasetName and datasetUUID is required", errors);
        }
        (false, false) => {
            let detail = "datasetName and datasetUUID can not be specified simultaneously";
            let value = Value::from("resource");
            Place::new(&value, source.path.clone()).invalid(detail, errors);
        }
        _ => {}
    }
    if name.text().contains('/') {
        name.invalid("must not contain '/'", errors);
    }
}

fn quobyte(source: &Place<'_>, errors: &mut Errors) {
    const PAIRS: &str = "must be a host:port pair or multiple pairs separated by commas";
    let (registry, tenant) = (source.get("registry"), source.get("tenant"));
    if registry.text().is_empty() {
        registry.required(PAIRS, errors);
    } else if tenant.text().len() > TENANT_BYTES_MAX {
        let detail = "must be a UUID and may not exceed a length of 64 characters";
        tenant.required(detail, errors);
    } else if registry.text().split(',').any(|pair| !pair.contains(':')) {
        registry.invalid(PAIRS, errors);
    }
}
