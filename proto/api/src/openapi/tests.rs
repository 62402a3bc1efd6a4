//! Documents hold what clients look for.

use serde_json::Value;

use super::*;
use crate::schema::builtin;

const ALL: &[&str] = &[
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];

fn apps() -> Value {
    let deployment = Gvk::parse("apps/v1", "Deployment");
    let scale = Gvk::parse("autoscaling/v1", "Scale");
    let resource = |name, gvk, verbs| Resource {
        name,
        gvk,
        namespaced: true,
        verbs,
    };
    let document = document(
        builtin(),
        "apps",
        "v1",
        &[
            resource("deployments", deployment, ALL),
            resource(
                "deployments/status",
                deployment,
                &["get", "patch", "update"],
            ),
            resource("deployments/scale", scale, &["get", "patch", "update"]),
        ],
        &[],
    );
    serde_json::from_slice(&document).unwrap()
}

#[test]
fn write_operations_carry_kind_and_field_validation() {
    let document = apps();
    let object = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"];
    let kind = json!({"group": "apps", "kind": "Deployment", "version": "v1"});
    for method in ["put", "patch"] {
        assert_eq!(object[method]["x-kubernetes-group-version-kind"], kind);
        let parameters = object[method]["parameters"].as_array().unwrap();
        assert!(
            parameters
                .iter()
                .any(|one| one["name"] == "fieldValidation")
        );
    }
    let collection = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments"];
    assert_eq!(collection["post"]["x-kubernetes-action"], "post");
    assert!(document["paths"]["/apis/apps/v1/deployments"]["get"].is_object());
    assert!(
        document["paths"]["/apis/apps/v1/deployments"]
            .get("post")
            .is_none()
    );
    let scale = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale"];
    assert_eq!(
        scale["put"]["x-kubernetes-group-version-kind"]["kind"],
        "Scale"
    );
}

#[test]
fn components_describe_and_carry_merge_keys() {
    let document = apps();
    let schemas = &document["components"]["schemas"];
    let containers = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
    assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
    assert_eq!(containers["x-kubernetes-patch-strategy"], "merge");
    assert_eq!(containers["x-kubernetes-list-type"], "map");
    assert_eq!(containers["x-kubernetes-list-map-keys"], json!(["name"]));
    let deployment = &schemas["io.k8s.api.apps.v1.Deployment"];
    assert!(
        deployment["description"]
            .as_str()
            .unwrap()
            .starts_with("Deployment enables")
    );
    let spec = &deployment["properties"]["spec"];
    assert_eq!(
        spec["allOf"][0]["$ref"],
        "#/components/schemas/io.k8s.api.apps.v1.DeploymentSpec"
    );
    assert!(spec["description"].is_string());
    assert_eq!(
        schemas["io.k8s.api.apps.v1.DeploymentSpec"]["required"],
        json!(["selector", "template"])
    );
    let selector = &schemas["io.k8s.apimachinery.pkg.apis.meta.v1.LabelSelector"];
    assert_eq!(selector["x-kubernetes-map-type"], "atomic");
}

#[test]
fn every_reference_leads_to_a_component() {
    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) => fields.iter().for_each(|(name, value)| match value {
                Value::String(target) if name == "$ref" => found.push(target.clone()),
                value => references(value, found),
            }),
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }
    let document = apps();
    let mut found = Vec::new();
    references(&document, &mut found);
    assert!(found.len() > 100);
    for target in found {
        assert!(document.pointer(&target[1..]).is_some(), "{target}");
    }
}

#[test]
fn equal_documents_have_equal_hashes() {
    assert_eq!(hash(b"a"), hash(b"a"));
    assert_ne!(hash(b"a"), hash(b"b"));
    assert_eq!(hash(b"").len(), 32);
}

#[test]
fn the_legacy_document_is_small_and_well_formed() {
    let document = legacy_document();
    assert_eq!(&document[..5], b"\x0a\x032.0");
    assert!(document.ends_with(b"v1.37.0\x42\x00"));
}
