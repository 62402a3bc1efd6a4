//! Upkeep on a timer: logs that grew are rotated, directories of gone pods are removed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use proto_api::types::Object as _;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::runtime::labels;
use crate::volume::release_tree;
use crate::worker::{Context, PodDirectory};

const LOG_CHECK: Duration = Duration::from_secs(10);
/// Log checks between two sweeps of directories.
const SWEEP_EVERY: u32 = 6;

pub(crate) struct Upkeep {
    context: Arc<Context>,
    pods: PodDirectory,
}

impl Upkeep {
    pub(crate) fn new(context: Arc<Context>, pods: PodDirectory) -> Self {
        Self { context, pods }
    }

    /// Works until cancelled.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut round = 0_u32;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOG_CHECK) => {}
            }
            if let Err(error) = self.rotate_logs().await {
                debug!(%error, "logs not looked at");
            }
            round = round.wrapping_add(1);
            if round.is_multiple_of(SWEEP_EVERY) {
                self.sweep().await;
            }
        }
    }

    async fn rotate_logs(&self) -> Result<(), crate::runtime::RuntimeError> {
        let config = &self.context.config;
        let runtime = &self.context.runtime;
        let containers = runtime
            .list_containers(&labels::of_node(&config.node_name))
            .await?;
        for container in containers {
            if container.state() != proto::cri::v1::ContainerState::ContainerRunning {
                continue;
            }
            let Ok(status) = runtime.container_status(&container.id).await else {
                continue;
            };
            let path = PathBuf::from(&status.log_path);
            let length = tokio::fs::metadata(&path)
                .await
                .map_or(0, |metadata| metadata.len());
            if length <= config.log_max_bytes {
                continue;
            }
            if let Err(error) = self.rotate(&path, &container.id).await {
                warn!(log = %path.display(), %error, "log not rotated");
            }
        }
        Ok(())
    }

    async fn rotate(&self, path: &Path, container: &str) -> Result<(), String> {
        let stamp = self
            .context
            .clock
            .now()
            .strftime("%Y%m%d-%H%M%S")
            .to_string();
        let aside = PathBuf::from(format!("{}.{stamp}", path.display()));
        tokio::fs::rename(path, &aside)
            .await
            .map_err(|error| error.to_string())?;
        if let Err(error) = self.context.runtime.reopen_log(container).await {
            // The runtime still writes to the renamed file: give it its name back.
            tokio::fs::rename(&aside, path)
                .await
                .map_err(|back| back.to_string())?;
            return Err(error.to_string());
        }
        let keep = self.context.config.log_files_max.saturating_sub(1);
        let old = rotated_files(path).await;
        for file in old.iter().rev().skip(keep) {
            tokio::fs::remove_file(file)
                .await
                .map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// Removes directories of pods that neither the cluster nor the runtime knows.
    async fn sweep(&self) {
        let snapshot = self.context.hub.snapshot();
        if !snapshot.in_sync {
            return;
        }
        let node = &self.context.config.node_name;
        let Ok(sandboxes) = self
            .context
            .runtime
            .list_sandboxes(&labels::of_node(node))
            .await
        else {
            return;
        };
        let at_runtime = sandboxes
            .into_iter()
            .filter_map(|sandbox| Some(sandbox.metadata?.uid));
        let with_worker = self
            .pods
            .all()
            .into_iter()
            .map(|pod| pod.pod.uid().to_owned());
        let desired = snapshot.pods.keys().map(|uid| uid.to_string());
        let known: BTreeSet<String> = at_runtime.chain(with_worker).chain(desired).collect();
        let root = self.context.config.root_dir.join("pods");
        for (uid, directory) in children(&root).await {
            if known.contains(&uid) {
                continue;
            }
            info!(%uid, "removing the directory of a gone pod");
            if let Err(error) = self.context.volumes.remove(&uid).await {
                warn!(directory = %directory.display(), %error, "directory of a gone pod stays");
            }
        }
        for (name, directory) in children(&self.context.config.log_dir).await {
            let uid = name.rsplit('_').next().unwrap_or_default();
            // Only names of the form that this agent gives.
            if name.split('_').count() != 3 || known.contains(uid) {
                continue;
            }
            let at = directory.clone();
            let removed = tokio::task::spawn_blocking(move || release_tree(&at)).await;
            if let Ok(Err(error)) = removed {
                warn!(directory = %directory.display(), %error, "logs of a gone pod stay");
            }
        }
    }
}

async fn children(directory: &Path) -> Vec<(String, PathBuf)> {
    let mut found = Vec::new();
    let Ok(mut entries) = tokio::fs::read_dir(directory).await else {
        return found;
    };
    while let Ok(Some(entry)) = entries.next_entry().await {
        found.push((
            entry.file_name().to_string_lossy().into_owned(),
            entry.path(),
        ));
    }
    found
}

/// Rotated files of a log, the oldest first.
async fn rotated_files(log: &Path) -> Vec<PathBuf> {
    let Some((parent, name)) = log.parent().zip(log.file_name()) else {
        return Vec::new();
    };
    let prefix = format!("{}.", name.to_string_lossy());
    let mut files: Vec<PathBuf> = children(parent)
        .await
        .into_iter()
        .filter(|(name, _)| name.starts_with(&prefix))
        .map(|(_, path)| path)
        .collect();
    files.sort();
    files
}
