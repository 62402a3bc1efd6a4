//! The choice of a backend that all programs share, run on demand: proof that a writer keeps its
//! promises to readers in the kernel.

use std::io;

use ebpf_abi::pick::{PICK_OFFSET, PICK_PACKET_LEN, PickRun};
use ebpf_abi::program::{OBJECT_PICK, PROGRAM_PICK};
use zerocopy::{FromBytes as _, IntoBytes as _};

use crate::config::DatapathConfig;
use crate::load::{LoadError, load_picks};
use crate::pins::Pins;
use crate::sys::{ProgramHandle, TestRun};

/// The test program, on the maps of a node.
#[derive(Debug)]
pub struct Picker {
    program: ProgramHandle,
}

impl Picker {
    /// Loads the program against the pinned maps; it is not pinned itself.
    /// # Errors
    /// [`LoadError`].
    pub fn open(config: &DatapathConfig) -> Result<Self, LoadError> {
        let object = load_picks(&Pins::at(&config.bpffs), config)?;
        let fd = object.program(PROGRAM_PICK.name)?.try_clone_to_owned();
        let fd = fd.map_err(|source| LoadError::Descriptor {
            object: OBJECT_PICK,
            source,
        })?;
        Ok(Self {
            program: ProgramHandle::from_fd(fd),
        })
    }

    /// Chooses a backend of a service, `repeat` times [`ebpf_abi::pick::PICKS_PER_RUN`], and counts
    /// choices that no writer may make possible.
    /// # Errors
    /// The kernel's error.
    pub fn run(&self, service: u32, repeat: u32) -> io::Result<PickRun> {
        let mut packet = [0; PICK_PACKET_LEN];
        let run = PickRun {
            svc: service,
            ..PickRun::default()
        };
        packet[PICK_OFFSET..].copy_from_slice(run.as_bytes());
        let output = self.program.test_run(TestRun {
            packet: &packet,
            context: &[],
            repeat,
        })?;
        let wrong = || io::Error::new(io::ErrorKind::InvalidData, "the program reported nothing");
        let report = output.packet.get(PICK_OFFSET..).ok_or_else(wrong)?;
        let (run, _) = PickRun::read_from_prefix(report).map_err(|_short| wrong())?;
        Ok(run)
    }
}
