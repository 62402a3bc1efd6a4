//! A node for tests: an own containerd in a temporary directory, an upstream that remembers.

mod image;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use node_agent_kubelet::clock::{SeededChance, SystemClock};
use node_agent_kubelet::{Kubelet, KubeletConfig, KubeletHandle, Pin};
use node_agent_state::{
    IssuedToken, PodRef, Snapshot, StateHub, StateWriter, TokenRequest, Upstream, UpstreamError,
};
use parking_lot::Mutex;
use proto_api::types::Object as _;
use proto_api::types::core::v1::{ConfigMap, Event, Node, Pod, PodStatus, Secret};

/// A loaded machine is slow; a wrong one never gets there.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
pub(crate) const BUSYBOX: &str = "skep.local/busybox:latest";

/// What the kubelet reported.
#[derive(Default)]
pub(crate) struct Reports {
    pub(crate) statuses: Mutex<BTreeMap<String, Vec<PodStatus>>>,
    pub(crate) finished: Mutex<Vec<PodRef>>,
    pub(crate) events: Mutex<Vec<Event>>,
    pub(crate) nodes: Mutex<Vec<Node>>,
    pub(crate) tokens: Mutex<Vec<TokenRequest>>,
}

#[async_trait]
impl Upstream for Reports {
    async fn pod_status(&self, pod: &PodRef, status: &PodStatus) -> Result<(), UpstreamError> {
        self.statuses
            .lock()
            .entry(pod.uid.clone())
            .or_default()
            .push(status.clone());
        Ok(())
    }

    async fn pod_finished(&self, pod: &PodRef) -> Result<(), UpstreamError> {
        self.finished.lock().push(pod.clone());
        Ok(())
    }

    async fn node(&self, node: &Node) -> Result<Node, UpstreamError> {
        self.nodes.lock().push(node.clone());
        Ok(node.clone())
    }

    async fn events(&self, events: &[Event]) -> Result<(), UpstreamError> {
        self.events.lock().extend_from_slice(events);
        Ok(())
    }

    async fn token(&self, request: &TokenRequest) -> Result<IssuedToken, UpstreamError> {
        self.tokens.lock().push(request.clone());
        Ok(IssuedToken {
            token: format!("token-for-{}", request.service_account),
            expires: SystemTime::now() + Duration::from_secs(3600),
        })
    }
}

/// Whether this machine can run the tests; says loudly when it cannot.
pub(crate) fn can_run() -> bool {
    let root = nix::unistd::geteuid().is_root();
    let containerd = Command::new("containerd").arg("--version").output().is_ok();
    let busybox = Path::new("/bin/busybox").exists();
    if root && containerd && busybox {
        return true;
    }
    eprintln!(
        "SKIPPED: needs root ({root}), containerd ({containerd}) and busybox-static ({busybox})"
    );
    false
}

pub(crate) struct TestNode {
    pub(crate) reports: Arc<Reports>,
    pub(crate) config: KubeletConfig,
    hub: StateHub,
    writer: StateWriter,
    snapshot: Mutex<Snapshot>,
    handle: Option<KubeletHandle>,
    containerd: Child,
    directory: tempfile::TempDir,
}

impl TestNode {
    pub(crate) async fn start(name: &str) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("skep-kubelet-")
            .tempdir()
            .unwrap();
        let containerd = start_containerd(directory.path());
        let (writer, hub) = StateHub::new();
        let root = directory.path();
        let mut config =
            KubeletConfig::new(format!("test-{name}"), vec!["127.0.0.1".parse().unwrap()]);
        config.containerd_socket = socket(root);
        config.root_dir = root.join("kubelet");
        config.log_dir = root.join("logs");
        config.run_dir = root.join("run");
        config.cgroup_parent = format!("/skep-kubelet-{name}-{}", std::process::id());
        config.relist_period = Duration::from_secs(5);
        let mut node = Self {
            reports: Arc::default(),
            config,
            hub,
            writer,
            snapshot: Mutex::new(Snapshot {
                in_sync: true,
                ..Snapshot::default()
            }),
            handle: None,
            containerd,
            directory,
        };
        node.start_kubelet().await;
        node.until("containerd answers", |node| {
            node.reports.nodes.lock().iter().any(|n| {
                n.status.as_ref().is_some_and(|status| {
                    status
                        .node_info
                        .as_ref()
                        .is_some_and(|info| !info.container_runtime_version.is_empty())
                })
            })
        })
        .await;
        let image = image::archive();
        let names = node
            .handle()
            .import_image(&image, Pin::Unpinned)
            .await
            .unwrap();
        assert_eq!(names, [BUSYBOX]);
        node
    }

    pub(crate) async fn start_kubelet(&mut self) {
        let upstream: Arc<dyn Upstream> = Arc::clone(&self.reports) as Arc<dyn Upstream>;
        let handle = Kubelet::start(
            self.config.clone(),
            self.hub.clone(),
            upstream,
            Arc::new(SystemClock),
            Arc::new(SeededChance::new(7)),
        )
        .await
        .unwrap();
        self.handle = Some(handle);
    }

    pub(crate) async fn stop_kubelet(&mut self) {
        if let Some(handle) = self.handle.take() {
            handle.shutdown().await;
        }
    }

    pub(crate) fn handle(&self) -> &KubeletHandle {
        self.handle.as_ref().unwrap()
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Snapshot)) {
        let mut snapshot = self.snapshot.lock();
        change(&mut snapshot);
        snapshot.sequence += 1;
        self.writer.publish(Arc::new(snapshot.clone()));
    }

    pub(crate) fn put_pod(&self, pod: &Pod) {
        self.change(|snapshot| {
            snapshot
                .pods
                .insert(pod.uid().into(), Arc::new(pod.clone()));
        });
    }

    pub(crate) fn put_config_map(&self, map: serde_json::Value) {
        let map: ConfigMap = serde_json::from_value(map).unwrap();
        let name = node_agent_state::ObjectName::new(map.namespace(), map.name());
        self.change(|snapshot| {
            snapshot.config_maps.insert(name, Arc::new(map));
        });
    }

    pub(crate) fn put_secret(&self, secret: serde_json::Value) {
        let secret: Secret = serde_json::from_value(secret).unwrap();
        let name = node_agent_state::ObjectName::new(secret.namespace(), secret.name());
        self.change(|snapshot| {
            snapshot.secrets.insert(name, Arc::new(secret));
        });
    }

    /// Marks for deletion, as the API server does, and removes the object when the kubelet is done.
    pub(crate) async fn delete_pod(&self, pod: &Pod, grace: i64) {
        let mut pod = pod.clone();
        pod.metadata.deletion_timestamp = Some(jiff::Timestamp::now().into());
        pod.metadata.deletion_grace_period_seconds = Some(grace);
        self.put_pod(&pod);
        let uid = pod.uid().to_owned();
        self.until("the pod is finished", |node| {
            node.reports
                .finished
                .lock()
                .iter()
                .any(|finished| finished.uid == uid)
        })
        .await;
        self.forget_pod(&uid).await;
    }

    pub(crate) async fn forget_pod(&self, uid: &str) {
        self.change(|snapshot| {
            snapshot.pods.remove(uid);
        });
        let path = self.config.pod_dir(uid);
        self.until("the pod's directory is gone", |_| !path.exists())
            .await;
        let selector = format!("label.io.kubernetes.pod.uid=={uid}");
        let deadline = Instant::now() + DEADLINE;
        while !self
            .ctr(&["containers", "list", "-q", &selector])
            .trim()
            .is_empty()
        {
            assert!(Instant::now() < deadline, "containers of {uid} stay");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let suffix = format!("_{uid}");
        self.until("the pod's logs are gone", |node| {
            let entries = std::fs::read_dir(&node.config.log_dir).unwrap();
            let mut names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
            names.all(|name| !name.ends_with(&suffix))
        })
        .await;
    }

    pub(crate) fn status(&self, uid: &str) -> PodStatus {
        let statuses = self.reports.statuses.lock();
        statuses
            .get(uid)
            .and_then(|statuses| statuses.last().cloned())
            .unwrap_or_default()
    }

    pub(crate) async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !holds(self) {
            assert!(
                Instant::now() < deadline,
                "not within {DEADLINE:?}: {what}\nstatuses: {:#?}\nevents: {:#?}",
                self.reports
                    .statuses
                    .lock()
                    .iter()
                    .map(|(uid, all)| (uid.clone(), all.last().cloned()))
                    .collect::<Vec<_>>(),
                self.event_lines(),
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) async fn until_status(
        &self,
        uid: &str,
        what: &str,
        holds: impl Fn(&PodStatus) -> bool,
    ) {
        self.until(what, |node| holds(&node.status(uid))).await;
    }

    pub(crate) async fn until_phase(&self, uid: &str, phase: &str) {
        self.until_status(uid, &format!("phase {phase}"), |status| {
            status.phase.as_deref() == Some(phase)
        })
        .await;
    }

    pub(crate) fn event_lines(&self) -> Vec<String> {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        self.reports
            .events
            .lock()
            .iter()
            .map(|e| {
                format!(
                    "{} {} {}",
                    text(&e.type_),
                    text(&e.reason),
                    text(&e.message)
                )
            })
            .collect()
    }

    pub(crate) fn ctr(&self, arguments: &[&str]) -> String {
        let output = Command::new("ctr")
            .arg("--address")
            .arg(&self.config.containerd_socket)
            .args(["--namespace", "k8s.io"])
            .args(arguments)
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    pub(crate) async fn logs(
        &self,
        session: node_agent_kubelet::LogSession,
    ) -> Result<String, String> {
        let (sender, mut receiver) = tokio::sync::mpsc::channel::<bytes::Bytes>(16);
        let streams = self.handle().streams();
        let collect = async {
            let mut text = Vec::new();
            while let Some(bytes) = receiver.recv().await {
                text.extend_from_slice(&bytes);
            }
            String::from_utf8(text).unwrap()
        };
        let read = async move {
            let result = streams.logs(&session, &sender).await;
            drop(sender);
            result
        };
        let (result, text) = tokio::join!(read, collect);
        result.map(|()| text).map_err(|error| error.message)
    }

    pub(crate) async fn finish(mut self) {
        let pods: Vec<Arc<Pod>> = self.snapshot.lock().pods.values().cloned().collect();
        for pod in pods {
            let mut pod = (*pod).clone();
            pod.spec
                .get_or_insert_default()
                .termination_grace_period_seconds = Some(1);
            self.delete_pod(&pod, 1).await;
        }
        self.stop_kubelet().await;
        self.release();
    }

    fn release(&mut self) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.containerd.id()).unwrap());
        let _sent = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ended = self.containerd.wait();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let mut below: Vec<&str> = mounts
            .lines()
            .filter_map(|line| line.split(' ').nth(4))
            .filter(|point| Path::new(point).starts_with(self.directory.path()))
            .collect();
        below.reverse();
        for point in below {
            let _gone = nix::mount::umount2(point, nix::mount::MntFlags::MNT_DETACH);
        }
        remove_cgroups(&self.config.cgroup_parent);
    }
}

impl Drop for TestNode {
    fn drop(&mut self) {
        if self.handle.is_some() {
            // A failed test: end what still runs before its directory goes.
            self.kill_leftovers();
            self.release();
        }
    }
}

impl TestNode {
    /// Kills every process that belongs to this node's containerd, by pid.
    fn kill_leftovers(&self) {
        let marks = [
            self.directory.path().to_string_lossy().into_owned(),
            self.config.cgroup_parent.clone(),
        ];
        let own = std::process::id();
        let processes = std::fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .filter_map(|entry| {
                entry
                    .file_name()
                    .to_str()?
                    .parse::<i32>()
                    .ok()
                    .filter(|pid| i64::from(*pid) != i64::from(own))
            });
        for pid in processes {
            let read =
                |file: &str| std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            let text =
                String::from_utf8_lossy(&[read("cmdline"), read("cgroup")].concat()).into_owned();
            let is_containerd = i64::from(pid) == i64::from(self.containerd.id());
            if !is_containerd && marks.iter().any(|mark| text.contains(mark)) {
                let signal = nix::sys::signal::Signal::SIGKILL;
                let _sent = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal);
            }
        }
    }
}

fn remove_cgroups(parent: &str) {
    let Ok(roots) = std::fs::read_dir("/sys/fs/cgroup") else {
        return;
    };
    for root in roots.flatten() {
        remove_tree(&root.path().join(parent.trim_start_matches('/')));
    }
}

fn remove_tree(directory: &Path) {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return;
    };
    for entry in entries.flatten().filter(|entry| entry.path().is_dir()) {
        remove_tree(&entry.path());
    }
    let _gone = std::fs::remove_dir(directory);
}

fn socket(root: &Path) -> PathBuf {
    root.join("containerd.sock")
}

fn start_containerd(root: &Path) -> Child {
    use std::os::unix::fs::PermissionsExt as _;
    let (cni, conf) = (root.join("cni-bin"), root.join("cni-conf"));
    std::fs::create_dir_all(&cni).unwrap();
    std::fs::create_dir_all(&conf).unwrap();
    let answer = r#"#!/bin/sh
cat > /dev/null
[ "$CNI_COMMAND" = ADD ] && echo '{"cniVersion":"0.4.0","interfaces":[{"name":"eth0","sandbox":"x"}],"ips":[{"version":"4","interface":0,"address":"192.0.2.77/32"}]}'
exit 0
"#;
    for name in ["noop", "loopback"] {
        let path = cni.join(name);
        std::fs::write(&path, answer).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let list = r#"{"cniVersion":"0.4.0","name":"noop","plugins":[{"type":"noop"}]}"#;
    std::fs::write(conf.join("10-noop.conflist"), list).unwrap();
    let config = format!(
        r#"version = 2
root = "{root}/root"
state = "{root}/state"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.aufs", "io.containerd.internal.v1.opt"]
[grpc]
  address = "{socket}"
[ttrpc]
  address = "{socket}.ttrpc"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "skep.local/pause:3"
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  disable_apparmor = true
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{cni}"
    conf_dir = "{conf}"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
"#,
        root = root.display(),
        socket = socket(root).display(),
        cni = cni.display(),
        conf = conf.display(),
    );
    let path = root.join("config.toml");
    std::fs::write(&path, config).unwrap();
    let log = std::fs::File::create(root.join("containerd.log")).unwrap();
    Command::new("containerd")
        .arg("--config")
        .arg(&path)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

/// A pod of one busybox container that runs a shell script.
#[expect(clippy::needless_pass_by_value, reason = "literals at every call")]
pub(crate) fn pod(name: &str, spec: serde_json::Value) -> Pod {
    serde_json::from_value(serde_json::json!({
        "metadata": {"name": name, "namespace": "default", "uid": format!("uid-{name}"),
                     "labels": {"app": name}, "generation": 1,
                     "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": spec,
    }))
    .unwrap()
}

pub(crate) fn shell(script: &str) -> serde_json::Value {
    serde_json::json!({"name": "main", "image": BUSYBOX, "imagePullPolicy": "IfNotPresent",
                       "command": ["sh", "-c", script]})
}
