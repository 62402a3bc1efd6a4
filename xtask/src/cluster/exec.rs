//! `exec`: runs a command in a node; changes when a node gets another namespace.

use std::fs::File;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result};
use nix::sched::{CloneFlags, setns};

use super::files::{Cluster, Node};
use super::{cgroups, privileged};
use crate::workspace;

/// Runs a command with the node's namespaces and in the node's control groups, and returns its
/// exit code.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The node, by number or name.
    #[arg(long, default_value = "1")]
    node: String,
    /// The cluster.
    #[arg(long, default_value = super::files::DEFAULT_NAME)]
    name: String,
    /// The command and its arguments.
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let cluster = Cluster::named(&arguments.name)?;
    let node = cluster.node(&arguments.node)?;
    let mut words = vec!["exec", cluster.name.as_str(), node.name.as_str(), "--"];
    words.extend(arguments.command.iter().map(String::as_str));
    let status = privileged::command(&words)?
        .status()
        .context("start the command")?;
    Ok(exit_code(status))
}

/// In this process, which enters the node and does not come back.
pub(crate) fn inside(target: &Node, words: &[String]) -> Result<ExitCode> {
    let (program, arguments) = words.split_first().context("no command")?;
    enter(target)?;
    let status = Command::new(program)
        .args(arguments)
        .current_dir(workspace::root())
        .status()
        .with_context(|| format!("start {program} in {}", target.name))?;
    Ok(exit_code(status))
}

/// Joining the control groups is not part of setns: without it the socket hooks of the node's
/// agent, which are attached to the node's group, would not see this process.
pub(crate) fn enter(target: &Node) -> Result<()> {
    let group = group_of(target)?;
    let kinds = [
        ("cgroup", CloneFlags::CLONE_NEWCGROUP),
        ("ipc", CloneFlags::CLONE_NEWIPC),
        ("uts", CloneFlags::CLONE_NEWUTS),
        ("net", CloneFlags::CLONE_NEWNET),
        ("pid", CloneFlags::CLONE_NEWPID),
        ("mnt", CloneFlags::CLONE_NEWNS),
    ];
    let namespaces: Vec<(File, CloneFlags)> = kinds
        .into_iter()
        .map(|(name, flag)| {
            let path = format!("/proc/{}/ns/{name}", target.pid);
            Ok((
                File::open(&path).with_context(|| format!("open {path}"))?,
                flag,
            ))
        })
        .collect::<Result<_>>()?;
    cgroups::join_existing(&group)?;
    for (namespace, flag) in namespaces {
        setns(namespace, flag).with_context(|| format!("enter {}", target.name))?;
    }
    Ok(())
}

/// `skepN/NODE/init`, N from the node's address.
fn group_of(target: &Node) -> Result<String> {
    let index = target
        .ip
        .split('.')
        .nth(2)
        .and_then(|part| part.parse().ok())
        .map(super::addresses::ClusterIndex)
        .with_context(|| format!("the cluster of address {}", target.ip))?;
    Ok(format!(
        "{}/{}/{}",
        index.host_link(),
        target.name,
        cgroups::INIT_GROUP
    ))
}

/// A signal's number is reported as shells do, 128 + N.
fn exit_code(status: std::process::ExitStatus) -> ExitCode {
    use std::os::unix::process::ExitStatusExt as _;
    let code = status
        .code()
        .or(status.signal().map(|signal| 128 + signal))
        .unwrap_or(1);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}
