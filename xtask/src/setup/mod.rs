//! `setup`: what a machine needs beyond Rust and git; changes when the tree needs a new tool.
//!
//! Idempotent and quick when nothing is missing, so that `up` and `test` call it first.

mod bpf_linker;
mod busybox;
mod etcd;
pub(crate) mod kubectl;
pub(crate) mod packages;

use anyhow::Result;

pub(crate) use busybox::program as busybox;

/// Installs what is missing; says nothing when nothing is.
pub(crate) fn ensure() -> Result<()> {
    packages::ensure()?;
    bpf_linker::ensure()?;
    busybox::ensure()?;
    etcd::ensure()?;
    kubectl::ensure()
}

/// `cargo xtask setup`.
pub(crate) fn run() -> Result<()> {
    ensure()?;
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
    Ok(())
}
