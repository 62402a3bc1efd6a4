//! Carries out one action and turns what came of it into an outcome. Decides nothing.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use proto_api::types::Object as _;
use proto_api::types::core::v1::Container;
use tracing::debug;

use super::{Context, hooks, start};
use crate::container::resources::{CgroupLimits, container_resources, pod_cgroup, pod_limits};
use crate::container::sandbox::{SandboxContext, sandbox_config};
use crate::container::{dns, hosts};
use crate::event::Kind;
use crate::image::PullRequest;
use crate::pod::GRACE_MIN;
use crate::pod::action::{Action, Failure, Outcome, StopReason};
use crate::pod::model::{self, Target};
use crate::pod::observed::ObservedContainer;
use crate::volume::{self, PodTokens, owned_fields};

/// Processes that a pod may have at most.
const POD_PIDS_MAX: i64 = 16_384;
/// A last word longer than this is cut.
const MESSAGE_MAX_BYTES: usize = 4096;
const MESSAGE_LOG_LINES: usize = 80;
const MESSAGE_LOG_BYTES: usize = 2048;

/// What the actions of one pod share.
#[derive(Default)]
pub(super) struct Shared {
    pub(super) tokens: tokio::sync::Mutex<PodTokens>,
    /// Configuration of the newest sandbox: containers are created with the same.
    pub(super) sandbox: Mutex<Option<proto::cri::v1::PodSandboxConfig>>,
}

/// Does it. `pod_ips` are those of the pod's last status.
pub(super) async fn execute(
    context: &Arc<Context>,
    shared: &Shared,
    target: &Target,
    pod_ips: Vec<String>,
    action: Action,
) -> Outcome {
    let runtime = &context.runtime;
    match action {
        Action::PrepareVolumes => {
            Outcome::Volumes(prepare_volumes(context, shared, target, pod_ips).await)
        }
        Action::RunSandbox { attempt } => {
            let result = run_sandbox(context, shared, target, attempt).await;
            if let Err(message) = &result {
                let message = format!("Failed to create pod sandbox: {message}");
                let (events, reason) = (&context.events, "FailedCreatePodSandBox");
                events.pod(&target.pod, None, Kind::Warning, reason, message);
            }
            Outcome::Sandbox { attempt, result }
        }
        Action::EnsureImage { container } => {
            let result = ensure_image(context, target, &container).await;
            Outcome::Image { container, result }
        }
        Action::StartContainer(wanted) => {
            let container = wanted.container.clone();
            let result = start::start(context, shared, target, &wanted, &pod_ips).await;
            Outcome::Start { container, result }
        }
        Action::StopContainer {
            id,
            container,
            grace,
            why,
        } => {
            let result =
                stop_container(context, target, &pod_ips, &id, &container, grace, why).await;
            Outcome::Stop { id, result }
        }
        Action::RemoveContainer { id } => {
            let result = remove_container(context, &id).await;
            Outcome::Remove { id, result }
        }
        Action::ResizeContainer {
            id,
            container,
            amounts,
        } => {
            let result = resize_container(context, target, &id, &container).await;
            Outcome::Resize {
                id,
                amounts,
                result,
            }
        }
        Action::StopSandbox { id } => {
            let stopped = runtime.stop_sandbox(&id).await;
            let result = stopped.map_err(|error| error.to_string());
            Outcome::SandboxStop { id, result }
        }
        Action::RemoveSandbox { id } => {
            let removed = runtime.remove_sandbox(&id).await;
            let result = removed.map_err(|error| error.to_string());
            Outcome::SandboxRemove { id, result }
        }
        Action::TearDown => Outcome::TearDown(tear_down(context, target).await),
        Action::Forget => Outcome::Forget(forget(context, target).await),
    }
}

async fn prepare_volumes(
    context: &Context,
    shared: &Shared,
    target: &Target,
    pod_ips: Vec<String>,
) -> Result<Option<Timestamp>, String> {
    let fields = owned_fields(
        pod_ips,
        context.host_ip_texts(),
        context.allocatable.clone(),
    );
    let mut tokens = shared.tokens.lock().await;
    let result = context.volumes.prepare(target, &fields, &mut tokens).await;
    result.map_err(|error| {
        let message = error.to_string();
        context.events.pod(
            &target.pod,
            None,
            Kind::Warning,
            "FailedMount",
            message.clone(),
        );
        message
    })
}

pub(super) fn cgroup_of(context: &Context, target: &Target) -> String {
    let qos = model::qos_class(target.spec());
    pod_cgroup(&context.config.cgroup_parent, qos, target.pod.uid())
}

/// The sandbox configuration of this pod, made anew.
pub(super) async fn build_sandbox_config(
    context: &Context,
    target: &Target,
    attempt: u32,
) -> proto::cri::v1::PodSandboxConfig {
    let pod = &target.pod;
    let resolvers = context.dns().await;
    let (dns, dropped) = dns::pod_dns(target.spec(), pod.namespace(), &resolvers);
    if let Some(dropped) = dropped {
        context
            .events
            .pod(pod, None, Kind::Warning, "DNSConfigForming", dropped);
    }
    let log_dir = context
        .config
        .pod_log_dir(pod.namespace(), pod.name(), pod.uid());
    sandbox_config(
        pod,
        attempt,
        SandboxContext {
            node: &context.config.node_name,
            cluster_domain: &resolvers.cluster_domain,
            dns,
            cgroup: &cgroup_of(context, target),
            log_dir: log_dir.to_string_lossy().into_owned(),
        },
    )
}

async fn run_sandbox(
    context: &Context,
    shared: &Shared,
    target: &Target,
    attempt: u32,
) -> Result<String, String> {
    let _lane = context
        .starts
        .acquire()
        .await
        .map_err(|error| error.to_string())?;
    let limits = pod_limits(target.spec(), Some(POD_PIDS_MAX));
    apply_pod_limits(context, target, limits).await?;
    let config = build_sandbox_config(context, target, attempt).await;
    tokio::fs::create_dir_all(&config.log_directory)
        .await
        .map_err(|error| format!("create log directory {}: {error}", config.log_directory))?;
    *shared.sandbox.lock() = Some(config.clone());
    context
        .runtime
        .run_sandbox(config)
        .await
        .map_err(|error| error.to_string())
}

async fn ensure_image(context: &Context, target: &Target, name: &str) -> Result<String, Failure> {
    let gone = || Failure {
        reason: "CreateContainerConfigError",
        message: String::new(),
    };
    let (_, container) = target.container(name).ok_or_else(gone)?;
    let image = container.image.clone().unwrap_or_default();
    let request = PullRequest {
        image: image.clone(),
        policy: container
            .image_pull_policy
            .clone()
            .filter(|policy| !policy.is_empty()),
        auths: start::pull_credentials(target, &image),
        sandbox: None,
    };
    let (events, pod) = (&context.events, &target.pod);
    let announce = || {
        events.pod(
            pod,
            Some(name),
            Kind::Normal,
            "Pulling",
            format!("Pulling image \"{image}\""),
        );
    };
    let result = context.images.ensure(&request, announce).await;
    match &result {
        Ok(pulled) => {
            let message = match pulled.pulled_in {
                Some(took) => format!(
                    "Successfully pulled image \"{image}\" in {took:.3?} ({took:.3?} including \
                     waiting). Image size: {} bytes.",
                    pulled.size_bytes
                ),
                None => format!("Container image \"{image}\" already present on machine"),
            };
            events.pod(pod, Some(name), Kind::Normal, "Pulled", message);
        }
        Err(failure) => {
            let message = match failure.reason {
                "ErrImagePull" => {
                    format!("Failed to pull image \"{image}\": {}", failure.message)
                }
                "InvalidImageName" | "ImageInspectError" => failure.message.clone(),
                _ => format!("Error: {}", failure.reason),
            };
            let reason = if failure.reason == "ErrImageNeverPull" {
                "ErrImageNeverPull"
            } else {
                "Failed"
            };
            let message = if reason == "ErrImageNeverPull" {
                failure.message.clone()
            } else {
                message
            };
            events.pod(pod, Some(name), Kind::Warning, reason, message);
            let message = format!("Error: {}", failure.reason);
            events.pod(pod, Some(name), Kind::Warning, "Failed", message);
        }
    }
    result.map(|pulled| pulled.reference)
}

/// Runs preStop within the grace period, then lets the runtime stop the container.
async fn stop_container(
    context: &Arc<Context>,
    target: &Target,
    pod_ips: &[String],
    id: &str,
    name: &str,
    grace: Duration,
    why: StopReason,
) -> Result<(), String> {
    let found = target.container(name).map(|(_, container)| container);
    let found = found.as_deref();
    let (runs_hook, message) = stop_words(name, why);
    if let Some(message) = message {
        context
            .events
            .pod(&target.pod, Some(name), Kind::Normal, "Killing", message);
    }
    let started = tokio::time::Instant::now();
    let hook = found
        .filter(|_| runs_hook)
        .and_then(|container| Some((container, container.lifecycle.as_ref()?.pre_stop.as_ref()?)));
    if let Some((container, handler)) = hook {
        let run = hooks::run(context, handler, container, id, pod_ips, grace);
        match tokio::time::timeout(grace, run).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                let message = format!("PreStopHook failed: {error}");
                context.events.pod(
                    &target.pod,
                    Some(name),
                    Kind::Warning,
                    "FailedPreStopHook",
                    message,
                );
            }
            Err(_elapsed) => debug!(container = name, "preStop took the whole grace period"),
        }
    }
    let left = grace
        .saturating_sub(started.elapsed())
        .max(GRACE_MIN.min(grace.max(GRACE_MIN)));
    context
        .runtime
        .stop_container(id, left)
        .await
        .map_err(|error| error.to_string())
}

/// Whether the hook runs, and what the Killing event says.
fn stop_words(name: &str, why: StopReason) -> (bool, Option<String>) {
    let because = |text: &str| Some(format!("Container {name} {text}, will be restarted"));
    match why {
        StopReason::PodEnds => (true, Some(format!("Stopping container {name}"))),
        StopReason::GraceShrunk => (false, None),
        StopReason::LivenessFailed => (true, because("failed liveness probe")),
        StopReason::StartupFailed => (true, because("failed startup probe")),
        StopReason::SpecChanged => (true, because("definition changed")),
        StopReason::Resized => (true, because("resize requires restart")),
        StopReason::StateUnknown => (
            false,
            Some(format!(
                "Container is in unknown state, try killing it before restarting: {name}"
            )),
        ),
    }
}

/// Gives a running container what its spec says now. The pod's own cgroup must hold it before, and
/// may be narrower only after.
async fn resize_container(
    context: &Context,
    target: &Target,
    id: &str,
    name: &str,
) -> Result<(), String> {
    let (_, container) = model::container(target.spec(), name)
        .ok_or_else(|| format!("container {name} is not in the pod"))?;
    let limits = pod_limits(target.spec(), Some(POD_PIDS_MAX));
    let widened = apply_pod_limits(context, target, limits).await;
    let spec = target.spec();
    let resources = container_resources(spec, container, context.memory_capacity);
    let updated = context.runtime.update_resources(id, resources).await;
    updated.map_err(|error| error.to_string())?;
    match widened {
        Ok(()) => Ok(()),
        Err(_narrower_than_used) => apply_pod_limits(context, target, limits).await,
    }
}

async fn apply_pod_limits(
    context: &Context,
    target: &Target,
    limits: CgroupLimits,
) -> Result<(), String> {
    let (cgroups, path) = (context.cgroups.clone(), cgroup_of(context, target));
    let apply = move || {
        cgroups
            .apply(&path, limits)
            .map_err(|error| error.to_string())
    };
    blocking(apply).await
}

async fn remove_container(context: &Context, id: &str) -> Result<(), String> {
    let log = context
        .runtime
        .container_status(id)
        .await
        .map(|status| status.log_path);
    context
        .runtime
        .remove_container(id)
        .await
        .map_err(|error| error.to_string())?;
    if let Ok(log) = log
        && !log.is_empty()
        && let Err(error) = tokio::fs::remove_file(&log).await
    {
        debug!(%log, %error, "log of a removed container stays");
    }
    Ok(())
}

async fn tear_down(context: &Context, target: &Target) -> Result<(), String> {
    let cgroups = context.cgroups.clone();
    let mount = context.config.cgroup_mount.clone();
    let (parent, uid) = (
        context.config.cgroup_parent.clone(),
        target.pod.uid().to_owned(),
    );
    // The class of a pod whose object is gone is not known: it lies below one of them.
    blocking(move || {
        ["Guaranteed", "Burstable", "BestEffort"]
            .into_iter()
            .try_for_each(|qos| {
                let path = pod_cgroup(&parent, qos, &uid);
                cgroups
                    .remove(&mount, &path)
                    .map_err(|error| error.to_string())
            })
    })
    .await?;
    let removed = context.volumes.remove(target.pod.uid()).await;
    removed.map_err(|error| {
        let message = format!("cannot give back the pod's volumes: {error}");
        context.events.pod(
            &target.pod,
            None,
            Kind::Warning,
            "FailedUnmount",
            message.clone(),
        );
        message
    })
}

async fn forget(context: &Context, target: &Target) -> Result<(), String> {
    let pod = &target.pod;
    let directory = context
        .config
        .pod_log_dir(pod.namespace(), pod.name(), pod.uid());
    match tokio::fs::remove_dir_all(&directory).await {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(format!("remove logs {}: {error}", directory.display()))
        }
        _ => Ok(()),
    }
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(error.to_string()))
}

/// Host file behind a container's termination message path.
pub(super) fn message_file(
    context: &Context,
    uid: &str,
    name: &str,
    attempt: u32,
) -> std::path::PathBuf {
    volume::pod_dir(&context.config.root_dir, uid)
        .join("containers")
        .join(name)
        .join(attempt.to_string())
}

/// The last word of an ended container: its message file, or the end of its log.
pub(super) async fn termination_message(
    context: &Context,
    target: &Target,
    ended: &ObservedContainer,
) -> String {
    let path = message_file(context, target.pod.uid(), &ended.name, ended.attempt);
    let mut bytes = tokio::fs::read(&path).await.unwrap_or_default();
    bytes.truncate(MESSAGE_MAX_BYTES);
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let falls_back = |container: &Container| {
        container.termination_message_policy.as_deref() == Some("FallbackToLogsOnError")
    };
    let found = target.container(&ended.name);
    let use_log = text.is_empty()
        && ended.exit_code != 0
        && found.is_some_and(|(_, container)| falls_back(&container));
    if !use_log {
        return text;
    }
    let pod = &target.pod;
    let log = context
        .config
        .pod_log_dir(pod.namespace(), pod.name(), pod.uid())
        .join(start::log_path(&ended.name, ended.attempt));
    crate::stream::tail_text(&log, MESSAGE_LOG_LINES, MESSAGE_LOG_BYTES).await
}

/// The hosts file of a pod, written anew.
pub(super) async fn write_hosts(
    context: &Context,
    target: &Target,
    pod_ips: &[String],
) -> Result<std::path::PathBuf, String> {
    let directory = volume::pod_dir(&context.config.root_dir, target.pod.uid());
    let path = directory.join("etc-hosts");
    let text = hosts::hosts_file(&target.pod, pod_ips, &context.cluster_domain());
    let write = async {
        tokio::fs::create_dir_all(&directory).await?;
        tokio::fs::write(&path, text).await
    };
    write
        .await
        .map_err(|error: std::io::Error| format!("write {}: {error}", path.display()))?;
    Ok(path)
}
