//! What the status of a validating policy says: that it was looked at, and what its expressions get
//! wrong. Every replica of the server runs this; their writes are equal.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::GROUP;
use super::types::warnings;
use crate::cache::{Filter, WatchItem, WatchStart};
use crate::object::Obj;
use crate::registry::{Kind, Subresource};
use crate::server::{Server, Target, WriteContext};
use crate::status::StatusError;
use crate::tree;

/// Pause after a watch broke off.
const RETRY: std::time::Duration = std::time::Duration::from_millis(200);

/// Follows the policies until `stop`.
pub(crate) async fn run(server: Arc<Server>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        if let Err(fault) = follow(&server, &stop).await {
            warn!(%fault, "policies are not followed; trying again");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(RETRY) => {}
        }
    }
}

async fn follow(server: &Server, stop: &CancellationToken) -> Result<(), StatusError> {
    let kind = server.kind(GROUP, "v1", "validatingadmissionpolicies")?;
    let start = WatchStart::State(Some(0));
    let mut watcher = server.watch(&kind, Filter::in_namespace(""), start).await?;
    loop {
        // Both branches are cancel safe: nothing is taken before it is returned.
        let items = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            items = watcher.next() => items,
        };
        let Ok(items) = items else {
            return Ok(());
        };
        for item in items {
            if let WatchItem::Added(obj) | WatchItem::Modified(obj) = item {
                observe(server, &kind, &obj).await;
            }
        }
    }
}

/// Looks at one policy; a fault is told, and it is looked at again with its next change.
async fn observe(server: &Server, kind: &Arc<Kind>, obj: &Obj) {
    let policy = obj.value();
    let generation = |object: &Value| tree::int(object, &["metadata", "generation"]);
    let observed = |object: &Value| tree::int(object, &["status", "observedGeneration"]);
    let Some(own) = generation(&policy) else {
        return;
    };
    if observed(&policy) == Some(own) {
        return;
    }
    let warnings = warnings(&policy, &server.registry);
    let target = Target {
        subresource: Some(Subresource::Status),
        ..Target::new(kind, "", &obj.key.name)
    };
    let context = WriteContext::own();
    let written = server.modify(&target, &context, |old| {
        let mut new = old.clone();
        // Somebody changed it meanwhile: that change is looked at next.
        if generation(old) == Some(own) {
            let checked = match warnings.is_empty() {
                true => json!({}),
                false => json!({"expressionWarnings": warnings}),
            };
            let status = tree::object_mut(&mut new, "status");
            status.insert("observedGeneration".to_owned(), json!(own));
            status.insert("typeChecking".to_owned(), checked);
        }
        Ok(new)
    });
    match written.await {
        Ok(_) => {}
        Err(fault) if matches!(fault.code, 404 | 409) => {}
        Err(fault) => warn!(policy = %obj.key.name, %fault, "policy's status is not written"),
    }
}
