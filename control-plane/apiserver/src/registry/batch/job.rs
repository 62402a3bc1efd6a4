//! Job: defaults, the selector and labels that the server makes, validation, what may change.

use proto_api::names;
use serde_json::{Value, json};

use super::{policy, status};
use crate::field::{FieldError, Path};
use crate::registry::strategy::{Prepare, Strategy};
use crate::registry::workload::{default_pod_template, validate_pod_template};
use crate::tree;
use crate::validation::{self, Place};

const BACKOFF_LIMIT: i64 = 6;
const PARALLELISM_MAX: i64 = 100_000;
const FAILED_INDEXES_MAX: i64 = 100_000;
/// From here on an indexed job with limits per index must be more modest.
const COMPLETIONS_MANY: i64 = 100_000;
const MANY_PARALLELISM_MAX: i64 = 10_000;
const MANY_FAILED_INDEXES_MAX: i64 = 10_000;
const MANAGED_BY_BYTES_MAX: usize = 63;
const MODES: &[&str] = &["NonIndexed", "Indexed"];
const REPLACEMENT_POLICIES: &[&str] = &["Failed", "TerminatingOrFailed"];
const RESTART_POLICIES: &[&str] = &["OnFailure", "Never"];
/// Labels of a job's pods: name and the field of the job's metadata whose value they have.
const LABELS: [(&str, &str); 4] = [
    ("controller-uid", "uid"),
    ("job-name", "name"),
    ("batch.kubernetes.io/controller-uid", "uid"),
    ("batch.kubernetes.io/job-name", "name"),
];
/// The one that the selector names.
const SELECTED: &str = LABELS[2].0;

#[derive(Debug)]
pub(in crate::registry) struct Job;

/// Conditions of a failure policy are about `True` unless they say otherwise.
pub(super) fn default_failure_policy(spec: &mut tree::Object) {
    let Some(Value::Object(policy)) = spec.get_mut("podFailurePolicy") else {
        return;
    };
    for rule in tree::list_mut(policy, "rules") {
        for pattern in tree::list_mut(tree::as_object(rule), "onPodConditions") {
            tree::default_text(tree::as_object(pattern), "status", "True");
        }
    }
}

fn default_spec_fields(spec: &mut tree::Object) {
    let absent = |spec: &tree::Object, name: &str| spec.get(name).is_none_or(Value::is_null);
    if absent(spec, "completions") && absent(spec, "parallelism") {
        tree::default(spec, "completions", 1);
    }
    tree::default(spec, "parallelism", 1);
    let per_index = !absent(spec, "backoffLimitPerIndex");
    let limit = if per_index {
        i64::from(i32::MAX)
    } else {
        BACKOFF_LIMIT
    };
    tree::default(spec, "backoffLimit", limit);
    tree::default(spec, "completionMode", MODES[0]);
    tree::default(spec, "suspend", false);
    tree::default(spec, "manualSelector", false);
    let replaced = if absent(spec, "podFailurePolicy") {
        "TerminatingOrFailed"
    } else {
        "Failed"
    };
    tree::default(spec, "podReplacementPolicy", replaced);
}

/// A job without labels has its template's.
fn default_labels(job: &mut Value) {
    let labels = tree::at(job, &["spec", "template", "metadata", "labels"]).clone();
    if tree::is_unset(&labels) {
        return;
    }
    let meta = tree::object_mut(job, "metadata");
    if meta.get("labels").is_none_or(tree::is_unset) {
        meta.insert("labels".to_owned(), labels);
    }
}

/// Gives the template the labels that no other job's pods have, and selects by one of them. What
/// the client set stays; validation refuses it if it is wrong.
fn generate_selector(job: &mut Value) {
    if tree::flag(job, &["spec", "manualSelector"]) {
        return;
    }
    let meta = tree::at(job, &["metadata"]).clone();
    let uid = tree::text(&meta, &["uid"]).to_owned();
    let spec = tree::object_mut(job, "spec");
    let template = spec.entry("template".to_owned()).or_insert(Value::Null);
    let metadata = tree::object_mut(template, "metadata");
    let labels = metadata.entry("labels".to_owned()).or_insert(Value::Null);
    let labels = tree::as_object(labels);
    for (label, field) in LABELS {
        tree::default(labels, label, tree::text(&meta, &[field]));
    }
    let selector = spec.entry("selector".to_owned()).or_insert(Value::Null);
    tree::default(tree::object_mut(selector, "matchLabels"), SELECTED, uid);
}

/// Checks that the labels and the selector are those that [`generate_selector`] makes.
fn check_generated(job: &Value, errors: &mut Vec<FieldError>) {
    let selector = Place::root(job, "spec").get("selector");
    if tree::flag(job, &["spec", "manualSelector"]) || !selector.is_present() {
        return;
    }
    let labels = Place::root(job, "spec")
        .get("template")
        .get("metadata")
        .get("labels");
    let mut expected = serde_json::Map::new();
    for (label, field) in LABELS {
        let wanted = tree::text(job, &["metadata", field]);
        let (place, detail) = (labels.path.key(label), format!("must be '{wanted}'"));
        match tree::at(labels.value, &[label]) {
            Value::Null => errors.push(FieldError::required(&place, detail)),
            value if value == wanted => {}
            _ => errors.push(FieldError::invalid(&place, labels.value.clone(), detail)),
        }
        expected.insert(label.to_owned(), json!(wanted));
    }
    if !validation::selects(selector.value, &Value::Object(expected)) {
        selector.invalid("`selector` not auto-generated", errors);
    }
}

/// Checks a job's spec but its selector, as a job or inside a cron job.
pub(super) fn check_spec(spec: &Place<'_>, errors: &mut Vec<FieldError>) {
    let counts = [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
    ];
    let more = [
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ];
    for count in counts.into_iter().chain(more) {
        spec.get(count).non_negative(errors);
    }
    let per_index = spec.get("backoffLimitPerIndex");
    let failed = spec.get("maxFailedIndexes");
    if failed.is_present() && !per_index.is_present() {
        per_index.required("when maxFailedIndexes is specified", errors);
    }
    let manager = spec.get("managedBy");
    if manager.is_present() {
        manager.domain_prefixed(errors);
        if manager.text().len() > MANAGED_BY_BYTES_MAX {
            errors.push(FieldError::too_long(&manager.path, MANAGED_BY_BYTES_MAX));
        }
    }
    let mode = spec.get("completionMode");
    mode.one_of(MODES, errors);
    let indexed = mode.text() == "Indexed";
    if indexed {
        check_indexed(spec, errors);
    } else {
        for field in [&per_index, &failed]
            .into_iter()
            .filter(|field| field.is_present())
        {
            field.invalid("requires indexed completion mode", errors);
        }
    }
    policy::check_failure(spec, errors);
    policy::check_success(spec, indexed, errors);
    check_replacement(spec, errors);
    let template = spec.get("template");
    validate_pod_template(&template, errors);
    check_restart(spec, errors);
}

fn check_indexed(spec: &Place<'_>, errors: &mut Vec<FieldError>) {
    let completions = spec.get("completions");
    let parallelism = spec.get("parallelism");
    let failed = spec.get("maxFailedIndexes");
    let above = |field: &Place<'_>, most: i64| field.int().is_some_and(|number| number > most);
    if !completions.is_present() {
        completions.required("when completion mode is Indexed", errors);
    }
    if above(&parallelism, PARALLELISM_MAX) {
        parallelism.invalid(
            format!(
                "must be less than or equal to {PARALLELISM_MAX} when completion mode is Indexed"
            ),
            errors,
        );
    }
    if completions
        .int()
        .is_some_and(|wanted| above(&failed, wanted))
    {
        failed.invalid("must be less than or equal to completions", errors);
    }
    if above(&failed, FAILED_INDEXES_MAX) {
        let detail = format!("must be less than or equal to {FAILED_INDEXES_MAX}");
        failed.invalid(detail, errors);
    }
    if !above(&completions, COMPLETIONS_MANY) || !spec.get("backoffLimitPerIndex").is_present() {
        return;
    }
    if !failed.is_present() {
        let detail = format!("must be specified when completions is above {COMPLETIONS_MANY}");
        failed.required(detail, errors);
    }
    let bounds = [
        (&parallelism, MANY_PARALLELISM_MAX),
        (&failed, MANY_FAILED_INDEXES_MAX),
    ];
    for (field, most) in bounds
        .into_iter()
        .filter(|(field, most)| above(field, *most))
    {
        let detail = format!(
            "must be less than or equal to {most} when completions are above {COMPLETIONS_MANY} \
             and used with backoff limit per index"
        );
        field.invalid(detail, errors);
    }
}

fn check_replacement(spec: &Place<'_>, errors: &mut Vec<FieldError>) {
    let known = if spec.get("podFailurePolicy").is_present() {
        &REPLACEMENT_POLICIES[..1]
    } else {
        REPLACEMENT_POLICIES
    };
    spec.get("podReplacementPolicy").one_of(known, errors);
}

fn check_restart(spec: &Place<'_>, errors: &mut Vec<FieldError>) {
    let restart = spec.get("template").get("spec").get("restartPolicy");
    match restart.text() {
        "" | "Always" => {
            restart.required("valid values: \"OnFailure\", \"Never\"", errors);
        }
        "OnFailure" if spec.get("podFailurePolicy").is_present() => {
            let detail = "only \"Never\" is supported when podFailurePolicy is specified";
            restart.invalid(detail, errors);
        }
        _ => restart.one_of(RESTART_POLICIES, errors),
    }
}

/// The template as it was, with what a job that has not started may still change of it.
fn template_with_directives(old: &Value, new: &Value) -> Value {
    let mut template = old.clone();
    let pod = tree::at(new, &["spec"]);
    let spec = tree::as_object(&mut template)
        .entry("spec".to_owned())
        .or_insert(Value::Null);
    for field in ["nodeSelector", "tolerations", "schedulingGates"] {
        tree::carry(spec, pod, field);
    }
    let node = tree::at(pod, &["affinity", "nodeAffinity"]);
    let affinity = tree::object_mut(spec, "affinity");
    affinity.shift_remove("nodeAffinity");
    if !node.is_null() {
        affinity.insert("nodeAffinity".to_owned(), node.clone());
    }
    if affinity.is_empty() && tree::at(pod, &["affinity"]).is_null() {
        tree::as_object(spec).shift_remove("affinity");
    }
    let metadata = tree::as_object(&mut template)
        .entry("metadata".to_owned())
        .or_insert(Value::Null);
    for field in ["annotations", "labels"] {
        tree::carry(metadata, tree::at(new, &["metadata"]), field);
    }
    template
}

/// Whether the pods' place may still be chosen: the job is suspended and never ran.
fn takes_directives(old: &Value) -> bool {
    tree::flag(old, &["spec", "suspend"]) && tree::at(old, &["status", "startTime"]).is_null()
}

fn check_main_update(new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    let (spec, before) = (Place::root(new, "spec"), Place::root(old, "spec"));
    let completions = spec.get("completions");
    let changed = !tree::same(completions.value, before.get("completions").value);
    if spec.get("completionMode").text() != "Indexed" {
        completions.unchanged(&before.get("completions"), errors);
    } else if changed
        && completions.is_present()
        && completions.int() != spec.get("parallelism").int()
    {
        completions.invalid(
            "can only be modified in tandem with spec.parallelism",
            errors,
        );
    }
    spec.get("selector")
        .unchanged(&before.get("selector"), errors);
    let template = spec.get("template");
    let kept = if takes_directives(old) {
        template_with_directives(before.get("template").value, template.value)
    } else {
        before.get("template").value.clone()
    };
    if !tree::same(template.value, &kept) {
        template.invalid(validation::IMMUTABLE, errors);
    }
    let fixed = ["completionMode", "podFailurePolicy", "backoffLimitPerIndex"];
    for field in fixed.into_iter().chain(["managedBy", "successPolicy"]) {
        spec.get(field).unchanged(&before.get(field), errors);
    }
}

impl Strategy for Job {
    fn has_generation(&self) -> bool {
        true
    }

    fn orphans_by_default(&self) -> bool {
        true
    }

    fn has_status(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        default_labels(object);
        let spec = tree::object_mut(object, "spec");
        default_spec_fields(spec);
        default_failure_policy(spec);
        default_pod_template(spec);
    }

    fn prepare_create(&self, object: &mut Value) {
        generate_selector(object);
        // Where neither job nor template had labels, the job gets those that were made.
        default_labels(object);
        tree::as_object(object).insert("status".to_owned(), json!({}));
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        check_generated(object, &mut errors);
        let spec = Place::root(object, "spec");
        check_spec(&spec, &mut errors);
        let selector = spec.get("selector");
        if selector.is_present() {
            validation::label_selector(selector.value, &selector.path, &mut errors);
        } else {
            selector.required("", &mut errors);
        }
        let labels = spec.get("template").get("metadata").get("labels");
        if !validation::selects(selector.value, labels.value) {
            labels.invalid("`selector` does not match template `labels`", &mut errors);
        }
        let completions = spec.get("completions").int().unwrap_or_default();
        if spec.get("completionMode").text() == "Indexed" && completions > 0 {
            let name = tree::text(object, &["metadata", "name"]);
            let host = format!("{name}-{}", completions - 1);
            if !names::dns_label(&host).is_empty() {
                let path = Path::root("metadata").child("name");
                let detail = format!("will not able to create pod with invalid DNS label: {host}");
                errors.push(FieldError::invalid(&path, name, detail));
            }
        }
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value, write: Prepare) -> Vec<FieldError> {
        let mut errors = Vec::new();
        match write {
            Prepare::Main => check_main_update(new, old, &mut errors),
            Prepare::Status | Prepare::Approval => status::check(new, old, &mut errors),
        }
        errors
    }
}
