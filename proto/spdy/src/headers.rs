//! Header blocks: names and values, compressed with one context a connection and direction.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use crate::dictionary::DICTIONARY;
use crate::frame::FrameError;

/// A block larger than this, decompressed, ends the connection.
const BLOCK_BYTES_MAX: usize = 64 * 1024;
/// Names in one block.
const NAMES_MAX: usize = 256;

/// Names (lower case) and values of one stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    /// Of pairs; names are lower-cased.
    pub fn new<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let pairs = pairs.into_iter();
        Self(
            pairs
                .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
                .collect(),
        )
    }

    /// The value of `name`, in any case; empty when there is none.
    #[must_use]
    pub fn get(&self, name: &str) -> &str {
        let found = self
            .0
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map_or("", |(_, value)| value)
    }

    fn to_block(&self) -> Vec<u8> {
        let mut block = Vec::new();
        put_length(&mut block, self.0.len());
        for (name, value) in &self.0 {
            for text in [name, value] {
                put_length(&mut block, text.len());
                block.extend_from_slice(text.as_bytes());
            }
        }
        block
    }

    fn from_block(block: &[u8]) -> Result<Self, FrameError> {
        let mut rest = block;
        let count = take_length(&mut rest)?;
        if count > NAMES_MAX {
            return Err(FrameError::Headers);
        }
        let mut pairs = Vec::with_capacity(count);
        for _ in 0..count {
            let name = take_text(&mut rest)?;
            pairs.push((name.to_ascii_lowercase(), take_text(&mut rest)?));
        }
        Ok(Self(pairs))
    }
}

fn put_length(block: &mut Vec<u8>, length: usize) {
    let length = u32::try_from(length).unwrap_or(u32::MAX);
    block.extend_from_slice(&length.to_be_bytes());
}

fn take_length(rest: &mut &[u8]) -> Result<usize, FrameError> {
    let (length, after) = rest.split_first_chunk::<4>().ok_or(FrameError::Headers)?;
    *rest = after;
    usize::try_from(u32::from_be_bytes(*length)).or(Err(FrameError::Headers))
}

fn take_text(rest: &mut &[u8]) -> Result<String, FrameError> {
    let length = take_length(rest)?;
    let (text, after) = rest.split_at_checked(length).ok_or(FrameError::Headers)?;
    *rest = after;
    Ok(String::from_utf8_lossy(text).into_owned())
}

/// Compresses the blocks of one direction, in order.
#[derive(Debug)]
pub(crate) struct Deflater(Compress);

impl Deflater {
    pub(crate) fn new() -> Self {
        let mut compress = Compress::new(Compression::default(), true);
        let set = compress.set_dictionary(&DICTIONARY);
        debug_assert!(set.is_ok(), "a fresh stream takes a dictionary");
        Self(compress)
    }

    pub(crate) fn block(&mut self, headers: &Headers) -> Result<Vec<u8>, FrameError> {
        let plain = headers.to_block();
        let mut packed = Vec::with_capacity(plain.len() + 64);
        let start = self.0.total_in();
        loop {
            let done = usize::try_from(self.0.total_in() - start).unwrap_or(plain.len());
            let input = plain.get(done..).unwrap_or_default();
            let status = self.0.compress_vec(input, &mut packed, FlushCompress::Sync);
            status.or(Err(FrameError::Headers))?;
            // Room left means that everything, the flush included, is out.
            if packed.len() < packed.capacity() {
                return Ok(packed);
            }
            packed.reserve(packed.len().max(64));
        }
    }
}

/// Decompresses the blocks of one direction, in order.
#[derive(Debug)]
pub(crate) struct Inflater(Decompress);

impl Inflater {
    pub(crate) fn new() -> Self {
        Self(Decompress::new(true))
    }

    pub(crate) fn headers(&mut self, packed: &[u8]) -> Result<Headers, FrameError> {
        let mut plain = Vec::with_capacity((packed.len() * 4).clamp(256, BLOCK_BYTES_MAX));
        let start = self.0.total_in();
        loop {
            let done = usize::try_from(self.0.total_in() - start).unwrap_or(packed.len());
            let input = packed.get(done..).unwrap_or_default();
            match self
                .0
                .decompress_vec(input, &mut plain, FlushDecompress::Sync)
            {
                Ok(Status::StreamEnd) => return Err(FrameError::Headers),
                Ok(Status::Ok | Status::BufError) => {}
                Err(error) if error.needs_dictionary().is_some() => {
                    let set = self.0.set_dictionary(&DICTIONARY);
                    set.or(Err(FrameError::Headers))?;
                    continue;
                }
                Err(_bad) => return Err(FrameError::Headers),
            }
            if plain.len() < plain.capacity() {
                return Headers::from_block(&plain);
            }
            if plain.len() >= BLOCK_BYTES_MAX {
                return Err(FrameError::Headers);
            }
            plain.reserve(plain.len().max(256));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_block_begins_as_every_peer_expects() {
        let headers = Headers::new([("streamType", "error"), ("port", "80")]);
        let block = Deflater::new().block(&headers).unwrap();
        assert_eq!(block[..2], [0x78, 0xbb]);
        assert_eq!(block[2..6], [0xe3, 0xc6, 0xa7, 0xc2]);
    }

    #[test]
    fn a_name_is_found_in_any_case() {
        let headers = Headers::new([("streamType", "data")]);
        assert_eq!(headers.get("STREAMTYPE"), "data");
        assert_eq!(headers.get("port"), "");
    }

    #[test]
    fn a_block_that_lies_about_its_lengths_is_refused() {
        for block in [
            &b""[..],
            b"\0\0\0\x01",
            b"\0\0\0\x01\0\0\0\x09a",
            b"\xff\xff\xff\xff",
        ] {
            assert_eq!(Headers::from_block(block), Err(FrameError::Headers));
        }
    }

    #[test]
    fn a_block_that_blows_up_is_refused() {
        let value = "x".repeat(BLOCK_BYTES_MAX * 4);
        let headers = Headers::new([("a", value.as_str())]);
        let packed = Deflater::new().block(&headers).unwrap();
        assert!(packed.len() < 4096, "{} bytes", packed.len());
        let refused = Inflater::new().headers(&packed);
        assert_eq!(refused, Err(FrameError::Headers));
    }

    proptest! {
        #[test]
        fn blocks_survive_one_after_another(
            blocks in prop::collection::vec(
                prop::collection::vec(("[a-z-]{1,20}", ".{0,60}"), 0..8), 1..6)
        ) {
            let (mut deflater, mut inflater) = (Deflater::new(), Inflater::new());
            for pairs in blocks {
                let headers = Headers::new(pairs.iter().map(|(n, v)| (n.as_str(), v.as_str())));
                let packed = deflater.block(&headers).unwrap();
                prop_assert_eq!(inflater.headers(&packed).unwrap(), headers);
            }
        }

        #[test]
        fn garbage_is_refused_and_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            drop(Inflater::new().headers(&bytes));
            drop(Headers::from_block(&bytes));
        }
    }
}
