//! Directories and mounts behind volumes; removal that never follows a mount. Blocking.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// Makes an emptyDir. In memory it is a tmpfs, bounded by `limit` bytes.
pub(super) fn empty_dir(
    path: &Path,
    memory: bool,
    limit: Option<i64>,
    group: Option<i64>,
) -> io::Result<()> {
    let fresh = !path.exists();
    fs::create_dir_all(path)?;
    if memory && !is_mount_point(path)? {
        let size = limit
            .filter(|limit| *limit > 0)
            .map(|limit| format!("size={limit}"));
        mount_tmpfs(path, size.as_deref().unwrap_or("size=50%"))?;
    }
    if fresh {
        fs::set_permissions(path, fs::Permissions::from_mode(0o777))?;
    }
    if let Some(group) = group
        .and_then(|group| u32::try_from(group).ok())
        .filter(|_| fresh)
    {
        chown(path, None, Some(group))?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o2777))?;
    }
    Ok(())
}

/// Makes a directory whose content never reaches a disk.
pub(super) fn memory_dir(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)?;
    if is_mount_point(path)? {
        return Ok(());
    }
    mount_tmpfs(path, "size=64m,mode=0755")
}

fn mount_tmpfs(path: &Path, options: &str) -> io::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), path, Some("tmpfs"), flags, Some(options)).map_err(Into::into)
}

/// Checks (and for the `OrCreate` types makes) what a hostPath volume names.
pub(super) fn host_path(path: &Path, kind: &str) -> io::Result<()> {
    let found = fs::metadata(path);
    let wrong = |what: &str| {
        Err(io::Error::other(format!(
            "hostPath type check failed: {} is not {what}",
            path.display()
        )))
    };
    match (kind, found) {
        ("", Ok(_)) => Ok(()),
        // Upstream leaves it to the runtime, which makes a directory.
        ("" | "DirectoryOrCreate", Err(error)) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(path)?;
            fs::set_permissions(path, fs::Permissions::from_mode(0o755))
        }
        ("FileOrCreate", Err(error)) if error.kind() == io::ErrorKind::NotFound => {
            fs::File::create_new(path)?;
            fs::set_permissions(path, fs::Permissions::from_mode(0o644))
        }
        ("Directory" | "DirectoryOrCreate", Ok(found)) if found.is_dir() => Ok(()),
        ("Directory" | "DirectoryOrCreate", _) => wrong("a directory"),
        ("File" | "FileOrCreate", Ok(found)) if found.is_file() => Ok(()),
        ("File" | "FileOrCreate", _) => wrong("a file"),
        ("Socket", Ok(found)) if found.file_type().is_socket() => Ok(()),
        ("Socket", _) => wrong("a socket file"),
        ("CharDevice", Ok(found)) if found.file_type().is_char_device() => Ok(()),
        ("CharDevice", _) => wrong("a character device"),
        ("BlockDevice", Ok(found)) if found.file_type().is_block_device() => Ok(()),
        ("BlockDevice", _) => wrong("a block device"),
        (other, _) => Err(io::Error::other(format!("unknown hostPath type {other}"))),
    }
}

fn is_mount_point(path: &Path) -> io::Result<bool> {
    let path = fs::canonicalize(path)?;
    Ok(mount_points()?.contains(&path))
}

/// Every mount point of this mount namespace.
fn mount_points() -> io::Result<Vec<PathBuf>> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    Ok(table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(unescape)
        .collect())
}

/// The kernel writes blanks in paths as octal escapes.
fn unescape(text: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let octal = tail
            .get(..3)
            .and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if *first == b'\\' => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            Some(_) | None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    std::ffi::OsString::from(String::from_utf8_lossy(&bytes).into_owned()).into()
}

/// Unmounts everything at or below `directory`, deepest first.
pub(crate) fn unmount_below(directory: &Path) -> io::Result<()> {
    let Ok(directory) = fs::canonicalize(directory) else {
        return Ok(());
    };
    let mut below: Vec<PathBuf> = mount_points()?
        .into_iter()
        .filter(|point| point.starts_with(&directory))
        .collect();
    below.sort_by_key(|point| std::cmp::Reverse(point.components().count()));
    for point in below {
        umount2(&point, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)
            .map_err(io::Error::from)?;
    }
    Ok(())
}

/// Unmounts everything below `directory`, then removes it. Nothing is removed while something is
/// still mounted there: a volume's data must not be deleted through a mount.
pub(crate) fn release_tree(directory: &Path) -> io::Result<()> {
    if !directory.exists() {
        return Ok(());
    }
    unmount_below(directory)?;
    let canonical = fs::canonicalize(directory)?;
    if let Some(left) = mount_points()?
        .iter()
        .find(|point| point.starts_with(&canonical))
    {
        return Err(io::Error::other(format!(
            "{} is still mounted; nothing was removed",
            left.display()
        )));
    }
    fs::remove_dir_all(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_paths_are_checked_by_their_type() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        host_path(root, "Directory").unwrap();
        host_path(root, "File").unwrap_err();
        host_path(&root.join("absent"), "Directory").unwrap_err();
        host_path(&root.join("made"), "DirectoryOrCreate").unwrap();
        assert!(root.join("made").is_dir());
        host_path(&root.join("file"), "FileOrCreate").unwrap();
        host_path(&root.join("file"), "File").unwrap();
        host_path(Path::new("/dev/null"), "CharDevice").unwrap();
        host_path(Path::new("/dev/null"), "BlockDevice").unwrap_err();
    }

    #[test]
    fn escapes_of_the_mount_table_are_read() {
        assert_eq!(unescape("/a\\040b\\134c"), PathBuf::from("/a b\\c"));
        assert_eq!(unescape("/plain"), PathBuf::from("/plain"));
    }

    #[test]
    fn a_tree_without_mounts_is_removed_and_an_absent_one_is_fine() {
        let directory = tempfile::tempdir().unwrap();
        let tree = directory.path().join("pod");
        fs::create_dir_all(tree.join("volumes/x")).unwrap();
        release_tree(&tree).unwrap();
        assert!(!tree.exists());
        release_tree(&tree).unwrap();
    }
}
