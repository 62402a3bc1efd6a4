//! The static busybox of the example image: changes when it is found elsewhere.
//!
//! The machine's own when it is static; else the distribution's package is unpacked below
//! `target/tools` and nothing is installed.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::{process, workspace};

/// The busybox to put into the image.
pub(crate) fn program() -> PathBuf {
    system().unwrap_or_else(fetched)
}

pub(crate) fn ensure() -> Result<()> {
    if program().is_file() {
        return Ok(());
    }
    let tools = workspace::tools();
    std::fs::create_dir_all(&tools).with_context(|| format!("create {}", tools.display()))?;
    if workspace::find_program("apt-get").is_none() {
        bail!("no static busybox: put one at {}", fetched().display());
    }
    let mut download = Command::new("apt-get");
    download
        .current_dir(&tools)
        .args(["download", "--quiet=2", "busybox-static"]);
    process::quiet(&mut download).context("fetch busybox-static")?;
    let package = package(&tools)?;
    let unpacked = tools.join("busybox-static");
    process::quiet(
        Command::new("dpkg-deb")
            .arg("-x")
            .arg(&package)
            .arg(&unpacked),
    )
    .context("unpack busybox-static")?;
    std::fs::remove_file(&package).with_context(|| format!("remove {}", package.display()))
}

fn fetched() -> PathBuf {
    workspace::tools().join("busybox-static/bin/busybox")
}

fn system() -> Option<PathBuf> {
    let found = workspace::find_program("busybox")?;
    is_static(&std::fs::read(&found).ok()?).then_some(found)
}

fn package(dir: &Path) -> Result<PathBuf> {
    for entry in std::fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))? {
        let path = entry
            .with_context(|| format!("list {}", dir.display()))?
            .path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("busybox-static_") && name.ends_with(".deb") {
            return Ok(path);
        }
    }
    bail!("apt-get fetched no busybox-static into {}", dir.display())
}

/// A 64-bit little-endian ELF file without a PT_INTERP segment asks for no dynamic loader.
fn is_static(elf: &[u8]) -> bool {
    const PT_INTERP: [u8; 4] = [3, 0, 0, 0];
    let word = |at: usize| Some(u16::from_le_bytes(elf.get(at..at + 2)?.try_into().ok()?));
    let wide = |at: usize| Some(u64::from_le_bytes(elf.get(at..at + 8)?.try_into().ok()?));
    let interp = || {
        let table = usize::try_from(wide(32)?).ok()?;
        let (size, count) = (usize::from(word(54)?), usize::from(word(56)?));
        let mut kinds = (0..count).filter_map(|n| {
            let at = table.checked_add(n * size)?;
            elf.get(at..at.checked_add(4)?)
        });
        Some(kinds.any(|kind| kind == PT_INTERP))
    };
    elf.starts_with(b"\x7fELF\x02\x01") && interp() == Some(false)
}

#[cfg(test)]
mod tests {
    use super::is_static;

    /// An ELF header with one program header of the given kind.
    fn elf(kind: u8) -> Vec<u8> {
        let mut bytes = vec![0; 64 + 56];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[32] = 64;
        bytes[54] = 56;
        bytes[56] = 1;
        bytes[64] = kind;
        bytes
    }

    #[test]
    fn a_program_with_a_dynamic_loader_is_not_static() {
        assert!(is_static(&elf(1)) && !is_static(&elf(3)));
    }

    #[test]
    fn what_is_no_elf_file_or_is_cut_short_is_not_static() {
        for bytes in [b"#!/bin/sh\n".to_vec(), elf(1)[..40].to_vec(), Vec::new()] {
            assert!(!is_static(&bytes));
        }
    }
}
