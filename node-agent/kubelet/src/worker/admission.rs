//! May this pod run here at all? The node's own check, whatever the scheduler thought. Pure.

use std::collections::BTreeMap;

use proto_api::types::Quantity;
use proto_api::types::core::v1::{Pod, PodSpec};

use crate::pod::model;

/// Why a pod is refused: reason and message of its `Failed` status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) reason: String,
    pub(super) message: String,
}

/// What the admitted pods ask for.
fn requested(spec: &PodSpec, resource: &str, milli: Unit) -> i64 {
    let of = |container: &proto_api::types::core::v1::Container| {
        let resources = container.resources.as_ref()?;
        let quantity = resources
            .requests
            .get(resource)
            .or(resources.limits.get(resource))?;
        match milli {
            Unit::Milli => quantity.milli_value(),
            Unit::Whole => quantity.value(),
        }
    };
    let (mut sum, mut init) = (0_i64, 0_i64);
    for (role, container) in model::containers(spec) {
        let amount = of(container).unwrap_or(0);
        if role == model::Role::Init {
            init = init.max(amount);
        } else {
            sum = sum.saturating_add(amount);
        }
    }
    sum.max(init)
}

#[derive(Clone, Copy)]
enum Unit {
    Milli,
    Whole,
}

/// Refuses a pod that does not fit beside `others`, or whose system this is not.
pub(super) fn admit(
    pod: &Pod,
    others: &[&Pod],
    allocatable: &BTreeMap<String, Quantity>,
) -> Result<(), Refusal> {
    let spec = model::spec(pod);
    if let Some(os) = spec
        .os
        .as_ref()
        .map(|os| os.name.as_str())
        .filter(|name| *name != "linux")
    {
        return Err(Refusal {
            reason: "PodOSNotSupported".to_owned(),
            message: format!("Failed to admit pod as the OS field doesn't match node OS: {os}"),
        });
    }
    for (resource, unit) in [("cpu", Unit::Milli), ("memory", Unit::Whole)] {
        let Some(capacity) = allocatable.get(resource).and_then(|quantity| match unit {
            Unit::Milli => quantity.milli_value(),
            Unit::Whole => quantity.value(),
        }) else {
            continue;
        };
        let wanted = requested(spec, resource, unit);
        let used = others
            .iter()
            .map(|other| requested(model::spec(other), resource, unit))
            .fold(0_i64, i64::saturating_add);
        if wanted > 0 && used.saturating_add(wanted) > capacity {
            return Err(out_of(resource, wanted, used, capacity));
        }
    }
    let capacity = allocatable
        .get("pods")
        .and_then(Quantity::value)
        .unwrap_or(i64::MAX);
    let used = i64::try_from(others.len()).unwrap_or(i64::MAX);
    if used.saturating_add(1) > capacity {
        return Err(out_of("pods", 1, used, capacity));
    }
    if let Some(port) = taken_port(spec, others) {
        return Err(Refusal {
            reason: "NodePorts".to_owned(),
            message: format!(
                "Pod was rejected: Predicate NodePorts failed: node(s) didn't have free ports \
                 for the requested pod ports ({port})"
            ),
        });
    }
    Ok(())
}

fn out_of(resource: &str, requested: i64, used: i64, capacity: i64) -> Refusal {
    Refusal {
        reason: format!("OutOf{resource}"),
        message: format!(
            "Pod was rejected: Node didn't have enough resource: {resource}, \
             requested: {requested}, used: {used}, capacity: {capacity}"
        ),
    }
}

fn host_ports(spec: &PodSpec) -> Vec<(i32, String, String)> {
    let ports = model::containers(spec).flat_map(|(_, container)| &container.ports);
    ports
        .filter_map(|port| {
            let number = port.host_port.filter(|number| *number > 0)?;
            let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
            let ip = port.host_ip.clone().filter(|ip| !ip.is_empty());
            Some((number, protocol, ip.unwrap_or_else(|| "0.0.0.0".to_owned())))
        })
        .collect()
}

fn taken_port(spec: &PodSpec, others: &[&Pod]) -> Option<i32> {
    let wanted = host_ports(spec);
    if wanted.is_empty() {
        return None;
    }
    let taken: Vec<_> = others
        .iter()
        .flat_map(|other| host_ports(model::spec(other)))
        .collect();
    let clash = wanted.iter().find(|(port, protocol, ip)| {
        taken.iter().any(|(other_port, other_protocol, other_ip)| {
            port == other_port
                && protocol == other_protocol
                && (ip == other_ip || ip == "0.0.0.0" || other_ip == "0.0.0.0")
        })
    });
    clash.map(|(port, ..)| *port)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(cpu: &str, host_port: i32) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": {"containers": [
            {"name": "c", "ports": [{"containerPort": 1, "hostPort": host_port}],
             "resources": {"requests": {"cpu": cpu}}}]}}))
        .unwrap()
    }

    fn node() -> BTreeMap<String, Quantity> {
        let entries = [("cpu", "2"), ("memory", "1Gi"), ("pods", "3")];
        entries
            .into_iter()
            .map(|(key, value)| (key.to_owned(), Quantity::from(value)))
            .collect()
    }

    #[test]
    fn the_last_fitting_pod_is_taken_and_the_next_refused_in_upstream_words() {
        let (small, large) = (pod("1", 0), pod("1100m", 0));
        assert_eq!(admit(&small, &[&small], &node()), Ok(()));
        let refusal = admit(&large, &[&small], &node()).unwrap_err();
        assert_eq!(refusal.reason, "OutOfcpu");
        assert_eq!(
            refusal.message,
            "Pod was rejected: Node didn't have enough resource: cpu, requested: 1100, used: 1000, capacity: 2000"
        );
        let tiny = pod("0", 0);
        assert_eq!(admit(&tiny, &[&tiny, &tiny], &node()), Ok(()));
        let full = admit(&tiny, &[&tiny, &tiny, &tiny], &node()).unwrap_err();
        assert_eq!(full.reason, "OutOfpods");
    }

    #[test]
    fn a_host_port_is_given_once() {
        let (first, other) = (pod("0", 80), pod("0", 81));
        assert_eq!(admit(&first, &[&other], &node()), Ok(()));
        assert_eq!(
            admit(&first, &[&first], &node()).unwrap_err().reason,
            "NodePorts"
        );
    }
}
