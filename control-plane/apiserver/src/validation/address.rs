//! Addresses and ranges as fields: what upstream accepts, in its words.

use std::net::IpAddr;

use super::{Errors, Place};

const IP: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
const CIDR: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";

/// A range of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cidr {
    /// As written, bits beyond the prefix included.
    pub(crate) address: IpAddr,
    /// Length of the prefix.
    pub(crate) prefix: u8,
}

impl Cidr {
    /// Reads `10.9.8.0/24`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = text.split_once('/')?;
        let address: IpAddr = address.parse().ok()?;
        let digits = !prefix.is_empty() && prefix.bytes().all(|byte| byte.is_ascii_digit());
        let prefix: u8 = prefix.parse().ok().filter(|_| digits)?;
        (prefix <= bits(address)).then_some(Self { address, prefix })
    }

    /// The first address.
    pub(crate) fn base(self) -> IpAddr {
        masked(self.address, self.prefix)
    }

    /// Whether `other` lies in this range and is smaller.
    pub(crate) fn strictly_contains(self, other: Self) -> bool {
        self.address.is_ipv4() == other.address.is_ipv4()
            && self.prefix < other.prefix
            && masked(other.address, self.prefix) == self.base()
    }
}

fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn masked(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V4((v4.to_bits() & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V6((v6.to_bits() & mask).into())
        }
    }
}

/// Sentences about `text` as the address that names an object: canonical.
pub(crate) fn canonical_ip(text: &str) -> Vec<String> {
    match text.parse::<IpAddr>() {
        Err(_) => vec![IP.to_owned()],
        Ok(ip) if ip.to_string() != text => vec![format!("must be in canonical form (\"{ip}\")")],
        Ok(_) => Vec::new(),
    }
}

impl Place<'_> {
    /// Must be a range of addresses.
    pub(crate) fn cidr(&self, errors: &mut Errors) -> Option<Cidr> {
        let cidr = Cidr::parse(self.text());
        if cidr.is_none() {
            self.invalid(CIDR, errors);
        }
        cidr
    }

    /// Must be a range of addresses in its canonical form.
    pub(crate) fn canonical_cidr(&self, errors: &mut Errors) {
        let Some(cidr) = self.cidr(errors) else {
            return;
        };
        let canonical = format!("{}/{}", cidr.base(), cidr.prefix);
        if cidr.base() != cidr.address {
            self.invalid("must not have bits set beyond the prefix length", errors);
        } else if canonical != self.text() {
            self.invalid(
                format!("must be in canonical form (\"{canonical}\")"),
                errors,
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_contain_smaller_ranges_of_their_family_only() {
        let cidr = |text| Cidr::parse(text).unwrap();
        assert!(cidr("10.0.0.0/8").strictly_contains(cidr("10.1.0.0/16")));
        assert!(!cidr("10.0.0.0/8").strictly_contains(cidr("10.0.0.0/8")));
        assert!(!cidr("10.0.0.0/8").strictly_contains(cidr("11.0.0.0/16")));
        assert!(cidr("0.0.0.0/0").strictly_contains(cidr("1.2.3.4/32")));
        assert!(cidr("::/0").strictly_contains(cidr("2001:db8::/32")));
        assert!(!cidr("::/0").strictly_contains(cidr("10.0.0.0/8")));
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for text in [
            "",
            "10.0.0.0",
            "10.0.0.0/33",
            "10.0.0/8",
            "::/129",
            "10.0.0.0/+8",
            "10.0.0.0/",
        ] {
            assert_eq!(Cidr::parse(text), None, "{text}");
        }
    }

    #[test]
    fn names_of_addresses_are_canonical() {
        assert!(canonical_ip("2001:db8::1").is_empty());
        assert_eq!(
            canonical_ip("2001:DB8::1"),
            ["must be in canonical form (\"2001:db8::1\")"]
        );
        assert_eq!(canonical_ip("010.0.0.1"), [IP]);
    }
}
