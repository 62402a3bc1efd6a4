//! What every cluster begins with is valid as it is, and refusals are upstream's.

use serde_json::json;

use super::*;

fn refusals(strategy: &dyn Strategy, mut object: Value) -> Vec<String> {
    strategy.default(&mut object);
    let errors = strategy.validate(&object);
    errors.iter().map(ToString::to_string).collect()
}

#[test]
fn the_first_objects_are_valid_and_complete() {
    let levels = levels();
    for level in &levels {
        let mut defaulted = level.clone();
        PriorityLevel.default(&mut defaulted);
        assert_eq!(&defaulted, level);
        assert_eq!(
            refusals(&PriorityLevel, level.clone()),
            Vec::<String>::new()
        );
    }
    for schema in schemas() {
        let level = &schema["spec"]["priorityLevelConfiguration"]["name"];
        assert!(
            levels
                .iter()
                .any(|known| known["metadata"]["name"] == *level),
            "{level}"
        );
        assert_eq!(refusals(&FlowSchema, schema), Vec::<String>::new());
    }
}

#[test]
fn refusals_are_upstreams() {
    let schema = json!({"metadata": {"name": "mine"}, "spec": {"matchingPrecedence": 1,
        "priorityLevelConfiguration": {"name": "system"},
        "rules": [{"subjects": [{"kind": "User"}], "resourceRules": [
            {"verbs": ["*", "get"], "apiGroups": [""], "resources": ["pods"]}]}]}});
    assert_eq!(
        refusals(&FlowSchema, schema),
        [
            "spec.matchingPrecedence: Invalid value: 1: only the schema named 'exempt' may have \
             matchingPrecedence 1",
            "spec.rules[0].subjects[0].user: Required value: user is required when subject kind \
             is 'User'",
            "spec.rules[0].resourceRules[0].verbs: Invalid value: [\"*\",\"get\"]: if '*' is \
             present, must not specify other verbs",
            "spec.rules[0].resourceRules[0].namespaces: Required value: resource rules that are \
             not cluster scoped must supply at least one namespace",
        ]
    );
    let level = json!({"metadata": {"name": "mine"}, "spec": {"type": "Limited", "limited": {
        "limitResponse": {"type": "Queue", "queuing": {"queues": 4}}}}});
    assert_eq!(
        refusals(&PriorityLevel, level),
        [
            "spec.limited.limitResponse.queuing.handSize: Invalid value: 8: should not be greater \
             than queues (4)"
        ]
    );
}

#[test]
fn the_last_resort_cannot_be_changed() {
    let of_name = |level: &Value| level["metadata"]["name"] == "catch-all";
    let mut level = levels().into_iter().find(of_name).unwrap();
    level["spec"]["limited"]["nominalConcurrencyShares"] = json!(50);
    let texts = refusals(&PriorityLevel, level);
    assert!(
        texts[0].ends_with("spec of 'catch-all' must equal the fixed value"),
        "{texts:?}"
    );
}
