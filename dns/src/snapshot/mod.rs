//! All names of the cluster at one revision: an immutable table.
//!
//! Every name that exists is a key, also the empty ones between (`svc`, `default.svc`), so that
//! "exists without this type" (NODATA) and "does not exist" (NXDOMAIN) need no thought when a
//! question comes. Keys are relative to the zone, in wire form and lower case.

mod build;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use crate::config::PodNames;
use crate::names;

/// A name, relative to the zone.
pub(crate) type RelativeName = Arc<[u8]>;

/// What one name has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Records {
    pub(crate) v4: Box<[Ipv4Addr]>,
    pub(crate) v6: Box<[Ipv6Addr]>,
    pub(crate) srv: Box<[Srv]>,
    /// An alias outside or inside, as a whole name.
    pub(crate) cname: Option<Box<[u8]>>,
    pub(crate) special: Special,
}

/// A port of a service or endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Srv {
    pub(crate) target: RelativeName,
    pub(crate) port: u16,
}

/// Names with records that no service has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Special {
    #[default]
    None,
    /// The zone itself: SOA and NS.
    Apex,
    /// The version of the schema.
    Version,
}

/// The zone's settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Zone {
    /// The zone's name, whole.
    pub(crate) name: Box<[u8]>,
    pub(crate) ttl_s: u32,
    pub(crate) pod_names: PodNames,
}

/// The names of one revision.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) revision: u64,
    /// For the SOA record: seconds since 1970 when the snapshot was made.
    pub(crate) serial: u32,
    names: HashMap<RelativeName, Records>,
    reverse: HashMap<IpAddr, Vec<RelativeName>>,
}

impl Snapshot {
    /// What a relative name has; `None`: it does not exist.
    pub(crate) fn get(&self, name: &[u8]) -> Option<&Records> {
        self.names.get(name)
    }

    /// The names of an address.
    pub(crate) fn reverse(&self, ip: IpAddr) -> &[RelativeName] {
        self.reverse.get(&ip).map_or(&[], Vec::as_slice)
    }

    /// The address of a pod name such as `10-1-0-3.default.pod`; `None`: the name does not exist.
    pub(crate) fn pod(&self, name: &[u8], pod_names: PodNames) -> Option<IpAddr> {
        if pod_names == PodNames::Disabled {
            return None;
        }
        let mut labels = names::labels(name);
        let (label, _, pod) = (labels.next()?, labels.next()?, labels.next()?);
        if pod != b"pod" || labels.next().is_some() {
            return None;
        }
        let namespace = &name[1 + label.len()..];
        self.names
            .contains_key(namespace)
            .then(|| names::parse_dashed(label))
            .flatten()
    }

    /// How many names there are.
    pub(crate) fn len(&self) -> usize {
        self.names.len()
    }
}
