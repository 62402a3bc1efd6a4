//! `test`: everything that must hold before a change is given away; changes when a kind of test
//! is added.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result};

use crate::build::ebpf::Words;
use crate::build::host::{self, Profile};
use crate::cluster::privileged;
use crate::{archive, build, leaks, process, setup, workspace};

/// Run all tests: of the crates on the host, then of clusters with both stores.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Only the tests of the crates.
    #[arg(long, conflicts_with = "e2e")]
    host: bool,
    /// Only the tests of clusters.
    #[arg(long)]
    e2e: bool,
    /// Passed on to the test programs: a filter, `--nocapture`, ...
    #[arg(last = true)]
    rest: Vec<String>,
}

/// Tells the tests' harness which xtask to run, and that everything is built.
const XTASK: &str = "SKEP_XTASK";

/// Crates whose tests load programs, make namespaces or run containers. Those of clusters are not
/// among them: what they start asks for root where it needs it.
const AS_ROOT: [&str; 5] = [
    "ebpf",
    "node-agent-datapath",
    "node-agent-kubelet",
    "node-agent-network",
    "node-agent-proxy",
];

/// What cargo starts instead of a test program, with the program and its arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct RunnerArguments {
    program: PathBuf,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// Becomes the test program, through sudo when its crate needs root.
pub(crate) fn become_test(runner: &RunnerArguments) -> Result<()> {
    let package = std::env::var("CARGO_PKG_NAME").unwrap_or_default();
    let mut command = if AS_ROOT.contains(&package.as_str()) {
        with_environment(&runner.program)?
    } else {
        Command::new(&runner.program)
    };
    let error = command.args(&runner.arguments).exec();
    Err(error).with_context(|| format!("start {}", runner.program.display()))
}

/// With root's rights, and what cargo and the user told the tests.
fn with_environment(program: &Path) -> Result<Command> {
    let sudo = workspace::find_program("sudo")
        .context("these tests need root and there is no sudo: run the command as root instead")?;
    let mut command = Command::new(sudo);
    command.arg("--preserve-env").arg("--").arg(program);
    Ok(command)
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    stage("setup", setup::ensure_for_tests)?;
    stage("BPF programs", || {
        build::ebpf::build(&build::ebpf::toolchain()?, Words::Silent).map(drop)
    })?;
    stage("programs", || host::build(Profile::Dev))?;
    stage("images", || archive::images(Profile::Dev))?;
    let before = leaks::take()?;
    if !arguments.e2e {
        stage("tests of the crates", || {
            cargo_test(&["--workspace", "--exclude", "tests"], arguments)
        })?;
    }
    if !arguments.host {
        stage("tests of clusters", || {
            cargo_test(&["--package", "tests"], arguments)
        })?;
    }
    stage("nothing left behind", || leaks::compare(&before))
}

fn stage(name: &str, action: impl FnOnce() -> Result<()>) -> Result<()> {
    println!("test: {name}");
    let started = Instant::now();
    action().with_context(|| name.to_owned())?;
    println!("test: {name}: {:.1} s", started.elapsed().as_secs_f32());
    Ok(())
}

fn cargo_test(packages: &[&str], arguments: &Arguments) -> Result<()> {
    let program = std::env::current_exe().context("find this program's own file")?;
    let mut command = workspace::cargo("test");
    if !privileged::is_root() {
        let runner = serde_json::to_string(&[program.as_path(), Path::new("test-runner")])
            .context("name the runner of tests")?;
        command.args([
            "--config",
            &format!("target.'cfg(all())'.runner = {runner}"),
        ]);
    }
    command
        .args(["--quiet", "--locked", "--no-fail-fast"])
        .args(packages)
        .arg("--")
        .args(&arguments.rest)
        .env(XTASK, program);
    process::run(&mut command)
}
