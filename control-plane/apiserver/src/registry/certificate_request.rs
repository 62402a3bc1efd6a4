//! CertificateSigningRequest: somebody asks a signer for a certificate.

use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use proto_api::names;
use serde_json::{Value, json};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer as _;

use super::strategy::{NameRule, Prepare, Strategy, keep_all_but_status};
use crate::field::{FieldError, Path};
use crate::tables::{AGE, Column, NAME, Table, age, column, human_duration};
use crate::tree;
use crate::validation::{Errors, Place};

#[derive(Debug)]
pub(super) struct CertificateRequest;

const SECONDS_MIN: i64 = 600;
const LEGACY_SIGNER: &str = "kubernetes.io/legacy-unknown";
const DOMAIN_BYTES_MAX: usize = 253;
const APPROVAL: [&str; 2] = ["Approved", "Denied"];
const LASTING: [&str; 3] = ["Approved", "Denied", "Failed"];
const USAGES: &[&str] = &[
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

const COLUMNS: &[Column] = &[
    NAME,
    AGE,
    column(
        "SignerName",
        "string",
        "signerName indicates the requested signer, and is a qualified name.",
    ),
    column(
        "Requestor",
        "string",
        "username contains the name of the user that created the CertificateSigningRequest.",
    ),
    column(
        "RequestedDuration",
        "string",
        "expirationSeconds is the requested duration of validity of the issued certificate.",
    ),
    column(
        "Condition",
        "string",
        "conditions applied to the request. Known conditions are \"Approved\", \"Denied\", and \"Failed\".",
    ),
];

pub(super) static TABLE: Table = Table {
    columns: COLUMNS,
    row,
};

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = |field| tree::text(object, &["spec", field]);
    let duration = tree::int(object, &["spec", "expirationSeconds"])
        .map_or_else(|| "<none>".to_owned(), human_duration);
    let signer = match spec("signerName") {
        "" => "<none>",
        signer => signer,
    };
    vec![
        json!(tree::text(object, &["metadata", "name"])),
        age(object, now),
        json!(signer),
        json!(spec("username")),
        json!(duration),
        json!(condition(object)),
    ]
}

/// How far a request is.
fn condition(object: &Value) -> String {
    let has = |kind: &str| !conditions(object, kind).is_empty();
    let mut text = match (has("Denied"), has("Approved")) {
        (true, _) => "Denied",
        (false, true) => "Approved",
        (false, false) => "Pending",
    }
    .to_owned();
    if has("Failed") {
        text.push_str(",Failed");
    }
    if !tree::text(object, &["status", "certificate"]).is_empty() {
        text.push_str(",Issued");
    }
    text
}

fn conditions<'a>(object: &'a Value, kind: &str) -> Vec<&'a Value> {
    tree::list(object, &["status", "conditions"])
        .iter()
        .filter(|condition| tree::text(condition, &["type"]) == kind)
        .collect()
}

impl Strategy for CertificateRequest {
    fn name_rule(&self) -> NameRule {
        NameRule::PathSegment
    }

    fn has_status(&self) -> bool {
        true
    }

    fn prepare_create(&self, object: &mut Value) {
        tree::as_object(object).insert("status".to_owned(), json!({}));
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, write: Prepare) {
        match write {
            Prepare::Main => {
                tree::carry(new, old, "spec");
                tree::carry(new, old, "status");
            }
            Prepare::Status => keep_all_but_status(new, old),
            // Approving changes the conditions and nothing else.
            Prepare::Approval => {
                keep_all_but_status(new, old);
                let before = tree::at(old, &["status"]).clone();
                let status = tree::as_object(new)
                    .entry("status".to_owned())
                    .or_insert(Value::Null);
                tree::carry(status, &before, "certificate");
            }
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let spec = Place::root(object, "spec");
        let request = spec.get("request");
        if let Err(why) = check_request(request.text()) {
            request.invalid(why, &mut errors);
        }
        let usages = spec.get("usages");
        if usages.is_unset() {
            usages.required("", &mut errors);
        }
        let mut seen = HashSet::new();
        for usage in usages.items() {
            usage.one_of(USAGES, &mut errors);
            if !seen.insert(usage.text()) {
                usage.duplicate(&mut errors);
            }
        }
        let signer = spec.get("signerName");
        if signer.text() == LEGACY_SIGNER {
            let detail = "the legacy signerName is not allowed via this API version";
            signer.invalid(detail, &mut errors);
        } else {
            validate_signer(&signer, &mut errors);
        }
        let seconds = spec.get("expirationSeconds");
        if seconds.int().is_some_and(|seconds| seconds < SECONDS_MIN) {
            let detail = "may not specify a duration less than 600 seconds (10 minutes)";
            seconds.invalid(detail, &mut errors);
        }
        validate_conditions(object, &mut errors);
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value, write: Prepare) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let path = Path::root("status").child("conditions");
        let mut forbid = |what: &str, kind: &str| {
            let detail = format!("updates may not {what} a condition of type \"{kind}\"");
            errors.push(FieldError::forbidden(&path, detail));
        };
        for kind in LASTING {
            let (now, before) = (conditions(new, kind), conditions(old, kind));
            if now.len() < before.len() {
                forbid("remove", kind);
            } else if write != Prepare::Approval && APPROVAL.contains(&kind) {
                if now.len() > before.len() {
                    forbid("add", kind);
                } else if now != before {
                    forbid("modify", kind);
                }
            }
        }
        let certificate = |object| tree::at(object, &["status", "certificate"]).clone();
        let (now, before) = (certificate(new), certificate(old));
        if !tree::same(&now, &before) {
            let path = Path::root("status").child("certificate");
            if write != Prepare::Status {
                let detail = "updates may not set certificate content";
                errors.push(FieldError::forbidden(&path, detail));
            } else if !tree::is_unset(&before) {
                let detail = "updates may not modify existing certificate content";
                errors.push(FieldError::forbidden(&path, detail));
            } else if let Err(why) = check_certificates(now.as_str().unwrap_or_default()) {
                errors.push(FieldError::invalid(&path, "<certificate data>", why));
            }
        }
        errors
    }
}

/// Checks a qualified name of a signer.
pub(super) fn validate_signer(signer: &Place<'_>, errors: &mut Errors) {
    let text = signer.text();
    signer.required_text(errors);
    let Some((domain, path)) = text.split_once('/').filter(|(_, path)| !path.contains('/')) else {
        let detail =
            "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        return errors.push(FieldError::invalid(&signer.path, text, detail));
    };
    let mut refuse = |value: &str, detail: String| {
        errors.push(FieldError::invalid(&signer.path, value, detail));
    };
    let checks: [fn(&str) -> Vec<String>; 2] = [names::dns_label, names::dns_subdomain];
    for (part, check) in [domain, path].into_iter().zip(checks) {
        for label in part.split('.') {
            for problem in check(label) {
                refuse(part, format!("validating label {label:?}: {problem}"));
            }
        }
    }
    if !domain.contains('.') {
        let detail = "should be a domain with at least two segments separated by dots";
        refuse(domain, detail.to_owned());
    }
    if domain.len() > DOMAIN_BYTES_MAX {
        errors.push(FieldError::too_long(&signer.path, DOMAIN_BYTES_MAX));
    }
}

fn validate_conditions(object: &Value, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for condition in Place::root(object, "status").get("conditions").items() {
        let (kind, status) = (condition.get("type"), condition.get("status"));
        kind.required_text(errors);
        let known: &[&str] = if LASTING.contains(&kind.text()) {
            &["True"]
        } else {
            &["False", "True", "Unknown"]
        };
        status.required_one_of(known, errors);
        let other = match kind.text() {
            "Approved" => "Denied",
            "Denied" => "Approved",
            _ => "",
        };
        if seen.contains(other) {
            let detail = "Approved and Denied conditions are mutually exclusive";
            kind.invalid(detail, errors);
        }
        if !seen.insert(kind.text()) {
            kind.duplicate(errors);
        }
    }
}

/// Whether base64 text is one signed certificate request.
fn check_request(text: &str) -> Result<(), String> {
    const NO_PEM: &str = "PEM block type must be CERTIFICATE REQUEST";
    let bytes = STANDARD.decode(text).map_err(|fault| fault.to_string())?;
    let block = Pem::iter_from_buffer(&bytes)
        .next()
        .and_then(Result::ok)
        .filter(|block| block.label == "CERTIFICATE REQUEST")
        .ok_or_else(|| NO_PEM.to_owned())?;
    let (_, request) =
        X509CertificationRequest::from_der(&block.contents).map_err(|fault| fault.to_string())?;
    request
        .verify_signature()
        .map_err(|_fault| "x509: the signature does not match the request".to_owned())
}

/// Whether base64 text is PEM with certificates only.
pub(super) fn check_certificates(text: &str) -> Result<(), String> {
    let bytes = STANDARD.decode(text).map_err(|fault| fault.to_string())?;
    check_pem(&bytes)
}

/// Whether `bytes` are PEM with certificates only.
pub(super) fn check_pem(bytes: &[u8]) -> Result<(), String> {
    let mut blocks = 0;
    for block in Pem::iter_from_buffer(bytes) {
        let block = block.map_err(|fault| fault.to_string())?;
        if block.label != "CERTIFICATE" {
            let label = block.label;
            return Err(format!(
                "only CERTIFICATE PEM blocks are allowed, found {label:?}"
            ));
        }
        block.parse_x509().map_err(|fault| fault.to_string())?;
        blocks += 1;
    }
    if blocks == 0 {
        return Err("must contain at least one CERTIFICATE PEM block".to_owned());
    }
    Ok(())
}
