//! Flows that the packet path translates.

use std::net::SocketAddr;

use ebpf_abi::conntrack::{
    CT_ANSWERED, CT_FIN_FORWARD, CT_FIN_REVERSE, CT_FORWARD, CT_HAIRPIN, CT_RST, Ct4Key, Ct6Key,
    CtEntry,
};
use ebpf_abi::map::{CT4, CT6, MapSpec};
use serde::{Deserialize, Serialize};
use zerocopy::FromBytes;

use super::{InspectError, Inspector};
use crate::datapath::monotonic_ns;
use crate::maps::{IpProtocol, from_addr};

/// One direction of a flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FlowView {
    pub protocol: IpProtocol,
    /// To the service (`true`), or from its backend.
    pub forward: bool,
    pub source: SocketAddr,
    pub destination: SocketAddr,
    /// The backend (forward), or the service's address (reverse).
    pub translated: SocketAddr,
    /// `new`, `established`, `closing` or `closed`.
    pub state: String,
    pub hairpin: bool,
    /// Index in `svc` and `be`.
    pub service: u32,
    pub backend: u32,
    pub packets: u64,
    pub bytes: u64,
    /// Seconds since its last packet.
    pub idle_seconds: u32,
}

/// The state that the bits of an entry amount to.
fn state(flags: u64) -> &'static str {
    let has = |bits: u64| flags & bits == bits;
    if has(CT_RST) || has(CT_FIN_FORWARD | CT_FIN_REVERSE) {
        "closed"
    } else if flags & (CT_FIN_FORWARD | CT_FIN_REVERSE) != 0 {
        "closing"
    } else if has(CT_ANSWERED) {
        "established"
    } else {
        "new"
    }
}

#[derive(Clone, Copy)]
struct Tuple {
    source: SocketAddr,
    destination: SocketAddr,
    protocol: u8,
    direction: u8,
}

impl From<Ct4Key> for Tuple {
    fn from(key: Ct4Key) -> Self {
        Self {
            source: SocketAddr::new(key.src.into(), u16::from_be_bytes(key.sport)),
            destination: SocketAddr::new(key.dst.into(), u16::from_be_bytes(key.dport)),
            protocol: key.proto,
            direction: key.dir,
        }
    }
}

impl From<Ct6Key> for Tuple {
    fn from(key: Ct6Key) -> Self {
        Self {
            source: SocketAddr::new(key.src.into(), u16::from_be_bytes(key.sport)),
            destination: SocketAddr::new(key.dst.into(), u16::from_be_bytes(key.dport)),
            protocol: key.proto,
            direction: key.dir,
        }
    }
}

fn view(tuple: Tuple, entry: &CtEntry, now_s: u32) -> FlowView {
    FlowView {
        protocol: IpProtocol(tuple.protocol),
        forward: tuple.direction == CT_FORWARD,
        source: tuple.source,
        destination: tuple.destination,
        translated: SocketAddr::new(
            from_addr(&entry.nat_addr),
            u16::from_be_bytes(entry.nat_port),
        ),
        state: state(entry.flags).to_owned(),
        hairpin: entry.flags & CT_HAIRPIN != 0,
        service: entry.svc,
        backend: entry.backend,
        packets: entry.packets,
        bytes: entry.bytes,
        idle_seconds: now_s.saturating_sub(entry.last_s),
    }
}

impl Inspector {
    /// All flows of both families, by source and destination. A busy table changes while it is
    /// read: flows that come or go meanwhile may be missed.
    /// # Errors
    /// [`InspectError`].
    pub fn flows(&self) -> Result<Vec<FlowView>, InspectError> {
        let mut flows = self.flows_of::<Ct4Key>(&CT4)?;
        flows.extend(self.flows_of::<Ct6Key>(&CT6)?);
        flows.sort_by_key(|flow| (flow.source, flow.destination, flow.protocol, !flow.forward));
        Ok(flows)
    }

    fn flows_of<K: FromBytes + Into<Tuple>>(
        &self,
        spec: &MapSpec,
    ) -> Result<Vec<FlowView>, InspectError> {
        let entries = self
            .map(spec)?
            .entries()
            .map_err(|source| InspectError::Read {
                what: format!("map {}", spec.name),
                source,
            })?;
        let now_s = u32::try_from(monotonic_ns() / 1_000_000_000).unwrap_or(u32::MAX);
        let flows = entries.iter().filter_map(|(key, value)| {
            let tuple: Tuple = K::read_from_bytes(key).ok()?.into();
            let entry = CtEntry::read_from_bytes(value).ok()?;
            Some(view(tuple, &entry, now_s))
        });
        Ok(flows.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_follows_from_what_was_seen() {
        for (flags, expected) in [
            (0, "new"),
            (CT_HAIRPIN, "new"),
            (CT_ANSWERED, "established"),
            (CT_ANSWERED | CT_FIN_FORWARD, "closing"),
            (CT_ANSWERED | CT_FIN_FORWARD | CT_FIN_REVERSE, "closed"),
            (CT_RST, "closed"),
        ] {
            assert_eq!(state(flags), expected, "{flags:#b}");
        }
    }
}
