//! The protobuf wire format: tags, varints, lengths. Changes never.

use super::TranscodeError;

const VARINT: u8 = 0;
const FIXED64: u8 = 1;
const LENGTH: u8 = 2;
const FIXED32: u8 = 5;

/// One field's payload; no field of ours is four fixed bytes, so those are only skipped.
#[derive(Debug, Clone, Copy)]
pub(super) enum Payload<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32,
    Bytes(&'a [u8]),
}

impl<'a> Payload<'a> {
    pub(super) fn bytes(self, field: &str) -> Result<&'a [u8], TranscodeError> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            other => Err(other.wrong(field)),
        }
    }

    pub(super) fn text(self, field: &str) -> Result<String, TranscodeError> {
        let bytes = self.bytes(field)?;
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(TranscodeError::Content {
                field: field.to_owned(),
                problem: "text that is no UTF-8",
            }),
        }
    }

    /// A varint as the signed number it stands for.
    pub(super) fn int(self, field: &str) -> Result<i64, TranscodeError> {
        match self {
            Self::Varint(bits) => Ok(bits.cast_signed()),
            other => Err(other.wrong(field)),
        }
    }

    pub(super) fn double(self, field: &str) -> Result<f64, TranscodeError> {
        match self {
            Self::Fixed64(bits) => Ok(f64::from_bits(bits)),
            other => Err(other.wrong(field)),
        }
    }

    fn wrong(self, field: &str) -> TranscodeError {
        let wire_type = match self {
            Self::Varint(_) => VARINT,
            Self::Fixed64(_) => FIXED64,
            Self::Bytes(_) => LENGTH,
            Self::Fixed32 => FIXED32,
        };
        TranscodeError::WireType {
            wire_type,
            field: field.to_owned(),
        }
    }
}

/// Reads one message field by field.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    context: &'a str,
}

impl<'a> Reader<'a> {
    pub(super) fn new(message: &'a [u8], context: &'a str) -> Self {
        Self {
            rest: message,
            context,
        }
    }

    pub(super) fn field(&mut self) -> Result<Option<(u32, Payload<'a>)>, TranscodeError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).map_err(|_too_large| self.truncated())?;
        let payload = match (tag & 7) as u8 {
            VARINT => Payload::Varint(self.varint()?),
            FIXED64 => {
                let (bytes, rest) = self
                    .rest
                    .split_first_chunk()
                    .ok_or_else(|| self.truncated())?;
                self.rest = rest;
                Payload::Fixed64(u64::from_le_bytes(*bytes))
            }
            FIXED32 => {
                let (_, rest) = self
                    .rest
                    .split_first_chunk::<4>()
                    .ok_or_else(|| self.truncated())?;
                self.rest = rest;
                Payload::Fixed32
            }
            LENGTH => {
                let len = usize::try_from(self.varint()?).map_err(|_big| self.truncated())?;
                let (bytes, rest) = self
                    .rest
                    .split_at_checked(len)
                    .ok_or_else(|| self.truncated())?;
                self.rest = rest;
                Payload::Bytes(bytes)
            }
            wire_type => {
                let field = format!("{} of {}", number, self.context);
                return Err(TranscodeError::WireType { wire_type, field });
            }
        };
        Ok(Some((number, payload)))
    }

    pub(super) fn varint(&mut self) -> Result<u64, TranscodeError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.rest.split_first().ok_or_else(|| self.truncated())?;
            self.rest = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.truncated())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    fn truncated(&self) -> TranscodeError {
        TranscodeError::Truncated {
            context: self.context.to_owned(),
        }
    }
}

/// Writes one message.
#[derive(Default)]
pub(super) struct Writer {
    pub(super) out: Vec<u8>,
}

impl Writer {
    pub(super) fn bytes(&mut self, number: u32, bytes: &[u8]) {
        self.head(number, bytes.len() as u64);
        self.out.extend_from_slice(bytes);
    }

    /// Tag and length of `len` bytes that follow.
    pub(super) fn head(&mut self, number: u32, len: u64) {
        self.tag(number, LENGTH);
        self.raw_varint(len);
    }

    pub(super) fn int(&mut self, number: u32, value: i64) {
        self.tag(number, VARINT);
        self.raw_varint(value.cast_unsigned());
    }

    pub(super) fn double(&mut self, number: u32, value: f64) {
        self.tag(number, FIXED64);
        self.out.extend_from_slice(&value.to_bits().to_le_bytes());
    }

    fn tag(&mut self, number: u32, wire_type: u8) {
        self.raw_varint(u64::from(number) << 3 | u64::from(wire_type));
    }

    fn raw_varint(&mut self, mut value: u64) {
        loop {
            let low = value.to_le_bytes()[0] & 0x7f;
            value >>= 7;
            if value == 0 {
                self.out.push(low);
                return;
            }
            self.out.push(low | 0x80);
        }
    }
}
