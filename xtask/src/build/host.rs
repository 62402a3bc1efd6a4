//! The host programs: changes when a program is added or a profile gets another meaning.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::{process, workspace};

/// Packages and the binaries that a cluster runs.
const PROGRAMS: [(&str, &str); 3] = [
    ("control-plane", "skep-control-plane"),
    ("node-agent", "skep-node-agent"),
    ("node-agent-cli", "skep"),
];

/// How programs are compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// For work on the tree: quick to build.
    Dev,
    /// For figures and packages.
    Release,
}

impl Profile {
    pub(crate) fn of(release: bool) -> Self {
        if release { Self::Release } else { Self::Dev }
    }

    pub(crate) fn flags(self) -> &'static [&'static str] {
        match self {
            Self::Dev => &[],
            Self::Release => &["--release"],
        }
    }

    /// The directory's name below a target directory.
    pub(crate) fn directory(self) -> &'static str {
        match self {
            Self::Dev => "debug",
            Self::Release => "release",
        }
    }

    pub(crate) fn binary(self, name: &str) -> PathBuf {
        workspace::target().join(self.directory()).join(name)
    }

    /// Tells one build of the long-running programs from another.
    pub(crate) fn fingerprint(self) -> Result<String> {
        let lines: Vec<String> = PROGRAMS
            .iter()
            .map(|(_, binary)| {
                let path = self.binary(binary);
                let modified = std::fs::metadata(&path)
                    .and_then(|metadata| metadata.modified())
                    .with_context(|| format!("look at {}", path.display()))?;
                let since = modified
                    .duration_since(std::time::UNIX_EPOCH)
                    .unwrap_or_default();
                Ok(format!("{} {}\n", path.display(), since.as_nanos()))
            })
            .collect::<Result<_>>()?;
        Ok(lines.concat())
    }
}

/// Builds what a cluster runs. Compiler messages go to the terminal.
pub(crate) fn build(profile: Profile) -> Result<()> {
    let mut command = workspace::cargo("build");
    command.args(profile.flags());
    for (package, binary) in PROGRAMS {
        command.args(["--package", package, "--bin", binary]);
    }
    process::run(&mut command).context("build the programs")
}
