//! Loaded programs: facts, run statistics, and runs on packets of our own.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use zerocopy::{FromBytes, FromZeros as _, Immutable, IntoBytes};

use super::array::Access;
use super::link::AttachType;
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

/// Type of a program; the numbers are `enum bpf_prog_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum ProgramKind {
    SchedCls = 3,
    CgroupSock = 9,
    CgroupSockAddr = 18,
}

/// A program to load, relocated.
#[derive(Clone, Copy, Debug)]
pub struct ProgramCode<'a> {
    pub kind: ProgramKind,
    /// At most 15 characters.
    pub name: &'a str,
    pub license: &'a CStr,
    /// For the kinds that want one.
    pub attach_type: Option<AttachType>,
    /// `struct bpf_insn`, one after the other.
    pub instructions: &'a [u8],
    /// Types of the object and what its functions are; programs with callbacks need them.
    pub types: Option<FunctionTypes<'a>>,
}

/// Type information as the kernel takes it.
#[derive(Clone, Copy, Debug)]
pub struct FunctionTypes<'a> {
    pub btf: BorrowedFd<'a>,
    /// `struct bpf_func_info`, one after the other.
    pub functions: &'a [u8],
    /// Bytes of one of them.
    pub record_len: usize,
}

/// Gives an object's type information to the kernel.
/// # Errors
/// The kernel's error.
pub fn load_btf(bytes: &[u8]) -> io::Result<OwnedFd> {
    let size = u32::try_from(bytes.len())
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let mut attribute = BtfAttribute {
        btf: address(bytes),
        log: 0,
        size,
        log_size: 0,
        log_level: 0,
        pad: 0,
    };
    bpf_fd(Command::BtfLoad, &mut attribute)
}

#[repr(C)]
#[derive(FromBytes, IntoBytes, Immutable)]
struct BtfAttribute {
    btf: u64,
    log: u64,
    size: u32,
    log_size: u32,
    log_level: u32,
    pad: u32,
}

#[repr(C)]
#[derive(FromBytes, IntoBytes, Immutable)]
struct LoadAttribute {
    kind: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    ifindex: u32,
    attach_type: u32,
    btf: u32,
    function_record_len: u32,
    functions: u64,
    function_count: u32,
    pad: u32,
}

/// `BPF_LOG_STATS`: counts only, so the log of a success is short.
const LOG_STATISTICS: u32 = 4;
/// `BPF_LOG_LEVEL1`: why a program is refused.
const LOG_REASONS: u32 = 1;
/// Room for the account of a refusal.
const LOG_LEN: usize = 4 << 20;
/// Bytes of `struct bpf_insn`.
const INSTRUCTION_LEN: usize = 8;

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

    /// Gives a program to the kernel. `log` receives the verifier's account: counts of a success,
    /// reasons of a refusal.
    /// # Errors
    /// `InvalidInput` for a name of more than 15 bytes, otherwise the kernel's error.
    pub fn load(code: ProgramCode<'_>, log: &mut Vec<u8>) -> io::Result<Self> {
        match Self::load_with(code, LOG_STATISTICS, log) {
            Err(refused) => {
                let again = Self::load_with(code, LOG_STATISTICS | LOG_REASONS, log);
                again.map_err(|_same| refused)
            }
            loaded => loaded,
        }
    }

    fn load_with(code: ProgramCode<'_>, log_level: u32, log: &mut Vec<u8>) -> io::Result<Self> {
        let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
        let mut name = [0; 16];
        name[..15]
            .get_mut(..code.name.len())
            .ok_or_else(invalid)?
            .copy_from_slice(code.name.as_bytes());
        let count = code.instructions.len() / INSTRUCTION_LEN;
        let size = |length: usize| u32::try_from(length).map_err(|_large| invalid());
        let (btf, functions, record_len) = match code.types {
            Some(types) => (raw(types.btf), types.functions, types.record_len.max(1)),
            None => (0, &[][..], 1),
        };
        *log = vec![0; LOG_LEN];
        let mut attribute = LoadAttribute {
            kind: code.kind as u32,
            instruction_count: size(count)?,
            instructions: address(code.instructions),
            license: address(code.license.to_bytes_with_nul()),
            log_level,
            log_size: size(LOG_LEN)?,
            log: address_mut(log),
            kernel_version: 0,
            flags: 0,
            name,
            ifindex: 0,
            attach_type: code.attach_type.map_or(0, |kind| kind as u32),
            btf,
            function_record_len: if functions.is_empty() {
                0
            } else {
                size(record_len)?
            },
            functions: if functions.is_empty() {
                0
            } else {
                address(functions)
            },
            function_count: size(functions.len() / record_len)?,
            pad: 0,
        };
        let loaded = bpf_fd(Command::ProgramLoad, &mut attribute);
        let end = log.iter().position(|byte| *byte == 0).unwrap_or(log.len());
        log.truncate(end);
        Ok(Self { fd: loaded? })
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
