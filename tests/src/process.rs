//! Processes of a running cluster, to look at and to kill: changes when they are found
//! differently.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use nix::unistd::geteuid;

use crate::output::Output;

/// A process of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    pub pid: i32,
}

impl Process {
    /// The child of `parent` that runs the program `name`.
    pub(crate) fn child_of(parent: i32, name: &str) -> Result<Self> {
        let first = Self::children_of(parent, name)?.into_iter().next();
        first.with_context(|| format!("process {parent} has no child {name}"))
    }

    /// The children of `parent` that run the program `name`.
    pub(crate) fn children_of(parent: i32, name: &str) -> Result<Vec<Self>> {
        let mut pids: Vec<i32> = std::fs::read_dir("/proc")
            .context("list processes")?
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .collect();
        pids.retain(|pid| {
            parent_of(*pid) == Some(parent) && program(*pid).as_deref() == Some(name)
        });
        Ok(pids.into_iter().map(|pid| Self { pid }).collect())
    }

    /// The value of `--name=value` on its command line.
    pub(crate) fn argument(self, name: &str) -> Option<String> {
        let line = std::fs::read(format!("/proc/{}/cmdline", self.pid)).ok()?;
        let mut words = line.split(|byte| *byte == 0);
        words.find_map(|word| {
            let word = std::str::from_utf8(word).ok()?;
            Some(word.strip_prefix(name)?.strip_prefix('=')?.to_owned())
        })
    }

    /// Sends `KILL`, `TERM`, `STOP`, ...
    ///
    /// # Errors
    /// When the process has ended.
    pub fn signal(self, name: &str) -> Result<()> {
        let mut command = as_root(Path::new("kill"));
        command.args(["-s", name, &self.pid.to_string()]);
        Output::of(&mut command, b"")?.success().map(drop)
    }

    /// Resident memory in bytes.
    ///
    /// # Errors
    /// When the process has ended.
    pub fn resident_bytes(self) -> Result<u64> {
        let path = format!("/proc/{}/status", self.pid);
        let status = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line
            .and_then(|line| line.trim().strip_suffix("kB"))
            .context("VmRSS")?;
        Ok(kib.trim().parse::<u64>().context("VmRSS")? * 1024)
    }

    /// # Errors
    /// When it still runs.
    pub fn has_ended(self) -> Result<()> {
        let path = PathBuf::from(format!("/proc/{}/exe", self.pid));
        anyhow::ensure!(
            std::fs::symlink_metadata(&path).is_err() || is_zombie(self.pid),
            "it runs"
        );
        Ok(())
    }
}

/// A program with root's rights: through sudo unless we have them.
pub(crate) fn as_root(program: &Path) -> Command {
    if geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.arg("--").arg(program);
    command
}

fn is_zombie(pid: i32) -> bool {
    stat(pid).is_none_or(|fields| fields.starts_with('Z'))
}

/// State and all that follows.
fn stat(pid: i32) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    text.rsplit_once(") ").map(|(_, fields)| fields.to_owned())
}

fn parent_of(pid: i32) -> Option<i32> {
    stat(pid)?.split_whitespace().nth(1)?.parse().ok()
}

/// The file name of the program, from its command line, which every user may read.
fn program(pid: i32) -> Option<String> {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let first = line.split(|byte| *byte == 0).next()?;
    let path = Path::new(std::str::from_utf8(first).ok()?);
    path.file_name()
        .map(|name| name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::Duration;

    use super::Process;
    use crate::until;

    const SOON: Duration = Duration::from_secs(10);

    #[test]
    fn a_child_is_found_by_its_programs_name_and_can_be_killed() {
        let me = i32::try_from(std::process::id()).unwrap();
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        // A new program's command line reads as empty until the kernel has laid out its stack.
        let found = until(SOON, "the child", || Process::child_of(me, "sleep")).unwrap();
        assert_eq!(found.pid, i32::try_from(child.id()).unwrap());
        assert!(found.has_ended().is_err() && found.resident_bytes().unwrap() > 0);
        found.signal("KILL").unwrap();
        child.wait().unwrap();
        found.has_ended().unwrap();
        Process::child_of(me, "sleep").unwrap_err();
    }
}
