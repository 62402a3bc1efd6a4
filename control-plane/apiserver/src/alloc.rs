//! Unique numbers of services: cluster addresses and node ports.
//!
//! Owns: the index of what is taken, fed from the store, and the choice of a free one. Every taken
//! number is a key of its own in the store (`x/ip/…`, `x/nodeport/…`), written in the commit of its
//! service with "must be absent": two writers cannot both get it, and a crash between choice and
//! commit leaves nothing behind.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use parking_lot::RwLock;

/// First and last node port (upstream's default range).
pub const NODE_PORTS: std::ops::RangeInclusive<u16> = 30_000..=32_767;
/// Ports at the start of the range that are left to explicit requests.
const NODE_PORTS_STATIC: u16 = 86;

/// The range that cluster addresses come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServiceCidr {
    network: u32,
    prefix: u8,
}

/// Why a service range is unusable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("service CIDR {text:?} is not an IPv4 network with a prefix of 8 to 28 bits")]
pub struct CidrError {
    text: String,
}

impl std::str::FromStr for ServiceCidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let error = || CidrError {
            text: text.to_owned(),
        };
        let (address, prefix) = text.split_once('/').ok_or_else(error)?;
        let address: Ipv4Addr = address.parse().map_err(|_fault| error())?;
        let prefix: u8 = prefix.parse().map_err(|_fault| error())?;
        let cidr = Self {
            network: u32::from(address),
            prefix,
        };
        let aligned = cidr.network & (cidr.size() - 1) == 0;
        ((8..=28).contains(&prefix) && aligned)
            .then_some(cidr)
            .ok_or_else(error)
    }
}

impl std::fmt::Display for ServiceCidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.network), self.prefix)
    }
}

impl ServiceCidr {
    fn size(self) -> u32 {
        1_u32 << (32 - u32::from(self.prefix).min(31))
    }

    /// The address at `offset`; offset 1 is that of the `kubernetes` service.
    #[must_use]
    pub fn address(self, offset: u32) -> Ipv4Addr {
        Ipv4Addr::from(self.network + offset)
    }

    /// Whether a service may have `address`: inside, neither the network's nor the broadcast one.
    #[must_use]
    pub fn allows(self, address: Ipv4Addr) -> bool {
        let offset = u32::from(address).wrapping_sub(self.network);
        offset > 0 && offset < self.size() - 1
    }

    /// Addresses at the start that are left to explicit requests: min(max(16, size/16), 256).
    fn static_band(self) -> u32 {
        (self.size() / 16).clamp(16, 256).min(self.size() - 2)
    }
}

/// What is taken, by store key; the value names the owner.
#[derive(Debug, Default)]
pub struct AllocationIndex {
    taken: RwLock<HashMap<Box<str>, Box<[u8]>>>,
}

/// Whether a store key is that of a number; other keys that are no object's are left alone (they
/// may be of a later version).
pub(crate) fn is_number(key: &str) -> bool {
    key.starts_with("x/ip/") || key.starts_with("x/nodeport/")
}

/// Store key of a cluster address.
#[must_use]
pub fn ip_key(address: Ipv4Addr) -> String {
    format!("x/ip/{address}")
}

/// Store key of a node port.
#[must_use]
pub fn node_port_key(protocol: &str, port: u16) -> String {
    format!("x/nodeport/{protocol}/{port}")
}

impl AllocationIndex {
    pub(crate) fn reset<'a>(&self, entries: impl Iterator<Item = (&'a str, &'a [u8])>) {
        let taken = entries
            .map(|(key, owner)| (key.into(), owner.into()))
            .collect();
        *self.taken.write() = taken;
    }

    pub(crate) fn insert(&self, key: &str, owner: &[u8]) {
        self.taken.write().insert(key.into(), owner.into());
    }

    pub(crate) fn remove(&self, key: &str) {
        self.taken.write().remove(key);
    }

    /// Whether nobody has `key`.
    #[must_use]
    pub fn is_free(&self, key: &str) -> bool {
        !self.taken.read().contains_key(key)
    }

    /// A free address: from the upper band first, searched from a point that `random` chooses, so
    /// that concurrent writers seldom meet. `None`: the range is full.
    #[must_use]
    pub fn free_ip(&self, cidr: ServiceCidr, random: u32) -> Option<Ipv4Addr> {
        let taken = self.taken.read();
        let band = cidr.static_band();
        let last = cidr.size() - 2;
        let upper = rotate(band, last, random);
        let lower = rotate(1, band.saturating_sub(1), random);
        upper
            .chain(lower)
            .map(|offset| cidr.address(offset))
            .find(|address| !taken.contains_key(ip_key(*address).as_str()))
    }

    /// A port that is free for all of `protocols`; the upper band first.
    #[must_use]
    pub fn free_node_port(&self, protocols: &[&str], random: u32) -> Option<u16> {
        let taken = self.taken.read();
        let (first, last) = (u32::from(*NODE_PORTS.start()), u32::from(*NODE_PORTS.end()));
        let band = first + u32::from(NODE_PORTS_STATIC);
        rotate(band, last, random)
            .chain(rotate(first, band - 1, random))
            .filter_map(|port| u16::try_from(port).ok())
            .find(|port| {
                protocols
                    .iter()
                    .all(|protocol| !taken.contains_key(node_port_key(protocol, *port).as_str()))
            })
    }
}

/// All numbers of `first..=last`, starting at a point chosen by `random`.
fn rotate(first: u32, last: u32, random: u32) -> impl Iterator<Item = u32> {
    let count = if last >= first { last - first + 1 } else { 0 };
    let start = if count == 0 { 0 } else { random % count };
    (0..count).map(move |i| first + (start + i) % count.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_gives_every_address_once_and_then_none() {
        let cidr: ServiceCidr = "10.96.0.0/28".parse().unwrap();
        let index = AllocationIndex::default();
        let mut seen = std::collections::BTreeSet::new();
        for random in 0..14 {
            let address = index.free_ip(cidr, random * 7919).unwrap();
            assert!(cidr.allows(address), "{address}");
            assert!(seen.insert(address));
            index.insert(&ip_key(address), b"o");
        }
        assert_eq!(index.free_ip(cidr, 3), None);
        index.remove(&ip_key(cidr.address(5)));
        assert_eq!(index.free_ip(cidr, 3), Some(cidr.address(5)));
    }

    #[test]
    fn addresses_come_from_above_the_static_band_first() {
        let cidr: ServiceCidr = "10.96.0.0/16".parse().unwrap();
        let index = AllocationIndex::default();
        assert_eq!(index.free_ip(cidr, 0), Some(Ipv4Addr::new(10, 96, 1, 0)));
        assert!(!cidr.allows(Ipv4Addr::new(10, 96, 0, 0)));
        assert!(!cidr.allows(Ipv4Addr::new(10, 96, 255, 255)));
        assert!(!cidr.allows(Ipv4Addr::new(10, 95, 255, 255)));
    }

    #[test]
    fn a_node_port_is_free_for_all_its_protocols() {
        let index = AllocationIndex::default();
        assert_eq!(index.free_node_port(&["TCP", "UDP"], 0), Some(30_086));
        index.insert(&node_port_key("UDP", 30_086), b"o");
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
