//! HTTP, HTTPS and gRPC probes: one connection a request, no verification of certificates.

use std::sync::Arc;
use std::time::Duration;

use http::{Request, Uri};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use prost::Message;
use proto_api::types::core::v1::{Container, HTTPGetAction};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tonic::transport::Endpoint;

use super::port_number;
use super::run::{bracketed, words};

const BODY_MAX_BYTES: usize = 10 * 1024;
const REDIRECTS_MAX: usize = 10;
const USER_AGENT: &str = concat!("kube-probe/skep-", env!("CARGO_PKG_VERSION"));

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HttpTarget {
    tls: bool,
    host: String,
    port: u16,
    path: String,
    headers: Vec<(String, String)>,
}

impl HttpTarget {
    /// Reads an `httpGet` action; the pod's address stands in for an absent host.
    pub(crate) fn new(
        action: &HTTPGetAction,
        container: &Container,
        pod_ip: &str,
    ) -> Result<Self, String> {
        let host = action
            .host
            .as_deref()
            .filter(|host| !host.is_empty())
            .unwrap_or(pod_ip);
        let path = action
            .path
            .as_deref()
            .filter(|path| !path.is_empty())
            .unwrap_or("/");
        Ok(Self {
            tls: action
                .scheme
                .as_deref()
                .is_some_and(|s| s.eq_ignore_ascii_case("https")),
            host: host.to_owned(),
            port: port_number(&action.port, container)?,
            path: if path.starts_with('/') {
                path.to_owned()
            } else {
                format!("/{path}")
            },
            headers: action
                .http_headers
                .iter()
                .map(|header| (header.name.clone(), header.value.clone()))
                .collect(),
        })
    }

    fn url(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!(
            "{scheme}://{}:{}{}",
            bracketed(&self.host),
            self.port,
            self.path
        )
    }
}

/// Makes requests; cheap to clone.
#[derive(Clone)]
pub(crate) struct HttpClient {
    tls: tokio_rustls::TlsConnector,
}

impl HttpClient {
    /// # Errors
    /// The text of rustls' error when its provider offers no protocol version.
    pub(crate) fn new() -> Result<Self, String> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
            .with_no_client_auth();
        Ok(Self {
            tls: tokio_rustls::TlsConnector::from(Arc::new(config)),
        })
    }

    /// Gets; success is any status from 200 to 399. Answers the status.
    pub(crate) async fn get(&self, target: &HttpTarget, timeout: Duration) -> Result<u16, String> {
        let url = target.url();
        match tokio::time::timeout(timeout, self.follow(target.clone())).await {
            Ok(Ok(status)) if (200..400).contains(&status) => Ok(status),
            Ok(Ok(status)) => Err(format!("HTTP probe failed with statuscode: {status}")),
            Ok(Err(error)) => Err(format!("Get \"{url}\": {error}")),
            Err(_elapsed) => Err(format!(
                "Get \"{url}\": context deadline exceeded (Client.Timeout exceeded while awaiting \
                 headers)"
            )),
        }
    }

    async fn follow(&self, mut target: HttpTarget) -> Result<u16, String> {
        for _ in 0..REDIRECTS_MAX {
            let (status, location) = self.once(&target).await?;
            let redirect = matches!(status, 301 | 302 | 303 | 307 | 308);
            let Some(next) = location
                .filter(|_| redirect)
                .and_then(|to| elsewhere(&target, &to))
            else {
                return Ok(status);
            };
            target = next;
        }
        Err(format!("stopped after {REDIRECTS_MAX} redirects"))
    }

    async fn once(&self, target: &HttpTarget) -> Result<(u16, Option<String>), String> {
        let address = format!("{}:{}", bracketed(&target.host), target.port);
        let stream = TcpStream::connect(&address)
            .await
            .map_err(|error| format!("dial tcp {address}: connect: {}", words(&error)))?;
        if target.tls {
            let name = ServerName::try_from(target.host.clone()).map_err(|e| e.to_string())?;
            let stream = self
                .tls
                .connect(name, stream)
                .await
                .map_err(|e| e.to_string())?;
            exchange(target, stream).await
        } else {
            exchange(target, stream).await
        }
    }
}

async fn exchange(
    target: &HttpTarget,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send,
) -> Result<(u16, Option<String>), String> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    let own_host = target
        .headers
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case("host"));
    let host = own_host.map_or_else(
        || format!("{}:{}", bracketed(&target.host), target.port),
        |(_, value)| value.clone(),
    );
    let mut request = Request::get(&target.path)
        .header(http::header::HOST, host)
        .header(http::header::USER_AGENT, USER_AGENT)
        .header(http::header::ACCEPT, "*/*")
        .header(http::header::CONNECTION, "close");
    for (name, value) in &target.headers {
        if !name.eq_ignore_ascii_case("host") {
            request = request.header(name, value);
        }
    }
    let request = request
        .body(Empty::<bytes::Bytes>::new())
        .map_err(|error| error.to_string())?;
    let answer = async move {
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| error.to_string())?;
        let status = response.status().as_u16();
        let location = response.headers().get(http::header::LOCATION);
        let location = location
            .and_then(|value| value.to_str().ok())
            .map(ToOwned::to_owned);
        // A body that is too long or breaks off does not change the verdict.
        let _read = Limited::new(response.into_body(), BODY_MAX_BYTES)
            .collect()
            .await;
        Ok((status, location))
    };
    // The connection does the work of the request; it may end with the answer already read.
    let (mut answer, mut connection) = (std::pin::pin!(answer), std::pin::pin!(connection));
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        ended = &mut connection => {
            ended.map_err(|error| error.to_string())?;
            answer.await
        }
    }
}

/// The next target of a redirect on the same host; `None` leads elsewhere, which counts as success.
fn elsewhere(from: &HttpTarget, location: &str) -> Option<HttpTarget> {
    if let Some(path) = location
        .strip_prefix('/')
        .filter(|rest| !rest.starts_with('/'))
    {
        return Some(HttpTarget {
            path: format!("/{path}"),
            ..from.clone()
        });
    }
    let uri: Uri = location.parse().ok()?;
    let host = uri.host()?.trim_matches(['[', ']']).to_owned();
    let tls = uri.scheme_str() == Some("https");
    let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
    let path = uri
        .path_and_query()
        .map_or("/", |path| path.as_str())
        .to_owned();
    (host == from.host).then(|| HttpTarget {
        tls,
        host,
        port,
        path,
        headers: from.headers.clone(),
    })
}

/// Accepts every certificate: a probe asks whether a server answers, not who it is.
#[derive(Debug)]
struct AnyCertificate(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// `grpc.health.v1.HealthCheckRequest`.
#[derive(Clone, PartialEq, Eq, Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

/// `grpc.health.v1.HealthCheckResponse`.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
struct HealthCheckResponse {
    /// 1 is SERVING.
    #[prost(int32, tag = "1")]
    status: i32,
}

/// Asks a gRPC server for its health.
pub(super) async fn grpc_health(
    host: &str,
    port: u16,
    service: String,
    timeout: Duration,
) -> Result<(), String> {
    let address = format!("{}:{port}", bracketed(host));
    let ask = async {
        let endpoint = Endpoint::from_shared(format!("http://{address}"));
        let channel = endpoint
            .map_err(|e| e.to_string())?
            .connect()
            .await
            .map_err(|error| error.to_string())?;
        let mut client = tonic::client::Grpc::new(channel);
        client.ready().await.map_err(|error| error.to_string())?;
        let path = http::uri::PathAndQuery::from_static("/grpc.health.v1.Health/Check");
        let codec = tonic_prost::ProstCodec::<HealthCheckRequest, HealthCheckResponse>::default();
        let request = tonic::Request::new(HealthCheckRequest { service });
        let answer = client.unary(request, path, codec).await;
        answer
            .map(tonic::Response::into_inner)
            .map_err(|status| status.message().to_owned())
    };
    match tokio::time::timeout(timeout, ask).await {
        Ok(Ok(HealthCheckResponse { status: 1 })) => Ok(()),
        Ok(Ok(HealthCheckResponse { status })) => {
            Err(format!("service unhealthy (responded with \"{status}\")"))
        }
        Ok(Err(error)) => Err(format!("error: rpc error: {error}")),
        Err(_elapsed) => Err(format!(
            "timeout: failed to connect service \"{address}\" within {timeout:?}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_are_followed_on_the_same_host_only() {
        let from = HttpTarget {
            tls: false,
            host: "10.0.0.1".to_owned(),
            port: 80,
            path: "/a".to_owned(),
            headers: Vec::new(),
        };
        assert_eq!(elsewhere(&from, "/b?c=d").unwrap().path, "/b?c=d");
        assert_eq!(
            elsewhere(&from, "https://10.0.0.1:8443/x").unwrap().port,
            8443
        );
        assert_eq!(elsewhere(&from, "http://other/x"), None);
        assert_eq!(elsewhere(&from, "//other/x"), None);
    }
}
