//! Unique numbers of services: cluster addresses and node ports.
//!
//! Owns: the index of what is taken, fed from the store, and the choice of a free one. Every taken
//! number is a key of its own in the store (an IPAddress object, `x/nodeport/…`), written in the
//! commit of its service with "must be absent": two writers cannot both get it, and a crash between
//! choice and commit leaves nothing behind.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use parking_lot::RwLock;

/// First and last node port (upstream's default range).
pub const NODE_PORTS: std::ops::RangeInclusive<u16> = 30_000..=32_767;
/// Ports at the start of the range that are left to explicit requests.
const NODE_PORTS_STATIC: u16 = 86;

/// A family of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// 32 bits.
    V4,
    /// 128 bits.
    V6,
}

impl Family {
    /// The family of an address.
    #[must_use]
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// As services name it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    const fn bits(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }
}

/// A range that cluster addresses come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServiceCidr {
    network: u128,
    family: Family,
    prefix: u8,
}

/// Why a service range is unusable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CidrError {
    /// No range, or one of an unusual size.
    #[error(
        "service CIDR {text:?} is not an IPv4 network with a prefix of 8 to 28 bits or an IPv6 \
         network with a prefix of 64 to 124 bits"
    )]
    Range {
        /// What was given.
        text: String,
    },
    /// More than one range of a family.
    #[error("service CIDRs {text:?}: give one range, or one of each family, the primary one first")]
    Families {
        /// What was given.
        text: String,
    },
}

impl std::str::FromStr for ServiceCidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let error = || CidrError::Range {
            text: text.to_owned(),
        };
        let (address, prefix) = text.split_once('/').ok_or_else(error)?;
        let address: IpAddr = address.parse().map_err(|_fault| error())?;
        let prefix: u8 = prefix.parse().map_err(|_fault| error())?;
        let family = Family::of(address);
        let possible = match family {
            Family::V4 => 8..=28,
            Family::V6 => 64..=124,
        };
        if !possible.contains(&prefix) {
            return Err(error());
        }
        let cidr = Self {
            network: number(address),
            family,
            prefix,
        };
        let aligned = cidr.network & (cidr.size() - 1) == 0;
        aligned.then_some(cidr).ok_or_else(error)
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

impl std::fmt::Display for ServiceCidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address(0), self.prefix)
    }
}

impl ServiceCidr {
    /// Its family.
    #[must_use]
    pub const fn family(self) -> Family {
        self.family
    }

    fn size(self) -> u128 {
        1_u128 << (self.family.bits() - self.prefix)
    }

    /// The address at `offset`; offset 1 is that of the `kubernetes` service.
    #[must_use]
    pub fn address(self, offset: u64) -> IpAddr {
        let number = self.network + u128::from(offset);
        match self.family {
            // An IPv4 network is made of 32 bits, and offsets lie within it.
            Family::V4 => Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX)).into(),
            Family::V6 => Ipv6Addr::from(number).into(),
        }
    }

    /// The offset of the last address that a service may have.
    fn last(self) -> u64 {
        let reserved = match self.family {
            Family::V4 => 2,
            Family::V6 => 1,
        };
        u64::try_from(self.size() - reserved).unwrap_or(u64::MAX)
    }

    /// Whether a service may have `address`: inside, neither the network's nor the broadcast one.
    #[must_use]
    pub fn allows(self, address: IpAddr) -> bool {
        let offset = number(address).wrapping_sub(self.network);
        Family::of(address) == self.family && offset > 0 && offset <= u128::from(self.last())
    }

    /// Whether `address` is in the range at all.
    pub(crate) fn contains(self, address: IpAddr) -> bool {
        let offset = number(address).wrapping_sub(self.network);
        Family::of(address) == self.family && offset < self.size()
    }

    /// Addresses at the start that are left to explicit requests: min(max(16, size/16), 256).
    fn static_band(self) -> u64 {
        let band = (self.size() / 16).clamp(16, 256);
        u64::try_from(band).unwrap_or(256).min(self.last())
    }
}

/// The ranges of a cluster: one, or one of each family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServiceRanges {
    /// The range of services that do not choose.
    pub primary: ServiceCidr,
    /// The range of the other family.
    pub secondary: Option<ServiceCidr>,
}

impl std::str::FromStr for ServiceRanges {
    type Err = CidrError;

    /// One range, or two with a comma between them.
    fn from_str(text: &str) -> Result<Self, CidrError> {
        let families = || CidrError::Families {
            text: text.to_owned(),
        };
        let all: Vec<ServiceCidr> = text
            .split(',')
            .map(|one| one.trim().parse())
            .collect::<Result<_, _>>()?;
        match all.as_slice() {
            [primary] => Ok(Self {
                primary: *primary,
                secondary: None,
            }),
            [primary, secondary] if primary.family != secondary.family => Ok(Self {
                primary: *primary,
                secondary: Some(*secondary),
            }),
            _ => Err(families()),
        }
    }
}

impl ServiceRanges {
    /// The ranges as text, the primary one first.
    #[must_use]
    pub fn texts(&self) -> Vec<String> {
        std::iter::once(self.primary)
            .chain(self.secondary)
            .map(|range| range.to_string())
            .collect()
    }

    /// The range of a family, named as services name it.
    #[must_use]
    pub fn of(&self, family: &str) -> Option<ServiceCidr> {
        std::iter::once(self.primary)
            .chain(self.secondary)
            .find(|range| range.family.name() == family)
    }
}

/// What is taken, by store key.
#[derive(Debug, Default)]
pub struct AllocationIndex {
    taken: RwLock<HashSet<Box<str>>>,
}

/// Whether a store key is that of a number; other keys that are no object's are left alone (they
/// may be of a later version).
pub(crate) fn is_number(key: &str) -> bool {
    key.starts_with("x/nodeport/") || key.starts_with(ADDRESSES)
}

/// What the store keys of IPAddress objects begin with.
const ADDRESSES: &str = "o/networking.k8s.io/ipaddresses//";

/// Store key of a cluster address: that of its IPAddress object.
#[must_use]
pub fn ip_key(address: IpAddr) -> String {
    format!("{ADDRESSES}{address}")
}

/// The address whose store key this is.
pub(crate) fn ip_of(key: &str) -> Option<IpAddr> {
    key.strip_prefix(ADDRESSES)?.parse().ok()
}

/// Store key of a node port.
#[must_use]
pub fn node_port_key(protocol: &str, port: u16) -> String {
    format!("x/nodeport/{protocol}/{port}")
}

impl AllocationIndex {
    pub(crate) fn reset(&self, taken: impl Iterator<Item = Box<str>>) {
        *self.taken.write() = taken.collect();
    }

    pub(crate) fn insert(&self, key: &str) {
        self.taken.write().insert(key.into());
    }

    pub(crate) fn remove(&self, key: &str) {
        self.taken.write().remove(key);
    }

    /// Whether nobody has `key`.
    #[must_use]
    pub fn is_free(&self, key: &str) -> bool {
        !self.taken.read().contains(key)
    }

    /// A free address: from the upper band first, searched from a point that `random` chooses, so
    /// that concurrent writers seldom meet. `None`: the range is full.
    #[must_use]
    pub fn free_ip(&self, cidr: ServiceCidr, random: u32) -> Option<IpAddr> {
        let taken = self.taken.read();
        let band = cidr.static_band();
        let last = cidr.last();
        let upper = rotate(band, last, random);
        let lower = rotate(1, band.saturating_sub(1), random);
        upper
            .chain(lower)
            .map(|offset| cidr.address(offset))
            .find(|address| !taken.contains(ip_key(*address).as_str()))
    }

    /// A port that is free for all of `protocols`; the upper band first.
    #[must_use]
    pub fn free_node_port(&self, protocols: &[&str], random: u32) -> Option<u16> {
        let taken = self.taken.read();
        let (first, last) = (u64::from(*NODE_PORTS.start()), u64::from(*NODE_PORTS.end()));
        let band = first + u64::from(NODE_PORTS_STATIC);
        rotate(band, last, random)
            .chain(rotate(first, band - 1, random))
            .filter_map(|port| u16::try_from(port).ok())
            .find(|port| {
                protocols
                    .iter()
                    .all(|protocol| !taken.contains(node_port_key(protocol, *port).as_str()))
            })
    }
}

/// All numbers of `first..=last`, starting at a point chosen by `random`.
fn rotate(first: u64, last: u64, random: u32) -> impl Iterator<Item = u64> {
    let count = if last < first {
        0
    } else {
        (last - first).saturating_add(1)
    };
    let start = u64::from(random).checked_rem(count).unwrap_or_default();
    (0..count).map(move |i| first + start.wrapping_add(i) % count.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_an_address_is_that_of_its_object() {
        let key = crate::object::store_key("networking.k8s.io", "ipaddresses", "", "10.96.0.7");
        let address = IpAddr::from([10, 96, 0, 7]);
        assert_eq!(ip_key(address), key);
        assert_eq!(ip_of(&key), Some(address));
        assert_eq!(ip_of(&node_port_key("TCP", 30_000)), None);
    }

    #[test]
    fn a_range_gives_every_address_once_and_then_none() {
        let cidr: ServiceCidr = "10.96.0.0/28".parse().unwrap();
        let index = AllocationIndex::default();
        let mut seen = std::collections::BTreeSet::new();
        for random in 0..14 {
            let address = index.free_ip(cidr, random * 7919).unwrap();
            assert!(cidr.allows(address), "{address}");
            assert!(seen.insert(address));
            index.insert(&ip_key(address));
        }
        assert_eq!(index.free_ip(cidr, 3), None);
        index.remove(&ip_key(cidr.address(5)));
        assert_eq!(index.free_ip(cidr, 3), Some(cidr.address(5)));
    }

    #[test]
    fn addresses_come_from_above_the_static_band_first() {
        let cidr: ServiceCidr = "10.96.0.0/16".parse().unwrap();
        let index = AllocationIndex::default();
        assert_eq!(index.free_ip(cidr, 0), Some(IpAddr::from([10, 96, 1, 0])));
        assert!(!cidr.allows(IpAddr::from([10, 96, 0, 0])));
        assert!(!cidr.allows(IpAddr::from([10, 96, 255, 255])));
        assert!(!cidr.allows(IpAddr::from([10, 95, 255, 255])));
    }

    #[test]
    fn a_range_of_the_other_family_gives_addresses_too() {
        let ranges: ServiceRanges = "10.96.0.0/16, fd00:10:96::/112".parse().unwrap();
        assert_eq!(ranges.of("IPv4"), Some(ranges.primary));
        let cidr = ranges.of("IPv6").unwrap();
        let index = AllocationIndex::default();
        let address = index.free_ip(cidr, 0).unwrap();
        assert_eq!(address.to_string(), "fd00:10:96::100");
        assert!(cidr.allows("fd00:10:96::ffff".parse().unwrap()));
        assert!(!cidr.allows("fd00:10:96::".parse().unwrap()));
        assert!(!cidr.allows("10.96.0.1".parse().unwrap()));
        let wide: ServiceCidr = "fd00::/64".parse().unwrap();
        assert!(index.free_ip(wide, u32::MAX).is_some());
        let same = "10.96.0.0/16,10.97.0.0/16".parse::<ServiceRanges>();
        assert!(same.is_err(), "{same:?}");
        let huge = "fd00::/32".parse::<ServiceRanges>();
        assert!(huge.is_err(), "{huge:?}");
    }

    #[test]
    fn a_node_port_is_free_for_all_its_protocols() {
        let index = AllocationIndex::default();
        assert_eq!(index.free_node_port(&["TCP", "UDP"], 0), Some(30_086));
        index.insert(&node_port_key("UDP", 30_086));
        assert_eq!(index.free_node_port(&["TCP", "UDP"], 0), Some(30_087));
        assert_eq!(index.free_node_port(&["TCP"], 0), Some(30_086));
    }

    #[test]
    fn a_service_range_must_be_a_network() {
        for bad in [
            "10.96.0.0",
            "10.96.0.1/16",
            "x/16",
            "10.96.0.0/31",
            "10.0.0.0/4",
        ] {
            assert!(bad.parse::<ServiceCidr>().is_err(), "{bad}");
        }
    }
}
