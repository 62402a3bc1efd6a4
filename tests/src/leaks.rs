//! What a test left on the machine: changes when `xtask leaks` does.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::output::Output;
use crate::{wait, workspace};

/// The kernel frees what nobody uses a moment later.
const SETTLE: Duration = Duration::from_secs(15);

/// What was on the machine at one moment: our processes, namespaces, links, mounts, control
/// groups, BPF objects. Of use only while no other test runs a cluster.
#[derive(Debug)]
pub struct Leaks {
    before: BTreeSet<String>,
}

impl Leaks {
    /// # Errors
    /// When the machine cannot be looked at.
    pub fn before() -> Result<Self> {
        Ok(Self { before: now()? })
    }

    /// # Errors
    /// When there is something that was not there before.
    pub fn check(&self) -> Result<()> {
        wait::until(SETTLE, "nothing is left behind", || {
            let now = now()?;
            let left: Vec<&str> = now.difference(&self.before).map(String::as_str).collect();
            ensure!(left.is_empty(), "left behind:\n  {}", left.join("\n  "));
            Ok(())
        })
    }
}

fn now() -> Result<BTreeSet<String>> {
    let output = Output::of(&mut workspace::xtask(&["leaks"]), b"")?.success()?;
    Ok(output.stdout.lines().map(str::to_owned).collect())
}
