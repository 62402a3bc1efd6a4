//! Where the tools of the tests lie: changes when a directory moves.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The root of the source tree.
pub fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_path_buf()
}

pub(crate) fn target() -> PathBuf {
    root().join("target")
}

/// Set by `cargo xtask test`, which has built everything: its own program.
const XTASK: &str = "SKEP_XTASK";

/// Whether everything is built.
pub(crate) fn is_built() -> bool {
    std::env::var_os(XTASK).is_some()
}

/// `cargo xtask`, built when needed.
pub(crate) fn xtask(arguments: &[&str]) -> Command {
    if let Some(program) = std::env::var_os(XTASK) {
        let mut command = Command::new(program);
        command.current_dir(root()).args(arguments);
        return command;
    }
    let mut command = Command::new("cargo");
    command
        .current_dir(root())
        .args(["run", "--quiet", "--package", "xtask", "--"]);
    command.args(arguments);
    command
}

/// The clients that the tests drive, of one version on every machine: kubectl, Helm, ...
pub fn tools() -> PathBuf {
    target().join("tools")
}
