//! The administrator's kubeconfig.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{Identity, PkiError, files};

/// What a kubeconfig says.
#[derive(Debug)]
pub struct Kubeconfig<'a> {
    /// Name of the cluster and the context.
    pub cluster: &'a str,
    /// `https://host:port`.
    pub server: &'a str,
    /// The authority's certificate.
    pub ca_pem: &'a str,
    /// The administrator's certificate and key.
    pub identity: &'a Identity,
}

impl Kubeconfig<'_> {
    /// The file's text.
    #[must_use]
    pub fn to_yaml(&self) -> String {
        let Self {
            cluster,
            server,
            ca_pem,
            identity,
        } = self;
        let encode = |pem: &str| STANDARD.encode(pem);
        let (ca, certificate, key) = (
            encode(ca_pem),
            encode(&identity.certificate_pem),
            encode(&identity.key_pem),
        );
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: {cluster}\nclusters:\n- name: \
             {cluster}\n  cluster:\n    server: {server}\n    certificate-authority-data: \
             {ca}\nusers:\n- name: {cluster}-admin\n  user:\n    client-certificate-data: \
             {certificate}\n    client-key-data: {key}\ncontexts:\n- name: {cluster}\n  \
             context:\n    cluster: {cluster}\n    user: {cluster}-admin\n"
        )
    }
}

/// Writes the kubeconfig, readable by its owner only.
///
/// # Errors
/// The file cannot be written.
pub fn write_kubeconfig(path: &Path, config: &Kubeconfig<'_>) -> Result<(), PkiError> {
    files::write(path, config.to_yaml().as_bytes(), files::SECRET)
}
