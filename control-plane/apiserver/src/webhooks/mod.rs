//! Questions to webhooks: one JSON object out, one back.
//!
//! Owns: how a webhook is reached (`config.rs` where it is, `service.rs` who answers for a service,
//! `dial.rs` connections, `tls.rs` certificates) and the clients with their open connections. Must
//! not know: what is asked; admission and conversion say that.

mod config;
mod dial;
mod service;
mod tls;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};
use hyper::http::uri::InvalidUri;
use hyper::{Method, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioTimer;
use parking_lot::Mutex;
use serde_json::Value;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) use self::config::{ClientConfig, ConfigError};
pub(crate) use self::dial::Dialer;
use self::dial::{Connector, DialError};
pub(crate) use self::service::backends;
pub(crate) use self::tls::TlsError;
use crate::tree;

/// Largest answer that is read.
const ANSWER_BYTES_MAX: usize = 32 << 20;
/// Bytes of an answer that is no Status that a message shows.
const SHOWN_BYTES: usize = 1024;
/// Webhooks whose connections are kept.
const CLIENTS_MAX: usize = 200;
const IDLE_CONNECTIONS_MAX: usize = 25;
const IDLE: Duration = Duration::from_secs(90);
/// A connection that is silent for so long is asked whether it lives.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(15);

/// Why a webhook gave no answer. Display is upstream's wording where it has one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error("could not get REST client: {0}")]
    Config(#[from] ConfigError),
    #[error("could not get REST client: {0}")]
    Tls(#[from] TlsError),
    #[error("could not get REST client: {url} is no URL: {why}")]
    Url { url: String, why: String },
    #[error("Post \"{url}\": context deadline exceeded")]
    Timeout { url: String },
    #[error("Post \"{url}\": {why}")]
    Unreachable { url: String, why: String },
    #[error("the answer is larger than {ANSWER_BYTES_MAX} bytes, or broke off: {0}")]
    Answer(String),
    #[error("{message}")]
    Refused { code: u16, message: String },
    #[error("the answer is no JSON: {0}")]
    Json(#[from] serde_json::Error),
}

impl CallError {
    /// Whether the webhook was not even asked.
    pub(crate) const fn is_setup(&self) -> bool {
        matches!(self, Self::Config(_) | Self::Tls(_) | Self::Url { .. })
    }
}

type HttpClient = Client<Connector, Full<Bytes>>;

/// Clients of webhooks, with their open connections.
#[derive(Debug)]
pub(crate) struct WebhookClients {
    dialer: Arc<Dialer>,
    clients: Mutex<HashMap<ClientConfig, HttpClient>>,
}

impl WebhookClients {
    pub(crate) fn new(dialer: Dialer) -> Self {
        Self {
            dialer: Arc::new(dialer),
            clients: Mutex::default(),
        }
    }

    /// Asks the webhook at `to`; `timeout` is told to it, too.
    pub(crate) async fn post(
        &self,
        to: &ClientConfig,
        body: Bytes,
        timeout: Duration,
    ) -> Result<Value, CallError> {
        let url = format!("{}?timeout={}s", with_path(&to.url()), timeout.as_secs());
        let uri: Uri = url.parse().map_err(|fault: InvalidUri| CallError::Url {
            url: url.clone(),
            why: fault.to_string(),
        })?;
        let client = self.client(to)?;
        let asked = ask(&client, &url, uri, body);
        match tokio::time::timeout(timeout, asked).await {
            Ok(answer) => answer,
            Err(_elapsed) => Err(CallError::Timeout { url }),
        }
    }

    fn client(&self, to: &ClientConfig) -> Result<HttpClient, CallError> {
        if let Some(client) = self.clients.lock().get(to) {
            return Ok(client.clone());
        }
        let tls = tls::client_config(&to.ca_bundle)?;
        let connector = Connector {
            dialer: Arc::clone(&self.dialer),
            place: Arc::new(to.place.clone()),
            tls: TlsConnector::from(Arc::new(tls)),
        };
        let executor = Owned {
            tasks: self.dialer.tasks.clone(),
            stop: self.dialer.stop.clone(),
        };
        let client = Client::builder(executor)
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .http2_keep_alive_interval(PING_INTERVAL)
            .http2_keep_alive_timeout(PING_TIMEOUT)
            .build(connector);
        let mut clients = self.clients.lock();
        if clients.len() >= CLIENTS_MAX {
            // Whoever is asked again gets new connections; nobody is remembered for ever.
            clients.clear();
        }
        Ok(clients.entry(to.clone()).or_insert(client).clone())
    }
}

/// A URL without a path gets one, so that a query can follow.
fn with_path(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    if rest.contains('/') {
        url.to_owned()
    } else {
        format!("{url}/")
    }
}

/// Runs the connections' tasks, until the server stops.
#[derive(Clone)]
struct Owned {
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl<F> hyper::rt::Executor<F> for Owned
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, future: F) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            stop.run_until_cancelled(future).await;
        });
    }
}

async fn ask(client: &HttpClient, url: &str, uri: Uri, body: Bytes) -> Result<Value, CallError> {
    let unreachable = |why: String| CallError::Unreachable {
        url: url.to_owned(),
        why,
    };
    let request = hyper::Request::builder()
        .method(Method::POST)
        .uri(uri)
        .header(CONTENT_TYPE, "application/json")
        .header(ACCEPT, "application/json, */*")
        .header(USER_AGENT, "kube-apiserver-admission")
        .body(Full::new(body))
        .map_err(|fault| unreachable(fault.to_string()))?;
    let answer = client.request(request).await;
    let answer = answer.map_err(|fault| unreachable(innermost(&fault)))?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX);
    let body = body
        .collect()
        .await
        .map_err(|fault| CallError::Answer(fault.to_string()))?
        .to_bytes();
    if status.is_success() {
        return Ok(serde_json::from_slice(&body)?);
    }
    let code = status.as_u16();
    let message = refusal(code, &body);
    Err(CallError::Refused { code, message })
}

/// The cause of all: what lies above it repeats in general words what it says. Our own errors are
/// whole sentences and say their cause themselves.
fn innermost(fault: &(dyn std::error::Error + 'static)) -> String {
    let mut fault = fault;
    while let Some(source) = fault.source().filter(|_| !fault.is::<DialError>()) {
        fault = source;
    }
    fault.to_string()
}

/// What an answer other than 2xx means, in upstream's words.
fn refusal(code: u16, body: &[u8]) -> String {
    if let Ok(status) = serde_json::from_slice::<Value>(body)
        && tree::text(&status, &["kind"]) == "Status"
        && !tree::text(&status, &["message"]).is_empty()
    {
        return tree::text(&status, &["message"]).to_owned();
    }
    let shown = String::from_utf8_lossy(&body[..body.len().min(SHOWN_BYTES)]);
    let shown = shown.trim();
    match code {
        400 => "the server rejected our request for an unknown reason".to_owned(),
        401 => "the server has asked for the client to provide credentials".to_owned(),
        403 => shown.to_owned(),
        404 => "the server could not find the requested resource".to_owned(),
        405 => "the server does not allow this method on the requested resource".to_owned(),
        429 => "the server has received too many requests and has asked us to try again later"
            .to_owned(),
        503 => "the server is currently unable to handle the request".to_owned(),
        504 => "the server was unable to return a response in the time allotted, but may still be \
                processing the request"
            .to_owned(),
        code if code >= 500 => format!(
            "an error on the server (\"{shown}\") has prevented the request from succeeding"
        ),
        _ => format!(
            "the server responded with the status code {code} but did not return more \
                      information"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_gets_a_path_for_its_query() {
        assert_eq!(with_path("https://a:1"), "https://a:1/");
        assert_eq!(with_path("https://a/b"), "https://a/b");
    }

    #[test]
    fn refusals_are_told_in_upstreams_words() {
        let status = br#"{"kind":"Status","message":"no"}"#;
        assert_eq!(refusal(400, status), "no");
        assert_eq!(
            refusal(404, b"404 page not found"),
            "the server could not find the requested resource"
        );
        assert_eq!(
            refusal(500, b"broken\n"),
            "an error on the server (\"broken\") has prevented the request from succeeding"
        );
    }
}
