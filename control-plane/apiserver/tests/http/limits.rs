//! What is too large or too much is refused in words or cut off, and others do not notice.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::{Cluster, MAPS, message};

const SOON: Duration = Duration::from_secs(5);

#[tokio::test]
async fn what_is_too_large_is_refused_in_words() {
    let cluster = Cluster::start().await;
    let admin = &cluster.admin;
    let long = format!("{MAPS}?labelSelector={}", "x".repeat(33 * 1024));
    let refused = admin.get(&long).await;
    assert_eq!(refused.status, 414);
    assert!(message(&refused).starts_with("the path and query are too long: "));
    let value = "x".repeat(33 * 1024);
    let refused = admin
        .send("GET", MAPS, &[("x-large", &value)], String::new())
        .await;
    assert_eq!(refused.status, 431);
    assert_eq!(refused.json()["kind"], "Status");
    let many: Vec<(String, &str)> = (0..140).map(|i| (format!("x-{i}"), "v")).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(name, v)| (name.as_str(), *v)).collect();
    assert_eq!(
        admin.send("GET", MAPS, &many, String::new()).await.status,
        431
    );
    let body = json!({"metadata": {"name": "m"}, "data": {"k": "x".repeat(4 << 20)}});
    let refused = admin.post(MAPS, &body).await;
    assert_eq!(refused.status, 413);
    assert_eq!(
        message(&refused),
        "Request entity too large: limit is 3145728"
    );
    let body = json!({"metadata": {"name": "m"}, "data": {"k": "x".repeat(2 << 20)}});
    let refused = admin.post(MAPS, &body).await;
    assert_ne!(refused.status, 201, "an object has a limit of its own");
    assert_eq!(refused.json()["kind"], "Status");
    cluster.handle.shutdown().await;
}

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;
const END_STREAM: u8 = 1;

/// `GET https://kubernetes/` (or a POST), compressed by hand with the static table.
fn head(method: u8) -> Vec<u8> {
    let mut block = vec![method, 0x87, 0x84, 0x41, 10];
    block.extend(b"kubernetes");
    block
}

const GET: u8 = 0x82;
const POST: u8 = 0x83;

async fn http2(cluster: &Cluster) -> TlsStream<TcpStream> {
    let mut stream = cluster.admin.connect_h2().await;
    let mut hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    hello.extend(frame(SETTINGS, 0, 0, &[]));
    stream.write_all(&hello).await.unwrap();
    stream
}

/// Writes until the server closes, and checks that it does within so many rounds.
async fn flood(
    mut stream: TlsStream<TcpStream>,
    rounds: u32,
    bytes: impl Fn(u32) -> Vec<u8>,
) -> bool {
    let (mut reader, mut writer) = tokio::io::split(&mut stream);
    let read = async {
        let mut sink = vec![0; 64 * 1024];
        while matches!(reader.read(&mut sink).await, Ok(read) if read > 0) {}
    };
    let write = async {
        for round in 0..rounds {
            if writer.write_all(&bytes(round)).await.is_err() || writer.flush().await.is_err() {
                return;
            }
        }
        // The server must have had enough by now; wait for it to say so.
        std::future::pending::<()>().await;
    };
    let closed = async {
        tokio::select! {
            () = read => {}
            () = write => {}
        }
    };
    tokio::time::timeout(SOON, closed).await.is_ok()
}

async fn answers_at_once(cluster: &Cluster) {
    let started = Instant::now();
    assert_eq!(cluster.admin.get("/readyz").await.status, 200);
    assert!(started.elapsed() < SOON);
}

#[tokio::test]
async fn streams_that_are_opened_and_reset_end_the_connection() {
    let cluster = Cluster::start().await;
    let stream = http2(&cluster).await;
    let closed = flood(stream, 2000, |round| {
        (0..20)
            .flat_map(|i| {
                let id = 2 * (round * 20 + i) + 1;
                let mut pair = frame(HEADERS, END_HEADERS | END_STREAM, id, &head(GET));
                pair.extend(frame(RESET, 0, id, &[0, 0, 0, 8]));
                pair
            })
            .collect()
    });
    let (closed, ()) = tokio::join!(closed, answers_at_once(&cluster));
    assert!(closed, "rapid reset is cut off");
    cluster.handle.shutdown().await;
}

#[tokio::test]
async fn a_head_without_an_end_ends_the_connection() {
    let cluster = Cluster::start().await;
    let stream = http2(&cluster).await;
    let closed = flood(stream, 5000, |round| match round {
        0 => frame(HEADERS, 0, 1, &head(GET)),
        _ => frame(CONTINUATION, 0, 1, &[0x40, 1, b'x', 1, b'y'].repeat(100)),
    });
    let (closed, ()) = tokio::join!(closed, answers_at_once(&cluster));
    assert!(closed, "endless CONTINUATION is cut off");
    cluster.handle.shutdown().await;
}

#[tokio::test]
async fn empty_frames_disturb_nobody() {
    let cluster = Cluster::start().await;
    let stream = http2(&cluster).await;
    let floods = flood(stream, 20_000, |round| match round {
        0 => frame(HEADERS, END_HEADERS, 1, &head(POST)),
        _ => frame(DATA, 0, 1, &[]).repeat(10),
    });
    let others = async {
        for _ in 0..20 {
            answers_at_once(&cluster).await;
        }
    };
    // Whether the connection is closed or merely ignored, others are served.
    let (_closed, ()) = tokio::join!(floods, others);
    cluster.handle.shutdown().await;
}

#[tokio::test]
async fn idle_connections_cost_others_nothing() {
    let cluster = Cluster::start().await;
    let mut idle = Vec::new();
    for _ in 0..200 {
        idle.push(cluster.admin.connect().await);
        idle.push(http2(&cluster).await);
    }
    answers_at_once(&cluster).await;
    drop(idle);
    cluster.handle.shutdown().await;
}

#[tokio::test]
async fn large_answers_are_zipped_for_who_accepts_it() {
    let cluster = Cluster::start().await;
    for i in 0..3 {
        let map =
            json!({"metadata": {"name": format!("m{i}")}, "data": {"k": "x".repeat(64 << 10)}});
        assert_eq!(cluster.admin.post(MAPS, &map).await.status, 201);
    }
    let zipped = cluster
        .admin
        .send("GET", MAPS, &[("accept-encoding", "gzip")], String::new())
        .await;
    assert_eq!(zipped.header("content-encoding"), "gzip");
    let plain = cluster.admin.get(MAPS).await;
    assert_eq!(plain.header("content-encoding"), "");
    let mut text = String::new();
    let mut reader = flate2::read::GzDecoder::new(zipped.bytes());
    std::io::Read::read_to_string(&mut reader, &mut text).unwrap();
    assert_eq!(text, plain.text());
    let one = format!("{MAPS}/m0");
    let small = cluster
        .admin
        .send("GET", &one, &[("accept-encoding", "gzip")], String::new())
        .await;
    assert_eq!(small.header("content-encoding"), "");
    cluster.handle.shutdown().await;
}
