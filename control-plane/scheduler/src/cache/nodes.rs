//! The node table: one row a node, one array a property.
//!
//! Rows of removed nodes are reused. Taints are interned: nodes with equal taints share a number, so a
//! pod's tolerations are compared once a set and not once a node.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use proto_api::types::core::v1::{Node, Taint};

use super::Freed;
use crate::pod_info::{HostPort, PodInfo};
use crate::resources::Resources;

/// A row of the node table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub(crate) u32);

impl NodeId {
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// Number of a set of taints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct TaintsId(pub(crate) u32);

/// Labels of a node.
pub(crate) type Labels = BTreeMap<String, String>;

/// All nodes. Columns have equal length.
#[derive(Debug, Default)]
pub struct NodeTable {
    by_name: HashMap<Arc<str>, NodeId>,
    free: Vec<NodeId>,
    names: Vec<Arc<str>>,
    present: Vec<bool>,
    pub(crate) allocatable_cpu: Vec<i64>,
    pub(crate) allocatable_memory: Vec<i64>,
    pub(crate) requested_cpu: Vec<i64>,
    pub(crate) requested_memory: Vec<i64>,
    /// Requests with a little for pods that ask for nothing.
    pub(crate) compared_cpu: Vec<i64>,
    pub(crate) compared_memory: Vec<i64>,
    pub(crate) pods: Vec<i64>,
    pub(crate) pods_max: Vec<i64>,
    pub(crate) unschedulable: Vec<bool>,
    pub(crate) taints: Vec<TaintsId>,
    /// Resources that few pods ask for.
    pub(crate) allocatable: Vec<Resources>,
    pub(crate) requested: Vec<Resources>,
    ports: Vec<Vec<HostPort>>,
    labels: Vec<Arc<Labels>>,
    taint_sets: Vec<Arc<[Taint]>>,
    /// Rises with every change of a label or a row.
    labels_generation: u64,
}

impl NodeTable {
    /// Number of nodes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether there is no node.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// Number of rows, unused ones included.
    pub(crate) fn rows(&self) -> usize {
        self.names.len()
    }

    /// The node in a row, when it is used.
    pub(crate) fn at(&self, row: usize) -> Option<NodeId> {
        let id = NodeId(u32::try_from(row).ok()?);
        self.present
            .get(row)
            .copied()
            .unwrap_or(false)
            .then_some(id)
    }

    /// Every node in row order.
    pub fn iter(&self) -> impl Iterator<Item = NodeId> {
        (0..self.rows()).filter_map(|row| self.at(row))
    }

    /// The row of a node.
    #[must_use]
    pub fn id(&self, name: &str) -> Option<NodeId> {
        self.by_name.get(name).copied()
    }

    /// A node's name.
    #[must_use]
    pub fn name(&self, id: NodeId) -> &Arc<str> {
        &self.names[id.index()]
    }

    pub(crate) fn labels(&self, id: NodeId) -> &Arc<Labels> {
        &self.labels[id.index()]
    }

    pub(crate) fn labels_generation(&self) -> u64 {
        self.labels_generation
    }

    pub(crate) fn taint_sets(&self) -> &[Arc<[Taint]>] {
        &self.taint_sets
    }

    pub(crate) fn has_conflicting_port(&self, id: NodeId, wanted: &[HostPort]) -> bool {
        let used = &self.ports[id.index()];
        wanted
            .iter()
            .any(|port| used.iter().any(|other| port.conflicts(other)))
    }

    /// Takes a node in. The requests of its pods are kept when it is known already.
    pub(super) fn put(&mut self, node: &Node) -> (NodeId, Freed) {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let fresh = self.id(name).is_none();
        let id = self.id(name).unwrap_or_else(|| self.add_row(name));
        let row = id.index();
        let allocatable = node
            .status
            .as_ref()
            .map(|status| Resources::of(&status.allocatable))
            .unwrap_or_default();
        let spec = node.spec.as_ref();
        let unschedulable = spec.and_then(|spec| spec.unschedulable) == Some(true);
        let taints = self.intern(spec.map_or(&[], |spec| &spec.taints));
        let freed = Freed {
            room: fresh || allocatable != self.allocatable[row],
            labels: fresh || *self.labels[row] != node.metadata.labels,
            taints: fresh || taints != self.taints[row] || unschedulable != self.unschedulable[row],
            pods: false,
        };
        if freed.labels {
            self.labels[row] = Arc::new(node.metadata.labels.clone());
            self.labels_generation += 1;
        }
        self.allocatable_cpu[row] = allocatable.cpu_milli;
        self.allocatable_memory[row] = allocatable.memory;
        self.pods_max[row] = allocatable.pods;
        self.allocatable[row] = allocatable;
        self.unschedulable[row] = unschedulable;
        self.taints[row] = taints;
        (id, freed)
    }

    pub(super) fn remove(&mut self, id: NodeId) {
        let row = id.index();
        self.by_name.remove(&self.names[row]);
        self.clear_row(row);
        self.present[row] = false;
        self.labels_generation += 1;
        self.free.push(id);
    }

    pub(super) fn account(&mut self, id: NodeId, info: &PodInfo, sign: i64) {
        let row = id.index();
        let requests = &info.requests;
        self.requested_cpu[row] += sign * requests.cpu_milli;
        self.requested_memory[row] += sign * requests.memory;
        self.compared_cpu[row] += sign * info.compared.0;
        self.compared_memory[row] += sign * info.compared.1;
        self.pods[row] += sign;
        if requests.ephemeral_storage != 0 || !requests.others.is_empty() {
            self.requested[row].add(requests, sign);
        }
        for port in &info.host_ports {
            let ports = &mut self.ports[row];
            if sign > 0 {
                ports.push(port.clone());
            } else if let Some(at) = ports.iter().position(|other| other == port) {
                ports.swap_remove(at);
            }
        }
    }

    fn add_row(&mut self, name: &str) -> NodeId {
        let name: Arc<str> = Arc::from(name);
        let id = match self.free.pop() {
            Some(id) => id,
            None => {
                let id = NodeId(u32::try_from(self.names.len()).unwrap_or(u32::MAX));
                self.push_row();
                id
            }
        };
        self.names[id.index()] = Arc::clone(&name);
        self.present[id.index()] = true;
        self.by_name.insert(name, id);
        id
    }

    fn push_row(&mut self) {
        self.names.push(Arc::from(""));
        self.present.push(false);
        for column in [
            &mut self.allocatable_cpu,
            &mut self.allocatable_memory,
            &mut self.requested_cpu,
            &mut self.requested_memory,
            &mut self.compared_cpu,
            &mut self.compared_memory,
            &mut self.pods,
            &mut self.pods_max,
        ] {
            column.push(0);
        }
        self.unschedulable.push(false);
        self.taints.push(TaintsId(0));
        self.allocatable.push(Resources::default());
        self.requested.push(Resources::default());
        self.ports.push(Vec::new());
        self.labels.push(Arc::default());
    }

    fn clear_row(&mut self, row: usize) {
        for column in [
            &mut self.allocatable_cpu,
            &mut self.allocatable_memory,
            &mut self.requested_cpu,
            &mut self.requested_memory,
            &mut self.compared_cpu,
            &mut self.compared_memory,
            &mut self.pods,
            &mut self.pods_max,
        ] {
            column[row] = 0;
        }
        self.unschedulable[row] = false;
        self.allocatable[row] = Resources::default();
        self.requested[row] = Resources::default();
        self.ports[row].clear();
        self.labels[row] = Arc::default();
    }

    /// The number of a set of taints. Sets are few; they are never forgotten.
    fn intern(&mut self, taints: &[Taint]) -> TaintsId {
        let same =
            |a: &Taint, b: &Taint| a.key == b.key && a.value == b.value && a.effect == b.effect;
        let known = self.taint_sets.iter().position(|set| {
            set.len() == taints.len() && set.iter().zip(taints).all(|(a, b)| same(a, b))
        });
        let at = known.unwrap_or_else(|| {
            self.taint_sets.push(taints.into());
            self.taint_sets.len() - 1
        });
        TaintsId(u32::try_from(at).unwrap_or(u32::MAX))
    }
}
