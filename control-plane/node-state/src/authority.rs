//! The seam to whoever signs node certificates.

use async_trait::async_trait;

/// Why a node got no certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthorityError {
    /// The join token is not one of this cluster.
    #[error("the join token is not valid in this cluster")]
    Token,
    /// The request is no signing request, or asks for what a node may not have.
    #[error("the certificate request is not acceptable: {reason}")]
    Request {
        /// What is wrong with it.
        reason: String,
    },
    /// The authority itself failed.
    #[error("the certificate could not be signed: {reason}")]
    Internal {
        /// Why.
        reason: String,
    },
}

/// Signs client certificates for nodes.
#[async_trait]
pub trait NodeAuthority: Send + Sync + 'static {
    /// Checks a join token.
    async fn check_token(&self, token: &str) -> Result<(), AuthorityError>;

    /// Signs `csr` (PKCS#10, DER) for `O=system:nodes, CN=system:node:<node_name>`, whatever subject
    /// the request names. Answers the certificate as PEM.
    async fn sign(&self, node_name: &str, csr: &[u8]) -> Result<String, AuthorityError>;

    /// The cluster's CA, PEM.
    fn ca(&self) -> String;
}
