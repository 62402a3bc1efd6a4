//! One configured webhook: whom it is asked about, and how.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::super::conditions::Conditions;
use super::super::rules::Matcher;
use crate::object::Obj;
use crate::tree;
use crate::webhooks::{ClientConfig, ConfigError};

/// When a webhook does not say; defaults of the kind fill this in, so it is for what is older.
const TIMEOUT_SECONDS: i64 = 10;

/// What webhooks of a kind do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// They change objects.
    Mutating,
    /// They refuse.
    Validating,
}

impl Step {
    /// As metrics name it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Mutating => "admit",
            Self::Validating => "validating",
        }
    }

    pub(super) const fn plural(self) -> &'static str {
        match self {
            Self::Mutating => "mutatingwebhookconfigurations",
            Self::Validating => "validatingwebhookconfigurations",
        }
    }
}

/// What happens when a webhook cannot be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FailurePolicy {
    Fail,
    Ignore,
}

/// A version of AdmissionReview.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReviewVersion {
    V1,
    V1Beta1,
}

impl ReviewVersion {
    pub(super) const fn api_version(self) -> &'static str {
        match self {
            Self::V1 => "admission.k8s.io/v1",
            Self::V1Beta1 => "admission.k8s.io/v1beta1",
        }
    }
}

/// One webhook of one configuration.
#[derive(Debug)]
pub(super) struct Hook {
    pub(super) name: String,
    pub(super) configuration: Arc<str>,
    pub(super) client: Result<ClientConfig, ConfigError>,
    pub(super) matcher: Matcher,
    pub(super) conditions: Conditions,
    pub(super) failure: FailurePolicy,
    pub(super) timeout: Duration,
    /// Whether asking about a dry run changes nothing anywhere.
    pub(super) dry_run: bool,
    /// Asked again when what it saw was changed after it.
    pub(super) again: bool,
    /// `None`: none that we know.
    pub(super) review: Option<ReviewVersion>,
}

impl Hook {
    /// The webhooks of a stored configuration.
    pub(super) fn all_of(configuration: &Obj) -> Vec<Self> {
        let value = configuration.value();
        let hooks = tree::list(&value, &["webhooks"]).iter();
        hooks
            .map(|hook| Self::of(&configuration.key.name, hook))
            .collect()
    }

    fn of(configuration: &Arc<str>, hook: &Value) -> Self {
        let seconds = tree::int(hook, &["timeoutSeconds"]).unwrap_or(TIMEOUT_SECONDS);
        let versions = tree::list(hook, &["admissionReviewVersions"]).iter();
        let failure = match tree::text(hook, &["failurePolicy"]) {
            "Ignore" => FailurePolicy::Ignore,
            _ => FailurePolicy::Fail,
        };
        Self {
            name: tree::text(hook, &["name"]).to_owned(),
            configuration: Arc::clone(configuration),
            client: ClientConfig::parse(tree::at(hook, &["clientConfig"])),
            matcher: Matcher::of_webhook(hook),
            conditions: Conditions::of(tree::at(hook, &["matchConditions"])),
            failure,
            timeout: Duration::from_secs(u64::try_from(seconds).unwrap_or(1)),
            dry_run: matches!(tree::text(hook, &["sideEffects"]), "None" | "NoneOnDryRun"),
            again: tree::text(hook, &["reinvocationPolicy"]) == "IfNeeded",
            review: versions
                .filter_map(Value::as_str)
                .find_map(|version| match version {
                    "v1" => Some(ReviewVersion::V1),
                    "v1beta1" => Some(ReviewVersion::V1Beta1),
                    _ => None,
                }),
        }
    }
}
