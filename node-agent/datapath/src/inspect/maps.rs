//! The maps themselves: how full each is, and its elements as named fields.

use ebpf_abi::map::{MAPS, MapKind, MapSpec};
use serde::{Deserialize, Serialize};

use super::values::{Fields, fields};
use super::{InspectError, Inspector};
use crate::sys::{Element, Map};

/// One map.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MapView {
    pub name: String,
    /// The kernel's id.
    pub id: u32,
    pub kind: String,
    pub key_bytes: u32,
    pub value_bytes: u32,
    pub capacity: u32,
    /// Elements in use: those that exist, in an array those that are not all zero. Absent where
    /// the kernel does not tell (socket storage).
    pub used: Option<u32>,
    /// What the kernel holds for it, within a few per cent.
    pub memory_bytes: u64,
}

/// One element.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ElementView {
    pub key: Fields,
    pub value: Fields,
}

/// The elements of one map.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MapDump {
    pub name: String,
    pub elements: Vec<ElementView>,
}

fn spec_named(name: &str) -> Result<&'static MapSpec, InspectError> {
    MAPS.iter()
        .find(|spec| spec.name == name)
        .ok_or_else(|| InspectError::NoSuchMap {
            name: name.to_owned(),
        })
}

fn is_array(kind: MapKind) -> bool {
    matches!(kind, MapKind::MappedArray | MapKind::PerCpuArray)
}

/// Elements in use, by key bytes for arrays in order of index.
fn elements(spec: &MapSpec, map: &Map) -> Result<Vec<Element>, InspectError> {
    let mut entries = map.entries().map_err(|source| InspectError::Read {
        what: format!("map {}", spec.name),
        source,
    })?;
    if is_array(spec.kind) {
        entries.retain(|(_, value)| value.iter().any(|byte| *byte != 0));
    } else {
        entries.sort_unstable();
    }
    Ok(entries)
}

impl Inspector {
    /// All maps, in the order of the layout.
    /// # Errors
    /// [`InspectError`].
    pub fn maps(&self) -> Result<Vec<MapView>, InspectError> {
        let cpus = aya::util::nr_cpus().unwrap_or(1);
        let cpus = u32::try_from(cpus).unwrap_or(1);
        let view = |spec: &MapSpec| {
            let map = self.map(spec)?;
            let used = match spec.kind {
                MapKind::SocketStorage => None,
                MapKind::Hash
                | MapKind::LruHash
                | MapKind::MappedArray
                | MapKind::PerCpuArray
                | MapKind::LpmTrie => Some(elements(spec, &map)?.len()),
            };
            let info = map.info();
            Ok(MapView {
                name: spec.name.to_owned(),
                id: info.id,
                kind: info.kind.name().to_owned(),
                key_bytes: info.key_size,
                value_bytes: info.value_size,
                capacity: info.max_entries,
                used: used.map(|used| u32::try_from(used).unwrap_or(u32::MAX)),
                memory_bytes: spec.memory(info.max_entries, cpus),
            })
        };
        MAPS.iter().map(view).collect()
    }

    /// The elements of one map; of an array those that are not all zero.
    /// # Errors
    /// [`InspectError::NoSuchMap`] and others.
    pub fn dump(&self, name: &str) -> Result<MapDump, InspectError> {
        let spec = spec_named(name)?;
        if spec.kind == MapKind::SocketStorage {
            return Ok(MapDump {
                name: spec.name.to_owned(),
                elements: Vec::new(), // belongs to sockets, not readable as a whole
            });
        }
        let elements = elements(spec, &self.map(spec)?)?;
        let view = |(key, value): &Element| {
            let (key, value) = fields(spec.name, key, value);
            ElementView { key, value }
        };
        Ok(MapDump {
            name: spec.name.to_owned(),
            elements: elements.iter().map(view).collect(),
        })
    }
}
