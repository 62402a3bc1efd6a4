//! The columns of jobs and cron jobs.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::status::is_true;
use crate::registry::workload::{CONTAINERS, IMAGES, SELECTOR, template_cells};
use crate::tables::{self, AGE, NAME, Table, age, column, human_duration, seconds_since, since};
use crate::tree;

pub(in crate::registry) static JOB_TABLE: Table = Table {
    columns: &[
        NAME,
        column("Status", "string", "How far the job is."),
        column("Completions", "string", "Pods that succeeded, of how many."),
        column(
            "Duration",
            "string",
            "Time from start to end, or until now.",
        ),
        AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ],
    row: job_row,
};

pub(in crate::registry) static CRON_JOB_TABLE: Table = Table {
    columns: &[
        NAME,
        column("Schedule", "string", "When jobs are made, in cron's form."),
        column("Timezone", "string", "The time zone of the schedule."),
        column("Suspend", "boolean", "Whether no more jobs are made."),
        column("Active", "integer", "Number of jobs that run."),
        column("Last Schedule", "string", "When a job was last made."),
        AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ],
    row: cron_job_row,
};

/// Conditions in the order in which they decide what is shown; the text is the type.
const FINAL: [&str; 2] = ["Complete", "Failed"];
const PASSING: [&str; 3] = ["Suspended", "FailureTarget", "SuccessCriteriaMet"];

fn job_status(job: &Value) -> &'static str {
    if let Some(end) = FINAL.into_iter().find(|kind| is_true(job, kind)) {
        return end;
    }
    if !tree::is_unset(tree::at(job, &["metadata", "deletionTimestamp"])) {
        return "Terminating";
    }
    let passing = PASSING.into_iter().find(|kind| is_true(job, kind));
    passing.unwrap_or("Running")
}

fn completions(job: &Value) -> String {
    let succeeded = tree::int(job, &["status", "succeeded"]).unwrap_or_default();
    if let Some(wanted) = tree::int(job, &["spec", "completions"]) {
        return format!("{succeeded}/{wanted}");
    }
    match tree::int(job, &["spec", "parallelism"]).unwrap_or_default() {
        parallel if parallel > 1 => format!("{succeeded}/1 of {parallel}"),
        _ => format!("{succeeded}/1"),
    }
}

fn duration(job: &Value, now: Timestamp) -> String {
    let start = tree::text(job, &["status", "startTime"]);
    let end = tree::text(job, &["status", "completionTime"]);
    let until = end.parse().unwrap_or(now);
    seconds_since(start, until).map_or_else(String::new, human_duration)
}

fn job_row(object: &Value, now: Timestamp) -> Vec<Value> {
    let mut cells = vec![
        tables::name(object),
        json!(job_status(object)),
        json!(completions(object)),
        json!(duration(object, now)),
        age(object, now),
    ];
    cells.extend(template_cells(object, &["spec", "template"]));
    cells
}

fn cron_job_row(object: &Value, now: Timestamp) -> Vec<Value> {
    let suspend = match tree::at(object, &["spec", "suspend"]).as_bool() {
        Some(true) => "True",
        Some(false) => "False",
        None => "<unset>",
    };
    let last = match tree::text(object, &["status", "lastScheduleTime"]) {
        "" => json!("<none>"),
        time => since(time, now),
    };
    let mut cells = vec![
        tables::name(object),
        tables::text_or(object, &["spec", "schedule"], ""),
        tables::text_or(object, &["spec", "timeZone"], "<none>"),
        json!(suspend),
        json!(tree::list(object, &["status", "active"]).len()),
        last,
        age(object, now),
    ];
    cells.extend(template_cells(
        object,
        &["spec", "jobTemplate", "spec", "template"],
    ));
    cells
}
