//! Emits the schema table that `proto_api::schema` reads; changes with the table's format.
//!
//! Text, one line a fact, so that a new release reads as a diff:
//!
//! ```text
//! T <definition> [atomic]                          a type
//! K <group>,<version>,<kind>                       it is that kind
//! F <json> <shape> <number> <flags> [key=value]..  a field, sorted by json name
//! ```
//!
//! Shapes, numbers, flags and keys are described at `proto_api::schema::parse`. Descriptions lie in
//! a second file, one line for each T and F line; `=N` repeats line N.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write as _;

use anyhow::{Context, Result, bail, ensure};

use super::definitions::{Definitions, Schema};
use super::gotypes::{GoField, GoTypes};

const API: &str = "io.k8s.api.";
const MACHINERY: &str = "io.k8s.apimachinery.pkg.";
const EXTENSIONS: &str = "io.k8s.apiextensions-apiserver.pkg.apis.";

/// Groups whose types the table holds.
const GROUPS: &[&str] = &[
    "io.k8s.api.admissionregistration.v1.",
    "io.k8s.api.apps.v1.",
    "io.k8s.api.authentication.v1.",
    "io.k8s.api.authorization.v1.",
    "io.k8s.api.autoscaling.v1.",
    "io.k8s.api.autoscaling.v2.",
    "io.k8s.api.batch.v1.",
    "io.k8s.api.certificates.v1.",
    "io.k8s.api.coordination.v1.",
    "io.k8s.api.core.v1.",
    "io.k8s.api.discovery.v1.",
    "io.k8s.api.events.v1.",
    "io.k8s.api.flowcontrol.v1.",
    "io.k8s.api.networking.v1.",
    "io.k8s.api.node.v1.",
    "io.k8s.api.policy.v1.",
    "io.k8s.api.rbac.v1.",
    "io.k8s.api.scheduling.v1.",
    "io.k8s.api.storage.v1.",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.",
    "io.k8s.apimachinery.pkg.apis.meta.v1.",
    "io.k8s.apimachinery.pkg.version.",
];

/// Definitions with a form of their own on the wire: definition, shape.
const SPECIAL: &[(&str, &str)] = &[
    (
        "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON",
        "json",
    ),
    (
        "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrArray",
        "any",
    ),
    (
        "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrBool",
        "any",
    ),
    (
        "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrStringArray",
        "any",
    ),
    ("io.k8s.apimachinery.pkg.api.resource.Quantity", "quantity"),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1", "fields"),
    (
        "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime",
        "microtime",
    ),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.Patch", "any"),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.Time", "time"),
    ("io.k8s.apimachinery.pkg.runtime.RawExtension", "raw"),
    (
        "io.k8s.apimachinery.pkg.util.intstr.IntOrString",
        "intorstring",
    ),
];

/// The two files' texts.
pub(super) struct Table {
    pub(super) schema: String,
    pub(super) descriptions: String,
}

pub(super) fn emit(definitions: &Definitions, go: &GoTypes) -> Result<Table> {
    let mut table = Table {
        schema: String::new(),
        descriptions: String::new(),
    };
    let mut lines = Descriptions::default();
    for name in names(definitions) {
        emit_type(&mut table.schema, &mut lines, name, &definitions[name], go)
            .with_context(|| name.to_owned())?;
    }
    table.descriptions = lines.text;
    Ok(table)
}

/// The types of [`GROUPS`] and all they refer to.
fn names(definitions: &Definitions) -> BTreeSet<&str> {
    let in_group = |name: &&String| GROUPS.iter().any(|group| name.starts_with(group));
    let mut pending: Vec<&str> = definitions
        .keys()
        .filter(in_group)
        .map(String::as_str)
        .collect();
    let mut names = BTreeSet::new();
    while let Some(name) = pending.pop() {
        let special = SPECIAL.iter().any(|(known, _)| *known == name);
        if special || !names.insert(name) {
            continue;
        }
        let mut schemas: Vec<&Schema> = definitions.get(name).into_iter().collect();
        while let Some(schema) = schemas.pop() {
            pending.extend(schema.target());
            schemas.extend(schema.properties.values());
            schemas.extend(schema.items.as_deref());
            schemas.extend(schema.additional_properties.as_deref());
        }
    }
    names
}

fn emit_type(
    out: &mut String,
    lines: &mut Descriptions,
    name: &str,
    schema: &Schema,
    go: &GoTypes,
) -> Result<()> {
    let atomic = if schema.map_type.as_deref() == Some("atomic") {
        " atomic"
    } else {
        ""
    };
    writeln!(out, "T {}{atomic}", short(name))?;
    lines.push(schema.description.as_deref())?;
    for kind in &schema.kinds {
        writeln!(out, "K {},{},{}", kind.group, kind.version, kind.kind)?;
    }
    let (package, struct_name) = go_name(name)?;
    let go_fields = go.fields(&package, struct_name);
    ensure!(
        go_fields.is_some() || name.starts_with(EXTENSIONS),
        "no Go struct {package}.{struct_name}"
    );
    for (json, field) in &schema.properties {
        let known = go_fields.and_then(|fields| fields.iter().find(|known| known.json == *json));
        ensure!(
            known.is_some() || go_fields.is_none(),
            "no Go field for {json}"
        );
        let required = schema.required.contains(json);
        emit_field(out, json, field, required, known).with_context(|| json.to_owned())?;
        lines.push(field.description.as_deref())?;
    }
    Ok(())
}

fn emit_field(
    out: &mut String,
    json: &str,
    schema: &Schema,
    required: bool,
    go: Option<&GoField>,
) -> Result<()> {
    let shape = shape_of(schema, go.is_some_and(|go| go.wrapped))?;
    let number = match go {
        Some(go) => {
            let path = go
                .inline
                .iter()
                .chain([&go.number])
                .map(ToString::to_string);
            path.collect::<Vec<_>>().join("/")
        }
        None => "0".to_owned(),
    };
    let mut flags = String::new();
    for (flag, set) in [
        ('r', required),
        ('p', go.map_or(!required, |go| go.pointer)),
        ('o', go.map_or(!required, |go| go.omit_empty)),
    ] {
        if set {
            flags.push(flag);
        }
    }
    if flags.is_empty() {
        flags.push('-');
    }
    write!(out, "F {json} {shape} {number} {flags}")?;
    let mut key = |key: &str, value: Option<&str>| match value {
        Some(value) => write!(out, " {key}={value}"),
        None => Ok(()),
    };
    key("lt", schema.list_type.as_deref())?;
    let keys = schema.list_map_keys.join(",");
    key("lk", Some(keys.as_str()).filter(|keys| !keys.is_empty()))?;
    key("mt", schema.map_type.as_deref())?;
    key("ps", schema.patch_strategy.as_deref())?;
    key("pk", schema.patch_merge_key.as_deref())?;
    key(
        "go",
        go.map(|go| go.go_type.as_str())
            .filter(|name| *name != go_derived(&shape)),
    )?;
    out.push('\n');
    Ok(())
}

fn shape_of(schema: &Schema, wrapped: bool) -> Result<String> {
    if let Some(target) = schema.target() {
        if let Some((_, shape)) = SPECIAL.iter().find(|(name, _)| *name == target) {
            return Ok((*shape).to_owned());
        }
        return Ok(format!("&{}", short(target)));
    }
    Ok(match (schema.json_type(), schema.format.as_deref()) {
        (Some("string"), Some("byte")) => "bytes".to_owned(),
        (Some("string"), None) => "string".to_owned(),
        (Some("boolean"), None) => "bool".to_owned(),
        (Some("integer"), Some("int32")) => "i32".to_owned(),
        (Some("integer"), Some("int64") | None) => "i64".to_owned(),
        (Some("number"), _) => "f64".to_owned(),
        (Some("array"), None) => {
            let items = schema.items.as_deref().context("an array without items")?;
            format!("[]{}", shape_of(items, false)?)
        }
        (Some("object"), None) => match schema.additional_properties.as_deref() {
            Some(value) => {
                let value = shape_of(value, false)?;
                format!("{{}}{}{value}", if wrapped { "w" } else { "" })
            }
            None => "any".to_owned(),
        },
        (ty, format) => bail!("no shape for {ty:?} with format {format:?}"),
    })
}

/// The Go type a reader of the table derives from the shape alone.
fn go_derived(shape: &str) -> String {
    if let Some(name) = shape.strip_prefix('&') {
        let mut parts = name.rsplit('.');
        let ty = parts.next().unwrap_or_default();
        return format!("{}.{ty}", parts.next().unwrap_or_default());
    }
    if let Some(item) = shape.strip_prefix("[]") {
        return format!("[]{}", go_derived(item));
    }
    if let Some(value) = shape.strip_prefix("{}") {
        return format!("map[string]{}", go_derived(value.trim_start_matches('w')));
    }
    match shape {
        "i32" => "int32",
        "i64" => "int64",
        "f64" => "float64",
        "bytes" => "[]uint8",
        "time" => "v1.Time",
        "microtime" => "v1.MicroTime",
        "quantity" => "resource.Quantity",
        "intorstring" => "intstr.IntOrString",
        "fields" => "v1.FieldsV1",
        "raw" => "runtime.RawExtension",
        other => other,
    }
    .to_owned()
}

/// The definition's name in the table: without what all names of our groups begin with.
fn short(name: &str) -> String {
    match (name.strip_prefix(API), name.strip_prefix(MACHINERY)) {
        (Some(rest), _) => format!("a.{rest}"),
        (_, Some(rest)) => format!("m.{rest}"),
        (None, None) => name.to_owned(),
    }
}

/// Go package path and struct name of a definition.
fn go_name(name: &str) -> Result<(String, &str)> {
    let (package, ty) = name
        .rsplit_once('.')
        .context("a definition without a package")?;
    let path = package
        .strip_prefix("io.k8s.")
        .context("a definition outside io.k8s")?;
    Ok((format!("k8s.io/{}", path.replace('.', "/")), ty))
}

/// Descriptions, each text once.
#[derive(Default)]
struct Descriptions {
    text: String,
    count: usize,
    first: HashMap<String, usize>,
}

impl Descriptions {
    fn push(&mut self, text: Option<&str>) -> Result<()> {
        let text = text
            .unwrap_or_default()
            .replace('\\', "\\\\")
            .replace('\n', "\\n");
        match self.first.get(&text) {
            Some(line) if text.len() > 6 => writeln!(self.text, "={line}")?,
            _ => {
                ensure!(!text.starts_with('='), "a description begins with '='");
                writeln!(self.text, "{text}")?;
                self.first.insert(text, self.count);
            }
        }
        self.count += 1;
        Ok(())
    }
}
