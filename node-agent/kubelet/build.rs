//! Compiles the pause program: static, without a standard library, with the same compiler.
//!
//! Needs only what linking any Rust program needs: rustc and a C linker.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

const SOURCE: &str = "pause/pause.rs";

fn main() -> ExitCode {
    println!("cargo::rerun-if-changed={SOURCE}");
    println!("cargo::rerun-if-changed=build.rs");
    match compile() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            println!("cargo::error={message}");
            ExitCode::FAILURE
        }
    }
}

fn variable(name: &str) -> Result<String, String> {
    std::env::var(name).map_err(|error| format!("{name}: {error}"))
}

fn compile() -> Result<(), String> {
    let output = PathBuf::from(variable("OUT_DIR")?).join("pause");
    let mut command = Command::new(variable("RUSTC")?);
    command
        .args([
            "--edition",
            "2024",
            "--crate-type",
            "bin",
            "--crate-name",
            "pause",
        ])
        .args(["--target", &variable("TARGET")?])
        .args([
            "-C",
            "panic=abort",
            "-C",
            "opt-level=s",
            "-C",
            "strip=symbols",
        ])
        .args([
            "-C",
            "relocation-model=static",
            "-C",
            "target-feature=+crt-static",
        ])
        .args(["-C", "link-arg=-nostartfiles", "-C", "link-arg=-nostdlib"])
        .args([
            "-C",
            "link-arg=-static",
            "-C",
            "link-arg=-Wl,--build-id=none,-z,norelro",
        ])
        .arg("-o")
        .arg(&output)
        .arg(SOURCE);
    let result = command
        .output()
        .map_err(|error| format!("cannot run rustc for {SOURCE}: {error}"))?;
    if result.status.success() {
        return Ok(());
    }
    let reason = String::from_utf8_lossy(&result.stderr).replace('\n', " ");
    Err(format!("cannot compile {SOURCE}: {reason}"))
}
