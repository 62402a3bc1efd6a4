//! The API server's authority as the node state's: who may join, and what nodes are signed.

use std::sync::Arc;

use async_trait::async_trait;
use control_plane_apiserver::pki::Pki;
use control_plane_node_state::{AuthorityError, NodeAuthority};

/// Longest node name (RFC 1123 subdomain).
const NODE_NAME_MAX: usize = 253;

/// Signs for nodes with the cluster's CA.
pub(crate) struct Authority(pub(crate) Arc<Pki>);

#[async_trait]
impl NodeAuthority for Authority {
    async fn check_token(&self, token: &str) -> Result<(), AuthorityError> {
        if self.0.is_join_token(token) {
            Ok(())
        } else {
            Err(AuthorityError::Token)
        }
    }

    async fn sign(&self, node_name: &str, csr: &[u8]) -> Result<String, AuthorityError> {
        if !is_node_name(node_name) {
            return Err(AuthorityError::Request {
                reason: format!(
                    "node name {node_name:?} is not a DNS subdomain of lower-case letters, digits, \
                     '-' and '.'"
                ),
            });
        }
        let signed = self.0.sign_node_request(csr, node_name);
        signed.map_err(|error| AuthorityError::Request {
            reason: error.to_string(),
        })
    }

    fn ca(&self) -> String {
        self.0.ca_pem().to_owned()
    }
}

fn is_node_name(name: &str) -> bool {
    let is_label = |label: &str| {
        let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        label.starts_with(inner)
            && label.ends_with(inner)
            && label.chars().all(|c| inner(c) || c == '-')
    };
    name.len() <= NODE_NAME_MAX && name.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::is_node_name;

    #[test]
    fn a_node_name_is_a_dns_subdomain() {
        assert!(is_node_name("node-1") && is_node_name("a.example.com") && is_node_name("7"));
        for wrong in [
            "",
            "Node",
            "-a",
            "a-",
            "a..b",
            "a b",
            "node_1",
            &"a".repeat(254),
        ] {
            assert!(!is_node_name(wrong), "{wrong:?}");
        }
    }
}
