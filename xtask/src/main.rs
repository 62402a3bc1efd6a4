//! The commands of the workspace: this file changes when a command is added or renamed.
//!
//! Every command lives in its own file and takes parsed arguments; this file only maps names to
//! them and turns an error into one readable report and an exit code.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line tool: its answer goes to the terminal"
)]

mod archive;
mod bench;
mod build;
mod check;
mod cluster;
mod codegen;
mod fuzz;
mod leaks;
mod process;
mod setup;
mod test;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Builds, loads, verifies and tests skep, and runs clusters of it on this machine.
#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    disable_help_subcommand = true
)]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Install what this machine lacks: packages, the BPF linker, kubectl.
    Setup,
    BuildEbpf(build::ebpf::Arguments),
    /// Make the generated files of proto/api from upstream's schema.
    Codegen(codegen::Args),
    Up(cluster::up::Arguments),
    Down(cluster::down::Arguments),
    Exec(cluster::exec::Arguments),
    #[command(subcommand)]
    Image(cluster::image::Arguments),
    Verify(check::verify::VerifyArguments),
    Load(check::verify::LoadArguments),
    /// Check which of our crates uses which.
    Deps,
    /// Check formatting, house rules, edges, licences, lints and documentation.
    Lint(check::lint::Arguments),
    Test(test::Arguments),
    Bench(bench::Arguments),
    Fuzz(fuzz::Arguments),
    /// Steps that need root; run by the other commands.
    #[command(subcommand, hide = true)]
    Privileged(cluster::privileged::Step),
    /// Print what a cluster could leave on the machine.
    #[command(hide = true)]
    Leaks,
    /// Becomes another program, with no signal blocked.
    #[command(hide = true)]
    Become {
        #[arg(last = true, required = true)]
        program: Vec<String>,
    },
    /// Becomes a test program, as root where its crate needs that.
    #[command(hide = true)]
    TestRunner(test::RunnerArguments),
    /// Keeps a cluster's control plane running.
    #[command(hide = true)]
    ControlPlaneRun {
        name: String,
    },
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> anyhow::Result<ExitCode> {
    match task {
        Task::Exec(arguments) => return cluster::exec::run(&arguments),
        Task::Privileged(step) => return cluster::privileged::perform(step),
        Task::Setup => setup::run()?,
        Task::Codegen(arguments) => codegen::run(&arguments)?,
        Task::BuildEbpf(arguments) => build::ebpf::run(&arguments)?,
        Task::Up(arguments) => cluster::up::run(&arguments)?,
        Task::Down(arguments) => cluster::down::run(&arguments)?,
        Task::Image(arguments) => cluster::image::run(&arguments)?,
        Task::Verify(arguments) => check::verify::verify(&arguments)?,
        Task::Load(arguments) => check::verify::load(&arguments)?,
        Task::Deps => check::deps::run()?,
        Task::Lint(arguments) => check::lint::run(&arguments)?,
        Task::Test(arguments) => test::run(&arguments)?,
        Task::Bench(arguments) => bench::run(&arguments)?,
        Task::Fuzz(arguments) => fuzz::run(&arguments)?,
        Task::Leaks => leaks::print()?,
        Task::TestRunner(arguments) => test::become_test(&arguments)?,
        Task::Become { program } => cluster::supervise::become_program(&program)?,
        Task::ControlPlaneRun { name } => cluster::control_plane::run(&name)?,
    }
    Ok(ExitCode::SUCCESS)
}
