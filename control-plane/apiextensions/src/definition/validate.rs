//! Whether a definition is sound, beside its schemas.

use std::collections::HashSet;

use proto_api::names;
use serde_json::Value;

use super::{condition, list, names as kind_names, schema_rules, texts};
use crate::jsonpath::JsonPath;
use crate::violation::{Reason, Violation};

const IMMUTABLE: &str = "field is immutable";
const APPROVAL: &str = "api-approved.kubernetes.io";
const COLUMN_TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
const SELECTABLE_MAX: usize = 8;

/// Checks a new or changed definition, defaults filled in.
#[must_use]
pub fn validate_definition(object: &Value) -> Vec<Violation> {
    let spec = &object["spec"];
    let mut found = Vec::new();
    validate_name(object, &mut found);
    validate_group(object, &mut found);
    match spec["scope"].as_str().unwrap_or_default() {
        "" => found.push(Violation::required("spec.scope", "")),
        "Cluster" | "Namespaced" => {}
        other => {
            let supported = ["Cluster", "Namespaced"];
            found.push(Violation::not_supported("spec.scope", other, &supported));
        }
    }
    if spec["preserveUnknownFields"] == true {
        let detail = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in \
                      spec.versions[*].schema instead";
        found.push(Violation::invalid(
            "spec.preserveUnknownFields",
            true,
            detail,
        ));
    }
    validate_versions(spec, &mut found);
    kind_names::validate(&spec["names"], "spec.names", &mut found);
    validate_conversion(&spec["conversion"], &mut found);
    validate_stored(object, &mut found);
    found
}

fn validate_name(object: &Value, found: &mut Vec<Violation>) {
    let spec = &object["spec"];
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let plural = spec["names"]["plural"].as_str().unwrap_or_default();
    let group = spec["group"].as_str().unwrap_or_default();
    if name != format!("{plural}.{group}") {
        let detail = "must be spec.names.plural+\".\"+spec.group";
        found.push(Violation::invalid("metadata.name", name, detail));
    }
}

fn validate_group(object: &Value, found: &mut Vec<Violation>) {
    let group = object["spec"]["group"].as_str().unwrap_or_default();
    if group.is_empty() {
        found.push(Violation::required("spec.group", ""));
        return;
    }
    let broken = names::dns_subdomain(group);
    if !broken.is_empty() {
        found.push(Violation::invalid("spec.group", group, broken.join(",")));
    } else if !group.contains('.') {
        let detail = "should be a domain with at least one dot";
        found.push(Violation::invalid("spec.group", group, detail));
    }
    let guarded = ["k8s.io", "kubernetes.io"]
        .iter()
        .any(|domain| group == *domain || group.ends_with(&format!(".{domain}")));
    let approval = object["metadata"]["annotations"][APPROVAL].as_str();
    if guarded && approval.is_none_or(str::is_empty) {
        let path = format!("metadata.annotations[{APPROVAL}]");
        let detail = format!(
            "protected groups must have approval annotation \"{APPROVAL}\", see \
             https://github.com/kubernetes/enhancements/pull/1111"
        );
        found.push(Violation::required(&path, detail));
    }
}

fn validate_versions(spec: &Value, found: &mut Vec<Violation>) {
    let versions = list(&spec["versions"]);
    if versions.is_empty() {
        let detail = "must have at least one version";
        found.push(Violation::required("spec.versions", detail));
        return;
    }
    let mut seen = HashSet::new();
    let mut unique = true;
    for (index, version) in versions.iter().enumerate() {
        let path = format!("spec.versions[{index}]");
        let name = version["name"].as_str().unwrap_or_default();
        let broken = names::dns_1035_label(name);
        if !broken.is_empty() {
            let path = format!("{path}.name");
            found.push(Violation::invalid(&path, name, broken.join(",")));
        }
        unique &= seen.insert(name);
        if version["deprecated"] != true && !version["deprecationWarning"].is_null() {
            let path = format!("{path}.deprecationWarning");
            let detail = "can only be set for deprecated versions";
            found.push(Violation::invalid(
                &path,
                version["deprecationWarning"].clone(),
                detail,
            ));
        }
        let place = place(versions, index, "schema", "validation");
        match (&version["schema"]["openAPIV3Schema"], place) {
            (schema @ Value::Object(_), Some(place)) => {
                schema_rules::validate(schema, &format!("{place}.openAPIV3Schema"), found);
            }
            (Value::Object(_), None) => {}
            _ => {
                let path = format!("{path}.schema.openAPIV3Schema");
                found.push(Violation::required(&path, "schemas are required"));
            }
        }
        validate_version_parts(versions, index, found);
    }
    if !unique {
        let detail = "must contain unique version names";
        found.push(Violation::invalid(
            "spec.versions",
            spec["versions"].clone(),
            detail,
        ));
    }
    if versions
        .iter()
        .filter(|version| version["storage"] == true)
        .count()
        != 1
    {
        let detail = "must have exactly one version marked as storage version";
        found.push(Violation::invalid(
            "spec.versions",
            spec["versions"].clone(),
            detail,
        ));
    }
}

/// Where a part of version `index` is told to be: what all versions have in common is told once, as
/// a part of the definition (as upstream, which keeps it there). Nothing: it is told already.
fn place(versions: &[Value], index: usize, field: &str, shared: &str) -> Option<String> {
    let own = &versions.get(index)?[field];
    if versions.iter().any(|other| other[field] != *own) {
        return Some(format!("spec.versions[{index}].{field}"));
    }
    (index == 0).then(|| format!("spec.{shared}"))
}

fn validate_version_parts(versions: &[Value], index: usize, found: &mut Vec<Violation>) {
    let Some(version) = versions.get(index) else {
        return;
    };
    let place = |field: &str| place(versions, index, field, field);
    if let Some(path) = place("additionalPrinterColumns") {
        let columns = list(&version["additionalPrinterColumns"]).iter();
        for (index, column) in columns.enumerate() {
            validate_column(column, &format!("{path}[{index}]"), found);
        }
    }
    let scale = &version["subresources"]["scale"];
    if let Some(path) = place("subresources").filter(|_| scale.is_object()) {
        let path = format!("{path}.scale");
        replicas_path(scale, "specReplicasPath", &[".spec."], &path, found);
        replicas_path(scale, "statusReplicasPath", &[".status."], &path, found);
        if scale["labelSelectorPath"]
            .as_str()
            .is_some_and(|text| !text.is_empty())
        {
            let roots = [".spec.", ".status."];
            replicas_path(scale, "labelSelectorPath", &roots, &path, found);
        }
    }
    if let Some(path) = place("selectableFields") {
        validate_selectable(version, &path, found);
    }
}

fn validate_selectable(version: &Value, path: &str, found: &mut Vec<Violation>) {
    let selectable = list(&version["selectableFields"]);
    if selectable.len() > SELECTABLE_MAX {
        let (count, max) = (selectable.len(), SELECTABLE_MAX);
        found.push(Violation::new(path, Reason::TooMany { count, max }, ""));
    }
    for (index, field) in selectable.iter().enumerate() {
        let path = format!("{path}[{index}].jsonPath");
        let text = field["jsonPath"].as_str().unwrap_or_default();
        let known = JsonPath::parse(text).ok();
        match known.as_ref().and_then(JsonPath::fields) {
            _ if text.is_empty() => found.push(Violation::required(&path, "")),
            None => {
                let detail = "must be a simple path of fields";
                found.push(Violation::invalid(&path, text, detail));
            }
            Some(fields) if fields.first() == Some(&"metadata") => {
                let detail = "must not point to fields in metadata";
                found.push(Violation::invalid(&path, text, detail));
            }
            Some(fields) => {
                let schema = &version["schema"]["openAPIV3Schema"];
                if !selectable_kind(schema, &fields) {
                    let detail = "must point to a field of type string, boolean or integer";
                    found.push(Violation::invalid(&path, text, detail));
                }
            }
        }
    }
}

fn selectable_kind(schema: &Value, fields: &[&str]) -> bool {
    let found = fields
        .iter()
        .fold(schema, |schema, name| &schema["properties"][*name]);
    matches!(
        found["type"].as_str(),
        Some("string" | "boolean" | "integer")
    )
}

fn validate_column(column: &Value, path: &str, found: &mut Vec<Violation>) {
    if column["name"].as_str().is_none_or(str::is_empty) {
        found.push(Violation::required(&format!("{path}.name"), ""));
    }
    let kind = column["type"].as_str().unwrap_or_default();
    if kind.is_empty() {
        let detail = format!("must be one of {}", COLUMN_TYPES.join(","));
        found.push(Violation::required(&format!("{path}.type"), detail));
    } else if !COLUMN_TYPES.contains(&kind) {
        let detail = format!("must be one of {}", COLUMN_TYPES.join(","));
        found.push(Violation::invalid(&format!("{path}.type"), kind, detail));
    }
    let text = column["jsonPath"].as_str().unwrap_or_default();
    let path = format!("{path}.jsonPath");
    if text.is_empty() {
        found.push(Violation::required(&path, ""));
    } else if let Err(fault) = JsonPath::parse(text) {
        found.push(Violation::invalid(&path, text, fault.to_string()));
    }
}

fn replicas_path(
    scale: &Value,
    name: &str,
    roots: &[&str],
    path: &str,
    found: &mut Vec<Violation>,
) {
    let path = format!("{path}.{name}");
    let text = scale[name].as_str().unwrap_or_default();
    let simple = JsonPath::parse(text).is_ok_and(|path| path.fields().is_some());
    if text.is_empty() {
        found.push(Violation::required(&path, ""));
    } else if !simple {
        let detail = "should be a valid JSON path without array notation";
        found.push(Violation::invalid(&path, text, detail));
    } else if !roots.iter().any(|root| text.starts_with(root)) {
        let names: Vec<&str> = roots
            .iter()
            .map(|root| root.trim_end_matches('.'))
            .collect();
        let detail = format!("should be a json path under {}", names.join(" or "));
        found.push(Violation::invalid(&path, text, detail));
    }
}

fn validate_conversion(conversion: &Value, found: &mut Vec<Violation>) {
    let webhook = &conversion["webhook"];
    match conversion["strategy"].as_str().unwrap_or_default() {
        "" => found.push(Violation::required("spec.conversion.strategy", "")),
        "None" => {
            if webhook.is_object() {
                let detail = "should not be set when strategy is not set to Webhook";
                found.push(Violation::forbidden("spec.conversion.webhook", detail));
            }
        }
        "Webhook" => {
            let config = &webhook["clientConfig"];
            let path = "spec.conversion.webhook.clientConfig";
            match (config["url"].is_string(), config["service"].is_object()) {
                _ if !config.is_object() => {
                    let detail = "required when strategy is set to Webhook";
                    found.push(Violation::required(path, detail));
                }
                (true, true) | (false, false) => {
                    found.push(Violation::required(
                        path,
                        "exactly one of url or service is required",
                    ));
                }
                (true, false) | (false, true) => {}
            }
            let versions = texts(&webhook["conversionReviewVersions"]);
            let path = "spec.conversion.webhook.conversionReviewVersions";
            if versions.is_empty() {
                found.push(Violation::required(path, ""));
            } else if !versions.iter().any(|v| v == "v1" || v == "v1beta1") {
                let detail = "must include at least one of v1, v1beta1";
                found.push(Violation::invalid(path, versions, detail));
            }
        }
        other => {
            let path = "spec.conversion.strategy";
            found.push(Violation::not_supported(path, other, &["None", "Webhook"]));
        }
    }
}

/// Versions that objects are stored in may not go.
fn validate_stored(object: &Value, found: &mut Vec<Violation>) {
    let known: Vec<&str> = list(&object["spec"]["versions"])
        .iter()
        .filter_map(|version| version["name"].as_str())
        .collect();
    for (index, stored) in texts(&object["status"]["storedVersions"])
        .iter()
        .enumerate()
    {
        if !known.contains(&stored.as_str()) {
            let path = format!("status.storedVersions[{index}]");
            let detail = "must appear in spec.versions";
            found.push(Violation::invalid(&path, stored.clone(), detail));
        }
    }
}

/// Checks what a change of a definition may not change.
#[must_use]
pub fn validate_definition_update(new: &Value, old: &Value) -> Vec<Violation> {
    let mut paths = vec!["spec.group", "spec.names.plural"];
    if condition(old, "Established") {
        paths.extend(["spec.scope", "spec.names.kind"]);
    }
    let at = |object: &Value, path: &str| {
        let parts = path.split('.');
        parts.fold(object.clone(), |value, name| value[name].clone())
    };
    paths
        .into_iter()
        .filter(|path| at(new, path) != at(old, path))
        .map(|path| Violation::invalid(path, at(new, path), IMMUTABLE))
        .collect()
}
