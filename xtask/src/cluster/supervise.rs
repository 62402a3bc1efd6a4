//! Keeps a few programs running: changes when the rules of starting them again change.
//!
//! Used by a node's init (pid 1 of the node: it also reaps what is re-parented to it) and by the
//! process that runs the control plane. One thread, one wait: signals arrive as a descriptor.
//! TERM ends everything; HUP restarts the services that say so, which is how a newly built
//! program comes into use.

use std::collections::BTreeMap;
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::daemon;

/// First pause before a program that ended soon after its start is started again; doubled up to
/// [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// A program that ran this long is started again at once.
const STABLE: Duration = Duration::from_secs(2);

/// How often a file that a service waits for is looked for.
const FILE_PACE: Duration = Duration::from_millis(10);

/// After TERM the programs have this long before KILL.
const GRACE: Duration = Duration::from_secs(10);

/// A program to keep running.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Service {
    pub(crate) name: String,
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
    pub(crate) log: PathBuf,
    /// Started only once this exists.
    pub(crate) after: Option<PathBuf>,
    /// Whether HUP restarts it.
    pub(crate) on_reload: OnReload,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum OnReload {
    Restart,
    Keep,
}

/// What is known of one service while it is kept.
#[derive(Debug)]
struct Kept {
    service: Service,
    state: State,
    /// The pause that the next early end will cost.
    pause: Duration,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// To be started at this moment, or as soon as its file exists.
    Due(Instant),
    Running {
        pid: Pid,
        since: Instant,
    },
}

/// Runs until TERM or INT; then ends the programs in reverse order and returns.
pub(crate) fn run(services: Vec<Service>) -> Result<()> {
    let mut signals = SigSet::empty();
    for signal in [
        Signal::SIGCHLD,
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
    ] {
        signals.add(signal);
    }
    signals.thread_block().context("block signals")?;
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    let arrived = SignalFd::with_flags(&signals, flags).context("receive signals")?;
    let mut kept: Vec<Kept> = services.into_iter().map(Kept::new).collect();
    loop {
        for one in &mut kept {
            one.start_if_due(Instant::now());
        }
        wait_for_signal(&arrived, timeout(&kept, Instant::now()))?;
        while let Some(info) = arrived.read_signal().context("read a signal")? {
            let number = i32::try_from(info.ssi_signo).unwrap_or_default();
            match Signal::try_from(number) {
                Ok(Signal::SIGTERM | Signal::SIGINT) => return end_all(&kept, &arrived),
                Ok(Signal::SIGHUP) => kept.iter().for_each(Kept::reload),
                _ => {}
            }
        }
        for (pid, status) in reap()? {
            if let Some(one) = kept.iter_mut().find(|one| one.has(pid)) {
                one.ended(&status, Instant::now());
            }
        }
    }
}

impl Kept {
    fn new(service: Service) -> Self {
        Self {
            service,
            state: State::Due(Instant::now()),
            pause: PAUSE_MIN,
        }
    }

    fn has(&self, pid: Pid) -> bool {
        matches!(self.state, State::Running { pid: mine, .. } if mine == pid)
    }

    fn start_if_due(&mut self, now: Instant) {
        let State::Due(due) = self.state else { return };
        let waits = self
            .service
            .after
            .as_ref()
            .is_some_and(|file| !file.exists());
        if now < due || waits {
            return;
        }
        match start(&self.service) {
            Ok(pid) => {
                println!("{}: started, pid {pid}", self.service.name);
                self.state = State::Running { pid, since: now };
            }
            Err(error) => {
                eprintln!("{}: {error:#}", self.service.name);
                self.state = State::Due(now + PAUSE_MAX);
            }
        }
    }

    fn ended(&mut self, status: &str, now: Instant) {
        let State::Running { since, .. } = self.state else {
            return;
        };
        let (wait, next) = pause_after(now.duration_since(since), self.pause);
        println!(
            "{}: ended, {status}; starts again in {} ms",
            self.service.name,
            wait.as_millis()
        );
        self.state = State::Due(now + wait);
        self.pause = next;
    }

    fn reload(&self) {
        if let (OnReload::Restart, State::Running { pid, .. }) =
            (self.service.on_reload, self.state)
        {
            println!("{}: restarts on request", self.service.name);
            send(pid, Signal::SIGTERM);
        }
    }
}

/// How long to wait now, and what the next early end costs.
fn pause_after(ran: Duration, pause: Duration) -> (Duration, Duration) {
    if ran >= STABLE {
        return (Duration::ZERO, PAUSE_MIN);
    }
    (pause, (pause * 2).min(PAUSE_MAX))
}

/// A child inherits our blocked signals, and would be deaf to TERM: it starts as this program
/// again, which unblocks them and becomes the service. By `/proc/self/exe`, since the file may
/// have been built anew meanwhile.
fn start(service: &Service) -> Result<Pid> {
    let log = daemon::open_log(&service.log)?;
    let child = Command::new("/proc/self/exe")
        .args(["become", "--"])
        .arg(&service.program)
        .args(&service.arguments)
        .stdin(Stdio::null())
        .stdout(log.try_clone().context("duplicate the log's descriptor")?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("start {}", service.program.display()))?;
    Ok(Pid::from_raw(
        i32::try_from(child.id()).context("a process number")?,
    ))
}

/// The hidden subcommand: unblocks all signals and becomes the program. Returns only on failure.
pub(crate) fn become_program(words: &[String]) -> Result<()> {
    let (program, arguments) = words.split_first().context("no program")?;
    SigSet::all().thread_unblock().context("unblock signals")?;
    Err(Command::new(program).args(arguments).exec()).with_context(|| format!("start {program}"))
}

/// A process that has ended meanwhile is fine.
fn send(pid: Pid, signal: Signal) {
    if let Err(error) = kill(pid, signal)
        && error != Errno::ESRCH
    {
        eprintln!("send {signal} to {pid}: {error}");
    }
}

/// Until the next service is due; without end when all run.
fn timeout(kept: &[Kept], now: Instant) -> PollTimeout {
    let next = kept
        .iter()
        .filter_map(|one| match one.state {
            State::Due(due) => Some(due.saturating_duration_since(now).max(FILE_PACE)),
            State::Running { .. } => None,
        })
        .min();
    next.map_or(PollTimeout::NONE, |wait| {
        PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX)
    })
}

fn wait_for_signal(arrived: &SignalFd, timeout: PollTimeout) -> Result<()> {
    let mut fds = [PollFd::new(arrived.as_fd(), PollFlags::POLLIN)];
    match poll(&mut fds, timeout) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(error) => Err(error).context("wait for a signal"),
    }
}

/// Everything that has ended, ours or re-parented to us.
fn reap() -> Result<BTreeMap<Pid, String>> {
    let mut ended = BTreeMap::new();
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) => ended.insert(pid, format!("exit code {code}")),
            Ok(WaitStatus::Signaled(pid, signal, _)) => ended.insert(pid, signal.to_string()),
            Ok(_) | Err(Errno::ECHILD) => return Ok(ended),
            Err(Errno::EINTR) => continue,
            Err(error) => return Err(error).context("reap children"),
        };
    }
}

/// The last service first: a store outlives the control plane that uses it.
fn end_all(kept: &[Kept], arrived: &SignalFd) -> Result<()> {
    for one in kept.iter().rev() {
        let State::Running { pid, .. } = one.state else {
            continue;
        };
        send(pid, Signal::SIGTERM);
        let deadline = Instant::now() + GRACE;
        let mut gone = reap()?.contains_key(&pid);
        while !gone {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                send(pid, Signal::SIGKILL);
                break;
            }
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            wait_for_signal(arrived, timeout)?;
            while arrived.read_signal().context("read a signal")?.is_some() {}
            let reaped = reap()?;
            gone = reaped.contains_key(&pid) || kill(pid, None) == Err(Errno::ESRCH);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{PAUSE_MAX, PAUSE_MIN, STABLE, pause_after};

    #[test]
    fn a_program_that_ran_for_long_starts_again_at_once() {
        assert_eq!(pause_after(STABLE, PAUSE_MAX), (Duration::ZERO, PAUSE_MIN));
    }

    #[test]
    fn a_program_that_ends_at_once_is_started_ever_more_slowly_up_to_a_bound() {
        let mut pause = PAUSE_MIN;
        let mut waits = Vec::new();
        for _ in 0..12 {
            let (wait, next) = pause_after(Duration::ZERO, pause);
            waits.push(wait);
            pause = next;
        }
        assert!(waits.is_sorted() && waits[0] == PAUSE_MIN && waits[11] == PAUSE_MAX);
    }
}
