//! Runs one probe of one container again and again.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use proto_api::types::core::v1::{Container, Pod, Probe};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tracing::debug;

use super::count::{Count, Sample};
use super::{Board, HttpTarget, ProbeKind, port_number};
use crate::event::Kind;
use crate::runtime::RuntimeError;
use crate::worker::Context;

/// Longer output of a failed command is cut in its event.
const OUTPUT_MAX_CHARS: usize = 1024;

pub(super) struct Runner {
    pub(super) context: Arc<Context>,
    pub(super) board: Arc<Board>,
    pub(super) pod: Arc<Pod>,
    pub(super) container: Container,
    pub(super) container_id: String,
    pub(super) started_at: Option<Timestamp>,
    pub(super) pod_ip: String,
    pub(super) kind: ProbeKind,
    pub(super) probe: Probe,
    /// The container ran before this agent did.
    pub(super) adopted: bool,
    pub(super) started: watch::Sender<bool>,
}

fn seconds(value: Option<i32>, default: u64) -> Duration {
    let value = value
        .and_then(|value| u64::try_from(value).ok())
        .filter(|value| *value > 0);
    Duration::from_secs(value.unwrap_or(default))
}

fn threshold(value: Option<i32>, default: u32) -> u32 {
    value
        .and_then(|value| u32::try_from(value).ok())
        .filter(|v| *v > 0)
        .unwrap_or(default)
}

impl Runner {
    /// Probes until a failure of startup or liveness is final, startup has passed, or cancelled.
    pub(super) async fn run(self) {
        let period = seconds(self.probe.period_seconds, 10);
        if self.adopted {
            // Many containers found at once are not all probed in the same moment.
            tokio::time::sleep(period.mul_f64(self.context.chance.fraction())).await;
        }
        if self.kind != ProbeKind::Startup {
            let mut started = self.started.subscribe();
            if started.wait_for(|started| *started).await.is_err() {
                return;
            }
        }
        tokio::time::sleep(self.initial_wait()).await;
        let mut count = Count::new(
            threshold(self.probe.success_threshold, 1),
            threshold(self.probe.failure_threshold, 3),
        );
        let mut ticks = tokio::time::interval(period);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let sample = self.sample().await;
            self.tell(&sample);
            if let Some(success) = count.take(&sample)
                && self.settle(success)
            {
                return;
            }
        }
    }

    /// What is left of the initial delay, counted from the container's start.
    fn initial_wait(&self) -> Duration {
        let delay = self
            .probe
            .initial_delay_seconds
            .and_then(|delay| u64::try_from(delay).ok());
        let delay = Duration::from_secs(delay.unwrap_or(0));
        let age = self
            .started_at
            .map(|at| self.context.clock.now().duration_since(at));
        let age = age
            .and_then(|age| Duration::try_from(age).ok())
            .unwrap_or_default();
        delay.saturating_sub(age)
    }

    /// Writes a verdict; answers whether this probe is done with this container.
    fn settle(&self, success: bool) -> bool {
        match (self.kind, success) {
            (ProbeKind::Readiness, ready) => {
                self.board
                    .update(&self.container_id, |facts| facts.ready = ready);
                false
            }
            (ProbeKind::Liveness, true) => false,
            (ProbeKind::Liveness, false) => {
                self.board
                    .update(&self.container_id, |facts| facts.liveness_failed = true);
                true
            }
            (ProbeKind::Startup, true) => {
                self.board
                    .update(&self.container_id, |facts| facts.started = true);
                self.started.send_replace(true);
                true
            }
            (ProbeKind::Startup, false) => {
                self.board
                    .update(&self.container_id, |facts| facts.startup_failed = true);
                true
            }
        }
    }

    fn tell(&self, sample: &Sample) {
        let title = self.kind.title();
        let name = Some(self.container.name.as_str());
        match sample {
            Sample::Success => {}
            Sample::Failure(message) => {
                let message = format!("{title} probe failed: {message}");
                self.context
                    .events
                    .pod(&self.pod, name, Kind::Warning, "Unhealthy", message);
            }
            Sample::Unknown(message) => {
                debug!(container = %self.container.name, %message, "probe could not be run");
            }
        }
    }

    async fn sample(&self) -> Sample {
        let timeout = seconds(self.probe.timeout_seconds, 1);
        if let Some(exec) = &self.probe.exec {
            return self.exec(&exec.command, timeout).await;
        }
        let checked = if let Some(http) = &self.probe.http_get {
            match HttpTarget::new(http, &self.container, &self.pod_ip) {
                Ok(target) => self.context.http.get(&target, timeout).await.map(drop),
                Err(error) => return Sample::Unknown(error),
            }
        } else if let Some(tcp) = &self.probe.tcp_socket {
            let host = tcp
                .host
                .as_deref()
                .filter(|host| !host.is_empty())
                .unwrap_or(&self.pod_ip);
            match port_number(&tcp.port, &self.container) {
                Ok(port) => connect(host, port, timeout).await,
                Err(error) => return Sample::Unknown(error),
            }
        } else if let Some(grpc) = &self.probe.grpc {
            let service = grpc.service.clone().unwrap_or_default();
            match u16::try_from(grpc.port) {
                Ok(port) => super::http::grpc_health(&self.pod_ip, port, service, timeout).await,
                Err(_) => return Sample::Unknown(format!("invalid port {}", grpc.port)),
            }
        } else {
            return Sample::Unknown("missing probe handler".to_owned());
        };
        checked.map_or_else(Sample::Failure, |()| Sample::Success)
    }

    async fn exec(&self, command: &[String], timeout: Duration) -> Sample {
        let Ok(_lane) = self.context.execs.acquire().await else {
            return Sample::Unknown("the agent ends".to_owned());
        };
        let ran = self
            .context
            .runtime
            .exec_sync(&self.container_id, command.to_vec(), timeout)
            .await;
        match ran {
            Ok(output) if output.exit_code == 0 => Sample::Success,
            Ok(output) => {
                let text = String::from_utf8_lossy(&output.output);
                Sample::Failure(text.chars().take(OUTPUT_MAX_CHARS).collect())
            }
            Err(RuntimeError::Deadline { .. }) => Sample::Failure(format!(
                "command timed out: \"{}\" timed out after {timeout:?}",
                command.join(" ")
            )),
            Err(error) => Sample::Unknown(error.to_string()),
        }
    }
}

async fn connect(host: &str, port: u16, timeout: Duration) -> Result<(), String> {
    let address = format!("{}:{port}", bracketed(host));
    match tokio::time::timeout(timeout, TcpStream::connect(&address)).await {
        Ok(Ok(_stream)) => Ok(()),
        Ok(Err(error)) => Err(format!("dial tcp {address}: connect: {}", words(&error))),
        Err(_elapsed) => Err(format!("dial tcp {address}: i/o timeout")),
    }
}

/// An IPv6 address stands in brackets before a port.
pub(super) fn bracketed(host: &str) -> String {
    if host.contains(':') {
        format!("[{host}]")
    } else {
        host.to_owned()
    }
}

/// The system's words without the number that Rust adds.
pub(super) fn words(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error")
        .next()
        .unwrap_or_default()
        .to_lowercase()
}
