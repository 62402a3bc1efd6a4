//! Looking at a node's datapath from its pins alone, with or without an agent.
//!
//! Everything is opened for reading only. The views are plain values that serialise: the agent
//! sends them over its socket, the operator's command prints them, and both are the same.
//! Works through another process's root too (`/proc/<pid>/root/sys/fs/bpf`), which is how the nodes
//! of a development cluster are read.

mod counters;
mod flows;
mod maps;
pub mod names;
mod programs;
mod query;
mod values;

use std::io;
use std::path::{Path, PathBuf};

use ebpf_abi::map::{EP, META, MapSpec, ROUTE};
use ebpf_abi::meta::{META_MAGIC, Meta};
use serde::{Deserialize, Serialize};

use crate::datapath::monotonic_ns;
use crate::kernel_pods::{from_endpoint, read_routes};
use crate::maps::MapError;
use crate::maps::kernel::{KernelServiceMaps, OpenError, open_array, open_map};
use crate::maps::view::LoadBalancerView;
use crate::pins::Pins;
use crate::pods::{AttachedPod, NodeRoute, PodRange};
use crate::sys::{Access, Map};

pub use counters::CounterView;
pub use flows::FlowView;
pub use maps::{ElementView, MapDump, MapView};
pub use programs::{AttachmentView, ProgramView};
pub use query::{Counters, Programs, Query};
pub use values::Fields;

/// Why the pins could not be read.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    #[error("nothing is pinned below {}: no agent has run here since the machine started", path.display())]
    NotFound { path: PathBuf },
    #[error("reading {} needs root", path.display())]
    Denied { path: PathBuf },
    #[error("no map is called {name}: `skep maps list` shows all")]
    NoSuchMap { name: String },
    #[error("open {}", path.display())]
    Open {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("read {what}")]
    Read {
        what: String,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Map(#[from] MapError),
}

impl InspectError {
    pub(crate) fn open(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound => Self::NotFound { path },
            io::ErrorKind::PermissionDenied => Self::Denied { path },
            _ => Self::Open { path, source },
        }
    }
}

impl From<OpenError> for InspectError {
    fn from(error: OpenError) -> Self {
        Self::open(&error.path, error.source)
    }
}

/// Who wrote the maps, and when it was last alive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WriterView {
    pub abi_version: u32,
    /// Agents that have written these maps, one after the other.
    pub generation: u64,
    /// Revision of the desired state that is in the maps in full.
    pub applied_revision: u64,
    /// Milliseconds since the writer's last sign of life; absent before the first.
    pub silent_ms: Option<u64>,
}

/// A pod range of another node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteView {
    pub range: PodRange,
    pub route: NodeRoute,
}

/// Reads a node's pins.
#[derive(Clone, Debug)]
pub struct Inspector {
    pins: Pins,
}

impl Inspector {
    /// Looks at the pins below a BPF file system.
    /// # Errors
    /// [`InspectError::NotFound`] when there are none, [`InspectError::Denied`] without root.
    pub fn open(bpffs: &Path) -> Result<Self, InspectError> {
        let pins = Pins::at(bpffs);
        let path = pins.map(META.name);
        match Map::open(&path, Access::ReadOnly) {
            Ok(_) => Ok(Self { pins }),
            Err(source) => Err(InspectError::open(&path, source)),
        }
    }

    /// The pin directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.pins.directory()
    }

    fn map(&self, spec: &MapSpec) -> Result<Map, InspectError> {
        Ok(open_map(self.pins.directory(), spec, Access::ReadOnly)?)
    }

    /// Frontends, services and backends.
    /// # Errors
    /// [`InspectError`].
    pub fn load_balancer(&self) -> Result<LoadBalancerView, InspectError> {
        let maps = KernelServiceMaps::open(self.pins.directory(), Access::ReadOnly)?;
        Ok(LoadBalancerView::read(&maps)?)
    }

    /// Who wrote the maps.
    /// # Errors
    /// [`InspectError`].
    pub fn writer(&self) -> Result<WriterView, InspectError> {
        let array = open_array::<Meta>(self.pins.directory(), &META, Access::ReadOnly)?;
        let meta = array.read(0).unwrap_or_default();
        let silent_ns = monotonic_ns().saturating_sub(meta.heartbeat_ns);
        let alive = meta.magic == META_MAGIC && meta.heartbeat_ns != 0;
        Ok(WriterView {
            abi_version: meta.abi_version,
            generation: meta.writer_generation,
            applied_revision: meta.applied_revision,
            silent_ms: alive.then_some(silent_ns / 1_000_000),
        })
    }

    /// Pods of this node.
    /// # Errors
    /// [`InspectError`].
    pub fn pods(&self) -> Result<Vec<AttachedPod>, InspectError> {
        let array = open_array::<ebpf_abi::endpoint::Endpoint>(
            self.pins.directory(),
            &EP,
            Access::ReadOnly,
        )?;
        let pods = (1..array.len()).filter_map(|index| {
            let attachment = from_endpoint(&array.read(index)?)?;
            Some(AttachedPod { index, attachment })
        });
        Ok(pods.collect())
    }

    /// Pod ranges of other nodes.
    /// # Errors
    /// [`InspectError`].
    pub fn routes(&self) -> Result<Vec<RouteView>, InspectError> {
        let routes = read_routes(&self.map(&ROUTE)?).map_err(|source| InspectError::Read {
            what: format!("map {}", ROUTE.name),
            source,
        })?;
        let view = |(range, route)| RouteView { range, route };
        Ok(routes.into_iter().map(view).collect())
    }
}
