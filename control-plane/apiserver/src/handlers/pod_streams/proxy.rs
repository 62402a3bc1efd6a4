//! `pods/proxy`, `services/proxy`, `nodes/proxy`: a request passed on to what answers there.
//!
//! Pods are reached through their node's stream, at their own address. A node shows what its agent
//! shows. Bodies flow both ways unread; an upgraded connection is carried until it ends.

use bytes::Bytes;
use futures::StreamExt as _;
use http_body_util::BodyExt as _;
use hyper::header::{
    AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, LOCATION,
    TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use hyper::{StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tracing::debug;

use super::node_error;
use super::proxy_target::{self, ProxyTo};
use crate::handlers::Call;
use crate::http::{Request, Response, streamed_body};
use crate::node_pipe::pipe;
use crate::node_streams::AgentRequest;
use crate::server::Target;
use crate::status::StatusError;

/// Not for whoever answers, or about one connection only (RFC 9110, section 7.6.1).
const HOP_HEADERS: [HeaderName; 6] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    TE,
    TRAILER,
    TRANSFER_ENCODING,
];

impl Call {
    pub(in crate::handlers) async fn proxy(
        &self,
        target: &Target,
        request: Request,
    ) -> Result<Response, StatusError> {
        let (prefix, rest) = split_path(&self.path);
        if rest.is_empty() && self.info.verb == "get" {
            return Ok(redirect(&self.path, request.uri().query()));
        }
        let to = proxy_target::find(&self.api.server, target).await?;
        let to = match to {
            ProxyTo::Agent { node } => {
                return self.ask_agent(target, &node, rest, &request).await;
            }
            ProxyTo::Pod(to) => to,
        };
        let session = self.api.nodes.port(&to.node, to.request).await;
        let session = session.map_err(|fault| node_error(target, &fault))?;
        let (io, _failure) = pipe(session, &self.api.tasks, &self.api.stop);
        if to.https {
            let io = proxy_target::tls(io)
                .await
                .map_err(|fault| unreachable(&fault))?;
            return self.exchange(io, request, prefix, rest).await;
        }
        self.exchange(io, request, prefix, rest).await
    }

    async fn ask_agent(
        &self,
        target: &Target,
        node: &str,
        rest: &str,
        request: &Request,
    ) -> Result<Response, StatusError> {
        if self.info.verb != "get" {
            let resource = target.kind.group_resource();
            return Err(StatusError::method_not_supported(resource, self.info.verb));
        }
        let asked = AgentRequest {
            path: rest.trim_start_matches('/').to_owned(),
            query: request.uri().query().unwrap_or_default().to_owned(),
        };
        let answer = self.api.nodes.agent(node, asked).await;
        let answer = answer.map_err(|fault| node_error(target, &fault))?;
        let frames = answer
            .body
            .map(|chunk| chunk.unwrap_or_else(|fault| Bytes::from(format!("\nerror: {fault}\n"))));
        let mut response = hyper::Response::new(streamed_body(frames));
        *response.status_mut() =
            StatusCode::from_u16(answer.status).unwrap_or(StatusCode::BAD_GATEWAY);
        if let Ok(kind) = HeaderValue::from_str(&answer.content_type) {
            response.headers_mut().insert(CONTENT_TYPE, kind);
        }
        Ok(response)
    }

    /// One request and its answer over `io`.
    async fn exchange(
        &self,
        io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        mut request: Request,
        prefix: &str,
        rest: &str,
    ) -> Result<Response, StatusError> {
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(io)).await;
        let (mut sender, connection) = handshake.map_err(|fault| unreachable(&fault))?;
        let stop = self.api.stop.clone();
        self.api.tasks.spawn(async move {
            tokio::select! {
                ended = connection.with_upgrades() => if let Err(fault) = ended {
                    debug!(%fault, "a proxied connection ended");
                },
                () = stop.cancelled() => {}
            }
        });
        let upgrade = request.headers().get(UPGRADE).cloned();
        let ours = upgrade.is_some().then(|| hyper::upgrade::on(&mut request));
        self.address(&mut request, rest, upgrade.clone())?;
        let answer = sender.send_request(request).await;
        let mut answer = answer.map_err(|fault| unreachable(&fault))?;
        let switched = answer.status() == StatusCode::SWITCHING_PROTOCOLS;
        if let Some(ours) = ours.filter(|_| switched) {
            let theirs = hyper::upgrade::on(&mut answer);
            self.carry_upgraded(ours, theirs);
        }
        let named = answer.headers().get(UPGRADE).cloned();
        strip(answer.headers_mut());
        if let Some(named) = named.filter(|_| switched) {
            answer.headers_mut().insert(UPGRADE, named);
            let upgrade = HeaderValue::from_static("Upgrade");
            answer.headers_mut().insert(CONNECTION, upgrade);
        }
        relocate(answer.headers_mut(), prefix);
        // A broken body can only be cut off: its length or its chunks tell the client.
        Ok(answer.map(|body| {
            let frames = body.into_data_stream();
            let frames = frames.take_while(|chunk| std::future::ready(chunk.is_ok()));
            streamed_body(frames.filter_map(|chunk| std::future::ready(chunk.ok())))
        }))
    }

    /// Makes the client's request one for whoever answers.
    fn address(
        &self,
        request: &mut Request,
        rest: &str,
        upgrade: Option<HeaderValue>,
    ) -> Result<(), StatusError> {
        let host = request.headers().get(HOST).cloned();
        let host = host.or_else(|| {
            let authority = request.uri().authority()?.as_str();
            HeaderValue::from_str(authority).ok()
        });
        let query = request.uri().query();
        let path = match query {
            Some(query) => format!("{rest}?{query}"),
            None => rest.to_owned(),
        };
        let uri: Uri = path
            .parse()
            .map_err(|fault| StatusError::bad_request(format!("path {path}: {fault}")))?;
        *request.uri_mut() = uri;
        *request.version_mut() = hyper::Version::HTTP_11;
        let headers = request.headers_mut();
        strip(headers);
        // Who the client is to us is no business of others.
        headers.remove(AUTHORIZATION);
        if let Some(upgrade) = upgrade {
            headers.insert(UPGRADE, upgrade);
            headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        }
        let forwarded = [
            ("x-forwarded-host", host.clone()),
            ("x-forwarded-uri", HeaderValue::from_str(&self.path).ok()),
            ("x-forwarded-proto", Some(HeaderValue::from_static("https"))),
        ];
        for (name, value) in forwarded {
            if let Some(value) = value {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
        headers
            .entry(HOST)
            .or_insert(host.unwrap_or(HeaderValue::from_static("proxied")));
        Ok(())
    }

    fn carry_upgraded(&self, ours: hyper::upgrade::OnUpgrade, theirs: hyper::upgrade::OnUpgrade) {
        let stop = self.api.stop.clone();
        self.api.tasks.spawn(async move {
            let carry = async {
                let (ours, theirs) =
                    tokio::try_join!(ours, theirs).map_err(std::io::Error::other)?;
                let (mut ours, mut theirs) = (TokioIo::new(ours), TokioIo::new(theirs));
                tokio::io::copy_bidirectional(&mut ours, &mut theirs).await
            };
            tokio::select! {
                ended = carry => debug!(?ended, "an upgraded connection ended"),
                () = stop.cancelled() => {}
            }
        });
    }
}

fn unreachable(fault: &dyn std::fmt::Display) -> StatusError {
    let message = format!("error trying to reach service: {fault}");
    StatusError::new(503, "ServiceUnavailable", message)
}

/// What comes before the proxied path, and that path with its slash.
fn split_path(path: &str) -> (&str, &str) {
    // `…/KIND/NAME/proxy/…`: the first segment after a name.
    let mut at = 0;
    let mut segments = 0;
    let namespaced = path.starts_with("/api/v1/namespaces/");
    let before = if namespaced { 6 } else { 4 };
    for segment in path.split('/').skip(1) {
        at += segment.len() + 1;
        segments += 1;
        if segments > before && segment == "proxy" {
            return path.split_at(at);
        }
    }
    (path, "")
}

/// Relative links of what is shown below work only with the slash.
fn redirect(path: &str, query: Option<&str>) -> Response {
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    let mut answer = crate::http::text_response(301, Bytes::new());
    if let Ok(to) = HeaderValue::from_str(&format!("{path}/{query}")) {
        answer.headers_mut().insert(LOCATION, to);
    }
    answer
}

fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in HOP_HEADERS.iter().chain(&named).chain([&UPGRADE]) {
        headers.remove(name);
    }
}

/// A redirection within what is proxied stays within it.
fn relocate(headers: &mut HeaderMap, prefix: &str) {
    let Some(to) = headers.get(LOCATION).and_then(|to| to.to_str().ok()) else {
        return;
    };
    if to.starts_with('/')
        && !to.starts_with("//")
        && let Ok(to) = HeaderValue::from_str(&format!("{prefix}{to}"))
    {
        headers.insert(LOCATION, to);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_behind_the_proxy_is_told_from_that_before_it() {
        let cases = [
            ("/api/v1/namespaces/d/pods/p/proxy/a/b", "/a/b"),
            ("/api/v1/namespaces/d/pods/p/proxy", ""),
            ("/api/v1/namespaces/d/services/s:http/proxy/", "/"),
            ("/api/v1/namespaces/proxy/pods/proxy/proxy/proxy", "/proxy"),
            ("/api/v1/nodes/n/proxy/healthz", "/healthz"),
            ("/api/v1/nodes/proxy/proxy/pods", "/pods"),
        ];
        for (path, rest) in cases {
            assert_eq!(split_path(path).1, rest, "{path}");
        }
    }

    #[test]
    fn redirections_stay_below_the_proxy() {
        let check = |to: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(LOCATION, to.parse().unwrap());
            relocate(&mut headers, "/api/v1/nodes/n/proxy");
            headers[LOCATION].to_str().unwrap().to_owned()
        };
        assert_eq!(check("/login"), "/api/v1/nodes/n/proxy/login");
        assert_eq!(check("login"), "login");
        assert_eq!(check("https://other/"), "https://other/");
        assert_eq!(check("//other/"), "//other/");
    }

    #[test]
    fn what_concerns_one_connection_is_not_passed_on() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, x-mine"),
            ("x-mine", "1"),
            ("te", "trailers"),
            ("accept", "*/*"),
        ] {
            headers.insert(name, value.parse().unwrap());
        }
        strip(&mut headers);
        let left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(left, ["accept"]);
    }
}
