//! bpf-linker, which makes BPF objects of LLVM bitcode: changes with its version or LLVM's.

use std::process::Command;

use anyhow::{Context as _, Result};

use crate::{process, workspace};

/// Of the major version that the compilers of the BPF programs use, or later.
const VERSION: &str = "0.13.0";
const LLVM_FEATURE: &str = "llvm-22";
const LLVM_PREFIX: &str = "/usr/lib/llvm-22";

pub(crate) fn is_installed() -> bool {
    workspace::find_program("bpf-linker").is_some()
}

pub(crate) fn ensure() -> Result<()> {
    if is_installed() {
        return Ok(());
    }
    println!("installing bpf-linker {VERSION} (once, some minutes)");
    let mut command = Command::new("cargo");
    command
        .args([
            "install",
            "bpf-linker",
            "--quiet",
            "--locked",
            "--version",
            VERSION,
        ])
        .args(["--no-default-features", "--features", LLVM_FEATURE])
        .current_dir("/")
        .env("LLVM_PREFIX", LLVM_PREFIX);
    process::run(&mut command).context("install bpf-linker")
}
