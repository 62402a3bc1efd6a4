//! Admission policies: expressions that refuse, warn about or change writes.
//!
//! Owns: the set of policies with their bindings, which follows the cache: what was written is in
//! force when its write is answered. `decide.rs` is pure; here the outcome is told.

mod decide;
mod mutate;
mod params;
mod parsed;
mod scope;
mod status;
mod types;

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use parking_lot::Mutex;
use serde_json::{Value, json};

use self::decide::{Refusal, code, decide};
use self::params::params;
use self::parsed::{Binding, Failure, Policy};
use self::scope::Scope;
use super::notes::NoteLevel;
use super::request::Request;
use super::rules::World;
use crate::auth::Authorizer;
use crate::cache::{ResourceCache, WatchCache};
use crate::object::ObjKey;
use crate::registry::Registry;
use crate::status::{Cause, StatusError};

pub(super) use self::mutate::Turns;
pub(crate) use self::status::run as follow_policies;

const GROUP: &str = "admissionregistration.k8s.io";
/// Tells of a refusal that is only noted.
const FAILURE_KEY: &str = "validation.policy.admission.k8s.io/validation_failure";

/// The policies of both kinds.
#[derive(Debug)]
pub(crate) struct Policies {
    authorizer: Arc<Authorizer>,
    validating: Followed,
    mutating: Followed,
}

/// Policies and bindings of one kind, compiled as of some version of the cache.
#[derive(Debug)]
struct Followed {
    policies: Arc<ResourceCache>,
    bindings: Arc<ResourceCache>,
    set: ArcSwap<Set>,
    /// Held by who brings the set up to date.
    updating: Mutex<()>,
}

#[derive(Debug, Default)]
struct Set {
    versions: (u64, u64),
    /// With the revision they were compiled at.
    policies: BTreeMap<ObjKey, (u64, Arc<Policy>)>,
    bindings: BTreeMap<ObjKey, (u64, Arc<Binding>)>,
    /// Policies with their bindings, by name.
    bound: Vec<(Arc<Policy>, Vec<Arc<Binding>>)>,
}

impl Followed {
    fn new(cache: &WatchCache, registry: &Registry, policies: &str, bindings: &str) -> Self {
        let of = |plural: &str| {
            let kind = registry.by_plural(GROUP, "v1", plural);
            let kind = kind.expect("the kind is in the table of built-in kinds");
            cache.of(&kind)
        };
        Self {
            policies: of(policies),
            bindings: of(bindings),
            set: ArcSwap::default(),
            updating: Mutex::new(()),
        }
    }

    fn is_empty(&self) -> bool {
        self.policies.is_empty()
    }

    fn current(&self) -> Guard<Arc<Set>> {
        let versions = (self.policies.version(), self.bindings.version());
        let set = self.set.load();
        if set.versions == versions {
            return set;
        }
        drop(set);
        let _updating = self.updating.lock();
        // Read before the snapshots: what comes between is taken in next time.
        let versions = (self.policies.version(), self.bindings.version());
        let set = self.set.load();
        if set.versions == versions {
            return set;
        }
        self.set.store(Arc::new(self.updated(&set, versions)));
        self.set.load()
    }

    fn updated(&self, before: &Set, versions: (u64, u64)) -> Set {
        let policies = compiled(&self.policies, &before.policies, Policy::of);
        let bindings = compiled(&self.bindings, &before.bindings, Binding::of);
        let bound = policies.values().filter_map(|(_, policy)| {
            let own: Vec<Arc<Binding>> = bindings
                .values()
                .filter(|(_, binding)| binding.policy == policy.name)
                .map(|(_, binding)| Arc::clone(binding))
                .collect();
            (!own.is_empty()).then(|| (Arc::clone(policy), own))
        });
        Set {
            versions,
            bound: bound.collect(),
            policies,
            bindings,
        }
    }
}

/// What is stored, compiled; what has not changed since `before` is not compiled again.
fn compiled<T>(
    cache: &ResourceCache,
    before: &BTreeMap<ObjKey, (u64, Arc<T>)>,
    of: impl Fn(&Value) -> T,
) -> BTreeMap<ObjKey, (u64, Arc<T>)> {
    let objects = cache.snapshot();
    let compile = |(key, obj): (&ObjKey, &Arc<crate::object::Obj>)| {
        let made = match before.get(key) {
            Some((rv, made)) if *rv == obj.rv => Arc::clone(made),
            _ => Arc::new(of(&obj.value())),
        };
        (key.clone(), (obj.rv, made))
    };
    objects.iter().map(compile).collect()
}

impl Policies {
    pub(crate) fn new(
        cache: &WatchCache,
        registry: &Registry,
        authorizer: &Arc<Authorizer>,
    ) -> Self {
        Self {
            authorizer: Arc::clone(authorizer),
            validating: Followed::new(
                cache,
                registry,
                "validatingadmissionpolicies",
                "validatingadmissionpolicybindings",
            ),
            mutating: Followed::new(
                cache,
                registry,
                "mutatingadmissionpolicies",
                "mutatingadmissionpolicybindings",
            ),
        }
    }

    /// Whether there is no policy.
    pub(crate) fn is_empty(&self) -> bool {
        self.validating.is_empty() && self.mutating.is_empty()
    }

    /// Asks the validating policies.
    ///
    /// # Errors
    /// The first refusal that is to be obeyed.
    pub(crate) fn validate(
        &self,
        request: &Request<'_>,
        object: &Value,
        world: World<'_>,
    ) -> Result<(), StatusError> {
        if self.validating.is_empty() {
            return Ok(());
        }
        let set = self.validating.current();
        let mut scope = Scope::new(request, object, world, &self.authorizer);
        let mut outcome = Outcome::default();
        for (policy, bindings) in &set.bound {
            let Some(kind) = policy.matcher.matches(request, object, world) else {
                continue;
            };
            for binding in bindings {
                let bound = binding.matcher.as_ref();
                if bound.is_some_and(|own| own.matches(request, object, world).is_none()) {
                    continue;
                }
                let params = match params(policy, binding, request.namespace(), world) {
                    Ok(params) => params,
                    Err(fault) => {
                        outcome.misconfigured(policy, binding, &fault);
                        continue;
                    }
                };
                for param in &params {
                    let verdict = decide(policy, &scope.variables(policy, &kind, param));
                    for refusal in &verdict.refusals {
                        outcome.refuse(request, policy, binding, refusal);
                    }
                    for (key, value) in verdict.annotations {
                        outcome.annotate(format!("{}/{key}", policy.name), value);
                    }
                }
            }
        }
        outcome.tell(request)
    }
}

/// What the policies together say.
#[derive(Debug, Default)]
struct Outcome {
    /// The first refusal that counts: message, reason.
    denied: Option<(String, &'static str)>,
    annotations: BTreeMap<String, Vec<String>>,
}

impl Outcome {
    fn deny(
        &mut self,
        policy: &Policy,
        binding: Option<&Binding>,
        why: &str,
        reason: &'static str,
    ) {
        if self.denied.is_some() {
            return;
        }
        let name = &policy.name;
        let message = match binding {
            Some(binding) => format!(
                "ValidatingAdmissionPolicy '{name}' with binding '{}' denied request: {why}",
                binding.name
            ),
            None => format!("ValidatingAdmissionPolicy '{name}' denied request: {why}"),
        };
        self.denied = Some((message, reason));
    }

    fn misconfigured(&mut self, policy: &Policy, binding: &Binding, fault: &params::ParamError) {
        if policy.failure == Failure::Ignore {
            return;
        }
        let binding = match fault {
            params::ParamError::Policy(_) => None,
            params::ParamError::Binding(_) => Some(binding),
        };
        self.deny(policy, binding, &fault.to_string(), "Invalid");
    }

    fn refuse(
        &mut self,
        request: &Request<'_>,
        policy: &Policy,
        binding: &Binding,
        refusal: &Refusal,
    ) {
        for action in &binding.actions {
            match action.as_str() {
                "Deny" => self.deny(policy, Some(binding), &refusal.message, refusal.reason),
                "Warn" => request.warn(&format!(
                    "Validation failed for ValidatingAdmissionPolicy '{}' with binding '{}': {}",
                    policy.name, binding.name, refusal.message
                )),
                "Audit" => {
                    let failure = json!([{
                        "message": refusal.message, "policy": policy.name,
                        "binding": binding.name,
                        "expressionIndex": refusal.index.unwrap_or_default(),
                        "validationActions": binding.actions,
                    }]);
                    request.annotate(NoteLevel::Metadata, FAILURE_KEY, &failure.to_string());
                }
                _ => {}
            }
        }
    }

    fn annotate(&mut self, key: String, value: String) {
        let values = self.annotations.entry(key).or_default();
        if !values.contains(&value) {
            values.push(value);
        }
    }

    fn tell(self, request: &Request<'_>) -> Result<(), StatusError> {
        for (key, values) in &self.annotations {
            request.annotate(NoteLevel::Metadata, key, &values.join(", "));
        }
        match self.denied {
            None => Ok(()),
            Some((message, reason)) => Err(refused(request, message, reason)),
        }
    }
}

fn refused(request: &Request<'_>, message: String, reason: &'static str) -> StatusError {
    let resource = request.target.kind.group_resource();
    let mut error = StatusError::forbidden(resource, request.name(), &message);
    error.reason = reason;
    error.code = code(reason);
    if let Some(details) = &mut error.details {
        details.causes.push(Cause {
            reason: String::new(),
            message,
            field: String::new(),
        });
    }
    error
}
