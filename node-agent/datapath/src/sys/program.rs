//! Loaded programs: facts, run statistics, and runs on packets of our own.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use zerocopy::{FromBytes, FromZeros as _, Immutable, IntoBytes};

use super::array::Access;
use super::{Command, address, address_mut, bpf, bpf_fd, name_of, object_info, open_pinned, raw};

/// Facts about a loaded program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramInfo {
    pub id: u32,
    /// The kernel's number of the program type.
    pub kind: u32,
    /// At most 15 characters: the kernel cuts the rest.
    pub name: String,
    /// The kernel's hash of the instructions.
    pub tag: [u8; 8],
    pub translated_bytes: u32,
    pub machine_bytes: u32,
    /// Nanoseconds after boot.
    pub loaded_at_ns: u64,
    /// Instructions the verifier walked; 0 before kernel 5.16.
    pub verified_instructions: u32,
    /// Total run time and runs; counted only while [`RunStatistics`] is held by someone.
    pub run_time_ns: u64,
    pub runs: u64,
}

#[repr(C)]
#[derive(FromBytes, IntoBytes, Immutable)]
struct RawProgramInfo {
    kind: u32,
    id: u32,
    tag: [u8; 8],
    machine_bytes: u32,
    translated_bytes: u32,
    unused_instructions: [u64; 2],
    loaded_at_ns: u64,
    creator: u32,
    map_count: u32,
    maps: u64,
    name: [u8; 16],
    ifindex: u32,
    gpl_compatible: u32,
    network_namespace: [u64; 2],
    symbol_count: u32,
    function_count: u32,
    symbols: u64,
    functions: u64,
    btf: u32,
    function_record: u32,
    function_records: u64,
    function_record_count: u32,
    line_count: u32,
    lines: u64,
    machine_lines: u64,
    machine_line_count: u32,
    line_record: u32,
    machine_line_record: u32,
    tag_count: u32,
    tags: u64,
    run_time_ns: u64,
    runs: u64,
    recursion_misses: u64,
    verified_instructions: u32,
    attach_object: u32,
    attach_id: u32,
    pad: u32,
}

/// A loaded program.
#[derive(Debug)]
pub struct ProgramHandle {
    fd: OwnedFd,
}

/// Input of a run on a packet of our own.
#[derive(Clone, Copy, Debug)]
pub struct TestRun<'a> {
    /// The packet, from the Ethernet header on; at least 14 bytes.
    pub packet: &'a [u8],
    /// The program type's context as user space may set it (`__sk_buff` for tc), or empty.
    pub context: &'a [u8],
    /// Runs; at least 1.
    pub repeat: u32,
}

/// Result of the last of the runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestRunOutput {
    pub verdict: u32,
    pub packet: Vec<u8>,
    pub context: Vec<u8>,
    /// Mean time of one run.
    pub duration_ns: u32,
}

#[repr(C)]
#[derive(FromBytes, IntoBytes, Immutable)]
struct TestRunAttribute {
    program_fd: u32,
    verdict: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    context_size_in: u32,
    context_size_out: u32,
    context_in: u64,
    context_out: u64,
    flags: u32,
    cpu: u32,
}

#[repr(C)]
#[derive(FromBytes, IntoBytes, Immutable)]
struct IdAttribute {
    id: u32,
    next: u32,
    flags: u32,
}

#[repr(C)]
#[derive(FromBytes, IntoBytes, Immutable)]
struct StatisticsAttribute {
    kind: u32,
}

/// Room for a packet that the program has grown.
const HEADROOM: usize = 512;

impl ProgramHandle {
    /// Takes a program's descriptor.
    #[must_use]
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self { fd }
    }

    /// Opens a program by the id that link information names.
    /// # Errors
    /// The kernel's error; `NotFound` when it is gone.
    pub fn by_id(id: u32) -> io::Result<Self> {
        let mut attribute = IdAttribute {
            id,
            next: 0,
            flags: 0,
        };
        let fd = bpf_fd(Command::ProgramFdById, &mut attribute)?;
        Ok(Self { fd })
    }

    /// Opens a pinned program.
    /// # Errors
    /// The kernel's error; `NotFound` when nothing is pinned there.
    pub fn open(path: &Path) -> io::Result<Self> {
        let fd = open_pinned(path, Access::ReadWrite)?;
        Ok(Self { fd })
    }

    /// What the kernel says about the program.
    /// # Errors
    /// The kernel's error.
    pub fn info(&self) -> io::Result<ProgramInfo> {
        let mut info = RawProgramInfo::new_zeroed();
        object_info(self.fd.as_fd(), info.as_mut_bytes())?;
        Ok(ProgramInfo {
            id: info.id,
            kind: info.kind,
            name: name_of(&info.name),
            tag: info.tag,
            translated_bytes: info.translated_bytes,
            machine_bytes: info.machine_bytes,
            loaded_at_ns: info.loaded_at_ns,
            verified_instructions: info.verified_instructions,
            run_time_ns: info.run_time_ns,
            runs: info.runs,
        })
    }

    /// Runs the program on a packet of our own, without a device.
    /// # Errors
    /// The kernel's error; `Unsupported` kinds of program give `ENOTSUPP`.
    pub fn test_run(&self, run: TestRun<'_>) -> io::Result<TestRunOutput> {
        let size = |length: usize| {
            u32::try_from(length)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
        };
        let mut packet = vec![0; run.packet.len() + HEADROOM];
        let mut context = vec![0; run.context.len()];
        let mut attribute = TestRunAttribute {
            program_fd: raw(self.fd.as_fd()),
            verdict: 0,
            data_size_in: size(run.packet.len())?,
            data_size_out: size(packet.len())?,
            data_in: address(run.packet),
            data_out: address_mut(&mut packet),
            repeat: run.repeat.max(1),
            duration: 0,
            context_size_in: size(run.context.len())?,
            context_size_out: size(context.len())?,
            context_in: if run.context.is_empty() {
                0
            } else {
                address(run.context)
            },
            context_out: if context.is_empty() {
                0
            } else {
                address_mut(&mut context)
            },
            flags: 0,
            cpu: 0,
        };
        bpf(Command::ProgramTestRun, &mut attribute)?;
        packet.truncate(usize::try_from(attribute.data_size_out).unwrap_or(usize::MAX));
        context.truncate(usize::try_from(attribute.context_size_out).unwrap_or(usize::MAX));
        Ok(TestRunOutput {
            verdict: attribute.verdict,
            packet,
            context,
            duration_ns: attribute.duration,
        })
    }
}

impl AsFd for ProgramHandle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// While held, the kernel counts runs and run time of every program (about 20 ns a run).
#[derive(Debug)]
pub struct RunStatistics {
    _fd: OwnedFd,
}

impl RunStatistics {
    /// Switches the counting on.
    /// # Errors
    /// The kernel's error.
    pub fn enable() -> io::Result<Self> {
        let mut attribute = StatisticsAttribute { kind: 0 };
        let fd = bpf_fd(Command::EnableStatistics, &mut attribute)?;
        Ok(Self { _fd: fd })
    }
}
