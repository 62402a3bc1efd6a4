//! What the scheduler writes: bindings, and why a pod has none.

use std::sync::Arc;
use std::time::Duration;

use control_plane_client::backoff::Backoff;
use control_plane_client::{ApiError, ApiHandle, Clock, Patch, resources};
use proto_api::types::Time;
use proto_api::types::core::v1::{Pod, PodCondition};
use serde_json::json;
use tracing::debug;

use crate::pod_info::PodInfo;
use crate::queue::Attempt;

/// A pod whose binding's outcome is unknown is asked for again after this, doubling.
const ASK_FIRST: Duration = Duration::from_millis(20);
/// Longest pause between two such questions.
const ASK_MAX: Duration = Duration::from_secs(5);

/// How a write ended.
pub(crate) enum Written {
    /// The pod is on the node.
    Bound { attempt: Attempt, node: Arc<str> },
    /// It is not.
    NotBound {
        attempt: Attempt,
        node: Arc<str>,
        error: ApiError,
    },
    /// A reason was written, or was not worth insisting on.
    Explained,
}

/// Binds a pod. After an error the pod itself tells whether it was bound: an answer may have been lost,
/// and room given back too early would be given away twice.
pub(crate) async fn bind(api: ApiHandle, attempt: Attempt, node: Arc<str>) -> Written {
    let info = Arc::clone(&attempt.info);
    let body = json!({
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"namespace": info.key.namespace, "name": info.key.name, "uid": info.uid},
        "target": {"apiVersion": "v1", "kind": "Node", "name": node},
    });
    match api
        .create_subresource(resources::PODS, &info.key, "binding", body)
        .await
    {
        Ok(_) => Written::Bound { attempt, node },
        Err(error) if error.is_not_found() => Written::NotBound {
            attempt,
            node,
            error,
        },
        Err(error) => {
            if is_bound(&api, &info, &node).await {
                Written::Bound { attempt, node }
            } else {
                Written::NotBound {
                    attempt,
                    node,
                    error,
                }
            }
        }
    }
}

/// Asks until there is an answer.
async fn is_bound(api: &ApiHandle, info: &PodInfo, node: &str) -> bool {
    let mut backoff = Backoff::new(ASK_FIRST, ASK_MAX);
    loop {
        match api.get(resources::PODS, &info.key).await {
            Ok(object) => {
                let Ok(pod) = object.decode::<Pod>() else {
                    return false;
                };
                let here = pod
                    .spec
                    .and_then(|spec| spec.node_name)
                    .is_some_and(|on| on == node);
                return here && pod.metadata.uid.as_deref() == Some(&info.uid);
            }
            Err(error) if error.is_not_found() => return false,
            Err(error) => {
                debug!(pod = %info.key, %error, "cannot tell whether the pod is bound, asks again");
                tokio::time::sleep(backoff.next_jittered()).await;
            }
        }
    }
}

/// Writes the condition that says why a pod has no node, unless it says so already.
pub(crate) async fn explain(
    api: ApiHandle,
    info: Arc<PodInfo>,
    reason: &'static str,
    message: String,
    clock: Clock,
) -> Written {
    let Some(conditions) = conditions(&info.pod, reason, &message, clock) else {
        return Written::Explained;
    };
    // Only while nobody else has changed the pod: the next attempt explains again.
    let patch = Patch::Merge(json!({
        "metadata": {"uid": info.uid, "resourceVersion": info.pod.revision.to_string()},
        "status": {"conditions": conditions},
    }));
    if let Err(error) = api
        .patch(resources::PODS, &info.key, Some("status"), patch)
        .await
    {
        debug!(pod = %info.key, %error, "reason not written");
    }
    Written::Explained
}

/// The pod's conditions with `PodScheduled` false for `reason`; `None` when they say so.
fn conditions(pod: &Pod, reason: &str, message: &str, clock: Clock) -> Option<Vec<PodCondition>> {
    let mut all = pod.status.clone().unwrap_or_default().conditions;
    let present = all
        .iter()
        .position(|condition| condition.type_ == "PodScheduled");
    let known = present.map(|at| all.remove(at));
    let same = known.as_ref().is_some_and(|known| {
        known.status == "False"
            && known.reason.as_deref() == Some(reason)
            && known.message.as_deref() == Some(message)
    });
    if same {
        return None;
    }
    let since = known
        .filter(|known| known.status == "False")
        .and_then(|known| known.last_transition_time)
        .unwrap_or_else(|| Time::from_timestamp(clock.now()));
    all.push(PodCondition {
        type_: "PodScheduled".to_owned(),
        status: "False".to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_transition_time: Some(since),
        ..PodCondition::default()
    });
    Some(all)
}
