//! Admission webhooks: who is asked about a write, in which order, and what is made of the answers.
//!
//! Owns: the configured webhooks as of now (compiled anew when a configuration changes), the order
//! of calls and the second round of mutation. `hook.rs` is one webhook, `review.rs` the question
//! and the answer, `call.rs` one call.

mod call;
mod hook;
mod metrics;
mod review;

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use control_plane_apiextensions::cel::{Value as CelValue, Variables};
use futures::future::join_all;
use serde_json::Value;
use tracing::warn;

use self::call::{Called, HookError};
use self::hook::{FailurePolicy, Hook, Step};
use self::metrics::{Asked, Rejection, WebhookMetrics};
use super::Mutated;
use super::authorizer::authorizer;
use super::notes::NoteLevel;
use super::request::Request;
use super::rules::World;
use super::told::told;
use crate::auth::Authorizer;
use crate::cache::{ResourceCache, WatchCache};
use crate::registry::{Kind, Registry};
use crate::status::StatusError;
use crate::webhooks::WebhookClients;

const GROUP: &str = "admissionregistration.k8s.io";

/// The webhooks of one kind of configuration, as of one version of them.
#[derive(Debug, Default)]
struct Hooks {
    version: u64,
    hooks: Vec<Hook>,
}

/// The configurations of one kind, and what they say.
#[derive(Debug)]
struct Source {
    stored: Option<Arc<ResourceCache>>,
    hooks: ArcSwap<Hooks>,
}

impl Source {
    fn new(cache: &WatchCache, registry: &Registry, step: Step) -> Self {
        let kind = registry.by_plural(GROUP, "v1", step.plural());
        Self {
            stored: kind.map(|kind| cache.of(&kind)),
            hooks: ArcSwap::default(),
        }
    }

    /// The webhooks as of now: a configuration is in force when its write is answered.
    fn current(&self) -> Arc<Hooks> {
        let Some(stored) = &self.stored else {
            return Arc::default();
        };
        let known = self.hooks.load();
        // Read before the objects: what is read may be newer, never older.
        let version = stored.version();
        if known.version == version {
            return Arc::clone(&known);
        }
        // By name, and within one in its own order.
        let hooks = stored
            .snapshot()
            .values()
            .flat_map(|obj| Hook::all_of(obj))
            .collect();
        let made = Arc::new(Hooks { version, hooks });
        self.hooks.store(Arc::clone(&made));
        made
    }

    fn is_empty(&self) -> bool {
        self.stored.as_ref().is_none_or(|stored| stored.is_empty())
    }
}

/// The admission webhooks.
#[derive(Debug)]
pub(crate) struct Webhooks {
    authorizer: Arc<Authorizer>,
    mutating: Source,
    validating: Source,
    clients: OnceLock<Arc<WebhookClients>>,
    metrics: WebhookMetrics,
}

/// What one webhook is asked about.
#[derive(Debug)]
struct Meant {
    /// In whose form.
    kind: Arc<Kind>,
    /// Null when there is none.
    object: Value,
    old: Value,
}

/// The rounds of mutation of one request: what was asked, and must be asked again.
#[derive(Debug, Default)]
pub(crate) struct Rounds {
    hooks: Option<Arc<Hooks>>,
    second: bool,
    /// Those that want to see later changes and were asked.
    invoked: BTreeSet<usize>,
    required: BTreeSet<usize>,
    /// What the last round left.
    output: Value,
}

impl Rounds {
    /// The second round begins.
    pub(crate) fn again(&mut self) {
        self.second = true;
    }

    /// Whoever saw the object before a change must see it again.
    fn changed(&mut self) {
        self.required.append(&mut self.invoked);
    }

    fn number(&self) -> u8 {
        u8::from(self.second)
    }
}

impl Webhooks {
    pub(crate) fn new(
        cache: &WatchCache,
        registry: &Registry,
        authorizer: &Arc<Authorizer>,
    ) -> Self {
        Self {
            authorizer: Arc::clone(authorizer),
            mutating: Source::new(cache, registry, Step::Mutating),
            validating: Source::new(cache, registry, Step::Validating),
            clients: OnceLock::new(),
            metrics: WebhookMetrics::default(),
        }
    }

    /// Gives the clients by which webhooks are reached; until then none is.
    pub(crate) fn connect(&self, clients: Arc<WebhookClients>) {
        // The first stay: they hold the connections.
        self.clients.get_or_init(|| clients);
    }

    pub(crate) const fn metrics(&self) -> &WebhookMetrics {
        &self.metrics
    }

    /// Whether there is no webhook at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.mutating.is_empty() && self.validating.is_empty()
    }

    /// Lets the webhooks change `object` (null for a deletion), one after the other.
    ///
    /// # Errors
    /// A webhook refuses, or cannot be asked and must be.
    pub(crate) async fn mutate(
        &self,
        request: &Request<'_>,
        object: &mut Value,
        world: World<'_>,
        rounds: &mut Rounds,
    ) -> Result<Mutated, StatusError> {
        let current = || self.mutating.current();
        let hooks = Arc::clone(rounds.hooks.get_or_insert_with(current));
        if hooks.hooks.is_empty() {
            return Ok(Mutated::No);
        }
        if rounds.second && rounds.output != *object {
            rounds.changed();
        }
        let mut mutated = Mutated::No;
        for (index, hook) in hooks.hooks.iter().enumerate() {
            // Who was not asked before is not asked in the second round either.
            if rounds.second && !rounds.required.contains(&index) {
                continue;
            }
            let meant = self.meant(hook, Step::Mutating, request, object, world);
            let Some(meant) = meant.await? else {
                continue;
            };
            let place = format!("round_{}_index_{index}", rounds.number());
            let called = self.call(hook, Step::Mutating, request, &meant).await;
            let changed = matches!(
                &called,
                Ok(Called {
                    object: Some(_),
                    ..
                })
            );
            note_mutation(request, hook, &place, changed);
            if changed {
                rounds.changed();
            }
            if hook.again {
                rounds.invoked.insert(index);
            }
            if let Some(Called {
                object: Some(made),
                patch,
            }) = self.settle(hook, Step::Mutating, request, &place, called)?
            {
                note_patch(request, hook, &place, &patch);
                *object = made;
                mutated = Mutated::Yes;
            }
        }
        rounds.output.clone_from(object);
        Ok(mutated)
    }

    /// Asks the webhooks about the finished `object` (null for a deletion), all at once.
    ///
    /// # Errors
    /// Of those that refuse, or cannot be asked and must be, the first.
    pub(crate) async fn validate(
        &self,
        request: &Request<'_>,
        object: &Value,
        world: World<'_>,
    ) -> Result<(), StatusError> {
        let hooks = self.validating.current();
        let mut meant = Vec::new();
        for (index, hook) in hooks.hooks.iter().enumerate() {
            let step = Step::Validating;
            if let Some(found) = self.meant(hook, step, request, object, world).await? {
                meant.push((index, hook, found));
            }
        }
        let calls = meant
            .iter()
            .map(|(_, hook, meant)| self.call(hook, Step::Validating, request, meant));
        let answers = join_all(calls).await;
        let mut first = Ok(());
        for ((index, hook, _), called) in meant.iter().zip(answers) {
            let place = format!("round_0_index_{index}");
            let settled = self.settle(hook, Step::Validating, request, &place, called);
            first = first.and(settled.map(|_| ()));
        }
        first
    }

    /// What the webhook is asked about, if it is.
    async fn meant(
        &self,
        hook: &Hook,
        step: Step,
        request: &Request<'_>,
        object: &Value,
        world: World<'_>,
    ) -> Result<Option<Meant>, StatusError> {
        let Some(kind) = hook.matcher.matches(request, object, world) else {
            return Ok(None);
        };
        let clients = self.clients.get();
        let meant = Meant {
            object: call::shown(clients, request, &kind, object).await?,
            old: call::shown(clients, request, &kind, request.old).await?,
            kind,
        };
        if hook.conditions.is_empty() {
            return Ok(Some(meant));
        }
        let asked = asked(hook, step, request);
        let variables = Variables::from([
            ("object".to_owned(), CelValue::of(&meant.object)),
            ("oldObject".to_owned(), CelValue::of(&meant.old)),
            (
                "request".to_owned(),
                CelValue::of(&told(request, &meant.kind)),
            ),
            (
                "authorizer".to_owned(),
                authorizer(&self.authorizer, request),
            ),
        ]);
        match hook.conditions.hold(&variables) {
            Ok(true) => Ok(Some(meant)),
            Ok(false) => {
                self.metrics.condition(asked, false);
                Ok(None)
            }
            Err(why) => {
                self.metrics.condition(asked, true);
                if hook.failure == FailurePolicy::Ignore {
                    return Ok(None);
                }
                let resource = request.target.kind.group_resource();
                Err(StatusError::forbidden(resource, request.name(), &why))
            }
        }
    }

    /// Asks one webhook, and measures.
    async fn call(
        &self,
        hook: &Hook,
        step: Step,
        request: &Request<'_>,
        meant: &Meant,
    ) -> Result<Called, HookError> {
        let started = tokio::time::Instant::now();
        let called = call::call(self.clients.get(), hook, step, request, meant).await;
        let (code, rejected) = match &called {
            Ok(_) => (200, None),
            Err(HookError::Calling { code, .. }) => {
                let rejected = hook.failure == FailurePolicy::Fail;
                (*code, rejected.then_some(Rejection::Calling))
            }
            Err(HookError::Rejected(status)) => (status.code, Some(Rejection::Answer)),
            Err(HookError::Internal(_)) => (0, Some(Rejection::Internal)),
        };
        let asked = asked(hook, step, request);
        self.metrics
            .asked(asked, started.elapsed(), code, rejected.is_some());
        if let Some(why) = rejected {
            self.metrics.rejected(asked, why, code);
        }
        called
    }

    /// What a call means for the request.
    fn settle(
        &self,
        hook: &Hook,
        step: Step,
        request: &Request<'_>,
        place: &str,
        called: Result<Called, HookError>,
    ) -> Result<Option<Called>, StatusError> {
        match called {
            Ok(called) => Ok(Some(called)),
            Err(HookError::Rejected(status) | HookError::Internal(status)) => Err(status),
            Err(HookError::Calling { why, .. }) => {
                let fault = format!("failed calling webhook \"{}\": {why}", hook.name);
                if hook.failure == FailurePolicy::Fail {
                    return Err(StatusError::internal(fault));
                }
                warn!(configuration = %hook.configuration, webhook = hook.name, fault,
                    "a webhook cannot be asked; the request goes on");
                self.metrics.failed_open(asked(hook, step, request));
                let prefix = match step {
                    Step::Mutating => "failed-open.mutation",
                    Step::Validating => "failed-open.validating",
                };
                let key = format!("{prefix}.webhook.admission.k8s.io/{place}");
                request.annotate(NoteLevel::Metadata, &key, &hook.name);
                Ok(None)
            }
        }
    }
}

fn asked<'a>(hook: &'a Hook, step: Step, request: &Request<'_>) -> Asked<'a> {
    Asked {
        name: &hook.name,
        step,
        operation: request.operation.name(),
    }
}

fn note_mutation(request: &Request<'_>, hook: &Hook, place: &str, mutated: bool) {
    let key = format!("mutation.webhook.admission.k8s.io/{place}");
    let value = serde_json::json!({
        "configuration": &*hook.configuration, "webhook": hook.name, "mutated": mutated,
    });
    request.annotate(NoteLevel::Metadata, &key, &value.to_string());
}

fn note_patch(request: &Request<'_>, hook: &Hook, place: &str, patch: &[Value]) {
    let key = format!("patch.webhook.admission.k8s.io/{place}");
    let value = serde_json::json!({
        "configuration": &*hook.configuration, "webhook": hook.name, "patch": patch,
        "patchType": "JSONPatch",
    });
    request.annotate(NoteLevel::Request, &key, &value.to_string());
}
