//! One pod's network: address, veth pair, routes, and its entry in the datapath.
//!
//! A pod gets a /32 (or /128), a link-local gateway that is a permanent neighbour (no ARP), and a host
//! device named after its sandbox. The eBPF programs are attached before [`PodNetwork::add`] returns,
//! so the first packet already meets them. Both calls are idempotent.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use node_agent_datapath::pods::{
    Delivery, MacAddress, PodAttachment, PodDatapath, PodError, SourceCheck,
};
use parking_lot::Mutex;
use tracing::{info, warn};

use crate::blocking::blocking;
use crate::device::{Netlink, Pair, Route};
use crate::ipam::{Addresses, AllocateError, Ipam};
use crate::namespace::{self, NetworkNamespace};
use crate::range::Range;

/// Prefix of host devices: what begins so is ours.
const DEVICE_PREFIX: &str = "sk";
/// The pods' gateway, IPv4: an address that no host has; its neighbour entry is permanent.
const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// The pods' gateway, IPv6.
const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// Why a pod has no network.
#[derive(Debug, thiserror::Error)]
pub enum PodNetworkError {
    /// No address.
    #[error(transparent)]
    Address(#[from] AllocateError),
    /// The sandbox's network namespace cannot be opened.
    #[error("cannot open the network namespace {path} of the sandbox")]
    Namespace {
        /// As the runtime named it.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A device, address or route could not be made.
    #[error("cannot set up the network of sandbox {sandbox}")]
    Device {
        /// The sandbox.
        sandbox: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The datapath did not take the pod.
    #[error("cannot attach the eBPF programs for sandbox {sandbox}")]
    Datapath {
        /// The sandbox.
        sandbox: String,
        /// Why.
        #[source]
        source: PodError,
    },
}

/// What a pod got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    /// Its addresses.
    pub addresses: Addresses,
    /// Name of the host device.
    pub host_device: String,
    /// Hardware address of the host device.
    pub host_mac: MacAddress,
    /// Hardware address inside the pod.
    pub pod_mac: MacAddress,
    /// Largest packet.
    pub mtu: u32,
}

/// What the node gives to each pod's network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PodDefaults {
    pub(crate) node_v4: Option<Ipv4Addr>,
    pub(crate) node_v6: Option<Ipv6Addr>,
    pub(crate) mtu: u32,
}

/// The pods' networks on this node.
#[derive(Debug)]
pub struct PodNetwork {
    netlink: Netlink,
    ipam: Mutex<Ipam>,
    datapath: Arc<dyn PodDatapath>,
    defaults: PodDefaults,
}

impl PodNetwork {
    pub(crate) fn new(
        netlink: Netlink,
        ipam: Ipam,
        datapath: Arc<dyn PodDatapath>,
        defaults: PodDefaults,
    ) -> Self {
        Self {
            netlink,
            ipam: Mutex::new(ipam),
            datapath,
            defaults,
        }
    }

    /// Sets the address ranges of this node's pods.
    pub fn set_ranges(&self, ranges: Vec<Range>) {
        let mut ipam = self.ipam.lock();
        if ipam.ranges() != ranges {
            info!(?ranges, "pod address ranges");
            ipam.set_ranges(ranges);
        }
    }

    /// Whether pods can get an address.
    #[must_use]
    pub fn has_range(&self) -> bool {
        !self.ipam.lock().ranges().is_empty()
    }

    /// Gives `sandbox` its network: device `interface` in the namespace at `netns`.
    ///
    /// # Errors
    /// [`PodNetworkError`]; what was made is taken back.
    pub async fn add(
        &self,
        sandbox: &str,
        netns: &Path,
        interface: &str,
    ) -> Result<Attached, PodNetworkError> {
        let addresses = self.ipam.lock().allocate(sandbox)?;
        let made = self.attach(sandbox, netns, interface, addresses).await;
        if made.is_err()
            && let Err(error) = self.delete(sandbox).await
        {
            warn!(sandbox, %error, "a failed pod network could not be taken back; DEL will");
        }
        made
    }

    /// Takes the network of `sandbox` away. Nothing there is no error.
    ///
    /// # Errors
    /// [`PodNetworkError`]; call again.
    pub async fn delete(&self, sandbox: &str) -> Result<(), PodNetworkError> {
        let device = |source| PodNetworkError::Device {
            sandbox: sandbox.to_owned(),
            source,
        };
        let index = self
            .netlink
            .index(&host_device(sandbox))
            .await
            .map_err(device)?;
        if let Some(ifindex) = index {
            self.detach(sandbox, ifindex).await?;
            self.netlink.delete(ifindex).await.map_err(device)?;
        }
        self.ipam.lock().release(sandbox)?;
        Ok(())
    }

    /// Whether `sandbox` has its device and address.
    ///
    /// # Errors
    /// [`PodNetworkError::Device`] says what is missing.
    pub async fn check(&self, sandbox: &str) -> Result<(), PodNetworkError> {
        let device = |source| PodNetworkError::Device {
            sandbox: sandbox.to_owned(),
            source,
        };
        let index = self
            .netlink
            .index(&host_device(sandbox))
            .await
            .map_err(device)?;
        if index.is_none() || self.ipam.lock().get(sandbox).is_none() {
            return Err(device(io::Error::new(
                io::ErrorKind::NotFound,
                "the sandbox has no device or no address on this node",
            )));
        }
        Ok(())
    }

    /// Frees what no device is left of: after a reboot, or a sandbox that died while the agent was
    /// away. Run once at start.
    ///
    /// # Errors
    /// [`PodNetworkError`].
    pub async fn reconcile(&self) -> Result<(), PodNetworkError> {
        let device = |source| PodNetworkError::Device {
            sandbox: "(any)".to_owned(),
            source,
        };
        let names = self.netlink.names().await.map_err(device)?;
        let lives = |sandbox: &str| names.contains(&host_device(sandbox));
        let freed = self.ipam.lock().release_all_but(lives)?;
        let mut indexes = Vec::new();
        for name in names.iter().filter(|name| name.starts_with(DEVICE_PREFIX)) {
            indexes.extend(self.netlink.index(name).await.map_err(device)?);
        }
        let datapath = Arc::clone(&self.datapath);
        let listed = blocking(move || datapath.list_pods()).await;
        let listed = listed.map_err(|source| PodNetworkError::Datapath {
            sandbox: "(any)".to_owned(),
            source,
        })?;
        let mut detached = 0;
        for pod in listed {
            if !indexes.contains(&pod.attachment.ifindex) {
                self.detach("(gone)", pod.attachment.ifindex).await?;
                detached += 1;
            }
        }
        if !freed.is_empty() || detached > 0 {
            info!(
                freed = freed.len(),
                detached, "freed what pods that are gone had left"
            );
        }
        Ok(())
    }

    async fn detach(&self, sandbox: &str, ifindex: u32) -> Result<(), PodNetworkError> {
        let datapath = Arc::clone(&self.datapath);
        let done = blocking(move || datapath.detach_pod(ifindex)).await;
        done.map(drop).map_err(|source| PodNetworkError::Datapath {
            sandbox: sandbox.to_owned(),
            source,
        })
    }

    async fn attach(
        &self,
        sandbox: &str,
        netns: &Path,
        interface: &str,
        addresses: Addresses,
    ) -> Result<Attached, PodNetworkError> {
        let device = |source| PodNetworkError::Device {
            sandbox: sandbox.to_owned(),
            source,
        };
        let namespace =
            NetworkNamespace::open(netns).map_err(|source| PodNetworkError::Namespace {
                path: netns.to_owned(),
                source,
            })?;
        let attached = Attached {
            addresses,
            host_device: host_device(sandbox),
            host_mac: device_mac(sandbox, 0),
            pod_mac: device_mac(sandbox, 1),
            mtu: self.defaults.mtu,
        };
        let ifindex = self
            .make_pair(&attached, interface, &namespace)
            .await
            .map_err(device)?;
        let cookie = self
            .inside(&attached, interface, &namespace)
            .await
            .map_err(device)?;
        self.outside(&attached, ifindex).await.map_err(device)?;
        let pod = PodAttachment {
            ifindex,
            ipv4: addresses.v4,
            ipv6: addresses.v6,
            mac: attached.pod_mac,
            host_mac: attached.host_mac,
            netns_cookie: cookie,
            source_check: SourceCheck::Own,
            delivery: Delivery::Redirect,
        };
        let datapath = Arc::clone(&self.datapath);
        let done = blocking(move || datapath.attach_pod(&pod)).await;
        done.map_err(|source| PodNetworkError::Datapath {
            sandbox: sandbox.to_owned(),
            source,
        })?;
        Ok(attached)
    }

    async fn make_pair(
        &self,
        attached: &Attached,
        interface: &str,
        namespace: &NetworkNamespace,
    ) -> io::Result<u32> {
        // A device of this name is from an attempt that did not end: its peer is in no live pod.
        if let Some(stale) = self.netlink.index(&attached.host_device).await? {
            self.netlink.delete(stale).await?;
        }
        let pair = Pair {
            host_name: &attached.host_device,
            host_mac: attached.host_mac,
            pod_name: interface,
            pod_mac: attached.pod_mac,
            mtu: attached.mtu,
            pod_namespace: namespace,
        };
        self.netlink.create_pair(&pair).await?;
        let index = self.netlink.index(&attached.host_device).await?;
        index.ok_or_else(|| io::Error::other("the new device vanished"))
    }

    /// The pod's side. Answers the cookie of its network namespace.
    async fn inside(
        &self,
        attached: &Attached,
        interface: &str,
        namespace: &NetworkNamespace,
    ) -> io::Result<u64> {
        let name = interface.to_owned();
        let has_v6 = attached.addresses.v6.is_some();
        let cookie = namespace
            .run(move || {
                if has_v6 {
                    namespace::sysctl(&format!("net/ipv6/conf/{name}/accept_ra"), "0")?;
                    namespace::sysctl(&format!("net/ipv6/conf/{name}/accept_dad"), "0")?;
                }
                namespace::cookie()
            })
            .await?;
        let netlink = Netlink::open_in(namespace).await?;
        if let Some(loopback) = netlink.index("lo").await? {
            netlink.set_up(loopback).await?;
        }
        let index = netlink.index(interface).await?;
        let ifindex = index.ok_or_else(|| io::Error::other("the pod's device vanished"))?;
        netlink.set_up(ifindex).await?;
        let families = [
            (
                attached.addresses.v4.map(IpAddr::V4),
                IpAddr::V4(GATEWAY_V4),
                "0.0.0.0/0",
            ),
            (
                attached.addresses.v6.map(IpAddr::V6),
                IpAddr::V6(GATEWAY_V6),
                "::/0",
            ),
        ];
        for (address, gateway, everything) in families {
            let Some(address) = address else { continue };
            netlink.add_address(ifindex, address).await?;
            netlink
                .set_neighbour(ifindex, gateway, attached.host_mac)
                .await?;
            let route = Route {
                destination: everything.parse().map_err(io::Error::other)?,
                gateway: Some(gateway),
                onlink: true,
                ifindex,
                source: Some(address),
            };
            netlink.set_route(&route).await?;
        }
        Ok(cookie)
    }

    /// The host's side.
    async fn outside(&self, attached: &Attached, ifindex: u32) -> io::Result<()> {
        let device = &attached.host_device;
        namespace::sysctl(&format!("net/ipv4/conf/{device}/rp_filter"), "0")?;
        namespace::sysctl(&format!("net/ipv4/conf/{device}/forwarding"), "1")?;
        if attached.addresses.v6.is_some() {
            namespace::sysctl(&format!("net/ipv6/conf/{device}/forwarding"), "1")?;
            namespace::sysctl(&format!("net/ipv6/conf/{device}/accept_ra"), "0")?;
        }
        self.netlink.set_up(ifindex).await?;
        let node = |address: IpAddr| match address {
            IpAddr::V4(_) => self.defaults.node_v4.map(IpAddr::V4),
            IpAddr::V6(_) => self.defaults.node_v6.map(IpAddr::V6),
        };
        let (v4, v6) = (attached.addresses.v4, attached.addresses.v6);
        for address in v4.map(IpAddr::V4).into_iter().chain(v6.map(IpAddr::V6)) {
            self.netlink
                .set_neighbour(ifindex, address, attached.pod_mac)
                .await?;
            let length = if address.is_ipv4() { 32 } else { 128 };
            let route = Route {
                destination: format!("{address}/{length}")
                    .parse()
                    .map_err(io::Error::other)?,
                gateway: None,
                onlink: false,
                ifindex,
                source: node(address),
            };
            self.netlink.set_route(&route).await?;
        }
        Ok(())
    }
}

/// FNV-1a: stable over restarts and versions, which the standard hasher does not promise.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Host device of a sandbox: 15 characters at most (`IFNAMSIZ`).
fn host_device(sandbox: &str) -> String {
    format!("{DEVICE_PREFIX}{:012x}", hash(sandbox) >> 16)
}

/// A locally administered unicast address for one side of a sandbox's pair.
fn device_mac(sandbox: &str, side: u8) -> MacAddress {
    let [a, b, c, d, e, ..] = hash(sandbox).to_be_bytes();
    MacAddress([0x0a | (side << 4), a, b, c, d, e])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_name_fits_and_depends_on_the_sandbox_only() {
        let name = host_device("3f1c");
        assert_eq!(name, host_device("3f1c"));
        assert_ne!(name, host_device("3f1d"));
        assert!(name.len() <= 15 && name.starts_with(DEVICE_PREFIX));
        let (host, pod) = (device_mac("3f1c", 0), device_mac("3f1c", 1));
        assert_ne!(host, pod);
        assert_eq!((host.0[0] & 3, pod.0[0] & 3), (2, 2), "local, unicast");
    }
}
