//! Follows the objects: the table is made of them, what every cluster must have is put back, and a
//! schema is told when its level does not exist. Every replica does this; their writes are equal.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::Flow;
use crate::registry::{Kind, Subresource, flow_control};
use crate::server::{Server, Target, WriteContext};
use crate::status::StatusError;
use crate::tree;

const GROUP: &str = "flowcontrol.apiserver.k8s.io";
/// Pause after a write that failed.
const RETRY: Duration = Duration::from_secs(5);

struct Kinds {
    schemas: Arc<Kind>,
    levels: Arc<Kind>,
}

impl Kinds {
    fn of(server: &Server) -> Result<Self, StatusError> {
        Ok(Self {
            schemas: server.kind(GROUP, "v1", "flowschemas")?,
            levels: server.kind(GROUP, "v1", "prioritylevelconfigurations")?,
        })
    }
}

fn objects(server: &Server, kind: &Arc<Kind>) -> Vec<Value> {
    let all = server.cache.of(kind).snapshot();
    all.values().map(|object| object.value()).collect()
}

/// Makes the table of the objects that are there.
///
/// # Errors
/// The kinds are not served.
pub(crate) fn load(flow: &Flow, server: &Server) -> Result<(), StatusError> {
    let kinds = Kinds::of(server)?;
    let (schemas, levels) = (
        objects(server, &kinds.schemas),
        objects(server, &kinds.levels),
    );
    flow.configure(schemas.iter(), levels.iter());
    Ok(())
}

/// Goes by the objects as they change, until `stop`.
pub(crate) async fn follow(flow: Arc<Flow>, server: Arc<Server>, stop: CancellationToken) {
    let Ok(kinds) = Kinds::of(&server) else {
        return;
    };
    let mut schemas = server.cache.of(&kinds.schemas).tail();
    let mut levels = server.cache.of(&kinds.levels).tail();
    loop {
        let settled = match load(&flow, &server) {
            Ok(()) => settle(&server, &kinds).await,
            Err(fault) => Err(fault),
        };
        let pause = match settled {
            Ok(()) => Duration::MAX,
            Err(fault) => {
                warn!(%fault, "flow schemas and priority levels are not put right; trying again");
                RETRY
            }
        };
        // Cancel safe: a watch's `changed`, a timer and a token lose nothing when dropped.
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
            changed = schemas.changed() => if changed.is_err() { return },
            changed = levels.changed() => if changed.is_err() { return },
        }
    }
}

async fn settle(server: &Server, kinds: &Kinds) -> Result<(), StatusError> {
    let context = WriteContext::own();
    for (kind, wanted) in [
        (&kinds.levels, flow_control::levels()),
        (&kinds.schemas, flow_control::schemas()),
    ] {
        for wanted in wanted {
            hold(server, kind, &wanted, &context).await?;
        }
    }
    let levels = objects(server, &kinds.levels);
    for schema in objects(server, &kinds.schemas) {
        tell(server, &kinds.schemas, &schema, &levels, &context).await?;
    }
    Ok(())
}

/// Whether the server may write the spec of an object that it has made.
fn is_ours(present: &Value) -> bool {
    match tree::text(
        present,
        &["metadata", "annotations", flow_control::AUTO_UPDATE],
    ) {
        "true" => true,
        // As it was made, by a server that did not say.
        "" => tree::int(present, &["metadata", "generation"]) == Some(1),
        _ => false,
    }
}

/// Creates what is missing, and writes the spec anew where that is the server's.
async fn hold(
    server: &Server,
    kind: &Arc<Kind>,
    wanted: &Value,
    context: &WriteContext,
) -> Result<(), StatusError> {
    let target = Target::new(kind, "", tree::text(wanted, &["metadata", "name"]));
    let Some(present) = server.cached(&target) else {
        return server.ensure(kind, "", wanted.clone(), context).await;
    };
    let mut complete = wanted.clone();
    kind.strategy.default(&mut complete);
    let spec = &complete["spec"];
    let differs = |present: &Value| is_ours(present) && present["spec"] != *spec;
    if !differs(&present.value()) || present.meta.terminating {
        return Ok(());
    }
    let written = server
        .modify(&target, context, |old| {
            let mut new = old.clone();
            if differs(old) {
                new["spec"] = spec.clone();
            }
            Ok(new)
        })
        .await;
    gone_is_well(written.map(|_| ()))
}

fn gone_is_well(written: Result<(), StatusError>) -> Result<(), StatusError> {
    match written {
        // Deleted meanwhile: its change wakes us again.
        Err(fault) if fault.code == 404 => Ok(()),
        other => other,
    }
}

/// The condition that says whether the level of a schema exists.
fn dangling(schema: &Value, levels: &[Value]) -> Value {
    let level = ["spec", "priorityLevelConfiguration", "name"];
    let name = tree::text(schema, &level);
    let exists = levels
        .iter()
        .any(|level| tree::text(level, &["metadata", "name"]) == name);
    let (status, reason, end) = if exists {
        ("False", "Found", "it exists")
    } else {
        ("True", "NotFound", "there is no such object")
    };
    let message = format!(
        "This FlowSchema references the PriorityLevelConfiguration object named {name:?} {} {end}",
        if exists { "and" } else { "but" }
    );
    json!({"type": "Dangling", "status": status, "reason": reason, "message": message})
}

async fn tell(
    server: &Server,
    kind: &Arc<Kind>,
    schema: &Value,
    levels: &[Value],
    context: &WriteContext,
) -> Result<(), StatusError> {
    let wanted = dangling(schema, levels);
    let told = |object: &Value| {
        let conditions = tree::list(object, &["status", "conditions"]).iter();
        let same = |condition: &&Value| {
            ["type", "status", "reason", "message"]
                .iter()
                .all(|field| condition[*field] == wanted[*field])
        };
        conditions.clone().any(|condition| same(&condition))
    };
    if told(schema) {
        return Ok(());
    }
    let target = Target {
        subresource: Some(Subresource::Status),
        ..Target::new(kind, "", tree::text(schema, &["metadata", "name"]))
    };
    let now = server.now_text();
    let written = server
        .modify(&target, context, |old| {
            let mut new = old.clone();
            let before = tree::list(old, &["status", "conditions"]).iter();
            let same = before.clone().find(|it| it["type"] == "Dangling");
            let since = same
                .filter(|it| it["status"] == wanted["status"])
                .map_or_else(|| json!(now), |it| it["lastTransitionTime"].clone());
            let mut condition = wanted.clone();
            condition["lastTransitionTime"] = since;
            let mut conditions: Vec<Value> = before
                .filter(|it| it["type"] != "Dangling")
                .cloned()
                .collect();
            conditions.push(condition);
            tree::object_mut(&mut new, "status").insert("conditions".to_owned(), json!(conditions));
            Ok(new)
        })
        .await;
    gone_is_well(written.map(|_| ()))
}
