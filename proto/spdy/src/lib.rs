//! SPDY/3.1, as far as Kubernetes clients and container runtimes speak it: many streams of bytes
//! over one connection, each with headers, each closed in either direction by itself.
//!
//! `kubectl port-forward` sends these frames inside WebSocket messages, clients before 1.31 after an
//! HTTP upgrade, and a container runtime's attach takes them. There is no flow control: no peer of
//! ours sends or minds window updates. What one connection may hold is bounded here instead.
//!
//! Must not know: what a stream is for.

mod connection;
mod dictionary;
mod frame;
mod headers;

pub use self::connection::{Closed, Connection, Handle, Role, Stream, StreamReader, StreamWriter};
pub use self::frame::{Decoder, Encoder, FrameError, Incoming, Outgoing};
pub use self::headers::Headers;
