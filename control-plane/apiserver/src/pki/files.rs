//! Files that hold keys: complete or absent, and readable by their owner only.

use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use super::PkiError;

/// Mode of keys.
pub(super) const SECRET: u32 = 0o600;
/// Mode of certificates.
pub(super) const PUBLIC: u32 = 0o644;

/// The file's text; `None` when there is no such file.
pub(super) fn read(path: &Path) -> Result<Option<String>, PkiError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(fault) if fault.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(PkiError::File {
            what: "read",
            path: path.to_owned(),
            source,
        }),
    }
}

pub(super) fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), PkiError> {
    write_atomically(path, bytes, mode).map_err(|source| PkiError::File {
        what: "write",
        path: path.to_owned(),
        source,
    })
}

/// Writes beside the file, syncs, renames over it.
fn write_atomically(path: &Path, bytes: &[u8], mode: u32) -> std::io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&beside, path)?;
    if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        std::fs::File::open(dir)?.sync_all()?;
    }
    Ok(())
}

pub(super) fn make_private_dir(dir: &Path) -> Result<(), PkiError> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|source| PkiError::File {
            what: "make directory",
            path: dir.to_owned(),
            source,
        })
}

/// Holds the directory against other processes until the file is dropped.
pub(super) fn lock(dir: &Path) -> Result<std::fs::File, PkiError> {
    let path = dir.join("lock");
    let lock = || {
        let file = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(SECRET)
            .open(&path)?;
        file.lock()?;
        Ok(file)
    };
    lock().map_err(|source| PkiError::File {
        what: "lock",
        path: path.clone(),
        source,
    })
}
