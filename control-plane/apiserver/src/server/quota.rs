//! Quotas in the commit: whatever a write adds to, or takes from, the quotas of its namespace is
//! written with it, at one revision, on the condition that nobody else changed them.

use std::hash::{BuildHasher as _, Hash as _};
use std::sync::Arc;

use control_plane_storage::{Expect, Op, Rev};
use serde_json::{Value, json};
use tokio::sync::{Mutex, MutexGuard};

use super::commit::{Change, CommitFault};
use super::{Server, Target};
use crate::admission::quota::{self, Usage, Verdict};
use crate::object::{Obj, ObjKey, encode, store_key};
use crate::status::StatusError;
use crate::tree;

const QUOTAS: &str = "resourcequotas";

/// Turns to write in a namespace with quotas: within one server, whoever waits for a turn would
/// only meet a conflict. Namespaces share a small number of them.
#[derive(Debug, Default)]
pub(crate) struct QuotaTurns {
    turns: [Mutex<()>; 16],
    state: std::hash::RandomState,
}

impl QuotaTurns {
    async fn take(&self, namespace: &str) -> Option<MutexGuard<'_, ()>> {
        let mut hasher = self.state.build_hasher();
        namespace.hash(&mut hasher);
        let at = std::hash::Hasher::finish(&hasher) % self.turns.len() as u64;
        let turn = usize::try_from(at).ok().and_then(|at| self.turns.get(at))?;
        Some(turn.lock().await)
    }
}

impl Server {
    /// Waits for the turn to write in a namespace with quotas; `None` when there are none.
    pub(super) async fn quota_turn(&self, target: &Target) -> Option<MutexGuard<'_, ()>> {
        if !is_quota(target) && self.quotas_of(&target.key.namespace).is_empty() {
            return None;
        }
        self.quota_turns.take(&target.key.namespace).await
    }

    fn quotas_of(&self, namespace: &str) -> Vec<Arc<Obj>> {
        let Some(quotas) = self.cache.resource("", QUOTAS).filter(|q| !q.is_empty()) else {
            return Vec::new();
        };
        quotas
            .snapshot()
            .range(ObjKey::new(namespace, "")..)
            .take_while(|(key, _)| &*key.namespace == namespace)
            .map(|(_, obj)| Arc::clone(obj))
            .collect()
    }

    /// The operations on the quotas of the namespace; a quota that is itself written gets its
    /// status. To be called within the namespace's turn.
    pub(super) fn quota_ops(
        &self,
        target: &Target,
        change: &mut Change<'_>,
    ) -> Result<Vec<Op>, CommitFault> {
        if !target.kind.namespaced() {
            return Ok(Vec::new());
        }
        if is_quota(target)
            && let Change::Create(value) | Change::Replace(value, _) = change
        {
            self.recount(&target.key.namespace, value);
        }
        let quotas = self.quotas_of(&target.key.namespace);
        let mut ops = Vec::new();
        for obj in quotas
            .iter()
            .filter(|obj| obj.key != target.key || !is_quota(target))
        {
            let quota = obj.value();
            match judge(target, &quota, change) {
                Verdict::Untouched => {}
                Verdict::Exceeded(why) => {
                    let resource = target.kind.group_resource();
                    let error = StatusError::forbidden(resource, &target.key.name, &why);
                    return Err(CommitFault::Refused(error));
                }
                Verdict::Used(used) => ops.push(put(obj, quota, &used)?),
            }
        }
        Ok(ops)
    }

    /// Counts what a quota limits anew.
    fn recount(&self, namespace: &str, value: &mut Value) {
        let hard = quota::amounts(value, &["spec", "hard"]);
        let mut used: Usage = hard
            .keys()
            .map(|name| (name.clone(), proto_api::quantity::Amount::default()))
            .collect();
        let own = ("", QUOTAS, value.clone());
        let cached = self.cache.resources();
        let objects = cached
            .iter()
            .filter(|resource| resource.kind.namespaced())
            .flat_map(|resource| {
                let (group, plural) = (resource.kind.storage_group, resource.kind.plural);
                let counted = quota::usage(group, plural, &Value::Null);
                let may_count = plural == "pods"
                    || plural == "services"
                    || plural == "persistentvolumeclaims"
                    || counted.keys().any(|name| hard.contains_key(name));
                let all = if may_count && plural != QUOTAS {
                    resource.snapshot()
                } else {
                    imbl::OrdMap::new()
                };
                all.range(ObjKey::new(namespace, "")..)
                    .take_while(|(key, _)| &*key.namespace == namespace)
                    .map(|(_, obj)| (group, plural, obj.value()))
                    .collect::<Vec<_>>()
            })
            .chain(std::iter::once(own));
        for (group, plural, object) in objects {
            if !quota::counts(value, group, plural, &object) {
                continue;
            }
            for (name, amount) in quota::usage(group, plural, &object) {
                if let Some(total) = used.get_mut(&name) {
                    *total = total.plus(amount);
                }
            }
        }
        let status = tree::object_mut(value, "status");
        status.insert("hard".to_owned(), quota::to_value(&hard));
        status.insert("used".to_owned(), quota::to_value(&used));
    }
}

fn is_quota(target: &Target) -> bool {
    target.kind.group.is_empty() && target.kind.plural == QUOTAS
}

/// What a change does to a quota.
fn judge(target: &Target, quota: &Value, change: &Change<'_>) -> Verdict {
    let (group, plural) = (target.kind.storage_group, target.kind.plural);
    let used = |object: &Value| {
        if quota::counts(quota, group, plural, object) {
            quota::usage(group, plural, object)
        } else {
            Usage::new()
        }
    };
    let (before, after) = match change {
        Change::Create(value) => {
            let counted = quota::counts(quota, group, plural, value);
            if group.is_empty()
                && plural == "pods"
                && counted
                && let Some(why) = quota::missing(quota, value)
            {
                return Verdict::Exceeded(why);
            }
            (Usage::new(), used(value))
        }
        Change::Replace(value, old) => (used(&old.value()), used(value)),
        Change::Remove(old) => (used(&old.value()), Usage::new()),
    };
    quota::judge(quota, &before, &after)
}

fn put(obj: &Obj, mut quota: Value, used: &Usage) -> Result<Op, CommitFault> {
    let status = tree::object_mut(&mut quota, "status");
    status.insert("used".to_owned(), quota::to_value(used));
    status.entry("hard".to_owned()).or_insert_with(|| json!({}));
    let value =
        encode(&quota).map_err(|fault| CommitFault::Refused(StatusError::internal(fault)))?;
    let key = store_key("", QUOTAS, &obj.key.namespace, &obj.key.name);
    Ok(Op::put(key, value, Expect::Rev(Rev(obj.rv))))
}
