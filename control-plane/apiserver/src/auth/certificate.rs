//! Who a client certificate speaks for.

use aws_lc_rs::digest;
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::FromDer as _;

use super::User;

/// Common name and organisations of a certificate that TLS has verified; `None` without a name.
pub(crate) fn certificate_user(der: &CertificateDer<'_>) -> Option<User> {
    let (_, certificate) = x509_parser::certificate::X509Certificate::from_der(der).ok()?;
    let subject = certificate.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
    let groups: Vec<String> = subject
        .iter_organization()
        .filter_map(|group| group.as_str().ok().map(str::to_owned))
        .collect();
    if name.is_empty() {
        return None;
    }
    let mut user = User::known(&name, groups);
    let hash = digest::digest(&digest::SHA256, der);
    let hash: String = hash.as_ref().iter().map(|b| format!("{b:02x}")).collect();
    user.extra.insert(
        "authentication.kubernetes.io/credential-id".to_owned(),
        vec![format!("X509SHA256={hash}")],
    );
    Some(user)
}
