//! Certificates for servers, clients and nodes.

use std::net::IpAddr;
use std::time::Duration;

use rcgen::{
    Certificate, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, PublicKeyData, SanType,
};

use super::{Pki, PkiError};
use crate::auth::NODES;

const DAY_SECONDS: u64 = 86_400;
/// Seconds by which clocks may differ, or be set back, without turning anybody away.
const SKEW_SECONDS: u64 = DAY_SECONDS;
/// Days that a server's or administrator's certificate is valid.
const IDENTITY_DAYS: u64 = 365;
/// Days that a node's certificate is valid; nodes renew theirs before.
pub const NODE_CERTIFICATE_DAYS: u64 = 365;

/// A certificate (with the authority's behind it) and its key, in PEM.
#[derive(Clone)]
pub struct Identity {
    /// Certificate chain.
    pub certificate_pem: String,
    /// PKCS#8 key.
    pub key_pem: String,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity")
            .field("certificate_pem", &self.certificate_pem)
            .finish_non_exhaustive()
    }
}

/// Valid from five minutes ago, for clocks that differ, to `days` from now.
pub(super) fn set_validity(params: &mut CertificateParams, days: u64) {
    let now = u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or_default();
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + Duration::from_secs(now.saturating_sub(SKEW_SECONDS));
    params.not_after = epoch + Duration::from_secs(now + days * DAY_SECONDS);
}

impl Pki {
    /// A new key and certificate for a server that is reached by `names` (DNS names or
    /// addresses).
    ///
    /// # Errors
    /// A name is no DNS name; or signing fails.
    pub fn server_identity(
        &self,
        common_name: &str,
        names: &[String],
    ) -> Result<Identity, PkiError> {
        let mut params = subject(common_name, &[]);
        for name in names {
            let san = match name.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(name.as_str().try_into().map_err(|source| {
                    PkiError::Certificate {
                        what: format!("use {name} as a DNS name"),
                        source,
                    }
                })?),
            };
            params.subject_alt_names.push(san);
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.identity(params)
    }

    /// A new key and certificate for a client in `groups`.
    ///
    /// # Errors
    /// Signing fails.
    pub fn client_identity(&self, user: &str, groups: &[&str]) -> Result<Identity, PkiError> {
        let mut params = subject(user, groups);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.identity(params)
    }

    /// Signs a node's request (DER). Only its public key is used; the subject must be that of
    /// `node`. Returns the certificate in PEM.
    ///
    /// # Errors
    /// The request is broken, or asks to be somebody else.
    pub fn sign_node_request(&self, request_der: &[u8], node: &str) -> Result<String, PkiError> {
        let refused = |why: String| PkiError::Refused { why };
        let problems = proto_api::names::dns_subdomain(node);
        if !problems.is_empty() {
            return Err(refused(format!(
                "node name {node:?}: {}",
                problems.join(", ")
            )));
        }
        let name = format!("system:node:{node}");
        let request = CertificateSigningRequestParams::from_der(&request_der.into())
            .map_err(|fault| refused(fault.to_string()))?;
        let asked = text(&request.params, &DnType::CommonName);
        if asked.as_deref() != Some(name.as_str()) {
            let asked = asked.unwrap_or_default();
            let why = format!("common name {asked:?} is not {name:?}");
            return Err(refused(why));
        }
        let group = text(&request.params, &DnType::OrganizationName);
        if group.as_deref() != Some(NODES) {
            let why = format!(
                "organisation {:?} is not {NODES:?}",
                group.unwrap_or_default()
            );
            return Err(refused(why));
        }
        let mut params = subject(&name, &[NODES]);
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ClientAuth,
            ExtendedKeyUsagePurpose::ServerAuth,
        ];
        set_validity(&mut params, NODE_CERTIFICATE_DAYS);
        Ok(self.sign(&params, &request.public_key)?.pem())
    }

    fn identity(&self, mut params: CertificateParams) -> Result<Identity, PkiError> {
        set_validity(&mut params, IDENTITY_DAYS);
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(|source| {
            PkiError::Certificate {
                what: "make a key".to_owned(),
                source,
            }
        })?;
        let certificate = self.sign(&params, &key)?;
        Ok(Identity {
            certificate_pem: format!("{}{}", certificate.pem(), self.ca_pem()),
            key_pem: key.serialize_pem(),
        })
    }

    pub(super) fn sign(
        &self,
        params: &CertificateParams,
        key: &impl PublicKeyData,
    ) -> Result<Certificate, PkiError> {
        params
            .signed_by(key, &self.issuer)
            .map_err(|source| PkiError::Certificate {
                what: "sign a certificate".to_owned(),
                source,
            })
    }
}

fn subject(common_name: &str, groups: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    for group in groups {
        name.push(DnType::OrganizationName, *group);
    }
    name.push(DnType::CommonName, common_name);
    params.distinguished_name = name;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params
}

fn text(params: &CertificateParams, kind: &DnType) -> Option<String> {
    match params.distinguished_name.get(kind)? {
        rcgen::DnValue::Utf8String(text) => Some(text.clone()),
        rcgen::DnValue::PrintableString(text) => Some(text.as_str().to_owned()),
        _ => None,
    }
}
