//! Pods and routes in the kernel's maps: the real side of [`crate::pods`].
//!
//! Order: `ep` whole, then `ifx` and `local`, then the programs on the device; backwards on
//! removal. So a packet either meets no program, or finds its pod's whole entry.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use aya::programs::{SchedClassifier, TcAttachType};
use ebpf_abi::addr::MAPPED_BITS;
use ebpf_abi::endpoint::{EP_ANY_SOURCE, EP_NO_REDIRECT, Endpoint, LocalPod};
use ebpf_abi::map::{EP, IFX, LOCAL, ROUTE};
use ebpf_abi::route::{ROUTE_DIRECT, Route, RouteKey};
use parking_lot::Mutex;
use zerocopy::{FromBytes as _, IntoBytes as _};

use crate::attach::{AttachError, attach_clsact, attach_tcx, detach_clsact};
use crate::config::DeviceHook;
use crate::load::LoadedObject;
use crate::maps::kernel::{OpenError, open_array, open_map};
use crate::maps::{from_addr, to_addr};
use crate::pins::{Pins, remove_pin};
use crate::pods::{
    AttachedPod, Delivery, MacAddress, NodeRoute, PodAttachment, PodDatapath, PodError, PodRange,
    Removal, RouteDatapath, SourceCheck, Via,
};
use crate::sys::{Access, AttachType, Map, MappedArray};

/// A packet program with its place on a pod's device.
#[derive(Clone, Copy, Debug)]
struct DeviceProgram {
    name: &'static str,
    tcx: AttachType,
    clsact: TcAttachType,
}

/// `to_pod` first: what a pod sends is only let out once it can get an answer.
const DEVICE_PROGRAMS: [DeviceProgram; 2] = [
    DeviceProgram {
        name: "to_pod",
        tcx: AttachType::TcxEgress,
        clsact: TcAttachType::Egress,
    },
    DeviceProgram {
        name: "from_pod",
        tcx: AttachType::TcxIngress,
        clsact: TcAttachType::Ingress,
    },
];

/// The pods and routes of this node, in the kernel.
#[derive(Debug)]
pub struct KernelPods {
    pins: Pins,
    endpoints: MappedArray<Endpoint>,
    devices: Map,
    addresses: Map,
    routes: Map,
    /// Held while pods change; the hook that was found to work.
    writer: Mutex<Writer>,
}

#[derive(Debug)]
struct Writer {
    object: LoadedObject,
    hook: DeviceHook,
    /// For names of devices.
    socket: OwnedFd,
}

fn map_error(map: &'static str, what: impl ToString) -> impl FnOnce(io::Error) -> PodError {
    move |source| PodError::Map {
        map,
        what: what.to_string(),
        source,
    }
}

fn refused(map: &'static str, index: u32) -> PodError {
    map_error(map, index)(io::Error::from(io::ErrorKind::PermissionDenied))
}

fn to_endpoint(pod: &PodAttachment) -> Endpoint {
    let mut flags = 0;
    if pod.source_check == SourceCheck::Any {
        flags |= EP_ANY_SOURCE;
    }
    if pod.delivery == Delivery::Stack {
        flags |= EP_NO_REDIRECT;
    }
    Endpoint {
        ifindex: pod.ifindex,
        flags,
        netns_cookie: pod.netns_cookie,
        ip4: pod.ipv4.map_or([0; 4], |address| address.octets()),
        ip6: pod.ipv6.map_or([0; 16], |address| address.octets()),
        mac: pod.mac.0,
        host_mac: pod.host_mac.0,
        ..Endpoint::default()
    }
}

/// The pod of an entry; `None` for a free one.
pub(crate) fn from_endpoint(endpoint: &Endpoint) -> Option<PodAttachment> {
    if endpoint.ifindex == 0 {
        return None;
    }
    Some(PodAttachment {
        ifindex: endpoint.ifindex,
        ipv4: (endpoint.ip4 != [0; 4]).then(|| Ipv4Addr::from(endpoint.ip4)),
        ipv6: (endpoint.ip6 != [0; 16]).then(|| Ipv6Addr::from(endpoint.ip6)),
        mac: MacAddress(endpoint.mac),
        host_mac: MacAddress(endpoint.host_mac),
        netns_cookie: endpoint.netns_cookie,
        source_check: if endpoint.flags & EP_ANY_SOURCE == 0 {
            SourceCheck::Own
        } else {
            SourceCheck::Any
        },
        delivery: if endpoint.flags & EP_NO_REDIRECT == 0 {
            Delivery::Redirect
        } else {
            Delivery::Stack
        },
    })
}

fn addresses_of(pod: &PodAttachment) -> impl Iterator<Item = IpAddr> {
    let v4 = pod.ipv4.map(IpAddr::from);
    let v6 = pod.ipv6.map(IpAddr::from);
    v4.into_iter().chain(v6)
}

impl KernelPods {
    /// Opens the pinned maps; `object` holds the packet programs.
    pub(crate) fn open(
        pins: &Pins,
        object: LoadedObject,
        hook: DeviceHook,
    ) -> Result<Self, OpenError> {
        let directory = pins.directory();
        let socket = rustix::net::socket(
            rustix::net::AddressFamily::INET,
            rustix::net::SocketType::DGRAM,
            None,
        )
        .map_err(|source| OpenError {
            path: directory.to_owned(),
            source: source.into(),
        })?;
        Ok(Self {
            endpoints: open_array(directory, &EP, Access::ReadWrite)?,
            devices: open_map(directory, &IFX, Access::ReadWrite)?,
            addresses: open_map(directory, &LOCAL, Access::ReadWrite)?,
            routes: open_map(directory, &ROUTE, Access::ReadWrite)?,
            writer: Mutex::new(Writer {
                object,
                hook,
                socket,
            }),
            pins: pins.clone(),
        })
    }

    /// Swaps the programs of every pod for those of this process. A pod whose device is gone keeps
    /// its entry until its owner detaches it. Returns the pods served.
    pub(crate) fn adopt(&self) -> Result<usize, PodError> {
        let mut adopted = 0;
        for pod in self.list_pods()? {
            match self.hook_up(pod.attachment.ifindex) {
                Ok(()) => adopted += 1,
                Err(PodError::Attach { source, .. }) if device_is_gone(&source) => {
                    tracing::info!(
                        ifindex = pod.attachment.ifindex,
                        "device of an adopted pod is gone"
                    );
                }
                Err(error) => return Err(error),
            }
        }
        Ok(adopted)
    }

    fn index_of(&self, ifindex: u32) -> Result<Option<u32>, PodError> {
        self.devices
            .lookup_value::<u32>(ifindex.as_bytes())
            .map_err(map_error(IFX.name, ifindex))
    }

    fn free_index(&self) -> Result<u32, PodError> {
        (1..self.endpoints.len())
            .find(|index| {
                self.endpoints
                    .read(*index)
                    .is_some_and(|entry| entry.ifindex == 0)
            })
            .ok_or(PodError::Full {
                capacity: self.endpoints.len() - 1,
            })
    }

    fn write_endpoint(&self, index: u32, endpoint: &Endpoint) -> Result<(), PodError> {
        match self.endpoints.write(index, endpoint) {
            true => Ok(()),
            false => Err(refused(EP.name, index)),
        }
    }

    /// Forgets an address, unless another pod has it by now.
    fn forget_address(&self, address: IpAddr, index: u32) -> Result<(), PodError> {
        let key = to_addr(address);
        let owner: Option<LocalPod> = self
            .addresses
            .lookup_value(&key)
            .map_err(map_error(LOCAL.name, address))?;
        if owner.is_some_and(|pod| pod.ep == index) {
            self.addresses
                .delete(&key)
                .map_err(map_error(LOCAL.name, address))?;
        }
        Ok(())
    }

    /// Attaches the programs of this process to a device.
    fn hook_up(&self, ifindex: u32) -> Result<(), PodError> {
        let mut writer = self.writer.lock();
        for program in DEVICE_PROGRAMS {
            writer
                .attach(&self.pins, program, ifindex)
                .map_err(|source| PodError::Attach {
                    program: program.name,
                    ifindex,
                    source,
                })?;
        }
        Ok(())
    }
}

fn device_is_gone(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENODEV) || error.raw_os_error() == Some(libc::ENXIO)
}

impl Writer {
    fn attach(&mut self, pins: &Pins, program: DeviceProgram, ifindex: u32) -> io::Result<()> {
        if self.hook == DeviceHook::Probe {
            let pin = pins.device_link(program.name, ifindex);
            let fd: BorrowedFd<'_> = self
                .object
                .program(program.name)
                .map_err(io::Error::other)?;
            match attach_tcx(program.name, fd, &pin, ifindex, program.tcx) {
                // A kernel without TCX does not know the attach type.
                Err(AttachError::Create { source, .. })
                    if source.raw_os_error() == Some(libc::EINVAL) =>
                {
                    tracing::info!("this kernel has no TCX: using clsact");
                    self.hook = DeviceHook::Clsact;
                }
                Err(AttachError::Create { source, .. }) => return Err(source),
                Err(error) => return Err(io::Error::other(error)),
                Ok(_) => return Ok(()),
            }
        }
        let device = self.device_name(ifindex)?;
        let missing = || io::Error::from(io::ErrorKind::NotFound);
        let classifier = self.object.program_mut(program.name).ok_or_else(missing)?;
        let classifier: &mut SchedClassifier = classifier.try_into().map_err(io::Error::other)?;
        attach_clsact(classifier, &device, program.clsact).map(drop)
    }

    fn device_name(&self, ifindex: u32) -> io::Result<String> {
        Ok(rustix::net::netdevice::index_to_name(
            self.socket.as_fd(),
            ifindex,
        )?)
    }
}

impl PodDatapath for KernelPods {
    fn attach_pod(&self, pod: &PodAttachment) -> Result<AttachedPod, PodError> {
        if pod.ifindex == 0 || addresses_of(pod).next().is_none() {
            return Err(PodError::Incomplete {
                attachment: Box::new(pod.clone()),
            });
        }
        {
            let _one_at_a_time = self.writer.lock();
            let index = match self.index_of(pod.ifindex)? {
                Some(index) => index,
                None => self.free_index()?,
            };
            let before = self.endpoints.read(index).as_ref().and_then(from_endpoint);
            self.write_endpoint(index, &to_endpoint(pod))?;
            self.devices
                .update(pod.ifindex.as_bytes(), index.as_bytes())
                .map_err(map_error(IFX.name, pod.ifindex))?;
            let value = LocalPod { ep: index, pad: 0 };
            for address in addresses_of(pod) {
                self.addresses
                    .update(&to_addr(address), value.as_bytes())
                    .map_err(map_error(LOCAL.name, address))?;
            }
            let stale = before.iter().flat_map(addresses_of);
            for address in stale.filter(|old| !addresses_of(pod).any(|new| new == *old)) {
                self.forget_address(address, index)?;
            }
        }
        self.hook_up(pod.ifindex)?;
        let index = self.index_of(pod.ifindex)?.unwrap_or_default();
        Ok(AttachedPod {
            index,
            attachment: pod.clone(),
        })
    }

    fn detach_pod(&self, ifindex: u32) -> Result<Removal, PodError> {
        let writer = self.writer.lock();
        for program in DEVICE_PROGRAMS.iter().rev() {
            let pin = self.pins.device_link(program.name, ifindex);
            remove_pin(&pin).map_err(|error| PodError::Attach {
                program: program.name,
                ifindex,
                source: io::Error::other(error),
            })?;
            if writer.hook == DeviceHook::Clsact
                && let Ok(device) = writer.device_name(ifindex)
            {
                detach_clsact(&device, program.clsact);
            }
        }
        let Some(index) = self.index_of(ifindex)? else {
            return Ok(Removal::WasAbsent);
        };
        let pod = self.endpoints.read(index).as_ref().and_then(from_endpoint);
        for address in pod.iter().flat_map(addresses_of) {
            self.forget_address(address, index)?;
        }
        self.devices
            .delete(ifindex.as_bytes())
            .map_err(map_error(IFX.name, ifindex))?;
        self.write_endpoint(index, &Endpoint::default())?;
        Ok(Removal::Removed)
    }

    fn list_pods(&self) -> Result<Vec<AttachedPod>, PodError> {
        let _nobody_is_writing = self.writer.lock();
        let mut pods = Vec::new();
        for index in 1..self.endpoints.len() {
            let Some(attachment) = self.endpoints.read(index).as_ref().and_then(from_endpoint)
            else {
                continue;
            };
            // An entry without its device was being written or removed when the agent died.
            match self.index_of(attachment.ifindex)? {
                Some(owner) if owner == index => pods.push(AttachedPod { index, attachment }),
                _ => self.write_endpoint(index, &Endpoint::default())?,
            }
        }
        Ok(pods)
    }
}

fn route_key(range: PodRange) -> Result<RouteKey, PodError> {
    let (longest, offset) = match range.address {
        IpAddr::V4(_) => (32, MAPPED_BITS),
        IpAddr::V6(_) => (128, 0),
    };
    if u32::from(range.length) > longest {
        return Err(PodError::Range {
            address: range.address,
            length: range.length,
        });
    }
    let prefix_len = offset + u32::from(range.length);
    let bits = u128::from_be_bytes(to_addr(range.address));
    let mask = u128::MAX.checked_shl(128 - prefix_len).unwrap_or(0);
    Ok(RouteKey {
        prefix_len,
        addr: (bits & mask).to_be_bytes(),
    })
}

/// The range of a key of `route`.
pub(crate) fn range_of(key: &RouteKey) -> PodRange {
    let address = from_addr(&key.addr);
    let offset = if address.is_ipv4() { MAPPED_BITS } else { 0 };
    PodRange {
        address,
        length: u8::try_from(key.prefix_len.saturating_sub(offset)).unwrap_or(u8::MAX),
    }
}

/// The route of a value of `route`.
pub(crate) fn route_of(value: &Route) -> NodeRoute {
    let via = match value.flags & ROUTE_DIRECT {
        0 => Via::Stack,
        _ => Via::Neighbour {
            ifindex: value.ifindex,
        },
    };
    NodeRoute {
        node: from_addr(&value.node),
        via,
    }
}

/// All routes of a map, ordered.
pub(crate) fn read_routes(map: &Map) -> io::Result<Vec<(PodRange, NodeRoute)>> {
    let wrong = || io::Error::new(io::ErrorKind::InvalidData, "an element has the wrong size");
    let mut routes = map
        .entries()?
        .iter()
        .map(|(key, value)| {
            let key = RouteKey::read_from_bytes(key).map_err(|_size| wrong())?;
            let value = Route::read_from_bytes(value).map_err(|_size| wrong())?;
            Ok((range_of(&key), route_of(&value)))
        })
        .collect::<io::Result<Vec<_>>>()?;
    routes.sort_unstable_by_key(|(range, _)| *range);
    Ok(routes)
}

/// Attempts at a trie: its allocator may say "no memory" for a moment and then have some.
const TRIE_ATTEMPTS: u32 = 8;

impl RouteDatapath for KernelPods {
    fn set_route(&self, range: PodRange, route: NodeRoute) -> Result<(), PodError> {
        let (ifindex, flags) = match route.via {
            Via::Neighbour { ifindex } => (ifindex, ROUTE_DIRECT),
            Via::Stack => (0, 0),
        };
        let key = route_key(range)?;
        let value = Route {
            node: to_addr(route.node),
            ifindex,
            flags,
        };
        let mut attempt = 1;
        loop {
            match self.routes.update(key.as_bytes(), value.as_bytes()) {
                Err(error)
                    if error.raw_os_error() == Some(libc::ENOMEM) && attempt < TRIE_ATTEMPTS =>
                {
                    attempt += 1;
                    std::thread::yield_now();
                }
                result => return result.map_err(map_error(ROUTE.name, range.address)),
            }
        }
    }

    fn remove_route(&self, range: PodRange) -> Result<Removal, PodError> {
        let key = route_key(range)?;
        let existed = self
            .routes
            .delete(key.as_bytes())
            .map_err(map_error(ROUTE.name, range.address))?;
        Ok(if existed {
            Removal::Removed
        } else {
            Removal::WasAbsent
        })
    }

    fn list_routes(&self) -> Result<Vec<(PodRange, NodeRoute)>, PodError> {
        read_routes(&self.routes).map_err(map_error(ROUTE.name, "all"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_becomes_a_key_without_host_bits_and_back() {
        for (address, length, prefix_len, back) in [
            ("10.244.3.9", 24, 120, "10.244.3.0"),
            ("10.244.3.9", 32, 128, "10.244.3.9"),
            ("0.0.0.0", 0, 96, "0.0.0.0"),
            ("fd00:10:244:3::9", 64, 64, "fd00:10:244:3::"),
            ("fd00::1", 0, 0, "::"),
        ] {
            let range = PodRange {
                address: address.parse().unwrap(),
                length,
            };
            let key = route_key(range).unwrap();
            assert_eq!(key.prefix_len, prefix_len, "{address}/{length}");
            let expected = PodRange {
                address: back.parse().unwrap(),
                length,
            };
            assert_eq!(range_of(&key), expected);
        }
    }

    #[test]
    fn a_range_longer_than_its_address_is_refused() {
        for (address, length) in [("10.0.0.0", 33), ("fd00::", 129)] {
            let address = address.parse().unwrap();
            assert!(matches!(
                route_key(PodRange { address, length }),
                Err(PodError::Range { .. })
            ));
        }
    }

    #[test]
    fn a_pod_survives_its_entry() {
        let pod = PodAttachment {
            ifindex: 7,
            ipv4: Some(Ipv4Addr::new(10, 244, 1, 2)),
            ipv6: None,
            mac: MacAddress([2, 0, 0, 0, 0, 1]),
            host_mac: MacAddress([2, 0, 0, 0, 0, 2]),
            netns_cookie: 9,
            source_check: SourceCheck::Any,
            delivery: Delivery::Stack,
        };
        assert_eq!(from_endpoint(&to_endpoint(&pod)), Some(pod));
        assert_eq!(from_endpoint(&Endpoint::default()), None);
    }
}
