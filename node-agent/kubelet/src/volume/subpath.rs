//! Part of a volume as a mount of its own, safe against links that lead out of it. Blocking.
//!
//! A container may replace a directory of its volume by a link to `/`. The kernel resolves the path
//! inside the volume (`RESOLVE_IN_ROOT`), and what it found is bound by file descriptor.

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};

/// Binds `sub_path` of the volume at `volume` to `target`; answers `target`. Idempotent: an
/// existing bind of an earlier start is replaced. A missing directory is made.
pub(crate) fn bind_sub_path(volume: &Path, sub_path: &str, target: &Path) -> io::Result<PathBuf> {
    let root = fs::File::open(volume)?;
    let found = match open_inside(&root, sub_path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_inside(&root, sub_path)?;
            open_inside(&root, sub_path)?
        }
        other => other?,
    };
    super::unmount_below(target)?;
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent)?;
    }
    if found.metadata()?.is_dir() {
        fs::create_dir_all(target)?;
    } else {
        fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(target)?;
    }
    let source = PathBuf::from(format!("/proc/self/fd/{}", found.as_raw_fd()));
    mount(
        Some(&source),
        target,
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    )?;
    Ok(target.to_owned())
}

fn open_inside(root: &fs::File, path: &str) -> io::Result<fs::File> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let found = openat2(root.as_fd(), path, flags, Mode::empty(), resolve)?;
    Ok(fs::File::from(found))
}

/// Makes the missing directories of a path, each resolved inside the root.
fn make_inside(root: &fs::File, path: &str) -> io::Result<()> {
    let mut parent = root.try_clone()?;
    let mut so_far = String::new();
    for part in path
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".")
    {
        so_far = if so_far.is_empty() {
            part.to_owned()
        } else {
            format!("{so_far}/{part}")
        };
        match rustix::fs::mkdirat(parent.as_fd(), part, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        parent = open_inside(root, &so_far)?;
    }
    Ok(())
}
