//! The operator's command.
//!
//! Owns: arguments, finding the nodes, tables and JSON, exit codes. Must not know: how maps are laid
//! out (the datapath's views say that). Asks each node's agent; where none answers, reads the pinned
//! maps itself and says so. Also found by kubectl as a plugin (`kubectl-skep`).

mod args;
mod cluster;
mod commands;
mod failure;
mod output;
mod source;

use std::process::ExitCode;

use clap::Parser as _;

use crate::args::Arguments;
use crate::failure::Failure;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return usage(&error),
    };
    let format = arguments.output;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(commands::run(arguments)),
        Err(error) => Err(Failure::internal("start", &error)),
    };
    match result {
        Ok(outcome) => outcome.exit_code(),
        Err(failure) => {
            output::failure(format, &failure);
            failure.exit_code()
        }
    }
}

/// Prints help, version or a usage error as clap words it.
fn usage(error: &clap::Error) -> ExitCode {
    let printed = error.print();
    match (error.use_stderr(), printed) {
        (false, Ok(())) => ExitCode::SUCCESS,
        (_, _) => ExitCode::from(failure::USAGE),
    }
}
