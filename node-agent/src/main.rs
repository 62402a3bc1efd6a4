//! The node agent's binary: flags, logging, signals. What starts in which order is in `components`.
//!
//! Under the name of the CNI plugin the same program relays one call to the running agent, before
//! anything else is initialised.

mod checkpoint;
mod components;
mod config;
mod inspect;
mod names;
mod pod_network;
mod sessions;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;
use node_agent_network::cni::plugin;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};
use tracing_subscriber::EnvFilter;

use crate::config::Config;

fn main() -> ExitCode {
    let program = std::env::args().next().unwrap_or_default();
    if plugin::is_plugin(&program) {
        return plugin::run(&program);
    }
    let config = Config::parse();
    start_logging(&config);
    match run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!(error = format!("{error:#}"), "the node agent stops");
            ExitCode::FAILURE
        }
    }
}

fn start_logging(config: &Config) {
    // Packets that only pretend to be answers are no news, and anybody can send them.
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_unset| EnvFilter::new("info,hickory_net=error"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    if config.log_json {
        log.json().init();
    } else {
        log.with_ansi(false).init();
    }
}

/// Runs until SIGTERM or SIGINT.
fn run(config: Config) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    let told = stop.clone();
    let end = move || {
        info!("told to stop; pods go on running");
        told.cancel();
    };
    ctrlc::set_handler(end).context("listen for signals")?;
    let runtime = Runtime::new().context("start the async runtime")?;
    runtime.block_on(components::run(config, stop))
}
