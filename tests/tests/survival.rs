//! What is killed costs nothing that was promised: agents while their nodes serve, the control plane
//! in the middle of writes; no request through a service's address notices either.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use parking_lot::Mutex;
use serde_json::Value;
use tests::{Cluster, Options, until};

/// A loaded machine starts a pod, or an agent, in seconds.
const SOON: Duration = Duration::from_secs(60);

/// Kills of each node's agent, one after the other.
const KILLS: u32 = 5;

/// Requests that must be answered between a kill and the next one.
const REQUESTS: usize = 30;

/// Kills of the control plane: bursts, and after each burst one that has run for long enough to be
/// started again at once.
const CONTROL_PLANE_KILLS: u32 = 50;
const BURST: u32 = 5;
const LONG_ENOUGH: Duration = Duration::from_millis(2_100);

/// Writers beside each other.
const WRITERS: usize = 2;

/// Maps whose loss would cost a connection or a service.
const MAPS: [&str; 8] = ["fe4", "svc", "slot", "be", "ct4", "ep", "local", "sks"];

#[test]
fn killed_agents_cost_no_request_and_adopt_what_runs() -> Result<()> {
    let cluster = Cluster::up("survival", Options::default())?;
    cluster.apply_file("examples/hello.yaml")?;
    let rollout = ["rollout", "status", "deploy/hello", "--timeout=60s"];
    cluster.kubectl(&rollout)?.success()?;
    start_asking(&cluster, &service_address(&cluster)?)?;
    until(SOON, "the first answers", || answers(&cluster, REQUESTS))?;
    let (containers, maps) = (containers(&cluster)?, map_ids(&cluster)?);
    for node in cluster.nodes()? {
        for _ in 0..KILLS {
            kill_agent(&cluster, &node.name)?;
        }
    }
    ensure!(
        self::containers(&cluster)? == containers,
        "containers were made anew"
    );
    ensure!(map_ids(&cluster)? == maps, "maps were made anew");
    answers(&cluster, 1)?;
    names_are_known_before_the_control_plane_speaks(&cluster)?;
    // Pods end from here on, and nobody promises that their last connection is answered.
    the_new_agents_are_in_charge(&cluster)?;
    cluster.down()
}

#[test]
fn a_killed_control_plane_loses_no_write_and_no_request() -> Result<()> {
    let cluster = Cluster::up("survival-control-plane", Options::default())?;
    cluster.apply_file("examples/hello.yaml")?;
    let rollout = ["rollout", "status", "deploy/hello", "--timeout=60s"];
    cluster.kubectl(&rollout)?.success()?;
    start_asking(&cluster, &service_address(&cluster)?)?;
    until(SOON, "the first answers", || answers(&cluster, REQUESTS))?;
    let before = answers(&cluster, REQUESTS)?;
    let journal = Journal::default();
    let killed = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (cluster, journal) = (&cluster, &journal);
                scope.spawn(move || write_until_stopped(cluster, journal, writer))
            })
            .collect();
        let killed = kill_control_plane(&cluster, &journal);
        journal.stop.store(true, Ordering::Relaxed);
        for writer in writers {
            writer
                .join()
                .map_err(|_panic| anyhow::anyhow!("a writer panicked"))??;
        }
        killed
    });
    killed?;
    no_acknowledged_write_is_lost(&cluster, &journal)?;
    // The log is read through the control plane and the agents, which find each other again.
    until(SOON, "more answers", || {
        for (pod, count) in answers(&cluster, REQUESTS)? {
            let more = count - before.get(&pod).copied().unwrap_or_default();
            ensure!(more >= REQUESTS, "{pod}: {more} more answers");
        }
        Ok(())
    })?;
    cluster.down()
}

/// What the writers were promised.
#[derive(Debug, Default)]
struct Journal {
    /// Names of acknowledged objects, with the resourceVersion that each was given.
    acknowledged: Mutex<BTreeMap<String, u64>>,
    /// The highest of them.
    highest: AtomicU64,
    stop: AtomicBool,
}

impl Journal {
    fn len(&self) -> usize {
        self.acknowledged.lock().len()
    }
}

/// Creates one object after the other. A write that fails promises nothing; one that succeeds has a
/// resourceVersion above all that were known when it began.
fn write_until_stopped(cluster: &Cluster, journal: &Journal, writer: usize) -> Result<()> {
    for number in 0u32.. {
        if journal.stop.load(Ordering::Relaxed) {
            break;
        }
        let known = journal.highest.load(Ordering::SeqCst);
        let name = format!("written-{writer}-{number}");
        let literal = format!("--from-literal=name={name}");
        let version = "-o=jsonpath={.metadata.resourceVersion}";
        let create = ["create", "configmap", &name, &literal, version];
        let Ok(output) = cluster.kubectl(&create)?.success() else {
            continue;
        };
        let given: u64 = output.text().parse().context("a resourceVersion")?;
        ensure!(given > known, "{name} was given {given} after {known}");
        journal.acknowledged.lock().insert(name, given);
        journal.highest.fetch_max(given, Ordering::SeqCst);
    }
    Ok(())
}

/// Kills the control plane again and again, each time when it has acknowledged something.
fn kill_control_plane(cluster: &Cluster, journal: &Journal) -> Result<()> {
    for kill in 1..=CONTROL_PLANE_KILLS {
        let running = until(SOON, "a control plane", || cluster.control_plane())?;
        let (since, before) = (Instant::now(), journal.len());
        until(SOON, "an acknowledged write", || {
            ensure!(journal.len() > before, "none yet");
            ensure!(
                kill % BURST != 0 || since.elapsed() >= LONG_ENOUGH,
                "not long enough"
            );
            Ok(())
        })?;
        running.signal("KILL")?;
        until(SOON, "its end", || running.has_ended())?;
    }
    Ok(())
}

fn no_acknowledged_write_is_lost(cluster: &Cluster, journal: &Journal) -> Result<()> {
    let get = ["get", "configmaps", "-o=json"];
    let list = until(SOON, "a list", || cluster.kubectl(&get)?.success())?;
    let list: Value = serde_json::from_str(&list.stdout)?;
    let stored: BTreeMap<String, (String, String)> = list["items"]
        .as_array()
        .context("a list of objects")?
        .iter()
        .map(|object| {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let metadata = &object["metadata"];
            let content = text(&object["data"]["name"]);
            (
                text(&metadata["name"]),
                (text(&metadata["resourceVersion"]), content),
            )
        })
        .collect();
    let acknowledged = journal.acknowledged.lock();
    ensure!(
        acknowledged.len() >= CONTROL_PLANE_KILLS as usize,
        "{} writes",
        acknowledged.len()
    );
    for (name, version) in acknowledged.iter() {
        let expected = (version.to_string(), name.clone());
        ensure!(
            stored.get(name) == Some(&expected),
            "{name}: {:?}",
            stored.get(name)
        );
    }
    Ok(())
}

#[test]
fn a_pods_socket_shows_the_service_as_its_peer() -> Result<()> {
    let cluster = tests::shared()?;
    cluster.namespace("peer")?;
    let hello = std::fs::read_to_string(tests::root().join("examples/hello.yaml"))
        .context("read the example")?;
    let apply = ["apply", "--namespace=peer", "--filename=-"];
    cluster.kubectl_with_input(&apply, &hello)?.success()?;
    let rollout = [
        "rollout",
        "status",
        "deploy/hello",
        "--namespace=peer",
        "--timeout=60s",
    ];
    cluster.kubectl(&rollout)?.success()?;
    let jsonpath = "-o=jsonpath={.spec.clusterIP}";
    let get = ["get", "service", "hello", "--namespace=peer", jsonpath];
    let address = cluster.kubectl(&get)?.success()?.text().to_owned();
    let list = ["get", "pods", "--namespace=peer", "-l=app=hello", "-o=json"];
    let pods: Value = serde_json::from_str(&cluster.kubectl(&list)?.success()?.stdout)?;
    let node = pods["items"][0]["spec"]["nodeName"]
        .as_str()
        .context("the pod's node")?;
    let name = pods["items"][0]["metadata"]["name"]
        .as_str()
        .context("the pod's name")?;
    // The services of this very node may lag behind the rollout by a moment.
    let peer = until(SOON, "a connection from inside the pod", || {
        cluster
            .exec(node, &["sh", "-c", &peer_script(name, &address)])?
            .success()
    })?;
    ensure!(peer.text() == format!("{address}:80"), "{}", peer.text());
    Ok(())
}

/// Connects from the network namespace of the pod `name` and prints what `getpeername` says.
fn peer_script(name: &str, address: &str) -> String {
    let connect = format!(
        "socket(S, AF_INET, SOCK_STREAM, 0) or die; \
         connect(S, pack_sockaddr_in(80, inet_aton(\"{address}\"))) or die \"connect: $!\"; \
         my ($port, $ip) = unpack_sockaddr_in(getpeername(S)); \
         print inet_ntoa($ip), \":$port\\n\""
    );
    // The container's processes have its pod's name in their environment.
    format!(
        "for process in /proc/[0-9]*; do \
           if tr '\\0' '\\n' < $process/environ 2>/dev/null | grep -qx 'POD_NAME={name}'; then \
             exec nsenter --net=$process/ns/net perl -MSocket -e '{connect}'; \
           fi; \
         done; \
         echo 'no process of {name}' >&2; exit 1"
    )
}

fn service_address(cluster: &Cluster) -> Result<String> {
    let get = ["get", "service", "hello", "-o=jsonpath={.spec.clusterIP}"];
    Ok(cluster.kubectl(&get)?.success()?.text().to_owned())
}

/// A pod on each node that asks the service again and again, and notes how it went: by address,
/// since names are answered by the agent itself.
fn start_asking(cluster: &Cluster, address: &str) -> Result<()> {
    for node in cluster.nodes()? {
        let manifest = format!(
            r#"
apiVersion: v1
kind: Pod
metadata:
  name: asking-{node}
  labels:
    app: asking
spec:
  nodeName: {node}
  restartPolicy: Never
  terminationGracePeriodSeconds: 0
  containers:
    - name: asking
      image: skep.local/busybox
      imagePullPolicy: IfNotPresent
      command:
        - sh
        - -c
        - |
          while true; do
            if wget -q -O /dev/null http://{address}/; then echo answered; else echo failed; fi
            sleep 0.01
          done
"#,
            node = node.name
        );
        cluster.apply(&manifest)?.success()?;
    }
    let wait = [
        "wait",
        "--for=condition=Ready",
        "pod",
        "-l=app=asking",
        "--timeout=60s",
    ];
    cluster.kubectl(&wait)?.success()?;
    Ok(())
}

/// Answers that the pods have got so far, by pod; each at least `least`.
/// # Errors
/// When a request failed, or there are fewer.
fn answers(cluster: &Cluster, least: usize) -> Result<BTreeMap<String, usize>> {
    let mut answers = BTreeMap::new();
    for node in cluster.nodes()? {
        let pod = format!("asking-{}", node.name);
        let log = cluster.kubectl(&["logs", &pod])?.success()?.stdout;
        let count = |word: &str| log.lines().filter(|line| *line == word).count();
        let other = log.lines().find(|line| *line != "answered");
        ensure!(
            other.is_none(),
            "{pod}: {} requests failed: {other:?}",
            count("failed")
        );
        ensure!(
            count("answered") >= least,
            "{pod}: {} answers",
            count("answered")
        );
        answers.insert(pod, count("answered"));
    }
    Ok(answers)
}

/// Kills a node's agent and waits until another one serves and the pods have got more answers.
fn kill_agent(cluster: &Cluster, node: &str) -> Result<()> {
    let before = answers(cluster, 1)?;
    let old = cluster.agent(node)?;
    old.signal("KILL")?;
    until(SOON, "another agent on the node", || {
        let new = cluster.agent(node)?;
        ensure!(new != old, "the old one");
        Ok(())
    })?;
    until(SOON, "answers after the kill", || {
        let now = answers(cluster, 1)?;
        for (pod, count) in &now {
            let more = count - before.get(pod).copied().unwrap_or_default();
            ensure!(more >= REQUESTS, "{pod}: {more} more answers");
        }
        Ok(())
    })
}

/// Kills the agents while the control plane is frozen: the new ones answer names as last known.
fn names_are_known_before_the_control_plane_speaks(cluster: &Cluster) -> Result<()> {
    let address = service_address(cluster)?;
    let control_plane = cluster.control_plane()?;
    control_plane.signal("STOP")?;
    let known = cluster.nodes()?.iter().try_for_each(|node| {
        let old = cluster.agent(&node.name)?;
        old.signal("KILL")?;
        until(SOON, "the service's address", || {
            ensure!(cluster.agent(&node.name)? != old, "the old agent");
            let name = "hello.default.svc.cluster.local";
            let dig = [
                "dig",
                "+short",
                "+time=1",
                "+tries=1",
                "@169.254.20.10",
                name,
            ];
            let answer = cluster.exec(&node.name, &dig)?.success()?.stdout;
            ensure!(answer.trim() == address, "{answer:?}");
            Ok(())
        })
    });
    control_plane.signal("CONT")?;
    known
}

/// Containers of all pods and how often they were started again.
fn containers(cluster: &Cluster) -> Result<BTreeMap<String, String>> {
    let list = cluster
        .kubectl(&["get", "pods", "-o=json"])?
        .success()?
        .stdout;
    let list: Value = serde_json::from_str(&list)?;
    let pods = list["items"].as_array().context("a list of pods")?;
    pods.iter()
        .map(|pod| {
            let name = pod["metadata"]["name"].as_str().context("a pod's name")?;
            let status = &pod["status"]["containerStatuses"][0];
            let id = status["containerID"].as_str().context("a container's id")?;
            Ok((
                name.to_owned(),
                format!("{id}, restarts {}", status["restartCount"]),
            ))
        })
        .collect()
}

/// The kernel's ids of the pinned maps, by node and name: another id is another map.
fn map_ids(cluster: &Cluster) -> Result<BTreeMap<String, u64>> {
    let mut ids = BTreeMap::new();
    for node in cluster.nodes()? {
        for map in MAPS {
            let pin = format!("/sys/fs/bpf/skep/v1/{map}");
            let show = ["bpftool", "--json", "map", "show", "pinned", &pin];
            let shown = cluster.exec(&node.name, &show)?.success()?;
            let shown: Value = serde_json::from_str(&shown.stdout)?;
            let id = shown["id"].as_u64().context("a map's id")?;
            ids.insert(format!("{} {map}", node.name), id);
        }
    }
    Ok(ids)
}

/// What was adopted is also changed: a scaled service loses its backends on every node.
fn the_new_agents_are_in_charge(cluster: &Cluster) -> Result<()> {
    let address = service_address(cluster)?;
    let backends = || -> Result<BTreeMap<String, usize>> {
        let shown = cluster.skep(&["lb", "list"])?.success()?.stdout;
        let mut backends = BTreeMap::new();
        for node in cluster.nodes()? {
            let of_node = |line: &&str| line.starts_with(&node.name) && line.contains(&address);
            let active = shown
                .lines()
                .filter(of_node)
                .filter(|line| line.contains("active"));
            backends.insert(node.name.clone(), active.count());
        }
        Ok(backends)
    };
    for replicas in [2, 4] {
        let scale = ["scale", "deploy/hello", &format!("--replicas={replicas}")];
        cluster.kubectl(&scale)?.success()?;
        until(SOON, "the changed set in both kernels", || {
            let backends = backends()?;
            ensure!(
                backends.values().all(|count| *count == replicas),
                "{backends:?}"
            );
            Ok(())
        })?;
    }
    Ok(())
}
