//! Gets a container's image onto the node: policy, one pull an image at a time, upstream's words.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use proto::cri::v1 as cri;
use tokio::sync::Mutex as AsyncMutex;

use super::reference::{default_policy, effective_policy, fault};
use crate::pod::action::Failure;
use crate::runtime::{Runtime, RuntimeError};

/// What a pull needs to know.
#[derive(Debug, Clone)]
pub(crate) struct PullRequest {
    pub(crate) image: String,
    /// `imagePullPolicy`, if the container names one.
    pub(crate) policy: Option<String>,
    /// Tried in this order, then without.
    pub(crate) auths: Vec<cri::AuthConfig>,
    pub(crate) sandbox: Option<cri::PodSandboxConfig>,
}

/// An image on the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PulledImage {
    pub(crate) reference: String,
    pub(crate) image_id: String,
    /// How long the pull took; `None` when the image was there.
    pub(crate) pulled_in: Option<Duration>,
    pub(crate) size_bytes: u64,
}

/// Pulls different images side by side, and the same image once.
pub(crate) struct ImagePuller {
    runtime: Arc<dyn Runtime>,
    locks: Mutex<HashMap<String, Arc<AsyncMutex<()>>>>,
}

impl ImagePuller {
    pub(crate) fn new(runtime: Arc<dyn Runtime>) -> Self {
        Self {
            runtime,
            locks: Mutex::default(),
        }
    }

    /// Makes the image present as its policy asks. `on_pull` is called before bytes move.
    pub(crate) async fn ensure(
        &self,
        request: &PullRequest,
        on_pull: impl FnOnce() + Send,
    ) -> Result<PulledImage, Failure> {
        let image = &request.image;
        if let Some(fault) = fault(image) {
            return Err(Failure {
                reason: "InvalidImageName",
                message: format!(
                    "Failed to apply default image tag \"{image}\": couldn't parse image name \"{image}\": {fault}"
                ),
            });
        }
        let policy = request
            .policy
            .as_deref()
            .unwrap_or_else(|| default_policy(image));
        let policy = effective_policy(image, policy);
        let present = self.present(image).await?;
        match (policy, present) {
            ("Never", None) => Err(Failure {
                reason: "ErrImageNeverPull",
                message: format!(
                    "Container image \"{image}\" is not present with pull policy of Never"
                ),
            }),
            ("Never" | "IfNotPresent", Some(present)) => Ok(present),
            (_, present) => {
                self.pull_once(request, policy, present.is_some(), on_pull)
                    .await
            }
        }
    }

    async fn present(&self, image: &str) -> Result<Option<PulledImage>, Failure> {
        let found = self
            .runtime
            .image_status(image)
            .await
            .map_err(|error| Failure {
                reason: "ImageInspectError",
                message: format!("Failed to inspect image \"{image}\": {error}"),
            })?;
        Ok(found.map(|found| PulledImage {
            reference: found.id.clone(),
            image_id: found.repo_digests.first().unwrap_or(&found.id).clone(),
            pulled_in: None,
            size_bytes: found.size,
        }))
    }

    async fn pull_once(
        &self,
        request: &PullRequest,
        policy: &str,
        was_present: bool,
        on_pull: impl FnOnce() + Send,
    ) -> Result<PulledImage, Failure> {
        let lock = Arc::clone(self.locks.lock().entry(request.image.clone()).or_default());
        let result = {
            let _turn = lock.lock().await;
            // Somebody else may have pulled it while this one waited.
            let now_present = self.present(&request.image).await?;
            match now_present {
                Some(present) if !was_present && policy == "IfNotPresent" => Ok(present),
                _ => {
                    on_pull();
                    self.pull(request).await
                }
            }
        };
        drop(lock);
        self.locks
            .lock()
            .retain(|_, lock| Arc::strong_count(lock) > 1);
        result
    }

    async fn pull(&self, request: &PullRequest) -> Result<PulledImage, Failure> {
        let started = tokio::time::Instant::now();
        let mut last = None;
        let auths = request.auths.iter().cloned().map(Some).chain([None]);
        for auth in auths {
            let pulled = self
                .runtime
                .pull_image(&request.image, auth, request.sandbox.clone())
                .await;
            match pulled {
                Ok(reference) => {
                    let present = self.present(&request.image).await?;
                    let fallback = PulledImage {
                        image_id: reference.clone(),
                        reference,
                        pulled_in: None,
                        size_bytes: 0,
                    };
                    let image = present.unwrap_or(fallback);
                    return Ok(PulledImage {
                        pulled_in: Some(started.elapsed()),
                        ..image
                    });
                }
                Err(error) => last = Some(error),
            }
        }
        let message = last
            .map(|error: RuntimeError| message_of(&error))
            .unwrap_or_default();
        Err(Failure {
            reason: "ErrImagePull",
            message,
        })
    }
}

/// Pull errors are shown as the runtime words them, with the code in front as upstream has it.
fn message_of(error: &RuntimeError) -> String {
    match error {
        RuntimeError::NotFound { message, .. } => {
            format!("rpc error: code = NotFound desc = {message}")
        }
        other => other.to_string(),
    }
}
