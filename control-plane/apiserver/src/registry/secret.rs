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

/// Keys that a type asks for.
fn required_keys(kind: &str) -> &'static [&'static str] {
    match kind {
        "kubernetes.io/dockercfg" => &[".dockercfg"],
        "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
        "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        _ => &[],
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
        for key in required_keys(tree::text(object, &["type"])) {
            if tree::at(object, &["data", key]).is_null() {
                errors.push(FieldError::required(&Path::root("data").key(key), ""));
            }
        }
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
}
