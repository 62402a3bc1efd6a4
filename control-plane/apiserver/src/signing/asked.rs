//! What a certificate request asks for, read from its PEM.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject as _;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer as _;

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
