//! One node's datapath: start it, adopt what an earlier agent left, hand out its parts.
//!
//! Nothing here stops forwarding: dropping a [`Datapath`] closes descriptors, the pins stay.
//! [`Datapath::remove`] is the only way to take everything out of the kernel.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ebpf_abi::ABI_VERSION;
use ebpf_abi::gc::{GC_PACKET_LEN, GC_REPORT_OFFSET, GcReport};
use ebpf_abi::map::META;
use ebpf_abi::meta::{META_MAGIC, Meta};
use ebpf_abi::program::{OBJECT_GC, OBJECT_POD, OBJECT_SOCK, PROGRAMS};
use zerocopy::FromBytes as _;

use crate::attach::{AttachError, Attached, attach_cgroup, socket_hook};
use crate::cgroup::{CgroupDirectory, CgroupError};
use crate::config::DatapathConfig;
use crate::kernel_pods::KernelPods;
use crate::load::{
    LoadError, LoadedObject, check_pinned, create_missing, load_object, pin_program,
};
use crate::logs::ProgramLog;
use crate::maps::kernel::{KernelServiceMaps, OpenError, open_array};
use crate::pins::{Pins, PinsError, WriterLock};
use crate::pods::PodError;
use crate::sys::{Access, MappedArray, ProgramHandle, TestRun};

/// Why the datapath did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("loading BPF programs needs root (CAP_BPF, CAP_NET_ADMIN and CAP_SYS_ADMIN)")]
    NotPrivileged,
    #[error(transparent)]
    Pins(#[from] PinsError),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    #[error(transparent)]
    Attach(#[from] AttachError),
    #[error("adopt the pods of before")]
    Pods(#[from] PodError),
    #[error("read {}", path.display())]
    BootId {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("map meta was written by version {found} of the layouts, this is version {expected}")]
    Version { found: u32, expected: u32 },
}

/// What a start found and did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StartReport {
    /// Maps that were pinned already.
    pub maps_adopted: usize,
    /// Socket programs swapped into links of before, and attached anew.
    pub links_swapped: usize,
    pub links_created: usize,
    /// Pods whose devices run this process's programs now.
    pub pods_adopted: usize,
    /// Writers so far, this one included.
    pub writer_generation: u64,
}

/// The datapath of this node, owned by one process.
#[derive(Debug)]
pub struct Datapath {
    pins: Pins,
    pods: Arc<KernelPods>,
    meta: MappedArray<Meta>,
    gc: LoadedObject,
    logs: Vec<ProgramLog>,
    report: StartReport,
    // Socket programs live on in their links; the lock goes last.
    _lock: WriterLock,
}

impl Datapath {
    /// Loads the programs, adopts pinned maps and links or makes them, and attaches. Forwarding by
    /// an earlier agent's programs goes on until the moment each is swapped.
    /// Takes some 100 ms; call it from a blocking thread.
    /// # Errors
    /// [`StartError`]; what ran before the call still runs.
    pub fn start(config: &DatapathConfig) -> Result<Self, StartError> {
        if !rustix::process::geteuid().is_root() {
            return Err(StartError::NotPrivileged);
        }
        let lock = WriterLock::take(&config.run_directory)?;
        let pins = Pins::at(&config.bpffs);
        pins.create(&config.bpffs)?;
        let mut report = StartReport {
            maps_adopted: check_pinned(&pins)?,
            ..StartReport::default()
        };
        let mut sock = load_object(OBJECT_SOCK, &pins, config)?;
        let mut pod = load_object(OBJECT_POD, &pins, config)?;
        let logs = [&mut sock, &mut pod];
        let logs = logs
            .into_iter()
            .filter_map(LoadedObject::take_log)
            .collect();
        let gc = load_object(OBJECT_GC, &pins, config)?;
        create_missing(&pins, config.profile)?;
        let meta = open_array(pins.directory(), &META, Access::ReadWrite)?;
        report.writer_generation = take_over(&meta)?;
        for program in PROGRAMS {
            let object = [&sock, &pod, &gc]
                .into_iter()
                .find(|object| object.program(program.name).is_ok());
            if let Some(object) = object {
                pin_program(object, program.name, &pins)?;
            }
        }
        // Pods first: their programs find the maps' old content, which stays right.
        let pods = Arc::new(KernelPods::open(&pins, pod, config.device_hook)?);
        report.pods_adopted = pods.adopt()?;
        attach_sockets(&sock, &pins, config, &mut report)?;
        Ok(Self {
            pins,
            pods,
            meta,
            gc,
            logs,
            report,
            _lock: lock,
        })
    }

    /// What the start found and did.
    #[must_use]
    pub fn report(&self) -> StartReport {
        self.report
    }

    /// What the programs say of their verdicts, if they were built to say it; once. Programs do not
    /// wait: what is not read in time is lost.
    pub fn take_logs(&mut self) -> Vec<ProgramLog> {
        std::mem::take(&mut self.logs)
    }

    /// The pin directory.
    #[must_use]
    pub fn pins(&self) -> &Pins {
        &self.pins
    }

    /// Pods and routes, for pod networking.
    #[must_use]
    pub fn pods(&self) -> Arc<KernelPods> {
        Arc::clone(&self.pods)
    }

    /// The service maps, for the proxy. There must be one writer: take them once.
    /// # Errors
    /// [`OpenError`].
    pub fn service_maps(&self) -> Result<KernelServiceMaps, OpenError> {
        KernelServiceMaps::open(self.pins.directory(), Access::ReadWrite)
    }

    /// Says that the agent is alive. Call it every few seconds.
    pub fn heartbeat(&self) {
        let word = std::mem::offset_of!(Meta, heartbeat_ns) / size_of::<u64>();
        let written = self.meta.publish(0, word, monotonic_ns());
        debug_assert!(written, "meta has one element and is open for writing");
    }

    /// Removes flows that have ended or idled out, of both families. Call it every few seconds,
    /// from a blocking thread: some 10 ms with a full table.
    /// # Errors
    /// The kernel's error.
    pub fn collect_flows(&self) -> io::Result<[GcReport; 2]> {
        Ok([self.collect("gc4")?, self.collect("gc6")?])
    }

    fn collect(&self, program: &'static str) -> io::Result<GcReport> {
        let fd = self.gc.program(program).map_err(io::Error::other)?;
        let output = ProgramHandle::from_fd(fd.try_clone_to_owned()?).test_run(TestRun {
            packet: &[0; GC_PACKET_LEN],
            context: &[],
            repeat: 1,
        })?;
        let wrong = || io::Error::new(io::ErrorKind::InvalidData, "collection reported nothing");
        let report = output.packet.get(GC_REPORT_OFFSET..).ok_or_else(wrong)?;
        let (report, _) = GcReport::read_from_prefix(report).map_err(|_short| wrong())?;
        if report.error != 0 {
            return Err(io::Error::from_raw_os_error(-report.error));
        }
        Ok(report)
    }

    /// Takes everything out of the kernel: services stop answering, pods lose their programs.
    /// # Errors
    /// [`PinsError`].
    pub fn remove(self) -> Result<(), PinsError> {
        self.pins.remove_all()
    }
}

fn attach_sockets(
    sock: &LoadedObject,
    pins: &Pins,
    config: &DatapathConfig,
    report: &mut StartReport,
) -> Result<(), StartError> {
    let cgroup = CgroupDirectory::open(&config.cgroup)?;
    tracing::info!(cgroup = %cgroup.path.display(), "socket programs go to this cgroup");
    for program in PROGRAMS
        .iter()
        .filter(|program| program.object == OBJECT_SOCK)
    {
        let Some(hook) = socket_hook(program.name) else {
            continue;
        };
        let fd = sock.program(program.name)?;
        let pin = pins.link(program.name);
        match attach_cgroup(program.name, fd, &pin, &cgroup, hook)? {
            Attached::Swapped => report.links_swapped += 1,
            Attached::Created => report.links_created += 1,
        }
    }
    Ok(())
}

/// Writes `meta` as a new writer; returns its generation.
fn take_over(meta: &MappedArray<Meta>) -> Result<u64, StartError> {
    let mut value = meta.read(0).unwrap_or_default();
    if value.magic == META_MAGIC && value.abi_version != ABI_VERSION {
        return Err(StartError::Version {
            found: value.abi_version,
            expected: ABI_VERSION,
        });
    }
    value.magic = META_MAGIC;
    value.abi_version = ABI_VERSION;
    value.writer_generation += 1;
    value.heartbeat_ns = monotonic_ns();
    value.boot_id = boot_id()?;
    let written = meta.write(0, &value);
    debug_assert!(written, "meta has one element and is open for writing");
    Ok(value.writer_generation)
}

/// `CLOCK_MONOTONIC` in nanoseconds.
#[must_use]
pub fn monotonic_ns() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds * 1_000_000_000 + nanoseconds
}

fn boot_id() -> Result<[u8; 16], StartError> {
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    let failed = |source| StartError::BootId {
        path: path.to_owned(),
        source,
    };
    let text = fs::read_to_string(path).map_err(failed)?;
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    u128::from_str_radix(&digits, 16)
        .map(u128::to_be_bytes)
        .map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidData, error)))
}
