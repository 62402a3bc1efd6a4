//! Brings the cluster's own roles and bindings to what they must be at least, and aggregated roles
//! to what they collect.
//!
//! A start adds what is missing and removes nothing; an object whose annotation says
//! `autoupdate: "false"` is left alone. Aggregation follows every change of a cluster role.

use std::sync::Arc;
use std::time::Duration;

use futures::future::try_join_all;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::policy::{self, AUTO_UPDATE, aggregate};
use super::rule::{PolicyRule, uncovered};
use crate::auth::User;
use crate::object::ObjKey;
use crate::registry::Kind;
use crate::registry::rbac::GROUP;
use crate::server::{DeleteRequest, Server, Target, WriteContext};
use crate::status::StatusError;
use crate::tree;

const SYSTEM: &str = "kube-system";
/// Rounds of aggregation at start: admin collects edit, which collects view.
const DEPTH: usize = 3;
/// Pause after a write that failed.
const RETRY: Duration = Duration::from_secs(2);

/// Creates and completes the cluster's own roles and bindings, and aggregates once.
///
/// # Errors
/// The store refuses a write.
pub(crate) async fn reconcile(server: &Server) -> Result<(), StatusError> {
    let context = WriteContext::own();
    for (plural, namespace, wanted) in [
        ("clusterroles", "", policy::aggregated_cluster_roles()),
        ("clusterrolebindings", "", policy::cluster_role_bindings()),
        ("roles", SYSTEM, policy::system_roles()),
        ("rolebindings", SYSTEM, policy::system_role_bindings()),
    ] {
        let kind = server.kind(GROUP, "v1", plural)?;
        // At once, so that the store commits them as a group.
        let holds = wanted
            .into_iter()
            .map(|object| hold(server, &kind, namespace, object, &context));
        try_join_all(holds).await?;
    }
    for _ in 0..DEPTH {
        aggregate_all(server).await?;
    }
    Ok(())
}

async fn hold(
    server: &Server,
    kind: &Arc<Kind>,
    namespace: &str,
    wanted: Value,
    context: &WriteContext,
) -> Result<(), StatusError> {
    let name = tree::text(&wanted, &["metadata", "name"]).to_owned();
    let target = Target::new(kind, namespace, &name);
    let Some(present) = server.cached(&target) else {
        return server.ensure(kind, namespace, wanted, context).await;
    };
    let present = present.value();
    if tree::text(&present, &["metadata", "annotations", AUTO_UPDATE]) == "false" {
        return Ok(());
    }
    if tree::at(&present, &["roleRef"]) != tree::at(&wanted, &["roleRef"]) {
        // A role reference cannot change: the binding is made anew.
        server
            .delete(&target, &DeleteRequest::default(), context)
            .await?;
        return server.ensure(kind, namespace, wanted, context).await;
    }
    if let Some(completed) = completed(&present, &wanted) {
        server
            .modify(&target, context, |_| Ok(completed.clone()))
            .await?;
    }
    Ok(())
}

/// `present` with what it lacks of `wanted`; `None` when it lacks nothing.
fn completed(present: &Value, wanted: &Value) -> Option<Value> {
    let mut new = present.clone();
    for field in ["labels", "annotations"] {
        for (key, value) in tree::entries(wanted, &["metadata", field]) {
            let meta = tree::object_mut(&mut new, "metadata");
            let map = tree::as_object(meta.entry(field.to_owned()).or_insert(Value::Null));
            map.insert(key.clone(), value.clone());
        }
    }
    let selectors = ["aggregationRule", "clusterRoleSelectors"];
    if !tree::list(wanted, &selectors).is_empty() {
        if tree::list(present, &selectors).is_empty() {
            tree::carry(&mut new, wanted, "aggregationRule");
        }
    } else {
        let held = PolicyRule::all_of(present);
        let missing = uncovered(&held, &PolicyRule::all_of(wanted));
        append(&mut new, "rules", missing.iter().map(PolicyRule::to_value));
    }
    let subjects = tree::list(present, &["subjects"]);
    let missing = tree::list(wanted, &["subjects"])
        .iter()
        .filter(|subject| !subjects.contains(subject))
        .cloned();
    append(&mut new, "subjects", missing);
    (new != *present).then_some(new)
}

fn append(object: &mut Value, field: &str, more: impl Iterator<Item = Value>) {
    let mut more = more.peekable();
    if more.peek().is_none() {
        return;
    }
    let mut list = tree::list(object, &[field]).to_vec();
    list.extend(more);
    tree::as_object(object).insert(field.to_owned(), json!(list));
}

/// Writes the rules of every aggregated role that lacks some or has too many.
async fn aggregate_all(server: &Server) -> Result<(), StatusError> {
    let kind = server.kind(GROUP, "v1", "clusterroles")?;
    let context = WriteContext::of(Arc::new(User::control_plane(
        "clusterrole-aggregation-controller",
    )));
    let roles: Vec<Value> = server
        .cache
        .of(&kind)
        .snapshot()
        .values()
        .map(|obj| obj.value())
        .collect();
    for role in &roles {
        let Some(rules) = aggregate(role, &roles) else {
            continue;
        };
        if tree::list(role, &["rules"]) == rules {
            continue;
        }
        let target = Target {
            kind: Arc::clone(&kind),
            key: ObjKey::new("", tree::text(role, &["metadata", "name"])),
            subresource: None,
        };
        let written = server
            .modify(&target, &context, |old| {
                let mut new = old.clone();
                tree::object_mut(&mut new, "metadata").shift_remove("resourceVersion");
                tree::as_object(&mut new).insert("rules".to_owned(), json!(rules));
                Ok(new)
            })
            .await;
        match written {
            Ok(_) => {}
            // Deleted meanwhile.
            Err(error) if error.code == 404 => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Aggregates after every change of a cluster role, until `stop`.
pub(crate) async fn follow(server: Arc<Server>, stop: CancellationToken) {
    let Ok(kind) = server.kind(GROUP, "v1", "clusterroles") else {
        return;
    };
    let mut changes = server.cache.of(&kind).tail();
    loop {
        let pause = match aggregate_all(&server).await {
            Ok(()) => Duration::MAX,
            Err(error) => {
                warn!(
                    error = error.message,
                    "cluster roles are not aggregated; trying again"
                );
                RETRY
            }
        };
        // Cancel safe: a watch's `changed`, a timer and a token lose nothing when dropped.
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
            changed = changes.changed() => if changed.is_err() { return },
        }
    }
}
