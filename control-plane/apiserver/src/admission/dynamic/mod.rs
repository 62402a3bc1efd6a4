//! Admission that users configure: policies and webhooks.
//!
//! Owns: the order in which they are asked, and what is told of a request. Must not know: how a
//! policy decides or how a webhook is reached. A write that nobody is asked about pays for one
//! look at the configuration's versions.

mod authorizer;
mod conditions;
mod notes;
mod policy;
mod request;
mod rules;
mod told;
mod webhooks;

use std::sync::Arc;

use serde_json::Value;

pub use self::notes::{NoteLevel, Notes};
pub(crate) use self::policy::follow_policies;
use self::policy::{Policies, Turns};
pub(crate) use self::request::{Operation, Request};
pub(crate) use self::rules::World;
use self::webhooks::{Rounds, Webhooks};
use crate::auth::Authorizer;
use crate::cache::WatchCache;
use crate::registry::Registry;
use crate::server::{Reviews, WriteContext};
use crate::status::StatusError;

/// Policies and webhooks.
#[derive(Debug)]
pub(crate) struct Dynamic {
    cache: Arc<WatchCache>,
    registry: Registry,
    policies: Policies,
    webhooks: Webhooks,
}

/// Whether an object was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mutated {
    Yes,
    No,
}

impl Dynamic {
    pub(crate) fn new(
        cache: Arc<WatchCache>,
        registry: Registry,
        authorizer: &Arc<Authorizer>,
    ) -> Self {
        let policies = Policies::new(&cache, &registry, authorizer);
        let webhooks = Webhooks::new(&cache, &registry, authorizer);
        Self {
            cache,
            registry,
            policies,
            webhooks,
        }
    }

    /// What rules are matched against.
    pub(crate) fn world(&self) -> World<'_> {
        World {
            cache: &self.cache,
            registry: &self.registry,
        }
    }

    /// Whether anybody is asked about writes of `context` at all.
    pub(crate) fn asks(&self, context: &WriteContext) -> bool {
        context.asked.reviews == Reviews::All && !self.is_empty()
    }

    fn is_empty(&self) -> bool {
        self.policies.is_empty() && self.webhooks.is_empty()
    }

    /// The admission webhooks.
    pub(crate) const fn webhooks(&self) -> &Webhooks {
        &self.webhooks
    }

    /// Lets mutating policies, then mutating webhooks, change `object` (null for a deletion).
    ///
    /// # Errors
    /// The write is refused.
    pub(crate) async fn mutate(
        &self,
        request: &Request<'_>,
        object: &mut Value,
    ) -> Result<Mutated, StatusError> {
        let (mut turns, mut rounds) = (Turns::default(), Rounds::default());
        let (policies, webhooks, world) = (&self.policies, &self.webhooks, self.world());
        let by_policies = policies.mutate(request, object, world, &mut turns)?;
        let by_webhooks = webhooks.mutate(request, object, world, &mut rounds).await?;
        if (by_policies, by_webhooks) == (Mutated::No, Mutated::No) {
            return Ok(Mutated::No);
        }
        if by_webhooks == Mutated::Yes {
            turns.changed_by("");
        }
        if turns.are_left() {
            policies.mutate(request, object, world, &mut turns)?;
        }
        rounds.again();
        webhooks.mutate(request, object, world, &mut rounds).await?;
        Ok(Mutated::Yes)
    }

    /// Asks validating policies, then validating webhooks, about the finished `object` (null for a
    /// deletion).
    ///
    /// # Errors
    /// The write is refused.
    pub(crate) async fn validate(
        &self,
        request: &Request<'_>,
        object: &Value,
    ) -> Result<(), StatusError> {
        self.policies.validate(request, object, self.world())?;
        self.webhooks.validate(request, object, self.world()).await
    }
}
