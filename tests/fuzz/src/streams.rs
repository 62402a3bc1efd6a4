//! Decoders of messages on streams: nodes, commands, ports, names.

use bytes::Bytes;
use control_plane_apiserver::fuzzing;
use prost::Message as _;
use proto::agent::v1;
use proto_spdy::Decoder;

/// SPDY frames, whole and byte by byte: both tell the same.
pub(crate) fn spdy(data: &[u8]) {
    let whole = events(data.chunks(data.len().max(1)));
    let pieces = events(data.chunks(1));
    assert_eq!(whole, pieces);
}

/// How many events there are before the first fault or the end. Data comes in the pieces it
/// arrives in, so only whether the connection goes on is compared.
fn events<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> bool {
    let mut decoder = Decoder::default();
    for piece in pieces {
        decoder.feed(piece);
        loop {
            match decoder.event() {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => return false,
            }
        }
    }
    true
}

pub(crate) fn channels(data: &[u8]) {
    fuzzing::channels(&Bytes::copy_from_slice(data));
}

pub(crate) fn dns(data: &[u8]) {
    dns::fuzzing::message(data);
}

/// Messages of nodes and to them, and what their upserts hold.
pub(crate) fn node_stream(data: &[u8]) {
    let _node = v1::NodeMessage::decode(data).is_ok();
    let _service = v1::Service::decode(data).is_ok();
    let _reports = v1::ReportPodsRequest::decode(data).is_ok();
    if let Ok(message) = v1::ServerMessage::decode(data) {
        let written = message.encode_to_vec();
        assert_eq!(v1::ServerMessage::decode(written.as_slice()), Ok(message));
    }
}
