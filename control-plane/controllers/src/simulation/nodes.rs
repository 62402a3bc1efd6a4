//! Pretended nodes and scheduler: bind pods, run them, end them; renew the nodes' leases.

use std::sync::Arc;
use std::time::Duration;

use control_plane_client::fake::FakeApi;
use control_plane_client::resources::{LEASES, NODES, PODS};
use control_plane_client::{Api, Cached, DeleteOptions, Informers, ObjectKey, Patch, WorkQueue};
use proto_api::types::core::v1::Pod;
use proto_api::types::{MicroTime, Time};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

pub(super) fn name(number: usize) -> String {
    format!("node-{number}")
}

/// A node object as its agent registers it.
pub(super) fn node(name: &str) -> Value {
    json!({
        "metadata": {"name": name, "labels": {"topology.kubernetes.io/zone": "z"}},
        "status": {
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}],
            "allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"},
        },
    })
}

/// Keeps `count` nodes alive until `shutdown`. A node whose Node object is annotated `silent` sends
/// nothing and runs nothing.
pub(super) async fn run(fake: FakeApi, count: usize, shutdown: CancellationToken) {
    for number in 0..count {
        fake.seed(NODES, node(&name(number)));
    }
    let informers = Informers::new(fake.handle(), shutdown.clone());
    let pods = informers.of::<Pod>();
    let queue = WorkQueue::new();
    let wake = queue.clone();
    let _subscription = pods.subscribe(move |change| wake.add(change.object().key.clone()));
    let mut heartbeat = tokio::time::interval(Duration::from_secs(10));
    let mut next_ip = 1_u32;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            _ = heartbeat.tick() => renew(&fake, count),
            item = queue.get() => {
                let Some(item) = item else { break };
                let Some(pod) = pods.get(item.key()) else { continue };
                if drive(&fake, &pod, count, &mut next_ip).await.is_err() {
                    queue.add_failed(item.key().clone());
                }
            }
        }
    }
    informers.stopped().await;
}

fn is_silent(fake: &FakeApi, node: &str) -> bool {
    fake.all(NODES).iter().any(|value| {
        value["metadata"]["name"] == node && !value["metadata"]["annotations"]["silent"].is_null()
    })
}

fn renew(fake: &FakeApi, count: usize) {
    for number in 0..count {
        let node = name(number);
        if is_silent(fake, &node) {
            continue;
        }
        let renewed = MicroTime::from_timestamp(fake.clock().now());
        let lease = json!({
            "metadata": {"name": node, "namespace": "kube-node-lease"},
            "spec": {"holderIdentity": node, "renewTime": renewed},
        });
        fake.seed(LEASES, lease);
    }
}

async fn drive(
    fake: &FakeApi,
    pod: &Arc<Cached<Pod>>,
    count: usize,
    next_ip: &mut u32,
) -> Result<(), control_plane_client::ApiError> {
    let spec = pod.spec.as_ref().expect("pods have a spec");
    let Some(node) = &spec.node_name else {
        if pod.metadata.deletion_timestamp.is_some() {
            return Ok(());
        }
        *next_ip += 1;
        let node = name(usize::try_from(*next_ip).expect("small") % count);
        let body = json!({"target": {"kind": "Node", "name": node}});
        let bound = fake
            .create_subresource(PODS, &pod.key, "binding", body)
            .await;
        return match bound {
            Err(error) if error.is_not_found() || error.code == 409 => Ok(()),
            other => other.map(|_| ()),
        };
    };
    if is_silent(fake, node) {
        return Ok(());
    }
    if pod.metadata.deletion_timestamp.is_some() {
        let now = DeleteOptions {
            grace_period_seconds: Some(0),
            uid: pod.metadata.uid.clone(),
            ..DeleteOptions::default()
        };
        return match fake.delete(PODS, &pod.key, &now).await {
            Err(error) if error.is_not_found() || error.code == 409 => Ok(()),
            other => other,
        };
    }
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    if phase != Some("Pending") {
        return Ok(());
    }
    *next_ip += 1;
    let broken = spec
        .containers
        .iter()
        .any(|c| c.image.as_deref() == Some("broken"));
    let status = json!({
        "phase": "Running",
        "podIP": format!("10.244.{}.{}", *next_ip / 250, *next_ip % 250 + 1),
        "conditions": [{
            "type": "Ready",
            "status": if broken { "False" } else { "True" },
            "lastTransitionTime": Time::from_timestamp(fake.clock().now()),
        }],
    });
    let patch = Patch::Merge(json!({"metadata": {"uid": pod.metadata.uid}, "status": status}));
    match fake
        .patch(PODS, &ObjectKey::clone(&pod.key), Some("status"), patch)
        .await
    {
        Err(error)
            if error.is_not_found()
                || error.is_conflict() && !error.message.contains("injected") =>
        {
            Ok(())
        }
        other => other.map(|_| ()),
    }
}
