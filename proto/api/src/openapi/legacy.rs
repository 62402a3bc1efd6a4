//! The OpenAPI v2 document, made of the v3 documents: for generators and tools that read nothing
//! newer. Changes with the differences between the two.

use serde_json::{Map, Value, json};

use super::VERSION;

/// What v2 has no word for.
const UNKNOWN: [&str; 5] = [
    "oneOf",
    "anyOf",
    "not",
    "nullable",
    "x-kubernetes-validations",
];
const BEFORE: &str = "#/components/schemas/";
const AFTER: &str = "#/definitions/";
const JSON: &str = "application/json";

/// One v2 document of all v3 documents.
pub fn merged(documents: impl IntoIterator<Item = Value>) -> Value {
    let (mut paths, mut definitions) = (Map::new(), Map::new());
    for mut document in documents {
        for (path, item) in taken(&mut document, "paths") {
            paths.insert(path, path_item(item));
        }
        for (name, component) in taken(&mut document["components"], "schemas") {
            definitions.insert(name, schema(component));
        }
    }
    json!({
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": VERSION},
        "paths": paths,
        "definitions": definitions,
        "securityDefinitions": {"BearerToken": {
            "description": "Bearer Token authentication",
            "type": "apiKey", "name": "authorization", "in": "header",
        }},
        "security": [{"BearerToken": []}],
    })
}

/// Takes the entries of the object `name` out of `value`.
fn taken(value: &mut Value, name: &str) -> Map<String, Value> {
    match value.get_mut(name).map(Value::take) {
        Some(Value::Object(entries)) => entries,
        _ => Map::new(),
    }
}

fn schema(value: Value) -> Value {
    let mut fields = match value {
        Value::Object(fields) => fields,
        Value::Array(items) => return items.into_iter().map(schema).collect(),
        scalar => return scalar,
    };
    // A reference with siblings is wrapped in v3; v2 has them side by side.
    if let Some(Value::Array(parts)) = fields.shift_remove("allOf") {
        for part in parts {
            if let Value::Object(part) = part {
                fields.extend(part);
            }
        }
    }
    let typed = fields.contains_key("type") || !fields.contains_key("oneOf");
    fields.retain(|name, _| !UNKNOWN.contains(&name.as_str()));
    if !typed {
        // An integer or a string, or a quantity.
        fields.insert("type".to_owned(), json!("string"));
    }
    let fields = fields.into_iter().map(|(name, value)| {
        let value = match value {
            Value::String(place) if name == "$ref" => json!(place.replacen(BEFORE, AFTER, 1)),
            // Their members are names, not words of the language.
            Value::Object(members) if name == "properties" => Value::Object(
                members
                    .into_iter()
                    .map(|(name, member)| (name, schema(member)))
                    .collect(),
            ),
            data if matches!(name.as_str(), "default" | "enum" | "example") => data,
            value => schema(value),
        };
        (name, value)
    });
    Value::Object(fields.collect())
}

fn path_item(mut item: Value) -> Value {
    let shared = parameters(&mut item);
    let mut converted: Map<String, Value> = match item {
        Value::Object(operations) => operations
            .into_iter()
            .map(|(method, operation)| (method, operation_of(operation)))
            .collect(),
        _ => Map::new(),
    };
    if !shared.is_empty() {
        converted.insert("parameters".to_owned(), Value::Array(shared));
    }
    Value::Object(converted)
}

/// Takes the parameters: their type stands beside their name.
fn parameters(place: &mut Value) -> Vec<Value> {
    let found = place
        .as_object_mut()
        .and_then(|fields| fields.shift_remove("parameters"));
    let Some(Value::Array(parameters)) = found else {
        return Vec::new();
    };
    let beside = |mut parameter: Value| {
        let schema = taken(&mut parameter, "schema");
        if let Value::Object(fields) = &mut parameter {
            fields.shift_remove("schema");
            fields.extend(schema);
        }
        parameter
    };
    parameters.into_iter().map(beside).collect()
}

fn operation_of(mut operation: Value) -> Value {
    let mut parameters = parameters(&mut operation);
    let mut consumes = vec![json!("*/*")];
    if let Some(mut body) = operation
        .as_object_mut()
        .and_then(|fields| fields.shift_remove("requestBody"))
    {
        let (types, of) = content(&mut body);
        if !types.iter().all(|name| name == "*/*") {
            consumes = types;
        }
        parameters.push(json!({"name": "body", "in": "body", "required": true, "schema": of}));
    }
    let mut produces = vec![json!(JSON)];
    let mut responses = Map::new();
    for (code, mut response) in taken(&mut operation, "responses") {
        let (types, of) = content(&mut response);
        if types.len() > produces.len() {
            produces = types;
        }
        let mut response = json!({"description": response["description"]});
        if !of.is_null() {
            response["schema"] = of;
        }
        responses.insert(code, response);
    }
    operation["parameters"] = Value::Array(parameters);
    operation["responses"] = Value::Object(responses);
    operation["consumes"] = Value::Array(consumes);
    operation["produces"] = Value::Array(produces);
    operation["schemes"] = json!(["https"]);
    operation
}

/// The media types of a body, and its schema.
fn content(body: &mut Value) -> (Vec<Value>, Value) {
    let mut types = Vec::new();
    let mut of = Value::Null;
    for (name, mut media) in taken(body, "content") {
        types.push(Value::String(name));
        of = schema(media["schema"].take());
    }
    (types, of)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_of_version_three_is_said_in_version_two() {
        let three = json!({
            "paths": {"/api/v1/pods/{name}": {
                "parameters": [{"name": "name", "in": "path", "required": true,
                    "schema": {"type": "string"}}],
                "put": {
                    "requestBody": {"content": {"*/*": {"schema":
                        {"$ref": "#/components/schemas/Pod"}}}},
                    "responses": {"200": {"description": "OK", "content": {
                        "application/json": {"schema": {"$ref": "#/components/schemas/Pod"}},
                        "application/yaml": {"schema": {"$ref": "#/components/schemas/Pod"}},
                    }}, "401": {"description": "Unauthorized"}},
                    "x-kubernetes-action": "put",
                },
            }},
            "components": {"schemas": {"Pod": {"type": "object", "properties": {
                "oneOf": {"description": "d", "allOf": [{"$ref": "#/components/schemas/Spec"}]},
                "port": {"format": "int-or-string", "oneOf": [{"type": "integer"}]},
                "set": {"type": "array", "items": {"type": "string"}, "default": {"$ref": "x"}},
            }}}},
        });
        let two = merged([three]);
        assert_eq!(two["swagger"], "2.0");
        let expected = json!({"type": "object", "properties": {
            "oneOf": {"description": "d", "$ref": "#/definitions/Spec"},
            "port": {"format": "int-or-string", "type": "string"},
            "set": {"type": "array", "items": {"type": "string"}, "default": {"$ref": "x"}},
        }});
        assert_eq!(two["definitions"]["Pod"], expected);
        let item = &two["paths"]["/api/v1/pods/{name}"];
        let name = json!({"name": "name", "in": "path", "required": true, "type": "string"});
        assert_eq!(item["parameters"], json!([name]));
        let body = json!({"name": "body", "in": "body", "required": true,
            "schema": {"$ref": "#/definitions/Pod"}});
        assert_eq!(item["put"]["parameters"], json!([body]));
        assert_eq!(
            item["put"]["produces"],
            json!(["application/json", "application/yaml"])
        );
        let unauthorized = json!({"description": "Unauthorized"});
        assert_eq!(item["put"]["responses"]["401"], unauthorized);
        assert_eq!(
            item["put"]["responses"]["200"]["schema"]["$ref"],
            "#/definitions/Pod"
        );
    }
}
