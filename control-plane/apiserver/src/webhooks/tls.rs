//! TLS to webhooks: which certificates are right.

use std::sync::{Arc, OnceLock};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use x509_parser::prelude::{ASN1Time, FromDer as _, X509Certificate};

/// Where the machine keeps the authorities that everybody trusts; the first that is there counts.
const SYSTEM_BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Why TLS to a webhook cannot be set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error("unable to load root certificates: unable to parse bytes as PEM block")]
    CaBundle,
    #[error("no caBundle is given, and this machine has no bundle of authorities")]
    NoAuthorities,
    #[error(transparent)]
    Tls(#[from] Error),
    #[error("no certificate verifier: {0}")]
    Verifier(#[from] rustls::client::VerifierBuilderError),
}

/// TLS that trusts the authorities of `ca_bundle` (PEM), or the machine's when it is empty.
pub(super) fn client_config(ca_bundle: &[u8]) -> Result<ClientConfig, TlsError> {
    let anchors = if ca_bundle.is_empty() {
        let system = system_authorities();
        if system.is_empty() {
            return Err(TlsError::NoAuthorities);
        }
        system.to_vec()
    } else {
        let own: Vec<_> = CertificateDer::pem_slice_iter(ca_bundle)
            .filter_map(Result::ok)
            .collect();
        if own.is_empty() {
            return Err(TlsError::CaBundle);
        }
        own
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(anchors.iter().cloned());
    if added == 0 {
        return Err(TlsError::CaBundle);
    }
    let chains =
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()?;
    let verifier = Arc::new(Verifier { chains, anchors });
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn system_authorities() -> &'static [CertificateDer<'static>] {
    static FOUND: OnceLock<Vec<CertificateDer<'static>>> = OnceLock::new();
    FOUND.get_or_init(|| {
        let own = std::env::var("SSL_CERT_FILE").ok();
        let files = own
            .iter()
            .map(String::as_str)
            .chain(SYSTEM_BUNDLES.iter().copied());
        for file in files {
            if let Ok(certificates) = CertificateDer::pem_file_iter(file) {
                return certificates.filter_map(Result::ok).collect();
            }
        }
        Vec::new()
    })
}

/// The usual rules, and one more: a certificate that the bundle holds itself is right for its own
/// names while it is valid, also when it calls itself an authority (as in Go, where such a
/// certificate is a chain of one).
#[derive(Debug)]
struct Verifier {
    chains: Arc<WebPkiServerVerifier>,
    anchors: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let chained = self
            .chains
            .verify_server_cert(certificate, between, name, ocsp, now);
        let is_own = || self.anchors.iter().any(|own| own == certificate);
        match chained {
            Err(Error::InvalidCertificate(CertificateError::Other(_))) if is_own() => {
                let parsed = ParsedCertificate::try_from(certificate)?;
                rustls::client::verify_server_name(&parsed, name)?;
                check_dates(certificate, now)?;
                Ok(ServerCertVerified::assertion())
            }
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains
            .verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains
            .verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chains.supported_verify_schemes()
    }
}

fn check_dates(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
    let bad = || Error::InvalidCertificate(CertificateError::BadEncoding);
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_form| bad())?;
    let seconds = i64::try_from(now.as_secs()).map_err(|_range| bad())?;
    let now = ASN1Time::from_timestamp(seconds).map_err(|_range| bad())?;
    let validity = parsed.validity();
    let error = if now < validity.not_before {
        CertificateError::NotValidYet
    } else if now > validity.not_after {
        CertificateError::Expired
    } else {
        return Ok(());
    };
    Err(Error::InvalidCertificate(error))
}

/// What is wrong with a handshake, in the words that Kubernetes users know.
pub(super) fn told(fault: &std::io::Error) -> String {
    let inner = fault.get_ref().and_then(|inner| inner.downcast_ref());
    let Some(Error::InvalidCertificate(why)) = inner else {
        return fault.to_string();
    };
    let why = match why {
        CertificateError::UnknownIssuer => {
            "x509: certificate signed by unknown authority".to_owned()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "x509: certificate has expired or is not yet valid".to_owned()
        }
        other => format!("x509: {other}"),
    };
    format!("tls: failed to verify certificate: {why}")
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};

    use super::*;

    fn self_signed(is_authority: bool) -> rcgen::Certificate {
        let mut params = CertificateParams::new(vec!["hook.d.svc".to_owned()]).unwrap();
        if is_authority {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }
        params.self_signed(&KeyPair::generate().unwrap()).unwrap()
    }

    fn verify(bundle: &str, certificate: &rcgen::Certificate, name: &'static str) -> String {
        let anchors: Vec<_> = CertificateDer::pem_slice_iter(bundle.as_bytes())
            .collect::<Result<_, _>>()
            .unwrap();
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(anchors.iter().cloned());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let chains = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .unwrap();
        let verifier = Verifier { chains, anchors };
        let name = ServerName::try_from(name).unwrap();
        let told = verifier.verify_server_cert(certificate.der(), &[], &name, &[], UnixTime::now());
        match told {
            Ok(_) => "right".to_owned(),
            Err(fault) => super::told(&std::io::Error::other(fault)),
        }
    }

    #[test]
    fn a_certificate_that_the_bundle_holds_is_right_for_its_names() {
        for is_authority in [true, false] {
            let own = self_signed(is_authority);
            assert_eq!(verify(&own.pem(), &own, "hook.d.svc"), "right");
            assert!(verify(&own.pem(), &own, "other.d.svc").starts_with("tls: failed to verify"));
        }
    }

    #[test]
    fn a_certificate_of_nobody_known_is_refused() {
        let (own, other) = (self_signed(true), self_signed(true));
        let expected = "tls: failed to verify certificate: x509: certificate signed by unknown \
                        authority";
        let told = verify(&own.pem(), &other, "hook.d.svc");
        assert!(
            told == expected || told.contains("certificate"),
            "refused: {told}"
        );
        assert_ne!(told, "right");
    }

    #[test]
    fn a_bundle_without_a_certificate_is_told() {
        let fault = client_config(b"nothing").unwrap_err();
        assert_eq!(
            fault.to_string(),
            "unable to load root certificates: unable to parse bytes as PEM block"
        );
    }
}
