//! The runtime trait over CRI v1: one thin method a call, each with its deadline.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use proto::cri::v1 as cri;
use proto::cri::v1::image_service_client::ImageServiceClient;
use proto::cri::v1::runtime_service_client::RuntimeServiceClient;
use tonic::transport::Channel;
use tonic::{Code, Response, Status};

use super::channel::{self, MESSAGE_MAX_BYTES};
use super::{ExecOutput, Runtime, RuntimeError};

/// Reads and small changes.
const SHORT: Duration = Duration::from_secs(10);
/// Creation of sandboxes and containers: a shim and runc are started.
const LONG: Duration = Duration::from_secs(120);
/// A pull moves as many bytes as the image has.
const PULL: Duration = Duration::from_secs(900);
/// What the runtime may take beyond the time it was given.
const MARGIN: Duration = Duration::from_secs(15);

/// A client of one runtime's CRI socket. Clones share the connection.
#[derive(Debug, Clone)]
pub struct CriClient {
    runtime: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
}

impl CriClient {
    /// A client of the runtime behind `socket`; connects on first use.
    #[must_use]
    pub fn new(socket: &Path) -> Self {
        let channel = channel::unix(socket.to_owned());
        Self {
            runtime: RuntimeServiceClient::new(channel.clone())
                .max_decoding_message_size(MESSAGE_MAX_BYTES),
            images: ImageServiceClient::new(channel).max_decoding_message_size(MESSAGE_MAX_BYTES),
        }
    }

    /// The stream of container events (containerd 1.7 and later).
    pub(crate) async fn container_events(
        &self,
    ) -> Result<tonic::Streaming<cri::ContainerEventResponse>, RuntimeError> {
        let mut client = self.runtime.clone();
        bounded(
            "GetContainerEvents",
            SHORT,
            client.get_container_events(cri::GetEventsRequest {}),
        )
        .await
    }
}

/// Awaits a call for at most `deadline` and names the call in its error.
async fn bounded<T>(
    call: &'static str,
    deadline: Duration,
    answer: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, RuntimeError> {
    match tokio::time::timeout(deadline, answer).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(classify(call, deadline, &status)),
        Err(_elapsed) => Err(RuntimeError::Deadline { call, deadline }),
    }
}

/// Sorts a gRPC status into what the agent distinguishes.
pub(crate) fn classify(call: &'static str, deadline: Duration, status: &Status) -> RuntimeError {
    let message = status.message().to_owned();
    match status.code() {
        Code::NotFound => RuntimeError::NotFound { call, message },
        Code::Unimplemented => RuntimeError::Unimplemented { call },
        Code::DeadlineExceeded => RuntimeError::Deadline { call, deadline },
        Code::Unavailable => RuntimeError::Unavailable { call, message },
        code => RuntimeError::Failed {
            call,
            code: code_name(code),
            message,
        },
    }
}

/// The spelling that Go programs print.
fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}

/// Whole seconds, rounded up: a grace period never gets shorter on its way.
fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs())
        .unwrap_or(i64::MAX)
        .saturating_add(i64::from(duration.subsec_nanos() > 0))
}

fn image_spec(image: &str) -> cri::ImageSpec {
    cri::ImageSpec {
        image: image.to_owned(),
        user_specified_image: image.to_owned(),
        ..cri::ImageSpec::default()
    }
}

fn selector(labels: &BTreeMap<String, String>) -> std::collections::HashMap<String, String> {
    labels
        .iter()
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

/// Turns "no such object" into success, for calls that make something absent.
fn absent_is_fine(result: Result<(), RuntimeError>) -> Result<(), RuntimeError> {
    match result {
        Err(error) if error.is_not_found() => Ok(()),
        other => other,
    }
}

/// Reads the details that the runtime gives on request: the first process of the sandbox, else the
/// path in its specification.
fn namespace_of(info: &std::collections::HashMap<String, String>) -> Option<PathBuf> {
    let info: serde_json::Value = serde_json::from_str(info.get("info")?).ok()?;
    if let Some(pid) = info["pid"].as_u64().filter(|pid| *pid > 0) {
        return Some(PathBuf::from(format!("/proc/{pid}/ns/net")));
    }
    let namespaces = info["runtimeSpec"]["linux"]["namespaces"].as_array()?;
    let network = namespaces.iter().find(|ns| ns["type"] == "network")?;
    let path = network["path"].as_str().filter(|path| !path.is_empty())?;
    Some(PathBuf::from(path))
}

#[async_trait]
impl Runtime for CriClient {
    async fn version(&self) -> Result<cri::VersionResponse, RuntimeError> {
        let mut client = self.runtime.clone();
        let request = cri::VersionRequest {
            version: "v1".to_owned(),
        };
        bounded("Version", SHORT, client.version(request)).await
    }

    async fn status(&self) -> Result<cri::StatusResponse, RuntimeError> {
        let mut client = self.runtime.clone();
        bounded(
            "Status",
            SHORT,
            client.status(cri::StatusRequest { verbose: false }),
        )
        .await
    }

    async fn run_sandbox(&self, config: cri::PodSandboxConfig) -> Result<String, RuntimeError> {
        let mut client = self.runtime.clone();
        let request = cri::RunPodSandboxRequest {
            config: Some(config),
            runtime_handler: String::new(),
        };
        let answer = bounded("RunPodSandbox", LONG, client.run_pod_sandbox(request)).await?;
        Ok(answer.pod_sandbox_id)
    }

    async fn stop_sandbox(&self, id: &str) -> Result<(), RuntimeError> {
        let mut client = self.runtime.clone();
        let request = cri::StopPodSandboxRequest {
            pod_sandbox_id: id.to_owned(),
        };
        let answer = bounded("StopPodSandbox", LONG, client.stop_pod_sandbox(request)).await;
        absent_is_fine(answer.map(drop))
    }

    async fn remove_sandbox(&self, id: &str) -> Result<(), RuntimeError> {
        let mut client = self.runtime.clone();
        let request = cri::RemovePodSandboxRequest {
            pod_sandbox_id: id.to_owned(),
        };
        let answer = bounded("RemovePodSandbox", LONG, client.remove_pod_sandbox(request)).await;
        absent_is_fine(answer.map(drop))
    }

    async fn sandbox_status(&self, id: &str) -> Result<cri::PodSandboxStatus, RuntimeError> {
        let mut client = self.runtime.clone();
        let request = cri::PodSandboxStatusRequest {
            pod_sandbox_id: id.to_owned(),
            verbose: false,
        };
        let answer = bounded(
            "PodSandboxStatus",
            SHORT,
            client.pod_sandbox_status(request),
        )
        .await?;
        answer.status.ok_or_else(|| RuntimeError::NotFound {
            call: "PodSandboxStatus",
            message: format!("sandbox {id} has no status"),
        })
    }

    async fn list_sandboxes(
        &self,
        labels: &BTreeMap<String, String>,
    ) -> Result<Vec<cri::PodSandbox>, RuntimeError> {
        let mut client = self.runtime.clone();
        let filter = cri::PodSandboxFilter {
            label_selector: selector(labels),
            ..Default::default()
        };
        let request = cri::ListPodSandboxRequest {
            filter: Some(filter),
        };
        let answer = bounded("ListPodSandbox", SHORT, client.list_pod_sandbox(request)).await?;
        Ok(answer.items)
    }

    async fn create_container(
        &self,
        sandbox_id: &str,
        config: cri::ContainerConfig,
        sandbox_config: cri::PodSandboxConfig,
    ) -> Result<String, RuntimeError> {
        let mut client = self.runtime.clone();
        let request = cri::CreateContainerRequest {
            pod_sandbox_id: sandbox_id.to_owned(),
            config: Some(config),
            sandbox_config: Some(sandbox_config),
        };
        let answer = bounded(
            "CreateContainer",
            LONG,
            Box::pin(client.create_container(request)),
        )
        .await?;
        Ok(answer.container_id)
    }

    async fn start_container(&self, id: &str) -> Result<(), RuntimeError> {
        let mut client = self.runtime.clone();
        let request = cri::StartContainerRequest {
            container_id: id.to_owned(),
        };
        bounded("StartContainer", LONG, client.start_container(request))
            .await
            .map(drop)
    }

    async fn stop_container(&self, id: &str, grace: Duration) -> Result<(), RuntimeError> {
        let mut client = self.runtime.clone();
        let request = cri::StopContainerRequest {
            container_id: id.to_owned(),
            timeout: seconds(grace),
        };
        let answer = bounded(
            "StopContainer",
            grace + MARGIN,
            client.stop_container(request),
        )
        .await;
        absent_is_fine(answer.map(drop))
    }

    async fn remove_container(&self, id: &str) -> Result<(), RuntimeError> {
        let mut client = self.runtime.clone();
        let request = cri::RemoveContainerRequest {
            container_id: id.to_owned(),
        };
        let answer = bounded("RemoveContainer", LONG, client.remove_container(request)).await;
        absent_is_fine(answer.map(drop))
    }

    async fn list_containers(
        &self,
        labels: &BTreeMap<String, String>,
    ) -> Result<Vec<cri::Container>, RuntimeError> {
        let mut client = self.runtime.clone();
        let filter = cri::ContainerFilter {
            label_selector: selector(labels),
            ..Default::default()
        };
        let request = cri::ListContainersRequest {
            filter: Some(filter),
        };
        let answer = bounded("ListContainers", SHORT, client.list_containers(request)).await?;
        Ok(answer.containers)
    }

    async fn container_status(&self, id: &str) -> Result<cri::ContainerStatus, RuntimeError> {
        let mut client = self.runtime.clone();
        let request = cri::ContainerStatusRequest {
            container_id: id.to_owned(),
            verbose: false,
        };
        let answer = bounded("ContainerStatus", SHORT, client.container_status(request)).await?;
        answer.status.ok_or_else(|| RuntimeError::NotFound {
            call: "ContainerStatus",
            message: format!("container {id} has no status"),
        })
    }

    async fn reopen_log(&self, id: &str) -> Result<(), RuntimeError> {
        let mut client = self.runtime.clone();
        let request = cri::ReopenContainerLogRequest {
            container_id: id.to_owned(),
        };
        bounded(
            "ReopenContainerLog",
            SHORT,
            client.reopen_container_log(request),
        )
        .await
        .map(drop)
    }

    async fn exec_sync(
        &self,
        id: &str,
        command: Vec<String>,
        timeout: Duration,
    ) -> Result<ExecOutput, RuntimeError> {
        let mut client = self.runtime.clone();
        let request = cri::ExecSyncRequest {
            container_id: id.to_owned(),
            cmd: command,
            timeout: seconds(timeout),
        };
        let answer = bounded("ExecSync", timeout + MARGIN, client.exec_sync(request)).await?;
        let mut output = answer.stdout;
        output.extend_from_slice(&answer.stderr);
        Ok(ExecOutput {
            output,
            exit_code: answer.exit_code,
        })
    }

    async fn attach(&self, request: cri::AttachRequest) -> Result<String, RuntimeError> {
        let mut client = self.runtime.clone();
        let answer = bounded("Attach", SHORT, client.attach(request)).await?;
        Ok(answer.url)
    }

    async fn network_namespace(&self, sandbox_id: &str) -> Result<PathBuf, RuntimeError> {
        let mut client = self.runtime.clone();
        let request = cri::PodSandboxStatusRequest {
            pod_sandbox_id: sandbox_id.to_owned(),
            verbose: true,
        };
        let call = "PodSandboxStatus";
        let answer = bounded(call, SHORT, client.pod_sandbox_status(request)).await?;
        namespace_of(&answer.info).ok_or_else(|| RuntimeError::NotFound {
            call,
            message: format!("the runtime does not tell the network namespace of {sandbox_id}"),
        })
    }

    async fn update_resources(
        &self,
        id: &str,
        resources: cri::LinuxContainerResources,
    ) -> Result<(), RuntimeError> {
        let mut client = self.runtime.clone();
        let request = cri::UpdateContainerResourcesRequest {
            container_id: id.to_owned(),
            linux: Some(resources),
            ..Default::default()
        };
        let call = client.update_container_resources(request);
        bounded("UpdateContainerResources", SHORT, call)
            .await
            .map(drop)
    }

    async fn image_status(&self, image: &str) -> Result<Option<cri::Image>, RuntimeError> {
        let mut client = self.images.clone();
        let request = cri::ImageStatusRequest {
            image: Some(image_spec(image)),
            verbose: false,
        };
        let answer = bounded("ImageStatus", SHORT, client.image_status(request)).await?;
        Ok(answer.image)
    }

    async fn pull_image(
        &self,
        image: &str,
        auth: Option<cri::AuthConfig>,
        sandbox: Option<cri::PodSandboxConfig>,
    ) -> Result<String, RuntimeError> {
        let mut client = self.images.clone();
        let request = cri::PullImageRequest {
            image: Some(image_spec(image)),
            auth,
            sandbox_config: sandbox,
        };
        let answer = bounded("PullImage", PULL, Box::pin(client.pull_image(request))).await?;
        Ok(answer.image_ref)
    }

    async fn list_images(&self) -> Result<Vec<cri::Image>, RuntimeError> {
        let mut client = self.images.clone();
        let request = cri::ListImagesRequest { filter: None };
        Ok(bounded("ListImages", SHORT, client.list_images(request))
            .await?
            .images)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn the_network_namespace_is_that_of_the_first_process() {
        let of = |text: &str| {
            let info = HashMap::from([("info".to_owned(), text.to_owned())]);
            namespace_of(&info)
        };
        let running = r#"{"pid":77,"runtimeSpec":{"linux":{"namespaces":[]}}}"#;
        assert_eq!(of(running), Some(PathBuf::from("/proc/77/ns/net")));
        let path = r#"{"pid":0,"runtimeSpec":{"linux":{"namespaces":
            [{"type":"pid"},{"type":"network","path":"/run/netns/a"}]}}}"#;
        assert_eq!(of(path), Some(PathBuf::from("/run/netns/a")));
        for nothing in ["", "{}", r#"{"runtimeSpec":{"linux":{"namespaces":[]}}}"#] {
            assert_eq!(of(nothing), None, "{nothing}");
        }
        assert_eq!(namespace_of(&HashMap::new()), None);
    }
}
