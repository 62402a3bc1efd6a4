//! Bodies are accepted and refused as upstream does, in its words.

use serde_json::json;

use super::*;
use crate::schema::builtin;

fn decode(text: &str) -> Result<Decoded, DecodeError> {
    body(builtin(), None, text.as_bytes(), Encoding::Json)
}

fn findings(text: &str) -> Vec<String> {
    decode(text)
        .unwrap()
        .findings
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn unknown_fields_are_found_with_their_path_and_dropped() {
    let text = r#"{"apiVersion":"apps/v1","kind":"Deployment","spec":{"foo":1,"replicas":1,
        "template":{"spec":{"containers":[{"name":"a"},{"name":"b","imagee":"x"}]}}}}"#;
    assert_eq!(
        findings(text),
        [
            r#"unknown field "spec.foo""#,
            r#"unknown field "spec.template.spec.containers[1].imagee""#
        ]
    );
    let decoded = decode(text).unwrap();
    assert_eq!(decoded.value["spec"].get("foo"), None);
    assert_eq!(
        strict_message(&decoded.findings),
        "strict decoding error: unknown field \"spec.foo\", \
         unknown field \"spec.template.spec.containers[1].imagee\""
    );
}

#[test]
fn duplicate_keys_are_found_and_the_last_one_counts() {
    let text = r#"{"apiVersion":"v1","kind":"Pod","spec":{"nodeName":"a","nodeName":"b"},
        "metadata":{"labels":{"x":"1","x":"2"}}}"#;
    assert_eq!(
        findings(text),
        [
            r#"duplicate field "spec.nodeName""#,
            r#"duplicate field "metadata.labels.x""#
        ]
    );
    assert_eq!(decode(text).unwrap().value["spec"]["nodeName"], "b");
}

#[test]
fn wrong_types_are_refused_in_the_words_of_go() {
    for (body, message) in [
        (
            r#"{"apiVersion":"apps/v1","kind":"Deployment","spec":{"replicas":"three"}}"#,
            "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            r#"{"apiVersion":"apps/v1","kind":"Deployment","spec":{"replicas":1.5}}"#,
            "json: cannot unmarshal number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            r#"{"apiVersion":"v1","kind":"Service","spec":{"ports":[{"port":99999999999}]}}"#,
            "json: cannot unmarshal number 99999999999 into Go struct field ServicePort.spec.ports.port of type int32",
        ),
        (
            r#"{"apiVersion":"v1","kind":"Pod","spec":{"containers":{}}}"#,
            "json: cannot unmarshal object into Go struct field PodSpec.spec.containers of type []v1.Container",
        ),
        (
            r#"{"apiVersion":"v1","kind":"Pod","spec":{"containers":["a"]}}"#,
            "json: cannot unmarshal string into Go struct field PodSpec.spec.containers of type v1.Container",
        ),
        (
            r#"{"apiVersion":"v1","kind":"Pod","metadata":{"labels":{"a":1}}}"#,
            "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string",
        ),
        (
            r#"{"apiVersion":"v1","kind":"Pod","spec":{"dnsPolicy":1}}"#,
            "json: cannot unmarshal number into Go struct field PodSpec.spec.dnsPolicy of type v1.DNSPolicy",
        ),
        (
            r#"{"apiVersion":"v1","kind":"Secret","data":{"a":"!!"}}"#,
            "illegal base64 data at input byte 0",
        ),
        (
            r#"{"apiVersion":"v1","kind":"Foo"}"#,
            "no kind \"Foo\" is registered for version \"v1\" in scheme",
        ),
        (
            r#"{"apiVersion":"v1"}"#,
            "Object 'Kind' is missing in '{\"apiVersion\":\"v1\"}'",
        ),
    ] {
        assert_eq!(decode(body).unwrap_err().to_string(), message);
    }
    let error = decode(r#"{"apiVersion":"v1","kind":"Pod","spec":7}"#).unwrap_err();
    assert_eq!(
        error.message(Gvk::parse("v1", "Pod"), b"{}"),
        "Pod in version \"v1\" cannot be handled as a Pod: \
         json: cannot unmarshal number into Go struct field Pod.spec of type v1.PodSpec"
    );
}

#[test]
fn quantities_and_times_name_their_grammar() {
    let text = r#"{"apiVersion":"v1","kind":"Pod","spec":{"containers":[{"name":"c",
        "resources":{"requests":{"cpu":"lots"}}}]}}"#;
    assert_eq!(
        decode(text).unwrap_err().to_string(),
        "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
    );
    let text = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"creationTimestamp":"soon"}}"#;
    assert_eq!(
        decode(text).unwrap_err().to_string(),
        "parsing time \"soon\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"soon\" as \"2006\""
    );
}

#[test]
fn the_canonical_form_is_the_same_whoever_wrote_it() {
    let text = r#"{"apiVersion":"v1","kind":"Pod",
        "metadata":{"name":"a","creationTimestamp":null,"labels":{}},
        "spec":{"hostNetwork":false,"automountServiceAccountToken":false,"nodeName":"",
          "containers":[{"name":"c","resources":{},"ports":[],"command":null}],
          "overhead":{"cpu":"1000m","memory":0.5},
          "volumes":[{"name":"v","emptyDir":{}}]},
        "status":{}}"#;
    assert_eq!(
        decode(text).unwrap().value,
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "a"},
            "spec": {
                "automountServiceAccountToken": false,
                "containers": [{"name": "c"}],
                "overhead": {"cpu": "1", "memory": "500m"},
                "volumes": [{"name": "v", "emptyDir": {}}]
            }
        })
    );
}

#[test]
fn the_default_kind_stands_in_for_an_absent_one() {
    let gvk = Gvk::parse("v1", "ConfigMap");
    let decoded = body(
        builtin(),
        Some(gvk),
        br#"{"data":{"a":"b"}}"#,
        Encoding::Json,
    )
    .unwrap();
    assert_eq!(
        (decoded.gvk(), &decoded.value["kind"]),
        (gvk, &json!("ConfigMap"))
    );
}

#[test]
fn yaml_is_read_like_json() {
    let text = "apiVersion: v1\nkind: ConfigMap\ndata:\n  a: \"yes\"\n  b: |\n    two\n    lines\n";
    let decoded = body(builtin(), None, text.as_bytes(), Encoding::Yaml).unwrap();
    assert_eq!(
        decoded.value["data"],
        json!({"a": "yes", "b": "two\nlines\n"})
    );
    let (value, findings) = parse(b"a: 1\nb: 0644\na: 2\n", Encoding::Yaml).unwrap();
    assert_eq!(value, json!({"a": 2, "b": 420}));
    assert_eq!(
        strict_message(&findings),
        "strict decoding error: yaml: unmarshal errors:\n  line 3: key \"a\" already set in map"
    );
}

#[test]
fn a_billion_laughs_and_deep_nesting_are_refused() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..9 {
        let below = format!("*a{}", level - 1);
        let items = vec![below; 9].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{items}]\n"));
    }
    assert!(matches!(
        parse(bomb.as_bytes(), Encoding::Yaml),
        Err(DecodeError::Yaml(_))
    ));
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    assert!(matches!(
        parse(deep.as_bytes(), Encoding::Yaml),
        Err(DecodeError::Yaml(_))
    ));
    assert!(matches!(
        parse(deep.as_bytes(), Encoding::Json),
        Err(DecodeError::Json(_))
    ));
}

#[test]
fn findings_are_bounded() {
    let fields: Vec<String> = (0..500).map(|at| format!("\"f{at}\":1")).collect();
    let text = format!(r#"{{"apiVersion":"v1","kind":"Pod",{}}}"#, fields.join(","));
    assert_eq!(decode(&text).unwrap().findings.len(), FINDINGS_MAX);
}

#[test]
fn malformed_text_is_refused() {
    for text in ["", "{", "[1,]", "{\"a\":1}x", "nul"] {
        assert!(matches!(decode(text), Err(DecodeError::Json(_))), "{text}");
    }
    assert!(matches!(decode("[]"), Err(DecodeError::NotAnObject { .. })));
}
