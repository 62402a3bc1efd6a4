//! Resources that containers ask for: defaults, limits, and the pod's quality-of-service class.

use std::collections::HashSet;

use proto_api::names;
use proto_api::quantity::Amount;
use serde_json::{Value, json};

use crate::field::FieldError;
use crate::tree::{self, Object};
use crate::validation::{
    Errors, Place, amount, container_resource_name, is_hugepages, is_overcommittable,
    quantity_value,
};

const RESIZABLE: &[&str] = &["cpu", "memory"];
const RESIZE_POLICIES: &[&str] = &["NotRequired", "RestartContainer"];

/// A limit without a request is its own request.
pub(super) fn default_requests(container: &mut Object) {
    let Some(Value::Object(resources)) = container.get_mut("resources") else {
        return;
    };
    let Some(Value::Object(limits)) = resources.get("limits").cloned() else {
        return;
    };
    if limits.is_empty() {
        return;
    }
    let requests = resources
        .entry("requests".to_owned())
        .or_insert(Value::Null);
    let requests = tree::as_object(requests);
    for (name, limit) in limits {
        tree::default(requests, &name, limit);
    }
}

/// How each resource that is given may be changed later.
pub(super) fn default_resize_policy(container: &mut Object) {
    let resources = container.get("resources").cloned().unwrap_or_default();
    let given = |name: &str| {
        let lists = ["requests", "limits"];
        lists
            .iter()
            .any(|list| !tree::at(&resources, &[list, name]).is_null())
    };
    let known = tree::list_mut(container, "resizePolicy").to_vec();
    let is_known = |name: &str| known.iter().any(|policy| policy["resourceName"] == name);
    let missing: Vec<Value> = ["cpu", "memory"]
        .into_iter()
        .filter(|name| given(name) && !is_known(name))
        .map(|name| json!({"resourceName": name, "restartPolicy": "NotRequired"}))
        .collect();
    if !missing.is_empty() {
        let all = [known, missing].concat();
        container.insert("resizePolicy".to_owned(), Value::Array(all));
    }
}

/// Checks `resources` of a container.
pub(super) fn validate(resources: &Place<'_>, claims: &HashSet<&str>, errors: &mut Errors) {
    let (mut pages, mut compute) = (false, false);
    for field in ["limits", "requests"] {
        for (name, value) in resources.get(field).entries() {
            container_resource_name(name, &value, errors);
            quantity_value(name, &value, errors);
            if field == "requests" {
                compare(name, &value, resources, errors);
            }
            if is_hugepages(name) {
                pages = true;
                whole_pages(name, &value, errors);
            }
            compute |= matches!(name, "cpu" | "memory");
        }
    }
    if pages && !compute {
        resources.forbidden("HugePages require cpu or memory", errors);
    }
    validate_claims(&resources.get("claims"), claims, errors);
}

fn compare(name: &str, request: &Place<'_>, resources: &Place<'_>, errors: &mut Errors) {
    let limit = tree::at(resources.value, &["limits", name]);
    let path = resources.path.child("requests");
    let Some(most) = amount(limit) else {
        if !is_overcommittable(name) {
            let detail = "Limit must be set for non overcommitable resources";
            errors.push(FieldError::required(
                &resources.path.child("limits"),
                detail,
            ));
        }
        return;
    };
    let Some(want) = amount(request.value) else {
        return;
    };
    let word = if want != most && !is_overcommittable(name) {
        "equal to"
    } else if want > most {
        "less than or equal to"
    } else {
        return;
    };
    let detail = format!("must be {word} {name} limit of {most}");
    errors.push(FieldError::invalid(&path, want.to_string(), detail));
}

fn whole_pages(name: &str, value: &Place<'_>, errors: &mut Errors) {
    let page = name
        .strip_prefix("hugepages-")
        .and_then(|size| size.parse::<Amount>().ok());
    let (Some(page), Some(want)) = (page, amount(value.value)) else {
        return;
    };
    if page.nano() == 0 || want.nano() % page.nano() != 0 {
        let detail = format!("{want} is not positive integer multiple of {name}");
        errors.push(FieldError::invalid(&value.path, want.to_string(), detail));
    }
}

fn validate_claims(list: &Place<'_>, known: &HashSet<&str>, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for claim in list.items() {
        let (name, request) = (claim.get("name").text(), claim.get("request"));
        if name.is_empty() {
            claim.required("", errors);
            continue;
        }
        request.named_if_set(names::dns_label, errors);
        let key = if request.text().is_empty() {
            name.to_owned()
        } else {
            format!("{name}/{}", request.text())
        };
        if !seen.insert(key.clone()) {
            errors.push(FieldError::duplicate(&claim.path, key));
        }
        if !known.contains(name) {
            let mut names: Vec<&str> = known.iter().copied().collect();
            names.sort_unstable();
            let rest = if names.is_empty() {
                " which is empty".to_owned()
            } else {
                format!(": {}", names.join(", "))
            };
            let detail = format!("must be one of the names in pod.spec.resourceClaims{rest}");
            errors.push(FieldError::not_found(&claim.path, name).because(detail));
        }
    }
}

/// Checks `resizePolicy` of a container.
pub(super) fn validate_resize(policies: &Place<'_>, restart: &str, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for policy in policies.items() {
        let (resource, action) = (policy.get("resourceName"), policy.get("restartPolicy"));
        if !seen.insert(resource.text()) {
            errors.push(FieldError::duplicate(&policy.path, resource.text()));
        }
        for (place, known) in [(&resource, RESIZABLE), (&action, RESIZE_POLICIES)] {
            // Upstream reports both at the list.
            Place::new(place.value, policies.path.clone()).required_one_of(known, errors);
        }
        if restart == "Never" && action.text() != "NotRequired" {
            let detail = "must be 'NotRequired' when `restartPolicy` is 'Never'";
            let text = action.text();
            errors.push(FieldError::invalid(&policies.path, text, detail));
        }
    }
}

/// The pod's quality-of-service class, from its containers' cpu and memory.
pub(super) fn qos_class(pod: &Value) -> &'static str {
    let mut any = false;
    let mut guaranteed = true;
    let all = ["containers", "initContainers"].into_iter();
    for container in all.flat_map(|field| tree::list(pod, &["spec", field])) {
        for resource in ["cpu", "memory"] {
            let read = |kind| amount(tree::at(container, &["resources", kind, resource]));
            let nano = |kind| read(kind).map_or(0, Amount::nano);
            let (limit, request) = (nano("limits"), nano("requests"));
            any |= limit > 0 || request > 0;
            guaranteed &= limit > 0 && (request == limit || request == 0);
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}
