//! One HTTP/2 connection with the administrator's certificate.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

#[derive(Clone)]
pub(crate) struct Client {
    sender: SendRequest<Full<Bytes>>,
}

/// The lines of a watch.
pub(crate) struct Lines(Incoming);

impl Lines {
    /// Reads `count` lines.
    pub(crate) async fn lines(&mut self, count: u32) {
        let mut seen = 0;
        while seen < count {
            let frame = self.0.frame().await.expect("the watch goes on").unwrap();
            if let Ok(bytes) = frame.into_data() {
                let lines = bytes.iter().filter(|byte| **byte == b'\n').count();
                seen += u32::try_from(lines).unwrap();
            }
        }
    }
}

/// With which credential a client comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Certificate {
    /// The administrator's.
    Admin,
    /// None: it brings a token.
    None,
}

/// The TLS configuration that a kubeconfig stands for.
pub(crate) fn tls(kubeconfig: &Path, certificate: Certificate) -> TlsConnector {
    let text = std::fs::read_to_string(kubeconfig).unwrap();
    let pem = |field: &str| {
        let line = text
            .lines()
            .find_map(|line| line.trim().strip_prefix(field));
        STANDARD.decode(line.unwrap().trim()).unwrap()
    };
    let mut roots = rustls::RootCertStore::empty();
    let authority = pem("certificate-authority-data:");
    roots
        .add(CertificateDer::from_pem_slice(&authority).unwrap())
        .unwrap();
    let chain = CertificateDer::pem_slice_iter(&pem("client-certificate-data:"))
        .map(|one| one.unwrap().into_owned())
        .collect();
    let key = PrivateKeyDer::from_pem_slice(&pem("client-key-data:")).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match certificate {
        Certificate::Admin => builder.with_client_auth_cert(chain, key).unwrap(),
        Certificate::None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    TlsConnector::from(Arc::new(config))
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr, tls: &TlsConnector) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let stream = tls.connect(ServerName::from(address.ip()), stream).await?;
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(8 << 20)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(std::io::Error::other)?;
        // Ends with the connection, when the last clone of the sender is dropped.
        tokio::spawn(connection);
        Ok(Self { sender })
    }

    async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: String,
    ) -> hyper::Response<Incoming> {
        let mut request = hyper::Request::builder()
            .method(method)
            .uri(format!("https://kubernetes{path}"));
        for (name, value) in headers.iter().filter(|(_, value)| !value.is_empty()) {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::from(body))).unwrap();
        self.sender.clone().send_request(request).await.unwrap()
    }

    /// Status and length of the answer.
    pub(crate) async fn get(&self, path: &str, accept: &str) -> (u16, usize) {
        let answer = self
            .send("GET", path, &[("accept", accept)], String::new())
            .await;
        let status = answer.status().as_u16();
        let mut body = answer.into_body();
        let mut bytes = 0;
        while let Some(frame) = body.frame().await {
            bytes += frame.unwrap().data_ref().map_or(0, Bytes::len);
        }
        (status, bytes)
    }

    pub(crate) async fn text(&self, path: &str) -> (u16, Bytes) {
        let answer = self.send("GET", path, &[], String::new()).await;
        let status = answer.status().as_u16();
        (
            status,
            answer.into_body().collect().await.unwrap().to_bytes(),
        )
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> u16 {
        self.drained("POST", path, "application/json", body).await
    }

    pub(crate) async fn patch(&self, path: &str, body: &Value) -> u16 {
        let merge = "application/merge-patch+json";
        self.drained("PATCH", path, merge, body).await
    }

    /// The object that was made.
    pub(crate) async fn post_for(&self, path: &str, body: &Value) -> Value {
        let headers = [("content-type", "application/json")];
        let answer = self.send("POST", path, &headers, body.to_string()).await;
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        serde_json::from_slice(&body).unwrap()
    }

    /// Asks with a service account's token; whatever the answer is.
    pub(crate) async fn get_with_token(&self, path: &str, token: &str) {
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str())];
        let answer = self.send("GET", path, &headers, String::new()).await;
        let mut body = answer.into_body();
        while body.frame().await.is_some() {}
    }

    async fn drained(&self, method: &str, path: &str, content_type: &str, body: &Value) -> u16 {
        let headers = [("content-type", content_type)];
        let answer = self.send(method, path, &headers, body.to_string()).await;
        let status = answer.status().as_u16();
        let mut body = answer.into_body();
        while body.frame().await.is_some() {}
        status
    }

    pub(crate) async fn watch(&self, path: &str) -> Lines {
        let answer = self.send("GET", path, &[], String::new()).await;
        assert_eq!(answer.status(), 200);
        Lines(answer.into_body())
    }
}
