//! Whom a proxied request is for: `[SCHEME:]NAME[:PORT]` of a pod, a service or a node.

use std::sync::Arc;

use proto_api::selector::Labels;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::client::TlsStream;

use super::assigned_node;
use crate::cache::{Filter, ListRequest};
use crate::node_streams::{PortAt, PortRequest};
use crate::server::{Server, Target};
use crate::status::StatusError;
use crate::tree;
use crate::webhooks::backends;

const HTTP: u16 = 80;

/// Who answers.
#[derive(Debug)]
pub(super) enum ProxyTo {
    Pod(ProxyPod),
    /// A node's agent itself.
    Agent {
        node: String,
    },
}

/// A port of a pod.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ProxyPod {
    pub(super) node: String,
    pub(super) request: PortRequest,
    pub(super) https: bool,
}

/// The parts of a proxied name.
#[derive(Debug, PartialEq, Eq)]
struct Named<'a> {
    https: bool,
    name: &'a str,
    port: &'a str,
}

/// `NAME`, `NAME:PORT`, `SCHEME:NAME:PORT`; `None` for anything else.
fn split_name(text: &str) -> Option<Named<'_>> {
    let parts: Vec<&str> = text.split(':').collect();
    let (scheme, name, port) = match parts.as_slice() {
        [name] => ("", *name, ""),
        [name, port] => ("", *name, *port),
        [scheme, name, port] => (*scheme, *name, *port),
        _ => return None,
    };
    let https = match scheme {
        "" | "http" => false,
        "https" => true,
        _ => return None,
    };
    (!name.is_empty()).then_some(Named { https, name, port })
}

/// Finds who answers.
///
/// # Errors
/// The object does not exist, its name cannot be read, or nobody answers for it.
pub(super) async fn find(server: &Server, target: &Target) -> Result<ProxyTo, StatusError> {
    let text = &target.key.name;
    let kind = target.kind.kind;
    let named = split_name(text).ok_or_else(|| {
        let what = kind.to_lowercase();
        StatusError::bad_request(format!("invalid {what} request \"{text}\""))
    })?;
    let object = Target::new(&target.kind, &target.key.namespace, named.name);
    let value = server.get(&object, None).await?.value();
    match kind {
        "Node" => Ok(ProxyTo::Agent {
            node: named.name.to_owned(),
        }),
        "Pod" => {
            let port = match named.port {
                "" => first_port(&value),
                text => text.parse().map_err(|_bad| no_port(kind, &named))?,
            };
            pod(&object, &value, port, named.https).map(ProxyTo::Pod)
        }
        _ => service(server, &object, &value, &named)
            .await
            .map(ProxyTo::Pod),
    }
}

fn no_port(kind: &str, named: &Named<'_>) -> StatusError {
    let kind = kind.to_lowercase();
    let message = format!(
        "no {kind} port \"{}\" found for {kind} \"{}\"",
        named.port, named.name
    );
    StatusError::new(503, "ServiceUnavailable", message)
}

/// The first port that a container names.
fn first_port(pod: &Value) -> u16 {
    let containers = tree::list(pod, &["spec", "containers"]).iter();
    let mut ports = containers.filter_map(|c| tree::list(c, &["ports"]).first());
    let first = ports.find_map(|port| tree::int(port, &["containerPort"]));
    first
        .and_then(|port| u16::try_from(port).ok())
        .unwrap_or(HTTP)
}

fn pod(target: &Target, pod: &Value, port: u16, https: bool) -> Result<ProxyPod, StatusError> {
    Ok(ProxyPod {
        node: assigned_node(target, pod)?.to_owned(),
        request: PortRequest {
            namespace: target.key.namespace.to_string(),
            pod: target.key.name.to_string(),
            pod_uid: tree::text(pod, &["metadata", "uid"]).to_owned(),
            port,
            at: PortAt::PodAddress,
        },
        https,
    })
}

/// A ready pod behind a service.
async fn service(
    server: &Server,
    target: &Target,
    service: &Value,
    named: &Named<'_>,
) -> Result<ProxyPod, StatusError> {
    let ports = tree::list(service, &["spec", "ports"]);
    let found = match named.port {
        "" => ports.first().filter(|_| ports.len() == 1),
        text => ports.iter().find(|port| {
            let number = tree::int(port, &["port"]).map(|n| n.to_string());
            tree::text(port, &["name"]) == text || number.as_deref() == Some(text)
        }),
    };
    let port = found.ok_or_else(|| no_port("service", named))?;
    let port_name = tree::text(port, &["name"]);
    let slices = server.kind("discovery.k8s.io", "v1", "endpointslices")?;
    let mut filter = Filter::in_namespace(&target.key.namespace);
    let selector = format!("kubernetes.io/service-name={}", target.key.name);
    let selector = Labels::parse(&selector);
    filter.labels = Some(selector.map_err(|fault| StatusError::bad_request(fault.to_string()))?);
    let request = ListRequest {
        filter,
        ..ListRequest::default()
    };
    let slices = server.list(&slices, &request).await?;
    let slices: Vec<Value> = slices.items.iter().map(|slice| slice.value()).collect();
    let mut backends: Vec<_> = backends(&slices, port_name)
        .into_iter()
        .filter_map(|backend| {
            let (name, uid) = backend.pod?;
            Some((name, uid, backend.port))
        })
        .collect();
    if backends.is_empty() {
        let message = format!("no endpoints available for service \"{}\"", target.key.name);
        return Err(StatusError::new(503, "ServiceUnavailable", message));
    }
    let chosen = rand::random_range(0..backends.len());
    let (name, uid, number) = backends.swap_remove(chosen);
    let pods = server.kind("", "v1", "pods")?;
    let backend = Target::new(&pods, &target.key.namespace, &name);
    let value = server.get(&backend, None).await?.value();
    let mut to = pod(&backend, &value, number, named.https)?;
    to.request.pod_uid = uid;
    Ok(to)
}

/// TLS to a pod, whose certificate is not checked: as upstream, nobody says which one is right.
pub(super) async fn tls<T>(io: T) -> Result<TlsStream<T>, std::io::Error>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(std::io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(any::AnyCertificate(provider)))
        .with_no_client_auth();
    let name = ServerName::try_from("pod").map_err(std::io::Error::other)?;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    connector.connect(name, io).await
}

/// A verifier that takes every certificate.
mod any {
    use std::sync::Arc;

    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
    use rustls::{DigitallySignedStruct, Error, SignatureScheme};
    use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

    #[derive(Debug)]
    pub(super) struct AnyCertificate(pub(super) Arc<CryptoProvider>);

    impl ServerCertVerifier for AnyCertificate {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            Ok(ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            let algorithms = &self.0.signature_verification_algorithms;
            verify_tls12_signature(message, certificate, signed, algorithms)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            let algorithms = &self.0.signature_verification_algorithms;
            verify_tls13_signature(message, certificate, signed, algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.0.signature_verification_algorithms.supported_schemes()
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_name_may_carry_a_scheme_and_a_port() {
        let named = |https, name, port| Some(Named { https, name, port });
        assert_eq!(split_name("web"), named(false, "web", ""));
        assert_eq!(split_name("web:8080"), named(false, "web", "8080"));
        assert_eq!(split_name("https:web:"), named(true, "web", ""));
        assert_eq!(split_name("http:web:http"), named(false, "web", "http"));
        for bad in ["", "ftp:web:1", "a:b:c:d", ":80"] {
            assert_eq!(split_name(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_first_named_port_of_a_pod_is_taken() {
        let pod = json!({"spec": {"containers": [{}, {"ports": [{"containerPort": 8080}]}]}});
        assert_eq!(first_port(&pod), 8080);
        assert_eq!(first_port(&json!({"spec": {"containers": [{}]}})), 80);
    }
}
