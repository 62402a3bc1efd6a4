//! The generated table holds what upstream publishes.

use super::*;

fn pod_spec() -> &'static Type {
    let schema = builtin();
    schema.get(schema.named("io.k8s.api.core.v1.PodSpec").unwrap())
}

#[test]
fn kinds_are_found_by_group_version_and_kind() {
    let schema = builtin();
    let deployment = schema.kind(Gvk::parse("apps/v1", "Deployment")).unwrap();
    assert_eq!(schema.get(deployment).name, "io.k8s.api.apps.v1.Deployment");
    assert_eq!(schema.kind(Gvk::parse("v1", "Deployment")), None);
    assert_eq!(Gvk::parse("v1", "Pod").api_version(), "v1");
    assert_eq!(Gvk::parse("apps/v1", "Deployment").api_version(), "apps/v1");
}

#[test]
fn fields_carry_merge_keys_numbers_and_pointers() {
    let containers = pod_spec().field("containers").unwrap();
    assert_eq!(containers.number, 2);
    assert_eq!(containers.list_type, Some(ListType::Map));
    assert_eq!(containers.list_map_keys, ["name"]);
    assert!(containers.patch.merge);
    assert_eq!(containers.patch_merge_key.as_deref(), Some("name"));
    assert!(!pod_spec().field("hostNetwork").unwrap().pointer);
    assert!(
        pod_spec()
            .field("automountServiceAccountToken")
            .unwrap()
            .pointer
    );
    assert!(pod_spec().field("volumes").unwrap().patch.retain_keys);
}

#[test]
fn embedded_structs_are_flat_in_json_and_nested_in_protobuf() {
    let schema = builtin();
    let volume = schema.get(schema.named("io.k8s.api.core.v1.Volume").unwrap());
    let empty_dir = volume.field("emptyDir").unwrap();
    assert_eq!((&*empty_dir.inline, empty_dir.number), (&[2][..], 2));
}

#[test]
fn type_meta_is_in_no_message_but_references_are() {
    let schema = builtin();
    let pod = schema.get(schema.named("io.k8s.api.core.v1.Pod").unwrap());
    assert_eq!(pod.field("kind").unwrap().number, 0);
    let reference = schema.get(schema.named("io.k8s.api.core.v1.ObjectReference").unwrap());
    assert_eq!(reference.field("kind").unwrap().number, 1);
}

#[test]
fn go_types_are_those_of_upstream_messages() {
    let schema = builtin();
    assert_eq!(
        schema.go_field_type(pod_spec().field("containers").unwrap()),
        "[]v1.Container"
    );
    assert_eq!(
        schema.go_field_type(pod_spec().field("dnsPolicy").unwrap()),
        "v1.DNSPolicy"
    );
    assert_eq!(
        schema.go_field_type(pod_spec().field("nodeSelector").unwrap()),
        "map[string]string"
    );
    assert_eq!(
        schema.go_field_type(pod_spec().field("overhead").unwrap()),
        "v1.ResourceList"
    );
}

#[test]
fn every_type_and_field_has_its_own_line_of_description() {
    let descriptions = Descriptions::load();
    let count: usize = builtin().types().map(|(_, ty)| 1 + ty.fields.len()).sum();
    assert_eq!(descriptions.lines.len(), count);
    let text = descriptions.get(pod_spec().field("hostNetwork").unwrap().description);
    assert!(text.contains("network namespace"), "{text}");
    assert!(
        descriptions
            .get(pod_spec().description)
            .starts_with("PodSpec is")
    );
}

#[test]
fn numbers_are_unique_within_a_message() {
    for (_, ty) in builtin().types() {
        let mut seen = std::collections::HashSet::new();
        for field in ty.fields.iter().filter(|field| field.number != 0) {
            assert!(
                seen.insert((&field.inline, field.number)),
                "{} {}",
                ty.name,
                field.name
            );
        }
    }
}

#[test]
fn a_damaged_table_is_refused_with_its_line() {
    let error = parse::parse("T a.core.v1.X\nF name nonsense 1 -\n").unwrap_err();
    assert_eq!(
        error.to_string(),
        "line 2 of the schema table: an unknown shape: F name nonsense 1 -"
    );
}
