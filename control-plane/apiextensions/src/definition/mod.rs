//! A CustomResourceDefinition: what it says, its defaults, and whether it is sound.
//!
//! Owns: the typed form that the API server makes kinds of. Invariant: what [`Definition::parse`]
//! returns of a validated definition is complete.

mod names;
mod schema_rules;
mod validate;

use serde_json::{Map, Value, json};

pub use self::validate::{validate_definition, validate_definition_update};
use crate::jsonpath::JsonPath;
use crate::structural::{Schema, SchemaError};

/// Names of a custom kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// Plural, as in paths.
    pub plural: String,
    /// Singular.
    pub singular: String,
    /// Kind.
    pub kind: String,
    /// Kind of lists.
    pub list_kind: String,
    /// Short names.
    pub short: Vec<String>,
    /// Categories.
    pub categories: Vec<String>,
}

/// `spec.conversion`.
#[derive(Debug, Clone, PartialEq)]
pub enum Conversion {
    /// Versions differ in nothing but their name.
    None,
    /// A webhook translates.
    Webhook(Webhook),
}

/// How a conversion webhook is reached.
#[derive(Debug, Clone, PartialEq)]
pub struct Webhook {
    /// `clientConfig` as it is written.
    pub client_config: Value,
    /// Versions of ConversionReview that it understands, the preferred one first.
    pub review_versions: Vec<String>,
}

/// An additional printer column.
#[derive(Debug, Clone)]
pub struct Column {
    /// Heading.
    pub name: String,
    /// Type of the cells.
    pub kind: String,
    /// Format, or empty.
    pub format: String,
    /// Sentence.
    pub description: String,
    /// 0 is always shown.
    pub priority: i64,
    /// Where the cell's value is.
    pub path: JsonPath,
}

/// The scale subresource's paths.
#[derive(Debug, Clone, PartialEq)]
pub struct Scale {
    /// Wanted replicas.
    pub spec_replicas: Vec<String>,
    /// Present replicas.
    pub status_replicas: Vec<String>,
    /// Selector of the replicas as text, if there is one.
    pub label_selector: Option<Vec<String>>,
}

/// One version.
#[derive(Debug, Clone)]
pub struct Version {
    /// `v1`.
    pub name: String,
    /// Clients may use it.
    pub served: bool,
    /// Objects are stored in it.
    pub storage: bool,
    /// Warning to who uses it.
    pub warning: Option<String>,
    /// Schema of its objects.
    pub schema: Schema,
    /// `openAPIV3Schema` as it is written.
    pub source: Value,
    /// It has a status subresource.
    pub status: bool,
    /// It has a scale subresource.
    pub scale: Option<Scale>,
    /// Columns beside the name; none means the age.
    pub columns: Vec<Column>,
    /// Selectable fields and where they are.
    pub selectable: Vec<(String, JsonPath)>,
}

/// A definition.
#[derive(Debug, Clone)]
pub struct Definition {
    /// Its name, `plural.group`.
    pub name: String,
    /// Group.
    pub group: String,
    /// Objects live in namespaces.
    pub namespaced: bool,
    /// Names.
    pub names: Names,
    /// Versions.
    pub versions: Vec<Version>,
    /// How versions are converted.
    pub conversion: Conversion,
    /// Its names are its own and it may be served.
    pub established: bool,
    /// It is being deleted.
    pub terminating: bool,
}

impl Definition {
    /// Reads a stored definition.
    ///
    /// # Errors
    /// A schema cannot be used.
    pub fn parse(object: &Value) -> Result<Self, SchemaError> {
        let spec = &object["spec"];
        let versions: Result<Vec<Version>, SchemaError> = list(&spec["versions"])
            .iter()
            .map(|v| version(spec, v))
            .collect();
        let conversion = match spec["conversion"]["strategy"].as_str() {
            Some("Webhook") => Conversion::Webhook(Webhook {
                client_config: spec["conversion"]["webhook"]["clientConfig"].clone(),
                review_versions: texts(&spec["conversion"]["webhook"]["conversionReviewVersions"]),
            }),
            _ => Conversion::None,
        };
        Ok(Self {
            name: text(&object["metadata"]["name"]),
            group: text(&spec["group"]),
            namespaced: spec["scope"] == "Namespaced",
            names: Names {
                plural: text(&spec["names"]["plural"]),
                singular: text(&spec["names"]["singular"]),
                kind: text(&spec["names"]["kind"]),
                list_kind: text(&spec["names"]["listKind"]),
                short: texts(&spec["names"]["shortNames"]),
                categories: texts(&spec["names"]["categories"]),
            },
            versions: versions?,
            conversion,
            established: condition(object, "Established"),
            terminating: !object["metadata"]["deletionTimestamp"].is_null(),
        })
    }

    /// The version that objects are stored in.
    #[must_use]
    pub fn storage(&self) -> Option<&Version> {
        self.versions.iter().find(|version| version.storage)
    }
}

fn version(spec: &Value, value: &Value) -> Result<Version, SchemaError> {
    let source = value["schema"]["openAPIV3Schema"].clone();
    let name = text(&value["name"]);
    let warning = value["deprecated"].as_bool().unwrap_or_default().then(|| {
        let own = value["deprecationWarning"].as_str().map(str::to_owned);
        own.unwrap_or_else(|| {
            let (group, kind) = (text(&spec["group"]), text(&spec["names"]["kind"]));
            format!("{group}/{name} {kind} is deprecated")
        })
    });
    let fields = |value: &Value| -> Option<Vec<String>> {
        let path = JsonPath::parse(value.as_str().filter(|text| !text.is_empty())?).ok()?;
        Some(path.fields()?.into_iter().map(str::to_owned).collect())
    };
    let scale = value["subresources"]
        .get("scale")
        .filter(|scale| !scale.is_null());
    Ok(Version {
        served: value["served"].as_bool().unwrap_or_default(),
        storage: value["storage"].as_bool().unwrap_or_default(),
        warning,
        schema: Schema::parse(&source)?,
        source,
        status: value["subresources"]
            .get("status")
            .is_some_and(|status| !status.is_null()),
        scale: scale.and_then(|scale| {
            Some(Scale {
                spec_replicas: fields(&scale["specReplicasPath"])?,
                status_replicas: fields(&scale["statusReplicasPath"])?,
                label_selector: fields(&scale["labelSelectorPath"]),
            })
        }),
        columns: list(&value["additionalPrinterColumns"])
            .iter()
            .filter_map(column)
            .collect(),
        selectable: list(&value["selectableFields"])
            .iter()
            .filter_map(|field| {
                let path = field["jsonPath"].as_str()?;
                let name = path.strip_prefix('.').unwrap_or(path);
                Some((name.to_owned(), JsonPath::parse(path).ok()?))
            })
            .collect(),
        name,
    })
}

fn column(value: &Value) -> Option<Column> {
    Some(Column {
        name: text(&value["name"]),
        kind: text(&value["type"]),
        format: text(&value["format"]),
        description: text(&value["description"]),
        priority: value["priority"].as_i64().unwrap_or_default(),
        path: JsonPath::parse(value["jsonPath"].as_str()?).ok()?,
    })
}

/// Fills what a definition leaves out.
pub fn defaults(object: &mut Value) {
    let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else {
        return;
    };
    if let Some(names) = spec.get_mut("names").and_then(Value::as_object_mut) {
        let kind = names
            .get("kind")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned();
        if !kind.is_empty() {
            fill(names, "singular", json!(kind.to_lowercase()));
            fill(names, "listKind", json!(format!("{kind}List")));
        }
    }
    fill(spec, "conversion", json!({"strategy": "None"}));
    let service = spec
        .get_mut("conversion")
        .and_then(|conversion| conversion.pointer_mut("/webhook/clientConfig/service"))
        .and_then(Value::as_object_mut);
    if let Some(service) = service {
        fill(service, "port", json!(443));
    }
}

fn fill(map: &mut Map<String, Value>, name: &str, value: Value) {
    let unset = map
        .get(name)
        .is_none_or(|value| value.is_null() || value == "");
    if unset {
        map.insert(name.to_owned(), value);
    }
}

/// Whether condition `name` is true.
pub(crate) fn condition(object: &Value, name: &str) -> bool {
    list(&object["status"]["conditions"])
        .iter()
        .any(|condition| condition["type"] == name && condition["status"] == "True")
}

pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

pub(crate) fn texts(value: &Value) -> Vec<String> {
    list(value)
        .iter()
        .filter_map(|v| v.as_str().map(str::to_owned))
        .collect()
}
