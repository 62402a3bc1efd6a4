//! The control plane's binary: flags, logging, signals. What starts in which order is in
//! `components`.

mod authority;
mod components;
mod config;
mod in_process;
mod leader;
mod members;
mod open_store;
mod rotate;
mod sessions;
mod snapshot;

use std::process::ExitCode;

use clap::Parser as _;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};
use tracing_subscriber::EnvFilter;

use crate::config::{Cli, Command, Config};

/// Objects come and go in small pieces on all threads; see the measurements in the room's README.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let Cli { command, config } = Cli::parse();
    start_logging(config.log_json);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let ended = match runtime {
        Ok(runtime) => runtime.block_on(async {
            match command {
                Some(Command::Snapshot(command)) => snapshot::run(command).await,
                Some(Command::Rotate(command)) => command.run(),
                None => run(config).await,
            }
        }),
        Err(error) => Err(anyhow::Error::new(error).context("start the async runtime")),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!(error = format!("{error:#}"), "skep-control-plane failed");
            ExitCode::FAILURE
        }
    }
}

fn start_logging(json: bool) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_unset| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    if json {
        log.json().init();
    } else {
        log.with_ansi(false).init();
    }
}

async fn run(config: Config) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    let signals = tokio::spawn(stop_on_signal(stop.clone()));
    let ended = components::run(config, stop.clone()).await;
    stop.cancel();
    signals.await?;
    ended
}

/// Cancels `stop` at SIGTERM or SIGINT.
async fn stop_on_signal(stop: CancellationToken) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) else {
        error!("cannot listen for signals; only SIGKILL will end this process");
        return;
    };
    tokio::select! {
        _ = terminate.recv() => info!("SIGTERM: stopping"),
        _ = interrupt.recv() => info!("SIGINT: stopping"),
        () = stop.cancelled() => {}
    }
    stop.cancel();
}
