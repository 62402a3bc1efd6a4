//! The schema as an OpenAPI v3 component.

use proto_api::schema::Gvk;
use serde_json::{Map, Value, json};

use super::typed::definition_name;

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

/// The components of custom kind `gvk`: its own and that of its lists. `source`: the definition's
/// `openAPIV3Schema`.
#[must_use]
pub fn open_api<'a>(
    gvk: Gvk<'a>,
    list_kind: &'a str,
    source: &Value,
) -> Vec<(Gvk<'a>, String, Value)> {
    let kinds = |kind: &str| json!([{"group": gvk.group, "kind": kind, "version": gvk.version}]);
    let name = definition_name(gvk);
    let mut own = source.clone();
    if !own.is_object() || own == json!({}) {
        own = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    }
    let texts = |name: &str, what: &str| {
        json!({"type": "string", "description": format!(
            "{name} is {what}. More info: the API conventions of Kubernetes.")})
    };
    let version = texts(
        "apiVersion",
        "the versioned schema of this representation of an object",
    );
    let kind = texts("kind", "the REST resource that this object represents");
    let mut properties = Map::new();
    properties.insert("apiVersion".to_owned(), version.clone());
    properties.insert("kind".to_owned(), kind.clone());
    properties.insert(
        "metadata".to_owned(),
        json!({"allOf": [{"$ref": format!("#/components/schemas/{META}.ObjectMeta")}],
            "description": "Standard object's metadata."}),
    );
    if let Some(declared) = own["properties"].as_object() {
        for (name, property) in declared {
            properties
                .entry(name.clone())
                .or_insert_with(|| property.clone());
        }
    }
    own["properties"] = Value::Object(properties);
    own["x-kubernetes-group-version-kind"] = kinds(gvk.kind);
    let list = json!({
        "type": "object", "required": ["items"],
        "description": format!("{list_kind} is a list of {}", gvk.kind),
        "properties": {
            "apiVersion": version, "kind": kind,
            "items": {"type": "array", "description": format!("List of {}.", gvk.kind),
                "items": {"$ref": format!("#/components/schemas/{name}")}},
            "metadata": {"allOf": [{"$ref": format!("#/components/schemas/{META}.ListMeta")}]},
        },
        "x-kubernetes-group-version-kind": kinds(list_kind),
    });
    let of_lists = Gvk {
        kind: list_kind,
        ..gvk
    };
    vec![
        (gvk, name, own),
        (of_lists, definition_name(of_lists), list),
    ]
}
