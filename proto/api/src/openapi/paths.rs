//! `paths`: one operation a resource, verb and place. Changes with the API's URL scheme.

use serde_json::{Map, Value, json};

use super::components::gvk_object;
use super::{Resource, reference};
use crate::schema::{Gvk, Schema};

const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";
const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";

/// Discovery verb, HTTP method, `x-kubernetes-action`.
const ON_COLLECTION: [(&str, &str, &str); 3] = [
    ("list", "get", "list"),
    ("create", "post", "post"),
    ("deletecollection", "delete", "deletecollection"),
];
const ON_OBJECT: [(&str, &str, &str); 4] = [
    ("get", "get", "get"),
    ("update", "put", "put"),
    ("patch", "patch", "patch"),
    ("delete", "delete", "delete"),
];
const PATCH_TYPES: [&str; 4] = [
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];

pub(super) fn paths(
    schema: &Schema,
    group: &str,
    version: &str,
    resources: &[Resource<'_>],
    custom: &[(Gvk<'_>, String, Value)],
) -> Value {
    let root = match group {
        "" => format!("/api/{version}"),
        group => format!("/apis/{group}/{version}"),
    };
    let mut paths = Map::new();
    for resource in resources {
        let (plural, subresource) = resource.name.split_once('/').unwrap_or((resource.name, ""));
        let collection = match resource.namespaced {
            true => format!("{root}/namespaces/{{namespace}}/{plural}"),
            false => format!("{root}/{plural}"),
        };
        let place = Place {
            schema,
            resource,
            custom,
        };
        if subresource.is_empty() {
            if resource.namespaced {
                place.add(&mut paths, &format!("{root}/{plural}"), &ON_COLLECTION[..1]);
            }
            place.add(&mut paths, &collection, &ON_COLLECTION);
            place.add(&mut paths, &format!("{collection}/{{name}}"), &ON_OBJECT);
        } else {
            let path = format!("{collection}/{{name}}/{subresource}");
            let mut operations = vec![ON_COLLECTION[1]];
            operations.extend(ON_OBJECT);
            place.add(&mut paths, &path, &operations);
        }
    }
    Value::Object(paths)
}

struct Place<'a> {
    schema: &'a Schema,
    resource: &'a Resource<'a>,
    custom: &'a [(Gvk<'a>, String, Value)],
}

impl Place<'_> {
    fn add(&self, paths: &mut Map<String, Value>, path: &str, operations: &[(&str, &str, &str)]) {
        let mut item = Map::new();
        for (verb, method, action) in operations {
            if self.resource.verbs.contains(verb) {
                item.insert((*method).to_owned(), self.operation(path, verb, action));
            }
        }
        if item.is_empty() {
            return;
        }
        let in_path: Vec<Value> = ["namespace", "name"]
            .into_iter()
            .filter(|name| path.contains(&format!("{{{name}}}")))
            .map(|name| parameter(name, "path", "string"))
            .collect();
        if !in_path.is_empty() {
            item.insert("parameters".to_owned(), in_path.into());
        }
        match paths.get_mut(path) {
            Some(Value::Object(present)) => present.extend(item),
            _ => {
                paths.insert(path.to_owned(), Value::Object(item));
            }
        }
    }

    fn operation(&self, path: &str, verb: &str, action: &str) -> Value {
        let Gvk {
            group,
            version,
            kind,
        } = self.resource.gvk;
        let scope = if path.contains("{namespace}") {
            "Namespaced"
        } else {
            ""
        };
        let sub: String = self
            .resource
            .name
            .split_once('/')
            .map_or_else(String::new, |(_, sub)| {
                sub.split('/').map(capitalised).collect()
            });
        let all = if self.resource.namespaced && scope.is_empty() {
            "ForAllNamespaces"
        } else {
            ""
        };
        let mut operation = json!({
            "description": format!("{verb} {kind}"),
            "operationId": format!(
                "{verb}{}{}{scope}{kind}{sub}{all}",
                capitalised(group.split('.').next().filter(|g| !g.is_empty()).unwrap_or("core")),
                capitalised(version)
            ),
            "parameters": parameters(verb),
            "responses": {"200": {"description": "OK", "content": {
                "application/json": {"schema": self.answer(verb)}
            }}},
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": gvk_object(group, version, kind),
        });
        if let Some(body) = self.request(verb) {
            operation["requestBody"] = body;
        }
        operation
    }

    fn object(&self, kind: &str) -> Value {
        let gvk = Gvk {
            kind,
            ..self.resource.gvk
        };
        if let Some((_, name, _)) = self.custom.iter().find(|(own, _, _)| *own == gvk) {
            return reference(name);
        }
        let id = self.schema.kind(gvk);
        id.map_or_else(
            || json!({"type": "object"}),
            |id| reference(&self.schema.get(id).name),
        )
    }

    fn answer(&self, verb: &str) -> Value {
        match verb {
            "delete" | "deletecollection" => reference(STATUS),
            "list" => self.object(&format!("{}List", self.resource.gvk.kind)),
            _ => self.object(self.resource.gvk.kind),
        }
    }

    fn request(&self, verb: &str) -> Option<Value> {
        match verb {
            "create" | "update" => Some(json!({
                "required": true,
                "content": {"*/*": {"schema": self.object(self.resource.gvk.kind)}},
            })),
            "patch" => {
                // kubectl sends a strategic merge patch wherever the document allows one, and
                // custom kinds have no merge keys.
                let custom = self
                    .custom
                    .iter()
                    .any(|(own, _, _)| *own == self.resource.gvk);
                let content = PATCH_TYPES
                    .into_iter()
                    .filter(|name| !custom || !name.contains("strategic"))
                    .map(|name| (name.to_owned(), json!({"schema": {"type": "object"}})));
                Some(json!({"required": true, "content": Map::from_iter(content)}))
            }
            "delete" | "deletecollection" => {
                Some(json!({"content": {"*/*": {"schema": reference(DELETE_OPTIONS)}}}))
            }
            _ => None,
        }
    }
}

fn parameters(verb: &str) -> Vec<Value> {
    let query: &[(&str, &str)] = match verb {
        "create" | "update" => &[
            ("dryRun", "string"),
            ("fieldManager", "string"),
            ("fieldValidation", "string"),
        ],
        "patch" => &[
            ("dryRun", "string"),
            ("fieldManager", "string"),
            ("fieldValidation", "string"),
            ("force", "boolean"),
        ],
        "delete" => &[
            ("dryRun", "string"),
            ("gracePeriodSeconds", "integer"),
            ("propagationPolicy", "string"),
        ],
        "list" | "deletecollection" => &[
            ("allowWatchBookmarks", "boolean"),
            ("continue", "string"),
            ("fieldSelector", "string"),
            ("labelSelector", "string"),
            ("limit", "integer"),
            ("resourceVersion", "string"),
            ("resourceVersionMatch", "string"),
            ("sendInitialEvents", "boolean"),
            ("timeoutSeconds", "integer"),
            ("watch", "boolean"),
        ],
        _ => &[],
    };
    query
        .iter()
        .map(|(name, ty)| parameter(name, "query", ty))
        .collect()
}

fn parameter(name: &str, place: &str, ty: &str) -> Value {
    let mut parameter = json!({"name": name, "in": place, "schema": {"type": ty}});
    if place == "path" {
        parameter["required"] = Value::Bool(true);
    }
    parameter
}

fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| {
        first.to_ascii_uppercase().to_string() + chars.as_str()
    })
}
