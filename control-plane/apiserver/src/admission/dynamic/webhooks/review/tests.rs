use serde_json::json;

use super::*;

fn read(step: Step, response: &Value) -> Result<Answer, AnswerError> {
    let answer = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "response": response});
    answered(ReviewVersion::V1, step, "1", &answer)
}

fn allowed(patch: Vec<Value>) -> Answer {
    Answer {
        allowed: true,
        status: Value::Null,
        patch,
        warnings: Vec::new(),
        annotations: Vec::new(),
    }
}

#[test]
fn a_patch_is_base64_of_a_json_patch() {
    let operations = json!([{"op": "add", "path": "/a", "value": 1}]);
    let patch = STANDARD.encode(operations.to_string());
    let response = json!({"uid": "1", "allowed": true, "patch": patch, "patchType": "JSONPatch"});
    let expected = allowed(operations.as_array().unwrap().clone());
    assert_eq!(read(Step::Mutating, &response), Ok(expected));
    let plain = json!({"uid": "1", "allowed": true});
    assert_eq!(read(Step::Mutating, &plain), Ok(allowed(Vec::new())));
}

#[test]
fn answers_that_make_no_sense_are_told_in_upstreams_words() {
    let patch = STANDARD.encode("[]");
    let cases = [
        (Step::Validating, Value::Null, "webhook response was absent"),
        (
            Step::Validating,
            json!({"uid": "2", "allowed": true}),
            "expected response.uid=\"1\", got \"2\"",
        ),
        (
            Step::Validating,
            json!({"uid": "1", "allowed": true, "patch": patch, "patchType": "JSONPatch"}),
            "validating webhook may not return response.patch",
        ),
        (
            Step::Validating,
            json!({"uid": "1", "allowed": true, "patchType": "JSONPatch"}),
            "validating webhook may not return response.patchType",
        ),
        (
            Step::Mutating,
            json!({"uid": "1", "allowed": true, "patch": patch}),
            "webhook returned response.patch but not response.patchType",
        ),
        (
            Step::Mutating,
            json!({"uid": "1", "allowed": true, "patchType": "JSONPatch"}),
            "webhook returned response.patchType but not response.patch",
        ),
    ];
    for (step, response, expected) in cases {
        let fault = read(step, &response).unwrap_err().to_string();
        assert_eq!(
            fault,
            format!("received invalid webhook response: {expected}")
        );
    }
    let other = json!({"apiVersion": "v1", "kind": "Pod", "response": {"uid": "1"}});
    let fault = answered(ReviewVersion::V1, Step::Validating, "1", &other).unwrap_err();
    assert_eq!(
        fault.to_string(),
        "received invalid webhook response: expected webhook response of admission.k8s.io/v1, \
         Kind=AdmissionReview, got v1, Kind=Pod"
    );
    let merge = json!({"uid": "1", "allowed": true, "patch": patch, "patchType": "Merge"});
    let fault = read(Step::Mutating, &merge).unwrap_err();
    assert_eq!(fault.to_string(), "unsupported patch type \"Merge\"");
}

#[test]
fn an_answer_in_the_older_version_needs_neither_uid_nor_patch_type() {
    let operations = json!([{"op": "remove", "path": "/a"}]);
    let answer =
        json!({"response": {"allowed": true, "patch": STANDARD.encode(operations.to_string())}});
    let read = answered(ReviewVersion::V1Beta1, Step::Mutating, "1", &answer);
    assert_eq!(read, Ok(allowed(operations.as_array().unwrap().clone())));
}

#[test]
fn a_refusal_carries_code_and_reason_of_the_answer() {
    let told = |status: Value| {
        let refused = rejection("a.b.c", &status).to_value();
        (
            refused["code"].clone(),
            refused["reason"].clone(),
            refused["message"].as_str().unwrap().to_owned(),
        )
    };
    let denied = "admission webhook \"a.b.c\" denied the request";
    assert_eq!(
        told(json!({"code": 403, "reason": "Forbidden", "message": "no"})),
        (json!(403), json!("Forbidden"), format!("{denied}: no"))
    );
    assert_eq!(
        told(json!({"reason": "Mine"})),
        (json!(400), json!("Mine"), format!("{denied}: Mine"))
    );
    assert_eq!(
        told(Value::Null),
        (
            json!(400),
            Value::Null,
            format!("{denied} without explanation")
        )
    );
    assert_eq!(told(json!({"code": 200})).0, json!(400));
    let details = json!({"details": {"causes": [{"message": "m", "field": "f"}]}});
    let refused = rejection("a.b.c", &details).to_value();
    assert_eq!(refused["details"], details["details"]);
    assert_eq!(refused["status"], "Failure");
}
