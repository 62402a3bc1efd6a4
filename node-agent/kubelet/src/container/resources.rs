//! CPU and memory as kernel settings: shares, quota, limits, OOM score, the pod's cgroup. Pure.

use std::collections::BTreeMap;

use proto::cri::v1 as cri;
use proto_api::types::Quantity;
use proto_api::types::core::v1::{Container, PodSpec, ResourceRequirements};

use crate::pod::model;

const SHARES_MIN: i64 = 2;
const SHARES_MAX: i64 = 262_144;
const SHARES_PER_CPU: i64 = 1024;
const QUOTA_PERIOD_US: i64 = 100_000;
const QUOTA_MIN_US: i64 = 1000;
const OOM_GUARANTEED: i64 = -997;
const OOM_BEST_EFFORT: i64 = 1000;

/// Kernel settings of one cgroup; `None` leaves the kernel's default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct CgroupLimits {
    pub(crate) cpu_shares: i64,
    /// Microseconds of CPU in 100 ms.
    pub(crate) cpu_quota_us: Option<i64>,
    pub(crate) memory_bytes: Option<i64>,
    pub(crate) pids: Option<i64>,
}

fn cpu_milli(map: &BTreeMap<String, Quantity>) -> Option<i64> {
    map.get("cpu")
        .and_then(Quantity::milli_value)
        .filter(|milli| *milli > 0)
}

fn memory_bytes(map: &BTreeMap<String, Quantity>) -> Option<i64> {
    map.get("memory")
        .and_then(Quantity::value)
        .filter(|bytes| *bytes > 0)
}

/// Relative CPU weight of a request in thousandths.
pub(crate) fn shares(milli: i64) -> i64 {
    (milli.saturating_mul(SHARES_PER_CPU) / 1000).clamp(SHARES_MIN, SHARES_MAX)
}

/// CPU time in one period for a limit in thousandths.
pub(crate) fn quota(milli: i64) -> i64 {
    (milli.saturating_mul(QUOTA_PERIOD_US) / 1000).max(QUOTA_MIN_US)
}

/// Settings for one container.
pub(crate) fn container_resources(
    spec: &PodSpec,
    container: &Container,
    memory_capacity: i64,
) -> cri::LinuxContainerResources {
    let resources = container.resources.clone().unwrap_or_default();
    let request = cpu_milli(&resources.requests)
        .or(cpu_milli(&resources.limits))
        .unwrap_or(0);
    cri::LinuxContainerResources {
        cpu_shares: shares(request),
        cpu_period: QUOTA_PERIOD_US,
        cpu_quota: cpu_milli(&resources.limits).map_or(0, quota),
        memory_limit_in_bytes: memory_bytes(&resources.limits).unwrap_or(0),
        oom_score_adj: oom_score(spec, &resources, memory_capacity),
        ..cri::LinuxContainerResources::default()
    }
}

/// Who is killed first when memory runs out: -997 (last) to 1000 (first).
pub(crate) fn oom_score(
    spec: &PodSpec,
    resources: &ResourceRequirements,
    memory_capacity: i64,
) -> i64 {
    let critical = spec.priority.unwrap_or(0) >= 2_000_000_000;
    match model::qos_class(spec) {
        "Guaranteed" => OOM_GUARANTEED,
        _ if critical => OOM_GUARANTEED,
        "BestEffort" => OOM_BEST_EFFORT,
        _ => {
            let request = memory_bytes(&resources.requests)
                .or(memory_bytes(&resources.limits))
                .unwrap_or(0);
            let share = request.saturating_mul(1000) / memory_capacity.max(1);
            (1000 - share).clamp(1000 + OOM_GUARANTEED, 999)
        }
    }
}

/// What the pod as a whole may use: the sum of its containers, or of the largest init container.
pub(crate) fn pod_limits(spec: &PodSpec, pids: Option<i64>) -> CgroupLimits {
    let of = |container: &Container| {
        let resources = container.resources.clone().unwrap_or_default();
        let limit_cpu = cpu_milli(&resources.limits);
        let limit_memory = memory_bytes(&resources.limits);
        let request = cpu_milli(&resources.requests).or(limit_cpu).unwrap_or(0);
        (request, limit_cpu, limit_memory)
    };
    let mut request = 0_i64;
    let mut cpu = Some(0_i64);
    let mut memory = Some(0_i64);
    let (mut init_request, mut init_cpu, mut init_memory) = (0_i64, 0_i64, 0_i64);
    for (role, container) in model::containers(spec) {
        let (own_request, own_cpu, own_memory) = of(container);
        if role == model::Role::Init {
            init_request = init_request.max(own_request);
            // An unlimited init container makes the pod unlimited.
            cpu = cpu.filter(|_| own_cpu.is_some());
            memory = memory.filter(|_| own_memory.is_some());
            init_cpu = init_cpu.max(own_cpu.unwrap_or(0));
            init_memory = init_memory.max(own_memory.unwrap_or(0));
        } else {
            request = request.saturating_add(own_request);
            cpu = cpu.zip(own_cpu).map(|(sum, own)| sum.saturating_add(own));
            memory = memory
                .zip(own_memory)
                .map(|(sum, own)| sum.saturating_add(own));
        }
    }
    CgroupLimits {
        cpu_shares: shares(request.max(init_request)),
        cpu_quota_us: cpu.map(|milli| quota(milli.max(init_cpu))),
        memory_bytes: memory.map(|bytes| bytes.max(init_memory)),
        pids,
    }
}

/// Path of a pod's cgroup below every hierarchy's root.
pub(crate) fn pod_cgroup(parent: &str, qos: &str, uid: &str) -> String {
    let parent = parent.trim_end_matches('/');
    match qos {
        "Guaranteed" => format!("{parent}/pod{uid}"),
        other => format!("{parent}/{}/pod{uid}", other.to_lowercase()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::needless_pass_by_value, reason = "literals at every call")]
    fn spec(containers: serde_json::Value, init: serde_json::Value) -> PodSpec {
        serde_json::from_value(
            serde_json::json!({"containers": containers, "initContainers": init}),
        )
        .unwrap()
    }

    #[expect(clippy::needless_pass_by_value, reason = "literals at every call")]
    fn with(requests: serde_json::Value, limits: serde_json::Value) -> serde_json::Value {
        serde_json::json!({"name": "c", "resources": {"requests": requests, "limits": limits}})
    }

    #[test]
    fn shares_and_quota_stay_in_their_bounds() {
        assert_eq!(
            (shares(0), shares(1000), shares(10_000_000)),
            (2, 1024, 262_144)
        );
        assert_eq!(
            (quota(1), quota(10), quota(250), quota(2000)),
            (1000, 1000, 25_000, 200_000)
        );
    }

    #[test]
    fn oom_scores_follow_the_class() {
        let capacity = 1 << 30;
        let none = serde_json::json!({});
        let guaranteed = serde_json::json!({"cpu": "1", "memory": "64Mi"});
        let half = serde_json::json!({"memory": "512Mi"});
        let tiny = serde_json::json!({"memory": "1"});
        let score = |container: serde_json::Value| {
            let spec = spec(serde_json::json!([container]), serde_json::json!([]));
            let resources = spec.containers[0].resources.clone().unwrap_or_default();
            oom_score(&spec, &resources, capacity)
        };
        assert_eq!(score(with(none.clone(), none.clone())), 1000);
        assert_eq!(score(with(none.clone(), guaranteed)), -997);
        assert_eq!(score(with(half, none.clone())), 500);
        assert_eq!(score(with(tiny, none)), 999);
    }

    #[test]
    fn pod_limits_are_sums_and_absent_when_one_container_has_none() {
        let limited = with(
            serde_json::json!({"cpu": "100m"}),
            serde_json::json!({"cpu": "200m", "memory": "10Mi"}),
        );
        let unlimited = with(serde_json::json!({}), serde_json::json!({"memory": "6Mi"}));
        let init = with(
            serde_json::json!({"cpu": "900m"}),
            serde_json::json!({"cpu": "1", "memory": "99Mi"}),
        );
        let both = spec(
            serde_json::json!([limited, limited]),
            serde_json::json!([init]),
        );
        assert_eq!(
            pod_limits(&both, Some(100)),
            CgroupLimits {
                cpu_shares: 921,
                cpu_quota_us: Some(100_000),
                memory_bytes: Some(99 << 20),
                pids: Some(100)
            }
        );
        let mixed = spec(
            serde_json::json!([limited, unlimited]),
            serde_json::json!([]),
        );
        assert_eq!(
            pod_limits(&mixed, None),
            CgroupLimits {
                cpu_shares: 102,
                cpu_quota_us: None,
                memory_bytes: Some(16 << 20),
                pids: None
            }
        );
    }

    #[test]
    fn pods_live_below_their_class() {
        assert_eq!(pod_cgroup("/kubepods", "Guaranteed", "u"), "/kubepods/podu");
        assert_eq!(
            pod_cgroup("/kubepods/", "BestEffort", "u"),
            "/kubepods/besteffort/podu"
        );
    }
}
