//! A webhook: an HTTPS server of this process that answers by a function and remembers what it was
//! asked.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use parking_lot::Mutex;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls_pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// Answers the body of a question to a path.
type Answer = dyn Fn(&str, &Value) -> (u16, Value) + Send + Sync;

pub(crate) struct Hook {
    pub(crate) port: u16,
    pub(crate) ca_bundle: String,
    asked: Arc<Mutex<Vec<(String, Value)>>>,
    connections: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Hook {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Hook {
    /// Serves on a free port, with a certificate for this machine and `hook.default.svc`.
    pub(crate) async fn serve(
        answer: impl Fn(&str, &Value) -> (u16, Value) + Send + Sync + 'static,
    ) -> Self {
        let (tls, ca_bundle) = tls();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked: Arc<Mutex<Vec<(String, Value)>>> = Arc::default();
        let connections = Arc::new(AtomicUsize::new(0));
        let (noted, counted) = (Arc::clone(&asked), Arc::clone(&connections));
        let answer: Arc<Answer> = Arc::new(answer);
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (tls, noted) = (tls.clone(), Arc::clone(&noted));
                let (answer, counted) = (Arc::clone(&answer), Arc::clone(&counted));
                tokio::spawn(async move {
                    let Ok(stream) = tls.accept(stream).await else {
                        return;
                    };
                    counted.fetch_add(1, Ordering::SeqCst);
                    let service = service_fn(move |request: hyper::Request<Incoming>| {
                        reply(request, Arc::clone(&answer), Arc::clone(&noted))
                    });
                    let builder = auto::Builder::new(TokioExecutor::new());
                    let _ended = builder
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self {
            port,
            ca_bundle,
            asked,
            connections,
            task,
        }
    }

    /// `clientConfig` by URL.
    pub(crate) fn at(&self, path: &str) -> Value {
        let url = format!("https://127.0.0.1:{}{path}", self.port);
        json!({"url": url, "caBundle": self.ca_bundle})
    }

    /// What was asked since the last time: path with query, and body.
    pub(crate) fn asked(&self) -> Vec<(String, Value)> {
        std::mem::take(&mut *self.asked.lock())
    }

    /// How many connections were made.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

async fn reply(
    request: hyper::Request<Incoming>,
    answer: Arc<Answer>,
    noted: Arc<Mutex<Vec<(String, Value)>>>,
) -> Result<hyper::Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path_and_query().unwrap().to_string();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let body: Value = serde_json::from_slice(&body).unwrap();
    let (code, value) = answer(&path, &body);
    noted.lock().push((path, body));
    let response = hyper::Response::builder().status(code);
    Ok(response
        .body(Full::new(Bytes::from(value.to_string())))
        .unwrap())
}

fn tls() -> (TlsAcceptor, String) {
    let mut authority = CertificateParams::new(Vec::<String>::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = KeyPair::generate().unwrap();
    let authority_certificate = authority.self_signed(&authority_key).unwrap();
    let names = ["127.0.0.1", "hook.default.svc"].map(str::to_owned);
    let key = KeyPair::generate().unwrap();
    let issuer = Issuer::new(authority, authority_key);
    let certificate = CertificateParams::new(names)
        .unwrap()
        .signed_by(&key, &issuer)
        .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let bundle = STANDARD.encode(authority_certificate.pem());
    (TlsAcceptor::from(Arc::new(config)), bundle)
}

/// The answer to an AdmissionReview that lets it pass, with further fields of the response.
pub(crate) fn allowed(question: &Value, more: &Value) -> (u16, Value) {
    reviewed(question, true, more)
}

/// The answer to an AdmissionReview that refuses it.
pub(crate) fn denied(question: &Value, status: &Value) -> (u16, Value) {
    reviewed(question, false, &json!({"status": status}))
}

fn reviewed(question: &Value, allowed: bool, more: &Value) -> (u16, Value) {
    let mut response = json!({"uid": question["request"]["uid"], "allowed": allowed});
    for (name, value) in more.as_object().into_iter().flatten() {
        response[name] = value.clone();
    }
    let answer = json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1",
        "response": response});
    (200, answer)
}

/// The fields of a response that change an object.
pub(crate) fn patch(operations: &Value) -> Value {
    json!({"patchType": "JSONPatch", "patch": STANDARD.encode(operations.to_string())})
}
