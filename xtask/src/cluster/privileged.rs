//! The steps that need root: changes when such a step is added or gets another argument.
//!
//! `cargo xtask` runs as the user. A step that needs root is a hidden subcommand of this program,
//! run through sudo unless we are root already, so that nothing else runs with its rights.

use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail};
use clap::Subcommand;

use super::{down, exec, files::Cluster, image, node, underlay};
use crate::{leaks, process, setup, workspace};

/// Hidden subcommands.
#[derive(Debug, Subcommand)]
pub(crate) enum Step {
    /// Installs distribution packages.
    InstallPackages { packages: Vec<String> },
    /// Makes the underlay network of a cluster.
    NetworkUp { cluster: String },
    /// Holds the underlay's network namespace.
    NetworkHold,
    /// Starts the nodes 1..=count that do not run.
    NodesUp { cluster: String, count: u8 },
    /// Makes one node's namespaces and its init.
    NodeLaunch { cluster: String, node: u8 },
    /// Pid 1 of a node.
    NodeInit { cluster: String, node: u8 },
    /// Lets the nodes' agents start again with newly built programs.
    NodesReload { cluster: String },
    /// Routes from the host to the nodes' pods, each `NODE=CIDR`.
    PodRoutes {
        cluster: String,
        routes: Vec<String>,
    },
    /// Runs a command in a node.
    Exec {
        cluster: String,
        node: String,
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Imports an image archive on every node.
    ImageImport {
        cluster: String,
        file: std::path::PathBuf,
    },
    /// Prints what a cluster could leave on the machine.
    LeaksList,
    /// Ends nodes and network and removes their files.
    Down { cluster: String },
}

/// Runs a step in this process, which must be root.
pub(crate) fn perform(step: Step) -> Result<ExitCode> {
    if !is_root() {
        bail!("this hidden subcommand needs root; use the public commands");
    }
    match step {
        Step::InstallPackages { packages } => setup::packages::install(&packages)?,
        Step::NetworkUp { cluster } => underlay::up(&Cluster::named(&cluster)?)?,
        Step::NetworkHold => underlay::hold()?,
        Step::NodesUp { cluster, count } => node::up(&Cluster::named(&cluster)?, count)?,
        Step::NodeLaunch { cluster, node } => node::launch(&Cluster::named(&cluster)?, node)?,
        Step::NodeInit { cluster, node } => node::init(&Cluster::named(&cluster)?, node)?,
        Step::NodesReload { cluster } => node::reload(&Cluster::named(&cluster)?)?,
        Step::PodRoutes { cluster, routes } => {
            underlay::route_pods(&Cluster::named(&cluster)?, &routes)?;
        }
        Step::Exec {
            cluster,
            node,
            command,
        } => {
            return exec::inside(&Cluster::named(&cluster)?.node(&node)?, &command);
        }
        Step::ImageImport { cluster, file } => {
            image::import_on_nodes(&Cluster::named(&cluster)?, &file)?;
        }
        Step::LeaksList => leaks::list()?,
        Step::Down { cluster } => down::as_root(&Cluster::named(&cluster)?)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The command that runs a step as root: `arguments` name the hidden subcommand.
pub(crate) fn command(arguments: &[&str]) -> Result<Command> {
    let program = std::env::current_exe().context("find this program's own file")?;
    let mut command = as_root(&program)?;
    command.arg("privileged").args(arguments);
    Ok(command)
}

pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// A program with root's rights: through sudo unless we have them.
pub(crate) fn as_root(program: &Path) -> Result<Command> {
    if is_root() {
        return Ok(Command::new(program));
    }
    let sudo = workspace::find_program("sudo")
        .context("this step needs root and there is no sudo: run the command as root instead")?;
    let mut command = Command::new(sudo);
    command.arg("--").arg(program);
    Ok(command)
}

/// Runs a step as root with the terminal's own output.
pub(crate) fn run(arguments: &[&str]) -> Result<()> {
    let mut command = command(arguments)?;
    let status = command
        .status()
        .with_context(|| format!("start `{}`", process::display(&command)))?;
    if !status.success() {
        bail!(
            "the step `{}` failed ({status}); its reason is above",
            arguments.join(" ")
        );
    }
    Ok(())
}
