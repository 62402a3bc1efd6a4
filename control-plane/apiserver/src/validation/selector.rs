//! `metav1.LabelSelector` as a field.

use proto_api::names;
use serde_json::Value;

use super::{labels, sentences};
use crate::field::{FieldError, Path};
use crate::tree;

const OPERATORS: &[&str] = &["DoesNotExist", "Exists", "In", "NotIn"];

/// Checks a label selector.
pub(crate) fn label_selector(selector: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    labels(
        tree::at(selector, &["matchLabels"]),
        &path.child("matchLabels"),
        errors,
    );
    for (i, expression) in tree::list(selector, &["matchExpressions"])
        .iter()
        .enumerate()
    {
        let path = path.child("matchExpressions").index(i);
        let key = tree::text(expression, &["key"]);
        sentences(key, &path.child("key"), names::qualified_name(key), errors);
        let values = tree::list(expression, &["values"]);
        match tree::text(expression, &["operator"]) {
            "In" | "NotIn" => {
                if values.is_empty() {
                    let detail = "must be specified when `operator` is 'In' or 'NotIn'";
                    errors.push(FieldError::required(&path.child("values"), detail));
                }
            }
            "Exists" | "DoesNotExist" => {
                if !values.is_empty() {
                    let detail =
                        "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                    errors.push(FieldError::forbidden(&path.child("values"), detail));
                }
            }
            operator => errors.push(FieldError::not_supported(
                &path.child("operator"),
                operator,
                OPERATORS,
            )),
        }
    }
}

/// Whether a label selector selects a set of labels.
pub(crate) fn selects(selector: &Value, labels: &Value) -> bool {
    let label = |key: &str| tree::at(labels, &[key]).as_str();
    let equal = tree::entries(selector, &["matchLabels"])
        .all(|(key, value)| label(key) == value.as_str() && value.is_string());
    equal
        && tree::list(selector, &["matchExpressions"])
            .iter()
            .all(|expression| {
                let value = label(tree::text(expression, &["key"]));
                let listed = value.is_some_and(|value| {
                    tree::list(expression, &["values"])
                        .iter()
                        .any(|v| v == value)
                });
                match tree::text(expression, &["operator"]) {
                    "In" => listed,
                    "NotIn" => !listed,
                    "Exists" => value.is_some(),
                    _ => value.is_none(),
                }
            })
}
