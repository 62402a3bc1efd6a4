//! What programs say of their verdicts, if they were built to say it (feature `log` of crate `ebpf`).
//!
//! Objects of a release have no such map, and there is nothing here to read. The words go to the
//! process's logger with the program's module as their target.

use aya::Ebpf;
use aya_log::{EbpfLogger, Error};
use tracing::{info, warn};

/// The words of one object's programs.
pub struct ProgramLog {
    object: &'static str,
    logger: EbpfLogger<&'static dyn log::Log>,
}

impl std::fmt::Debug for ProgramLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProgramLog")
            .field("object", &self.object)
            .finish_non_exhaustive()
    }
}

impl ProgramLog {
    /// `None` when the object's programs say nothing.
    pub(crate) fn open(object: &'static str, ebpf: &mut Ebpf) -> Option<Self> {
        match EbpfLogger::init(ebpf) {
            Ok(logger) => {
                info!(
                    object,
                    "programs log their verdicts; this costs time for each"
                );
                Some(Self { object, logger })
            }
            Err(Error::MapNotFound) => None,
            Err(error) => {
                warn!(object, %error, "what programs log cannot be read");
                None
            }
        }
    }

    /// Hands on what has been said since the last call. Call it often: 128 KiB wait at most.
    pub fn forward(&mut self) {
        self.logger.flush();
    }
}
