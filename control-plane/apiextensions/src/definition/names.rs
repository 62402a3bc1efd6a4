//! The names in a definition.

use proto_api::names;
use serde_json::Value;

use super::list;
use crate::violation::Violation;

/// Checks `spec.names`.
pub(super) fn validate(value: &Value, path: &str, found: &mut Vec<Violation>) {
    let own = |name: &str| value[name].as_str().unwrap_or_default();
    let at = |name: &str| format!("{path}.{name}");
    label(own("plural"), &at("plural"), true, found);
    label(own("singular"), &at("singular"), true, found);
    for name in ["kind", "listKind"] {
        mixed_case(own(name), &at(name), found);
    }
    for name in ["shortNames", "categories"] {
        for (index, short) in list(&value[name]).iter().enumerate() {
            let short = short.as_str().unwrap_or_default();
            label(short, &format!("{path}.{name}[{index}]"), false, found);
        }
    }
    if !own("kind").is_empty() && own("kind") == own("listKind") {
        let detail = "kind and listKind may not be the same";
        found.push(Violation::invalid(&at("listKind"), own("listKind"), detail));
    }
}

fn label(text: &str, path: &str, required: bool, found: &mut Vec<Violation>) {
    if text.is_empty() && required {
        found.push(Violation::required(path, ""));
        return;
    }
    let broken = names::dns_1035_label(text);
    if !broken.is_empty() {
        found.push(Violation::invalid(path, text, broken.join(",")));
    }
}

fn mixed_case(text: &str, path: &str, found: &mut Vec<Violation>) {
    if text.is_empty() {
        found.push(Violation::required(path, ""));
        return;
    }
    let broken = names::dns_1035_label(&text.to_lowercase());
    if !broken.is_empty() {
        let detail = format!(
            "may have mixed case, but should otherwise match: {}",
            broken.join(",")
        );
        found.push(Violation::invalid(path, text, detail));
    }
}
