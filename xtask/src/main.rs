//! The commands of the workspace: this file changes when a command is added or renamed.
//!
//! Every command lives in its own file and takes parsed arguments; this file only maps names to
//! them and turns an error into one readable report and an exit code.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line tool: its answer goes to the terminal"
)]

mod build;
mod codegen;
mod process;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Builds, loads, verifies and tests skep, and runs clusters of it on this machine.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Build the BPF programs into target/bpf.
    BuildEbpf,
    /// Make the generated files of proto/api from upstream's schema.
    Codegen(codegen::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match cli.command {
        Task::BuildEbpf => build::ebpf::run(),
        Task::Codegen(args) => codegen::run(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
