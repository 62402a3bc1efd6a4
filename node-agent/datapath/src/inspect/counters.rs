//! What the programs count: drops by reason, verdicts by kind.

use std::io;

use ebpf_abi::counter::{Count, DropReason, Metric};
use ebpf_abi::map::{DROP, METRIC, MapSpec};
use serde::{Deserialize, Serialize};
use zerocopy::{FromBytes as _, IntoBytes as _};

use super::{InspectError, Inspector};
use crate::sys::Map;

/// One counter, summed over the CPUs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CounterView {
    pub name: String,
    /// Packets, or calls in a socket hook.
    pub packets: u64,
    pub bytes: u64,
}

/// Adds up the copies of one value.
pub(super) fn sum(copies: &[u8]) -> Count {
    copies
        .chunks_exact(size_of::<Count>())
        .filter_map(|copy| Count::read_from_bytes(copy).ok())
        .fold(Count::default(), |sum, copy| Count {
            packets: sum.packets.wrapping_add(copy.packets),
            bytes: sum.bytes.wrapping_add(copy.bytes),
        })
}

fn read(map: &Map, spec: &MapSpec, index: u32, name: &str) -> Result<CounterView, InspectError> {
    let copies = map
        .lookup(index.as_bytes())
        .map_err(|source: io::Error| InspectError::Read {
            what: format!("map {}", spec.name),
            source,
        })?;
    let count = sum(&copies.unwrap_or_default());
    Ok(CounterView {
        name: name.to_owned(),
        packets: count.packets,
        bytes: count.bytes,
    })
}

impl Inspector {
    /// Drops and refusals by reason, all reasons, also those that never happened.
    /// # Errors
    /// [`InspectError`].
    pub fn drops(&self) -> Result<Vec<CounterView>, InspectError> {
        let map = self.map(&DROP)?;
        let reasons = DropReason::ALL.iter();
        reasons
            .map(|reason| read(&map, &DROP, reason.index(), reason.name()))
            .collect()
    }

    /// Verdicts that were no drops.
    /// # Errors
    /// [`InspectError`].
    pub fn verdicts(&self) -> Result<Vec<CounterView>, InspectError> {
        let map = self.map(&METRIC)?;
        let metrics = Metric::ALL.iter();
        metrics
            .map(|metric| read(&map, &METRIC, metric.index(), metric.name()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_of_all_cpus_add_up() {
        let copies = [
            Count {
                packets: 1,
                bytes: 60,
            },
            Count {
                packets: 2,
                bytes: 120,
            },
        ];
        let expected = Count {
            packets: 3,
            bytes: 180,
        };
        assert_eq!(sum(copies.as_bytes()), expected);
        assert_eq!(sum(&[]), Count::default());
    }
}
