//! Reads one pod's state from the runtime.

use std::collections::{BTreeMap, HashMap};

use proto::cri::v1 as cri;

use crate::pod::observed::{self, Observed, ObservedSandbox};
use crate::runtime::{Runtime, RuntimeError, labels};

/// Statuses that can no longer change, by id: not asked for again.
#[derive(Debug, Default)]
pub(super) struct Settled {
    containers: HashMap<String, cri::ContainerStatus>,
    sandboxes: HashMap<String, ObservedSandbox>,
}

/// One pod's sandboxes and containers, with full status of each.
pub(super) async fn observe(
    runtime: &dyn Runtime,
    node: &str,
    uid: &str,
    settled: &mut Settled,
) -> Result<Observed, RuntimeError> {
    let selector = labels::of_pod(node, uid);
    let (sandboxes, containers) = tokio::try_join!(
        runtime.list_sandboxes(&selector),
        runtime.list_containers(&selector)
    )?;
    let sandboxes = read_sandboxes(runtime, &sandboxes, settled).await?;
    let containers = read_containers(runtime, &containers, settled).await?;
    Ok(Observed::new(sandboxes, containers))
}

async fn read_sandboxes(
    runtime: &dyn Runtime,
    listed: &[cri::PodSandbox],
    settled: &mut Settled,
) -> Result<Vec<ObservedSandbox>, RuntimeError> {
    let mut result = Vec::with_capacity(listed.len());
    for sandbox in listed {
        let ready = sandbox.state() == cri::PodSandboxState::SandboxReady;
        if let Some(known) = settled
            .sandboxes
            .get(&sandbox.id)
            .filter(|known| known.ready == ready)
        {
            result.push(known.clone());
            continue;
        }
        match runtime.sandbox_status(&sandbox.id).await {
            Ok(status) => {
                if let Some(read) = observed::sandbox(&status) {
                    settled.sandboxes.insert(read.id.clone(), read.clone());
                    result.push(read);
                }
            }
            // Removed between the two calls.
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    let listed: Vec<&str> = listed.iter().map(|sandbox| sandbox.id.as_str()).collect();
    settled
        .sandboxes
        .retain(|id, _| listed.contains(&id.as_str()));
    Ok(result)
}

async fn read_containers(
    runtime: &dyn Runtime,
    listed: &[cri::Container],
    settled: &mut Settled,
) -> Result<Vec<observed::ObservedContainer>, RuntimeError> {
    let mut result = Vec::with_capacity(listed.len());
    let mut still: BTreeMap<&str, ()> = BTreeMap::new();
    for container in listed {
        still.insert(&container.id, ());
        // Created, exited and running containers keep their status until the state changes.
        let known = settled
            .containers
            .get(&container.id)
            .filter(|known| known.state == container.state);
        let status = match known {
            Some(known) => known.clone(),
            None => match runtime.container_status(&container.id).await {
                Ok(status) => {
                    settled
                        .containers
                        .insert(container.id.clone(), status.clone());
                    status
                }
                Err(error) if error.is_not_found() => continue,
                Err(error) => return Err(error),
            },
        };
        result.extend(observed::container(&container.pod_sandbox_id, &status));
    }
    settled
        .containers
        .retain(|id, _| still.contains_key(id.as_str()));
    Ok(result)
}
