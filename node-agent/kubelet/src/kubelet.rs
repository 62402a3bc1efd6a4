//! Start and end of the kubelet part: makes the pieces, in order, and owns their tasks.

use std::sync::Arc;
use std::time::Duration;

use node_agent_state::{StateHub, Upstream};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::clock::{Chance, Clock};
use crate::config::KubeletConfig;
use crate::container::cgroup::Hierarchies;
use crate::event::EventRecorder;
use crate::image::{ImagePuller, pause};
use crate::node::{MachineFacts, NodeReporter, Upkeep, allocatable};
use crate::probe::HttpClient;
use crate::runtime::{ContainerdClient, CriClient, ImportError, Pin, Runtime, watch_events};
use crate::stream::StreamHandler;
use crate::volume::Volumes;
use crate::worker::{Context, WorkerTable};

/// Hints that wait for the table; a full queue makes the reader of events wait.
const HINTS_MAX: usize = 1024;
const PAUSE_RETRY: Duration = Duration::from_millis(500);
const PAUSE_VISIBLE_DEADLINE: Duration = Duration::from_secs(10);

/// Why the kubelet part could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A directory cannot be made.
    #[error("start kubelet: cannot create directory {directory}: {source}")]
    Directory {
        /// Which.
        directory: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The TLS client for probes cannot be made.
    #[error("start kubelet: cannot set up TLS for probes: {reason}")]
    Tls {
        /// Why.
        reason: String,
    },
}

/// The kubelet part of the agent.
#[derive(Debug)]
pub struct Kubelet;

/// A running kubelet part.
#[derive(Debug)]
pub struct KubeletHandle {
    stop: CancellationToken,
    tasks: TaskTracker,
    streams: StreamHandler,
    containerd: ContainerdClient,
}

impl Kubelet {
    /// Starts everything and returns at once; pods start when the runtime answers and the first
    /// snapshot is there. Call inside a multi-threaded runtime.
    ///
    /// # Errors
    /// [`StartError`] when a directory cannot be made.
    pub async fn start(
        config: KubeletConfig,
        hub: StateHub,
        upstream: Arc<dyn Upstream>,
        clock: Arc<dyn Clock>,
        chance: Arc<dyn Chance>,
    ) -> Result<KubeletHandle, StartError> {
        for directory in [&config.root_dir, &config.log_dir, &config.run_dir] {
            tokio::fs::create_dir_all(directory)
                .await
                .map_err(|source| StartError::Directory {
                    directory: directory.display().to_string(),
                    source,
                })?;
        }
        let http = HttpClient::new().map_err(|reason| StartError::Tls { reason })?;
        let root = config.root_dir.clone();
        let facts = tokio::task::spawn_blocking(move || MachineFacts::read(&root)).await;
        let facts = facts.unwrap_or_default();
        let cri = CriClient::new(&config.containerd_socket);
        let containerd = ContainerdClient::new(&config.containerd_socket);
        let runtime: Arc<dyn Runtime> = Arc::new(cri.clone());
        let (events, event_sender) = EventRecorder::new(&config.node_name, Arc::clone(&clock));
        let seams = Seams {
            runtime: Arc::clone(&runtime),
            upstream: Arc::clone(&upstream),
            hub,
            events,
            clock: Arc::clone(&clock),
            chance: Arc::clone(&chance),
            http,
        };
        let context = Arc::new(make_context(config, &facts, seams));
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let table = WorkerTable::new(Arc::clone(&context), stop.child_token());
        let streams = StreamHandler {
            pods: table.directory(),
            runtime,
            containerd: containerd.clone(),
            pipes: context.config.run_dir.join("exec").into(),
            clock,
            chance,
        };
        let upkeep = Upkeep::new(Arc::clone(&context), table.directory());
        let reporter = NodeReporter::new(Arc::clone(&context), facts);
        let (hint_sender, hints) = mpsc::channel(HINTS_MAX);
        // Events go out as long as anything may still record one.
        tasks.spawn(event_sender.run(upstream, stop.child_token()));
        tasks.spawn(watch_events(
            cri,
            containerd.clone(),
            hint_sender,
            stop.child_token(),
        ));
        tasks.spawn(upkeep.run(stop.child_token()));
        tasks.spawn(reporter.run(stop.child_token()));
        let start = bring_up(Arc::clone(&context), containerd.clone(), stop.child_token());
        tasks.spawn(async move {
            if start.await {
                table.run(hints).await;
            }
        });
        tasks.close();
        Ok(KubeletHandle {
            stop,
            tasks,
            streams,
            containerd,
        })
    }
}

/// What workers reach the world through.
struct Seams {
    runtime: Arc<dyn Runtime>,
    upstream: Arc<dyn Upstream>,
    hub: StateHub,
    events: EventRecorder,
    clock: Arc<dyn Clock>,
    chance: Arc<dyn Chance>,
    http: HttpClient,
}

fn make_context(config: KubeletConfig, facts: &MachineFacts, seams: Seams) -> Context {
    let lanes = usize::try_from(facts.cpus).unwrap_or(1).max(1);
    Context {
        images: ImagePuller::new(Arc::clone(&seams.runtime)),
        volumes: Volumes::new(
            config.root_dir.clone(),
            Arc::clone(&seams.upstream),
            Arc::clone(&seams.clock),
            Arc::clone(&seams.chance),
        ),
        cgroups: Hierarchies::detect(&config.cgroup_mount),
        starts: Semaphore::new(lanes * 2),
        execs: Semaphore::new(lanes),
        allocatable: allocatable(facts, &config),
        memory_capacity: i64::try_from(facts.memory_bytes).unwrap_or(i64::MAX),
        runtime: seams.runtime,
        upstream: seams.upstream,
        hub: seams.hub,
        events: seams.events,
        clock: seams.clock,
        chance: seams.chance,
        http: seams.http,
        config,
    }
}

impl KubeletHandle {
    /// Serves logs and exec of this node's pods.
    #[must_use]
    pub fn streams(&self) -> StreamHandler {
        self.streams.clone()
    }

    /// Imports an image archive (OCI layout or `docker save`); answers the images' names.
    ///
    /// # Errors
    /// [`ImportError`] when the archive is malformed or containerd does not take it.
    pub async fn import_image(&self, archive: &[u8], pin: Pin) -> Result<Vec<String>, ImportError> {
        self.containerd
            .import_image(archive, pin, &*self.streams.clock)
            .await
    }

    /// Ends all tasks and waits for them. Containers go on running; a later start adopts them.
    pub async fn shutdown(self) {
        self.stop.cancel();
        self.tasks.wait().await;
    }
}

/// Waits until the pause image is there: no pod can start before. False when stopped.
async fn bring_up(
    context: Arc<Context>,
    containerd: ContainerdClient,
    stop: CancellationToken,
) -> bool {
    let mut told = false;
    loop {
        let ready = tokio::select! {
            () = stop.cancelled() => return false,
            ready = ensure_pause(&context, &containerd) => ready,
        };
        match ready {
            Ok(()) => return true,
            Err(error) if told => tracing::debug!(%error, "pause image not imported yet"),
            Err(error) => {
                warn!(%error, "pause image not imported yet");
                told = true;
            }
        }
        tokio::select! {
            () = stop.cancelled() => return false,
            () = tokio::time::sleep(PAUSE_RETRY) => {}
        }
    }
}

async fn ensure_pause(context: &Context, containerd: &ContainerdClient) -> Result<(), String> {
    let present = context.runtime.image_status(pause::PAUSE_IMAGE).await;
    if present.map_err(|error| error.to_string())?.is_some() {
        return Ok(());
    }
    let archive = pause::archive().map_err(|error| error.to_string())?;
    containerd
        .import_image(&archive, Pin::Pinned, &*context.clock)
        .await
        .map_err(|error| error.to_string())?;
    // CRI learns of the image by an event of its own.
    let visible = async {
        loop {
            match context.runtime.image_status(pause::PAUSE_IMAGE).await {
                Ok(Some(_)) => return Ok(()),
                Ok(None) => tokio::time::sleep(Duration::from_millis(10)).await,
                Err(error) => return Err(error.to_string()),
            }
        }
    };
    let result = tokio::time::timeout(PAUSE_VISIBLE_DEADLINE, visible).await;
    result
        .unwrap_or_else(|_elapsed| Err("CRI does not see the imported pause image".to_owned()))?;
    info!(image = pause::PAUSE_IMAGE, "pause image imported");
    Ok(())
}
