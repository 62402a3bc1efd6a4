//! What a job's status may say: counts, and conditions that do not contradict each other or what
//! was said before.

use std::collections::HashSet;

use jiff::Timestamp;
use serde_json::Value;

use super::policy::parse_indexes;
use crate::field::FieldError;
use crate::tree;
use crate::validation::Place;

/// Whether condition `kind` of `job` is true.
pub(super) fn is_true(job: &Value, kind: &str) -> bool {
    tree::list(job, &["status", "conditions"])
        .iter()
        .any(|condition| condition["type"] == kind && condition["status"] == "True")
}

/// Pairs of conditions that exclude each other, and what is said of both.
const EXCLUSIVE: [(&str, &str, &str); 4] = [
    (
        "Complete",
        "Failed",
        "cannot set Complete=True and Failed=true conditions",
    ),
    (
        "Complete",
        "FailureTarget",
        "cannot set Complete=True and FailureTarget=true conditions",
    ),
    (
        "SuccessCriteriaMet",
        "Failed",
        "cannot set SuccessCriteriaMet=True and Failed=true conditions",
    ),
    (
        "SuccessCriteriaMet",
        "FailureTarget",
        "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions",
    ),
];
/// Conditions that need another one, and what is said without it.
const FOLLOWING: [(&str, &str, &str); 2] = [
    (
        "Failed",
        "FailureTarget",
        "cannot set Failed=True condition without the FailureTarget=true condition",
    ),
    (
        "Complete",
        "SuccessCriteriaMet",
        "cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
    ),
];
/// Conditions that stay once they are true, with the name in the message.
const LASTING: [(&str, &str); 4] = [
    ("Failed", "terminal Failed"),
    ("Complete", "terminal Complete"),
    ("FailureTarget", "terminal FailureTarget"),
    ("SuccessCriteriaMet", "SuccessCriteriaMet"),
];

/// Checks the status of `new`, which replaces that of `old`.
pub(super) fn check(new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    let status = Place::root(new, "status");
    for count in ["active", "succeeded", "failed", "ready", "terminating"] {
        status.get(count).non_negative(errors);
    }
    check_uncounted(&status.get("uncountedTerminatedPods"), errors);
    check_conditions(new, old, &status, errors);
    check_times(new, old, &status, errors);
    check_counts(new, old, &status, errors);
    check_indexes(new, &status, errors);
}

fn check_uncounted(uncounted: &Place<'_>, errors: &mut Vec<FieldError>) {
    let mut seen = HashSet::new();
    for list in ["succeeded", "failed"] {
        for uid in uncounted.get(list).items() {
            if uid.text().is_empty() {
                uid.invalid("must not be empty", errors);
            } else if !seen.insert(uid.text()) {
                errors.push(FieldError::duplicate(&uid.path, uid.text()));
            }
        }
    }
}

fn check_conditions(new: &Value, old: &Value, status: &Place<'_>, errors: &mut Vec<FieldError>) {
    let path = status.path.child("conditions");
    let mut report = |detail: &str| errors.push(FieldError::invalid_unshown(&path, detail));
    for (one, other, detail) in EXCLUSIVE {
        if is_true(new, one) && is_true(new, other) {
            report(detail);
        }
    }
    for (one, other, detail) in FOLLOWING {
        if is_true(new, one) && !is_true(new, other) {
            report(detail);
        }
    }
    for (kind, name) in LASTING {
        if is_true(old, kind) && !is_true(new, kind) {
            report(&format!("cannot disable the {name}=True condition"));
        }
    }
}

fn check_times(new: &Value, old: &Value, status: &Place<'_>, errors: &mut Vec<FieldError>) {
    let complete = is_true(new, "Complete");
    let finished = complete || is_true(new, "Failed");
    let (start, end) = (status.get("startTime"), status.get("completionTime"));
    match (complete, end.is_present()) {
        (false, true) => end.invalid(
            "cannot set completionTime when there is no Complete=True condition",
            errors,
        ),
        (true, false) => {
            end.required("completionTime is required for Complete jobs", errors);
        }
        _ => {}
    }
    let time = |field: &Place<'_>| field.text().parse::<Timestamp>().ok();
    if let (Some(from), Some(to)) = (time(&start), time(&end))
        && to < from
    {
        end.invalid("completionTime cannot be set before startTime", errors);
    }
    if finished && !start.is_present() {
        start.required("startTime is required for finished job", errors);
    }
    let before = Place::root(old, "status");
    let ended = before.get("completionTime");
    if end.is_present() && ended.is_present() && end.value != ended.value {
        end.invalid("completionTime cannot be mutated", errors);
    }
    let started = before.get("startTime");
    if started.is_present()
        && started.value != start.value
        && !tree::flag(new, &["spec", "suspend"])
    {
        start.required("startTime cannot be removed for unsuspended job", errors);
    }
}

fn check_counts(new: &Value, old: &Value, status: &Place<'_>, errors: &mut Vec<FieldError>) {
    let finished = is_true(new, "Complete") || is_true(new, "Failed");
    let count = |name: &str| status.get(name).int().unwrap_or_default();
    if finished {
        for name in ["active", "terminating"] {
            if count(name) > 0 {
                let detail = format!("{name}>0 is invalid for finished job");
                status.get(name).invalid(detail, errors);
            }
        }
        let uncounted = status.get("uncountedTerminatedPods");
        if uncounted.get("succeeded").len() + uncounted.get("failed").len() > 0 {
            let detail = "uncountedTerminatedPods needs to be empty for finished job";
            uncounted.invalid(detail, errors);
        }
    }
    if count("ready") > count("active") {
        status
            .get("ready")
            .invalid("cannot set more ready pods than active", errors);
    }
    // An elastic indexed job may forget what succeeded beyond its present size.
    let elastic = tree::text(new, &["spec", "completionMode"]) == "Indexed";
    for name in ["failed", "succeeded"] {
        let before = tree::int(old, &["status", name]).unwrap_or_default();
        if count(name) < before && !elastic {
            let field = status.get(name);
            let detail = format!("cannot decrease the {name} counter");
            errors.push(FieldError::invalid(&field.path, count(name), detail));
        }
    }
}

fn check_indexes(new: &Value, status: &Place<'_>, errors: &mut Vec<FieldError>) {
    let spec = Place::root(new, "spec");
    let (done, failed) = (status.get("completedIndexes"), status.get("failedIndexes"));
    if !done.text().is_empty() && spec.get("completionMode").text() != "Indexed" {
        let detail = "cannot set non-empty completedIndexes when non-indexed completion mode";
        done.invalid(detail, errors);
    }
    if failed.is_present() && !spec.get("backoffLimitPerIndex").is_present() {
        let detail = "cannot set non-null failedIndexes when backoffLimitPerIndex is null";
        failed.invalid(detail, errors);
    }
    let Some(completions) = spec.get("completions").int() else {
        return;
    };
    let mut read = |field: &Place<'_>, name: &str| {
        parse_indexes(field.text(), completions).unwrap_or_else(|fault| {
            field.invalid(format!("error parsing {name}: {fault}"), errors);
            Vec::new()
        })
    };
    let (succeeded, lost) = (
        read(&done, "completedIndexes"),
        read(&failed, "failedIndexes"),
    );
    let shared = succeeded.iter().find_map(|(first, last)| {
        let meets = |other: &&(i64, i64)| *first <= other.1 && other.0 <= *last;
        lost.iter().find(meets).map(|other| (*first).max(other.0))
    });
    if let Some(index) = shared {
        let detail = format!("failedIndexes and completedIndexes overlap at index: {index}");
        failed.invalid(detail, errors);
    }
}
