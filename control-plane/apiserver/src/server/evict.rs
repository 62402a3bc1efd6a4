//! Eviction: a deletion that keeps the pod's disruption budget.
//!
//! The budget's controller says how many disruptions are allowed; each eviction takes one in the same
//! write in which it notes the pod, so two evictions never take the same one.

use serde_json::{Value, json};

use super::delete::check;
use super::{DeleteRequest, Server, Target, WriteContext, WriteMode};
use crate::cache::{Filter, ListRequest};
use crate::registry::Subresource;
use crate::status::{Cause, Details, StatusError};
use crate::tree;
use crate::validation::selects;

/// How often somebody else's write may come in between.
const RETRIES_MAX: usize = 20;
/// Evicted pods that the budget's controller has not seen go yet.
const DISRUPTED_MAX: usize = 2000;
const VIOLATES: &str = "Cannot evict pod as it would violate the pod's disruption budget.";
const MANY_BUDGETS: &str = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
/// How long a client shall wait for a budget that is being counted.
const COUNTING_SECONDS: u32 = 10;

impl Server {
    /// Deletes a pod within the rules that protect it.
    ///
    /// # Errors
    /// TooManyRequests when the budget allows no disruption now; as [`Server::delete`] otherwise.
    pub async fn evict(
        &self,
        target: &Target,
        request: &DeleteRequest,
        context: &WriteContext,
    ) -> Result<(), StatusError> {
        let pod = Target {
            subresource: None,
            ..target.clone()
        };
        let pinned = request.preconditions.resource_version.is_some();
        let mut last = None;
        for _ in 0..RETRIES_MAX {
            let found = self.get(&pod, None).await?;
            // Before a budget is touched: what will not be deleted must not count as disrupted.
            check(&pod, &found, &request.preconditions)?;
            let value = found.value();
            let at = |at: bool| {
                let mut request = request.clone();
                if at && !pinned {
                    request.preconditions.resource_version = Some(found.rv.to_string());
                }
                request
            };
            let budget = if counts(&value) {
                self.budget_of(&pod, &value).await?
            } else {
                None
            };
            let Some(budget) = budget else {
                // A pod that starts must not become one that counts meanwhile.
                let pending = is_pending(&value);
                match self.disrupt(&pod, &at(pending), context).await {
                    Err(error) if error.code == 409 && pending && !pinned => {
                        last = Some(error);
                        continue;
                    }
                    other => return other,
                }
            };
            if !may_go_unhealthy(&value, &budget.1) {
                self.take(&budget.0, &pod, context).await?;
                return self.disrupt(&pod, request, context).await;
            }
            return match self.disrupt(&pod, &at(true), context).await {
                Err(error) if error.code == 409 && !pinned => Err(counting(&budget.0.key.name)),
                other => other,
            };
        }
        let modified = || StatusError::modified(target.kind.group_resource(), &target.key.name);
        Err(last.unwrap_or_else(modified))
    }

    /// The budget that protects a pod.
    async fn budget_of(
        &self,
        pod: &Target,
        value: &Value,
    ) -> Result<Option<(Target, Value)>, StatusError> {
        let kind = self
            .registry
            .by_plural("policy", "v1", "poddisruptionbudgets");
        let Some(kind) = kind else { return Ok(None) };
        let request = ListRequest {
            filter: Filter::in_namespace(&pod.key.namespace),
            ..ListRequest::default()
        };
        let all = self.list(&kind, &request).await?;
        let mut own = all.items.iter().filter_map(|budget| {
            let object = budget.value();
            means(&object, value).then(|| {
                let target = Target {
                    kind: std::sync::Arc::clone(&kind),
                    key: budget.key.clone(),
                    subresource: Some(Subresource::Status),
                };
                (target, object)
            })
        });
        let first = own.next();
        if own.next().is_some() {
            return Err(StatusError::new(500, "InternalError", MANY_BUDGETS));
        }
        Ok(first)
    }

    /// Takes one allowed disruption for the pod.
    async fn take(
        &self,
        budget: &Target,
        pod: &Target,
        context: &WriteContext,
    ) -> Result<(), StatusError> {
        let now = self.now_text();
        let taken = self.modify(budget, context, |old| take_from(old, &pod.key.name, &now));
        taken.await.map(|_| ())
    }

    /// Says on the pod why it goes, and deletes it.
    async fn disrupt(
        &self,
        pod: &Target,
        request: &DeleteRequest,
        context: &WriteContext,
    ) -> Result<(), StatusError> {
        let mut request = request.clone();
        if context.mode == WriteMode::Commit {
            let status = Target {
                subresource: Some(Subresource::Status),
                ..pod.clone()
            };
            let wanted = &request.preconditions;
            let now = self.now_text();
            let written = self.modify(&status, context, |old| {
                let mut new = old.clone();
                set_disruption_target(&mut new, &now);
                let meta = tree::object_mut(&mut new, "metadata");
                meta.shift_remove("resourceVersion");
                if let Some(rv) = &wanted.resource_version {
                    meta.insert("resourceVersion".to_owned(), json!(rv));
                }
                if let Some(uid) = &wanted.uid {
                    meta.insert("uid".to_owned(), json!(uid));
                }
                Ok(new)
            });
            let written = written.await?;
            if let Some(rv) = &mut request.preconditions.resource_version {
                *rv = written.rv.to_string();
            }
        }
        self.delete(pod, &request, context).await.map(|_| ())
    }
}

/// Whether a budget's selector means the pod. No selector means none, an empty one all.
fn means(budget: &Value, pod: &Value) -> bool {
    let selector = tree::at(budget, &["spec", "selector"]);
    !selector.is_null() && selects(selector, tree::at(pod, &["metadata", "labels"]))
}

/// Whether losing the pod is a disruption: it has started, and neither ended nor begun to end.
fn counts(pod: &Value) -> bool {
    let phase = tree::text(pod, &["status", "phase"]);
    let going = !tree::is_unset(tree::at(pod, &["metadata", "deletionTimestamp"]));
    !going && !matches!(phase, "Succeeded" | "Failed" | "Pending")
}

fn is_pending(pod: &Value) -> bool {
    let going = !tree::is_unset(tree::at(pod, &["metadata", "deletionTimestamp"]));
    !going && tree::text(pod, &["status", "phase"]) == "Pending"
}

/// Whether a pod that is not ready may go without being counted.
fn may_go_unhealthy(pod: &Value, budget: &Value) -> bool {
    let ready = tree::list(pod, &["status", "conditions"])
        .iter()
        .any(|condition| condition["type"] == "Ready" && condition["status"] == "True");
    if ready {
        return false;
    }
    if tree::text(budget, &["spec", "unhealthyPodEvictionPolicy"]) == "AlwaysAllow" {
        return true;
    }
    let status = |field| tree::int(budget, &["status", field]).unwrap_or_default();
    let desired = status("desiredHealthy");
    desired > 0 && status("currentHealthy") >= desired
}

/// The budget with one disruption less and the pod noted.
fn take_from(budget: &Value, pod: &str, now: &str) -> Result<Value, StatusError> {
    let name = tree::text(budget, &["metadata", "name"]);
    let status = |field| tree::int(budget, &["status", field]).unwrap_or_default();
    let generation = tree::int(budget, &["metadata", "generation"]).unwrap_or_default();
    if status("observedGeneration") < generation {
        return Err(counting(name));
    }
    let forbidden = |why: &str| {
        let message = format!("poddisruptionbudgets.policy \"{name}\" is forbidden: {why}");
        StatusError::new(403, "Forbidden", message)
    };
    let allowed = status("disruptionsAllowed");
    if allowed < 0 {
        return Err(forbidden("pdb disruptions allowed is negative"));
    }
    let disrupted = tree::at(budget, &["status", "disruptedPods"]).as_object();
    if disrupted.is_some_and(|pods| pods.len() > DISRUPTED_MAX) {
        return Err(forbidden(
            "DisruptedPods map too big - too many evictions not confirmed by PDB controller",
        ));
    }
    if allowed == 0 {
        return Err(exhausted(budget));
    }
    let mut new = budget.clone();
    let meta = tree::object_mut(&mut new, "metadata");
    meta.shift_remove("resourceVersion");
    let written = tree::object_mut(&mut new, "status");
    written.insert("disruptionsAllowed".to_owned(), json!(allowed - 1));
    let pods = written
        .entry("disruptedPods".to_owned())
        .or_insert_with(|| json!({}));
    tree::as_object(pods).insert(pod.to_owned(), json!(now));
    if allowed == 1 {
        let generation = status("observedGeneration");
        set_not_allowed(&mut new, generation, now);
    }
    Ok(new)
}

fn set_not_allowed(budget: &mut Value, generation: i64, now: &str) {
    let status = tree::object_mut(budget, "status");
    for condition in tree::list_mut(status, "conditions") {
        if condition["type"] == "DisruptionAllowed" {
            if condition["status"] != "False" {
                condition["lastTransitionTime"] = json!(now);
            }
            condition["status"] = json!("False");
            condition["reason"] = json!("InsufficientPods");
            condition["observedGeneration"] = json!(generation);
        }
    }
}

fn too_many(cause: String, retry_after_seconds: u32) -> StatusError {
    let mut error = StatusError::new(429, "TooManyRequests", VIOLATES);
    error.details = Some(Box::new(Details {
        causes: vec![Cause {
            reason: "DisruptionBudget".to_owned(),
            message: cause,
            field: String::new(),
        }],
        retry_after_seconds,
        ..Details::default()
    }));
    error
}

fn counting(budget: &str) -> StatusError {
    let cause = format!("The disruption budget {budget} is still being processed by the server.");
    too_many(cause, COUNTING_SECONDS)
}

fn exhausted(budget: &Value) -> StatusError {
    let name = tree::text(budget, &["metadata", "name"]);
    let failed = tree::list(budget, &["status", "conditions"])
        .iter()
        .find(|c| c["type"] == "DisruptionAllowed" && c["reason"] == "SyncFailed");
    let status = |field| tree::int(budget, &["status", field]).unwrap_or_default();
    let cause = match failed {
        Some(condition) => format!(
            "The disruption budget {name} does not allow evicting pods currently because it failed \
             sync: {}",
            tree::text(condition, &["message"])
        ),
        None => format!(
            "The disruption budget {name} needs {} healthy pods and has {} currently",
            status("desiredHealthy"),
            status("currentHealthy")
        ),
    };
    too_many(cause, 0)
}

fn set_disruption_target(pod: &mut Value, now: &str) {
    let status = tree::object_mut(pod, "status");
    let conditions = status
        .entry("conditions".to_owned())
        .or_insert_with(|| json!([]));
    let Some(conditions) = conditions.as_array_mut() else {
        return;
    };
    let is_set = |condition: &Value| {
        condition["type"] == "DisruptionTarget" && condition["status"] == "True"
    };
    if conditions.iter().any(is_set) {
        return;
    }
    conditions.retain(|condition| condition["type"] != "DisruptionTarget");
    conditions.push(json!({
        "type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
        "message": "Eviction API: evicting", "lastProbeTime": null, "lastTransitionTime": now,
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(
        clippy::needless_pass_by_value,
        reason = "what json! makes is given away"
    )]
    fn budget(status: Value) -> Value {
        json!({"metadata": {"name": "b", "generation": 2, "resourceVersion": "9"},
            "spec": {"selector": {"matchLabels": {"app": "a"}}}, "status": status})
    }

    fn counted(allowed: i64) -> Value {
        budget(
            json!({"observedGeneration": 2, "disruptionsAllowed": allowed, "desiredHealthy": 2,
            "currentHealthy": 2, "conditions": [
                {"type": "DisruptionAllowed", "status": "True", "reason": "SufficientPods"}]}),
        )
    }

    fn cause(error: &StatusError) -> &str {
        &error.details.as_ref().unwrap().causes[0].message
    }

    #[test]
    fn a_disruption_is_taken_and_the_pod_noted() {
        let taken = take_from(&counted(2), "p", "now").unwrap();
        assert_eq!(taken["status"]["disruptionsAllowed"], 1);
        assert_eq!(taken["status"]["disruptedPods"], json!({"p": "now"}));
        assert_eq!(taken["status"]["conditions"][0]["status"], "True");
        let last = take_from(&counted(1), "p", "now").unwrap();
        let condition = &last["status"]["conditions"][0];
        assert_eq!(condition["reason"], "InsufficientPods");
        assert_eq!(condition["status"], "False");
    }

    #[test]
    fn an_exhausted_budget_says_what_it_needs() {
        let error = take_from(&counted(0), "p", "now").unwrap_err();
        assert_eq!((error.code, error.reason), (429, "TooManyRequests"));
        assert_eq!(error.message, VIOLATES);
        assert_eq!(
            cause(&error),
            "The disruption budget b needs 2 healthy pods and has 2 currently"
        );
        assert_eq!(error.details.unwrap().causes[0].reason, "DisruptionBudget");
    }

    #[test]
    fn a_budget_that_is_not_counted_yet_asks_for_patience() {
        let old = budget(json!({"observedGeneration": 1, "disruptionsAllowed": 5}));
        let error = take_from(&old, "p", "now").unwrap_err();
        let said = "The disruption budget b is still being processed by the server.";
        assert_eq!(cause(&error), said);
        assert_eq!(error.details.unwrap().retry_after_seconds, 10);
    }

    #[test]
    fn too_many_unconfirmed_evictions_are_refused() {
        let mut full = counted(5);
        let pods: serde_json::Map<String, Value> = (0..=DISRUPTED_MAX)
            .map(|number| (format!("p{number}"), json!("now")))
            .collect();
        full["status"]["disruptedPods"] = Value::Object(pods);
        assert_eq!(take_from(&full, "p", "now").unwrap_err().code, 403);
    }

    #[test]
    fn pods_are_selected_as_upstream() {
        let pod = json!({"metadata": {"labels": {"app": "a"}}});
        assert!(means(&counted(0), &pod));
        assert!(means(&json!({"spec": {"selector": {}}}), &pod));
        assert!(!means(&json!({"spec": {}}), &pod));
        let other = json!({"spec": {"selector": {"matchLabels": {"app": "b"}}}});
        assert!(!means(&other, &pod));
    }

    #[test]
    fn unhealthy_pods_go_when_the_policy_or_the_count_allows() {
        let sick = json!({"status": {"phase": "Running"}});
        let well = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        let mut few = counted(0);
        few["status"]["currentHealthy"] = json!(1);
        assert!(may_go_unhealthy(&sick, &counted(0)));
        assert!(!may_go_unhealthy(&well, &counted(0)));
        assert!(!may_go_unhealthy(&sick, &few));
        few["spec"]["unhealthyPodEvictionPolicy"] = json!("AlwaysAllow");
        assert!(may_go_unhealthy(&sick, &few));
    }
}
