//! The commands: ask every node, put the answers together, print.

mod ct;
mod drops;
mod lb;
mod maps;
mod nodes;
mod programs;
mod status;

use clap::CommandFactory as _;

use crate::args::{Arguments, Command, CtCommand, Format, LbCommand, MapsCommand};
use crate::cluster::{self, Node, Surroundings};
use crate::failure::{Failure, Outcome};
use crate::output;
use crate::source::NodeSource;

/// What all commands share.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) nodes: Vec<Node>,
    pub(crate) format: Format,
    pub(crate) no_headers: bool,
}

/// Runs the command.
/// # Errors
/// [`Failure`] with its exit code.
pub(crate) async fn run(arguments: Arguments) -> Result<Outcome, Failure> {
    if let Command::Completion { shell } = arguments.command {
        return Ok(completion(shell));
    }
    let surroundings = Surroundings::of_this_process();
    let context = Context {
        nodes: cluster::nodes(
            arguments.cluster.as_deref(),
            &arguments.nodes,
            &surroundings,
        )?,
        format: arguments.output,
        no_headers: arguments.no_headers,
    };
    match arguments.command {
        Command::Status => status::run(&context).await,
        Command::Nodes => nodes::run(&context).await,
        Command::Lb(LbCommand::List(list)) => lb::list(&context, &list).await,
        Command::Lb(LbCommand::Get { name }) => lb::get(&context, &name).await,
        Command::Maps(MapsCommand::List) => maps::list(&context).await,
        Command::Maps(MapsCommand::Dump { name }) => maps::dump(&context, &name).await,
        Command::Ct(CtCommand::List) => ct::list(&context).await,
        Command::Drops(drops) => drops::run(&context, &drops).await,
        Command::Programs => programs::run(&context).await,
        Command::Completion { shell } => Ok(completion(shell)),
    }
}

fn completion(shell: clap_complete::Shell) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "skep", &mut script);
    output::text(&String::from_utf8_lossy(&script));
    Outcome::Done
}

impl Context {
    /// Opens every node. What a node that cannot be read says goes to standard error; if none can
    /// be read, the first failure is the command's.
    pub(crate) async fn sources(&self) -> Result<Sources, Failure> {
        let mut sources = Sources {
            open: Vec::new(),
            outcome: Outcome::Done,
        };
        let mut first = None;
        for node in &self.nodes {
            match NodeSource::open(node).await {
                Ok(source) => sources.open.push(source),
                Err(failure) => {
                    if self.nodes.len() > 1 {
                        output::note(&format!("node {}: {}", node.name, failure.message));
                    }
                    first.get_or_insert(failure);
                    sources.outcome = Outcome::Partial;
                }
            }
        }
        match (sources.open.is_empty(), first) {
            (true, Some(failure)) => Err(failure),
            (_, _) => Ok(sources),
        }
    }
}

/// The nodes that can be read.
#[derive(Debug)]
pub(crate) struct Sources {
    pub(crate) open: Vec<NodeSource>,
    /// Whether all could be.
    pub(crate) outcome: Outcome,
}
