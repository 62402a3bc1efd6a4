//! Jobs and cron jobs: what the server fills in, refuses and shows.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;
use crate::registry::strategy::{Prepare, Strategy};
use crate::tables::Printer as _;
use crate::validation::Place;

fn pod_template(restart: &str) -> Value {
    json!({"metadata": {"labels": {"app": "x"}}, "spec": {"restartPolicy": restart,
        "containers": [{"name": "c", "image": "i"}]}})
}

fn job(mut spec: Value) -> Value {
    if spec.get("template").is_none() {
        spec["template"] = pod_template("Never");
    }
    let mut object = json!({"metadata": {"name": "j", "namespace": "n", "uid": "u-1"}});
    object["spec"] = spec;
    Job.default(&mut object);
    Job.prepare_create(&mut object);
    object
}

fn texts(errors: &[crate::field::FieldError]) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

#[test]
fn a_minimal_job_gets_upstreams_defaults_labels_and_selector() {
    let object = job(json!({}));
    let spec = &object["spec"];
    for (field, value) in [
        ("completions", json!(1)),
        ("parallelism", json!(1)),
        ("backoffLimit", json!(6)),
        ("completionMode", json!("NonIndexed")),
        ("suspend", json!(false)),
        ("podReplacementPolicy", json!("TerminatingOrFailed")),
    ] {
        assert_eq!(spec[field], value, "{field}");
    }
    assert_eq!(object["metadata"]["labels"], json!({"app": "x"}));
    assert_eq!(
        spec["selector"],
        json!({"matchLabels": {"batch.kubernetes.io/controller-uid": "u-1"}})
    );
    assert_eq!(
        spec["template"]["metadata"]["labels"],
        json!({"app": "x", "controller-uid": "u-1", "job-name": "j",
            "batch.kubernetes.io/controller-uid": "u-1", "batch.kubernetes.io/job-name": "j"})
    );
    assert_eq!(texts(&Job.validate(&object)), Vec::<String>::new());
    let parallel = job(json!({"parallelism": 3}));
    assert!(parallel["spec"].get("completions").is_none());
}

#[test]
fn a_jobs_refusals_are_upstreams() {
    let cases = [
        (
            json!({"template": pod_template("Always")}),
            "spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\"",
        ),
        (
            json!({"completionMode": "Indexed", "parallelism": 2}),
            "spec.completions: Required value: when completion mode is Indexed",
        ),
        (
            json!({"backoffLimitPerIndex": 1}),
            "spec.backoffLimitPerIndex: Invalid value: 1: requires indexed completion mode",
        ),
        (
            json!({"backoffLimit": -1}),
            "spec.backoffLimit: Invalid value: -1: must be greater than or equal to 0",
        ),
        (
            json!({"podReplacementPolicy": "Never"}),
            "spec.podReplacementPolicy: Unsupported value: \"Never\": supported values: \"Failed\", \
             \"TerminatingOrFailed\"",
        ),
        (
            json!({"managedBy": "me"}),
            "spec.managedBy: Invalid value: \"me\": must be a domain-prefixed path (such as \
             \"acme.io/foo\")",
        ),
        (
            json!({"podFailurePolicy": {"rules": [{"action": "FailJob"}]}}),
            "spec.podFailurePolicy.rules[0]: Invalid value: specifying one of OnExitCodes and \
             OnPodConditions is required",
        ),
        (
            json!({"podFailurePolicy": {"rules": [{"action": "FailJob",
                "onExitCodes": {"operator": "In", "values": [3, 0]}}]}}),
            "spec.podFailurePolicy.rules[0].onExitCodes.values[1]: Invalid value: 0: must not be 0 \
             for the In operator",
        ),
        (
            json!({"completionMode": "Indexed", "completions": 3,
                "successPolicy": {"rules": [{"succeededIndexes": "0-3"}]}}),
            "spec.successPolicy.rules[0].succeededIndexes: Invalid value: \"0-3\": error parsing \
             succeededIndexes: too large index: \"3\"",
        ),
        (
            json!({"template": {"metadata": {"labels": {"job-name": "other"}},
                "spec": pod_template("Never")["spec"]}}),
            "must be 'j'",
        ),
    ];
    for (spec, expected) in cases {
        let found = texts(&Job.validate(&job(spec)));
        assert!(
            found.iter().any(|text| text.ends_with(expected)),
            "{expected}: {found:?}"
        );
    }
}

#[test]
fn a_job_keeps_its_template_but_may_be_placed_before_it_starts() {
    let old = job(json!({}));
    let mut new = old.clone();
    new["spec"]["parallelism"] = json!(4);
    assert_eq!(
        texts(&Job.validate_update(&new, &old, Prepare::Main)),
        Vec::<String>::new()
    );
    new["spec"]["template"]["spec"]["nodeSelector"] = json!({"disk": "ssd"});
    let found = texts(&Job.validate_update(&new, &old, Prepare::Main));
    assert!(
        found[0].starts_with("spec.template: Invalid value"),
        "{found:?}"
    );
    assert!(found[0].ends_with("field is immutable"));
    let mut suspended = old;
    suspended["spec"]["suspend"] = json!(true);
    assert!(
        Job.validate_update(&new, &suspended, Prepare::Main)
            .is_empty()
    );
    new["spec"]["template"]["spec"]["affinity"] = json!({"nodeAffinity": {"x": 1}});
    assert!(
        Job.validate_update(&new, &suspended, Prepare::Main)
            .is_empty()
    );
    new["spec"]["completions"] = json!(7);
    let found = texts(&Job.validate_update(&new, &suspended, Prepare::Main));
    assert_eq!(
        found,
        ["spec.completions: Invalid value: 7: field is immutable"]
    );
}

#[test]
fn a_finished_job_says_so_without_contradiction() {
    let old = job(json!({}));
    let mut new = old.clone();
    let all = |kinds: &[&str]| {
        let list: Vec<Value> = kinds
            .iter()
            .map(|kind| json!({"type": kind, "status": "True"}))
            .collect();
        json!(list)
    };
    new["status"] = json!({"succeeded": 1, "startTime": "2026-01-01T00:00:00Z",
        "completionTime": "2026-01-01T00:01:05Z"});
    new["status"]["conditions"] = all(&["SuccessCriteriaMet", "Complete"]);
    assert_eq!(
        texts(&Job.validate_update(&new, &old, Prepare::Status)),
        Vec::<String>::new()
    );
    let now = Timestamp::UNIX_EPOCH;
    let cells = JOB_TABLE.row(&new, now);
    assert_eq!(cells[1..4], [json!("Complete"), json!("1/1"), json!("65s")]);
    let mut changed = new.clone();
    changed["status"]["conditions"] = all(&["Complete", "Failed"]);
    changed["status"]["active"] = json!(1);
    let found = texts(&Job.validate_update(&changed, &new, Prepare::Status));
    for expected in [
        "status.conditions: Invalid value: cannot set Complete=True and Failed=true conditions",
        "status.active: Invalid value: 1: active>0 is invalid for finished job",
        "status.conditions: Invalid value: cannot disable the SuccessCriteriaMet=True condition",
    ] {
        assert!(
            found.iter().any(|text| text == expected),
            "{expected}: {found:?}"
        );
    }
}

fn cron_job(spec: Value) -> Value {
    let mut object = json!({"metadata": {"name": "c", "namespace": "n"}});
    object["spec"] = spec;
    object["spec"]["jobTemplate"] = json!({"spec": {"template": pod_template("OnFailure")}});
    CronJob.default(&mut object);
    object
}

#[test]
fn a_cron_job_gets_upstreams_defaults_and_columns() {
    let object = cron_job(json!({"schedule": "*/5 * * * *", "timeZone": "Europe/Berlin"}));
    let spec = &object["spec"];
    assert_eq!(spec["concurrencyPolicy"], "Allow");
    assert_eq!(spec["successfulJobsHistoryLimit"], 3);
    assert_eq!(spec["failedJobsHistoryLimit"], 1);
    assert_eq!(texts(&CronJob.validate(&object)), Vec::<String>::new());
    assert_eq!(
        texts(&CronJob.validate_create(&object)),
        Vec::<String>::new()
    );
    let cells = CRON_JOB_TABLE.row(&object, Timestamp::UNIX_EPOCH);
    let shown = ["c", "*/5 * * * *", "Europe/Berlin", "False"].map(|text| json!(text));
    assert_eq!(cells[..4], shown);
    assert_eq!(cells[4..6], [json!(0), json!("<none>")]);
    assert_eq!(cells[7..9], [json!("c"), json!("i")]);
}

#[test]
fn a_cron_jobs_refusals_are_upstreams() {
    let cases = [
        (json!({"schedule": ""}), "spec.schedule: Required value"),
        (
            json!({"schedule": "every day"}),
            "spec.schedule: Invalid value: \"every day\": expected exactly 5 fields, found 2: [every day]",
        ),
        (
            json!({"schedule": "61 * * * *"}),
            "spec.schedule: Invalid value: \"61 * * * *\": end of range (61) above maximum (59): 61",
        ),
        (
            json!({"schedule": "@weekdays"}),
            "spec.schedule: Invalid value: \"@weekdays\": unrecognized descriptor: @weekdays",
        ),
        (
            json!({"schedule": "TZ=UTC 0 0 * * *"}),
            "spec.schedule: Invalid value: \"TZ=UTC 0 0 * * *\": cannot use TZ or CRON_TZ in \
             schedule, use timeZone field instead",
        ),
        (
            json!({"schedule": "0 0 * * *", "timeZone": "Nowhere/City"}),
            "spec.timeZone: Invalid value: \"Nowhere/City\": unknown time zone Nowhere/City",
        ),
        (
            json!({"schedule": "0 0 * * *", "concurrencyPolicy": "Maybe"}),
            "spec.concurrencyPolicy: Unsupported value: \"Maybe\": supported values: \"Allow\", \
             \"Forbid\", \"Replace\"",
        ),
    ];
    for (spec, expected) in cases {
        let object = cron_job(spec);
        let mut found = texts(&CronJob.validate(&object));
        found.extend(texts(&CronJob.validate_create(&object)));
        assert_eq!(found, [expected]);
    }
    let mut long = cron_job(json!({"schedule": "@hourly"}));
    long["metadata"]["name"] = json!("x".repeat(53));
    let found = texts(&CronJob.validate_create(&long));
    assert!(
        found[0].ends_with("must be no more than 52 characters"),
        "{found:?}"
    );
    assert!(
        CronJob
            .validate_update(&long, &long, Prepare::Main)
            .is_empty()
    );
}

#[test]
fn schedules_are_read_as_cron_reads_them() {
    for good in [
        "0 0 1 jan MON-fri",
        "*/15 0-6 1,15 * ?",
        "@every 1h30m",
        "5/10 * * * *",
        "@daily",
    ] {
        assert_eq!(schedule::check(good), Ok(()), "{good}");
    }
    for (bad, why) in [
        ("* * * * 7", "end of range (7) above maximum (6): 7"),
        ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
        (
            "5-3 * * * *",
            "beginning of range (5) beyond end of range (3): 5-3",
        ),
        (
            "*/0 * * * *",
            "step of range should be a positive number: */0",
        ),
        ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
        ("1/2/3 * * * *", "too many slashes: 1/2/3"),
        (
            "x * * * *",
            "failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax",
        ),
    ] {
        assert_eq!(schedule::check(bad), Err(why.to_owned()), "{bad}");
    }
    assert!(schedule::check("@every soon").is_err());
}

#[test]
fn index_lists_are_ascending_and_bounded() {
    assert_eq!(
        policy::parse_indexes("0,2-4,9", 10),
        Ok(vec![(0, 0), (2, 4), (9, 9)])
    );
    assert_eq!(policy::parse_indexes("", 0), Ok(Vec::new()));
    for bad in ["3,1", "4-2", "1-3,3", "a", "1-2-3", "10"] {
        assert!(policy::parse_indexes(bad, 10).is_err(), "{bad}");
    }
}

#[test]
fn a_checked_field_knows_its_place() {
    let object = json!({"spec": {"list": [{"name": ""}]}});
    let item = Place::root(&object, "spec")
        .get("list")
        .items()
        .next()
        .unwrap();
    let mut errors = Vec::new();
    item.get("name").required_text(&mut errors);
    assert_eq!(texts(&errors), ["spec.list[0].name: Required value"]);
}
