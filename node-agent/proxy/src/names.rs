//! Names of map elements: what the maps themselves do not say.
//!
//! The reconciler writes, inspection reads; the same content is kept in a file for the time when no
//! agent runs.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use node_agent_datapath::inspect::names::{BackendName, NameTable, ServiceName};
use parking_lot::Mutex;

use crate::ledger::ServiceRecord;
use crate::plan::{DesiredService, ServiceKey};

/// Shared names. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Names {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    table: NameTable,
    /// Indexes that each service put in.
    owned: BTreeMap<ServiceKey, (u32, Vec<u32>)>,
    version: u64,
}

fn backend_name(desired: &DesiredService, address: &SocketAddr, key: &ServiceKey) -> BackendName {
    let backend = desired.backends.get(address);
    BackendName {
        namespace: key.service.namespace.to_string(),
        pod: backend
            .and_then(|backend| backend.pod.clone())
            .unwrap_or_default(),
        node: backend
            .and_then(|backend| backend.node.clone())
            .unwrap_or_default(),
    }
}

impl Names {
    /// A copy of all names and its version; `None` when nothing changed since `version`.
    #[must_use]
    pub fn newer_than(&self, version: u64) -> Option<(NameTable, u64)> {
        let inner = self.inner.lock();
        (inner.version > version).then(|| (inner.table.clone(), inner.version))
    }

    /// True when something changed since `version`.
    #[must_use]
    pub fn is_newer_than(&self, version: u64) -> bool {
        self.inner.lock().version > version
    }

    /// A copy of all names.
    #[must_use]
    pub fn table(&self) -> NameTable {
        self.inner.lock().table.clone()
    }

    pub(crate) fn put(&self, key: &ServiceKey, record: &ServiceRecord, desired: &DesiredService) {
        let mut inner = self.inner.lock();
        inner.forget(key);
        let name = ServiceName {
            namespace: key.service.namespace.to_string(),
            name: key.service.name.to_string(),
            port_name: key.port.to_string(),
        };
        inner.table.services.insert(record.index, name);
        let mut backends = Vec::with_capacity(record.backends.len());
        for (address, backend) in &record.backends {
            let name = backend_name(desired, address, key);
            inner.table.backends.insert(backend.index, name);
            backends.push(backend.index);
        }
        inner.owned.insert(key.clone(), (record.index, backends));
        inner.version += 1;
    }

    pub(crate) fn remove(&self, key: &ServiceKey) {
        let mut inner = self.inner.lock();
        inner.forget(key);
        inner.version += 1;
    }
}

impl Inner {
    fn forget(&mut self, key: &ServiceKey) {
        if let Some((service, backends)) = self.owned.remove(key) {
            self.table.services.remove(&service);
            for backend in backends {
                self.table.backends.remove(&backend);
            }
        }
    }
}
