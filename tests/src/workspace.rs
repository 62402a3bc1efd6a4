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

/// `cargo xtask`, built when needed.
pub(crate) fn xtask(arguments: &[&str]) -> Command {
    let mut command = Command::new("cargo");
    command
        .current_dir(root())
        .args(["run", "--quiet", "--package", "xtask", "--"]);
    command.args(arguments);
    command
}

/// The kubectl of the tests, of one version on every machine.
pub(crate) fn kubectl() -> PathBuf {
    target().join("tools/kubectl")
}
