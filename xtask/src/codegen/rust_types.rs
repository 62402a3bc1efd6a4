//! Emits the typed structs of `proto_api::types`; changes when the shape of those structs does.
//!
//! Output: one file a group-version. Rules (also in proto/api/README.md): required scalars and
//! structs are plain, optional ones `Option`, lists and maps are plain with a default, every
//! field accepts `null` as absent, a kind writes its own `apiVersion` and `kind`. An optional
//! struct that is large and seldom set lies in a box, so that an object costs what it holds and
//! not what it could hold.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use anyhow::{Context, Result, bail};

use super::definitions::{Definitions, Schema};

/// Kinds whose closure is generated: definition, plural resource name, namespaced.
const KINDS: &[(&str, &str, bool)] = &[
    ("core.v1.Binding", "bindings", true),
    ("core.v1.ConfigMap", "configmaps", true),
    ("core.v1.Endpoints", "endpoints", true),
    ("core.v1.Event", "events", true),
    ("core.v1.LimitRange", "limitranges", true),
    ("core.v1.Namespace", "namespaces", false),
    ("core.v1.Node", "nodes", false),
    ("core.v1.PersistentVolume", "persistentvolumes", false),
    (
        "core.v1.PersistentVolumeClaim",
        "persistentvolumeclaims",
        true,
    ),
    ("core.v1.Pod", "pods", true),
    ("core.v1.PodTemplate", "podtemplates", true),
    (
        "core.v1.ReplicationController",
        "replicationcontrollers",
        true,
    ),
    ("core.v1.ResourceQuota", "resourcequotas", true),
    ("core.v1.Secret", "secrets", true),
    ("core.v1.Service", "services", true),
    ("core.v1.ServiceAccount", "serviceaccounts", true),
    (
        "apiextensions.v1.CustomResourceDefinition",
        "customresourcedefinitions",
        false,
    ),
    ("apps.v1.ControllerRevision", "controllerrevisions", true),
    ("apps.v1.DaemonSet", "daemonsets", true),
    ("apps.v1.Deployment", "deployments", true),
    ("apps.v1.ReplicaSet", "replicasets", true),
    ("apps.v1.StatefulSet", "statefulsets", true),
    ("authentication.v1.TokenRequest", "tokenrequests", true),
    ("autoscaling.v1.Scale", "scales", true),
    (
        "autoscaling.v2.HorizontalPodAutoscaler",
        "horizontalpodautoscalers",
        true,
    ),
    ("batch.v1.CronJob", "cronjobs", true),
    ("batch.v1.Job", "jobs", true),
    (
        "certificates.v1.CertificateSigningRequest",
        "certificatesigningrequests",
        false,
    ),
    ("coordination.v1.Lease", "leases", true),
    ("discovery.v1.EndpointSlice", "endpointslices", true),
    ("events.v1.Event", "events", true),
    ("networking.v1.Ingress", "ingresses", true),
    ("networking.v1.IngressClass", "ingressclasses", false),
    ("networking.v1.NetworkPolicy", "networkpolicies", true),
    ("policy.v1.Eviction", "evictions", true),
    (
        "policy.v1.PodDisruptionBudget",
        "poddisruptionbudgets",
        true,
    ),
    ("rbac.v1.ClusterRole", "clusterroles", false),
    ("rbac.v1.ClusterRoleBinding", "clusterrolebindings", false),
    ("rbac.v1.Role", "roles", true),
    ("rbac.v1.RoleBinding", "rolebindings", true),
    ("scheduling.v1.PriorityClass", "priorityclasses", false),
    ("storage.v1.CSIDriver", "csidrivers", false),
    ("storage.v1.CSINode", "csinodes", false),
    ("storage.v1.StorageClass", "storageclasses", false),
    ("storage.v1.VolumeAttachment", "volumeattachments", false),
];
/// Generated beside the kinds' closure.
const EXTRA: &[&str] = &[
    "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions",
    "io.k8s.apimachinery.pkg.apis.meta.v1.Status",
];
const API: &str = "io.k8s.api.";
const EXTENSIONS: &str = "io.k8s.apiextensions-apiserver.pkg.apis.";
/// Inline size in bytes from which an optional struct is boxed.
const BOXED_FROM: usize = 64;
/// Fields that nearly every object sets: a box would cost an allocation and save nothing.
const NEVER_BOXED: &[&str] = &["lastState", "spec", "state", "status", "template"];
const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";

/// Definitions that are hand-written types of the crate: definition, Rust path.
const HAND_WRITTEN: &[(&str, &str)] = &[
    (
        "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps",
        "serde_json::Value",
    ),
    (
        "io.k8s.apimachinery.pkg.api.resource.Quantity",
        "crate::types::Quantity",
    ),
    (
        "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1",
        "serde_json::Value",
    ),
    (
        "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime",
        "crate::types::MicroTime",
    ),
    (
        "io.k8s.apimachinery.pkg.apis.meta.v1.Time",
        "crate::types::Time",
    ),
    (
        "io.k8s.apimachinery.pkg.runtime.RawExtension",
        "serde_json::Value",
    ),
    (
        "io.k8s.apimachinery.pkg.util.intstr.IntOrString",
        "crate::types::IntOrString",
    ),
];

/// How a field is declared.
enum Shape {
    /// `T`, always written.
    Plain(String),
    /// `T`, left out when it is the default.
    PlainSkipped(String),
    /// `Option<T>`.
    Optional(String),
    /// `Vec` or map, left out when empty unless `required`.
    Collection { ty: String, required: bool },
}

/// One file: path below `src/types` without extension (`core/v1`) and its text.
pub(super) struct File {
    pub(super) path: String,
    pub(super) text: String,
}

/// Emits all files, sorted by path.
pub(super) fn emit(definitions: &Definitions) -> Result<Vec<File>> {
    let mut names = BTreeSet::new();
    for (kind, ..) in KINDS {
        closure(definitions, &full_name(kind), &mut names)?;
    }
    for name in EXTRA {
        closure(definitions, name, &mut names)?;
    }
    let mut files: BTreeMap<String, String> = BTreeMap::new();
    for name in names {
        let (path, _) = place(&name)?;
        let text = files.entry(path.clone()).or_insert_with(|| header(&path));
        emit_type(text, &name, definitions).with_context(|| name.clone())?;
    }
    let file = |(path, text): (String, String)| {
        let own = format!("crate::types::{}::", path.replace('/', "::"));
        let mut text = text.replace(&own, "");
        if path == "meta/v1" {
            text = text.replace("crate::types::Time", "Time");
        }
        File { text, path }
    };
    Ok(files.into_iter().map(file).collect())
}

fn header(path: &str) -> String {
    let reexport = match path {
        "meta/v1" => {
            "pub use crate::types::meta::table::*;\npub use crate::types::{MicroTime, Time};\n"
        }
        _ => "",
    };
    format!(
        "//! Types of `{path}`. Generated by `cargo xtask codegen` from the OpenAPI definitions of\n\
         //! Kubernetes 1.37; do not edit.\n\n\
         use serde::{{Deserialize, Serialize}};\n\
         {reexport}"
    )
}

fn closure(definitions: &Definitions, name: &str, seen: &mut BTreeSet<String>) -> Result<()> {
    if HAND_WRITTEN.iter().any(|(hand, _)| *hand == name) || !seen.insert(name.to_owned()) {
        return Ok(());
    }
    let schema = definitions
        .get(name)
        .with_context(|| format!("no definition {name}"))?;
    let mut pending = vec![schema];
    while let Some(schema) = pending.pop() {
        if let Some(target) = schema.target() {
            closure(definitions, target, seen)?;
        }
        pending.extend(schema.properties.values());
        pending.extend(schema.items.as_deref());
        pending.extend(schema.additional_properties.as_deref());
    }
    Ok(())
}

/// The definition of a row of [`KINDS`].
fn full_name(kind: &str) -> String {
    let base = if kind.starts_with("apiextensions.") {
        EXTENSIONS
    } else {
        API
    };
    format!("{base}{kind}")
}

/// File (`core/v1`) and Rust path (`crate::types::core::v1::Pod`) of a definition.
fn place(name: &str) -> Result<(String, String)> {
    let rest = match name.strip_prefix(META) {
        Some(rest) => format!("meta.v1.{rest}"),
        None => name
            .strip_prefix(API)
            .or_else(|| name.strip_prefix(EXTENSIONS))
            .with_context(|| format!("{name} has no place in the crate"))?
            .to_owned(),
    };
    let mut parts = rest.split('.');
    let (Some(group), Some(version), Some(ty)) = (parts.next(), parts.next(), parts.next()) else {
        bail!("{name} is no group, version and type");
    };
    Ok((
        format!("{group}/{version}"),
        format!("crate::types::{group}::{version}::{ty}"),
    ))
}

fn emit_type(out: &mut String, name: &str, definitions: &Definitions) -> Result<()> {
    let schema = &definitions[name];
    let ty = name.rsplit('.').next().unwrap_or(name);
    let kind = schema
        .kinds
        .first()
        .filter(|_| schema.properties.contains_key("apiVersion"));
    let derive = if kind.is_some() { "" } else { "Serialize, " };
    writeln!(
        out,
        "\n#[derive(Debug, Clone, Default, PartialEq, {derive}Deserialize)]"
    )?;
    if !schema.properties.is_empty() {
        writeln!(out, "#[serde(rename_all = \"camelCase\")]")?;
    }
    writeln!(out, "pub struct {ty} {{")?;
    let mut fields = Vec::new();
    for (json, property) in &schema.properties {
        // Who owns which field is the API server's business, and a write without it changes nothing
        // of it: a tree of it in every object of every cache would cost more than the object.
        let is_ownership = ty == "ObjectMeta" && json == "managedFields";
        if is_ownership || (kind.is_some() && (json == "apiVersion" || json == "kind")) {
            continue;
        }
        let required = schema.required.contains(json);
        let shape = shape(json, property, required, definitions)?;
        let field = rust_name(json);
        emit_field(out, json, &field, &shape, kind.is_none())?;
        fields.push((json.as_str(), field, shape));
    }
    writeln!(out, "}}")?;
    if let Some(kind) = kind {
        let version = match kind.group.as_str() {
            "" => kind.version.clone(),
            group => format!("{group}/{}", kind.version),
        };
        emit_serialize(out, ty, &version, &kind.kind, &fields)?;
        let row = KINDS.iter().find(|(known, ..)| name == full_name(known));
        if let Some((_, plural, namespaced)) = row {
            writeln!(
                out,
                "impl crate::types::Object for {ty} {{\n\
                 const API_VERSION: &'static str = \"{version}\";\n\
                 const GROUP: &'static str = \"{}\";\n\
                 const VERSION: &'static str = \"{}\";\n\
                 const KIND: &'static str = \"{}\";\n\
                 const PLURAL: &'static str = \"{plural}\";\n\
                 const NAMESPACED: bool = {namespaced};\n\
                 fn metadata(&self) -> &crate::types::meta::v1::ObjectMeta {{ &self.metadata }}\n\
                 fn metadata_mut(&mut self) -> &mut crate::types::meta::v1::ObjectMeta {{ &mut self.metadata }}\n}}",
                kind.group, kind.version, kind.kind
            )?;
        }
    }
    Ok(())
}

fn emit_field(out: &mut String, json: &str, field: &str, shape: &Shape, write: bool) -> Result<()> {
    let mut attributes = Vec::new();
    if camel_case(field) != json {
        attributes.push(format!("rename = \"{json}\""));
    }
    let null = "default, deserialize_with = \"crate::types::null_as_default\"";
    let (ty, skip) = match shape {
        Shape::Plain(ty) => (ty.clone(), None),
        Shape::PlainSkipped(ty) => (ty.clone(), Some("crate::types::is_default")),
        Shape::Optional(ty) => (format!("Option<{ty}>"), Some("Option::is_none")),
        Shape::Collection { ty, required } => {
            let container = ty.split('<').next().unwrap_or(ty);
            let skip = if container == "Vec" {
                "Vec::is_empty"
            } else {
                "std::collections::BTreeMap::is_empty"
            };
            (ty.clone(), Some(skip).filter(|_| !required))
        }
    };
    match shape {
        Shape::Optional(_) => {}
        Shape::Collection { ty, .. } if ty.starts_with("Vec<") => {
            attributes.push("default, deserialize_with = \"crate::types::exact_list\"".to_owned())
        }
        _ => attributes.push(null.to_owned()),
    }
    if let Some(skip) = skip.filter(|_| write) {
        attributes.push(format!("skip_serializing_if = \"{skip}\""));
    }
    if !attributes.is_empty() {
        writeln!(out, "#[serde({})]", attributes.join(", "))?;
    }
    writeln!(out, "pub {field}: {ty},")?;
    Ok(())
}

fn emit_serialize(
    out: &mut String,
    ty: &str,
    version: &str,
    kind: &str,
    fields: &[(&str, String, Shape)],
) -> Result<()> {
    writeln!(
        out,
        "impl Serialize for {ty} {{\n\
         fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {{\n\
         use serde::ser::SerializeStruct as _;\n\
         let mut object = serializer.serialize_struct(\"{kind}\", {})?;\n\
         object.serialize_field(\"apiVersion\", \"{version}\")?;\n\
         object.serialize_field(\"kind\", \"{kind}\")?;",
        fields.len() + 2
    )?;
    for (json, field, shape) in fields {
        match shape {
            Shape::Plain(_) | Shape::Collection { required: true, .. } => {
                writeln!(out, "object.serialize_field(\"{json}\", &self.{field})?;")?;
            }
            Shape::PlainSkipped(_) => writeln!(
                out,
                "if !crate::types::is_default(&self.{field}) {{ object.serialize_field(\"{json}\", &self.{field})?; }}"
            )?,
            Shape::Optional(_) => writeln!(
                out,
                "if let Some(value) = &self.{field} {{ object.serialize_field(\"{json}\", value)?; }}"
            )?,
            Shape::Collection { .. } => writeln!(
                out,
                "if !self.{field}.is_empty() {{ object.serialize_field(\"{json}\", &self.{field})?; }}"
            )?,
        }
    }
    writeln!(out, "object.end()\n}}\n}}")?;
    Ok(())
}

fn shape(json: &str, schema: &Schema, required: bool, definitions: &Definitions) -> Result<Shape> {
    let ty = rust_type(schema).with_context(|| json.to_owned())?;
    let collection = ty.starts_with("Vec<") || ty.starts_with("std::collections::BTreeMap<");
    Ok(match (collection, required) {
        (true, _) => Shape::Collection { ty, required },
        _ if json == "metadata" => Shape::PlainSkipped(ty),
        (false, true) => Shape::Plain(ty),
        (false, false) if is_boxed(json, schema, definitions) => {
            Shape::Optional(format!("Box<{ty}>"))
        }
        (false, false) => Shape::Optional(ty),
    })
}

/// Whether the optional field `json` is kept out of line.
fn is_boxed(json: &str, schema: &Schema, definitions: &Definitions) -> bool {
    let generated = |target: &str| HAND_WRITTEN.iter().all(|(name, _)| *name != target);
    schema.target().is_some_and(generated)
        && !NEVER_BOXED.contains(&json)
        && inline_size(schema, definitions) >= BOXED_FROM
}

/// About how many bytes a value of `schema` takes where it lies.
fn inline_size(schema: &Schema, definitions: &Definitions) -> usize {
    const WORD: usize = 8;
    const TEXT: usize = 3 * WORD;
    let Some(target) = schema.target() else {
        return match schema.json_type() {
            Some("boolean") => 1,
            Some("integer" | "number") => 2 * WORD,
            _ => TEXT,
        };
    };
    if HAND_WRITTEN.iter().any(|(name, _)| *name == target) {
        return TEXT;
    }
    let fields = definitions.get(target).map(|found| &found.properties);
    let sizes = fields.into_iter().flatten().map(|(json, field)| {
        if is_boxed(json, field, definitions) {
            WORD
        } else {
            inline_size(field, definitions)
        }
    });
    sizes.sum()
}

fn rust_type(schema: &Schema) -> Result<String> {
    if let Some(target) = schema.target() {
        if let Some((_, path)) = HAND_WRITTEN.iter().find(|(name, _)| *name == target) {
            return Ok((*path).to_owned());
        }
        return Ok(place(target)?.1);
    }
    let format = schema.format.as_deref();
    Ok(match (schema.json_type(), format) {
        (Some("string"), Some("byte")) => "crate::types::Bytes".to_owned(),
        (Some("string"), None) => "String".to_owned(),
        (Some("boolean"), None) => "bool".to_owned(),
        (Some("integer"), Some("int32")) => "i32".to_owned(),
        (Some("integer"), Some("int64") | None) => "i64".to_owned(),
        (Some("number"), _) => "f64".to_owned(),
        (Some("array"), None) => {
            let items = schema.items.as_deref().context("an array without items")?;
            format!("Vec<{}>", rust_type(items)?)
        }
        (Some("object"), None) => match schema.additional_properties.as_deref() {
            Some(value) => {
                format!("std::collections::BTreeMap<String, {}>", rust_type(value)?)
            }
            None => "serde_json::Value".to_owned(),
        },
        (ty, format) => bail!("no Rust type for {ty:?} with format {format:?}"),
    })
}

/// `clusterIPs` -> `cluster_ips`, `hostIPC` -> `host_ipc`, `type` -> `type_`.
fn rust_name(json: &str) -> String {
    let chars: Vec<char> = json.trim_start_matches('$').chars().collect();
    let mut name = String::new();
    for (at, &c) in chars.iter().enumerate() {
        if !c.is_ascii_uppercase() {
            name.push(c);
            continue;
        }
        let after_lower = at > 0 && !chars[at - 1].is_ascii_uppercase();
        // The last capital of a run begins the next word, except before a plural `s` (`IPs`).
        let begins_word = at > 0
            && chars.get(at + 1).is_some_and(char::is_ascii_lowercase)
            && !(chars[at + 1] == 's' && chars.get(at + 2).is_none_or(|c| c.is_ascii_uppercase()));
        if after_lower || begins_word {
            name.push('_');
        }
        name.push(c.to_ascii_lowercase());
    }
    match name.as_str() {
        "type" | "continue" | "as" | "match" | "ref" | "in" => name + "_",
        _ => name,
    }
}

/// What serde's `rename_all = "camelCase"` makes of `field`.
fn camel_case(field: &str) -> String {
    let mut json = String::new();
    let mut upper = false;
    for c in field.chars() {
        match c {
            '_' => upper = true,
            c if upper => {
                json.push(c.to_ascii_uppercase());
                upper = false;
            }
            c => json.push(c),
        }
    }
    json
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_names_become_rust_names() {
        for (json, rust) in [
            ("clusterIP", "cluster_ip"),
            ("clusterIPs", "cluster_ips"),
            ("hostIPC", "host_ipc"),
            ("podCIDRs", "pod_cidrs"),
            ("type", "type_"),
            ("externalTrafficPolicy", "external_traffic_policy"),
            ("httpGet", "http_get"),
            ("uid", "uid"),
            ("setHostnameAsFQDN", "set_hostname_as_fqdn"),
        ] {
            assert_eq!(rust_name(json), rust);
        }
    }
}
