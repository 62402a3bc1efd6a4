//! Decoders of messages on streams: nodes, commands, ports, names.

use bytes::Bytes;
use control_plane_apiserver::fuzzing;
use prost::Message as _;
use proto::agent::v1;
use proto_spdy::Decoder;

/// SPDY frames, as one piece and byte by byte.
pub(crate) fn spdy(data: &[u8]) {
    for size in [data.len().max(1), 1] {
        read_frames(data.chunks(size));
    }
}

fn read_frames<'a>(pieces: impl Iterator<Item = &'a [u8]>) {
    let mut decoder = Decoder::default();
    for piece in pieces {
        decoder.feed(piece);
        while let Ok(event) = decoder.event() {
            if event.is_none() {
                break;
            }
        }
    }
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
        let again = v1::ServerMessage::decode(written.as_slice());
        assert_eq!(again.map(drop), Ok(()), "what was written is not read");
    }
}
