//! Arguments.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  internal error
  2  wrong usage
  3  degraded: an agent is down, not connected, or has trouble
  4  not found
  5  timeout
  6  denied: root is needed
  9  partial: some nodes could not be read

Nodes are found in DIR/nodes.json, where DIR is --cluster, $SKEP_CLUSTER, the directory of
$KUBECONFIG, or ./target/cluster. Without one, this machine is the node.";

/// Looks at services, maps and flows as the kernels of the nodes hold them.
#[derive(Debug, Parser)]
#[command(name = "skep", version, after_help = EXIT_CODES, propagate_version = true)]
pub(crate) struct Arguments {
    /// Directory of a development cluster.
    #[arg(long, env = "SKEP_CLUSTER", global = true, value_name = "DIR")]
    pub(crate) cluster: Option<PathBuf>,
    /// Only this node; may be given several times.
    #[arg(long = "node", global = true, value_name = "NAME")]
    pub(crate) nodes: Vec<String>,
    /// How to print.
    #[arg(short, long, global = true, value_enum, default_value_t)]
    pub(crate) output: Format,
    /// Tables without their first line.
    #[arg(long, global = true)]
    pub(crate) no_headers: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    #[default]
    Table,
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Agents: alive, connected, how far their maps are.
    Status,
    /// Nodes that this command sees, and where it reads them.
    Nodes,
    /// Services: frontends and backends.
    #[command(subcommand)]
    Lb(LbCommand),
    /// Maps: how full, and what is in them.
    #[command(subcommand)]
    Maps(MapsCommand),
    /// Flows of the packet path.
    #[command(subcommand)]
    Ct(CtCommand),
    /// Packets dropped and calls refused, by reason.
    Drops(DropsArguments),
    /// Programs: verified instructions, size, where they are attached.
    Programs,
    /// A completion script for a shell.
    Completion {
        /// The shell.
        shell: Shell,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum LbCommand {
    /// One line a backend of each frontend.
    List(LbListArguments),
    /// One service or frontend in full.
    Get {
        /// NAMESPACE/NAME, NAME, or ADDRESS:PORT.
        name: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct LbListArguments {
    /// Only services of this namespace.
    #[arg(short, long)]
    pub(crate) namespace: Option<String>,
    /// Also the entries that refuse unknown ports of service addresses.
    #[arg(long)]
    pub(crate) wildcards: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum MapsCommand {
    /// All maps with size, use and memory.
    List,
    /// The elements of one map.
    Dump {
        /// Name of the map, as `maps list` shows it.
        name: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum CtCommand {
    /// Both directions of each flow.
    List,
}

#[derive(Debug, Args)]
pub(crate) struct DropsArguments {
    /// Also reasons that never happened, and the verdicts that were no drops.
    #[arg(long)]
    pub(crate) all: bool,
}
