//! Which addresses a dev cluster uses: changes when the address plan changes.
//!
//! Pure: everything follows from the cluster's index, so clusters of different indexes can run
//! beside each other on one machine.

use serde::{Deserialize, Serialize};

/// Clusters one machine can hold at a time; bounded by the address plan below.
pub(crate) const CLUSTERS_MAX: u8 = 10;

/// Nodes of one cluster: their underlay addresses are `.11` and up.
pub(crate) const NODES_MAX: u8 = 100;

/// Control planes of one cluster: their own addresses end before the nodes' begin.
pub(crate) const CONTROL_PLANES_MAX: u8 = 5;

/// Members of a cluster's etcd.
pub(crate) const ETCD_MEMBERS_MAX: u8 = 3;

/// Which of the machine's clusters this is, `0..CLUSTERS_MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ClusterIndex(pub(crate) u8);

impl ClusterIndex {
    /// The link on the host side; also the name of the node cgroups' parent.
    pub(crate) fn host_link(self) -> String {
        format!("skep{}", self.0)
    }

    /// The host's address on the underlay: here the control plane listens.
    pub(crate) fn host_ip(self) -> String {
        format!("10.88.{}.1", self.0)
    }

    pub(crate) fn underlay(self) -> String {
        format!("10.88.{}.0/24", self.0)
    }

    /// `node`: counted from 1.
    pub(crate) fn node_ip(self, node: u8) -> String {
        format!("10.88.{}.{}", self.0, u16::from(node) + 10)
    }

    pub(crate) fn pod_cidr(self) -> String {
        format!("10.{}.0.0/16", 244 - self.0)
    }

    pub(crate) fn service_cidr(self) -> String {
        format!("10.{}.0.0/16", 96 + self.0)
    }

    pub(crate) fn cluster_dns(self) -> String {
        format!("10.{}.0.10", 96 + self.0)
    }

    /// The own address of one of several control planes, counted from 1. They share [`Self::host_ip`].
    pub(crate) fn control_plane_ip(self, number: u8) -> String {
        format!("10.88.{}.{}", self.0, u16::from(number) + 1)
    }

    /// Ports of a member of the etcd store on loopback, counted from 1: clients and peers.
    pub(crate) fn etcd_ports(self, member: u8) -> (u16, u16) {
        let members = u16::from(self.0) * u16::from(ETCD_MEMBERS_MAX) + u16::from(member) - 1;
        let first = 12379 + 2 * members;
        (first, first + 1)
    }
}

/// `node-1`, `node-2`, ...
pub(crate) fn node_name(node: u8) -> String {
    format!("node-{node}")
}

#[cfg(test)]
mod tests {
    use super::{CLUSTERS_MAX, CONTROL_PLANES_MAX, ClusterIndex, ETCD_MEMBERS_MAX, NODES_MAX};

    #[test]
    fn the_first_cluster_has_the_documented_addresses() {
        let index = ClusterIndex(0);
        assert_eq!(index.host_ip(), "10.88.0.1");
        assert_eq!(index.node_ip(1), "10.88.0.11");
        assert_eq!(index.pod_cidr(), "10.244.0.0/16");
        assert_eq!(index.service_cidr(), "10.96.0.0/16");
        assert_eq!(index.cluster_dns(), "10.96.0.10");
    }

    #[test]
    fn no_two_clusters_share_a_range() {
        let ranges: Vec<String> = (0..CLUSTERS_MAX)
            .map(ClusterIndex)
            .flat_map(|i| [i.underlay(), i.pod_cidr(), i.service_cidr()])
            .collect();
        let distinct: std::collections::BTreeSet<&String> = ranges.iter().collect();
        assert_eq!(distinct.len(), ranges.len(), "{ranges:?}");
    }

    #[test]
    fn no_two_members_of_any_etcd_share_a_port() {
        let ports: Vec<u16> = (0..CLUSTERS_MAX)
            .flat_map(|index| (1..=ETCD_MEMBERS_MAX).map(move |member| (index, member)))
            .map(|(index, member)| ClusterIndex(index).etcd_ports(member))
            .flat_map(|(clients, peers)| [clients, peers])
            .collect();
        let distinct: std::collections::BTreeSet<&u16> = ports.iter().collect();
        assert_eq!(distinct.len(), ports.len(), "{ports:?}");
    }

    #[test]
    fn the_last_control_plane_is_before_the_first_node() {
        assert_eq!(
            ClusterIndex(0).control_plane_ip(CONTROL_PLANES_MAX),
            "10.88.0.6"
        );
        assert_eq!(ClusterIndex(0).node_ip(1), "10.88.0.11");
    }

    #[test]
    fn the_last_node_still_has_an_address() {
        assert_eq!(ClusterIndex(9).node_ip(NODES_MAX), "10.88.9.110");
    }
}
