//! Selectors select what Kubernetes documents, and refuse the rest in its words.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::types::meta::v1::LabelSelector;

fn labels(text: &str) -> BTreeMap<String, String> {
    let pair = |pair: &str| {
        let (key, value) = pair.split_once('=').unwrap();
        (key.to_owned(), value.to_owned())
    };
    text.split_whitespace().map(pair).collect()
}

#[test]
fn label_selectors_select_by_their_operators() {
    for (selector, object, selected) in [
        ("", "", true),
        ("app=a", "app=a", true),
        ("app==a", "app=b", false),
        ("app!=a", "", true),
        ("app!=a", "app=a", false),
        ("app in (a, b)", "app=b", true),
        ("app in (a,b)", "", false),
        ("app notin (a,b)", "app=c", true),
        ("app notin (a,b)", "", true),
        ("app", "app=", true),
        ("!app", "app=x", false),
        ("!app", "", true),
        ("app=", "app=", true),
        ("app in (a,)", "app=", true),
        ("n>5", "n=6", true),
        ("n<5", "n=6", false),
        ("n<5", "", false),
        ("n>5", "n=x", false),
        ("a=1,b!=2,!c", "a=1 b=3", true),
        ("example.com/role in (x)", "example.com/role=x", true),
        ("in=notin", "in=notin", true),
    ] {
        let parsed = Labels::parse(selector).unwrap();
        assert_eq!(
            parsed.matches_map(&labels(object)),
            selected,
            "{selector} on {object}"
        );
    }
}

#[test]
fn wrong_label_selectors_are_refused() {
    for (selector, message) in [
        (
            "a b",
            "unable to parse requirement: found 'b', expected: '=', '!=', '==', 'in', notin'",
        ),
        (
            "=x",
            "unable to parse requirement: found '=', expected: !, identifier, or 'end of string'",
        ),
        (
            "a=1,",
            "unable to parse requirement: found '', expected: identifier after ','",
        ),
        (
            "a in x",
            "unable to parse requirement: found 'x' expected: '('",
        ),
        (
            "a in (x",
            "unable to parse requirement: found '', expected: ',' or ')'",
        ),
        (
            "!",
            "unable to parse requirement: found '', expected: identifier",
        ),
        (
            "a=b c",
            "unable to parse requirement: found 'c', expected: ',' or 'end of string'",
        ),
    ] {
        assert_eq!(
            Labels::parse(selector).unwrap_err().to_string(),
            message,
            "{selector}"
        );
    }
    for selector in ["-a=b", "a=-", "a/b/c=d", "n>x"] {
        assert!(Labels::parse(selector).is_err(), "{selector}");
    }
}

#[test]
fn selector_structs_mean_the_same_as_text() {
    let selector: LabelSelector = serde_json::from_value(json!({
        "matchLabels": {"app": "x"},
        "matchExpressions": [
            {"key": "tier", "operator": "In", "values": ["b", "a"]},
            {"key": "old", "operator": "DoesNotExist"}
        ]
    }))
    .unwrap();
    let labels = Labels::from_struct(&selector).unwrap();
    assert_eq!(labels.to_string(), "app=x,tier in (a,b),!old");
    assert_eq!(Labels::parse(&labels.to_string()), Ok(labels));
    assert!(
        Labels::from_struct(&LabelSelector::default())
            .unwrap()
            .is_empty()
    );
    let wrong = json!({"matchExpressions": [{"key": "a", "operator": "Like", "values": ["b"]}]});
    assert_eq!(
        Labels::from_struct(&serde_json::from_value(wrong).unwrap())
            .unwrap_err()
            .to_string(),
        "\"Like\" is not a valid label selector operator"
    );
    let empty = json!({"matchExpressions": [{"key": "a", "operator": "In"}]});
    assert!(matches!(
        Labels::from_struct(&serde_json::from_value(empty).unwrap()),
        Err(SelectorError::Labels(_))
    ));
}

#[test]
fn field_selectors_compare_text() {
    let phase = |field: &str| (field == "status.phase").then_some("Running");
    for (selector, selected) in [
        ("", true),
        ("status.phase=Running", true),
        ("status.phase==Running", true),
        ("status.phase!=Running", false),
        ("spec.nodeName=", true),
        ("spec.nodeName=,status.phase!=Failed", true),
        ("metadata.name=x", false),
    ] {
        assert_eq!(
            Fields::parse(selector).unwrap().matches(phase),
            selected,
            "{selector}"
        );
    }
    let parsed = Fields::parse(r"metadata.name=a\,b\=c\\,,x=y").unwrap();
    assert_eq!(parsed.exact("metadata.name"), Some(r"a,b=c\"));
    assert_eq!(parsed.requirements().len(), 2);
    assert_eq!(Fields::parse(&parsed.to_string()), Ok(parsed));
    assert_eq!(
        Fields::parse("a=b,nonsense").unwrap_err().to_string(),
        "invalid selector: 'a=b,nonsense'; can't understand 'nonsense'"
    );
    assert!(matches!(
        Fields::parse(r"a=\x"),
        Err(SelectorError::Fields { .. })
    ));
}

proptest! {
    #[test]
    fn a_written_label_selector_reads_as_itself(
        terms in prop::collection::vec(("[a-z]{1,4}", 0..4_u8, prop::collection::vec("[a-z0-9]{0,3}", 1..4)), 0..5),
    ) {
        let text: Vec<String> = terms
            .iter()
            .map(|(key, operator, values)| match operator {
                0 => format!("{key} in ({})", values.join(",")),
                1 => format!("{key} notin ({})", values.join(",")),
                2 => key.clone(),
                _ => format!("!{key}"),
            })
            .collect();
        let parsed = Labels::parse(&text.join(",")).unwrap();
        prop_assert_eq!(parsed.requirements().len(), terms.len());
        prop_assert_eq!(Labels::parse(&parsed.to_string()), Ok(parsed));
    }

    #[test]
    fn no_text_makes_the_parsers_panic(text in ".{0,40}") {
        let _labels = Labels::parse(&text).is_ok();
        let _fields = Fields::parse(&text).is_ok();
    }
}
