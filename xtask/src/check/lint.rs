//! `lint`: every check that needs no running cluster; changes when a check is added.

use anyhow::{Context as _, Result, bail};

use super::{deps, licences, tidy};
use crate::build::ebpf::Words;
use crate::{build, process, workspace};

type Check = fn() -> Result<()>;

/// `cargo xtask lint [CHECK..]`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Only these; all when none is named.
    only: Vec<String>,
}

/// Checks in order of cost; all run, so that one call shows everything that is wrong.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let checks: [(&str, Check); 7] = [
        ("fmt", fmt),
        ("tidy", tidy::run),
        ("deps", deps::run),
        ("licences", licences::run),
        ("clippy", clippy),
        ("clippy-bpf", clippy_bpf),
        ("doc", doc),
    ];
    if let Some(unknown) = arguments
        .only
        .iter()
        .find(|name| checks.iter().all(|c| c.0 != *name))
    {
        let names: Vec<&str> = checks.iter().map(|(name, _)| *name).collect();
        bail!("no check {unknown:?}; there are: {}", names.join(", "));
    }
    let wanted = |name| arguments.only.is_empty() || arguments.only.iter().any(|one| one == name);
    let mut failed = Vec::new();
    for (name, check) in checks.into_iter().filter(|(name, _)| wanted(*name)) {
        println!("lint: {name}");
        if let Err(error) = check() {
            eprintln!("{name}: {error:#}");
            failed.push(name);
        }
    }
    if !failed.is_empty() {
        bail!("lint: {} failed", failed.join(", "));
    }
    Ok(())
}

fn fmt() -> Result<()> {
    process::run(workspace::cargo("fmt").args(["--all", "--check"]))
        .context("repair it with `cargo fmt`")
}

/// The datapath embeds the BPF objects: they are built first.
fn clippy() -> Result<()> {
    build::ebpf::build(&build::ebpf::toolchain()?, Words::Silent)?;
    let mut command = workspace::cargo("clippy");
    command.args(["--quiet", "--workspace", "--all-targets", "--locked"]);
    process::run(command.args(["--", "-D", "warnings"]))
}

/// The program files are not part of the host's build: they need a feature and a target. Their
/// compiler is not the host's: an expectation may be met by one clippy and not by the other.
fn clippy_bpf() -> Result<()> {
    let toolchain = build::ebpf::toolchain()?;
    process::run(
        build::ebpf::clippy(&toolchain)
            .args(["--bins", "--"])
            .args(["-Dwarnings", "-Aunfulfilled-lint-expectations"]),
    )
}

/// Private items are documented too, so links to them work.
fn doc() -> Result<()> {
    const FLAGS: &str = "-D warnings -A rustdoc::private_intra_doc_links";
    let mut command = workspace::cargo("doc");
    command.args([
        "--quiet",
        "--workspace",
        "--no-deps",
        "--document-private-items",
    ]);
    process::run(command.arg("--locked").env("RUSTDOCFLAGS", FLAGS))
}
