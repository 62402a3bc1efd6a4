//! Hooks programs up: create a link and pin it, or swap the program in the link that is pinned.
//!
//! A swap loses nothing: each call or packet runs either the old program or the new one. A pinned
//! link whose cgroup or device has gone, or was replaced by another of the same number, is made anew.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::{Path, PathBuf};

use aya::programs::tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle};
use aya::programs::{ProgramError, SchedClassifier, TcAttachType};

use crate::cgroup::CgroupDirectory;
use crate::pins::{PinsError, remove_pin};
use crate::sys::{AttachTarget, AttachType, Link, LinkTarget};

/// What was done to a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attached {
    /// A link of before runs the new program now.
    Swapped,
    Created,
}

/// A program could not be attached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    #[error("attach {program}")]
    Create {
        program: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("pin link {}", path.display())]
    Pin {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Unpin(#[from] PinsError),
}

/// Where a socket program is called.
pub(crate) fn socket_hook(program: &str) -> Option<AttachType> {
    Some(match program {
        "connect4" => AttachType::CgroupInet4Connect,
        "connect6" => AttachType::CgroupInet6Connect,
        "sendmsg4" => AttachType::CgroupUdp4Sendmsg,
        "sendmsg6" => AttachType::CgroupUdp6Sendmsg,
        "recvmsg4" => AttachType::CgroupUdp4Recvmsg,
        "recvmsg6" => AttachType::CgroupUdp6Recvmsg,
        "getpeername4" => AttachType::CgroupInet4Getpeername,
        "getpeername6" => AttachType::CgroupInet6Getpeername,
        "sock_release" => AttachType::CgroupInetSockRelease,
        _ => return None,
    })
}

fn attach(
    program: &'static str,
    fd: BorrowedFd<'_>,
    pin: &Path,
    target: AttachTarget<'_>,
    still_there: impl Fn(LinkTarget) -> bool,
    attach_type: AttachType,
) -> Result<Attached, AttachError> {
    if let Ok(link) = Link::open(pin) {
        let current = link.info().is_ok_and(|info| still_there(info.target));
        if current && link.update(fd).is_ok() {
            return Ok(Attached::Swapped);
        }
    }
    // The old link, if any, stays pinned until the new one runs.
    let link = Link::create(fd, target, attach_type)
        .map_err(|source| AttachError::Create { program, source })?;
    remove_pin(pin)?;
    link.pin(pin).map_err(|source| AttachError::Pin {
        path: pin.to_owned(),
        source,
    })?;
    Ok(Attached::Created)
}

/// Attaches a socket program to a cgroup.
pub(crate) fn attach_cgroup(
    program: &'static str,
    fd: BorrowedFd<'_>,
    pin: &Path,
    cgroup: &CgroupDirectory,
    attach_type: AttachType,
) -> Result<Attached, AttachError> {
    let target = AttachTarget::Cgroup(cgroup.file.as_fd());
    let same = |target| target == LinkTarget::Cgroup { id: cgroup.id };
    attach(program, fd, pin, target, same, attach_type)
}

/// Attaches a packet program to a device by TCX (kernel 6.6).
pub(crate) fn attach_tcx(
    program: &'static str,
    fd: BorrowedFd<'_>,
    pin: &Path,
    ifindex: u32,
    attach_type: AttachType,
) -> Result<Attached, AttachError> {
    let same = |target| target == LinkTarget::Device { ifindex };
    attach(
        program,
        fd,
        pin,
        AttachTarget::Device(ifindex),
        same,
        attach_type,
    )
}

/// Priority and handle of our filters: the first, and only one, of a pod's device.
const CLSACT_PRIORITY: u16 = 1;
const CLSACT_HANDLE: TcHandle = TcHandle::new(0, 1);

fn clsact_error(error: ProgramError) -> io::Error {
    match error {
        ProgramError::TcError(TcError::IoError(error)) => error,
        other => io::Error::other(other),
    }
}

fn clsact_link(device: &str, direction: TcAttachType) -> io::Result<SchedClassifierLink> {
    SchedClassifierLink::attached(device, direction, CLSACT_PRIORITY, CLSACT_HANDLE, None)
}

/// Attaches a packet program by a clsact qdisc, for kernels without TCX. The filter stays when this
/// process ends; replacing it is atomic.
pub(crate) fn attach_clsact(
    program: &mut SchedClassifier,
    device: &str,
    direction: TcAttachType,
) -> io::Result<Attached> {
    match tc::qdisc_add_clsact(device) {
        Ok(()) | Err(TcError::AlreadyAttached) => {}
        Err(TcError::NetlinkError(error)) if error.raw_os_error() == Some(libc::EEXIST) => {}
        Err(error) => return Err(io::Error::other(error)),
    }
    let (link, attached) = match program.attach_to_link(clsact_link(device, direction)?) {
        Ok(link) => (link, Attached::Swapped),
        Err(_absent) => {
            let options = NlOptions {
                priority: CLSACT_PRIORITY,
                handle: CLSACT_HANDLE,
                classid: None,
            };
            let link = program
                .attach_with_options(device, direction, TcAttachOptions::Netlink(options))
                .map_err(clsact_error)?;
            (link, Attached::Created)
        }
    };
    let link = program.take_link(link).map_err(clsact_error)?;
    #[expect(
        clippy::mem_forget,
        reason = "dropping it would remove the filter, which must outlive this process"
    )]
    std::mem::forget(link);
    Ok(attached)
}

/// Removes the filter of [`attach_clsact`]; an absent one is no error.
pub(crate) fn detach_clsact(device: &str, direction: TcAttachType) {
    if let Ok(link) = clsact_link(device, direction) {
        drop(link); // removes the filter
    }
}
