//! One container start: configuration, creation, start, postStart; each with its own failure reason.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use proto::cri::v1 as cri;
use proto_api::types::Object as _;
use proto_api::types::core::v1::{Container, VolumeMount};

use super::execute::{self, Shared};
use super::{Context, hooks};
use crate::container::config::{
    ContainerContext, container_config, file_mount, sub_path, termination_path, volume_mount,
};
use crate::container::env::{Environment, environment};
use crate::container::service_env::{Links, variables};
use crate::container::{ConfigError, fields::FieldContext, security};
use crate::event::Kind;
use crate::pod::action::{Failure, StartContainer};
use crate::pod::model::{self, Role, Target};
use crate::runtime::labels;
use crate::volume::{self, bind_sub_path};

/// A hook that never ends holds the start at most this long.
const POST_START_MAX: Duration = Duration::from_secs(600);

fn config_error(message: impl Into<String>) -> Failure {
    Failure {
        reason: "CreateContainerConfigError",
        message: message.into(),
    }
}

/// Log of one run, relative to the pod's log directory.
pub(super) fn log_path(container: &str, attempt: u32) -> String {
    format!("{container}/{attempt}.log")
}

pub(super) async fn start(
    context: &Arc<Context>,
    shared: &Shared,
    target: &Target,
    wanted: &StartContainer,
    pod_ips: &[String],
) -> Result<(), Failure> {
    let Some((role, container)) = target.container(&wanted.container) else {
        return Err(config_error(format!(
            "container {} is not in the pod",
            wanted.container
        )));
    };
    let _lane = context
        .starts
        .acquire()
        .await
        .map_err(|error| config_error(error.to_string()))?;
    let result =
        configured_start(context, shared, target, wanted, (role, &container), pod_ips).await;
    if let Err(failure) = &result {
        let message = format!("Error: {}", failure.message);
        context.events.pod(
            &target.pod,
            Some(&container.name),
            Kind::Warning,
            "Failed",
            message,
        );
    }
    let id = result?;
    post_start(context, target, &container, &id, pod_ips).await
}

async fn configured_start(
    context: &Arc<Context>,
    shared: &Shared,
    target: &Target,
    wanted: &StartContainer,
    (role, container): (Role, &Container),
    pod_ips: &[String],
) -> Result<String, Failure> {
    let sandbox = sandbox_config_of(context, shared, target).await;
    let ips = sandbox_ips(context, target, &wanted.sandbox_id, pod_ips).await?;
    let mut config = configure(context, target, wanted, (role, container), &ips).await?;
    if role == Role::Ephemeral {
        join_target(context, target, &container.name, &mut config).await?;
    }
    let pod = &target.pod;
    let log = PathBuf::from(&sandbox.log_directory).join(&config.log_path);
    if let Some(parent) = log.parent() {
        let made = tokio::fs::create_dir_all(parent).await;
        made.map_err(|error| Failure {
            reason: "CreateContainerError",
            message: format!("create log directory {}: {error}", parent.display()),
        })?;
    }
    let created = context
        .runtime
        .create_container(&wanted.sandbox_id, config, sandbox)
        .await;
    let id = created.map_err(|error| Failure {
        reason: "CreateContainerError",
        message: error.to_string(),
    })?;
    let name = &container.name;
    let message = format!("Created container: {name}");
    context
        .events
        .pod(pod, Some(name), Kind::Normal, "Created", message);
    let started = context.runtime.start_container(&id).await;
    started.map_err(|error| Failure {
        reason: "RunContainerError",
        message: error.to_string(),
    })?;
    let message = format!("Started container {name}");
    context
        .events
        .pod(pod, Some(name), Kind::Normal, "Started", message);
    Ok(id)
}

/// Puts an ephemeral container among the processes of the one that it is to look into.
async fn join_target(
    context: &Context,
    target: &Target,
    name: &str,
    config: &mut cri::ContainerConfig,
) -> Result<(), Failure> {
    let mut all = target.spec().ephemeral_containers.iter();
    let wanted = all
        .find(|container| container.name == name)
        .and_then(|container| container.target_container_name.as_deref())
        .filter(|wanted| !wanted.is_empty());
    let Some(wanted) = wanted else { return Ok(()) };
    let mut selector = labels::of_pod(&context.config.node_name, target.pod.uid());
    selector.insert(labels::CONTAINER_NAME.to_owned(), wanted.to_owned());
    let found = context.runtime.list_containers(&selector).await;
    let found = found.map_err(|error| config_error(error.to_string()))?;
    let running = found
        .into_iter()
        .find(|one| one.state() == cri::ContainerState::ContainerRunning);
    let running = running
        .ok_or_else(|| config_error(format!("unable to find target container \"{wanted}\"")))?;
    let options = config
        .linux
        .as_mut()
        .and_then(|linux| linux.security_context.as_mut())
        .and_then(|context| context.namespace_options.as_mut());
    if let Some(options) = options {
        options.pid = cri::NamespaceMode::Target.into();
        options.target_id = running.id;
    }
    Ok(())
}

/// The configuration the sandbox was made with; made again by an agent that found the sandbox.
async fn sandbox_config_of(
    context: &Context,
    shared: &Shared,
    target: &Target,
) -> cri::PodSandboxConfig {
    let known = shared.sandbox.lock().clone();
    match known {
        Some(config) => config,
        None => {
            let config = execute::build_sandbox_config(context, target, 0).await;
            *shared.sandbox.lock() = Some(config.clone());
            config
        }
    }
}

/// Addresses of the pod: the sandbox knows them before the status does.
async fn sandbox_ips(
    context: &Context,
    target: &Target,
    sandbox_id: &str,
    known: &[String],
) -> Result<Vec<String>, Failure> {
    if target.spec().host_network.unwrap_or(false) {
        return Ok(context.host_ip_texts());
    }
    if !known.is_empty() {
        return Ok(known.to_vec());
    }
    let status = context.runtime.sandbox_status(sandbox_id).await;
    let status = status.map_err(|error| config_error(error.to_string()))?;
    Ok(status
        .network
        .into_iter()
        .flat_map(|network| {
            std::iter::once(network.ip).chain(network.additional_ips.into_iter().map(|ip| ip.ip))
        })
        .filter(|ip| !ip.is_empty())
        .collect())
}

async fn configure(
    context: &Arc<Context>,
    target: &Target,
    wanted: &StartContainer,
    (role, container): (Role, &Container),
    pod_ips: &[String],
) -> Result<cri::ContainerConfig, Failure> {
    let pod = &target.pod;
    let spec = target.spec();
    let image = context
        .runtime
        .image_status(&wanted.image_ref)
        .await
        .ok()
        .flatten();
    security::check_non_root(&model::display(pod), spec, container, image.as_ref())
        .map_err(|error| config_error(error.0))?;
    let environment = build_environment(context, target, container, pod_ips)
        .map_err(|error| config_error(error.0))?;
    let mut mounts = Vec::new();
    for (index, mount) in container.volume_mounts.iter().enumerate() {
        let made = mount_volume(context, target, container, mount, index, &environment).await;
        mounts.push(made.map_err(|error| config_error(error.0))?);
    }
    let has = |path: &str| {
        container
            .volume_mounts
            .iter()
            .any(|mount| mount.mount_path == path)
    };
    // A pod on the node's network keeps the node's file, unless it brings aliases.
    let own_hosts = !spec.host_network.unwrap_or(false) || !spec.host_aliases.is_empty();
    if own_hosts && !has("/etc/hosts") {
        let path = execute::write_hosts(context, target, pod_ips)
            .await
            .map_err(config_error)?;
        mounts.push(file_mount("/etc/hosts", &path.to_string_lossy()));
    }
    let message_path = termination_path(container);
    if !has(message_path) {
        let file = execute::message_file(context, pod.uid(), &container.name, wanted.attempt);
        make_message_file(&file).await.map_err(config_error)?;
        mounts.push(file_mount(message_path, &file.to_string_lossy()));
    }
    let _: Role = role;
    Ok(container_config(
        pod,
        container,
        wanted,
        ContainerContext {
            node: &context.config.node_name,
            environment,
            mounts,
            memory_capacity: context.memory_capacity,
            log_path: log_path(&container.name, wanted.attempt),
        },
    ))
}

async fn make_message_file(file: &std::path::Path) -> Result<(), String> {
    use std::os::unix::fs::PermissionsExt as _;
    let make = async {
        if let Some(parent) = file.parent() {
            tokio::fs::create_dir_all(parent).await?;
        }
        tokio::fs::write(file, b"").await?;
        // Any user of the container may leave a word.
        tokio::fs::set_permissions(file, std::fs::Permissions::from_mode(0o666)).await
    };
    make.await
        .map_err(|error: std::io::Error| format!("create {}: {error}", file.display()))
}

fn build_environment(
    context: &Context,
    target: &Target,
    container: &Container,
    pod_ips: &[String],
) -> Result<Environment, ConfigError> {
    let snapshot = context.hub.snapshot();
    let links = if target.spec().enable_service_links.unwrap_or(true) {
        Links::On
    } else {
        Links::Off
    };
    let services = snapshot
        .services
        .values()
        .filter_map(|entry| entry.service.as_deref());
    let services = variables(services, target.pod.namespace(), links);
    let host_ips = context.host_ip_texts();
    let fields = FieldContext {
        pod: &target.pod,
        pod_ips,
        host_ips: &host_ips,
        allocatable: &context.allocatable,
    };
    environment(container, fields, &target.inputs, &services)
}

async fn mount_volume(
    context: &Context,
    target: &Target,
    container: &Container,
    mount: &VolumeMount,
    index: usize,
    environment: &Environment,
) -> Result<cri::Mount, ConfigError> {
    let root = &context.config.root_dir;
    let uid = target.pod.uid();
    let Some(found) = volume::find(target.spec(), &mount.name) else {
        return Err(ConfigError(format!("volume {} is not defined", mount.name)));
    };
    let directory = volume::directory(root, uid, found);
    let host_path = match sub_path(mount, environment)? {
        None => directory,
        Some(sub_path) => {
            let bound = volume::pod_dir(root, uid)
                .join("volume-subpaths")
                .join(&mount.name)
                .join(&container.name)
                .join(index.to_string());
            let work = move || {
                bind_sub_path(&directory, &sub_path, &bound)
                    .map_err(|error| format!("failed to prepare subPath {sub_path}: {error}"))
            };
            execute::blocking(work).await.map_err(ConfigError)?
        }
    };
    Ok(volume_mount(mount, &host_path.to_string_lossy()))
}

/// The hook is part of the start: if it fails the container is killed.
async fn post_start(
    context: &Arc<Context>,
    target: &Target,
    container: &Container,
    id: &str,
    pod_ips: &[String],
) -> Result<(), Failure> {
    let hook = container
        .lifecycle
        .as_ref()
        .and_then(|lifecycle| lifecycle.post_start.as_ref());
    let Some(hook) = hook else { return Ok(()) };
    let result = hooks::run(context, hook, container, id, pod_ips, POST_START_MAX).await;
    let Err(error) = result else { return Ok(()) };
    let message = format!("PostStartHook failed: {error}");
    let (events, name) = (&context.events, Some(container.name.as_str()));
    events.pod(
        &target.pod,
        name,
        Kind::Warning,
        "FailedPostStartHook",
        message.clone(),
    );
    let message = format!("FailedPostStartHook: {message}");
    events.pod(&target.pod, name, Kind::Normal, "Killing", message.clone());
    let grace = model::grace(&target.pod);
    if let Err(error) = context.runtime.stop_container(id, grace).await {
        tracing::warn!(container = %container.name, %error, "cannot stop after a failed postStart");
    }
    Err(Failure {
        reason: "PostStartHookError",
        message,
    })
}

/// Credentials from the pod's pull secrets that fit the image's registry and path.
pub(super) fn pull_credentials(target: &Target, image: &str) -> Vec<cri::AuthConfig> {
    let namespace = target.pod.namespace();
    let names = target
        .spec()
        .image_pull_secrets
        .iter()
        .filter_map(|secret| secret.name.as_deref());
    let configs = names.filter_map(|name| {
        let secret = target.inputs.secret(namespace, name)?;
        let new = secret.data.get(".dockerconfigjson");
        let data = new.or_else(|| secret.data.get(".dockercfg"))?;
        let json: serde_json::Value = serde_json::from_slice(&data.0).ok()?;
        Some(if new.is_some() {
            json["auths"].clone()
        } else {
            json
        })
    });
    let full = crate::image::normalize(image);
    let entries = configs
        .filter_map(|config| config.as_object().cloned())
        .flatten();
    entries
        .filter(|(registry, _)| registry_matches(registry, &full))
        .map(|(_, entry)| auth_config(&entry))
        .collect()
}

fn registry_matches(registry: &str, image: &str) -> bool {
    let bare = registry
        .trim_start_matches("https://")
        .trim_start_matches("http://");
    let bare = bare
        .trim_end_matches('/')
        .trim_end_matches("/v1")
        .trim_end_matches("/v2");
    let bare = if bare == "index.docker.io" {
        "docker.io"
    } else {
        bare
    };
    image
        .strip_prefix(bare)
        .is_some_and(|rest| rest.starts_with(['/', ':', '@']))
}

fn auth_config(entry: &serde_json::Value) -> cri::AuthConfig {
    let text = |key: &str| entry[key].as_str().unwrap_or_default().to_owned();
    let (mut username, mut password) = (text("username"), text("password"));
    let decoded = base64::engine::general_purpose::STANDARD
        .decode(text("auth"))
        .ok();
    if let Some((user, pass)) = decoded
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .and_then(|pair| {
            pair.split_once(':')
                .map(|(u, p)| (u.to_owned(), p.to_owned()))
        })
    {
        (username, password) = (user, pass);
    }
    cri::AuthConfig {
        username,
        password,
        identity_token: text("identitytoken"),
        registry_token: text("registrytoken"),
        ..cri::AuthConfig::default()
    }
}
