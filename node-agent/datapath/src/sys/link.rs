//! Attachments: create, pin, find again, and swap the program without a gap.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use zerocopy::{FromBytes, FromZeros as _, Immutable, IntoBytes};

use super::array::Access;
use super::{Command, bpf, bpf_fd, object_info, open_pinned, pin, raw};

/// Where in the kernel a program is called; the numbers are `enum bpf_attach_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum AttachType {
    CgroupInet4Connect = 10,
    CgroupInet6Connect = 11,
    CgroupInet4PostBind = 12,
    CgroupInet6PostBind = 13,
    CgroupUdp4Sendmsg = 14,
    CgroupUdp6Sendmsg = 15,
    CgroupUdp4Recvmsg = 19,
    CgroupUdp6Recvmsg = 20,
    CgroupInet4Getpeername = 29,
    CgroupInet6Getpeername = 30,
    CgroupInetSockRelease = 34,
    TcxIngress = 46,
    TcxEgress = 47,
}

/// What a program is attached to.
#[derive(Clone, Copy, Debug)]
pub enum AttachTarget<'a> {
    Cgroup(BorrowedFd<'a>),
    Device(u32),
}

/// What a link is attached to, as the kernel reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkTarget {
    /// The id of the cgroup; 0 once the cgroup is gone.
    Cgroup { id: u64 },
    /// The device's index in the network namespace it lives in now; 0 once the device is gone.
    Device { ifindex: u32 },
    /// A link of another type, with the kernel's number of that type.
    Other { kind: u32 },
}

/// Facts about a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkInfo {
    pub id: u32,
    pub program_id: u32,
    pub target: LinkTarget,
    /// The kernel's number of the attach type.
    pub attach_type: u32,
}

/// An open link; it stays attached while this, or a pin, is alive.
#[derive(Debug)]
pub struct Link {
    fd: OwnedFd,
}

#[repr(C)]
#[derive(FromBytes, IntoBytes, Immutable)]
struct CreateAttribute {
    program_fd: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
    /// For TCX: relative to which program, and the expected revision; zero means "at the end".
    relative: u32,
    pad: u32,
    revision: u64,
}

#[repr(C)]
#[derive(FromBytes, IntoBytes, Immutable)]
struct UpdateAttribute {
    link_fd: u32,
    program_fd: u32,
    flags: u32,
    old_program_fd: u32,
}

#[repr(C)]
#[derive(FromBytes, IntoBytes, Immutable)]
struct DetachAttribute {
    link_fd: u32,
}

#[repr(C)]
#[derive(FromBytes, IntoBytes, Immutable)]
struct RawLinkInfo {
    kind: u32,
    id: u32,
    program_id: u32,
    pad: u32,
    /// A union by kind: cgroup {id u64, attach type u32}, tcx {ifindex u32, attach type u32}.
    detail: [u32; 4],
}

const LINK_CGROUP: u32 = 3;
const LINK_TCX: u32 = 11;

impl Link {
    /// Attaches `program` and returns the link that holds it.
    /// # Errors
    /// The kernel's error; `InvalidInput` from a kernel without this attach type.
    pub fn create(
        program: BorrowedFd<'_>,
        target: AttachTarget<'_>,
        attach_type: AttachType,
    ) -> io::Result<Self> {
        let target = match target {
            AttachTarget::Cgroup(fd) => raw(fd),
            AttachTarget::Device(ifindex) => ifindex,
        };
        let mut attribute = CreateAttribute {
            program_fd: raw(program),
            target,
            attach_type: attach_type as u32,
            flags: 0,
            relative: 0,
            pad: 0,
            revision: 0,
        };
        let fd = bpf_fd(Command::LinkCreate, &mut attribute)?;
        Ok(Self { fd })
    }

    /// Opens a pinned link.
    /// # Errors
    /// The kernel's error; `NotFound` when nothing is pinned there.
    pub fn open(path: &Path) -> io::Result<Self> {
        // Links know no read-only descriptor.
        let fd = open_pinned(path, Access::ReadWrite)?;
        Ok(Self { fd })
    }

    /// Pins the link, so that it outlives this process.
    /// # Errors
    /// The kernel's error.
    pub fn pin(&self, path: &Path) -> io::Result<()> {
        pin(self.fd.as_fd(), path)
    }

    /// Replaces the program; every packet or call sees either the old one or the new one.
    /// # Errors
    /// The kernel's error; `ENOLINK` when the device or cgroup is gone.
    pub fn update(&self, program: BorrowedFd<'_>) -> io::Result<()> {
        let mut attribute = UpdateAttribute {
            link_fd: raw(self.fd.as_fd()),
            program_fd: raw(program),
            flags: 0,
            old_program_fd: 0,
        };
        bpf(Command::LinkUpdate, &mut attribute).map(drop)
    }

    /// Detaches at once, whoever else holds the link.
    /// # Errors
    /// The kernel's error.
    pub fn detach(&self) -> io::Result<()> {
        let mut attribute = DetachAttribute {
            link_fd: raw(self.fd.as_fd()),
        };
        bpf(Command::LinkDetach, &mut attribute).map(drop)
    }

    /// What the link connects.
    /// # Errors
    /// The kernel's error.
    pub fn info(&self) -> io::Result<LinkInfo> {
        let mut info = RawLinkInfo::new_zeroed();
        object_info(self.fd.as_fd(), info.as_mut_bytes())?;
        let [first, second, third, _] = info.detail;
        let (target, attach_type) = match info.kind {
            LINK_CGROUP => {
                let id = u64::from(second) << 32 | u64::from(first);
                (LinkTarget::Cgroup { id }, third)
            }
            LINK_TCX => (LinkTarget::Device { ifindex: first }, second),
            kind => (LinkTarget::Other { kind }, 0),
        };
        Ok(LinkInfo {
            id: info.id,
            program_id: info.program_id,
            target,
            attach_type,
        })
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
