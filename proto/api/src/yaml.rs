//! A value as YAML text, in the form of upstream's writer; changes with that form.
//!
//! Keys are sorted, lists stand as deep as their key, a string is plain where every reader (YAML
//! 1.1 and 1.2) takes it for a string, a text of several lines is a literal block, any other
//! string is in double quotes. What is written is read again as the same value.

use std::fmt::Write as _;

use serde_json::{Map, Value};

/// The value as a YAML document that ends with a line break.
#[must_use]
pub fn to_string(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(fields) if !fields.is_empty() => mapping(&mut out, fields, 0, Start::Line),
        Value::Array(items) if !items.is_empty() => sequence(&mut out, items, 0, Start::Line),
        scalar => {
            leaf(&mut out, scalar, 0);
            out.push('\n');
        }
    }
    out
}

/// `value` as an item of a list that begins at the start of the line.
#[must_use]
pub fn list_item(value: &Value) -> String {
    let mut out = String::new();
    item(&mut out, value, 0);
    out
}

/// Where the writer stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Start {
    /// At the start of a line.
    Line,
    /// After the dash of a list item: the first entry goes on there.
    Dash,
}

/// Longer keys are marked as keys: readers look no further for the colon.
const KEY_BYTES_MAX: usize = 128;

fn indent(out: &mut String, depth: usize) {
    out.extend(std::iter::repeat_n("  ", depth));
}

fn mapping(out: &mut String, fields: &Map<String, Value>, depth: usize, start: Start) {
    let mut names: Vec<&String> = fields.keys().collect();
    names.sort();
    for (index, name) in names.into_iter().enumerate() {
        if index > 0 || start == Start::Line {
            indent(out, depth);
        }
        let explicit = name.len() > KEY_BYTES_MAX;
        if explicit {
            out.push_str("? ");
        }
        text(out, name);
        if explicit {
            out.push('\n');
            indent(out, depth);
        }
        out.push(':');
        match fields.get(name).unwrap_or(&Value::Null) {
            Value::Object(fields) if !fields.is_empty() => {
                out.push('\n');
                mapping(out, fields, depth + 1, Start::Line);
            }
            Value::Array(items) if !items.is_empty() => {
                out.push('\n');
                sequence(out, items, depth + usize::from(explicit), Start::Line);
            }
            value => {
                out.push(' ');
                leaf(out, value, depth + 1);
                out.push('\n');
            }
        }
    }
}

fn sequence(out: &mut String, items: &[Value], depth: usize, start: Start) {
    for (index, value) in items.iter().enumerate() {
        if index > 0 || start == Start::Line {
            indent(out, depth);
        }
        item(out, value, depth);
    }
}

fn item(out: &mut String, value: &Value, depth: usize) {
    out.push_str("- ");
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            mapping(out, fields, depth + 1, Start::Dash);
        }
        Value::Array(items) if !items.is_empty() => sequence(out, items, depth + 1, Start::Dash),
        value => {
            leaf(out, value, depth + 1);
            out.push('\n');
        }
    }
}

/// A value of one line, or a literal block whose lines are `depth` deep.
fn leaf(out: &mut String, value: &Value, depth: usize) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(truth) => out.push_str(if *truth { "true" } else { "false" }),
        Value::Number(number) => {
            let _never = write!(out, "{number}");
        }
        Value::String(lines) if is_literal(lines) => literal(out, lines, depth),
        Value::String(line) => text(out, line),
        Value::Array(_) => out.push_str("[]"),
        Value::Object(_) => out.push_str("{}"),
    }
}

/// Several lines that a literal block keeps as they are.
fn is_literal(text: &str) -> bool {
    text.contains('\n')
        && !text.starts_with([' ', '\n', '\t'])
        && text.chars().all(|c| c == '\n' || is_printable(c))
        && text.lines().all(|line| !line.ends_with([' ', '\t']))
}

fn literal(out: &mut String, text: &str, depth: usize) {
    let body = text.trim_end_matches('\n');
    out.push_str(match text.len() - body.len() {
        0 => "|-",
        1 => "|",
        _ => "|+",
    });
    for line in body.split('\n') {
        out.push('\n');
        if !line.is_empty() {
            indent(out, depth);
            out.push_str(line);
        }
    }
    // The last line break is the caller's.
    out.extend(std::iter::repeat_n(
        '\n',
        (text.len() - body.len()).saturating_sub(1),
    ));
}

fn text(out: &mut String, text: &str) {
    if is_plain(text) {
        out.push_str(text);
        return;
    }
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if is_printable(c) => out.push(c),
            c => {
                let code = u32::from(c);
                let _never = match code {
                    0..=0xff => write!(out, "\\x{code:02x}"),
                    0x100..=0xffff => write!(out, "\\u{code:04x}"),
                    _ => write!(out, "\\U{code:08x}"),
                };
            }
        }
    }
    out.push('"');
}

/// Characters that YAML text holds as they are.
const fn is_printable(c: char) -> bool {
    matches!(c, ' '..='~' | '\u{a0}'..='\u{2027}' | '\u{202a}'..='\u{d7ff}' | '\u{e000}'..='\u{fefe}' | '\u{ff00}'..='\u{fffd}' | '\u{10000}'..)
}

/// Whether every reader takes the bare text for this string.
fn is_plain(text: &str) -> bool {
    let Some(first) = text.chars().next() else {
        return false;
    };
    let first_fits = first.is_ascii_alphabetic()
        || matches!(first, '_' | '/' | '$' | '(' | ')' | '^')
        || first.is_ascii_digit();
    let fits = |c: char| {
        c.is_ascii_alphanumeric()
            || matches!(
                c,
                ' ' | '_'
                    | '-'
                    | '.'
                    | '/'
                    | '$'
                    | '('
                    | ')'
                    | '^'
                    | '+'
                    | ','
                    | ';'
                    | '='
                    | '@'
                    | ':'
                    | '#'
                    | '%'
                    | '<'
                    | '>'
                    | '!'
                    | '?'
                    | '*'
                    | '&'
                    | '~'
                    | '\''
                    | '"'
                    | '|'
            )
    };
    first_fits
        && text.chars().all(fits)
        && !text.ends_with([' ', ':'])
        && !text.contains(": ")
        && !text.contains(" #")
        && !is_other_type(text)
}

/// Whether YAML 1.1 or 1.2 reads the bare text as a number, a truth, nothing or a time.
fn is_other_type(text: &str) -> bool {
    let word = text.to_ascii_lowercase();
    let truths = [
        "y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf",
    ];
    if truths.contains(&word.as_str()) {
        return true;
    }
    // Numbers of any notation, dates and times of day begin with a digit and hold little else.
    let of_number = |c: char| {
        c.is_ascii_hexdigit()
            || matches!(c, '.' | '_' | ':' | '-' | '+' | 'x' | 'o' | 't' | 'z' | ' ')
    };
    text.starts_with(|c: char| c.is_ascii_digit()) && word.chars().all(of_number)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::decode::{Encoding, parse};

    #[test]
    fn objects_are_written_as_upstream_writes_them() {
        let value = json!({
            "kind": "ConfigMap", "apiVersion": "v1",
            "metadata": {"name": "a", "labels": {}, "creationTimestamp": null},
            "data": {
                "script": "#!/bin/sh\necho a\n\nexit 0\n", "two": "a\n\n", "none": "a\nb",
                "yes": "yes", "port": "8080", "empty": "", "image": "a.b/c:1.2", "time": "12:30:00",
            },
            "list": [1, "x", {"b": [true], "a": 1.5}, [], [[1, 2]]],
        });
        let expected = "\
apiVersion: v1
data:
  empty: \"\"
  image: a.b/c:1.2
  none: |-
    a
    b
  port: \"8080\"
  script: |
    #!/bin/sh
    echo a

    exit 0
  time: \"12:30:00\"
  two: |+
    a

  \"yes\": \"yes\"
kind: ConfigMap
list:
- 1
- x
- a: 1.5
  b:
  - true
- []
- - - 1
    - 2
metadata:
  creationTimestamp: null
  labels: {}
  name: a
";
        assert_eq!(to_string(&value), expected);
        assert_eq!(parse(expected.as_bytes(), Encoding::Yaml).unwrap().0, value);
    }

    #[test]
    fn a_long_key_is_marked_as_one() {
        let (long, longer) = ("k".repeat(129), "é\n".repeat(2000));
        let value = json!({
            "a": {&long: {&longer: [1, {"b": [2]}]}},
            "list": [{&long: [3], &longer: {}}, {&longer: "x\ny\n"}],
        });
        let text = to_string(&value);
        assert!(text.contains(&format!("  ? {long}\n  :\n")), "{text}");
        assert_eq!(parse(text.as_bytes(), Encoding::Yaml).unwrap().0, value);
    }

    mod property {
        use proptest::prelude::*;
        use proptest::sample::select;

        use super::*;

        /// Strings that some reader takes for something else, and any string.
        fn string() -> impl Strategy<Value = String> {
            let odd = select(vec![
                "",
                " ",
                "~",
                "null",
                "Null",
                "yes",
                "No",
                "on",
                "1",
                "-1",
                "+1",
                "0x1f",
                "0o17",
                "017",
                "1e3",
                "1_000",
                ".5",
                ".inf",
                ".nan",
                "1:30",
                "2026-01-02",
                "- a",
                "a: b",
                "a #b",
                "#",
                "a:",
                "[a]",
                "{a}",
                "&a",
                "*a",
                "!a",
                "|",
                ">",
                "@a",
                "`a",
                "%a",
                "? a",
                "a\n",
                "\na",
                "a\n\n\n",
                " a\nb",
                "a \nb",
                "a\tb",
                "\u{feff}a",
                "a\rb",
                "\u{85}",
                "\u{2028}",
                "---",
                "...",
                "--- a\n...\n",
                "<<",
                "=",
                "a\n b\n  c\n",
            ]);
            prop_oneof![odd.prop_map(str::to_owned), "\\PC{0,12}", any::<String>()]
        }

        fn tree() -> impl Strategy<Value = Value> {
            let leaf = prop_oneof![
                Just(Value::Null),
                any::<bool>().prop_map(Value::from),
                any::<i64>().prop_map(Value::from),
                string().prop_map(Value::from),
            ];
            leaf.prop_recursive(5, 40, 5, |inner| {
                prop_oneof![
                    proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                    proptest::collection::vec((string(), inner), 0..5)
                        .prop_map(|fields| Value::Object(fields.into_iter().collect())),
                ]
            })
        }

        proptest! {
            #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

            #[test]
            fn what_is_written_is_read_again(fields in tree()) {
                let value = json!({ "fields": fields });
                let text = to_string(&value);
                let read = parse(text.as_bytes(), Encoding::Yaml);
                prop_assert_eq!(read.map(|(read, _)| read), Ok(value), "{}", text);
            }
        }
    }
}
