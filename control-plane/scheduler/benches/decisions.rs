//! Decisions a second, printed: choose, assume, and take in the next pod, without an API.
//!
//! `cargo bench -p control-plane-scheduler` (release) or `... --profile dev`. Arguments: nodes, pods.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::sync::Arc;
use std::time::Instant;

use control_plane_client::{Cached, ObjectKey};
use control_plane_scheduler::cache::Cache;
use control_plane_scheduler::decision::Decider;
use control_plane_scheduler::pod_info::PodInfo;
use proto_api::types::core::v1::{Node, Pod};
use proto_api::types::meta::v1::LabelSelector;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::{Value, json};

const ZONES: usize = 10;

fn node(number: usize) -> Node {
    let value = json!({
        "metadata": {
            "name": format!("node-{number}"),
            "labels": {
                "kubernetes.io/hostname": format!("node-{number}"),
                "topology.kubernetes.io/zone": format!("zone-{}", number % ZONES),
                "disk": if number.is_multiple_of(2) { "ssd" } else { "hdd" },
            },
        },
        "status": {"allocatable": {"cpu": "4", "memory": "32Gi", "pods": "110"}},
    });
    serde_json::from_value(value).expect("node")
}

fn pod(number: usize, spec: &Value) -> Arc<PodInfo> {
    let name = format!("pod-{number}");
    let mut spec = spec.clone();
    spec["containers"] = json!([
        {"name": "c", "resources": {"requests": {"cpu": "100m", "memory": "500Mi"}}},
    ]);
    let value = json!({
        "metadata": {
            "name": name, "namespace": "default", "uid": name,
            "labels": {"app": format!("app-{}", number % 50)},
        },
        "spec": spec,
    });
    let value: Pod = serde_json::from_value(value).expect("pod");
    let key = ObjectKey::new("default", name);
    Arc::new(PodInfo::of(&Arc::new(Cached {
        key,
        revision: 1,
        value,
    })))
}

/// Whether pods without constraints of their own are spread as pods of a Service are.
#[derive(Clone, Copy, PartialEq)]
enum Service {
    None,
    Selects,
}

fn measure(title: &str, nodes: usize, pods: usize, spec: &Value, service: Service) {
    let mut cache = Cache::new();
    for number in 0..nodes {
        cache.put_node(&node(number));
    }
    let pods: Vec<_> = (0..pods).map(|number| pod(number, spec)).collect();
    let mut decider = Decider::new();
    let mut rng = StdRng::seed_from_u64(1);
    let mut longest = std::time::Duration::ZERO;
    let mut unplaced = 0_usize;
    let started = Instant::now();
    for info in &pods {
        let one = Instant::now();
        let selector = (service == Service::Selects).then(|| LabelSelector {
            match_labels: info.pod.metadata.labels.clone(),
            ..LabelSelector::default()
        });
        match decider.choose(&mut cache, info, selector.as_ref(), &mut rng) {
            Ok(id) => {
                cache.assume(info, id);
                let name = Arc::clone(cache.nodes().name(id));
                cache.put_pod(info, &name, true);
            }
            Err(_) => unplaced += 1,
        }
        longest = longest.max(one.elapsed());
    }
    let took = started.elapsed();
    let each = took / u32::try_from(pods.len()).unwrap_or(1).max(1);
    let rate = 1.0 / each.as_secs_f64();
    println!(
        "{title:<34} {nodes:>5} nodes {:>6} pods {rate:>9.0} pods/s {each:>10.1?} each, longest \
         {longest:.1?}, unplaced {unplaced}",
        pods.len()
    );
}

/// Pods of an app together in a zone, or each on a host of its own.
fn affinity(nodes: usize, pods: usize) {
    let term = |topology: &str| {
        let app = json!({"key": "app", "operator": "Exists"});
        json!({"topologyKey": topology, "labelSelector": {"matchExpressions": [app]},
            "matchLabelKeys": ["app"]})
    };
    let (zone, host) = ("topology.kubernetes.io/zone", "kubernetes.io/hostname");
    let required = "requiredDuringSchedulingIgnoredDuringExecution";
    let preferred = "preferredDuringSchedulingIgnoredDuringExecution";
    let weighted = json!([{"weight": 10, "podAffinityTerm": term(zone)}]);
    for (title, kind, when, terms) in [
        (
            "pod affinity required",
            "podAffinity",
            required,
            json!([term(zone)]),
        ),
        (
            "pod anti-affinity required",
            "podAntiAffinity",
            required,
            json!([term(host)]),
        ),
        (
            "pod affinity preferred",
            "podAffinity",
            preferred,
            weighted.clone(),
        ),
        (
            "pod anti-affinity preferred",
            "podAntiAffinity",
            preferred,
            weighted,
        ),
    ] {
        let spec = json!({"affinity": {kind: {when: terms}}});
        measure(title, nodes, pods, &spec, Service::None);
    }
}

fn main() {
    let numbers: Vec<usize> = std::env::args()
        .skip(1)
        .filter_map(|argument| argument.parse().ok())
        .collect();
    let nodes = numbers.first().copied().unwrap_or(5000);
    let pods = numbers.get(1).copied().unwrap_or(10_000);
    let plain = json!({});
    measure("basic", nodes, pods, &plain, Service::None);
    measure("spread by service", nodes, pods, &plain, Service::Selects);
    let selector = json!({"nodeSelector": {"disk": "ssd"}});
    measure("node selector", nodes, pods, &selector, Service::None);
    let spread = |when: &str| {
        json!({"topologySpreadConstraints": [{
            "maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": when,
            "labelSelector": {"matchExpressions": [{"key": "app", "operator": "Exists"}]},
        }]})
    };
    measure(
        "topology spread required",
        nodes,
        pods,
        &spread("DoNotSchedule"),
        Service::None,
    );
    measure(
        "topology spread preferred",
        nodes,
        pods,
        &spread("ScheduleAnyway"),
        Service::None,
    );
    affinity(nodes, pods);
    let huge = json!({"nodeSelector": {"disk": "none"}});
    measure("unschedulable", nodes, pods, &huge, Service::None);
}
