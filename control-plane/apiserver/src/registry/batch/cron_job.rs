//! CronJob: defaults and validation.

use jiff::tz::TimeZone;
use serde_json::Value;

use super::job::{check_spec, default_failure_policy};
use super::schedule;
use crate::field::{FieldError, Path};
use crate::registry::strategy::{Prepare, Strategy};
use crate::registry::workload::default_pod_template;
use crate::tree;
use crate::validation::Place;

/// A job's name is its cron job's and eleven more characters.
const NAME_BYTES_MAX: usize = 52;
const ZONE_PART_BYTES_MAX: usize = 14;
const CONCURRENCY: &[&str] = &["Allow", "Forbid", "Replace"];

#[derive(Debug)]
pub(in crate::registry) struct CronJob;

fn check_zone(zone: &Place<'_>, errors: &mut Vec<FieldError>) {
    let text = zone.text();
    if !zone.is_present() {
        return;
    }
    if text.is_empty() {
        zone.invalid("timeZone must be nil or non-empty string", errors);
        return;
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_+".contains(&byte);
    let valid = |part: &str| {
        (1..=ZONE_PART_BYTES_MAX).contains(&part.len())
            && !matches!(part, "." | "..")
            && !part.starts_with('-')
            && part.bytes().all(allowed)
    };
    let known = text.split('/').all(valid);
    if text.eq_ignore_ascii_case("local") {
        zone.invalid(
            "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones",
            errors,
        );
    } else if !known || TimeZone::get(text).is_err() {
        zone.invalid(format!("unknown time zone {text}"), errors);
    }
}

/// `old`: the stored schedule, whose own way to name a time zone stays allowed.
fn check_schedule(spec: &Place<'_>, old: &str, errors: &mut Vec<FieldError>) {
    let field = spec.get("schedule");
    if !field.required_text(errors) {
        return;
    }
    if let Err(fault) = schedule::check(field.text()) {
        field.invalid(fault, errors);
    }
    let (names_zone, allowed) = (field.text().contains("TZ"), old.contains("TZ"));
    if names_zone && !allowed {
        let detail = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
        field.invalid(detail, errors);
    } else if names_zone && spec.get("timeZone").is_present() {
        let detail = "cannot use both timeZone field and TZ or CRON_TZ in schedule";
        field.invalid(detail, errors);
    }
}

impl Strategy for CronJob {
    fn has_generation(&self) -> bool {
        true
    }

    fn has_status(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        let spec = tree::object_mut(object, "spec");
        tree::default_text(spec, "concurrencyPolicy", CONCURRENCY[0]);
        tree::default(spec, "suspend", false);
        tree::default(spec, "successfulJobsHistoryLimit", 3);
        tree::default(spec, "failedJobsHistoryLimit", 1);
        let template = spec.entry("jobTemplate".to_owned()).or_insert(Value::Null);
        let job = tree::object_mut(template, "spec");
        default_failure_policy(job);
        default_pod_template(job);
    }

    fn prepare_create(&self, object: &mut Value) {
        tree::as_object(object).insert("status".to_owned(), serde_json::json!({}));
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let spec = Place::root(object, "spec");
        spec.get("startingDeadlineSeconds")
            .non_negative(&mut errors);
        spec.get("concurrencyPolicy")
            .required_one_of(CONCURRENCY, &mut errors);
        let job = spec.get("jobTemplate").get("spec");
        check_spec(&job, &mut errors);
        let selector = job.get("selector");
        if selector.is_present() {
            selector.invalid("`selector` will be auto-generated", &mut errors);
        }
        let manual = job.get("manualSelector");
        if manual.value == true {
            let known = &["nil", "false"];
            errors.push(FieldError::not_supported(&manual.path, "true", known));
        }
        for limit in ["successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
            spec.get(limit).non_negative(&mut errors);
        }
        errors
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let spec = Place::root(object, "spec");
        check_schedule(&spec, "", &mut errors);
        check_zone(&spec.get("timeZone"), &mut errors);
        let name = tree::text(object, &["metadata", "name"]);
        if name.len() > NAME_BYTES_MAX {
            let path = Path::root("metadata").child("name");
            let detail = format!("must be no more than {NAME_BYTES_MAX} characters");
            errors.push(FieldError::invalid(&path, name, detail));
        }
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value, write: Prepare) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if write == Prepare::Status {
            return errors;
        }
        let spec = Place::root(new, "spec");
        check_schedule(&spec, tree::text(old, &["spec", "schedule"]), &mut errors);
        let zone = spec.get("timeZone");
        if zone.value != tree::at(old, &["spec", "timeZone"]) {
            check_zone(&zone, &mut errors);
        }
        errors
    }
}
