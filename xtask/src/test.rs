//! `test`: everything that must hold before a change is given away; changes when a kind of test
//! is added.

use std::time::Instant;

use anyhow::{Context as _, Result};

use crate::build::ebpf::Words;
use crate::build::host::{self, Profile};
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

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    stage("setup", setup::ensure)?;
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
    command
        .args(["--quiet", "--locked", "--no-fail-fast"])
        .args(packages)
        .arg("--")
        .args(&arguments.rest)
        .env(XTASK, program);
    process::run(&mut command)
}
