//! Processes that outlive the command that started them: changes when the way they are told
//! apart, started or ended changes.

use std::fs::{File, OpenOptions};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::wait;
use crate::process;

/// A process, not merely a number: the start time tells it from a later one with the same pid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessId {
    pub(crate) pid: i32,
    /// Field 22 of `/proc/PID/stat`: clock ticks since boot.
    pub(crate) started: u64,
}

impl ProcessId {
    /// The process that has this number now.
    pub(crate) fn of(pid: i32) -> Result<Self> {
        let started = start_time(pid).with_context(|| format!("process {pid} has ended"))?;
        Ok(Self { pid, started })
    }

    /// Whether it still runs; a zombie does not.
    pub(crate) fn is_alive(self) -> bool {
        start_time(self.pid) == Some(self.started)
    }

    /// Ends the process: TERM, and after `grace` KILL. With `group`, everything in the process
    /// group that it leads. Returns when it is gone.
    pub(crate) fn end(self, group: Group, grace: Duration) -> Result<()> {
        if !self.is_alive() {
            return self.kill_rest(group);
        }
        if !grace.is_zero() {
            self.signal(Signal::SIGTERM)?;
            if wait::until(grace, || (!self.is_alive()).then_some(())).is_some() {
                return self.kill_rest(group);
            }
        }
        self.signal(Signal::SIGKILL)?;
        if wait::until(Duration::from_secs(10), || (!self.is_alive()).then_some(())).is_none() {
            bail!("process {} does not end, even by SIGKILL", self.pid);
        }
        self.kill_rest(group)
    }

    pub(crate) fn signal(self, signal: Signal) -> Result<()> {
        match kill(Pid::from_raw(self.pid), signal) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(error) => Err(error).with_context(|| format!("send {signal} to {}", self.pid)),
        }
    }

    /// A number that another process has by now means that the group is gone too: the kernel gives
    /// no number away that a group still uses.
    fn kill_rest(self, group: Group) -> Result<()> {
        let reused = stat(self.pid)
            .and_then(|stat| parse_stat(&stat))
            .is_some_and(|(_, started)| started != self.started);
        match group {
            Group::Alone => Ok(()),
            Group::Whole if reused => Ok(()),
            Group::Whole => match killpg(Pid::from_raw(self.pid), Signal::SIGKILL) {
                Ok(()) | Err(Errno::ESRCH) => Ok(()),
                Err(error) => Err(error).with_context(|| format!("end group {}", self.pid)),
            },
        }
    }
}

/// How much to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Group {
    /// The process; its namespace or its own handling ends the rest.
    Alone,
    /// Also what is left of the process group that it led.
    Whole,
}

fn stat(pid: i32) -> Option<String> {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()
}

/// Start time of a process that is no zombie.
fn start_time(pid: i32) -> Option<u64> {
    let (state, started) = parse_stat(&stat(pid)?)?;
    (state != 'Z' && state != 'X').then_some(started)
}

/// State and start time. The name in field 2 may hold spaces and parentheses: fields are counted
/// after the last `)`.
fn parse_stat(stat: &str) -> Option<(char, u64)> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

/// Starts a hidden subcommand of this program that outlives us, with all output in `log`.
/// The subcommand itself calls [`detach`].
pub(crate) fn start(arguments: &[&str], log: &Path) -> Result<ProcessId> {
    let program = std::env::current_exe().context("find this program's own file")?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    let file = open_log(log)?;
    command
        .stdout(file.try_clone().context("duplicate the log's descriptor")?)
        .stderr(file);
    let child = command
        .spawn()
        .with_context(|| format!("start `{}`", process::display(&command)))?;
    let pid = i32::try_from(child.id()).context("a process number")?;
    ProcessId::of(pid).with_context(|| format!("it ended at once; log {}", log.display()))
}

/// Leaves the terminal and the process group of the command that started us.
pub(crate) fn detach() -> Result<()> {
    nix::unistd::setsid().context("start a session")?;
    Ok(())
}

/// Logs are appended to: a restart keeps what the last run said.
pub(crate) fn open_log(log: &Path) -> Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)
        .with_context(|| format!("open {}", log.display()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Group, ProcessId, parse_stat};

    #[test]
    fn the_start_time_is_found_behind_a_name_with_parentheses() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 9 10";
        assert_eq!(parse_stat(stat), Some(('S', 4711)));
    }

    #[test]
    fn a_process_with_another_start_time_is_left_alone() {
        let me = ProcessId::of(i32::try_from(std::process::id()).unwrap()).unwrap();
        let earlier = ProcessId {
            started: me.started.wrapping_sub(1),
            ..me
        };
        assert!(me.is_alive() && !earlier.is_alive());
        earlier.end(Group::Alone, Duration::ZERO).unwrap();
    }
}
