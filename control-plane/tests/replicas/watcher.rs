//! Clients that watch over HTTP/2 and go to another server when theirs ends.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::ServerName;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::{Mutex, watch};
use tokio_rustls::TlsConnector;

use crate::CONFIG_MAPS;
use crate::history::Watched;

/// One connection to a server, for many watchers; made anew when it is gone.
pub(crate) struct Connection {
    pub(crate) address: std::net::SocketAddr,
    pub(crate) kubeconfig: PathBuf,
    sender: Mutex<Option<SendRequest<Empty<Bytes>>>>,
}

impl Connection {
    pub(crate) fn new(address: std::net::SocketAddr, kubeconfig: PathBuf) -> Self {
        Self {
            address,
            kubeconfig,
            sender: Mutex::new(None),
        }
    }

    async fn sender(&self) -> anyhow::Result<SendRequest<Empty<Bytes>>> {
        let mut kept = self.sender.lock().await;
        if let Some(sender) = kept.as_ref().filter(|sender| !sender.is_closed()) {
            return Ok(sender.clone());
        }
        let mut tls = crate::client::tls(&self.kubeconfig)?;
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::from(self.address.ip());
        let stream = TlsConnector::from(Arc::new(tls))
            .connect(name, stream)
            .await?;
        let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (sender, connection) = handshake.await?;
        // Ends with the connection, which ends with the server or the last sender.
        tokio::spawn(async move { drop(connection.await) });
        *kept = Some(sender.clone());
        Ok(sender)
    }

    async fn get(&self, path: &str) -> anyhow::Result<hyper::Response<hyper::body::Incoming>> {
        let mut sender = self.sender().await?;
        sender.ready().await?;
        let request = hyper::Request::builder()
            .uri(format!("https://kubernetes{path}"))
            .body(Empty::new())?;
        Ok(sender.send_request(request).await?)
    }

    async fn list(&self) -> anyhow::Result<u64> {
        let answer = self.get(CONFIG_MAPS).await?;
        ensure!(answer.status() == 200, "{}", answer.status());
        let body = answer.into_body().collect().await?.to_bytes();
        version(&serde_json::from_slice(&body)?)
    }
}

/// Why a connection of a watch is over.
enum Ended {
    /// Try the next server from where we are.
    Next,
    /// The place is gone there: list.
    Gone,
    /// Everything was told.
    Done,
}

/// Watches all config maps from `start` until it knows `last`, whatever happens to the servers.
pub(crate) async fn watch_all(
    connections: Arc<[Arc<Connection>]>,
    first: usize,
    start: u64,
    mut last: watch::Receiver<u64>,
) -> anyhow::Result<Watched> {
    let mut watched = Watched {
        position: start,
        ..Watched::default()
    };
    for turn in first.. {
        let connection = &connections[turn % connections.len()];
        watched.connections += 1;
        match follow(connection, &mut watched, &mut last).await {
            Ok(Ended::Done) => break,
            Ok(Ended::Gone) => {
                if let Ok(listed) = connection.list().await {
                    ensure!(
                        listed >= watched.position,
                        "a list of {listed} after {}",
                        watched.position
                    );
                    watched.relists.push((watched.position + 1, listed));
                    watched.position = listed;
                }
            }
            Ok(Ended::Next) => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
            Err(error) => return Err(error.context(format!("at {}", connection.address))),
        }
    }
    Ok(watched)
}

/// One connection. An error is a breach of what a watch promises; a lost connection is none.
async fn follow(
    connection: &Connection,
    watched: &mut Watched,
    last: &mut watch::Receiver<u64>,
) -> anyhow::Result<Ended> {
    let position = watched.position;
    let path =
        format!("{CONFIG_MAPS}?watch=true&allowWatchBookmarks=true&resourceVersion={position}");
    let Ok(answer) = connection.get(&path).await else {
        return Ok(Ended::Next);
    };
    match answer.status().as_u16() {
        200 => {}
        410 => return Ok(Ended::Gone),
        _ => return Ok(Ended::Next),
    }
    let mut body = answer.into_body();
    let mut line = Vec::new();
    loop {
        if watched.position >= *last.borrow_and_update() {
            return Ok(Ended::Done);
        }
        // Cancel-safe: a frame is taken or it is not; `changed` only looks.
        let frame = tokio::select! {
            frame = body.frame() => frame,
            changed = last.changed() => {
                changed.context("the test ended first")?;
                continue;
            }
        };
        let Some(Ok(frame)) = frame else {
            return Ok(Ended::Next);
        };
        let Some(bytes) = frame.data_ref() else {
            continue;
        };
        for byte in bytes {
            if *byte != b'\n' {
                line.push(*byte);
            } else if let Some(ended) = take(&std::mem::take(&mut line), watched)? {
                return Ok(ended);
            }
        }
    }
}

fn take(line: &[u8], watched: &mut Watched) -> anyhow::Result<Option<Ended>> {
    let event: Value = serde_json::from_slice(line).context("half an event")?;
    let object = &event["object"];
    match event["type"].as_str().unwrap_or_default() {
        "ADDED" | "MODIFIED" | "DELETED" => watched.event(version(object)?)?,
        "BOOKMARK" => watched.bookmark(version(object)?)?,
        "ERROR" if object["code"] == 410 => return Ok(Some(Ended::Gone)),
        "ERROR" => return Ok(Some(Ended::Next)),
        other => bail!("an event of type {other:?}: {event}"),
    }
    Ok(None)
}

fn version(object: &Value) -> anyhow::Result<u64> {
    let text = object["metadata"]["resourceVersion"].as_str();
    Ok(text
        .with_context(|| format!("no resourceVersion: {object}"))?
        .parse()?)
}
