//! The kubelet part against a real containerd: whole pods, from object to status.
//!
//! Needs root, containerd, runc and busybox-static; says so and passes where one is missing.

#[cfg(test)]
mod harness;

use harness::{BUSYBOX, TestNode, can_run, pod, shell};
use node_agent_kubelet::{ExecOutput, ExecSession, LogSession, SessionInput};
use proto_api::types::core::v1::{ContainerStateTerminated, PodStatus};
use serde_json::json;

fn condition(status: &PodStatus, kind: &str) -> String {
    let found = status
        .conditions
        .iter()
        .find(|condition| condition.type_ == kind);
    found
        .map(|condition| condition.status.clone())
        .unwrap_or_default()
}

fn ended(status: &PodStatus) -> Option<ContainerStateTerminated> {
    let state = status.container_statuses.first()?.state.clone()?;
    state.terminated.map(|end| *end)
}

fn waits_for(status: &PodStatus) -> String {
    let state = status
        .container_statuses
        .first()
        .and_then(|status| status.state.clone());
    state
        .and_then(|state| state.waiting)
        .and_then(|waiting| waiting.reason)
        .unwrap_or_default()
}

fn log_of(name: &str) -> LogSession {
    LogSession {
        namespace: "default".to_owned(),
        pod: name.to_owned(),
        ..LogSession::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::too_many_lines, reason = "one story on one node")]
async fn a_pod_runs_is_ready_logs_and_ends_within_its_grace() {
    if !can_run() {
        return;
    }
    let node = TestNode::start("basic").await;
    let script =
        "trap 'echo bye; exit 3' TERM; echo hello; hostname; while true; do sleep 0.05; done";
    let web = pod(
        "web",
        json!({"containers": [shell(script)], "restartPolicy": "Always"}),
    );
    node.put_pod(&web);
    node.until_status("uid-web", "ready", |status| {
        condition(status, "Ready") == "True"
    })
    .await;
    let status = node.status("uid-web");
    assert_eq!(status.phase.as_deref(), Some("Running"));
    assert_eq!(status.pod_ip.as_deref(), Some("192.0.2.77"));
    assert_eq!(status.qos_class.as_deref(), Some("BestEffort"));
    let container = &status.container_statuses[0];
    assert!(container.ready && container.started == Some(true) && container.restart_count == 0);
    assert!(
        container
            .container_id
            .as_ref()
            .unwrap()
            .starts_with("containerd://")
    );
    assert!(!container.image_id.is_empty());
    for kind in [
        "PodScheduled",
        "Initialized",
        "ContainersReady",
        "PodReadyToStartContainers",
    ] {
        assert_eq!(condition(&status, kind), "True", "{kind}");
    }
    node.until("the log", |_| {
        let path = node
            .config
            .pod_log_dir("default", "web", "uid-web")
            .join("main/0.log");
        std::fs::read_to_string(path).is_ok_and(|log| log.contains("web"))
    })
    .await;
    assert_eq!(node.logs(log_of("web")).await.unwrap(), "hello\nweb\n");
    let tail = LogSession {
        tail_lines: Some(1),
        ..log_of("web")
    };
    assert_eq!(node.logs(tail).await.unwrap(), "web\n");
    let cgroup = format!(
        "/sys/fs/cgroup/memory{}/besteffort/poduid-web",
        node.config.cgroup_parent
    );
    let unified = !std::path::Path::new("/sys/fs/cgroup/memory").exists();
    assert!(
        unified || std::path::Path::new(&cgroup).exists(),
        "{cgroup}"
    );

    node.delete_pod(&web, 30).await;
    let last = node.status("uid-web");
    assert_eq!(ended(&last).unwrap().exit_code, 3);
    assert_eq!(ended(&last).unwrap().reason.as_deref(), Some("Error"));
    assert_eq!(last.phase.as_deref(), Some("Failed"));
    assert!(unified || !std::path::Path::new(&cgroup).exists());
    assert!(
        !node
            .config
            .pod_log_dir("default", "web", "uid-web")
            .exists()
    );
    let events = node.event_lines().join("\n");
    for part in [
        "Normal Pulled Container image",
        "Normal Created Created container: main",
        "Normal Started Started container main",
        "Normal Killing Stopping container main",
    ] {
        assert!(events.contains(part), "{part} is not in\n{events}");
    }
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::too_many_lines, reason = "one story on one node")]
async fn exit_codes_phases_and_back_off_are_upstreams() {
    if !can_run() {
        return;
    }
    let node = TestNode::start("exits").await;
    let one = |policy: &str, script: &str| json!({"containers": [shell(script)], "restartPolicy": policy, "terminationGracePeriodSeconds": 1});
    node.put_pod(&pod(
        "done",
        one("Never", "echo last words > /dev/termination-log; exit 0"),
    ));
    node.put_pod(&pod("failed", one("Never", "exit 7")));
    node.put_pod(&pod("crash", one("Always", "echo run; exit 1")));
    let mut absent = one("Always", "true");
    absent["containers"][0]["image"] = json!("skep.local/absent:1");
    absent["containers"][0]["imagePullPolicy"] = json!("Never");
    node.put_pod(&pod("absent", absent.clone()));
    absent["containers"][0]["imagePullPolicy"] = json!("IfNotPresent");
    absent["containers"][0]["image"] = json!("127.0.0.1:9/absent:1");
    node.put_pod(&pod("unpulled", absent));

    node.until_phase("uid-done", "Succeeded").await;
    let end = ended(&node.status("uid-done")).unwrap();
    assert_eq!(
        (end.exit_code, end.reason.as_deref()),
        (0, Some("Completed"))
    );
    assert_eq!(end.message.as_deref(), Some("last words\n"));
    node.until_phase("uid-failed", "Failed").await;
    assert_eq!(ended(&node.status("uid-failed")).unwrap().exit_code, 7);

    node.until_status("uid-crash", "CrashLoopBackOff", |status| {
        waits_for(status) == "CrashLoopBackOff"
    })
    .await;
    let status = node.status("uid-crash");
    assert_eq!(status.phase.as_deref(), Some("Running"));
    let container = &status.container_statuses[0];
    assert_eq!(container.restart_count, 1);
    assert_eq!(
        container
            .last_state
            .clone()
            .unwrap()
            .terminated
            .unwrap()
            .exit_code,
        1
    );
    let message = container
        .state
        .clone()
        .unwrap()
        .waiting
        .unwrap()
        .message
        .unwrap();
    assert_eq!(
        message,
        "back-off 10s restarting failed container=main pod=crash_default(uid-crash)"
    );
    assert_eq!(node.logs(log_of("crash")).await.unwrap(), "run\n");
    let previous = LogSession {
        previous: true,
        ..log_of("crash")
    };
    assert_eq!(node.logs(previous).await.unwrap(), "run\n");

    node.until_status("uid-absent", "ErrImageNeverPull", |status| {
        waits_for(status) == "ErrImageNeverPull"
    })
    .await;
    node.until_status("uid-unpulled", "ImagePullBackOff", |status| {
        waits_for(status) == "ImagePullBackOff"
    })
    .await;
    let statuses = node
        .reports
        .statuses
        .lock()
        .get("uid-unpulled")
        .cloned()
        .unwrap();
    assert!(
        statuses
            .iter()
            .any(|status| waits_for(status) == "ErrImagePull")
    );
    assert_eq!(
        node.logs(log_of("unpulled")).await.unwrap_err(),
        "container \"main\" in pod \"unpulled\" is waiting to start: trying and failing to pull image"
    );
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn environment_and_volumes_reach_the_container_and_follow_changes() {
    if !can_run() {
        return;
    }
    let node = TestNode::start("volumes").await;
    let script = "env; cat /cm/key /sec/pw /var/run/secrets/kubernetes.io/serviceaccount/*; \
                  echo; cat /etc/resolv.conf /etc/hosts; stat -L -c %a /sec/pw; echo x > /shared/x; \
                  cat /sub; while [ \"$(cat /cm/key)\" = one ]; do sleep 0.05; done; cat /cm/key; echo; sleep 100";
    let mut container = shell(script);
    container["env"] = json!([
        {"name": "GREETING", "value": "hi $(WHO)"}, {"name": "WHO", "value": "me"},
        {"name": "AGAIN", "value": "$(WHO)!"},
        {"name": "FROM_MAP", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "key"}}},
        {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "MEM", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}}]);
    container["envFrom"] = json!([{"secretRef": {"name": "sec"}, "prefix": "S_"}]);
    container["resources"] = json!({"limits": {"memory": "64Mi", "cpu": "500m"}});
    container["volumeMounts"] = json!([
        {"name": "cm", "mountPath": "/cm"}, {"name": "sec", "mountPath": "/sec"},
        {"name": "shared", "mountPath": "/shared"}, {"name": "cm", "mountPath": "/sub", "subPath": "key"},
        {"name": "api", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}]);
    let spec = json!({"containers": [container], "serviceAccountName": "robot",
        "terminationGracePeriodSeconds": 1,
        "volumes": [{"name": "cm", "configMap": {"name": "cm"}},
            {"name": "sec", "secret": {"secretName": "sec", "defaultMode": 0o400}},
            {"name": "shared", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
            {"name": "api", "projected": {"sources": [
                {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
                {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}}]}}]});
    node.change(|snapshot| {
        snapshot.cluster = std::sync::Arc::new(node_agent_state::ClusterConfig {
            cluster_domain: "cluster.local".to_owned(),
            cluster_dns: vec!["10.96.0.10".parse().unwrap()],
            ..node_agent_state::ClusterConfig::default()
        });
    });
    let meta = |name: &str| json!({"name": name, "namespace": "default"});
    node.put_config_map(
        json!({"metadata": meta("kube-root-ca.crt"), "data": {"ca.crt": "the-ca\n"}}),
    );
    node.put_secret(json!({"metadata": meta("sec"), "data": {"pw": "c2VjcmV0"}}));
    node.put_pod(&pod("vol", spec));
    // The config map is not there yet: the pod waits for it and says so.
    node.until("FailedMount", |node| {
        node.event_lines().iter().any(|line| {
            line == "Warning FailedMount MountVolume.SetUp failed for volume \"cm\" : configmap \"cm\" not found"
        })
    })
    .await;
    node.put_config_map(json!({"metadata": meta("cm"), "data": {"key": "one"}}));
    node.until_phase("uid-vol", "Running").await;
    let log = node
        .config
        .pod_log_dir("default", "vol", "uid-vol")
        .join("main/0.log");
    let log_has = |text: &str| {
        std::fs::read_to_string(&log)
            .unwrap_or_default()
            .contains(text)
    };
    node.until("first output", |_| log_has(" F 400")).await;
    let text = node.logs(log_of("vol")).await.unwrap();
    for line in [
        "GREETING=hi $(WHO)",
        "AGAIN=me!",
        "FROM_MAP=one",
        "IP=192.0.2.77",
        "MEM=64",
        "S_pw=secret",
        "the-ca",
        "token-for-robot",
        "nameserver 10.96.0.10",
        "search default.svc.cluster.local svc.cluster.local cluster.local",
        "options ndots:5",
        "192.0.2.77\tvol",
        "# Kubernetes-managed hosts file.",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    assert_eq!(node.reports.tokens.lock()[0].expiration_seconds, 3607);
    assert_eq!(
        node.status("uid-vol").qos_class.as_deref(),
        Some("Guaranteed")
    );
    let limit = format!(
        "/sys/fs/cgroup/memory{}/poduid-vol/memory.limit_in_bytes",
        node.config.cgroup_parent
    );
    if let Ok(limit) = std::fs::read_to_string(limit) {
        assert_eq!(limit.trim(), (64 << 20).to_string());
    }
    node.put_config_map(json!({"metadata": meta("cm"), "data": {"key": "two-changed"}}));
    node.until("the change in the container", |_| log_has("two-changed"))
        .await;
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::too_many_lines, reason = "one story on one node")]
async fn exec_carries_both_directions_exit_codes_and_the_end_of_stdin() {
    if !can_run() {
        return;
    }
    let node = TestNode::start("exec").await;
    node.put_pod(&pod(
        "box",
        json!({"containers": [shell("sleep 1000")], "hostNetwork": true,
        "terminationGracePeriodSeconds": 1}),
    ));
    node.until_phase("uid-box", "Running").await;
    let run = async |command: &[&str], stdin: Option<Vec<u8>>, tty: bool| {
        let session = ExecSession {
            namespace: "default".to_owned(),
            pod: "box".to_owned(),
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            stdin: stdin.is_some(),
            tty,
            ..ExecSession::default()
        };
        let (input, input_receiver) = tokio::sync::mpsc::channel(4);
        let (output, mut output_receiver) = tokio::sync::mpsc::channel(4);
        let streams = node.handle().streams();
        let feed = async move {
            for chunk in stdin.unwrap_or_default().chunks(8192) {
                let data = bytes::Bytes::copy_from_slice(chunk);
                if input.send(SessionInput::Data(data)).await.is_err() {
                    return;
                }
            }
        };
        let collect = async {
            let (mut out, mut err) = (Vec::new(), Vec::new());
            while let Some(part) = output_receiver.recv().await {
                match part {
                    ExecOutput::Stdout(data) => out.extend_from_slice(&data),
                    ExecOutput::Stderr(data) => err.extend_from_slice(&data),
                }
            }
            (out, err)
        };
        let work = async move { streams.exec(&session, input_receiver, output).await };
        let (result, (), (out, err)) = tokio::join!(work, feed, collect);
        (
            result,
            String::from_utf8(out).unwrap(),
            String::from_utf8(err).unwrap(),
        )
    };
    let (code, out, err) = run(&["sh", "-c", "echo out; echo err >&2; exit 7"], None, false).await;
    assert_eq!(
        (code.unwrap(), out.as_str(), err.as_str()),
        (7, "out\n", "err\n")
    );
    // `cat` ends only when it sees the end of its input.
    let (code, out, _) = run(&["cat"], Some(b"typed\n".to_vec()), false).await;
    assert_eq!((code.unwrap(), out.as_str()), (0, "typed\n"));
    let much = vec![b'x'; 1 << 20];
    let (code, out, _) = run(&["cat"], Some(much), false).await;
    assert_eq!((code.unwrap(), out.len()), (0, 1 << 20));
    let (code, out, _) = run(
        &["sh", "-c", "test -t 1 && echo terminal $TERM"],
        None,
        true,
    )
    .await;
    assert_eq!((code.unwrap(), out.as_str()), (0, "terminal xterm\r\n"));
    let (code, _, _) = run(&["/no/such/program"], None, false).await;
    let message = code.unwrap_err().message;
    assert!(message.contains("no such file or directory"), "{message}");
    assert_eq!(
        std::fs::read_dir(node.config.run_dir.join("exec"))
            .unwrap()
            .count(),
        0
    );
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_agent_adopts_pods_and_ends_orphans() {
    if !can_run() {
        return;
    }
    let mut node = TestNode::start("adopt").await;
    let mut container = shell("while true; do sleep 0.1; done");
    container["readinessProbe"] = json!({"exec": {"command": ["true"]}, "periodSeconds": 1});
    let spec = json!({"containers": [container], "terminationGracePeriodSeconds": 1});
    let (stays, goes) = (pod("stays", spec.clone()), pod("goes", spec));
    node.put_pod(&stays);
    node.put_pod(&goes);
    for uid in ["uid-stays", "uid-goes"] {
        node.until_status(uid, "ready", |status| condition(status, "Ready") == "True")
            .await;
    }
    let before = node.status("uid-stays");
    node.stop_kubelet().await;
    assert_eq!(
        node.ctr(&["tasks", "list", "-q"]).lines().count(),
        4,
        "pods go on running"
    );
    // What the API server would hold: the object with the last reported status.
    let mut stored = stays.clone();
    stored.status = Some(before.clone());
    node.put_pod(&stored);
    node.change(|snapshot| {
        snapshot.pods.remove("uid-goes");
    });
    node.reports.statuses.lock().clear();
    node.start_kubelet().await;
    node.until_status("uid-stays", "reported", |status| status.phase.is_some())
        .await;
    let path = node.config.pod_dir("uid-goes");
    node.until("the orphan is gone", |_| !path.exists()).await;
    tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
    let statuses = node
        .reports
        .statuses
        .lock()
        .get("uid-stays")
        .cloned()
        .unwrap();
    for status in &statuses {
        assert_eq!(condition(status, "Ready"), "True", "readiness never flips");
        assert_eq!(status.container_statuses[0].restart_count, 0);
        assert_eq!(
            status.container_statuses[0].container_id,
            before.container_statuses[0].container_id
        );
        assert_eq!(status.start_time, before.start_time);
    }
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::too_many_lines, reason = "one story on one node")]
async fn probes_restart_gate_and_order_containers() {
    if !can_run() {
        return;
    }
    let node = TestNode::start("probes").await;
    let mut live = shell("touch /tmp/ok; sleep 1; rm /tmp/ok; sleep 1000");
    live["command"] = json!([
        "busybox",
        "sh",
        "-c",
        "busybox touch /tmp/ok; sleep 1; busybox rm /tmp/ok; sleep 1000"
    ]);
    live["livenessProbe"] = json!({"exec": {"command": ["ls", "/tmp/ok"]}, "periodSeconds": 1,
        "failureThreshold": 1, "terminationGracePeriodSeconds": 1});
    node.put_pod(&pod(
        "live",
        json!({"containers": [live], "terminationGracePeriodSeconds": 1}),
    ));

    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let mut web = shell(&format!(
        "sleep 1; exec httpd -f -p 127.0.0.1:{port} -h /etc"
    ));
    web["startupProbe"] =
        json!({"tcpSocket": {"port": port}, "periodSeconds": 1, "failureThreshold": 30});
    web["readinessProbe"] =
        json!({"httpGet": {"path": "/passwd", "port": port}, "periodSeconds": 1});
    let init = json!({"name": "first", "image": BUSYBOX, "imagePullPolicy": "Never",
        "command": ["sh", "-c", "echo init"]});
    let sidecar = json!({"name": "side", "image": BUSYBOX, "imagePullPolicy": "Never",
        "restartPolicy": "Always", "command": ["sh", "-c", "trap 'exit 0' TERM; while true; do sleep 0.05; done"]});
    node.put_pod(&pod(
        "web",
        json!({"containers": [web], "initContainers": [init, sidecar],
        "hostNetwork": true, "terminationGracePeriodSeconds": 2}),
    ));

    node.until_status("uid-web", "ready", |status| {
        condition(status, "Ready") == "True"
    })
    .await;
    let history = node
        .reports
        .statuses
        .lock()
        .get("uid-web")
        .cloned()
        .unwrap();
    let status = history.last().unwrap();
    assert_eq!(status.pod_ip.as_deref(), Some("127.0.0.1"));
    let first = status.init_container_statuses[0]
        .state
        .clone()
        .unwrap()
        .terminated
        .unwrap();
    assert_eq!(
        (first.exit_code, first.reason.as_deref()),
        (0, Some("Completed"))
    );
    assert!(status.init_container_statuses[1].ready);
    for earlier in &history {
        let main = &earlier.container_statuses[0];
        assert!(
            main.started == Some(true) || !main.ready,
            "ready only after started"
        );
        let side = &earlier.init_container_statuses[1];
        assert!(
            main.container_id.is_none() || side.started == Some(true),
            "sidecar first"
        );
    }
    node.until_status("uid-live", "a restart", |status| {
        status
            .container_statuses
            .first()
            .is_some_and(|c| c.restart_count >= 1)
    })
    .await;
    let events = node.event_lines().join("\n");
    assert!(
        events.contains("Warning Unhealthy Liveness probe failed: ls: /tmp/ok: No such file"),
        "{events}"
    );
    assert!(
        events.contains("Normal Killing Container main failed liveness probe, will be restarted"),
        "{events}"
    );
    assert!(
        events.contains("Startup probe failed: dial tcp 127.0.0.1:"),
        "{events}"
    );
    node.finish().await;
}
