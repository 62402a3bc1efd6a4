//! What may change of a pod after it was created.

use serde_json::{Value, json};

use crate::field::FieldError;
use crate::registry::strategy::keep_all_but_status;
use crate::tree;
use crate::validation::{Errors, Place};

const MESSAGE: &str = "pod updates may not change fields other than `spec.containers[*].image`,\
    `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions \
    to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it \
    was previously negative)";
const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";

/// Checks an update of the main path: images, deadline, more tolerations, fewer gates, and where
/// a gated pod may run.
pub(super) fn validate(new: &Value, old: &Value) -> Errors {
    let mut errors = Vec::new();
    let (now, before) = (Place::root(new, "spec"), Place::root(old, "spec"));
    for field in ["containers", "initContainers"] {
        if now.get(field).len() != before.get(field).len() {
            let detail = "pod updates may not add or remove containers";
            now.get(field).forbidden(detail, &mut errors);
            return errors;
        }
    }
    if !deadline(&now, &before, &mut errors) {
        return errors;
    }
    tolerations(&now, &before, &mut errors);
    gates(&now, &before, &mut errors);
    if tree::same(now.value, before.value) {
        return errors;
    }
    let mut allowed = with_free_fields(&now, &before);
    if !before.get("schedulingGates").is_unset() {
        gated(&now, &before, &mut allowed, &mut errors);
    }
    if !tree::same(&allowed, now.value) {
        now.forbidden(MESSAGE, &mut errors);
    }
    errors
}

/// The deadline may be set, and only shortened; false when nothing else is worth checking.
fn deadline(now: &Place<'_>, before: &Place<'_>, errors: &mut Errors) -> bool {
    let place = now.get("activeDeadlineSeconds");
    let old = before.get("activeDeadlineSeconds").int();
    match (place.int(), old) {
        (Some(seconds), _) if !(0..=i64::from(i32::MAX)).contains(&seconds) => false,
        (Some(seconds), Some(old)) if old < seconds => {
            let detail = "must be less than or equal to previous value";
            place.invalid(detail, errors);
            false
        }
        (None, Some(_)) => {
            let detail = "must not update from a positive integer to nil value";
            place.invalid(detail, errors);
            true
        }
        _ => true,
    }
}

fn tolerations(now: &Place<'_>, before: &Place<'_>, errors: &mut Errors) {
    let place = now.get("tolerations");
    let kept = before.get("tolerations").items().all(|toleration| {
        place
            .items()
            .any(|candidate| only_seconds(toleration.value, candidate.value))
    });
    if !kept {
        let detail = "existing toleration can not be modified except its tolerationSeconds";
        place.forbidden(detail, errors);
    }
}

/// Whether two tolerations differ in nothing but their seconds.
fn only_seconds(one: &Value, other: &Value) -> bool {
    ["key", "operator", "value", "effect"]
        .iter()
        .all(|field| tree::same(tree::at(one, &[field]), tree::at(other, &[field])))
}

fn gates(now: &Place<'_>, before: &Place<'_>, errors: &mut Errors) {
    for gate in now.get("schedulingGates").items() {
        let name = gate.get("name");
        let known = before
            .get("schedulingGates")
            .items()
            .any(|old| old.get("name").value == name.value);
        if !known {
            let text = name.text();
            let detail =
                format!("only deletion is allowed, but found new scheduling gate '{text}'");
            name.forbidden(&detail, errors);
        }
    }
}

/// The old spec with what every pod may change taken from the new one.
fn with_free_fields(now: &Place<'_>, before: &Place<'_>) -> Value {
    let mut allowed = before.value.clone();
    for field in ["containers", "initContainers"] {
        let images: Vec<Value> = now
            .get(field)
            .items()
            .map(|container| container.get("image").value.clone())
            .collect();
        let map = tree::as_object(&mut allowed);
        for (container, image) in tree::list_mut(map, field).iter_mut().zip(images) {
            tree::as_object(container).insert("image".to_owned(), image);
        }
    }
    for field in ["activeDeadlineSeconds", "schedulingGates", "tolerations"] {
        tree::carry(&mut allowed, now.value, field);
    }
    let grace = "terminationGracePeriodSeconds";
    let negative = before.get(grace).int().is_some_and(|seconds| seconds < 0);
    if negative && now.get(grace).int() == Some(1) {
        tree::carry(&mut allowed, now.value, grace);
    }
    allowed
}

/// A gated pod may still be confined: more labels to select nodes by, stricter node affinity.
fn gated(now: &Place<'_>, before: &Place<'_>, allowed: &mut Value, errors: &mut Errors) {
    let selector = now.get("nodeSelector");
    let kept = before
        .get("nodeSelector")
        .entries()
        .all(|(key, old)| tree::at(selector.value, &[key]) == old.value);
    if !kept {
        let detail = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
        selector.invalid(detail, errors);
    }
    tree::carry(allowed, now.value, "nodeSelector");
    let affinity = now.get("affinity").get("nodeAffinity");
    confined(
        &affinity,
        &before.get("affinity").get("nodeAffinity"),
        errors,
    );
    if affinity.is_present() {
        tree::object_mut(allowed, "affinity")
            .insert("nodeAffinity".to_owned(), affinity.value.clone());
    } else if let Some(Value::Object(old)) = allowed.get_mut("affinity") {
        old.shift_remove("nodeAffinity");
    }
    if allowed.get("affinity") == Some(&json!({})) && !now.get("affinity").is_present() {
        tree::as_object(allowed).shift_remove("affinity");
    }
}

fn confined(now: &Place<'_>, before: &Place<'_>, errors: &mut Errors) {
    let old = before.get(REQUIRED).get("nodeSelectorTerms");
    let terms = now.get(REQUIRED).get("nodeSelectorTerms");
    if old.is_unset() {
        return;
    }
    if old.len() != terms.len() {
        let detail = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        return terms.invalid(detail, errors);
    }
    for (term, old) in terms.items().zip(old.items()) {
        let empty = |place: &Place<'_>| {
            place.get("matchExpressions").is_unset() && place.get("matchFields").is_unset()
        };
        let extends = |field: &str| {
            let mut items = term.get(field).items();
            old.get(field)
                .items()
                .all(|one| items.next().is_some_and(|new| new.value == one.value))
        };
        let widened = empty(&old) && !empty(&term);
        if widened || !extends("matchExpressions") || !extends("matchFields") {
            let detail = "only additions are allowed (no mutations or deletions)";
            term.invalid(detail, errors);
        }
    }
}

/// A status write keeps everything else, and a node cannot undo a deletion or empty the class.
pub(super) fn prepare_status(new: &mut Value, old: &Value) {
    keep_all_but_status(new, old);
    let class = tree::at(old, &["status", "qosClass"]).clone();
    if !class.is_null() {
        let status = tree::object_mut(new, "status");
        status.insert("qosClass".to_owned(), class);
    }
}

/// Checks a status write: a container that may not run again stays ended, and addresses are
/// addresses.
pub(super) fn validate_status(new: &Value, old: &Value) -> Errors {
    let mut errors = Vec::new();
    let status = Place::root(new, "status");
    let restart = tree::text(old, &["spec", "restartPolicy"]);
    for field in [
        "initContainerStatuses",
        "containerStatuses",
        "ephemeralContainerStatuses",
    ] {
        let policy = if field == "ephemeralContainerStatuses" {
            "Never"
        } else {
            restart
        };
        for (i, before) in tree::list(old, &["status", field]).iter().enumerate() {
            let now = status
                .get(field)
                .items()
                .find(|now| now.get("name").value == &before["name"]);
            let revived = now.is_some_and(|now| {
                !may_restart(policy, before, old)
                    && !now.get("state").get("terminated").is_present()
            });
            if revived {
                let path = status.path.child(field).index(i).child("state");
                let detail = "may not be transitioned to non-terminated state";
                errors.push(FieldError::forbidden(&path, detail));
            }
        }
    }
    for (list, single) in [("podIPs", "podIP"), ("hostIPs", "hostIP")] {
        addresses(&status.get(list), status.get(single).text(), &mut errors);
    }
    let nominated = status.get("nominatedNodeName");
    nominated.named_if_set(proto_api::names::dns_subdomain, &mut errors);
    errors
}

/// Whether a container may leave the state that `before` tells.
fn may_restart(policy: &str, before: &Value, pod: &Value) -> bool {
    let ended = tree::at(before, &["state", "terminated"]);
    let own = ["containers", "initContainers"]
        .into_iter()
        .flat_map(|field| tree::list(pod, &["spec", field]))
        .find(|container| container.get("name") == before.get("name"));
    let own = own.map_or("", |container| tree::text(container, &["restartPolicy"]));
    let failed = tree::int(ended, &["exitCode"]).unwrap_or_default() != 0;
    let rules = own == "Always" || (own == "OnFailure" && failed);
    ended.is_null() || policy == "Always" || rules || (policy == "OnFailure" && failed)
}

fn addresses(list: &Place<'_>, single: &str, errors: &mut Errors) {
    let mut families = Vec::new();
    for (i, item) in list.items().enumerate() {
        let place = item.get("ip");
        if i == 0 && !single.is_empty() && place.text() != single {
            let field = if list.path.as_str().ends_with("hostIPs") {
                "hostIP"
            } else {
                "podIP"
            };
            place.invalid(format!("must be equal to `{field}`"), errors);
        }
        match place.text().parse::<std::net::IpAddr>() {
            Ok(address) if families.contains(&address.is_ipv4()) => {
                let detail = "may specify no more than one IP for each IP family";
                list.invalid(detail, errors);
            }
            Ok(address) => families.push(address.is_ipv4()),
            Err(_) => crate::validation::ip(place.text(), &item.path, errors),
        }
    }
}
