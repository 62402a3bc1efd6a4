//! As much of HTTP/1.1 (RFC 9112) as the example needs: changes when it answers something new.
//!
//! Pure: bytes in, bytes out. GET and HEAD; a body is refused, since nothing here takes one.

/// A request head may be this long.
pub(crate) const HEAD_MAX: usize = 16 * 1024;

/// Sent before the connection is closed.
pub(crate) const BAD_REQUEST: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// What was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// Without the query.
    pub(crate) path: String,
    pub(crate) keep_alive: bool,
}

/// What the received bytes hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Parsed {
    /// A whole request head of `length` bytes.
    Request {
        request: Request,
        length: usize,
    },
    Incomplete,
    Bad,
}

pub(crate) fn parse(received: &[u8]) -> Parsed {
    let Some(end) = received.windows(4).position(|window| window == b"\r\n\r\n") else {
        return if received.len() > HEAD_MAX {
            Parsed::Bad
        } else {
            Parsed::Incomplete
        };
    };
    let Ok(head) = std::str::from_utf8(&received[..end]) else {
        return Parsed::Bad;
    };
    match parse_head(head) {
        Some(request) => Parsed::Request {
            request,
            length: end + 4,
        },
        None => Parsed::Bad,
    }
}

fn parse_head(head: &str) -> Option<Request> {
    let mut lines = head.split("\r\n");
    let mut words = lines.next()?.split(' ');
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    if words.next().is_some() || !target.starts_with('/') {
        return None;
    }
    let mut keep_alive = match version {
        "HTTP/1.1" => true,
        "HTTP/1.0" => false,
        _ => return None,
    };
    for line in lines {
        let (name, value) = line.split_once(':')?;
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "connection" if value.eq_ignore_ascii_case("close") => keep_alive = false,
            "connection" if value.eq_ignore_ascii_case("keep-alive") => keep_alive = true,
            "content-length" if value != "0" => return None,
            "transfer-encoding" => return None,
            _ => {}
        }
    }
    let path = target.split('?').next()?.to_owned();
    Some(Request {
        method: method.to_owned(),
        path,
        keep_alive,
    })
}

/// The whole answer, head and body.
pub(crate) fn answer(request: &Request, greeting: &str, keep: bool) -> Vec<u8> {
    let (status, body) = match (request.method.as_str(), request.path.as_str()) {
        ("GET" | "HEAD", "/healthz") => ("200 OK", "ok\n"),
        ("GET" | "HEAD", _) => ("200 OK", greeting),
        _ => ("405 Method Not Allowed", "only GET and HEAD\n"),
    };
    let connection = if keep { "keep-alive" } else { "close" };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\n\
         Content-Length: {}\r\nConnection: {connection}\r\n\r\n",
        body.len()
    );
    let body = if request.method == "HEAD" { "" } else { body };
    [head, body.to_owned()].concat().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::{HEAD_MAX, Parsed, Request, answer, parse};

    fn request(method: &str, path: &str, keep_alive: bool) -> Request {
        Request {
            method: method.to_owned(),
            path: path.to_owned(),
            keep_alive,
        }
    }

    #[test]
    fn heads_are_understood() {
        let cases = [
            (
                "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
                request("GET", "/", true),
            ),
            (
                "GET /a?b=c HTTP/1.1\r\nConnection: close\r\n\r\n",
                request("GET", "/a", false),
            ),
            (
                "HEAD /healthz HTTP/1.0\r\n\r\n",
                request("HEAD", "/healthz", false),
            ),
            (
                "GET / HTTP/1.0\r\nconnection: Keep-Alive\r\n\r\n",
                request("GET", "/", true),
            ),
        ];
        for (head, request) in cases {
            assert_eq!(
                parse(head.as_bytes()),
                Parsed::Request {
                    request,
                    length: head.len()
                }
            );
        }
    }

    #[test]
    fn every_beginning_of_a_request_is_incomplete() {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        for length in 0..head.len() {
            assert_eq!(parse(&head[..length]), Parsed::Incomplete, "{length} bytes");
        }
    }

    #[test]
    fn what_is_no_request_is_refused() {
        let cases: [&[u8]; 6] = [
            b"\r\n\r\n",
            b"GET /\r\n\r\n",
            b"GET a HTTP/1.1\r\n\r\n",
            b"GET / HTTP/2\r\n\r\n",
            b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc",
            b"GET /\xff HTTP/1.1\r\n\r\n",
        ];
        for bytes in cases {
            assert_eq!(
                parse(bytes),
                Parsed::Bad,
                "{}",
                String::from_utf8_lossy(bytes)
            );
        }
    }

    #[test]
    fn a_head_without_end_is_refused_at_the_bound() {
        assert_eq!(parse(&vec![b'a'; HEAD_MAX]), Parsed::Incomplete);
        assert_eq!(parse(&vec![b'a'; HEAD_MAX + 1]), Parsed::Bad);
    }

    #[test]
    fn a_head_request_gets_no_body() {
        let text = String::from_utf8(answer(&request("HEAD", "/", true), "hi\n", true)).unwrap();
        assert!(
            text.contains("Content-Length: 3\r\n") && text.ends_with("\r\n\r\n"),
            "{text}"
        );
    }

    #[test]
    fn other_methods_are_refused() {
        let text = answer(&request("PUT", "/", true), "hi\n", true);
        assert!(text.starts_with(b"HTTP/1.1 405 "));
    }
}
