//! Frames: bytes in, events out, and back. Pure; keeps no more than one control frame.
//!
//! A data frame may be 16 MiB; its bytes are handed on as they come, so nothing waits for its end.

use bytes::{Buf as _, Bytes, BytesMut};

use crate::headers::{Deflater, Headers, Inflater};

const VERSION: u16 = 3;
const HEADER_BYTES: usize = 8;
/// A control frame larger than this ends the connection.
const CONTROL_BYTES_MAX: usize = 64 * 1024;
/// A data frame that we send is at most this long.
const DATA_BYTES_MAX: usize = 32 * 1024;
const FIN: u8 = 1;
const STREAM_MASK: u32 = 0x7fff_ffff;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;

/// Why a connection cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Not version 3.
    #[error("SPDY version {version} was received; only 3 is spoken")]
    Version {
        /// What was received.
        version: u16,
    },
    /// A control frame that is too short or too long.
    #[error("a SPDY control frame of type {kind} has {length} bytes")]
    Length {
        /// Its type.
        kind: u16,
        /// Its length without the header.
        length: usize,
    },
    /// A block of headers that cannot be read, or is too large.
    #[error("a SPDY header block cannot be read")]
    Headers,
}

/// What the peer said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// A new stream.
    Open {
        /// Its number.
        stream: u32,
        /// What it is for.
        headers: Headers,
        /// The peer sends nothing on it.
        fin: bool,
    },
    /// The answer to a stream that we opened.
    Reply {
        /// Its number.
        stream: u32,
        /// The peer sends nothing on it.
        fin: bool,
    },
    /// Bytes of a stream; `fin` after the last.
    Data {
        /// Its number.
        stream: u32,
        /// Never empty unless `fin`.
        bytes: Bytes,
        /// The peer sends nothing more.
        fin: bool,
    },
    /// The stream is broken off.
    Reset {
        /// Its number.
        stream: u32,
    },
    /// To be answered with the same number.
    Ping {
        /// Its number: odd from clients.
        id: u32,
    },
    /// No more streams are accepted.
    GoAway,
}

/// What we say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outgoing {
    /// A new stream.
    Open {
        /// Its number.
        stream: u32,
        /// What it is for.
        headers: Headers,
    },
    /// Accepts a stream.
    Reply {
        /// Its number.
        stream: u32,
    },
    /// Bytes of a stream; `fin` after the last.
    Data {
        /// Its number.
        stream: u32,
        /// The bytes.
        bytes: Bytes,
        /// Nothing more follows.
        fin: bool,
    },
    /// Breaks a stream off.
    Reset {
        /// Its number.
        stream: u32,
        /// Why (SPDY/3, section 2.6.3).
        status: u32,
    },
    /// Answers a ping.
    Ping {
        /// Its number.
        id: u32,
    },
    /// No more streams are accepted.
    GoAway,
}

/// Reads frames.
#[derive(Debug)]
pub struct Decoder {
    buffer: BytesMut,
    inflater: Inflater,
    /// The data frame under way: its stream, the bytes still to come, whether it is the last.
    data: Option<(u32, usize, bool)>,
    /// Bytes of a control frame that has no meaning here.
    skip: usize,
}

impl Default for Decoder {
    fn default() -> Self {
        Self {
            buffer: BytesMut::new(),
            inflater: Inflater::new(),
            data: None,
            skip: 0,
        }
    }
}

impl Decoder {
    /// Takes in bytes, in any pieces.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next event; `None` until there are more bytes.
    ///
    /// # Errors
    /// [`FrameError`]: the connection cannot go on.
    pub fn event(&mut self) -> Result<Option<Incoming>, FrameError> {
        loop {
            if self.skip > 0 {
                let count = self.skip.min(self.buffer.len());
                self.buffer.advance(count);
                self.skip -= count;
                if self.skip > 0 {
                    return Ok(None);
                }
            }
            if let Some(event) = self.data_event() {
                return Ok(Some(event));
            }
            if self.data.is_some() {
                return Ok(None);
            }
            let Some(header) = self.buffer.first_chunk::<HEADER_BYTES>().copied() else {
                return Ok(None);
            };
            let [a, b, c, d, flags, l1, l2, l3] = header;
            let word = u32::from_be_bytes([a, b, c, d]);
            let length = usize::try_from(u32::from_be_bytes([0, l1, l2, l3])).unwrap_or_default();
            if word & !STREAM_MASK == 0 {
                self.buffer.advance(HEADER_BYTES);
                self.data = Some((word, length, flags & FIN != 0));
                continue;
            }
            let version = u16::from_be_bytes([a & 0x7f, b]);
            let kind = u16::from_be_bytes([c, d]);
            if version != VERSION {
                return Err(FrameError::Version { version });
            }
            if length > CONTROL_BYTES_MAX {
                return Err(FrameError::Length { kind, length });
            }
            if !matches!(
                kind,
                SYN_STREAM | SYN_REPLY | RST_STREAM | PING | GOAWAY | HEADERS
            ) {
                self.buffer.advance(HEADER_BYTES);
                self.skip = length;
                continue;
            }
            if self.buffer.len() < HEADER_BYTES + length {
                return Ok(None);
            }
            self.buffer.advance(HEADER_BYTES);
            let body = self.buffer.split_to(length).freeze();
            if let Some(event) = self.control(kind, flags & FIN != 0, &body)? {
                return Ok(Some(event));
            }
        }
    }

    /// What there is of the data frame under way.
    fn data_event(&mut self) -> Option<Incoming> {
        let (stream, left, fin) = self.data?;
        if left == 0 {
            self.data = None;
            // An empty frame means something only as the end.
            return fin.then(|| Incoming::Data {
                stream,
                bytes: Bytes::new(),
                fin,
            });
        }
        if self.buffer.is_empty() {
            return None;
        }
        let bytes = self.buffer.split_to(left.min(self.buffer.len())).freeze();
        let left = left - bytes.len();
        self.data = (left > 0).then_some((stream, left, fin));
        Some(Incoming::Data {
            stream,
            bytes,
            fin: fin && left == 0,
        })
    }

    fn control(
        &mut self,
        kind: u16,
        fin: bool,
        body: &Bytes,
    ) -> Result<Option<Incoming>, FrameError> {
        let short = FrameError::Length {
            kind,
            length: body.len(),
        };
        let word = |at: usize| -> Result<u32, FrameError> {
            let bytes = body.get(at..).and_then(|rest| rest.first_chunk::<4>());
            bytes
                .map(|bytes| u32::from_be_bytes(*bytes))
                .ok_or_else(|| short.clone())
        };
        let stream = || word(0).map(|word| word & STREAM_MASK);
        Ok(Some(match kind {
            SYN_STREAM => {
                let packed = body.get(10..).ok_or_else(|| short.clone())?;
                let headers = self.inflater.headers(packed)?;
                let stream = stream()?;
                Incoming::Open {
                    stream,
                    headers,
                    fin,
                }
            }
            SYN_REPLY | HEADERS => {
                let packed = body.get(4..).ok_or_else(|| short.clone())?;
                // Read in any case: the blocks of a connection share one context.
                self.inflater.headers(packed)?;
                if kind == HEADERS {
                    return Ok(None);
                }
                let stream = stream()?;
                Incoming::Reply { stream, fin }
            }
            RST_STREAM => Incoming::Reset { stream: stream()? },
            PING => Incoming::Ping { id: word(0)? },
            _ => Incoming::GoAway,
        }))
    }
}

/// Writes frames.
#[derive(Debug)]
pub struct Encoder {
    deflater: Deflater,
}

impl Default for Encoder {
    fn default() -> Self {
        Self {
            deflater: Deflater::new(),
        }
    }
}

impl Encoder {
    /// Appends the frames of one event to `out`.
    ///
    /// # Errors
    /// [`FrameError::Headers`] when headers cannot be compressed.
    pub fn encode(&mut self, event: &Outgoing, out: &mut BytesMut) -> Result<(), FrameError> {
        match event {
            Outgoing::Open { stream, headers } => {
                let mut body = stream.to_be_bytes().to_vec();
                // No associated stream, priority 0, slot 0.
                body.extend_from_slice(&[0; 6]);
                body.extend_from_slice(&self.deflater.block(headers)?);
                control(SYN_STREAM, &body, out);
            }
            Outgoing::Reply { stream } => {
                let mut body = stream.to_be_bytes().to_vec();
                body.extend_from_slice(&self.deflater.block(&Headers::default())?);
                control(SYN_REPLY, &body, out);
            }
            Outgoing::Data { stream, bytes, fin } => data(*stream, bytes, *fin, out),
            Outgoing::Reset { stream, status } => {
                let body = [stream.to_be_bytes(), status.to_be_bytes()].concat();
                control(RST_STREAM, &body, out);
            }
            Outgoing::Ping { id } => control(PING, &id.to_be_bytes(), out),
            Outgoing::GoAway => control(GOAWAY, &[0; 8], out),
        }
        Ok(())
    }
}

fn control(kind: u16, body: &[u8], out: &mut BytesMut) {
    out.extend_from_slice(&(VERSION | 0x8000).to_be_bytes());
    out.extend_from_slice(&kind.to_be_bytes());
    put_length(0, body.len(), out);
    out.extend_from_slice(body);
}

fn data(stream: u32, bytes: &[u8], fin: bool, out: &mut BytesMut) {
    let mut rest = bytes;
    loop {
        let (piece, after) = rest.split_at(rest.len().min(DATA_BYTES_MAX));
        rest = after;
        let last = rest.is_empty();
        out.extend_from_slice(&(stream & STREAM_MASK).to_be_bytes());
        put_length(u8::from(fin && last), piece.len(), out);
        out.extend_from_slice(piece);
        if last {
            return;
        }
    }
}

fn put_length(flags: u8, length: usize, out: &mut BytesMut) {
    let [_, a, b, c] = u32::try_from(length).unwrap_or_default().to_be_bytes();
    out.extend_from_slice(&[flags, a, b, c]);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(decoder: &mut Decoder) -> Vec<Incoming> {
        std::iter::from_fn(|| decoder.event().unwrap()).collect()
    }

    /// Joins the pieces of each run of data, so that splits do not show.
    fn joined(events: Vec<Incoming>) -> Vec<Incoming> {
        let mut result: Vec<Incoming> = Vec::new();
        for event in events {
            match (result.last_mut(), event) {
                (
                    Some(Incoming::Data { stream, bytes, fin }),
                    Incoming::Data {
                        stream: next,
                        bytes: more,
                        fin: last,
                    },
                ) if *stream == next && !*fin => {
                    *bytes = [bytes.as_ref(), more.as_ref()].concat().into();
                    *fin = last;
                }
                (_, event) => result.push(event),
            }
        }
        result
    }

    fn outgoing() -> impl Strategy<Value = Outgoing> {
        let stream = 1..100_u32;
        let pairs = prop::collection::vec(("[a-z]{1,9}", "[ -~]{0,30}"), 0..5);
        prop_oneof![
            (stream.clone(), pairs).prop_map(|(stream, pairs)| Outgoing::Open {
                stream,
                headers: Headers::new(pairs.iter().map(|(n, v)| (n.as_str(), v.as_str()))),
            }),
            stream.clone().prop_map(|stream| Outgoing::Reply { stream }),
            (
                stream.clone(),
                prop::collection::vec(any::<u8>(), 0..70_000),
                any::<bool>()
            )
                .prop_map(|(stream, bytes, fin)| Outgoing::Data {
                    stream,
                    bytes: bytes.into(),
                    fin
                }),
            (stream, 1..11_u32).prop_map(|(stream, status)| Outgoing::Reset { stream, status }),
            any::<u32>().prop_map(|id| Outgoing::Ping { id }),
            Just(Outgoing::GoAway),
        ]
    }

    fn mirrored(event: Outgoing) -> Option<Incoming> {
        Some(match event {
            Outgoing::Open { stream, headers } => Incoming::Open {
                stream,
                headers,
                fin: false,
            },
            Outgoing::Reply { stream } => Incoming::Reply { stream, fin: false },
            Outgoing::Data { bytes, fin, .. } if bytes.is_empty() && !fin => return None,
            Outgoing::Data { stream, bytes, fin } => Incoming::Data { stream, bytes, fin },
            Outgoing::Reset { stream, .. } => Incoming::Reset { stream },
            Outgoing::Ping { id } => Incoming::Ping { id },
            Outgoing::GoAway => Incoming::GoAway,
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn what_is_sent_is_received_however_it_is_cut(
            events in prop::collection::vec(outgoing(), 0..8),
            cuts in prop::collection::vec(1..9000_usize, 1..20),
        ) {
            let (mut encoder, mut wire) = (Encoder::default(), BytesMut::new());
            for event in &events {
                encoder.encode(event, &mut wire).unwrap();
            }
            let mut decoder = Decoder::default();
            let mut received = Vec::new();
            let mut sizes = cuts.iter().cycle();
            while !wire.is_empty() {
                let size = (*sizes.next().unwrap()).min(wire.len());
                decoder.feed(&wire.split_to(size));
                received.extend(all(&mut decoder));
            }
            let sent = joined(events.into_iter().filter_map(mirrored).collect());
            prop_assert_eq!(joined(received), sent);
        }

        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            let mut decoder = Decoder::default();
            decoder.feed(&bytes);
            while let Ok(Some(_)) = decoder.event() {}
        }
    }

    #[test]
    fn frames_without_a_meaning_here_are_skipped() {
        let mut decoder = Decoder::default();
        // SETTINGS and WINDOW_UPDATE, then a ping.
        decoder.feed(b"\x80\x03\0\x04\0\0\0\x04\0\0\0\0");
        decoder.feed(b"\x80\x03\0\x09\0\0\0\x08\0\0\0\x01\0\0\0\x09");
        decoder.feed(b"\x80\x03\0\x06\0\0\0\x04\0\0\0\x05");
        assert_eq!(all(&mut decoder), [Incoming::Ping { id: 5 }]);
    }

    #[test]
    fn a_long_data_frame_is_handed_on_before_its_end() {
        let mut decoder = Decoder::default();
        decoder.feed(b"\0\0\0\x01\x01\xff\xff\xffab");
        let bytes = Bytes::from_static(b"ab");
        let expected = Incoming::Data {
            stream: 1,
            bytes,
            fin: false,
        };
        assert_eq!(all(&mut decoder), [expected]);
        assert!(decoder.buffer.is_empty());
    }

    #[test]
    fn bad_versions_and_lengths_end_the_connection() {
        let refusal = |bytes: &[u8]| {
            let mut decoder = Decoder::default();
            decoder.feed(bytes);
            decoder.event().unwrap_err()
        };
        assert_eq!(
            refusal(b"\x80\x02\0\x06\0\0\0\x04\0\0\0\x05"),
            FrameError::Version { version: 2 }
        );
        let (kind, length) = (RST_STREAM, 2);
        let error = FrameError::Length { kind, length };
        assert_eq!(refusal(b"\x80\x03\0\x03\0\0\0\x02\0\0"), error);
        let (kind, length) = (SYN_STREAM, 0x00ff_ffff);
        let error = FrameError::Length { kind, length };
        assert_eq!(refusal(b"\x80\x03\0\x01\0\xff\xff\xff"), error);
    }
}
