//! A small HTTPS client: one connection a request, HTTP/1.1.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use control_plane_apiserver::pki::{Identity, Pki};
use futures::{SinkExt as _, StreamExt as _};
use http_body_util::{BodyExt as _, Full};
use hyper::HeaderMap;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

const DEADLINE: Duration = Duration::from_secs(10);

pub(crate) struct Client {
    address: SocketAddr,
    connector: TlsConnector,
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.body
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }
}

/// The lines of a watch.
pub(crate) struct Lines {
    body: Incoming,
    rest: BytesMut,
}

impl Lines {
    pub(crate) async fn next(&mut self) -> Value {
        tokio::time::timeout(DEADLINE, self.try_next())
            .await
            .unwrap()
            .expect("the watch ended")
    }

    /// The next line; `None` at the end.
    pub(crate) async fn try_next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line = self.rest.split_to(end + 1);
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let frame = self.body.frame().await?.ok()?;
            self.rest.extend_from_slice(&frame.into_data().ok()?);
        }
    }
}

/// The messages of a watch in protobuf.
pub(crate) struct Frames(Lines);

impl Frames {
    /// The next message without its length.
    pub(crate) async fn next(&mut self) -> Bytes {
        loop {
            let rest = &mut self.0.rest;
            if let Some((length, message)) = rest.split_first_chunk() {
                let length = u32::from_be_bytes(*length) as usize;
                if message.len() >= length {
                    let _length = rest.split_to(4);
                    return rest.split_to(length).freeze();
                }
            }
            let frame = tokio::time::timeout(DEADLINE, self.0.body.frame());
            let frame = frame.await.unwrap().unwrap().unwrap();
            self.0.rest.extend_from_slice(&frame.into_data().unwrap());
        }
    }
}

impl Client {
    pub(crate) fn new(address: SocketAddr, pki: &Pki, identity: Option<&Identity>) -> Self {
        let mut roots = rustls::RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(pki.ca_pem().as_bytes()).unwrap())
            .unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let chain = CertificateDer::pem_slice_iter(identity.certificate_pem.as_bytes())
                    .collect::<Result<_, _>>()
                    .unwrap();
                let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes()).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        Self {
            address,
            connector: TlsConnector::from(Arc::new(config)),
        }
    }

    /// A connection on which HTTP/2 was agreed, and nothing sent.
    pub(crate) async fn connect_h2(&self) -> TlsStream<TcpStream> {
        let mut config = (**self.connector.config()).clone();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let stream = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::from(self.address.ip());
        let connector = TlsConnector::from(Arc::new(config));
        connector.connect(name, stream).await.unwrap()
    }

    pub(crate) async fn connect(&self) -> TlsStream<TcpStream> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::from(self.address.ip());
        self.connector.connect(name, stream).await.unwrap()
    }

    async fn open(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: String,
    ) -> hyper::Response<Incoming> {
        let io = TokioIo::new(self.connect().await);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        tokio::spawn(connection);
        let mut request = hyper::Request::builder()
            .method(method)
            .uri(path)
            .header("host", "kubernetes");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::from(body))).unwrap();
        tokio::time::timeout(DEADLINE, sender.send_request(request))
            .await
            .unwrap()
            .unwrap()
    }

    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: String,
    ) -> Answer {
        let answer = self.open(method, path, headers, body).await;
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        Answer {
            status,
            headers,
            body,
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], String::new()).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send("POST", path, &[], body.to_string()).await
    }

    /// A watch in protobuf.
    pub(crate) async fn watch_protobuf(&self, path: &str) -> Frames {
        let headers = [("accept", "application/vnd.kubernetes.protobuf;stream=watch")];
        let answer = self.open("GET", path, &headers, String::new()).await;
        assert_eq!(answer.status(), 200);
        assert_eq!(
            answer.headers()["content-type"],
            "application/vnd.kubernetes.protobuf;stream=watch"
        );
        Frames(Lines {
            body: answer.into_body(),
            rest: BytesMut::new(),
        })
    }

    pub(crate) async fn watch(&self, path: &str) -> Lines {
        let answer = self.open("GET", path, &[], String::new()).await;
        assert_eq!(answer.status(), 200);
        Lines {
            body: answer.into_body(),
            rest: BytesMut::new(),
        }
    }

    /// Runs a command with `stdin`; returns its output and the final Status.
    pub(crate) async fn exec(&self, path: &str, stdin: &[u8]) -> (Vec<u8>, Value) {
        let mut request = format!("wss://kubernetes{path}")
            .into_client_request()
            .unwrap();
        let protocol = "v5.channel.k8s.io".parse().unwrap();
        request
            .headers_mut()
            .insert("sec-websocket-protocol", protocol);
        let stream = self.connect().await;
        let (mut socket, answer) = tokio_tungstenite::client_async(request, stream)
            .await
            .unwrap();
        assert_eq!(
            answer.headers()["sec-websocket-protocol"],
            "v5.channel.k8s.io"
        );
        for message in [[&[0], stdin].concat(), vec![255, 0]] {
            socket.send(Message::Binary(message.into())).await.unwrap();
        }
        let (mut out, mut status) = (Vec::new(), Value::Null);
        while let Some(message) = tokio::time::timeout(DEADLINE, socket.next()).await.unwrap() {
            match message.unwrap() {
                Message::Close(frame) => {
                    assert_eq!(u16::from(frame.unwrap().code), 1000, "a normal closure");
                    return (out, status);
                }
                Message::Binary(bytes) if bytes[0] == 1 => out.extend_from_slice(&bytes[1..]),
                Message::Binary(bytes) if bytes[0] == 3 => {
                    status = serde_json::from_slice(&bytes[1..]).unwrap();
                }
                other => panic!("unexpected {other:?}"),
            }
        }
        panic!("the connection broke");
    }
}
