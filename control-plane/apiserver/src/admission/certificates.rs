//! Certificate signing requests: who asks is who is asked for, and only who may approve or sign
//! for a signer does.
//!
//! Covers CertificateApproval, CertificateSigning and CertificateSubjectRestriction.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer as _;

use super::Admission;
use crate::auth::{Attributes, MASTERS, User};
use crate::server::Target;
use crate::status::StatusError;
use crate::tree;

const GROUP: &str = "certificates.k8s.io";
const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";

fn is_request(target: &Target) -> bool {
    target.kind.group == GROUP && target.kind.plural == "certificatesigningrequests"
}

/// Notes who asks in a new request, whatever it says itself, and refuses one for the owners.
pub(super) fn complete(
    target: &Target,
    user: &User,
    object: &mut Value,
) -> Result<(), StatusError> {
    if !is_request(target) {
        return Ok(());
    }
    let spec = tree::object_mut(object, "spec");
    for field in ["username", "uid", "groups", "extra"] {
        spec.shift_remove(field);
    }
    spec.insert("username".to_owned(), json!(user.name));
    spec.insert("groups".to_owned(), json!(user.groups));
    if !user.uid.is_empty() {
        spec.insert("uid".to_owned(), json!(user.uid));
    }
    if !user.extra.is_empty() {
        spec.insert("extra".to_owned(), json!(user.extra));
    }
    let signer = tree::text(object, &["spec", "signerName"]);
    let request = tree::text(object, &["spec", "request"]);
    if signer == CLIENT_SIGNER && asks_for_group(request, MASTERS) {
        let why = format!("use of {CLIENT_SIGNER} signer with {MASTERS} group is not allowed");
        return Err(forbidden(target, &why));
    }
    Ok(())
}

/// Whether a request (PEM in base64) asks for organisation `group`. One that cannot be read asks
/// for nothing: validation refuses it.
fn asks_for_group(request: &str, group: &str) -> bool {
    let Some(der) = STANDARD
        .decode(request)
        .ok()
        .and_then(|pem| CertificateSigningRequestDer::from_pem_slice(&pem).ok())
    else {
        return false;
    };
    let Ok((_, parsed)) = X509CertificationRequest::from_der(&der) else {
        return false;
    };
    let subject = &parsed.certification_request_info.subject;
    subject
        .iter_organization()
        .any(|name| name.as_str().is_ok_and(|name| name == group))
}

impl Admission {
    /// Refuses an approval or a signature by who may not, for the request's signer.
    pub(super) fn check_certificate(
        &self,
        target: &Target,
        user: &User,
        new: &Value,
        old: &Value,
    ) -> Result<(), StatusError> {
        if !is_request(target) {
            return Ok(());
        }
        let changed = |field: &str| {
            let path = ["status", field];
            !tree::same(tree::at(new, &path), tree::at(old, &path))
        };
        let verb = match target.subresource.map(crate::registry::Subresource::name) {
            Some("approval") => "approve",
            Some("status") if changed("certificate") || changed("conditions") => "sign",
            _ => return Ok(()),
        };
        let signer = tree::text(old, &["spec", "signerName"]);
        if self.may_for_signer(user, verb, signer) {
            return Ok(());
        }
        let why = format!("user not permitted to {verb} requests with signerName {signer:?}");
        Err(forbidden(target, &why))
    }

    /// Whether `user` has `verb` on the signer, or on all signers of its domain.
    fn may_for_signer(&self, user: &User, verb: &str, signer: &str) -> bool {
        let may = |name: String| {
            let asked = Attributes {
                verb: verb.to_owned(),
                group: GROUP.to_owned(),
                version: "v1".to_owned(),
                resource: "signers".to_owned(),
                name,
                ..Attributes::default()
            };
            self.authorizer.authorize(user, &asked).is_allowed()
        };
        let domain = signer.split('/').next().unwrap_or_default();
        may(signer.to_owned()) || may(format!("{domain}/*"))
    }
}

fn forbidden(target: &Target, why: &str) -> StatusError {
    StatusError::forbidden(target.kind.group_resource(), &target.key.name, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_for_the_owners_group_is_seen() {
        let request = |group: &str| {
            let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
            let mut params = rcgen::CertificateParams::default();
            let mut name = rcgen::DistinguishedName::new();
            name.push(rcgen::DnType::OrganizationName, group);
            params.distinguished_name = name;
            STANDARD.encode(params.serialize_request(&key).unwrap().pem().unwrap())
        };
        assert!(asks_for_group(&request(MASTERS), MASTERS));
        assert!(!asks_for_group(&request("dev"), MASTERS));
        assert!(!asks_for_group("garbage", MASTERS));
    }
}
