//! Admission that users configure: policies and webhooks.
//!
//! Owns: the order in which they are asked, and what is told of a request. Must not know: how a
//! policy decides or how a webhook is reached. A write that nobody is asked about pays for one
//! look at the configuration's versions.

mod authorizer;
mod notes;
mod policy;
mod request;
mod rules;
mod told;

use std::sync::Arc;

use serde_json::Value;

pub use self::notes::{NoteLevel, Notes};
pub(crate) use self::policy::follow_policies;
use self::policy::{Policies, Turns};
pub(crate) use self::request::{Operation, Request};
pub(crate) use self::rules::World;
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
        Self {
            cache,
            registry,
            policies,
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
        self.policies.is_empty()
    }

    /// Lets mutating policies, then mutating webhooks, change `object` (null for a deletion).
    ///
    /// # Errors
    /// The write is refused.
    #[expect(clippy::unused_async, reason = "webhooks are waited for here")]
    pub(crate) async fn mutate(
        &self,
        request: &Request<'_>,
        object: &mut Value,
    ) -> Result<Mutated, StatusError> {
        let mut turns = Turns::default();
        let mut mutated = self
            .policies
            .mutate(request, object, self.world(), &mut turns)?;
        if turns.are_left()
            && self
                .policies
                .mutate(request, object, self.world(), &mut turns)?
                == Mutated::Yes
        {
            mutated = Mutated::Yes;
        }
        Ok(mutated)
    }

    /// Asks validating policies, then validating webhooks, about the finished `object` (null for a
    /// deletion).
    ///
    /// # Errors
    /// The write is refused.
    #[expect(clippy::unused_async, reason = "webhooks are waited for here")]
    pub(crate) async fn validate(
        &self,
        request: &Request<'_>,
        object: &Value,
    ) -> Result<(), StatusError> {
        self.policies.validate(request, object, self.world())
    }
}
