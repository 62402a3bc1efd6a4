//! A range of addresses: `address/length`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// A range of addresses of one family. The address has no bits beyond the length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Range {
    address: IpAddr,
    length: u8,
}

/// A text that is no range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no address range such as 10.244.1.0/24: {reason}")]
pub struct RangeError {
    text: String,
    reason: &'static str,
}

impl Range {
    /// First address.
    #[must_use]
    pub fn address(self) -> IpAddr {
        self.address
    }

    /// Bits of the address that count: at most 32 or 128.
    #[must_use]
    pub fn length(self) -> u8 {
        self.length
    }

    /// Whether `address` is in the range.
    #[must_use]
    pub fn contains(self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let shift = 32 - u32::from(self.length);
                own.to_bits().checked_shr(shift) == other.to_bits().checked_shr(shift)
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let shift = 128 - u32::from(self.length);
                own.to_bits().checked_shr(shift) == other.to_bits().checked_shr(shift)
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }

    /// Addresses in the range; at most 2^32, which is more than a node has pods.
    #[must_use]
    pub fn size(self) -> u64 {
        let bits = if self.address.is_ipv4() { 32 } else { 128 };
        1u64 << (bits - self.length).min(32)
    }

    /// The address at `offset` from the first.
    #[must_use]
    pub fn nth(self, offset: u64) -> Option<IpAddr> {
        if offset >= self.size() {
            return None;
        }
        match self.address {
            IpAddr::V4(first) => {
                let offset = u32::try_from(offset).ok()?;
                Some(IpAddr::V4(first.to_bits().checked_add(offset)?.into()))
            }
            IpAddr::V6(first) => Some(IpAddr::V6(
                first.to_bits().checked_add(u128::from(offset))?.into(),
            )),
        }
    }

    /// Distance of `address` from the first.
    #[must_use]
    pub fn offset(self, address: IpAddr) -> Option<u64> {
        if !self.contains(address) {
            return None;
        }
        match (self.address, address) {
            (IpAddr::V4(first), IpAddr::V4(other)) => {
                Some(u64::from(other.to_bits() - first.to_bits()))
            }
            (IpAddr::V6(first), IpAddr::V6(other)) => {
                u64::try_from(other.to_bits() - first.to_bits()).ok()
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => None,
        }
    }
}

impl FromStr for Range {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, RangeError> {
        let error = |reason| RangeError {
            text: text.to_owned(),
            reason,
        };
        let (address, length) = text.split_once('/').ok_or_else(|| error("no slash"))?;
        let address: IpAddr = address.parse().map_err(|_bad| error("no address"))?;
        let length: u8 = length.parse().map_err(|_bad| error("no length"))?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        if length > bits {
            return Err(error("the length is more than the address has bits"));
        }
        let address = match address {
            IpAddr::V4(v4) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
                IpAddr::V4((v4.to_bits() & mask).into())
            }
            IpAddr::V6(v6) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
                IpAddr::V6((v6.to_bits() & mask).into())
            }
        };
        Ok(Self { address, length })
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> Range {
        text.parse().unwrap()
    }

    #[test]
    fn a_range_drops_host_bits_and_knows_its_addresses() {
        let v4 = range("10.244.1.77/24");
        assert_eq!(v4.to_string(), "10.244.1.0/24");
        assert_eq!(v4.size(), 256);
        assert_eq!(v4.nth(5), Some("10.244.1.5".parse().unwrap()));
        assert_eq!(v4.nth(256), None);
        assert_eq!(v4.offset("10.244.1.5".parse().unwrap()), Some(5));
        assert!(!v4.contains("10.244.2.1".parse().unwrap()));
        assert!(!v4.contains("fd00::1".parse().unwrap()));
        let v6 = range("fd00:10:244:1::/64");
        assert_eq!(v6.nth(3), Some("fd00:10:244:1::3".parse().unwrap()));
        assert_eq!(v6.offset("fd00:10:244:1::3".parse().unwrap()), Some(3));
        assert!(range("0.0.0.0/0").contains("192.0.2.1".parse().unwrap()));
    }

    #[test]
    fn what_is_no_range_is_refused_with_the_reason() {
        for (text, reason) in [
            ("10.0.0.0", "no slash"),
            ("ten/8", "no address"),
            ("10.0.0.0/x", "no length"),
            (
                "10.0.0.0/33",
                "the length is more than the address has bits",
            ),
        ] {
            let error = text.parse::<Range>().unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("{text:?} is no address range such as 10.244.1.0/24: {reason}")
            );
        }
    }
}
