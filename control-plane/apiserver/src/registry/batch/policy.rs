//! A job's policies: which failures of pods matter, and when enough pods have succeeded.

use std::collections::HashSet;

use proto_api::names;

use crate::field::FieldError;
use crate::tree;
use crate::validation::Place;

const RULES_MAX: usize = 20;
const EXIT_CODES_MAX: usize = 255;
const PATTERNS_MAX: usize = 20;
const INDEXES_BYTES_MAX: usize = 64 * 1024;
const ACTIONS: &[&str] = &["Count", "FailIndex", "FailJob", "Ignore"];
const OPERATORS: &[&str] = &["In", "NotIn"];
const STATUSES: &[&str] = &["False", "True", "Unknown"];

/// The field must be there and one of `known`, which a missing one is told.
fn need_one_of(field: &Place<'_>, known: &[&str], errors: &mut Vec<FieldError>) {
    if !field.text().is_empty() {
        return field.one_of(known, errors);
    }
    let quoted: Vec<String> = known.iter().map(|text| format!("\"{text}\"")).collect();
    field.required(format!("valid values: [{}]", quoted.join(" ")), errors);
}

fn too_many(list: &Place<'_>, most: usize, errors: &mut Vec<FieldError>) {
    if list.len() > most {
        errors.push(FieldError::too_many(&list.path, list.len(), most));
    }
}

/// Checks `podFailurePolicy`.
pub(super) fn check_failure(spec: &Place<'_>, errors: &mut Vec<FieldError>) {
    let rules = spec.get("podFailurePolicy").get("rules");
    too_many(&rules, RULES_MAX, errors);
    let pod = spec.get("template").get("spec");
    let containers: HashSet<&str> = ["containers", "initContainers"]
        .iter()
        .flat_map(|field| tree::list(pod.value, &[field]))
        .map(|container| tree::text(container, &["name"]))
        .collect();
    for rule in rules.items() {
        let action = rule.get("action");
        need_one_of(&action, ACTIONS, errors);
        if action.text() == "FailIndex" && !spec.get("backoffLimitPerIndex").is_present() {
            action.invalid("requires the backoffLimitPerIndex to be set", errors);
        }
        let (codes, patterns) = (rule.get("onExitCodes"), rule.get("onPodConditions"));
        if codes.is_present() {
            check_exit_codes(&codes, &containers, errors);
        }
        too_many(&patterns, PATTERNS_MAX, errors);
        for pattern in patterns.items() {
            pattern.get("type").named(names::qualified_name, errors);
            need_one_of(&pattern.get("status"), STATUSES, errors);
        }
        let detail = match (codes.is_present(), patterns.len() > 0) {
            (true, true) => "specifying both OnExitCodes and OnPodConditions is not supported",
            (false, false) => "specifying one of OnExitCodes and OnPodConditions is required",
            _ => continue,
        };
        errors.push(FieldError::invalid_unshown(&rule.path, detail));
    }
}

fn check_exit_codes(codes: &Place<'_>, containers: &HashSet<&str>, errors: &mut Vec<FieldError>) {
    let operator = codes.get("operator");
    need_one_of(&operator, OPERATORS, errors);
    let container = codes.get("containerName");
    if container.is_present() && !containers.contains(container.text()) {
        let detail = "must be one of the container or initContainer names in the pod template";
        container.invalid(detail, errors);
    }
    let values = codes.get("values");
    if values.len() == 0 {
        values.invalid("at least one value is required", errors);
    }
    too_many(&values, EXIT_CODES_MAX, errors);
    let mut seen = HashSet::new();
    for value in values.items() {
        let code = value.int().unwrap_or_default();
        if operator.text() == "In" && code == 0 {
            value.invalid("must not be 0 for the In operator", errors);
        }
        if !seen.insert(code) {
            errors.push(FieldError::duplicate(&value.path, code));
        }
    }
    let numbers: Vec<i64> = values.items().filter_map(|value| value.int()).collect();
    if !numbers.is_sorted() {
        values.invalid("must be ordered", errors);
    }
}

/// Checks `successPolicy`.
pub(super) fn check_success(spec: &Place<'_>, indexed: bool, errors: &mut Vec<FieldError>) {
    let policy = spec.get("successPolicy");
    if !policy.is_present() {
        return;
    }
    if !indexed {
        policy.invalid("requires indexed completion mode", errors);
        return;
    }
    let rules = policy.get("rules");
    if rules.len() == 0 {
        let detail = "at least one rules must be specified when the successPolicy is specified";
        rules.required(detail, errors);
    }
    too_many(&rules, RULES_MAX, errors);
    let completions = spec.get("completions").int().unwrap_or_default();
    for rule in rules.items() {
        check_success_rule(&rule, completions, errors);
    }
}

fn check_success_rule(rule: &Place<'_>, completions: i64, errors: &mut Vec<FieldError>) {
    let (count, indexes) = (rule.get("succeededCount"), rule.get("succeededIndexes"));
    if !count.is_present() && !indexes.is_present() {
        let detail = "at least one of succeededCount or succeededIndexes must be specified";
        rule.required(detail, errors);
    }
    if indexes.text().len() > INDEXES_BYTES_MAX {
        errors.push(FieldError::too_long(&indexes.path, INDEXES_BYTES_MAX));
    }
    let total = match parse_indexes(indexes.text(), completions) {
        Ok(intervals) => intervals.iter().map(|(first, last)| last - first + 1).sum(),
        Err(fault) => {
            indexes.invalid(format!("error parsing succeededIndexes: {fault}"), errors);
            0
        }
    };
    let Some(number) = count.int() else {
        return;
    };
    count.non_negative(errors);
    if number > completions {
        let detail = format!(
            "must be less than or equal to {completions} (the number of specified completions)"
        );
        count.invalid(detail, errors);
    }
    if indexes.is_present() && number > total {
        let detail = format!(
            "must be less than or equal to {total} (the number of indexes in the specified \
             succeededIndexes field)"
        );
        count.invalid(detail, errors);
    }
}

/// Reads `1,3-5,7` as intervals: ascending, without overlap, below `completions`.
pub(super) fn parse_indexes(text: &str, completions: i64) -> Result<Vec<(i64, i64)>, String> {
    let mut intervals: Vec<(i64, i64)> = Vec::new();
    if text.is_empty() {
        return Ok(intervals);
    }
    let number = |part: &str| -> Result<i64, String> {
        let Ok(index) = part.parse::<i64>() else {
            return Err(format!(
                "cannot convert string to integer for index: \"{part}\""
            ));
        };
        if index >= completions {
            return Err(format!("too large index: \"{part}\""));
        }
        Ok(index)
    };
    for part in text.split(',') {
        let limits: Vec<&str> = part.split('-').collect();
        let (first, last) = match limits[..] {
            [one] => (number(one)?, number(one)?),
            [first, last] => {
                let (from, to) = (number(first)?, number(last)?);
                if from >= to {
                    return Err(format!(
                        "non-increasing order, previous: {from}, current: {to}"
                    ));
                }
                (from, to)
            }
            _ => {
                return Err(format!(
                    "the fragment \"{part}\" violates the requirement that an index interval can \
                     have at most two parts separated by '-'"
                ));
            }
        };
        if let Some((_, before)) = intervals.last()
            && *before >= first
        {
            return Err(format!(
                "non-increasing order, previous: {before}, current: {first}"
            ));
        }
        intervals.push((first, last));
    }
    Ok(intervals)
}
