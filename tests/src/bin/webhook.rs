//! A webhook that the tests run in a pod: admission and conversion over HTTPS.
//!
//! Port 8443, certificate `/tls/tls.crt`, key `/tls/tls.key`. `/validate` refuses objects with the
//! label `refuse`, `/mutate` adds the label `seen`, `/convert` makes `spec.size` of v1 `spec.width`
//! of v2 and back, `/healthz` answers at once.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program's log")]

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

const ADDRESS: (&str, u16) = ("0.0.0.0", 8443);
/// A question is never larger in these tests.
const BODY_BYTES_MAX: usize = 1 << 20;
/// `[{"op":"add","path":"/metadata/labels/seen","value":"yes"}]`.
const LABEL: &str =
    "W3sib3AiOiJhZGQiLCJwYXRoIjoiL21ldGFkYXRhL2xhYmVscy9zZWVuIiwidmFsdWUiOiJ5ZXMifV0=";

fn main() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("webhook: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve() -> io::Result<()> {
    let config = Arc::new(tls()?);
    let listener = TcpListener::bind(ADDRESS)?;
    println!("webhook: listening on {}", listener.local_addr()?);
    for stream in listener.incoming() {
        let (stream, config) = (stream?, Arc::clone(&config));
        std::thread::spawn(move || {
            if let Err(error) = converse(stream, config) {
                eprintln!("webhook: a connection ended: {error}");
            }
        });
    }
    Ok(())
}

fn tls() -> io::Result<ServerConfig> {
    let chain: Vec<_> = CertificateDer::pem_reader_iter(File::open("/tls/tls.crt")?)
        .collect::<Result<_, _>>()
        .map_err(io::Error::other)?;
    let key = PrivateKeyDer::from_pem_reader(File::open("/tls/tls.key")?);
    let key = key.map_err(io::Error::other)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(io::Error::other)
}

/// One question after the other on a connection of HTTP/1.1.
fn converse(stream: TcpStream, config: Arc<ServerConfig>) -> io::Result<()> {
    let session = ServerConnection::new(config).map_err(io::Error::other)?;
    let mut io = BufReader::new(StreamOwned::new(session, stream));
    while let Some((path, body)) = request(&mut io)? {
        let answer = match path.split('?').next().unwrap_or_default() {
            "/healthz" => json!({}),
            path => answer(path, &serde_json::from_slice(&body)?),
        };
        let body = answer.to_string();
        write!(
            io.get_mut(),
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )?;
        io.get_mut().flush()?;
    }
    Ok(())
}

/// Path and body; nothing when the client has closed.
fn request(
    io: &mut BufReader<StreamOwned<ServerConnection, TcpStream>>,
) -> io::Result<Option<(String, Vec<u8>)>> {
    let mut line = String::new();
    if io.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut length = 0;
    loop {
        line.clear();
        io.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().map_err(io::Error::other)?;
        }
    }
    if length > BODY_BYTES_MAX {
        return Err(io::Error::other(format!("a body of {length} bytes")));
    }
    let mut body = vec![0; length];
    io.read_exact(&mut body)?;
    Ok(Some((path, body)))
}

fn answer(path: &str, question: &Value) -> Value {
    let request = &question["request"];
    let mut response = json!({"uid": request["uid"]});
    match path {
        "/convert" => {
            let desired = request["desiredAPIVersion"].as_str().unwrap_or_default();
            let objects = request["objects"].as_array().into_iter().flatten();
            let objects: Vec<Value> = objects.map(|object| converted(object, desired)).collect();
            response["convertedObjects"] = json!(objects);
            response["result"] = json!({"status": "Success"});
        }
        "/mutate" => {
            response["allowed"] = json!(true);
            if request["object"]["metadata"]["labels"].is_object() {
                response["patchType"] = json!("JSONPatch");
                response["patch"] = json!(LABEL);
            }
        }
        _ => {
            let refused = request["object"]["metadata"]["labels"]
                .get("refuse")
                .is_some();
            response["allowed"] = json!(!refused);
            response["status"] = json!({"code": 403, "message": "the label says no"});
            response["warnings"] = json!(["looked at by a pod"]);
        }
    }
    json!({"kind": question["kind"], "apiVersion": question["apiVersion"], "response": response})
}

fn converted(object: &Value, desired: &str) -> Value {
    let mut object = object.clone();
    object["apiVersion"] = json!(desired);
    let (from, to) = if desired.ends_with("/v2") {
        ("size", "width")
    } else {
        ("width", "size")
    };
    if let Some(spec) = object["spec"].as_object_mut()
        && let Some(value) = spec.remove(from)
    {
        spec.insert(to.to_owned(), value);
    }
    object
}
