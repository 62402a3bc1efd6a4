//! Where a node's maps, links and programs are pinned, and who may write there.
//!
//! `<bpffs>/skep/v<ABI>/<map>`, `.../links/<program>`, `.../links/<program>_<ifindex>`,
//! `.../programs/<program>`. Directory and names are the same on every node, so inspection finds
//! them without the agent.

use std::fs::{self, File};
use std::io::{self, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use ebpf_abi::map::PIN_DIR;
use rustix::fs::{FlockOperation, flock, statfs};

/// Directory below the BPF file system's root.
const PRODUCT: &str = "skep";
/// `BPF_FS_MAGIC` of the kernel's `include/uapi/linux/magic.h`.
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;

/// The pin directory of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pins {
    directory: PathBuf,
}

/// The pin directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PinsError {
    #[error(
        "{} is not a BPF file system: mount one with `mount -t bpf bpf {}`", path.display(), path.display()
    )]
    NoBpffs { path: PathBuf },
    #[error("make directory {}", path.display())]
    Directory {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("remove {}", path.display())]
    Remove {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("open lock file {}", path.display())]
    LockFile {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "another agent (process {owner}) owns the maps of this node: it holds {}; stop it first", path.display()
    )]
    Locked { path: PathBuf, owner: String },
}

impl Pins {
    /// The directory below `bpffs`, without looking at it.
    #[must_use]
    pub fn at(bpffs: &Path) -> Self {
        Self {
            directory: bpffs.join(PRODUCT).join(PIN_DIR),
        }
    }

    /// The maps' directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Pin of a map.
    #[must_use]
    pub fn map(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Directory of the links' pins.
    #[must_use]
    pub fn links(&self) -> PathBuf {
        self.directory.join("links")
    }

    /// Pin of the link of a program that is attached once.
    #[must_use]
    pub fn link(&self, program: &str) -> PathBuf {
        self.links().join(program)
    }

    /// Pin of the link of a program at a device.
    #[must_use]
    pub fn device_link(&self, program: &str, ifindex: u32) -> PathBuf {
        self.links().join(format!("{program}_{ifindex}"))
    }

    /// Pin of a program.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        self.directory.join("programs").join(name)
    }

    /// Makes the directories.
    /// # Errors
    /// [`PinsError::NoBpffs`], [`PinsError::Directory`].
    pub fn create(&self, bpffs: &Path) -> Result<(), PinsError> {
        let magic = statfs(bpffs).map(|found| found.f_type).ok();
        if magic != Some(BPF_FS_MAGIC) {
            return Err(PinsError::NoBpffs {
                path: bpffs.to_owned(),
            });
        }
        for path in [self.links(), self.directory.join("programs")] {
            fs::create_dir_all(&path).map_err(|source| PinsError::Directory { path, source })?;
        }
        Ok(())
    }

    /// Removes every pin: links go first, so nothing runs on maps that are going. Maps that other
    /// processes still hold live on until they let go.
    /// # Errors
    /// [`PinsError::Remove`].
    pub fn remove_all(&self) -> Result<(), PinsError> {
        for path in [
            self.links(),
            self.directory.join("programs"),
            self.directory.clone(),
        ] {
            remove_directory(&path)?;
        }
        if let Some(product) = self.directory.parent() {
            // Kept when another ABI version has its directory there.
            let _kept_if_not_empty = fs::remove_dir(product);
        }
        Ok(())
    }
}

fn remove_directory(path: &Path) -> Result<(), PinsError> {
    let failed = |source| PinsError::Remove {
        path: path.to_owned(),
        source,
    };
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    for entry in entries {
        remove_pin(&entry.map_err(failed)?.path())?;
    }
    fs::remove_dir(path).map_err(failed)
}

/// Removes one pin; an absent one is no error.
/// # Errors
/// [`PinsError::Remove`].
pub(crate) fn remove_pin(path: &Path) -> Result<(), PinsError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(PinsError::Remove {
            path: path.to_owned(),
            source,
        }),
    }
}

/// The right to write; given up when dropped or when the process ends, however it ends.
#[derive(Debug)]
pub(crate) struct WriterLock {
    _file: File,
}

impl WriterLock {
    /// Name of the lock file in the run directory.
    pub(crate) const FILE: &'static str = "datapath.lock";

    /// Takes the lock, without waiting.
    /// # Errors
    /// [`PinsError::Locked`] names the process that holds it.
    pub(crate) fn take(run_directory: &Path) -> Result<Self, PinsError> {
        fs::create_dir_all(run_directory).map_err(|source| PinsError::Directory {
            path: run_directory.to_owned(),
            source,
        })?;
        let path = run_directory.join(Self::FILE);
        let failed = |source| PinsError::LockFile {
            path: path.clone(),
            source,
        };
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(failed)?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            let owner = fs::read_to_string(&path).map_err(failed)?;
            return Err(PinsError::Locked {
                path,
                owner: owner.trim().to_owned(),
            });
        }
        file.set_len(0).map_err(failed)?;
        file.rewind().map_err(failed)?;
        writeln!(file, "{}", std::process::id()).map_err(failed)?;
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_writer_gets_the_lock_and_the_next_gets_it_after_him() {
        let directory = tempfile::tempdir().unwrap();
        let first = WriterLock::take(directory.path()).unwrap();
        let second = WriterLock::take(directory.path());
        let Err(PinsError::Locked { owner, .. }) = second else {
            panic!("the lock was given twice: {second:?}");
        };
        assert_eq!(owner, std::process::id().to_string());
        drop(first);
        WriterLock::take(directory.path()).unwrap();
    }

    #[test]
    fn an_ordinary_directory_is_no_bpf_file_system() {
        let directory = tempfile::tempdir().unwrap();
        let error = Pins::at(directory.path())
            .create(directory.path())
            .unwrap_err();
        assert!(error.to_string().contains("mount -t bpf"), "{error}");
    }
}
