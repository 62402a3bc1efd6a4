//! How pods of other nodes are reached: direct routes, or a VXLAN tunnel.
//!
//! `plan` compares what should be with what was set and says what to do; [`Routes::apply`] does it. A
//! node that cannot be served is named and tried again at the next change; the others are served.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use node_agent_datapath::pods::{NodeRoute, PodError, PodRange, RouteDatapath, Via};
use tracing::warn;

use crate::blocking::blocking;
use crate::device::{Netlink, Route, tunnel_mac};
use crate::range::Range;

/// Another node and its pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteNode {
    /// Name.
    pub name: String,
    /// Its addresses; the first of a family carries that family's pods.
    pub addresses: Vec<IpAddr>,
    /// Its pods.
    pub pod_ranges: Vec<Range>,
}

/// Why a route is not in force.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// The kernel refused it.
    #[error("route to the pods {range} of node {node}")]
    Kernel {
        /// The node.
        node: String,
        /// Its range.
        range: Range,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The datapath refused it.
    #[error("datapath route to the pods {range} of node {node}")]
    Datapath {
        /// The node.
        node: String,
        /// Its range.
        range: Range,
        /// Why.
        #[source]
        source: PodError,
    },
}

/// Where a range should go.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Target {
    node: String,
    address: IpAddr,
}

/// How packets leave for another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Path {
    /// By the underlay device, the node as the gateway.
    Direct { underlay: u32 },
    /// By the tunnel device.
    Vxlan { tunnel: u32 },
}

/// The routes that were set.
#[derive(Debug)]
pub(crate) struct Routes {
    netlink: Netlink,
    datapath: Arc<dyn RouteDatapath>,
    path: Path,
    set: BTreeMap<Range, Target>,
}

#[derive(Debug, PartialEq, Eq)]
enum Change {
    Set(Range, Target),
    Remove(Range),
}

fn desired(nodes: &[RemoteNode]) -> BTreeMap<Range, Target> {
    let mut all = BTreeMap::new();
    for node in nodes {
        for range in &node.pod_ranges {
            let same_family = node
                .addresses
                .iter()
                .find(|a| a.is_ipv4() == range.address().is_ipv4());
            if let Some(address) = same_family {
                all.insert(
                    *range,
                    Target {
                        node: node.name.clone(),
                        address: *address,
                    },
                );
            }
        }
    }
    all
}

fn plan(desired: &BTreeMap<Range, Target>, set: &BTreeMap<Range, Target>) -> Vec<Change> {
    let removes = set.keys().filter(|range| !desired.contains_key(range));
    let sets = desired
        .iter()
        .filter(|(range, target)| set.get(range) != Some(target));
    sets.map(|(range, target)| Change::Set(*range, target.clone()))
        .chain(removes.map(|range| Change::Remove(*range)))
        .collect()
}

impl Routes {
    pub(crate) fn new(netlink: Netlink, datapath: Arc<dyn RouteDatapath>, path: Path) -> Self {
        Self {
            netlink,
            datapath,
            path,
            set: BTreeMap::new(),
        }
    }

    /// Makes the routes to `nodes` so. Answers what is not in force.
    pub(crate) async fn apply(&mut self, nodes: &[RemoteNode]) -> Vec<RouteError> {
        let mut errors = Vec::new();
        for change in plan(&desired(nodes), &self.set) {
            match change {
                Change::Set(range, target) => match self.set(range, &target).await {
                    Ok(()) => {
                        self.set.insert(range, target);
                    }
                    Err(error) => errors.push(error),
                },
                Change::Remove(range) => match self.remove(range).await {
                    Ok(()) => {
                        self.set.remove(&range);
                    }
                    Err(error) => errors.push(error),
                },
            }
        }
        for error in &errors {
            warn!(error = %chain(error), "a route to another node is not in force");
        }
        errors
    }

    fn route(&self, range: Range, target: &Target) -> Route {
        match self.path {
            Path::Direct { underlay } => Route {
                destination: range,
                gateway: Some(target.address),
                onlink: false,
                ifindex: underlay,
                source: None,
            },
            Path::Vxlan { tunnel } => Route {
                destination: range,
                gateway: Some(range.address()),
                onlink: true,
                ifindex: tunnel,
                source: None,
            },
        }
    }

    async fn set(&self, range: Range, target: &Target) -> Result<(), RouteError> {
        let kernel = |source| RouteError::Kernel {
            node: target.node.clone(),
            range,
            source,
        };
        if let Path::Vxlan { tunnel } = self.path {
            let mac = tunnel_mac(target.address);
            self.netlink
                .set_forwarding(tunnel, mac, target.address)
                .await
                .map_err(kernel)?;
            self.netlink
                .set_neighbour(tunnel, range.address(), mac)
                .await
                .map_err(kernel)?;
        }
        self.netlink
            .set_route(&self.route(range, target))
            .await
            .map_err(kernel)?;
        let via = match self.path {
            Path::Direct { underlay } => Via::Neighbour { ifindex: underlay },
            Path::Vxlan { .. } => Via::Stack,
        };
        let datapath = Arc::clone(&self.datapath);
        let (pods, route) = (
            pod_range(range),
            NodeRoute {
                node: target.address,
                via,
            },
        );
        let done = blocking(move || datapath.set_route(pods, route)).await;
        done.map_err(|source| RouteError::Datapath {
            node: target.node.clone(),
            range,
            source,
        })
    }

    async fn remove(&self, range: Range) -> Result<(), RouteError> {
        let Some(target) = self.set.get(&range) else {
            return Ok(());
        };
        let datapath = Arc::clone(&self.datapath);
        let done = blocking(move || datapath.remove_route(pod_range(range))).await;
        done.map_err(|source| RouteError::Datapath {
            node: target.node.clone(),
            range,
            source,
        })?;
        let done = self.netlink.delete_route(&self.route(range, target)).await;
        done.map_err(|source| RouteError::Kernel {
            node: target.node.clone(),
            range,
            source,
        })
    }
}

fn pod_range(range: Range) -> PodRange {
    PodRange {
        address: range.address(),
        length: range.length(),
    }
}

/// An error with its causes on one line.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| (**error).source());
    causes
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, address: &str, ranges: &[&str]) -> RemoteNode {
        RemoteNode {
            name: name.into(),
            addresses: vec![address.parse().unwrap()],
            pod_ranges: ranges.iter().map(|range| range.parse().unwrap()).collect(),
        }
    }

    #[test]
    fn only_what_differs_changes_and_removals_come_last() {
        let before = desired(&[
            node("a", "10.88.0.11", &["10.244.0.0/24"]),
            node("b", "10.88.0.12", &["10.244.1.0/24"]),
        ]);
        let after = desired(&[
            node("b", "10.88.0.99", &["10.244.1.0/24"]),
            node("c", "10.88.0.13", &["10.244.2.0/24", "fd00::/64"]),
        ]);
        let target = |node: &str, address: &str| Target {
            node: node.into(),
            address: address.parse().unwrap(),
        };
        assert_eq!(
            plan(&after, &before),
            [
                Change::Set("10.244.1.0/24".parse().unwrap(), target("b", "10.88.0.99")),
                Change::Set("10.244.2.0/24".parse().unwrap(), target("c", "10.88.0.13")),
                Change::Remove("10.244.0.0/24".parse().unwrap()),
            ],
            "the IPv6 range has no IPv6 address to go to"
        );
        assert!(plan(&after, &after).is_empty());
    }
}
