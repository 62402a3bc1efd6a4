//! What only containerd's own API offers: images from memory, events of 1.6, exec with a real stdin.
//!
//! Everything lives in the namespace that containerd's CRI plugin uses. Calls are thin; the image
//! archive is read by [`crate::image`].

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use containerd_client::services::v1 as native;
use containerd_client::services::v1::containers_client::ContainersClient;
use containerd_client::services::v1::content_client::ContentClient;
use containerd_client::services::v1::events_client::EventsClient;
use containerd_client::services::v1::images_client::ImagesClient;
use containerd_client::services::v1::leases_client::LeasesClient;
use containerd_client::services::v1::tasks_client::TasksClient;
use containerd_client::types::Descriptor;
use jiff::Timestamp;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use super::channel::{self, MESSAGE_MAX_BYTES};
use crate::clock::Clock;
use crate::image::archive::{Archive, ArchiveError, Blob};

/// Namespace of containerd's CRI plugin.
const NAMESPACE: &str = "k8s.io";
/// Tells CRI to list an image as pinned: never swept away.
const PINNED: (&str, &str) = ("io.cri-containerd.pinned", "pinned");
const MANAGED: (&str, &str) = ("io.cri-containerd.image", "managed");
/// Bytes of a blob in one message; gRPC's default limit on the other side is 16 MiB.
const CHUNK_BYTES: usize = 1024 * 1024;
/// Unreferenced blobs of an import that died are swept away after this.
const LEASE_LIFE: jiff::SignedDuration = jiff::SignedDuration::from_secs(600);
const CALL: Duration = Duration::from_secs(30);

/// Why an image could not be imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The archive is not an image archive.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// containerd refused or did not answer.
    #[error("import image: containerd answered {step} with {status}")]
    Containerd {
        /// The call.
        step: &'static str,
        /// Its answer.
        #[source]
        status: Box<Status>,
    },
}

/// A client of containerd's own API. Clones share the connection.
#[derive(Debug, Clone)]
pub struct ContainerdClient {
    channel: Channel,
}

impl ContainerdClient {
    /// A client of the containerd behind `socket`; connects on first use.
    #[must_use]
    pub fn new(socket: &Path) -> Self {
        Self {
            channel: channel::unix(socket.to_owned()),
        }
    }

    pub(super) fn tasks(&self) -> TasksClient<Channel> {
        TasksClient::new(self.channel.clone())
    }

    pub(super) fn containers(&self) -> ContainersClient<Channel> {
        ContainersClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_MAX_BYTES)
    }

    pub(super) fn events(&self) -> EventsClient<Channel> {
        EventsClient::new(self.channel.clone())
    }

    /// Labels of a container (or sandbox), `None` when there is no such container.
    pub(crate) async fn container_labels(
        &self,
        id: &str,
    ) -> Result<Option<HashMap<String, String>>, Status> {
        let request = request(native::GetContainerRequest { id: id.to_owned() });
        match self.containers().get(request).await {
            Ok(answer) => Ok(answer
                .into_inner()
                .container
                .map(|container| container.labels)),
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(status),
        }
    }

    /// Imports an OCI or docker archive. `pin`ned images are never swept away.
    /// Answers the names under which the images are now known. Idempotent.
    ///
    /// # Errors
    /// [`ImportError`] when the archive is malformed or containerd does not take it.
    pub async fn import_image(
        &self,
        archive: &[u8],
        pin: Pin,
        clock: &dyn Clock,
    ) -> Result<Vec<String>, ImportError> {
        let archive = Archive::parse(archive)?;
        let lease = self.lease(clock.now()).await?;
        let imported = self.import_under(&archive, pin, &lease).await;
        let released = self.release(&lease).await;
        let names = imported?;
        released.map(|()| names)
    }

    async fn import_under(
        &self,
        archive: &Archive,
        pin: Pin,
        lease: &str,
    ) -> Result<Vec<String>, ImportError> {
        for blob in &archive.blobs {
            self.write_blob(blob, lease).await?;
        }
        let mut names = Vec::new();
        for image in &archive.images {
            let target = Descriptor {
                media_type: image.media_type.clone(),
                digest: image.digest.clone(),
                size: image.size,
                ..Descriptor::default()
            };
            self.put_image(&image.name, target, pin, lease).await?;
            names.push(image.name.clone());
        }
        Ok(names)
    }

    async fn lease(&self, now: Timestamp) -> Result<String, ImportError> {
        let mut leases = LeasesClient::new(self.channel.clone());
        let end = now.checked_add(LEASE_LIFE).unwrap_or(Timestamp::MAX);
        let end = end.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let labels = HashMap::from([("containerd.io/gc.expire".to_owned(), end)]);
        let id = format!("skep-import-{}", now.as_nanosecond());
        let message = native::CreateRequest { id, labels };
        let answer = call("lease", leases.create(request(message))).await?;
        Ok(answer.lease.map(|lease| lease.id).unwrap_or_default())
    }

    async fn release(&self, lease: &str) -> Result<(), ImportError> {
        let mut leases = LeasesClient::new(self.channel.clone());
        let message = native::DeleteRequest {
            id: lease.to_owned(),
            sync: false,
        };
        call("release", leases.delete(request(message)))
            .await
            .map(drop)
    }

    async fn write_blob(&self, blob: &Blob, lease: &str) -> Result<(), ImportError> {
        let mut content = ContentClient::new(self.channel.clone());
        let total = i64::try_from(blob.data.len()).unwrap_or(i64::MAX);
        let reference = format!("skep-import-{}", blob.digest);
        let mut messages = Vec::new();
        let mut offset = 0_i64;
        for chunk in blob.data.chunks(CHUNK_BYTES) {
            messages.push(native::WriteContentRequest {
                action: native::WriteAction::Write.into(),
                r#ref: reference.clone(),
                total,
                expected: blob.digest.clone(),
                offset,
                data: chunk.to_vec(),
                ..native::WriteContentRequest::default()
            });
            offset += i64::try_from(chunk.len()).unwrap_or(0);
        }
        messages.push(native::WriteContentRequest {
            action: native::WriteAction::Commit.into(),
            r#ref: reference,
            total,
            expected: blob.digest.clone(),
            offset,
            labels: blob.references.clone().into_iter().collect(),
            ..native::WriteContentRequest::default()
        });
        let mut stream = request(futures::stream::iter(messages));
        stream
            .metadata_mut()
            .insert("containerd-lease", ascii(lease));
        let drain = async {
            let mut answers = content.write(stream).await?.into_inner();
            while answers.message().await?.is_some() {}
            Ok(tonic::Response::new(()))
        };
        match call("write", drain).await {
            // The blob is there already, from an earlier import.
            Err(ImportError::Containerd { status, .. }) if status.code() == Code::AlreadyExists => {
                Ok(())
            }
            other => other,
        }
    }

    async fn put_image(
        &self,
        name: &str,
        target: Descriptor,
        pin: Pin,
        lease: &str,
    ) -> Result<(), ImportError> {
        let mut images = ImagesClient::new(self.channel.clone());
        let mut labels = HashMap::from([(MANAGED.0.to_owned(), MANAGED.1.to_owned())]);
        match pin {
            Pin::Pinned => {
                labels.insert(PINNED.0.to_owned(), PINNED.1.to_owned());
            }
            Pin::Unpinned => {}
        }
        let image = native::Image {
            name: name.to_owned(),
            target: Some(target),
            labels,
            ..Default::default()
        };
        let message = native::CreateImageRequest {
            image: Some(image.clone()),
            ..Default::default()
        };
        let mut create = request(message);
        create
            .metadata_mut()
            .insert("containerd-lease", ascii(lease));
        match call("create image", images.create(create)).await {
            Err(ImportError::Containerd { status, .. }) if status.code() == Code::AlreadyExists => {
                let message = native::UpdateImageRequest {
                    image: Some(image),
                    ..Default::default()
                };
                call("update image", images.update(request(message)))
                    .await
                    .map(drop)
            }
            other => other.map(drop),
        }
    }
}

/// Whether an imported image may be swept away when space is short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pin {
    /// Never.
    Pinned,
    /// As any other.
    Unpinned,
}

/// A request in the CRI plugin's namespace.
pub(super) fn request<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(
        "containerd-namespace",
        MetadataValue::from_static(NAMESPACE),
    );
    request
}

fn ascii(text: &str) -> MetadataValue<Ascii> {
    MetadataValue::try_from(text).unwrap_or_else(|_not_ascii| MetadataValue::from_static(""))
}

async fn call<T>(
    step: &'static str,
    answer: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, ImportError> {
    let result = tokio::time::timeout(CALL, answer)
        .await
        .unwrap_or_else(|_elapsed| Err(Status::deadline_exceeded("no answer in time")));
    result
        .map(tonic::Response::into_inner)
        .map_err(|status| ImportError::Containerd {
            step,
            status: Box::new(status),
        })
}
