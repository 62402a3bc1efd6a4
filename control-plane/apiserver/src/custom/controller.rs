//! What a definition's status says, and the clean-up when it is deleted.
//!
//! Every replica of the server runs this; their writes are equal, and a second one changes nothing.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::CLEANUP;
use crate::cache::{Filter, ListRequest, WatchItem, WatchStart};
use crate::object::Obj;
use crate::registry::{Kind, Subresource};
use crate::server::{DeleteRequest, Server, Target, WriteContext};
use crate::status::StatusError;
use crate::tree;

const GROUP: &str = "apiextensions.k8s.io";
/// Pause after a watch broke off.
const RETRY: std::time::Duration = std::time::Duration::from_millis(200);

/// Follows the definitions until `stop`.
pub(crate) async fn run(server: Arc<Server>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        if let Err(fault) = follow(&server, &stop).await {
            warn!(%fault, "definitions are not followed; trying again");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(RETRY) => {}
        }
    }
}

async fn follow(server: &Server, stop: &CancellationToken) -> Result<(), StatusError> {
    let kind = server.kind(GROUP, "v1", "customresourcedefinitions")?;
    let context = WriteContext::own();
    let start = WatchStart::State(Some(0));
    let mut watcher = server.watch(&kind, Filter::in_namespace(""), start).await?;
    let mut applied = server.cache.subscribe();
    let mut going: BTreeSet<Arc<str>> = BTreeSet::new();
    loop {
        // Both branches are cancel safe: nothing is taken before it is returned.
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            items = watcher.next() => {
                let Ok(items) = items else {
                    return Ok(());
                };
                for item in items {
                    match item {
                        WatchItem::Added(obj) | WatchItem::Modified(obj) => {
                            if obj.meta.terminating {
                                going.insert(Arc::clone(&obj.key.name));
                            }
                            settle(server, &kind, &obj, &context).await;
                        }
                        WatchItem::Deleted(obj) => {
                            going.remove(&obj.key.name);
                            // Its names are free now.
                            let others = server.cache.of(&kind).snapshot();
                            let others: Vec<Arc<Obj>> = others.values().cloned().collect();
                            for other in others {
                                settle(server, &kind, &other, &context).await;
                            }
                        }
                        WatchItem::Bookmark { .. } => {}
                    }
                }
            }
            changed = applied.changed(), if !going.is_empty() => {
                if changed.is_err() {
                    return Ok(());
                }
                let names: Vec<Arc<str>> = going.iter().cloned().collect();
                for name in names {
                    let target = Target::new(&kind, "", &name);
                    match server.cached(&target) {
                        Some(obj) => settle(server, &kind, &obj, &context).await,
                        None => {
                            going.remove(&name);
                        }
                    }
                }
            }
        }
    }
}

/// Brings one definition a step further; a fault is told and tried again with its next change.
async fn settle(server: &Server, kind: &Arc<Kind>, obj: &Obj, context: &WriteContext) {
    let outcome = if obj.meta.terminating {
        clean_up(server, kind, obj, context).await
    } else {
        accept(server, kind, obj, context).await
    };
    match outcome {
        Ok(()) => {}
        Err(fault) if matches!(fault.code, 404 | 409) => {}
        Err(fault) => warn!(definition = %obj.key.name, %fault, "definition is not settled"),
    }
}

/// Decides whether the names are free, and establishes the definition when they are.
async fn accept(
    server: &Server,
    kind: &Arc<Kind>,
    obj: &Obj,
    context: &WriteContext,
) -> Result<(), StatusError> {
    let own = obj.value();
    let others: Vec<Value> = server
        .cache
        .of(kind)
        .snapshot()
        .values()
        .filter(|other| other.key != obj.key)
        .map(|other| other.value())
        .filter(|other| other["spec"]["group"] == own["spec"]["group"])
        .collect();
    let conditions = conditions(&own, &others);
    if tree::same(
        &own["status"]["acceptedNames"],
        &accepted_names(&own, &conditions),
    ) && conditions.iter().all(|wanted| is_told(&own, wanted))
    {
        return Ok(());
    }
    let target = Target {
        subresource: Some(Subresource::Status),
        ..Target::new(kind, "", &obj.key.name)
    };
    let now = server.now_text();
    server
        .modify(&target, context, |old| {
            let mut new = old.clone();
            let names = accepted_names(old, &conditions);
            tree::object_mut(&mut new, "status").insert("acceptedNames".to_owned(), names);
            for condition in &conditions {
                tell(&mut new, condition, &now);
            }
            Ok(new)
        })
        .await
        .map(|_| ())
}

/// A condition without its time.
#[derive(Debug, Clone, PartialEq)]
struct Condition {
    name: &'static str,
    holds: bool,
    reason: &'static str,
    message: String,
}

/// What the definition's conditions must be, given the other definitions of its group.
fn conditions(own: &Value, others: &[Value]) -> Vec<Condition> {
    let conflict = conflict(own, others);
    let was = |name: &str| {
        let all = tree::list(own, &["status", "conditions"]);
        all.iter()
            .any(|c| c["type"] == name && c["status"] == "True")
    };
    let accepted = match &conflict {
        None => Condition {
            name: "NamesAccepted",
            holds: true,
            reason: "NoConflicts",
            message: "no conflicts found".to_owned(),
        },
        Some((reason, name)) => Condition {
            name: "NamesAccepted",
            holds: false,
            reason,
            message: format!("\"{name}\" is already in use"),
        },
    };
    let established = match conflict {
        // Once established, a definition stays so.
        _ if was("Established") => None,
        None => Some((
            true,
            "InitialNamesAccepted",
            "the initial names have been accepted",
        )),
        Some(_) => Some((false, "NotAccepted", "not all names are accepted")),
    };
    let mut all = vec![accepted];
    all.extend(established.map(|(holds, reason, message)| Condition {
        name: "Established",
        holds,
        reason,
        message: message.to_owned(),
    }));
    all
}

/// The first name that another definition of the group has accepted.
fn conflict(own: &Value, others: &[Value]) -> Option<(&'static str, String)> {
    let names = |value: &Value| -> Vec<String> {
        let one = ["plural", "singular"].map(|name| tree::text(value, &[name]).to_owned());
        let short = tree::list(value, &["shortNames"]).iter();
        let short = short.filter_map(|name| name.as_str().map(str::to_owned));
        one.into_iter()
            .chain(short)
            .filter(|name| !name.is_empty())
            .collect()
    };
    let kinds =
        |value: &Value| ["kind", "listKind"].map(|name| tree::text(value, &[name]).to_owned());
    let accepted = || others.iter().map(|other| &other["status"]["acceptedNames"]);
    let taken: BTreeSet<String> = accepted().flat_map(names).collect();
    let taken_kinds: BTreeSet<String> = accepted().flat_map(kinds).collect();
    let wanted = &own["spec"]["names"];
    let check = |field: &str, taken: &BTreeSet<String>| {
        let name = tree::text(wanted, &[field]);
        (!name.is_empty() && taken.contains(name)).then(|| name.to_owned())
    };
    let short = || {
        let short = tree::list(wanted, &["shortNames"]).iter();
        short
            .filter_map(Value::as_str)
            .find(|name| taken.contains(*name))
            .map(str::to_owned)
    };
    None.or_else(|| Some(("PluralConflict", check("plural", &taken)?)))
        .or_else(|| Some(("SingularConflict", check("singular", &taken)?)))
        .or_else(|| Some(("ShortNamesConflict", short()?)))
        .or_else(|| Some(("KindConflict", check("kind", &taken_kinds)?)))
        .or_else(|| Some(("ListKindConflict", check("listKind", &taken_kinds)?)))
}

/// The wanted names when they are free, else those that were accepted before.
fn accepted_names(own: &Value, conditions: &[Condition]) -> Value {
    let free = conditions
        .iter()
        .all(|c| c.name != "NamesAccepted" || c.holds);
    if free {
        own["spec"]["names"].clone()
    } else {
        own["status"]["acceptedNames"].clone()
    }
}

fn is_told(own: &Value, wanted: &Condition) -> bool {
    tree::list(own, &["status", "conditions"])
        .iter()
        .any(|told| {
            told["type"] == wanted.name
                && (told["status"] == "True") == wanted.holds
                && told["reason"] == wanted.reason
                && told["message"] == wanted.message.as_str()
        })
}

fn tell(object: &mut Value, condition: &Condition, now: &str) {
    let Condition {
        name,
        holds,
        reason,
        message,
    } = condition;
    let status = if *holds { "True" } else { "False" };
    let conditions = tree::object_mut(object, "status")
        .entry("conditions")
        .or_insert_with(|| json!([]));
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    let Some(conditions) = conditions.as_array_mut() else {
        return;
    };
    let found = conditions.iter().position(|told| told["type"] == *name);
    let since = found
        .and_then(|at| conditions.get(at))
        .filter(|told| told["status"] == status)
        .map_or_else(|| json!(now), |told| told["lastTransitionTime"].clone());
    let told = json!({"type": name, "status": status, "reason": reason, "message": message,
        "lastTransitionTime": since});
    match found.and_then(|at| conditions.get_mut(at)) {
        Some(slot) => *slot = told,
        None => conditions.push(told),
    }
}

/// Deletes the objects of a definition that is going, then lets it go.
async fn clean_up(
    server: &Server,
    kind: &Arc<Kind>,
    obj: &Obj,
    context: &WriteContext,
) -> Result<(), StatusError> {
    if !obj
        .meta
        .finalizers
        .iter()
        .any(|finalizer| **finalizer == *CLEANUP)
    {
        return Ok(());
    }
    let value = obj.value();
    let group = tree::text(&value, &["spec", "group"]);
    let plural = tree::text(&value, &["spec", "names", "plural"]);
    if let Some(resource) = server.cache.resource(group, plural) {
        let waiting = resource
            .snapshot()
            .values()
            .any(|own| !own.meta.terminating);
        if waiting {
            let list = ListRequest {
                filter: Filter::in_namespace(""),
                ..ListRequest::default()
            };
            let request = DeleteRequest::default();
            server
                .delete_collection(&resource.kind, &list, &request, context)
                .await?;
        }
        if !resource.is_empty() {
            return Ok(());
        }
    }
    let target = Target::new(kind, "", &obj.key.name);
    server
        .modify(&target, context, |old| {
            let mut new = old.clone();
            let finalizers = tree::list(old, &["metadata", "finalizers"]);
            let rest: Vec<Value> = finalizers
                .iter()
                .filter(|f| **f != CLEANUP)
                .cloned()
                .collect();
            tree::object_mut(&mut new, "metadata").insert("finalizers".to_owned(), rest.into());
            Ok(new)
        })
        .await
        .map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(plural: &str, kind: &str, short: &str) -> Value {
        let names = json!({"plural": plural, "singular": kind.to_lowercase(), "kind": kind,
            "listKind": format!("{kind}List"), "shortNames": [short]});
        json!({"spec": {"group": "example.com", "names": names},
            "status": {"acceptedNames": names}})
    }

    #[test]
    fn names_belong_to_who_accepted_them_first() {
        let crons = definition("crontabs", "CronTab", "ct");
        let cases = [
            (definition("others", "Other", "ot"), None),
            (
                definition("others", "CronTab", "ot"),
                Some("SingularConflict"),
            ),
            (
                definition("others", "Other", "ct"),
                Some("ShortNamesConflict"),
            ),
            (
                definition("crontabs", "Other", "ot"),
                Some("PluralConflict"),
            ),
        ];
        for (own, expected) in cases {
            let found = conflict(&own, std::slice::from_ref(&crons));
            assert_eq!(found.map(|(reason, _)| reason), expected);
            let told = conditions(&own, std::slice::from_ref(&crons));
            assert_eq!(told[0].holds, expected.is_none());
            assert_eq!(told[1].holds, expected.is_none());
        }
    }
}
