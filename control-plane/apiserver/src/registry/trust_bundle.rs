//! ClusterTrustBundle: roots that the cluster trusts, of a signer or of nobody in particular.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::certificate_request::{check_pem, validate_signer};
use super::strategy::{NameRule, Prepare, Strategy};
use crate::field::{FieldError, Path};
use crate::tables::{Column, NAME, Table, column};
use crate::tree;
use crate::validation::{self, Place};

#[derive(Debug)]
pub(super) struct TrustBundle;

const COLUMNS: &[Column] = &[
    NAME,
    column(
        "SignerName",
        "string",
        "signerName indicates the associated signer, if any.",
    ),
];

pub(super) static TABLE: Table = Table {
    columns: COLUMNS,
    row,
};

fn row(object: &Value, _now: Timestamp) -> Vec<Value> {
    let signer = match tree::text(object, &["spec", "signerName"]) {
        "" => "<none>",
        signer => signer,
    };
    vec![
        json!(tree::text(object, &["metadata", "name"])),
        json!(signer),
    ]
}

impl Strategy for TrustBundle {
    fn name_rule(&self) -> NameRule {
        NameRule::PathSegment
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let spec = Place::root(object, "spec");
        let signer = spec.get("signerName");
        let name = tree::text(object, &["metadata", "name"]);
        let place = Path::root("metadata").child("name");
        if signer.text().is_empty() {
            if name.contains(':') {
                let detail =
                    "ClusterTrustBundle without signer name must not have \":\" in its name";
                errors.push(FieldError::invalid(&place, name, detail));
            }
        } else {
            validate_signer(&signer, &mut errors);
            let prefix = format!("{}:", signer.text().replace('/', ":"));
            if !name.starts_with(&prefix) {
                let detail = format!(
                    "ClusterTrustBundle for signerName {} must be named with prefix {prefix}",
                    signer.text()
                );
                errors.push(FieldError::invalid(&place, name, detail));
            }
        }
        if let Err(why) = check_pem(spec.get("trustBundle").text().as_bytes()) {
            let path = spec.path.child("trustBundle");
            errors.push(FieldError::invalid(&path, "<value omitted>", why));
        }
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value, _write: Prepare) -> Vec<FieldError> {
        let mut errors = Vec::new();
        validation::immutable(new, old, &["spec", "signerName"], &mut errors);
        errors
    }
}
