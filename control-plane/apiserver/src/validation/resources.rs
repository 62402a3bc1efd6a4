//! Names and amounts of resources: cpu, memory, huge pages, extended resources.

use proto_api::names;
use proto_api::quantity::Amount;
use serde_json::Value;

use super::{Errors, Place, sentences};
use crate::field::FieldError;

const STANDARD_FOR_CONTAINERS: &[&str] = &["cpu", "memory", "ephemeral-storage"];
const STANDARD: &[&str] = &[
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "persistentvolumeclaims",
    "configmaps",
    "storage",
    "requests.storage",
    "services.nodeports",
    "services.loadbalancers",
];
/// Resources that are counted in whole numbers.
const INTEGERS: &[&str] = &[
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
];
const HUGEPAGES: &str = "hugepages-";
const NANO: i128 = 1_000_000_000;

/// A quantity, when it is one.
pub(crate) fn amount(value: &Value) -> Option<Amount> {
    match value {
        Value::String(text) => text.parse().ok(),
        Value::Number(number) => number.to_string().parse().ok(),
        _ => None,
    }
}

/// Whether a resource is a size of huge pages.
pub(crate) fn is_hugepages(name: &str) -> bool {
    name.starts_with(HUGEPAGES)
}

/// Whether a resource is Kubernetes' own.
fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

/// Whether the request for a resource may be lower than its limit.
pub(crate) fn is_overcommittable(name: &str) -> bool {
    is_native(name) && !is_hugepages(name)
}

fn is_extended(name: &str) -> bool {
    !is_native(name)
        && !name.starts_with("requests.")
        && names::qualified_name(&format!("requests.{name}")).is_empty()
}

/// Checks the name of a resource of any use.
pub(crate) fn resource_name(name: &str, place: &Place<'_>, errors: &mut Errors) {
    let before = errors.len();
    sentences(name, &place.path, names::qualified_name(name), errors);
    let standard =
        STANDARD.contains(&name) || is_hugepages(name) || name.starts_with("requests.hugepages-");
    if errors.len() == before && !name.contains('/') && !standard {
        let detail = "must be a standard resource type or fully qualified";
        errors.push(FieldError::invalid(&place.path, name, detail));
    }
}

/// Checks the name of a resource that a container asks for.
pub(crate) fn container_resource_name(name: &str, place: &Place<'_>, errors: &mut Errors) {
    resource_name(name, place, errors);
    let standard = STANDARD_FOR_CONTAINERS.contains(&name) || is_hugepages(name);
    if !name.contains('/') {
        if !standard {
            let detail = "must be a standard resource for containers";
            errors.push(FieldError::invalid(&place.path, name, detail));
        }
    } else if !is_native(name) && !is_extended(name) {
        let detail = "doesn't follow extended resource name standard";
        errors.push(FieldError::invalid(&place.path, name, detail));
    }
}

/// Checks that `place` holds an amount that the resource `name` can have.
pub(crate) fn quantity_value(name: &str, place: &Place<'_>, errors: &mut Errors) {
    let Some(amount) = amount(place.value) else {
        let detail = "quantities must match the regular expression \
            '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
        return place.invalid(detail, errors);
    };
    if amount.nano() < 0 {
        place.invalid("must be greater than or equal to 0", errors);
    }
    let whole = INTEGERS.contains(&name) || name.starts_with("count/") || is_extended(name);
    if whole && amount.nano() % NANO != 0 {
        place.invalid("must be an integer", errors);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::field::Path;

    fn problems(name: &str, value: &Value) -> Vec<String> {
        let mut errors = Vec::new();
        let place = Place::new(value, Path::root("limits").key(name));
        container_resource_name(name, &place, &mut errors);
        quantity_value(name, &place, &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_container_asks_for_known_or_qualified_resources_in_possible_amounts() {
        assert!(problems("cpu", &json!("1500m")).is_empty());
        assert!(problems("hugepages-2Mi", &json!("4Mi")).is_empty());
        assert!(problems("example.com/gpu", &json!("2")).is_empty());
        assert_eq!(
            problems("example.com/gpu", &json!("1500m")),
            ["limits[example.com/gpu]: Invalid value: \"1500m\": must be an integer"]
        );
        assert_eq!(
            problems("memory", &json!("-1")),
            ["limits[memory]: Invalid value: \"-1\": must be greater than or equal to 0"]
        );
        assert_eq!(
            problems("disk", &json!("1")),
            [
                "limits[disk]: Invalid value: \"disk\": must be a standard resource type or fully qualified",
                "limits[disk]: Invalid value: \"disk\": must be a standard resource for containers",
            ]
        );
    }
}
