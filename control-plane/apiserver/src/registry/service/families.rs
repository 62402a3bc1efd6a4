//! Which address families a service has: by its own wish, its addresses and the cluster's ranges.

use std::net::IpAddr;

use serde_json::{Value, json};

use crate::alloc::{Family, ServiceCidr, ServiceRanges};
use crate::field::{FieldError, Path};
use crate::tree;

const SINGLE: &str = "SingleStack";
const REQUIRED: &str = "RequireDualStack";

fn is_external(service: &Value) -> bool {
    tree::text(service, &["spec", "type"]) == "ExternalName"
}

/// Whether load balancers ask the nodes of a service for their health.
pub(super) fn needs_health_check(service: &Value) -> bool {
    tree::text(service, &["spec", "type"]) == "LoadBalancer"
        && tree::text(service, &["spec", "externalTrafficPolicy"]) == "Local"
}

fn texts(service: &Value, field: &str) -> Vec<String> {
    tree::list(service, &["spec", field])
        .iter()
        .filter_map(|one| Some(one.as_str()?.to_owned()))
        .collect()
}

/// What an update that does not mention them keeps; a service that goes back to one family lets
/// go of the second.
pub(super) fn keep(new: &mut Value, old: &Value) {
    if is_external(new) || is_external(old) {
        return;
    }
    let (families, ips) = (texts(old, "ipFamilies"), texts(old, "clusterIPs"));
    let single = tree::text(new, &["spec", "clusterIP"]).to_owned();
    let changed = !single.is_empty() && single != tree::text(old, &["spec", "clusterIP"]);
    if changed && texts(new, "clusterIPs") == ips {
        tree::object_mut(new, "spec").insert("clusterIPs".to_owned(), json!([single]));
    }
    let spec = tree::object_mut(new, "spec");
    for field in ["ipFamilies", "ipFamilyPolicy"] {
        if spec.get(field).is_none_or(tree::is_unset)
            && let Some(value) = old["spec"].get(field)
        {
            spec.insert(field.to_owned(), value.clone());
        }
    }
    let single = spec.get("ipFamilyPolicy").is_some_and(|p| p == SINGLE);
    if !single || families.len() < 2 {
        return;
    }
    for (field, before) in [("ipFamilies", &families), ("clusterIPs", &ips)] {
        let unchanged = spec
            .get(field)
            .is_none_or(|now| tree::is_unset(now) || *now == json!(before));
        if unchanged && let Some(first) = before.first() {
            spec.insert(field.to_owned(), json!([first]));
        }
    }
}

/// Sets the families and the policy of a service; returns the ranges that it gets addresses of.
///
/// # Errors
/// The service wants what the cluster does not have, or contradicts itself.
pub(super) fn settle(
    service: &mut Value,
    ranges: &ServiceRanges,
) -> Result<Vec<ServiceCidr>, FieldError> {
    let ips = texts(service, "clusterIPs");
    let mut families = texts(service, "ipFamilies");
    let headless = ips.first().is_some_and(|ip| ip == "None");
    let selects = !tree::is_unset(tree::at(service, &["spec", "selector"]));
    let unmanaged = headless && !selects;
    let asked = tree::text(service, &["spec", "ipFamilyPolicy"]);
    let policy = match asked {
        "" if unmanaged => REQUIRED,
        "" => SINGLE,
        asked => asked,
    }
    .to_owned();
    check_policy(&policy, families.len(), ips.len())?;
    if !headless {
        for ip in ips.iter().skip(families.len()) {
            if let Ok(ip) = ip.parse::<IpAddr>() {
                families.push(Family::of(ip).name().to_owned());
            }
        }
    }
    if families.is_empty() {
        families.push(ranges.primary.family().name().to_owned());
    }
    if !unmanaged {
        check_cluster(&policy, &families, ranges)?;
    }
    let has_both = unmanaged || ranges.secondary.is_some();
    if policy != SINGLE && families.len() == 1 && has_both {
        let other = if families[0] == Family::V4.name() {
            Family::V6
        } else {
            Family::V4
        };
        families.push(other.name().to_owned());
    }
    let spec = tree::object_mut(service, "spec");
    spec.insert("ipFamilyPolicy".to_owned(), json!(policy));
    spec.insert("ipFamilies".to_owned(), json!(families));
    Ok(families
        .iter()
        .filter_map(|family| ranges.of(family))
        .collect())
}

fn check_policy(policy: &str, families: usize, ips: usize) -> Result<(), FieldError> {
    if policy != SINGLE {
        return Ok(());
    }
    let what = match (ips, families) {
        (2.., _) => "clusterIPs",
        (_, 2..) => "ipFamilies",
        _ => return Ok(()),
    };
    let path = Path::root("spec").child("ipFamilyPolicy");
    let detail =
        format!("must be RequireDualStack or PreferDualStack when multiple {what} are specified");
    Err(FieldError::invalid(&path, policy, detail))
}

fn check_cluster(
    policy: &str,
    families: &[String],
    ranges: &ServiceRanges,
) -> Result<(), FieldError> {
    let spec = Path::root("spec");
    for (i, family) in families.iter().enumerate() {
        if ranges.of(family).is_none() {
            let path = spec.child("ipFamilies").index(i);
            let detail = "not configured on this cluster";
            return Err(FieldError::invalid(&path, family.as_str(), detail));
        }
    }
    if policy == REQUIRED && ranges.secondary.is_none() {
        let path = spec.child("ipFamilyPolicy");
        let detail = "this cluster is not configured for dual-stack services";
        return Err(FieldError::invalid(&path, policy, detail));
    }
    Ok(())
}
