//! Devices, addresses, routes and neighbours by netlink: thin calls that decide nothing.
//!
//! Every call is idempotent: what is there already is replaced or left, what is absent is no error to
//! remove.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures::TryStreamExt as _;
use netlink_packet_route::address::AddressHeaderFlags;
use netlink_packet_route::link::{InfoData, InfoVeth, LinkAttribute};
use netlink_packet_route::neighbour::{NeighbourFlags, NeighbourState};
use netlink_packet_route::route::{RouteMessage, RouteProtocol, RouteScope};
use node_agent_datapath::pods::MacAddress;
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec, LinkVeth, LinkVxlan, RouteMessageBuilder};

use crate::namespace::NetworkNamespace;
use crate::range::Range;

/// Marks our routes (`rtm_protocol`; numbers from 192 are free for anybody).
pub(crate) const ROUTE_PROTOCOL: RouteProtocol = RouteProtocol::Other(251);

/// A netlink socket of one network namespace.
#[derive(Debug, Clone)]
pub(crate) struct Netlink {
    handle: Handle,
}

/// A veth pair to make.
#[derive(Debug)]
pub(crate) struct Pair<'a> {
    pub(crate) host_name: &'a str,
    pub(crate) host_mac: MacAddress,
    pub(crate) pod_name: &'a str,
    pub(crate) pod_mac: MacAddress,
    pub(crate) mtu: u32,
    pub(crate) pod_namespace: &'a NetworkNamespace,
}

/// A VXLAN device to make.
#[derive(Debug)]
pub(crate) struct Tunnel<'a> {
    pub(crate) name: &'a str,
    pub(crate) vni: u32,
    pub(crate) port: u16,
    pub(crate) underlay: u32,
    pub(crate) local: Ipv4Addr,
    pub(crate) mac: MacAddress,
    pub(crate) mtu: u32,
}

/// A route to make.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Route {
    pub(crate) destination: Range,
    pub(crate) gateway: Option<IpAddr>,
    /// The gateway is reached without a route of its own.
    pub(crate) onlink: bool,
    pub(crate) ifindex: u32,
    pub(crate) source: Option<IpAddr>,
}

fn failed(what: &str, error: &rtnetlink::Error) -> io::Error {
    let errno = errno(error).map(io::Error::from_raw_os_error);
    match errno {
        Some(cause) => io::Error::new(cause.kind(), format!("{what}: {cause}")),
        None => io::Error::other(format!("{what}: {error}")),
    }
}

fn errno(error: &rtnetlink::Error) -> Option<i32> {
    match error {
        rtnetlink::Error::NetlinkError(message) => Some(-message.raw_code()),
        _ => None,
    }
}

fn unless(allowed: &[i32], what: &str, result: Result<(), rtnetlink::Error>) -> io::Result<()> {
    match result {
        Ok(()) => Ok(()),
        Err(error) if errno(&error).is_some_and(|code| allowed.contains(&code)) => Ok(()),
        Err(error) => Err(failed(what, &error)),
    }
}

impl Netlink {
    /// A socket in the calling thread's namespace. Its task ends when the last handle is dropped.
    pub(crate) fn open() -> io::Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// A socket in `namespace`.
    pub(crate) async fn open_in(namespace: &NetworkNamespace) -> io::Result<Self> {
        namespace.run(Self::open).await
    }

    /// Index of a device; `None` when there is none of the name.
    pub(crate) async fn index(&self, name: &str) -> io::Result<Option<u32>> {
        let mut found = self
            .handle
            .link()
            .get()
            .match_name(name.to_owned())
            .execute();
        match found.try_next().await {
            Ok(message) => Ok(message.map(|message| message.header.index)),
            Err(error) if errno(&error) == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(failed(&format!("look up device {name}"), &error)),
        }
    }

    /// Names of all devices.
    pub(crate) async fn names(&self) -> io::Result<Vec<String>> {
        let all: Vec<_> = self
            .handle
            .link()
            .get()
            .execute()
            .try_collect()
            .await
            .map_err(|error| failed("list devices", &error))?;
        let name = |attribute: LinkAttribute| match attribute {
            LinkAttribute::IfName(name) => Some(name),
            _ => None,
        };
        Ok(all
            .into_iter()
            .filter_map(|link| link.attributes.into_iter().find_map(name))
            .collect())
    }

    /// MTU of a device.
    pub(crate) async fn mtu(&self, ifindex: u32) -> io::Result<u32> {
        let link = self
            .handle
            .link()
            .get()
            .match_index(ifindex)
            .execute()
            .try_next()
            .await;
        let link = link.map_err(|error| failed("read the MTU of a device", &error))?;
        let mtu = link
            .into_iter()
            .flat_map(|link| link.attributes)
            .find_map(|attribute| match attribute {
                LinkAttribute::Mtu(mtu) => Some(mtu),
                _ => None,
            });
        mtu.ok_or_else(|| io::Error::other(format!("device {ifindex} has no MTU")))
    }

    /// Makes the pair, the pod's end inside its namespace under its final name at once.
    pub(crate) async fn create_pair(&self, pair: &Pair<'_>) -> io::Result<()> {
        let peer = LinkMessageBuilder::<LinkUnspec>::new()
            .name(pair.pod_name.to_owned())
            .address(pair.pod_mac.0.to_vec())
            .mtu(pair.mtu)
            .setns_by_fd(pair.pod_namespace.fd())
            .build();
        let message = LinkVeth::new(pair.host_name, pair.pod_name)
            .address(pair.host_mac.0.to_vec())
            .mtu(pair.mtu)
            .up()
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .build();
        let made = self.handle.link().add(message).execute().await;
        made.map_err(|error| failed(&format!("create veth pair {}", pair.host_name), &error))
    }

    /// Makes the VXLAN device `name` unless it is there. Answers its index.
    pub(crate) async fn ensure_vxlan(&self, tunnel: &Tunnel<'_>) -> io::Result<u32> {
        let name = tunnel.name;
        let message = LinkVxlan::new(name, tunnel.vni)
            .dev(tunnel.underlay)
            .port(tunnel.port)
            .local(tunnel.local)
            .learning(false)
            .address(tunnel.mac.0.to_vec())
            .mtu(tunnel.mtu)
            .up()
            .build();
        let made = self.handle.link().add(message).execute().await;
        unless(
            &[libc::EEXIST],
            &format!("create tunnel device {name}"),
            made,
        )?;
        let index = self.index(name).await?;
        index.ok_or_else(|| io::Error::other(format!("tunnel device {name} vanished")))
    }

    pub(crate) async fn set_up(&self, ifindex: u32) -> io::Result<()> {
        let message = LinkUnspec::new_with_index(ifindex).up().build();
        let done = self.handle.link().set(message).execute().await;
        done.map_err(|error| failed("bring a device up", &error))
    }

    pub(crate) async fn delete(&self, ifindex: u32) -> io::Result<()> {
        let done = self.handle.link().del(ifindex).execute().await;
        unless(&[libc::ENODEV], "delete a device", done)
    }

    pub(crate) async fn add_address(&self, ifindex: u32, address: IpAddr) -> io::Result<()> {
        let length = if address.is_ipv4() { 32 } else { 128 };
        let mut request = self
            .handle
            .address()
            .add(ifindex, address, length)
            .replace();
        if address.is_ipv6() {
            request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
        }
        let done = request.execute().await;
        unless(&[libc::EEXIST], &format!("add address {address}"), done)
    }

    pub(crate) async fn set_neighbour(
        &self,
        ifindex: u32,
        address: IpAddr,
        mac: MacAddress,
    ) -> io::Result<()> {
        let request = self
            .handle
            .neighbours()
            .add(ifindex, address)
            .link_layer_address(&mac.0);
        let done = request
            .state(NeighbourState::Permanent)
            .replace()
            .execute()
            .await;
        done.map_err(|error| failed(&format!("set neighbour {address}"), &error))
    }

    /// Tells a VXLAN device behind which address a hardware address is.
    pub(crate) async fn set_forwarding(
        &self,
        ifindex: u32,
        mac: MacAddress,
        node: IpAddr,
    ) -> io::Result<()> {
        let request = self
            .handle
            .neighbours()
            .add_bridge(ifindex, &mac.0)
            .destination(node);
        let request = request
            .flags(NeighbourFlags::Own)
            .state(NeighbourState::Permanent);
        let done = request.replace().execute().await;
        done.map_err(|error| failed(&format!("set tunnel entry for {node}"), &error))
    }

    pub(crate) async fn set_route(&self, route: &Route) -> io::Result<()> {
        let message = route_message(route)?;
        let done = self.handle.route().add(message).replace().execute().await;
        done.map_err(|error| failed(&format!("set route to {}", route.destination), &error))
    }

    pub(crate) async fn delete_route(&self, route: &Route) -> io::Result<()> {
        let done = self
            .handle
            .route()
            .del(route_message(route)?)
            .execute()
            .await;
        unless(
            &[libc::ESRCH, libc::ENODEV],
            &format!("delete route to {}", route.destination),
            done,
        )
    }
}

fn route_message(route: &Route) -> io::Result<RouteMessage> {
    let scope = if route.gateway.is_some() {
        RouteScope::Universe
    } else {
        RouteScope::Link
    };
    let invalid = |_error| io::Error::other("the route mixes address families");
    let (address, length) = (route.destination.address(), route.destination.length());
    let mut builder = RouteMessageBuilder::<IpAddr>::new()
        .destination_prefix(address, length)
        .map_err(invalid)?
        .output_interface(route.ifindex)
        .protocol(ROUTE_PROTOCOL)
        .scope(scope);
    if let Some(gateway) = route.gateway {
        builder = builder.gateway(gateway).map_err(invalid)?;
    }
    if let Some(source) = route.source {
        builder = builder.pref_source(source).map_err(invalid)?;
    }
    if route.onlink {
        builder = builder.onlink();
    }
    Ok(builder.build())
}

/// The hardware address that a node's tunnel device has, known to all from the node's address.
pub(crate) fn tunnel_mac(node: IpAddr) -> MacAddress {
    let tail = match node {
        IpAddr::V4(v4) => v4.octets(),
        IpAddr::V6(v6) => fold(v6),
    };
    let [a, b, c, d] = tail;
    MacAddress([0x02, 0x58, a, b, c, d])
}

fn fold(address: Ipv6Addr) -> [u8; 4] {
    let bits = address.to_bits();
    let words = [bits >> 96, bits >> 64, bits >> 32, bits].map(|word| word & 0xffff_ffff);
    let folded = words.iter().fold(0, |sum, word| sum ^ word);
    u32::try_from(folded).unwrap_or_default().to_be_bytes()
}
