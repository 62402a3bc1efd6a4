//! `setup`: what a machine needs beyond Rust and git; changes when the tree needs a new tool.
//!
//! Idempotent and quick when nothing is missing, so that `up` and `test` call it first.

mod bpf_linker;
mod busybox;
mod clients;
mod etcd;
pub(crate) mod kubectl;
pub(crate) mod packages;
mod wheel;

use anyhow::Result;

pub(crate) use busybox::program as busybox;

/// Installs what is missing; says nothing when nothing is.
pub(crate) fn ensure() -> Result<()> {
    packages::ensure()?;
    bpf_linker::ensure()?;
    busybox::ensure()?;
    kubectl::ensure()
}

/// What only tests need, on top.
pub(crate) fn ensure_for_tests() -> Result<()> {
    ensure()?;
    etcd::ensure()?;
    clients::ensure()
}

/// `cargo xtask setup`.
pub(crate) fn run() -> Result<()> {
    ensure_for_tests()?;
    println!("everything is in place:");
    println!(
        "  BPF compiler  {}",
        crate::build::ebpf::toolchain()?.name()
    );
    println!("  kubectl       {}", kubectl::program().display());
    println!("  busybox       {}", busybox().display());
    let newer = etcd::program();
    if newer.is_file() {
        println!("  etcd 3.5      {}", newer.display());
    } else {
        println!("  etcd 3.5      none: the tests of the store use this system's etcd alone");
    }
    for (name, path) in clients::list() {
        println!("  {name:<13} {}", path.display());
    }
    Ok(())
}
