//! A test program that starts itself again where it may mount: changes with what that needs.
//!
//! In namespaces of its own, a mount is gone with the process, however it ends, and an ordinary user
//! may mount as well.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

/// Names the directory in the second role.
const ROLE: &str = "SKEP_FAULTY_DISK_DIR";
/// The file system of the directory: what is not on the faulty disk costs no disk either.
const SIZE_MB: u32 = 2048;

/// In the second role: the empty directory on a file system in memory.
#[must_use]
pub fn role() -> Option<PathBuf> {
    std::env::var_os(ROLE).map(PathBuf::from)
}

/// Starts this program again with its own arguments, in the second role, and waits for its end.
/// `dir` is only a name for the mount.
///
/// # Errors
/// `unshare` is missing.
pub fn in_namespaces(dir: &Path) -> io::Result<ExitStatus> {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    again(dir, &["--mount"], &arguments)
}

/// The same with a network of its own, and with other arguments.
///
/// # Errors
/// `unshare` is missing.
pub fn in_namespaces_with_network(dir: &Path, arguments: &[&str]) -> io::Result<ExitStatus> {
    let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
    again(dir, &["--mount", "--net"], &arguments)
}

fn again(dir: &Path, namespaces: &[&str], arguments: &[OsString]) -> io::Result<ExitStatus> {
    let script =
        format!("mount -t tmpfs -o size={SIZE_MB}m tmpfs \"${ROLE}\" && exec \"$0\" \"$@\"");
    Command::new("unshare")
        .args(["--user", "--map-root-user"])
        .args(namespaces)
        .args(["sh", "-c", &script])
        .arg(std::env::current_exe()?)
        .args(arguments)
        .env(ROLE, dir)
        .status()
}
