//! ValidatingWebhookConfiguration and MutatingWebhookConfiguration: who is asked about writes.

use std::collections::HashSet;

use control_plane_apiextensions::cel::Env;
use jiff::Timestamp;
use proto_api::names;
use serde_json::{Value, json};

use super::admission_rules::{
    self as rules, FAILURE_POLICIES, count_text, validate_conditions, validate_rule,
    validate_selectors,
};
use super::strategy::Strategy;
use crate::field::FieldError;
use crate::tables::{AGE, Column, NAME, Table, age, column};
use crate::tree;
use crate::validation::{Errors, Place};

/// Which of the two kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WebhookConfiguration {
    /// Webhooks that refuse.
    Validating,
    /// Webhooks that change.
    Mutating,
}

const REVIEW_VERSIONS: &[&str] = &["v1", "v1beta1"];
const SIDE_EFFECTS: &[&str] = &["None", "NoneOnDryRun"];
const TIMEOUT_SECONDS: i64 = 10;
const TIMEOUT_SECONDS_MAX: i64 = 30;
const PORT: i64 = 443;

const COLUMNS: &[Column] = &[
    NAME,
    column(
        "Webhooks",
        "integer",
        "Webhooks indicates the number of webhooks registered in this configuration",
    ),
    AGE,
];

pub(super) static TABLE: Table = Table {
    columns: COLUMNS,
    row,
};

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        json!(tree::text(object, &["metadata", "name"])),
        count_text(object, &["webhooks"]),
        age(object, now),
    ]
}

impl Strategy for WebhookConfiguration {
    fn has_generation(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        for hook in tree::list_mut(tree::as_object(object), "webhooks") {
            let hook = tree::as_object(hook);
            tree::default_text(hook, "failurePolicy", "Fail");
            rules::default(hook, &["rules"]);
            tree::default(hook, "timeoutSeconds", TIMEOUT_SECONDS);
            if *self == Self::Mutating {
                tree::default_text(hook, "reinvocationPolicy", "Never");
            }
            if let Some(Value::Object(config)) = hook.get_mut("clientConfig")
                && let Some(Value::Object(service)) = config.get_mut("service")
            {
                tree::default(service, "port", PORT);
            }
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let mut seen = HashSet::new();
        for hook in Place::root(object, "webhooks").items() {
            validate_hook(&hook, &mut errors);
            let again = hook.get("reinvocationPolicy");
            again.one_of(&["IfNeeded", "Never"], &mut errors);
            validate_versions(&hook.get("admissionReviewVersions"), &mut errors);
            let name = hook.get("name");
            if !name.text().is_empty() && !seen.insert(name.text()) {
                name.duplicate(&mut errors);
            }
        }
        errors
    }
}

fn validate_hook(hook: &Place<'_>, errors: &mut Errors) {
    let name = hook.get("name");
    if name.required_text(errors) {
        let before = errors.len();
        name.named(names::dns_subdomain, errors);
        if errors.len() == before && name.text().split('.').count() < 3 {
            let detail = "should be a domain with at least three segments separated by dots";
            name.invalid(detail, errors);
        }
    }
    for rule in hook.get("rules").items() {
        validate_rule(&rule, errors);
    }
    hook.get("failurePolicy").one_of(FAILURE_POLICIES, errors);
    let effects = hook.get("sideEffects");
    if effects.is_present() {
        effects.one_of(SIDE_EFFECTS, errors);
    } else {
        let detail = format!("must specify one of {}", SIDE_EFFECTS.join(", "));
        effects.required(detail, errors);
    }
    let timeout = hook.get("timeoutSeconds");
    if timeout
        .int()
        .is_some_and(|seconds| !(1..=TIMEOUT_SECONDS_MAX).contains(&seconds))
    {
        let detail = "the timeout value must be between 1 and 30 seconds";
        timeout.invalid(detail, errors);
    }
    validate_selectors(hook, errors);
    validate_client(&hook.get("clientConfig"), errors);
    let env = Env::dynamic(&["object", "oldObject", "request", "authorizer"]);
    validate_conditions(&hook.get("matchConditions"), &env, errors);
}

/// Checks where a webhook is: one URL or one service.
fn validate_client(client: &Place<'_>, errors: &mut Errors) {
    let (url, service) = (client.get("url"), client.get("service"));
    if url.is_present() == service.is_present() {
        return client.required("exactly one of url or service is required", errors);
    }
    if url.is_present() {
        return validate_url(&url, errors);
    }
    for field in ["name", "namespace"] {
        let place = service.get(field);
        if place.text().is_empty() {
            let detail = format!("service {field} is required");
            place.required(detail, errors);
        }
    }
    let port = service.get("port");
    if port.int().is_some_and(|port| !(1..=65_535).contains(&port)) {
        let detail = "port is not valid: must be between 1 and 65535, inclusive";
        port.invalid(detail, errors);
    }
    let path = service.get("path");
    let text = path.text();
    if text.is_empty() {
        return;
    }
    if !text.starts_with('/') {
        path.invalid("must start with a '/'", errors);
    }
    let parts: Vec<&str> = text.trim_start_matches('/').split('/').collect();
    for (i, part) in parts.iter().enumerate() {
        if part.is_empty() && (i + 1 < parts.len() || i == 0 && text != "/") {
            let detail = format!("segment[{i}] may not be empty");
            path.invalid(detail, errors);
        } else if !part.is_empty() {
            for problem in names::dns_subdomain(part) {
                path.invalid(format!("segment[{i}]: {problem}"), errors);
            }
        }
    }
}

fn validate_url(url: &Place<'_>, errors: &mut Errors) {
    const FORM: &str = "; desired format: https://host[/path]";
    let text = url.text();
    let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
    if scheme != "https" {
        let detail = format!("'https' is the only allowed URL scheme{FORM}");
        url.invalid(detail, errors);
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.is_empty() {
        url.invalid(format!("host must be specified{FORM}"), errors);
    }
    if authority.contains('@') {
        let detail = "user information is not permitted in the URL";
        url.invalid(detail, errors);
    }
    if text.contains('#') {
        url.invalid("fragments are not permitted in the URL", errors);
    }
    if text.contains('?') {
        let detail = "query parameters are not permitted in the URL";
        url.invalid(detail, errors);
    }
}

fn validate_versions(versions: &Place<'_>, errors: &mut Errors) {
    if versions.is_unset() {
        let detail = format!("must specify one of {}", REVIEW_VERSIONS.join(", "));
        return versions.required(detail, errors);
    }
    let mut seen = HashSet::new();
    for version in versions.items() {
        if seen.insert(version.text()) {
            version.named(names::dns_1035_label, errors);
        } else {
            version.invalid("duplicate version", errors);
        }
    }
    if !REVIEW_VERSIONS.iter().any(|known| seen.contains(known)) {
        let detail = format!(
            "must include at least one of {}",
            REVIEW_VERSIONS.join(", ")
        );
        versions.invalid(detail, errors);
    }
}
