//! Names: what Kubernetes allows as one, and what it says otherwise. One reason to change:
//! upstream's naming rules (`apimachinery/pkg/util/validation`).
//!
//! Each check returns upstream's sentences; none means valid. They go into an `Invalid` answer as
//! `FIELD: Invalid value: "VALUE": SENTENCE`.

/// RFC 1123 and RFC 1035 labels.
pub const LABEL_MAX: usize = 63;
/// RFC 1123 subdomains.
pub const SUBDOMAIN_MAX: usize = 253;
/// Service port names (IANA).
pub const PORT_NAME_MAX: usize = 15;
/// What a `generateName` is cut to before the suffix.
pub const GENERATED_BASE_MAX: usize = LABEL_MAX - SUFFIX_LEN;
const SUFFIX_LEN: usize = 5;
/// No vowels and nothing that is easily misread.
const SUFFIX_ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters \
    or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', \
    regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric \
    characters, '-' or '.', and must start and end with an alphanumeric character (e.g. \
    'example.com', regex used for validation is \
    '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const WILDCARD: &str = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid \
    DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end \
    with an alphanumeric character (e.g. '*.example.com', regex used for validation is \
    '\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or \
    '-', start with an alphabetic character, and end with an alphanumeric character (e.g. \
    'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const QUALIFIED: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start \
    and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex \
    used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric \
    characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. \
    'MyValue',  or 'my_value',  or '12345', regex used for validation is \
    '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const CONFIG_KEY: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or \
    '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is \
    '[-._a-zA-Z0-9]+')";

fn too_long(max: usize) -> String {
    format!("must be no more than {max} bytes")
}

fn check(value: &str, max: usize, valid: bool, sentence: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if value.len() > max {
        problems.push(too_long(max));
    }
    if !valid {
        problems.push(sentence.to_owned());
    }
    problems
}

fn lower_or_digit(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

/// Starts with `first`, ends with `last`, holds only `inner`.
fn shaped(
    value: &str,
    first: impl Fn(u8) -> bool,
    inner: impl Fn(u8) -> bool,
    last: impl Fn(u8) -> bool,
) -> bool {
    let bytes = value.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(begin), Some(end)) => {
            first(*begin) && last(*end) && bytes.iter().all(|byte| inner(*byte))
        }
        _ => false,
    }
}

fn is_label(value: &str) -> bool {
    shaped(
        value,
        lower_or_digit,
        |byte| lower_or_digit(byte) || byte == b'-',
        lower_or_digit,
    )
}

fn is_qualified(value: &str) -> bool {
    let alphanumeric = |byte: u8| byte.is_ascii_alphanumeric();
    shaped(
        value,
        alphanumeric,
        |byte| alphanumeric(byte) || matches!(byte, b'-' | b'_' | b'.'),
        alphanumeric,
    )
}

/// An RFC 1123 label: namespaces, containers, pod host names.
pub fn dns_label(value: &str) -> Vec<String> {
    check(value, LABEL_MAX, is_label(value), LABEL)
}

/// An RFC 1123 subdomain: the names of most kinds.
pub fn dns_subdomain(value: &str) -> Vec<String> {
    let valid = value.split('.').all(is_label);
    check(value, SUBDOMAIN_MAX, valid, SUBDOMAIN)
}

/// A subdomain behind `*.`: hosts of ingresses.
pub fn wildcard_subdomain(value: &str) -> Vec<String> {
    let rest = value.strip_prefix("*.");
    let valid = rest.is_some_and(|rest| rest.split('.').all(is_label));
    check(value, SUBDOMAIN_MAX, valid, WILDCARD)
}

/// An RFC 1035 label: names of services.
pub fn dns_1035_label(value: &str) -> Vec<String> {
    let valid = is_label(value) && value.as_bytes().first().is_some_and(u8::is_ascii_lowercase);
    check(value, LABEL_MAX, valid, LABEL_1035)
}

/// `[prefix/]name`: keys of labels and annotations, finalizers, resources.
pub fn qualified_name(value: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let parts: Vec<&str> = value.split('/').collect();
    let name = match parts[..] {
        [name] => name,
        [prefix, name] => {
            if prefix.is_empty() {
                problems.push("prefix part must be non-empty".to_owned());
            } else {
                let of_prefix = dns_subdomain(prefix);
                problems.extend(
                    of_prefix
                        .iter()
                        .map(|problem| format!("prefix part {problem}")),
                );
            }
            name
        }
        _ => {
            let (sentence, rest) = QUALIFIED.split_once(" (e.g.").unwrap_or((QUALIFIED, ""));
            return vec![format!(
                "a qualified name {sentence} (e.g.{rest} with an optional DNS subdomain prefix and \
                 '/' (e.g. 'example.com/MyName')"
            )];
        }
    };
    if name.is_empty() {
        problems.push("name part must be non-empty".to_owned());
    } else if name.len() > LABEL_MAX {
        problems.push(format!("name part {}", too_long(LABEL_MAX)));
    }
    if !is_qualified(name) {
        problems.push(format!("name part {QUALIFIED}"));
    }
    problems
}

/// The value of a label.
pub fn label_value(value: &str) -> Vec<String> {
    check(
        value,
        LABEL_MAX,
        value.is_empty() || is_qualified(value),
        LABEL_VALUE,
    )
}

/// A key of a ConfigMap or Secret.
pub fn config_key(value: &str) -> Vec<String> {
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let mut problems = check(
        value,
        SUBDOMAIN_MAX,
        shaped(value, valid, valid, valid),
        CONFIG_KEY,
    );
    match value {
        "." => problems.push("must not be '.'".to_owned()),
        ".." => problems.push("must not be '..'".to_owned()),
        value if value.starts_with("..") => {
            problems.push("must not start with '..'".to_owned());
        }
        _ => {}
    }
    problems
}

/// A name that only has to fit in a path: roles, for one.
pub fn path_segment(value: &str) -> Vec<String> {
    match value {
        "." | ".." => vec![format!("may not be '{value}'")],
        _ => ["/", "%"]
            .into_iter()
            .filter(|part| value.contains(part))
            .map(|part| format!("may not contain '{part}'"))
            .collect(),
    }
}

/// An IANA service name: named container ports and service target ports.
pub fn port_name(value: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if value.len() > PORT_NAME_MAX {
        problems.push(too_long(PORT_NAME_MAX));
    }
    if !value
        .bytes()
        .all(|byte| lower_or_digit(byte) || byte == b'-')
        || value.is_empty()
    {
        problems.push(
            "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned(),
        );
    }
    if !value.bytes().any(|byte| byte.is_ascii_lowercase()) {
        problems.push("must contain at least one letter (a-z)".to_owned());
    }
    if value.contains("--") {
        problems.push("must not contain consecutive hyphens".to_owned());
    }
    if value.starts_with('-') || value.ends_with('-') {
        problems.push("must not begin or end with a hyphen".to_owned());
    }
    problems
}

/// A port number.
pub fn port_number(value: i64) -> Vec<String> {
    match value {
        1..=65_535 => Vec::new(),
        _ => vec!["must be between 1 and 65535, inclusive".to_owned()],
    }
}

/// The name a `generateName` of `base` becomes; `random` gives any number each time it is called.
pub fn generated(base: &str, mut random: impl FnMut() -> u32) -> String {
    let mut end = base.len().min(GENERATED_BASE_MAX);
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    let mut name = base[..end].to_owned();
    for _ in 0..SUFFIX_LEN {
        let at = random() as usize % SUFFIX_ALPHABET.len();
        name.push(char::from(SUFFIX_ALPHABET[at]));
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn valid(check: fn(&str) -> Vec<String>, values: &[&str]) {
        for value in values {
            assert_eq!(check(value), Vec::<String>::new(), "{value}");
        }
    }

    fn invalid(check: fn(&str) -> Vec<String>, values: &[&str]) {
        for value in values {
            assert!(!check(value).is_empty(), "{value}");
        }
    }

    #[test]
    fn names_follow_their_grammar() {
        let longest = "a".repeat(LABEL_MAX);
        let too_long = "a".repeat(LABEL_MAX + 1);
        valid(dns_label, &["a", "a-b", "0", "a0-9", &longest]);
        invalid(
            dns_label,
            &["", "A", "-a", "a-", "a.b", "a_b", "ä", &too_long],
        );
        valid(dns_subdomain, &["a", "a.b-c.d", "1.2.3.4"]);
        invalid(
            dns_subdomain,
            &["", ".", "a.", ".a", "a..b", "a-.b", &"a.".repeat(127)],
        );
        valid(dns_1035_label, &["a", "a-1"]);
        invalid(dns_1035_label, &["1a", "a.b", ""]);
        valid(qualified_name, &["a", "A_b.c-1", "example.com/A"]);
        invalid(
            qualified_name,
            &["", "/a", "a/", "a/b/c", "EX.com/a", "-a", &too_long],
        );
        valid(label_value, &["", "a", "A_b.c"]);
        invalid(label_value, &["-", "a b", &too_long]);
        valid(config_key, &["a.b", "_x", "-", ".a"]);
        invalid(config_key, &["", ".", "..", "..a", "a/b"]);
        valid(port_name, &["http", "a-1"]);
        invalid(
            port_name,
            &["", "80", "-a", "a--b", "HTTP", "a234567890123456"],
        );
        valid(path_segment, &["system:node", "a b"]);
        invalid(path_segment, &[".", "..", "a/b", "a%b"]);
        assert!(port_number(0).len() == 1 && port_number(65_535).is_empty());
    }

    #[test]
    fn sentences_are_those_of_upstream() {
        assert_eq!(
            dns_label("My_Name"),
            [
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or \
                 '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or \
                 '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
            ]
        );
        assert_eq!(
            dns_label(&"a".repeat(64)),
            ["must be no more than 63 bytes"]
        );
        assert_eq!(qualified_name("/x")[0], "prefix part must be non-empty");
        assert!(
            qualified_name("a/b/c")[0]
                .ends_with("?[A-Za-z0-9]') with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')")
        );
        assert!(qualified_name("a/b/c")[0].starts_with("a qualified name must consist"));
    }

    #[test]
    fn generated_names_are_cut_and_valid() {
        let mut state = 0_u32;
        let mut random = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state >> 8
        };
        let name = generated(&"x".repeat(100), &mut random);
        assert_eq!(name.len(), LABEL_MAX);
        assert_eq!(dns_label(&name), Vec::<String>::new());
        assert_ne!(
            generated("pod-", &mut random),
            generated("pod-", &mut random)
        );
    }
}
