//! Priority: the number behind a pod's priority class, and which classes may be there.

use serde_json::{Value, json};

use super::Admission;
use crate::object::{Obj, ObjKey};
use crate::registry::priority_class::is_system;
use crate::server::Target;
use crate::status::StatusError;
use crate::tree;

/// How an object is encoded that is the class of pods without one; saves parsing the others.
const DEFAULT_MARK: &str = "\"globalDefault\":true";

impl Admission {
    /// Sets a new pod's priority and preemption policy from its class.
    pub(super) fn complete_priority(
        &self,
        target: &Target,
        pod: &mut Value,
    ) -> Result<(), StatusError> {
        let asked = tree::text(pod, &["spec", "priorityClassName"]).to_owned();
        let class = if asked.is_empty() {
            self.default_class()
        } else {
            let why = format!("no PriorityClass with name {asked} was found");
            let class = self.class(&asked);
            Some(class.ok_or_else(|| refusal(target, &why))?)
        };
        let class = class.unwrap_or(Value::Null);
        let priority = tree::int(&class, &["value"]).unwrap_or_default();
        if let Some(asked) = tree::int(pod, &["spec", "priority"])
            && asked != priority
        {
            let why = format!(
                "the integer value of priority ({asked}) must not be provided in pod spec; \
                 priority admission controller computed {priority} from the given PriorityClass \
                 name"
            );
            return Err(refusal(target, &why));
        }
        let spec = tree::object_mut(pod, "spec");
        let name = tree::text(&class, &["metadata", "name"]);
        if !name.is_empty() {
            spec.insert("priorityClassName".to_owned(), json!(name));
        }
        spec.insert("priority".to_owned(), json!(priority));
        let policy = match tree::text(&class, &["preemptionPolicy"]) {
            "" => "PreemptLowerPriority",
            policy => policy,
        };
        tree::default_text(spec, "preemptionPolicy", policy);
        Ok(())
    }

    /// Refuses a second class for pods that name none.
    pub(super) fn check_default_class(
        &self,
        target: &Target,
        class: &Value,
    ) -> Result<(), StatusError> {
        if target.kind.kind != "PriorityClass" || !tree::flag(class, &["globalDefault"]) {
            return Ok(());
        }
        let other = self
            .classes()
            .into_iter()
            .find(|obj| obj.key.name != target.key.name && is_marked(obj));
        match other {
            None => Ok(()),
            Some(other) => {
                let name = &other.key.name;
                let why = format!(
                    "PriorityClass {name} is already marked as default. Only one default can exist"
                );
                Err(refusal(target, &why))
            }
        }
    }

    fn classes(&self) -> Vec<std::sync::Arc<Obj>> {
        let kind = self
            .registry
            .by_plural("scheduling.k8s.io", "v1", "priorityclasses");
        kind.map_or_else(Vec::new, |kind| {
            self.cache.of(&kind).snapshot().values().cloned().collect()
        })
    }

    fn class(&self, name: &str) -> Option<Value> {
        let kind = self
            .registry
            .by_plural("scheduling.k8s.io", "v1", "priorityclasses")?;
        let found = self.cache.of(&kind).get(&ObjKey::new("", name))?;
        Some(found.value())
    }

    /// The class of pods that name none: of several, which a race can make, the lowest.
    fn default_class(&self) -> Option<Value> {
        self.classes()
            .iter()
            .filter(|obj| is_marked(obj))
            .map(|obj| obj.value())
            .min_by_key(|class| tree::int(class, &["value"]))
    }
}

fn is_marked(class: &Obj) -> bool {
    std::str::from_utf8(&class.json).is_ok_and(|text| text.contains(DEFAULT_MARK))
}

fn refusal(target: &Target, why: &str) -> StatusError {
    let resource = target.kind.group_resource();
    StatusError::forbidden(resource, &target.key.name, why)
}

/// The system's classes stay.
pub(super) fn check_delete(target: &Target) -> Result<(), StatusError> {
    if target.kind.kind == "PriorityClass" && is_system(&target.key.name) {
        let why = "this is a system priority class and cannot be deleted";
        return Err(refusal(target, why));
    }
    Ok(())
}
