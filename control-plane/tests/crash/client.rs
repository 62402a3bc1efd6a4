//! A small HTTPS client from a kubeconfig; it keeps its connection as long as it lasts.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Beyond this an answer will not come.
const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) struct Client {
    address: SocketAddr,
    connector: TlsConnector,
    sender: Option<SendRequest<Full<Bytes>>>,
}

/// A status code, when to come again, and the body.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) retry_after: Option<u64>,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn json(&self) -> anyhow::Result<Value> {
        Ok(serde_json::from_slice(&self.body)?)
    }
}

/// How the kubeconfig's user talks to its server.
pub(crate) fn tls(kubeconfig: &Path) -> anyhow::Result<rustls::ClientConfig> {
    let text = std::fs::read_to_string(kubeconfig)?;
    let data = |field: &str| -> anyhow::Result<Vec<u8>> {
        let value = text
            .lines()
            .find_map(|line| line.trim().strip_prefix(field));
        let value = value.with_context(|| format!("no {field} in the kubeconfig"))?;
        Ok(STANDARD.decode(value.trim())?)
    };
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&data(
        "certificate-authority-data:",
    )?)?)?;
    let certificate = data("client-certificate-data:")?;
    let chain = CertificateDer::pem_slice_iter(&certificate).collect::<Result<_, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(&data("client-key-data:")?)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)?;
    Ok(config)
}

impl Client {
    pub(crate) fn new(address: SocketAddr, kubeconfig: &Path) -> anyhow::Result<Self> {
        Ok(Self {
            address,
            connector: TlsConnector::from(Arc::new(tls(kubeconfig)?)),
            sender: None,
        })
    }

    async fn connect(&self) -> anyhow::Result<SendRequest<Full<Bytes>>> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let stream = self
            .connector
            .connect(ServerName::from(self.address.ip()), stream)
            .await?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // Ends with the connection, which ends with the sender or the server.
        tokio::spawn(async move { drop(connection.await) });
        Ok(sender)
    }

    /// One request. After an error the next one takes a new connection.
    pub(crate) async fn send(
        &mut self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Answer> {
        let sent = self.try_send(method, path, body);
        match tokio::time::timeout(DEADLINE, sent).await {
            Ok(sent) => sent,
            Err(_) => bail!("{method} {path}: no answer within {DEADLINE:?}"),
        }
    }

    async fn try_send(
        &mut self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Answer> {
        // The server may have closed the connection after the last answer.
        let mut kept = self.sender.take();
        if let Some(sender) = &mut kept
            && sender.ready().await.is_err()
        {
            kept = None;
        }
        let mut sender = match kept {
            Some(sender) => sender,
            None => self.connect().await?,
        };
        let body = body.map(Value::to_string).unwrap_or_default();
        let kind = if method == "PATCH" {
            "application/merge-patch+json"
        } else {
            "application/json"
        };
        let request = hyper::Request::builder()
            .method(method)
            .uri(path)
            .header("host", "kubernetes")
            .header("content-type", kind)
            .body(Full::new(Bytes::from(body)))?;
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        let retry_after = response.headers().get("retry-after");
        let retry_after = retry_after.and_then(|value| value.to_str().ok()?.parse().ok());
        let body = response.into_body().collect().await?.to_bytes();
        self.sender = Some(sender);
        Ok(Answer {
            status,
            retry_after,
            body,
        })
    }
}
