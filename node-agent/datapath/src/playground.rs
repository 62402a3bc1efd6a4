//! The packet programs on any device, for looking at them with other tools.
//!
//! Nothing is pinned: maps, programs and links belong to this process and go with it, however it
//! ends. The device is entered as a pod that may send from any address and is reached through the
//! stack, so its traffic passes.

use std::io;
use std::os::fd::AsFd as _;

use ebpf_abi::endpoint::{EP_ANY_SOURCE, EP_NO_REDIRECT, Endpoint};
use ebpf_abi::map::{EP, IFX, MapSpec};
use ebpf_abi::program::OBJECT_POD;
use zerocopy::IntoBytes as _;

use crate::load::{LoadError, LoadedObject, load_unpinned};
use crate::sys::{AttachTarget, AttachType, Link, Map, ProgramHandle};

/// Why the programs are not on the device.
#[derive(Debug, thiserror::Error)]
pub enum PlaygroundError {
    #[error("no device is called {device}")]
    NoDevice {
        device: String,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error("attach {program} to {device}")]
    Attach {
        program: &'static str,
        device: String,
        #[source]
        source: io::Error,
    },
    #[error("write map {map}")]
    Map {
        map: &'static str,
        #[source]
        source: io::Error,
    },
}

/// The packet programs on a device, until dropped.
#[derive(Debug)]
pub struct Playground {
    attached: Vec<(String, u32)>,
    _links: Vec<Link>,
    _object: LoadedObject,
}

/// The index that the device's entry has.
const INDEX: u32 = 1;

fn write(
    object: &LoadedObject,
    spec: &MapSpec,
    key: u32,
    value: &[u8],
) -> Result<(), PlaygroundError> {
    let missing = || io::Error::from(io::ErrorKind::NotFound);
    let update = || {
        let fd = object.map_fd(spec.name).ok_or_else(missing)?;
        Map::from_fd(fd.try_clone_to_owned()?)?.update(key.as_bytes(), value)
    };
    update().map_err(|source| PlaygroundError::Map {
        map: spec.name,
        source,
    })
}

impl Playground {
    /// Loads the packet programs and attaches them to `device` (kernel 6.6).
    /// # Errors
    /// [`PlaygroundError`].
    pub fn open(device: &str) -> Result<Self, PlaygroundError> {
        let ifindex = index_of(device).map_err(|source| PlaygroundError::NoDevice {
            device: device.to_owned(),
            source,
        })?;
        let object = load_unpinned(OBJECT_POD)?;
        let endpoint = Endpoint {
            ifindex,
            flags: EP_ANY_SOURCE | EP_NO_REDIRECT,
            ..Endpoint::default()
        };
        write(&object, &EP, INDEX, endpoint.as_bytes())?;
        write(&object, &IFX, ifindex, INDEX.as_bytes())?;
        let mut links = Vec::new();
        let mut attached = Vec::new();
        for (program, hook) in [
            ("to_pod", AttachType::TcxEgress),
            ("from_pod", AttachType::TcxIngress),
        ] {
            let fd = object.program(program)?;
            let attach = || {
                let link = Link::create(fd, AttachTarget::Device(ifindex), hook)?;
                let info = ProgramHandle::from_fd(fd.as_fd().try_clone_to_owned()?).info()?;
                Ok((link, info.id))
            };
            let (link, id) = attach().map_err(|source| PlaygroundError::Attach {
                program,
                device: device.to_owned(),
                source,
            })?;
            attached.push((format!("{program} at {hook:?} of {device}"), id));
            links.push(link);
        }
        Ok(Self {
            attached,
            _links: links,
            _object: object,
        })
    }

    /// What was attached where, with the programs' ids.
    #[must_use]
    pub fn attached(&self) -> &[(String, u32)] {
        &self.attached
    }
}

fn index_of(device: &str) -> io::Result<u32> {
    let socket = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        None,
    )?;
    Ok(rustix::net::netdevice::name_to_index(
        socket.as_fd(),
        device,
    )?)
}
