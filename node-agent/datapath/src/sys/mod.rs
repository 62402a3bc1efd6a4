//! The `bpf(2)` calls that the loader library does not offer, each behind a safe function.
//!
//! Owns: argument layouts of the system call and memory mappings of array maps. Knows nothing of
//! services or pods. Every function checks the sizes that the kernel would read or write before it
//! passes a pointer, so callers outside this directory need no `unsafe`.

#![expect(
    unsafe_code,
    reason = "system calls and shared memory; each block says why it is sound"
)]

mod array;
mod link;
mod map;
mod program;

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use zerocopy::{FromBytes, Immutable, IntoBytes};

pub use array::{Access, MappedArray, MappedValue};
pub use link::{AttachTarget, AttachType, Link, LinkInfo, LinkTarget};
pub use map::{BatchError, Element, Map, MapInfo, MapKind};
pub use program::{
    FunctionTypes, ProgramCode, ProgramHandle, ProgramInfo, ProgramKind, RunStatistics, TestRun,
    TestRunOutput, load_btf,
};

/// Commands of `bpf(2)` used here; the numbers are the kernel's ABI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
enum Command {
    MapCreate = 0,
    MapLookup = 1,
    MapUpdate = 2,
    MapDelete = 3,
    MapNextKey = 4,
    ProgramLoad = 5,
    ObjectPin = 6,
    ObjectGet = 7,
    ProgramTestRun = 10,
    ProgramFdById = 13,
    ObjectInfo = 15,
    BtfLoad = 18,
    MapLookupBatch = 24,
    MapUpdateBatch = 26,
    MapDeleteBatch = 27,
    LinkCreate = 28,
    LinkUpdate = 29,
    EnableStatistics = 32,
    LinkDetach = 34,
}

/// `BPF_F_RDONLY`: user space gets a read-only descriptor.
const OPEN_READ_ONLY: u32 = 1 << 3;

/// Passes `attribute` to the kernel, which may write results back into it.
fn bpf<A: FromBytes + IntoBytes + Immutable>(
    command: Command,
    attribute: &mut A,
) -> io::Result<i64> {
    // SAFETY: `attribute` is a live, exclusively borrowed value of plain data without padding, the
    // size passed is its own, and the kernel treats missing trailing fields as zero. Pointers
    // inside it were made by the callers from slices that outlive this call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command as libc::c_long,
            std::ptr::from_mut(attribute),
            size_of::<A>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

/// Runs a command whose result is a new descriptor.
fn bpf_fd<A: FromBytes + IntoBytes + Immutable>(
    command: Command,
    attribute: &mut A,
) -> io::Result<OwnedFd> {
    let fd = bpf(command, attribute)?;
    let fd = i32::try_from(fd).map_err(|_negative| io::Error::from(io::ErrorKind::InvalidData))?;
    // SAFETY: the kernel has just returned this descriptor for us; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The address of a buffer as the kernel wants it.
fn address(bytes: &[u8]) -> u64 {
    bytes.as_ptr().expose_provenance() as u64
}

/// The address of a buffer that the kernel fills.
fn address_mut(bytes: &mut [u8]) -> u64 {
    bytes.as_mut_ptr().expose_provenance() as u64
}

/// A descriptor as the unsigned field of an attribute.
fn raw(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

#[repr(C)]
#[derive(FromBytes, IntoBytes, Immutable)]
struct ObjectAttribute {
    path: u64,
    fd: u32,
    flags: u32,
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
}

/// Pins an object (map, program or link) under `path`, which must lie on a BPF file system.
/// # Errors
/// The kernel's error; `AlreadyExists` when the name is taken.
pub fn pin(fd: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    let mut attribute = ObjectAttribute {
        path: address(path.as_bytes_with_nul()),
        fd: raw(fd),
        flags: 0,
    };
    bpf(Command::ObjectPin, &mut attribute).map(drop)
}

/// Opens a pinned object.
fn open_pinned(path: &Path, access: Access) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let mut attribute = ObjectAttribute {
        path: address(path.as_bytes_with_nul()),
        fd: 0,
        flags: match access {
            Access::ReadOnly => OPEN_READ_ONLY,
            Access::ReadWrite => 0,
        },
    };
    bpf_fd(Command::ObjectGet, &mut attribute)
}

#[repr(C)]
#[derive(FromBytes, IntoBytes, Immutable)]
struct InfoAttribute {
    fd: u32,
    length: u32,
    info: u64,
}

/// Fills `info` with what the kernel knows about an object. Older kernels fill less; the rest
/// stays as it was.
fn object_info(fd: BorrowedFd<'_>, info: &mut [u8]) -> io::Result<()> {
    let length = u32::try_from(info.len())
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let mut attribute = InfoAttribute {
        fd: raw(fd),
        length,
        info: address_mut(info),
    };
    bpf(Command::ObjectInfo, &mut attribute).map(drop)
}

/// A C string field of an info structure as text; the kernel allows letters, digits, `_` and `.`.
fn name_of(field: &[u8]) -> String {
    let end = field.iter().position(|byte| *byte == 0);
    String::from_utf8_lossy(&field[..end.unwrap_or(field.len())]).into_owned()
}
