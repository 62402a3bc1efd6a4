//! The bytes of one log record and of the two small records beside the log.
//!
//! A record is one change of one key. Its place is its key in the engine, `be64(revision)
//! be16(index in the commit)`; its value is
//!
//! ```text
//! crc32 u32 | op u8 | flags u8 | count u16 | live u64 | deadline u64 | key_len u16 | key | value
//! ```
//!
//! all little-endian. The checksum covers the place and everything after itself, so a record that
//! moved is as corrupt as one that changed. `count` is the number of changes in the commit and
//! `live` the number of keys after it: with them a missing record is found at start, too.

use bytes::{BufMut as _, Bytes, BytesMut};

use crate::model::Rev;

/// Bytes of a place.
pub(crate) const PLACE_LEN: usize = 10;
const HEADER_LEN: usize = 26;
const OP_PUT: u8 = 1;
const OP_DELETE: u8 = 2;

/// Where a record is. Ordered as the log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Place {
    pub(crate) rev: Rev,
    pub(crate) index: u16,
}

impl Place {
    /// The place of the compaction mark: revision 0 names no state, so no record is there.
    pub(crate) const MARK: Self = Self {
        rev: Rev(0),
        index: 0,
    };

    pub(crate) const fn first_of(rev: Rev) -> Self {
        Self { rev, index: 0 }
    }

    pub(crate) fn encode(self) -> [u8; PLACE_LEN] {
        let mut out = [0; PLACE_LEN];
        out[..8].copy_from_slice(&self.rev.0.to_be_bytes());
        out[8..].copy_from_slice(&self.index.to_be_bytes());
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (rev, index) = bytes.split_first_chunk::<8>()?;
        let index: [u8; 2] = index.try_into().ok()?;
        Some(Self {
            rev: Rev(u64::from_be_bytes(*rev)),
            index: u16::from_be_bytes(index),
        })
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.rev, self.index)
    }
}

/// One change as the log holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// Changes in the commit.
    pub(crate) count: u16,
    /// Keys that exist after the commit.
    pub(crate) live: u64,
    /// When the key expires, in milliseconds since 1970.
    pub(crate) deadline_ms: Option<u64>,
    pub(crate) key: Bytes,
    /// `None`: the key was deleted.
    pub(crate) value: Option<Bytes>,
}

/// What a damaged record is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RecordFault {
    #[error("it is cut off")]
    Short,
    #[error("its checksum does not fit its bytes")]
    Checksum,
    #[error("its operation is unknown")]
    Op,
}

impl Record {
    pub(crate) fn encode(&self, place: Place) -> Bytes {
        let value = self.value.as_deref().unwrap_or_default();
        let mut out = BytesMut::with_capacity(HEADER_LEN + self.key.len() + value.len());
        out.put_u32_le(0);
        out.put_u8(if self.value.is_some() {
            OP_PUT
        } else {
            OP_DELETE
        });
        out.put_u8(0);
        out.put_u16_le(self.count);
        out.put_u64_le(self.live);
        out.put_u64_le(self.deadline_ms.unwrap_or(0));
        // `check_ops` bounds keys far below.
        out.put_u16_le(u16::try_from(self.key.len()).unwrap_or(u16::MAX));
        out.put_slice(&self.key);
        out.put_slice(value);
        let crc = checksum(place, &out[4..]);
        out[..4].copy_from_slice(&crc.to_le_bytes());
        out.freeze()
    }

    pub(crate) fn decode(place: Place, bytes: &Bytes) -> Result<Self, RecordFault> {
        let header: &[u8; HEADER_LEN] = bytes.first_chunk().ok_or(RecordFault::Short)?;
        let [c0, c1, c2, c3, op, _flags, n0, n1, rest @ ..] = *header;
        if checksum(place, &bytes[4..]) != u32::from_le_bytes([c0, c1, c2, c3]) {
            return Err(RecordFault::Checksum);
        }
        let [l0, l1, l2, l3, l4, l5, l6, l7, rest @ ..] = rest;
        let [d0, d1, d2, d3, d4, d5, d6, d7, k0, k1] = rest;
        let deadline_ms = u64::from_le_bytes([d0, d1, d2, d3, d4, d5, d6, d7]);
        let key_end = HEADER_LEN + usize::from(u16::from_le_bytes([k0, k1]));
        if bytes.len() < key_end {
            return Err(RecordFault::Short);
        }
        let value = match op {
            OP_PUT => Some(bytes.slice(key_end..)),
            OP_DELETE => None,
            _ => return Err(RecordFault::Op),
        };
        Ok(Self {
            count: u16::from_le_bytes([n0, n1]),
            live: u64::from_le_bytes([l0, l1, l2, l3, l4, l5, l6, l7]),
            deadline_ms: (deadline_ms != 0).then_some(deadline_ms),
            key: bytes.slice(HEADER_LEN..key_end),
            value,
        })
    }
}

/// How far the log was compacted, stored at [`Place::MARK`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    /// All changes after this revision are in the log.
    pub(crate) compacted: Rev,
    /// Keys that existed when the mark was written.
    pub(crate) live: u64,
}

impl Mark {
    pub(crate) fn encode(self) -> [u8; 20] {
        let mut out = [0; 20];
        out[4..12].copy_from_slice(&self.compacted.0.to_le_bytes());
        out[12..].copy_from_slice(&self.live.to_le_bytes());
        let crc = checksum(Place::MARK, &out[4..]);
        out[..4].copy_from_slice(&crc.to_le_bytes());
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, RecordFault> {
        let (crc, rest) = bytes.split_first_chunk::<4>().ok_or(RecordFault::Short)?;
        if checksum(Place::MARK, rest) != u32::from_le_bytes(*crc) {
            return Err(RecordFault::Checksum);
        }
        let (compacted, live) = rest.split_first_chunk::<8>().ok_or(RecordFault::Short)?;
        let Ok(live) = <[u8; 8]>::try_from(live) else {
            return Err(RecordFault::Short);
        };
        Ok(Self {
            compacted: Rev(u64::from_le_bytes(*compacted)),
            live: u64::from_le_bytes(live),
        })
    }
}

fn checksum(place: Place, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&place.encode());
    hasher.update(bytes);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record() -> impl Strategy<Value = (Place, Record)> {
        let key = prop::collection::vec(any::<u8>(), 1..40);
        let value = prop::option::of(prop::collection::vec(any::<u8>(), 0..60));
        let numbers = (
            1..u64::MAX,
            any::<u16>(),
            any::<u16>(),
            any::<u64>(),
            1..u64::MAX,
        );
        (key, value, numbers).prop_map(|(key, value, (rev, index, count, live, deadline))| {
            let deadline_ms = (deadline % 2 == 0).then_some(deadline);
            let (key, value) = (key.into(), value.map(Bytes::from));
            (
                Place {
                    rev: Rev(rev),
                    index,
                },
                Record {
                    count,
                    live,
                    deadline_ms,
                    key,
                    value,
                },
            )
        })
    }

    proptest! {
        #[test]
        fn a_record_survives_its_encoding((place, record) in record()) {
            prop_assert_eq!(Place::decode(&place.encode()), Some(place));
            prop_assert_eq!(Record::decode(place, &record.encode(place)), Ok(record));
        }

        #[test]
        fn any_flipped_bit_and_any_other_place_is_found(
            (place, record) in record(), at in any::<prop::sample::Index>(), bit in 0..8_u32,
        ) {
            let encoded = record.encode(place);
            let moved = Place { rev: place.rev.next(), ..place };
            prop_assert_eq!(Record::decode(moved, &encoded), Err(RecordFault::Checksum));
            let mut bytes = encoded.to_vec();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(Record::decode(place, &bytes.into()).is_err());
        }

        #[test]
        fn a_cut_record_is_found((place, record) in record(), at in any::<prop::sample::Index>()) {
            let encoded = record.encode(place);
            let cut = encoded.slice(..at.index(encoded.len()));
            prop_assert!(Record::decode(place, &cut).is_err());
        }
    }

    #[test]
    fn a_mark_survives_its_encoding_and_shows_damage() {
        let mark = Mark {
            compacted: Rev(7),
            live: 3,
        };
        let mut bytes = mark.encode();
        assert_eq!(Mark::decode(&bytes), Ok(mark));
        bytes[9] ^= 1;
        assert_eq!(Mark::decode(&bytes), Err(RecordFault::Checksum));
        assert_eq!(Mark::decode(&bytes[..3]), Err(RecordFault::Short));
    }
}
