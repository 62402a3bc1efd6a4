//! Secret: base64 data, `stringData` folded in, a type that never changes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::config_map::{DATA_BYTES_MAX, frozen};
use super::strategy::{Prepare, Strategy};
use crate::field::{FieldError, Path};
use crate::tables::{AGE, Column, NAME, Table, age, column};
use crate::{tree, validation};

#[derive(Debug)]
pub(super) struct Secret;

const COLUMNS: &[Column] = &[
    NAME,
    column(
        "Type",
        "string",
        "Used to facilitate programmatic handling of secret data.",
    ),
    column("Data", "string", "Data contains the secret data."),
    AGE,
];

pub(super) static TABLE: Table = Table {
    columns: COLUMNS,
    row,
};

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        json!(tree::text(object, &["metadata", "name"])),
        json!(tree::text(object, &["type"])),
        json!(tree::entries(object, &["data"]).count()),
        age(object, now),
    ]
}

const ACCOUNT: &str = "kubernetes.io/service-account.name";
const REDACTED: &str = "<secret contents redacted>";

/// Checks what a type promises of the data.
fn validate_type(object: &Value, errors: &mut Vec<FieldError>) {
    let data = Path::root("data");
    let has = |key: &str| !tree::at(object, &["data", key]).is_null();
    let mut require = |keys: &[&str]| {
        for key in keys {
            errors.push(FieldError::required(&data.key(key), ""));
        }
    };
    match tree::text(object, &["type"]) {
        "kubernetes.io/service-account-token"
            if tree::text(object, &["metadata", "annotations", ACCOUNT]).is_empty() =>
        {
            let path = Path::root("metadata").child("annotations").key(ACCOUNT);
            errors.push(FieldError::required(&path, ""));
        }
        "kubernetes.io/dockercfg" => json_file(object, ".dockercfg", errors),
        "kubernetes.io/dockerconfigjson" => json_file(object, ".dockerconfigjson", errors),
        "kubernetes.io/basic-auth" if !has("username") && !has("password") => {
            require(&["username", "password"]);
        }
        "kubernetes.io/ssh-auth" if tree::text(object, &["data", "ssh-privatekey"]).is_empty() => {
            require(&["ssh-privatekey"]);
        }
        "kubernetes.io/tls" => {
            for key in ["tls.crt", "tls.key"] {
                if !has(key) {
                    require(&[key]);
                }
            }
        }
        _ => {}
    }
}

fn json_file(object: &Value, key: &str, errors: &mut Vec<FieldError>) {
    let path = Path::root("data").key(key);
    let Some(text) = tree::at(object, &["data", key]).as_str() else {
        return errors.push(FieldError::required(&path, ""));
    };
    let bytes = STANDARD.decode(text).unwrap_or_default();
    if let Err(fault) = serde_json::from_slice::<tree::Object>(&bytes) {
        errors.push(FieldError::invalid(&path, REDACTED, fault.to_string()));
    }
}

impl Strategy for Secret {
    fn default(&self, object: &mut Value) {
        tree::default_text(tree::as_object(object), "type", "Opaque");
        fold_string_data(object);
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let mut size = 0;
        for (key, value) in tree::entries(object, &["data"]) {
            validation::data_key(key, &Path::root("data").key(key), &mut errors);
            // Base64 holds three bytes in four characters.
            size += value.as_str().map_or(0, |text| text.len() / 4 * 3);
        }
        if size > DATA_BYTES_MAX {
            errors.push(FieldError::too_long(&Path::root("data"), DATA_BYTES_MAX));
        }
        validate_type(object, &mut errors);
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value, _write: Prepare) -> Vec<FieldError> {
        let mut errors = frozen(new, old, &["data"]);
        validation::immutable(new, old, &["type"], &mut errors);
        errors
    }
}

fn fold_string_data(object: &mut Value) {
    let Some(Value::Object(texts)) = tree::as_object(object).shift_remove("stringData") else {
        return;
    };
    if texts.is_empty() {
        return;
    }
    let data = tree::object_mut(object, "data");
    for (key, text) in texts {
        let encoded = STANDARD.encode(text.as_str().unwrap_or_default());
        data.insert(key, Value::from(encoded));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn string_data_is_folded_into_data_and_wins() {
        let mut secret = json!({"data": {"a": "eA=="}, "stringData": {"a": "y", "b": "z"}});
        Secret.default(&mut secret);
        assert_eq!(
            secret,
            json!({"data": {"a": "eQ==", "b": "eg=="}, "type": "Opaque"})
        );
    }

    #[test]
    fn a_tls_secret_needs_both_files() {
        let secret = json!({"type": "kubernetes.io/tls", "data": {"tls.crt": "eA=="}});
        let errors = Secret.validate(&secret);
        assert_eq!(errors.len(), 1);
        assert_eq!(errors[0].to_string(), "data[tls.key]: Required value");
    }

    #[test]
    fn a_type_says_what_the_data_must_be() {
        let problems = |secret: Value| {
            let errors = Secret.validate(&secret);
            errors.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(
            problems(json!({"type": "kubernetes.io/basic-auth"})),
            [
                "data[username]: Required value",
                "data[password]: Required value"
            ]
        );
        assert_eq!(
            problems(json!({"type": "kubernetes.io/service-account-token"})),
            ["metadata.annotations[kubernetes.io/service-account.name]: Required value"]
        );
        let broken = json!({"type": "kubernetes.io/dockerconfigjson",
            "data": {".dockerconfigjson": STANDARD.encode("{")}});
        assert!(problems(broken)[0].starts_with(
            "data[.dockerconfigjson]: Invalid value: \"<secret contents redacted>\": "
        ));
        let good = json!({"type": "kubernetes.io/dockerconfigjson",
            "data": {".dockerconfigjson": STANDARD.encode("{\"auths\":{}}")}});
        assert!(problems(good).is_empty());
    }
}
