//! The data directory: who may use it, which format it has, and how far it was acknowledged.
//!
//! ```text
//! <dir>/lock     held (flock) while a process has the store open
//! <dir>/format   the format's name and version, in words
//! <dir>/probe    written and removed to see whether the disk takes writes again
//! <dir>/head     the newest acknowledged revision, 16 bytes, overwritten in place
//! <dir>/db/      the engine's files
//! <dir>/cut      the end of a journal that a power loss left unreadable, if there was one
//! ```
//!
//! `head` is written after each sync and never synced itself, so it costs a copy into the page
//! cache. It may lag after a power loss but never leads. It is how a log whose tail was cut off is
//! told from one that simply ends: an engine that finds an unreadable entry in its journal drops
//! everything behind it without a word.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use crate::error::{OpenError, StoreError};
use crate::model::Rev;

/// What the `format` file says.
pub(crate) const FORMAT: &str = "skep-store 1";

/// The open directory. The lock is held until it is dropped.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    head: File,
    _lock: File,
}

impl DataDir {
    /// Opens or makes the directory.
    pub(crate) fn open(path: &Path) -> Result<Self, OpenError> {
        make_dir(path).map_err(|source| fault("create directory", path, source))?;
        let lock = lock(path)?;
        check_format(path)?;
        let head_path = path.join("head");
        let head = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&head_path)
            .map_err(|source| fault("open", &head_path, source))?;
        sync_dir(path)?;
        Ok(Self {
            path: path.to_owned(),
            head,
            _lock: lock,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn engine_path(&self) -> PathBuf {
        self.path.join("db")
    }

    /// Makes the engine's directory if there is none, all of it or nothing: the engine does not open what a
    /// power loss left half made. `make` does it in another place, which then gets the name.
    pub(crate) fn make_engine<E: From<io::Error>>(
        &self,
        make: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<(), E> {
        let path = self.engine_path();
        if path.try_exists()? {
            return Ok(());
        }
        let temporary = self.path.join("db.new");
        if temporary.try_exists()? {
            fs::remove_dir_all(&temporary)?;
        }
        make(&temporary)?;
        sync_below(&temporary)?;
        fs::rename(&temporary, &path)?;
        File::open(&self.path)?.sync_all()?;
        Ok(())
    }

    /// Whether the disk takes and keeps a file of so many bytes.
    pub(crate) fn probe(&self, bytes: usize) -> Result<(), StoreError> {
        let path = self.path.join("probe");
        let tried = File::create(&path).and_then(|mut file| {
            file.write_all(&vec![0xa5; bytes])?;
            file.sync_all()
        });
        let removed = fs::remove_file(&path);
        tried.and(removed).map_err(|error| {
            StoreError::with(
                format!("write to the disk of {}", self.path.display()),
                error,
            )
        })
    }

    /// The newest revision that was acknowledged for certain. 0: none is known.
    pub(crate) fn head(&self) -> Result<Rev, OpenError> {
        let mut bytes = [0; 16];
        match self.head.read_exact_at(&mut bytes, 0) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(Rev(0)),
            Err(error) => return Err(fault("read", &self.path.join("head"), error)),
        }
        // A file system may bring a file back with its length but without its bytes.
        if bytes == [0; 16] {
            return Ok(Rev(0));
        }
        let [rev @ .., c0, c1, c2, c3, _, _, _, _] = bytes;
        if crc32fast::hash(&rev) != u32::from_le_bytes([c0, c1, c2, c3]) {
            return Err(OpenError::Corrupt {
                dir: self.path.clone(),
                keyspace: "head",
                record: "head".to_owned(),
                fault: "its checksum does not fit its bytes".to_owned(),
            });
        }
        Ok(Rev(u64::from_le_bytes(rev)))
    }

    /// Notes that `rev` is durable and about to be acknowledged.
    pub(crate) fn set_head(&self, rev: Rev) -> io::Result<()> {
        let mut bytes = [0; 16];
        let rev = rev.0.to_le_bytes();
        bytes[..8].copy_from_slice(&rev);
        bytes[8..12].copy_from_slice(&crc32fast::hash(&rev).to_le_bytes());
        self.head.write_all_at(&bytes, 0)
    }
}

/// Makes a directory and those above it, and makes their names safe.
fn make_dir(path: &Path) -> io::Result<()> {
    let path = std::path::absolute(path)?;
    let missing = path.ancestors().take_while(|above| !above.exists());
    let missing: Vec<PathBuf> = missing.map(Path::to_owned).collect();
    fs::create_dir_all(&path)?;
    for parent in missing.iter().filter_map(|made| made.parent()) {
        File::open(parent)?.sync_all()?;
    }
    Ok(())
}

/// Makes the names in a directory safe, and in those below it.
fn sync_below(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_below(&entry.path())?;
        }
    }
    File::open(dir)?.sync_all()
}

fn lock(dir: &Path) -> Result<File, OpenError> {
    let path = dir.join("lock");
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(|source| fault("open", &path, source))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::Locked {
            dir: dir.to_owned(),
            lock: path,
        }),
        Err(TryLockError::Error(source)) => Err(fault("lock", &path, source)),
    }
}

/// Reads the format file, or writes it when the directory has no store yet.
fn check_format(dir: &Path) -> Result<(), OpenError> {
    let path = dir.join("format");
    let found = match fs::read_to_string(&path) {
        Ok(found) => found.trim_end().to_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if dir.join("db").exists() {
                String::new()
            } else {
                write_format(&path).map_err(|source| fault("write", &path, source))?;
                FORMAT.to_owned()
            }
        }
        Err(error) => return Err(fault("read", &path, error)),
    };
    if found == FORMAT {
        return Ok(());
    }
    Err(OpenError::Format {
        dir: dir.to_owned(),
        found,
        expected: FORMAT,
    })
}

fn write_format(path: &Path) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file = File::create(&temporary)?;
    writeln!(file, "{FORMAT}")?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}

fn sync_dir(dir: &Path) -> Result<(), OpenError> {
    File::open(dir)
        .and_then(|file| file.sync_all())
        .map_err(|source| fault("sync", dir, source))
}

fn fault(what: &str, path: &Path, source: io::Error) -> OpenError {
    StoreError::with(format!("{what} {} for the store", path.display()), source).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_process_is_told_who_holds_the_directory() {
        let temp = tempfile::tempdir().unwrap();
        let first = DataDir::open(temp.path()).unwrap();
        let error = DataDir::open(temp.path()).unwrap_err();
        assert!(
            matches!(&error, OpenError::Locked { dir, .. } if dir == temp.path()),
            "{error}"
        );
        drop(first);
        DataDir::open(temp.path()).unwrap();
    }

    #[test]
    fn another_format_is_refused_and_left_alone() {
        let temp = tempfile::tempdir().unwrap();
        fs::write(temp.path().join("format"), "skep-store 2\n").unwrap();
        let error = DataDir::open(temp.path()).unwrap_err();
        assert!(matches!(&error, OpenError::Format { found, .. } if found == "skep-store 2"));
        assert_eq!(
            fs::read_to_string(temp.path().join("format")).unwrap(),
            "skep-store 2\n"
        );

        let temp = tempfile::tempdir().unwrap();
        fs::create_dir(temp.path().join("db")).unwrap();
        let error = DataDir::open(temp.path()).unwrap_err();
        assert!(matches!(&error, OpenError::Format { found, .. } if found.is_empty()));
    }

    #[test]
    fn the_head_is_what_was_set_last_and_damage_is_found() {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::open(temp.path()).unwrap();
        assert_eq!(dir.head().unwrap(), Rev(0));
        for rev in [2, 900, 901] {
            dir.set_head(Rev(rev)).unwrap();
            assert_eq!(dir.head().unwrap(), Rev(rev));
        }
        dir.head.write_all_at(&[9], 0).unwrap();
        assert!(matches!(
            dir.head(),
            Err(OpenError::Corrupt {
                keyspace: "head",
                ..
            })
        ));
        dir.head.set_len(0).unwrap();
        assert_eq!(dir.head().unwrap(), Rev(0));
    }
}
