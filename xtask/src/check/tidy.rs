//! `tidy`: what no other tool checks of the source; changes when a house rule does.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::{process, workspace};

/// Lines of a source file, without generated ones. Reasons: `docs/architecture.md`.
const LINES_MAX: usize = 800;

/// A module of this name has no single reason to change.
const BANNED_NAMES: [&str; 4] = ["utils", "common", "helpers", "misc"];

/// Directories that hold a room.
const ROOMS: [&str; 7] = [
    "control-plane",
    "node-agent",
    "ebpf",
    "dns",
    "proto",
    "xtask",
    "tests",
];

/// Checks every Rust source and manifest that git knows or would add.
pub(crate) fn run() -> Result<()> {
    let root = workspace::root();
    let files = tracked(&root)?;
    let mut wrong = Vec::new();
    for file in files
        .iter()
        .filter(|file| file.extension() == Some(OsStr::new("rs")))
    {
        let text = std::fs::read_to_string(root.join(file))
            .with_context(|| format!("read {}", file.display()))?;
        wrong.extend(source_faults(file, &text));
    }
    for file in files
        .iter()
        .filter(|file| file.file_name() == Some(OsStr::new("Cargo.toml")))
    {
        let text = std::fs::read_to_string(root.join(file))
            .with_context(|| format!("read {}", file.display()))?;
        wrong.extend(manifest_faults(file, &text));
    }
    for room in ROOMS {
        if !root.join(room).join("README.md").is_file() {
            wrong.push(format!("{room}: no README.md"));
        }
    }
    if !wrong.is_empty() {
        bail!("tidy:\n  {}", wrong.join("\n  "));
    }
    println!("{} files are tidy", files.len());
    Ok(())
}

fn tracked(root: &Path) -> Result<Vec<PathBuf>> {
    let mut command = Command::new("git");
    command.current_dir(root).args([
        "ls-files",
        "--cached",
        "--others",
        "--exclude-standard",
        "-z",
    ]);
    let said = process::capture(&mut command).context("list the files of the tree")?;
    let files = said.split_terminator('\0').map(PathBuf::from);
    Ok(files.filter(|file| root.join(file).is_file()).collect())
}

fn source_faults(file: &Path, text: &str) -> Vec<String> {
    let name = file.display();
    if is_generated(file, text) {
        return Vec::new();
    }
    let mut wrong = Vec::new();
    if !has_header(file, text) {
        wrong.push(format!(
            "{name}: no `//!` header with the file's one reason to change"
        ));
    }
    let lines = text.lines().count();
    if lines > LINES_MAX {
        wrong.push(format!("{name}: {lines} lines, the limit is {LINES_MAX}"));
    }
    let parts = file.with_extension("");
    let banned = parts
        .iter()
        .filter_map(OsStr::to_str)
        .find(|part| BANNED_NAMES.contains(part));
    if let Some(banned) = banned {
        wrong.push(format!(
            "{name}: a module named {banned} has no single reason to change"
        ));
    }
    wrong
}

/// Tests beside their subject (`tests.rs`) share its reason to change.
fn has_header(file: &Path, text: &str) -> bool {
    let plain = |line: &&str| line.is_empty() || line.starts_with("// ");
    let first = text.lines().find(|line| !plain(line));
    first.is_some_and(|line| line.starts_with("//!")) || file.ends_with("tests.rs")
}

/// Generated files say so in their first lines, or lie in a directory of that name.
fn is_generated(file: &Path, text: &str) -> bool {
    let marked = text.lines().take(5).any(|line| {
        let line = line.to_ascii_lowercase();
        line.starts_with("//") && line.contains("generated")
    });
    marked || file.iter().any(|part| part == "generated")
}

fn manifest_faults(file: &Path, text: &str) -> Vec<String> {
    let is_package = text.lines().any(|line| line.trim() == "[package]");
    let mut lines = text
        .lines()
        .skip_while(|line| line.trim() != "[lints]")
        .skip(1);
    let inherits = lines
        .next()
        .is_some_and(|line| line.trim() == "workspace = true");
    if is_package && !inherits {
        return vec![format!(
            "{}: `[lints]` must say `workspace = true`",
            file.display()
        )];
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{LINES_MAX, manifest_faults, source_faults};

    fn faults(file: &str, text: &str) -> usize {
        source_faults(Path::new(file), text).len()
    }

    #[test]
    fn a_source_file_has_a_header_a_bound_and_a_name() {
        assert_eq!(faults("a/src/lib.rs", "//! Why.\n"), 0);
        assert_eq!(
            faults(
                "a/src/lib.rs",
                "// SPDX-License-Identifier: MIT\n\n//! Why.\n"
            ),
            0
        );
        assert_eq!(faults("a/src/tests.rs", "use super::*;\n"), 0);
        assert_eq!(faults("a/src/lib.rs", "fn main() {}\n"), 1);
        assert_eq!(faults("a/src/utils.rs", "//! Why.\n"), 1);
        assert_eq!(faults("a/src/utils/b.rs", "//! Why.\n"), 1);
        assert_eq!(
            faults(
                "a/src/lib.rs",
                &format!("//! Why.{}", "\n".repeat(LINES_MAX))
            ),
            0
        );
        assert_eq!(
            faults(
                "a/src/lib.rs",
                &format!("//! Why.{}", "\n".repeat(LINES_MAX + 1))
            ),
            1
        );
    }

    #[test]
    fn a_generated_file_may_be_long() {
        let text = format!("// Generated by x.\n{}", "\n".repeat(LINES_MAX + 1));
        assert_eq!(faults("a/src/table.rs", &text), 0);
    }

    #[test]
    fn a_package_inherits_the_lints() {
        let of = |text| manifest_faults(Path::new("Cargo.toml"), text).len();
        assert_eq!(of("[package]\n[lints]\nworkspace = true\n"), 0);
        assert_eq!(of("[package]\n"), 1);
        assert_eq!(of("[workspace]\n"), 0);
    }
}
