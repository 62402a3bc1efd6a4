//! The example images, made without a registry or an image tool: changes when an image is added
//! or holds something else.
//!
//! An archive is an OCI image layout in a tar file, as `ctr images import` reads it. Equal input
//! gives equal bytes: no time stamps, sorted names. An archive is written only when it changed.

mod oci;
mod sha256;
mod tar;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::build::host::Profile;
use crate::{process, setup, workspace};

use tar::Tar;

/// Where busybox looks for its names.
const BUSYBOX_DIRS: [&str; 2] = ["bin", "etc"];

/// The archives of all example images.
pub(crate) fn files() -> [PathBuf; 2] {
    ["busybox.tar", "hello.tar"].map(|file| workspace::target().join("images").join(file))
}

/// Makes all example images.
pub(crate) fn images(profile: Profile) -> Result<()> {
    let [busybox, hello] = files();
    let dir = workspace::target().join("images");
    std::fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    write_if_changed(&busybox, &busybox_image()?)?;
    write_if_changed(&hello, &hello_image(profile)?)
}

/// busybox under all of its names.
fn busybox_image() -> Result<Vec<u8>> {
    let program = setup::busybox();
    let bytes = std::fs::read(&program).with_context(|| format!("read {}", program.display()))?;
    let names = process::capture(Command::new(&program).arg("--list"))
        .with_context(|| format!("ask {} for its names", program.display()))?;
    let mut layer = Tar::default();
    for dir in BUSYBOX_DIRS {
        layer.directory(dir, 0o755)?;
    }
    layer.directory("tmp", 0o1777)?;
    layer.file("bin/busybox", 0o755, &bytes)?;
    let mut names: Vec<&str> = names.lines().filter(|name| *name != "busybox").collect();
    names.sort_unstable();
    for name in names {
        layer.link(&format!("bin/{name}"), "busybox")?;
    }
    layer.file(
        "etc/passwd",
        0o644,
        b"root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n",
    )?;
    layer.file("etc/group", 0o644, b"root:x:0:\nnogroup:x:65534:\n")?;
    oci::archive(&oci::Image {
        name: "skep.local/busybox:latest",
        layer: layer.finish(),
        command: &["sh"],
        entrypoint: &[],
        user: "",
    })
}

/// The example server alone: a static program in an otherwise empty image.
fn hello_image(profile: Profile) -> Result<Vec<u8>> {
    let program = build_hello(profile)?;
    let bytes = std::fs::read(&program).with_context(|| format!("read {}", program.display()))?;
    let mut layer = Tar::default();
    layer.file("hello", 0o755, &bytes)?;
    oci::archive(&oci::Image {
        name: "skep.local/hello:latest",
        layer: layer.finish(),
        command: &[],
        entrypoint: &["/hello"],
        user: "65534:65534",
    })
}

/// Static, so that it needs nothing of the image. Its own target directory: other flags would
/// make the whole host build stale.
fn build_hello(profile: Profile) -> Result<PathBuf> {
    let target = workspace::target().join("static-build");
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let mut command = workspace::cargo("build");
    command
        .args(["--quiet", "--package", "example-hello", "--bin", "hello"])
        .args(profile.flags())
        .args(["--target", &triple, "--target-dir"])
        .arg(&target)
        .env("RUSTFLAGS", "-Ctarget-feature=+crt-static");
    process::run(&mut command).context("build examples/hello")?;
    Ok(target.join(triple).join(profile.directory()).join("hello"))
}

fn write_if_changed(path: &Path, bytes: &[u8]) -> Result<()> {
    if std::fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    std::fs::write(path, bytes).with_context(|| format!("write {}", path.display()))
}
