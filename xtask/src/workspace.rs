//! Where things lie in the source tree and in `target/`: changes when a directory moves.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The root of the source tree. Known from where this crate was compiled, so a command works
/// from every directory of the tree.
pub(crate) fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_path_buf()
}

/// `target/`: everything that is made lies below it.
pub(crate) fn target() -> PathBuf {
    root().join("target")
}

/// A cargo command for the host. Programs are looked for in `target/`, whatever the environment
/// says.
pub(crate) fn cargo(subcommand: &str) -> Command {
    let mut command = Command::new("cargo");
    command
        .current_dir(root())
        .env("CARGO_TARGET_DIR", target())
        .arg(subcommand);
    command
}

/// BPF objects, one `NAME.o` a program file; the datapath embeds them at build time.
pub(crate) fn bpf_objects() -> PathBuf {
    target().join("bpf")
}

/// The BPF build's own target directory, so it never waits for the host build's lock.
pub(crate) fn bpf_build() -> PathBuf {
    target().join("bpf-build")
}

/// Tools that `setup` fetches for this tree alone.
pub(crate) fn tools() -> PathBuf {
    target().join("tools")
}

/// Cargo's directory of installed programs: on the PATH of whoever has rustup.
pub(crate) fn cargo_bin() -> Option<PathBuf> {
    let home = match std::env::var_os("CARGO_HOME") {
        Some(home) => PathBuf::from(home),
        None => PathBuf::from(std::env::var_os("HOME")?).join(".cargo"),
    };
    Some(home.join("bin"))
}

/// The first executable called `name` on PATH or in the system's sbin directories, which a
/// normal user's PATH leaves out.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(cargo_bin())
        .chain(system)
        .map(|dir| dir.join(name))
        .find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(file).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}
