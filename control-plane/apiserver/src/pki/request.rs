//! Certificates for requests of the API: the subject and names that were asked for, the usages that
//! were approved.

use std::time::Duration;

use rcgen::{CertificateSigningRequestParams, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose};

use super::{Pki, PkiError};

/// Seconds by which clocks may differ.
const SKEW_SECONDS: u64 = 300;

impl Pki {
    /// Signs a request (DER) for `seconds` from now, for `usages` as the API names them. Returns the
    /// certificate in PEM. What may be asked for was checked before.
    ///
    /// # Errors
    /// The request is broken or has extensions that are not understood.
    pub(crate) fn sign_request(
        &self,
        request_der: &[u8],
        usages: &[&str],
        seconds: u64,
    ) -> Result<String, PkiError> {
        let refused = |fault: rcgen::Error| PkiError::Refused {
            why: fault.to_string(),
        };
        let request = CertificateSigningRequestParams::from_der(&request_der.into());
        let mut request = request.map_err(refused)?;
        let params = &mut request.params;
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = usages.iter().filter_map(|usage| key_usage(usage)).collect();
        params.extended_key_usages = usages.iter().filter_map(|usage| extended(usage)).collect();
        let now = u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or_default();
        let epoch = rcgen::date_time_ymd(1970, 1, 1);
        params.not_before = epoch + Duration::from_secs(now.saturating_sub(SKEW_SECONDS));
        params.not_after = epoch + Duration::from_secs(now + seconds);
        let signed = self.sign(&request.params, &request.public_key)?;
        Ok(signed.pem())
    }
}

fn key_usage(usage: &str) -> Option<KeyUsagePurpose> {
    match usage {
        "signing" | "digital signature" => Some(KeyUsagePurpose::DigitalSignature),
        "content commitment" => Some(KeyUsagePurpose::ContentCommitment),
        "key encipherment" => Some(KeyUsagePurpose::KeyEncipherment),
        "key agreement" => Some(KeyUsagePurpose::KeyAgreement),
        "data encipherment" => Some(KeyUsagePurpose::DataEncipherment),
        _ => None,
    }
}

fn extended(usage: &str) -> Option<ExtendedKeyUsagePurpose> {
    match usage {
        "server auth" => Some(ExtendedKeyUsagePurpose::ServerAuth),
        "client auth" => Some(ExtendedKeyUsagePurpose::ClientAuth),
        _ => None,
    }
}
