//! What pods ask for and nodes have, as numbers.

use std::collections::BTreeMap;
use std::sync::Arc;

use proto_api::types::Quantity;
use proto_api::types::core::v1::{Container, PodSpec};

/// CPU that a container without a request counts as when nodes are compared, in thousandths.
const DEFAULT_CPU_MILLI: i64 = 100;
/// Memory that a container without a request counts as when nodes are compared, in bytes.
const DEFAULT_MEMORY: i64 = 200 * 1024 * 1024;

/// Amounts of the resources every node has, and of any others by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources {
    /// Thousandths of a CPU.
    pub cpu_milli: i64,
    /// Bytes.
    pub memory: i64,
    /// Bytes.
    pub ephemeral_storage: i64,
    /// Pods a node takes; not used of pods.
    pub pods: i64,
    /// Everything else (`example.com/gpu`, `hugepages-2Mi`), sorted by name.
    pub others: Vec<(Arc<str>, i64)>,
}

type Quantities = BTreeMap<String, Quantity>;

impl Resources {
    /// The amounts of a resource list; texts that are no quantity count as nothing.
    #[must_use]
    pub fn of(list: &Quantities) -> Self {
        let mut amounts = Self::default();
        for (name, quantity) in list {
            match name.as_str() {
                "cpu" => amounts.cpu_milli = quantity.milli_value().unwrap_or(0),
                "memory" => amounts.memory = quantity.value().unwrap_or(0),
                "ephemeral-storage" => amounts.ephemeral_storage = quantity.value().unwrap_or(0),
                "pods" => amounts.pods = quantity.value().unwrap_or(0),
                other => amounts
                    .others
                    .push((other.into(), quantity.value().unwrap_or(0))),
            }
        }
        amounts
    }

    /// The amount of a resource that is none of the four.
    #[must_use]
    pub fn other(&self, name: &str) -> i64 {
        self.others
            .iter()
            .find(|(own, _)| &**own == name)
            .map_or(0, |(_, amount)| *amount)
    }

    /// Adds `other`, `sign` times (1 or -1).
    pub(crate) fn add(&mut self, other: &Self, sign: i64) {
        self.cpu_milli += sign * other.cpu_milli;
        self.memory += sign * other.memory;
        self.ephemeral_storage += sign * other.ephemeral_storage;
        for (name, amount) in &other.others {
            match self.others.binary_search_by(|(own, _)| own.cmp(name)) {
                Ok(at) => self.others[at].1 += sign * amount,
                Err(at) => self.others.insert(at, (Arc::clone(name), sign * amount)),
            }
        }
    }

    /// Takes the greater of each amount.
    fn max(&mut self, other: &Self) {
        self.cpu_milli = self.cpu_milli.max(other.cpu_milli);
        self.memory = self.memory.max(other.memory);
        self.ephemeral_storage = self.ephemeral_storage.max(other.ephemeral_storage);
        for (name, amount) in &other.others {
            match self.others.binary_search_by(|(own, _)| own.cmp(name)) {
                Ok(at) => self.others[at].1 = self.others[at].1.max(*amount),
                Err(at) => self.others.insert(at, (Arc::clone(name), *amount)),
            }
        }
    }
}

fn requests(container: &Container) -> Resources {
    container
        .resources
        .as_ref()
        .map(|r| Resources::of(&r.requests))
        .unwrap_or_default()
}

fn requests_for_comparison(container: &Container) -> Resources {
    let mut amounts = requests(container);
    let named = |name: &str| {
        container
            .resources
            .as_ref()
            .is_some_and(|r| r.requests.contains_key(name))
    };
    if !named("cpu") {
        amounts.cpu_milli = DEFAULT_CPU_MILLI;
    }
    if !named("memory") {
        amounts.memory = DEFAULT_MEMORY;
    }
    amounts
}

/// What a pod needs at its greatest: its containers together with the sidecars, or an init container
/// with the sidecars started before it; plus overhead.
fn total(spec: &PodSpec, of: fn(&Container) -> Resources) -> Resources {
    let mut sum = Resources::default();
    spec.containers
        .iter()
        .for_each(|container| sum.add(&of(container), 1));
    let mut sidecars = Resources::default();
    let mut init = Resources::default();
    for container in &spec.init_containers {
        let mut own = of(container);
        if container.restart_policy.as_deref() == Some("Always") {
            sum.add(&own, 1);
            sidecars.add(&own, 1);
            own = sidecars.clone();
        } else {
            own.add(&sidecars, 1);
        }
        init.max(&own);
    }
    sum.max(&init);
    sum.add(&Resources::of(&spec.overhead), 1);
    sum
}

/// What a pod reserves.
#[must_use]
pub fn pod_requests(spec: &PodSpec) -> Resources {
    let mut amounts = total(spec, requests);
    // Requests of the pod as a whole replace the sum where they are given.
    if let Some(resources) = &spec.resources {
        let whole = Resources::of(&resources.requests);
        if resources.requests.contains_key("cpu") {
            amounts.cpu_milli = whole.cpu_milli;
        }
        if resources.requests.contains_key("memory") {
            amounts.memory = whole.memory;
        }
    }
    amounts
}

/// CPU and memory of a pod for comparing nodes: containers without a request count as a little.
#[must_use]
pub fn pod_requests_for_comparison(spec: &PodSpec) -> (i64, i64) {
    let amounts = total(spec, requests_for_comparison);
    (amounts.cpu_milli, amounts.memory)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(spec: serde_json::Value) -> (i64, i64, (i64, i64)) {
        let spec: PodSpec = serde_json::from_value(spec).expect("spec");
        let own = pod_requests(&spec);
        (
            own.cpu_milli,
            own.memory,
            pod_requests_for_comparison(&spec),
        )
    }

    fn container(cpu: &str, memory: &str, always: bool) -> serde_json::Value {
        let policy = always.then_some("Always");
        json!({"name": "c", "restartPolicy": policy,
               "resources": {"requests": {"cpu": cpu, "memory": memory}}})
    }

    #[test]
    fn containers_add_up_and_a_large_init_container_counts_alone() {
        let spec = json!({
            "containers": [container("100m", "10", false), container("200m", "20", false)],
            "initContainers": [container("250m", "50", false)],
        });
        assert_eq!(check(spec), (300, 50, (300, 50)));
    }

    #[test]
    fn a_sidecar_counts_with_the_containers_and_with_later_init_containers() {
        let spec = json!({
            "containers": [container("100m", "10", false)],
            "initContainers": [container("50m", "5", true), container("300m", "1", false)],
            "overhead": {"cpu": "10m"},
        });
        assert_eq!(check(spec), (360, 15, (360, 15)));
    }

    #[test]
    fn a_pod_without_requests_counts_as_a_little_when_nodes_are_compared() {
        let spec = json!({"containers": [{"name": "a"}, {"name": "b"}]});
        assert_eq!(check(spec), (0, 0, (200, 2 * DEFAULT_MEMORY)));
    }
}
