//! What a certificate request asks for, read from its PEM.

use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject as _;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::objects::{oid_registry, oid2sn};
use x509_parser::oid_registry::OID_X509_ORGANIZATION_NAME;
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::X509Name;

/// Subject and further names of a request.
#[derive(Debug, Default)]
pub(super) struct Asked {
    pub(super) der: Vec<u8>,
    pub(super) common_name: String,
    pub(super) organizations: Vec<String>,
    /// Number of DNS names and addresses.
    pub(super) hosts: usize,
    pub(super) emails: usize,
    pub(super) uris: usize,
}

/// Refuses a subject that names the same thing twice: what is checked would not be what is signed.
/// Of several organisations a signer says itself what it gives.
fn check_once(subject: &X509Name<'_>) -> Result<(), String> {
    let mut seen = HashSet::new();
    for attribute in subject.iter_attributes() {
        let kind = attribute.attr_type();
        if *kind != OID_X509_ORGANIZATION_NAME && !seen.insert(kind) {
            let what = oid2sn(kind, oid_registry()).unwrap_or("an attribute");
            return Err(format!("the subject has more than one {what}"));
        }
    }
    Ok(())
}

impl Asked {
    /// Reads a request in PEM in base64, as the API holds it.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let pem = STANDARD
            .decode(text)
            .map_err(|fault| format!("the request is not base64: {fault}"))?;
        let der = CertificateSigningRequestDer::from_pem_slice(&pem)
            .map_err(|fault| format!("the request is not PEM: {fault}"))?;
        let (_, request) = X509CertificationRequest::from_der(&der)
            .map_err(|fault| format!("the request cannot be read: {fault}"))?;
        request
            .verify_signature()
            .map_err(|_fault| "the request is not signed with its own key".to_owned())?;
        let subject = &request.certification_request_info.subject;
        check_once(subject)?;
        let text = |value: &x509_parser::x509::AttributeTypeAndValue<'_>| {
            value.as_str().unwrap_or_default().to_owned()
        };
        let mut asked = Self {
            der: der.to_vec(),
            common_name: subject
                .iter_common_name()
                .next()
                .map(text)
                .unwrap_or_default(),
            organizations: subject.iter_organization().map(text).collect(),
            ..Self::default()
        };
        for extension in request.requested_extensions().into_iter().flatten() {
            let ParsedExtension::SubjectAlternativeName(names) = extension else {
                continue;
            };
            for name in &names.general_names {
                match name {
                    GeneralName::DNSName(_) | GeneralName::IPAddress(_) => asked.hosts += 1,
                    GeneralName::RFC822Name(_) => asked.emails += 1,
                    GeneralName::URI(_) => asked.uris += 1,
                    _ => {}
                }
            }
        }
        Ok(asked)
    }
}

#[cfg(test)]
mod tests {
    use rcgen::DnType;

    use super::*;

    fn request(names: &[(DnType, &str)]) -> String {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["n.example".to_owned()]).unwrap();
        let mut subject = rcgen::DistinguishedName::new();
        for (kind, text) in names {
            subject.push(kind.clone(), *text);
        }
        params.distinguished_name = subject;
        STANDARD.encode(params.serialize_request(&key).unwrap().pem().unwrap())
    }

    #[test]
    fn a_request_says_who_it_is_for() {
        let names = [
            (DnType::OrganizationName, "system:nodes"),
            (DnType::CommonName, "system:node:n"),
        ];
        let asked = Asked::read(&request(&names)).unwrap();
        assert_eq!(asked.common_name, "system:node:n");
        assert_eq!(asked.organizations, ["system:nodes"]);
        assert_eq!((asked.hosts, asked.emails, asked.uris), (1, 0, 0));
        assert!(Asked::read("eA==").unwrap_err().contains("is not PEM"));
    }

    #[test]
    fn a_second_common_name_is_not_smuggled_past_the_check() {
        let second = DnType::CustomDnType(vec![2, 5, 4, 3]);
        let names = [
            (DnType::OrganizationName, "system:nodes"),
            (DnType::CommonName, "system:node:n"),
            (second, "system:kube-controller-manager"),
        ];
        let refused = Asked::read(&request(&names)).unwrap_err();
        assert!(refused.contains("more than one"), "{refused}");
    }
}
