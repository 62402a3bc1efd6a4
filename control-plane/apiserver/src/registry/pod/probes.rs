//! Probes and lifecycle hooks of a container: defaults, and one handler each.

use serde_json::{Value, json};

use crate::field::FieldError;
use crate::tree::{self, Object};
use crate::validation::{Errors, Place};

const PROBES: [&str; 3] = ["livenessProbe", "readinessProbe", "startupProbe"];
const HOOKS: [&str; 2] = ["postStart", "preStop"];
const PROBE_HANDLERS: &[&str] = &["exec", "httpGet", "tcpSocket", "grpc"];
const HOOK_HANDLERS: &[&str] = &["exec", "httpGet", "tcpSocket", "sleep"];
const INIT_DETAIL: &str = "may not be set for init containers without restartPolicy=Always";

/// Fills what the client left out of the probes and hooks of a container.
pub(super) fn default(container: &mut Object) {
    for name in PROBES {
        if let Some(probe) = container.get_mut(name).filter(|probe| !probe.is_null()) {
            default_probe(tree::as_object(probe));
        }
    }
    if let Some(Value::Object(hooks)) = container.get_mut("lifecycle") {
        for hook in hooks.values_mut() {
            if let Some(http) = hook.get_mut("httpGet").filter(|http| !http.is_null()) {
                default_http_get(tree::as_object(http));
            }
        }
    }
}

fn default_probe(probe: &mut Object) {
    let numbers = [
        ("timeoutSeconds", 1),
        ("periodSeconds", 10),
        ("successThreshold", 1),
        ("failureThreshold", 3),
    ];
    for (name, value) in numbers {
        if probe.get(name).and_then(Value::as_i64).unwrap_or_default() == 0 {
            probe.insert(name.to_owned(), json!(value));
        }
    }
    if let Some(http) = probe.get_mut("httpGet").filter(|http| !http.is_null()) {
        default_http_get(tree::as_object(http));
    }
    if let Some(grpc) = probe.get_mut("grpc").filter(|grpc| !grpc.is_null()) {
        tree::default(tree::as_object(grpc), "service", "");
    }
}

fn default_http_get(http: &mut Object) {
    tree::default_text(http, "path", "/");
    tree::default_text(http, "scheme", "HTTP");
}

/// Checks the probes and hooks of a container that keeps running.
pub(super) fn validate(container: &Place<'_>, grace: Option<i64>, errors: &mut Errors) {
    for name in HOOKS {
        let hook = container.get("lifecycle").get(name);
        if hook.is_present() {
            handler(&hook, HOOK_HANDLERS, grace, errors);
        }
    }
    for name in PROBES {
        let probe = container.get(name);
        if probe.is_present() {
            validate_probe(&probe, name, grace, errors);
        }
    }
}

/// A container that runs to its end has neither probes nor hooks.
pub(super) fn forbid(container: &Place<'_>, errors: &mut Errors) {
    for name in ["lifecycle"].into_iter().chain(PROBES) {
        container.get(name).forbid(INIT_DETAIL, errors);
    }
}

fn validate_probe(probe: &Place<'_>, name: &str, grace: Option<i64>, errors: &mut Errors) {
    handler(probe, PROBE_HANDLERS, grace, errors);
    for field in [
        "initialDelaySeconds",
        "timeoutSeconds",
        "periodSeconds",
        "successThreshold",
        "failureThreshold",
    ] {
        probe.get(field).non_negative(errors);
    }
    let own_grace = probe.get("terminationGracePeriodSeconds");
    if own_grace.int().is_some_and(|seconds| seconds <= 0) {
        own_grace.invalid("must be greater than 0", errors);
    }
    if name == "readinessProbe" {
        if own_grace.is_present() {
            own_grace.invalid("must not be set for readinessProbes", errors);
        }
    } else {
        let successes = probe.get("successThreshold");
        if successes.int().unwrap_or(1) != 1 {
            successes.invalid("must be 1", errors);
        }
    }
}

fn handler(place: &Place<'_>, kinds: &[&str], grace: Option<i64>, errors: &mut Errors) {
    let mut found = false;
    for kind in kinds {
        let action = place.get(kind);
        if !action.is_present() {
            continue;
        }
        if found {
            action.forbidden("may not specify more than 1 handler type", errors);
            continue;
        }
        found = true;
        match *kind {
            "exec" if action.get("command").is_unset() => {
                action.get("command").required("", errors);
            }
            "httpGet" => http_get(&action, errors),
            "tcpSocket" | "grpc" => action.get("port").port_number_or_name(errors),
            "sleep" => sleep(&action, grace, errors),
            _ => {}
        }
    }
    if !found {
        place.required("must specify a handler type", errors);
    }
}

fn http_get(action: &Place<'_>, errors: &mut Errors) {
    action.get("path").required_text(errors);
    action.get("port").port_number_or_name(errors);
    let scheme = action.get("scheme");
    let known = &["HTTP", "HTTPS"];
    if !known.contains(&scheme.text()) {
        let error = FieldError::not_supported(&scheme.path, scheme.text(), known);
        errors.push(error);
    }
    for header in action.get("httpHeaders").items() {
        let name = header.get("name").text();
        let valid = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if name.is_empty() || !name.chars().all(valid) {
            let path = action.path.child("httpHeaders");
            let detail = "a valid HTTP header must consist of alphanumeric characters or '-' \
                (e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')";
            errors.push(FieldError::invalid(&path, name, detail));
        }
    }
}

fn sleep(action: &Place<'_>, grace: Option<i64>, errors: &mut Errors) {
    let seconds = action.get("seconds").int().unwrap_or_default();
    let Some(grace) = grace else { return };
    if !(0..=grace).contains(&seconds) {
        let detail =
            format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
        errors.push(FieldError::invalid(&action.path, seconds, detail));
    }
}
