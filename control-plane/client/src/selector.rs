//! Label selectors of typed objects, ready to match.
//!
//! Owns: the meaning of `metav1.LabelSelector` (API page "Labels and Selectors"). An unknown operator
//! matches nothing: a selector that is not understood must not select.

use std::collections::BTreeMap;

use proto_api::types::meta::v1::{LabelSelector, LabelSelectorRequirement};

/// Labels as objects hold them.
pub type Labels = BTreeMap<String, String>;

/// Whether `selector` selects `labels`. An empty selector selects everything.
#[must_use]
pub fn matches(selector: &LabelSelector, labels: &Labels) -> bool {
    selector
        .match_labels
        .iter()
        .all(|(key, value)| labels.get(key) == Some(value))
        && selector
            .match_expressions
            .iter()
            .all(|requirement| holds(requirement, labels))
}

/// Whether an equality map (a Service's `spec.selector`) selects `labels`.
#[must_use]
pub fn matches_map(selector: &Labels, labels: &Labels) -> bool {
    selector
        .iter()
        .all(|(key, value)| labels.get(key) == Some(value))
}

/// Whether the selector has no requirement.
#[must_use]
pub fn is_empty(selector: &LabelSelector) -> bool {
    selector.match_labels.is_empty() && selector.match_expressions.is_empty()
}

/// The equality part, as the store's label index wants it.
#[must_use]
pub fn equalities(labels: &Labels) -> Vec<(&str, &str)> {
    labels
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .collect()
}

fn holds(requirement: &LabelSelectorRequirement, labels: &Labels) -> bool {
    let value = labels.get(&requirement.key);
    match requirement.operator.as_str() {
        "In" => value.is_some_and(|value| requirement.values.contains(value)),
        "NotIn" => value.is_none_or(|value| !requirement.values.contains(value)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(selector: serde_json::Value, labels: serde_json::Value) -> bool {
        let selector: LabelSelector = serde_json::from_value(selector).expect("selector");
        let labels: Labels = serde_json::from_value(labels).expect("labels");
        matches(&selector, &labels)
    }

    #[test]
    fn every_operator_means_what_the_api_page_says() {
        use serde_json::json;
        let expression = |op: &str, values: &[&str]| json!({"matchExpressions": [{"key": "k", "operator": op, "values": values}]});
        let cases = [
            (json!({}), json!({}), true),
            (
                json!({"matchLabels": {"k": "v"}}),
                json!({"k": "v", "x": "y"}),
                true,
            ),
            (json!({"matchLabels": {"k": "v"}}), json!({"k": "w"}), false),
            (expression("In", &["v", "w"]), json!({"k": "w"}), true),
            (expression("In", &["v", "w"]), json!({}), false),
            (expression("NotIn", &["v"]), json!({"k": "v"}), false),
            (expression("NotIn", &["v"]), json!({}), true),
            (expression("Exists", &[]), json!({"k": ""}), true),
            (expression("Exists", &[]), json!({"x": ""}), false),
            (expression("DoesNotExist", &[]), json!({"x": ""}), true),
            (expression("Near", &["v"]), json!({"k": "v"}), false),
        ];
        for (selector, labels, expected) in cases {
            assert_eq!(
                check(selector.clone(), labels.clone()),
                expected,
                "{selector} on {labels}"
            );
        }
    }
}
