//! What fuzz targets reach of the server's inside; changes with what reads packets.

use crate::wire::Query;

/// Reads a packet as the server does.
pub fn message(packet: &[u8]) {
    if let Ok(query) = Query::parse(packet) {
        assert!(
            query.question.len() < packet.len(),
            "the question is a part"
        );
    }
}
