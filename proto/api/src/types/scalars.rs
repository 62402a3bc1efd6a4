//! Scalars with a Kubernetes form in JSON: times, byte strings, integers or strings. Changes when
//! such a form does.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

macro_rules! time {
    ($(#[$doc:meta])* $name:ident, $format:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub String);

        impl $name {
            /// The text of `at`.
            pub fn from_timestamp(at: Timestamp) -> Self {
                Self(at.strftime($format).to_string())
            }

            /// The instant, when the text is RFC 3339.
            pub fn timestamp(&self) -> Option<Timestamp> {
                self.0.parse().ok()
            }

            /// Time from this instant to `now`; negative when it lies ahead, `None` when the text
            /// is not RFC 3339.
            pub fn age(&self, now: Timestamp) -> Option<SignedDuration> {
                Some(now.duration_since(self.timestamp()?))
            }
        }

        impl From<Timestamp> for $name {
            fn from(at: Timestamp) -> Self {
                Self::from_timestamp(at)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

time!(
    /// RFC 3339 in UTC with whole seconds: `2026-01-31T12:00:00Z`.
    Time,
    "%Y-%m-%dT%H:%M:%SZ"
);
time!(
    /// RFC 3339 in UTC with microseconds: `2026-01-31T12:00:00.000000Z`.
    MicroTime,
    "%Y-%m-%dT%H:%M:%S.%6fZ"
);

/// Bytes, base64 in JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(pub Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let text: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
        STANDARD
            .decode(text)
            .map(Self)
            .map_err(serde::de::Error::custom)
    }
}

/// A number or a name, as in `targetPort`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum IntOrString {
    /// A JSON number.
    Int(i32),
    /// A JSON string: a name, or a percentage such as `25%`.
    String(String),
}

impl Default for IntOrString {
    fn default() -> Self {
        Self::Int(0)
    }
}

impl fmt::Display for IntOrString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(number) => number.fmt(f),
            Self::String(text) => text.fmt(f),
        }
    }
}

impl IntOrString {
    /// The value itself, or the percentage of `total`, rounded as told.
    /// `None` when a string is no percentage.
    pub fn scaled(&self, total: i32, round: Round) -> Option<i32> {
        let text = match self {
            Self::Int(number) => return Some(*number),
            Self::String(text) => text,
        };
        let percent: i64 = text.strip_suffix('%')?.parse().ok()?;
        let product = percent.checked_mul(i64::from(total))?;
        let scaled = match round {
            Round::Up => product.checked_add(99)?.div_euclid(100),
            Round::Down => product.div_euclid(100),
        };
        i32::try_from(scaled).ok()
    }
}

/// Where a fraction of a percentage goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Round {
    /// To the next whole number (`maxSurge`).
    Up,
    /// To the whole number below (`maxUnavailable`).
    Down,
}
