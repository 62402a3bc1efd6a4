//! What kubectl does inside running pods: attach, port-forward, cp, debug, resize, logs, the proxy.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::process::{Child, ChildStdout, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::pty::{Winsize, openpty};
use serde_json::Value;
use tests::{Cluster, Output, shared, until};

/// A loaded machine starts a pod in seconds.
const SOON: Duration = Duration::from_secs(60);

/// A namespace of the shared cluster.
struct Place {
    cluster: Arc<Cluster>,
    namespace: &'static str,
}

impl Place {
    fn new(namespace: &'static str) -> Result<Self> {
        let cluster = shared()?;
        cluster.namespace(namespace)?;
        Ok(Self { cluster, namespace })
    }

    fn words<'a>(&'a self, words: &[&'a str]) -> Vec<&'a str> {
        [&["--namespace", self.namespace], words].concat()
    }

    fn kubectl(&self, words: &[&str]) -> Result<Output> {
        self.cluster.kubectl(&self.words(words))
    }

    fn with_input(&self, words: &[&str], input: &str) -> Result<Output> {
        self.cluster.kubectl_with_input(&self.words(words), input)
    }

    fn apply_ready(&self, pod: &str, manifest: &str) -> Result<()> {
        let words = ["apply", "--filename=-"];
        self.with_input(&words, manifest)?.success()?;
        let wait = ["wait", "--for=condition=Ready", "--timeout=60s"];
        let pod = format!("pod/{pod}");
        self.kubectl(&[&wait[..], &[pod.as_str()]].concat())?
            .success()
            .map(drop)
    }

    /// A pod of our HTTP server.
    fn hello(&self) -> Result<()> {
        self.apply_ready(
            "hello",
            "apiVersion: v1
kind: Pod
metadata: {name: hello, labels: {app: hello}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: hello
    image: skep.local/hello
    imagePullPolicy: IfNotPresent
    ports: [{containerPort: 8080}]
    env: [{name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]
",
        )
    }

    /// A pod of a shell script.
    fn script(&self, pod: &str, script: &str, more: &str) -> Result<()> {
        let manifest = format!(
            "apiVersion: v1
kind: Pod
metadata: {{name: {pod}}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: skep.local/busybox
    imagePullPolicy: IfNotPresent
    command: [sh, -c, {script:?}]
{more}
"
        );
        self.apply_ready(pod, &manifest)
    }

    fn json(&self, words: &[&str]) -> Result<Value> {
        let output = self
            .kubectl(&[words, &["--output=json"]].concat())?
            .success()?;
        serde_json::from_str(&output.stdout).context(output.line)
    }
}

/// A running `kubectl port-forward`.
struct Forward {
    kubectl: Child,
    /// Open as long as kubectl runs, which ends when it cannot write.
    _said: BufReader<ChildStdout>,
    port: u16,
}

impl Forward {
    fn start(place: &Place, pod: &str, port: u16) -> Result<Self> {
        let port = format!(":{port}");
        let pod = format!("pod/{pod}");
        let words = ["port-forward", "--address=127.0.0.1", &pod, &port];
        let mut command = place.cluster.kubectl_command(&place.words(&words));
        let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut kubectl = command.spawn().context("start kubectl port-forward")?;
        let mut line = String::new();
        let stdout = kubectl.stdout.take().context("standard output")?;
        let mut said = BufReader::new(stdout);
        said.read_line(&mut line)?;
        // "Forwarding from 127.0.0.1:40123 -> 8080"
        let address = line.split_whitespace().nth(2).unwrap_or_default();
        let port = address
            .rsplit_once(':')
            .and_then(|(_, port)| port.parse().ok());
        let port = port.with_context(|| format!("no port in {line:?}"))?;
        Ok(Self {
            kubectl,
            _said: said,
            port,
        })
    }

    fn connect(&self) -> Result<TcpStream> {
        let stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(SOON))?;
        Ok(stream)
    }

    /// What kubectl said on standard error, after it has been ended.
    fn end(mut self) -> Result<String> {
        self.kubectl.kill()?;
        let mut said = String::new();
        let stderr = self.kubectl.stderr.take().context("standard error")?;
        BufReader::new(stderr).read_to_string(&mut said)?;
        self.kubectl.wait()?;
        Ok(said)
    }
}

fn http_get(mut stream: TcpStream) -> Result<String> {
    stream.write_all(b"GET / HTTP/1.0\r\nHost: hello\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[test]
fn many_connections_go_through_one_port_forward() -> Result<()> {
    let place = Place::new("streams-forward")?;
    place.hello()?;
    let forward = Forward::start(&place, "hello", 8080)?;
    std::thread::scope(|scope| {
        let mut users = Vec::new();
        users.resize_with(40, || scope.spawn(|| http_get(forward.connect()?)));
        users.into_iter().try_for_each(|user| {
            let answer = user
                .join()
                .map_err(|_panic| anyhow::anyhow!("a user panicked"))??;
            ensure!(answer.contains("pod hello"), "{answer}");
            Ok(())
        })
    })?;
    forward.end()?;
    Ok(())
}

#[test]
fn a_forwarded_connection_ends_in_one_direction_at_a_time() -> Result<()> {
    let place = Place::new("streams-half")?;
    // Answers only when it has read everything.
    let server = "while true; do nc -l -p 9000 -e sh -c 'md5sum; echo done'; done";
    place.script("sum", server, "")?;
    let forward = Forward::start(&place, "sum", 9000)?;
    let answer = until(SOON, "the server answers", || {
        let mut stream = forward.connect()?;
        stream.write_all(&vec![b'x'; 2_000_000])?;
        stream.shutdown(Shutdown::Write)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        ensure!(answer.contains("done"), "{answer:?}");
        Ok(answer)
    })?;
    let expected = place.kubectl(&[
        "exec",
        "sum",
        "--",
        "sh",
        "-c",
        "head -c 2000000 /dev/zero | tr '\\0' x | md5sum",
    ])?;
    let expected = expected
        .success()?
        .text()
        .split(' ')
        .next()
        .unwrap_or_default()
        .to_owned();
    ensure!(answer.starts_with(&expected), "{answer} is not {expected}");
    forward.end()?;
    Ok(())
}

#[test]
fn a_port_without_a_listener_is_named() -> Result<()> {
    let place = Place::new("streams-refused")?;
    place.script("quiet", "sleep 3600", "")?;
    let forward = Forward::start(&place, "quiet", 81)?;
    let answer = http_get(forward.connect()?).unwrap_or_default();
    ensure!(answer.is_empty(), "{answer}");
    let said = forward.end()?;
    for part in [
        "n error occurred forwarding",
        "forwarding port 81",
        "connection refused",
    ] {
        ensure!(said.contains(part), "no {part:?} in: {said}");
    }
    Ok(())
}

#[test]
fn attach_carries_input_to_its_end() -> Result<()> {
    let place = Place::new("streams-attach")?;
    place.script(
        "reader",
        "while read line; do echo got $line; done; echo end of input; sleep 1",
        "    stdin: true\n    stdinOnce: true\n  restartPolicy: Never",
    )?;
    place
        .kubectl(&["attach", "reader", "-c", "nobody"])?
        .failure_saying("container nobody is not valid for pod reader")?;
    let output = place
        .with_input(&["attach", "-i", "reader"], "one\ntwo\n")?
        .success()?;
    for line in ["got one", "got two", "end of input"] {
        ensure!(
            output.stdout.contains(line),
            "no {line:?} in:\n{}",
            output.stdout
        );
    }
    let output = place.with_input(
        &[
            "run",
            "shout",
            "--rm",
            "-i",
            "--quiet",
            "--restart=Never",
            "--image=skep.local/busybox",
            "--image-pull-policy=IfNotPresent",
            "--",
            "tr",
            "a-z",
            "A-Z",
        ],
        "hello\n",
    )?;
    let output = output.success()?;
    ensure!(
        output.stdout.contains("HELLO"),
        "{}{}",
        output.stdout,
        output.stderr
    );
    let gone = place.kubectl(&["get", "pod", "shout"])?;
    gone.failure_saying("NotFound")?;
    Ok(())
}

/// Types `text` at a terminal of 33 lines and 77 columns; answers what is shown.
fn at_terminal(place: &Place, words: &[&str], text: &str) -> Result<String> {
    let size = Winsize {
        ws_row: 33,
        ws_col: 77,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let terminal = openpty(Some(&size), None).context("open a terminal")?;
    let mut command = place.cluster.kubectl_command(&place.words(words));
    let slave = || terminal.slave.try_clone().map(Stdio::from);
    let mut kubectl = command
        .stdin(slave()?)
        .stdout(slave()?)
        .stderr(slave()?)
        .spawn()
        .context("start kubectl")?;
    drop(terminal.slave);
    drop(command);
    let master = std::fs::File::from(terminal.master);
    let mut typist = master.try_clone()?;
    typist.write_all(text.as_bytes())?;
    let mut shown = Vec::new();
    // The kernel answers EIO when the other side has gone.
    let _end = BufReader::new(master).read_to_end(&mut shown);
    kubectl.wait()?;
    Ok(String::from_utf8_lossy(&shown).into_owned())
}

#[test]
fn a_terminal_has_the_size_of_the_users() -> Result<()> {
    let place = Place::new("streams-terminal")?;
    place.script("shell", "exec sh", "    stdin: true\n    tty: true")?;
    let script = "sleep 1; stty size; exit\n";
    let shown = at_terminal(&place, &["exec", "-it", "shell", "--", "sh"], script)?;
    ensure!(shown.contains("33 77"), "exec: {shown}");
    let shown = at_terminal(&place, &["attach", "-it", "shell"], script)?;
    ensure!(shown.contains("33 77"), "attach: {shown}");
    Ok(())
}

#[test]
fn exec_tells_exit_codes_and_reads_pipes() -> Result<()> {
    let place = Place::new("streams-exec")?;
    place.script("box", "sleep 3600", "")?;
    let exit = place.kubectl(&[
        "exec",
        "box",
        "--",
        "sh",
        "-c",
        "echo out; echo err >&2; exit 7",
    ])?;
    ensure!(exit.code == Some(7), "{exit:?}");
    ensure!(
        exit.stdout == "out\n" && exit.stderr.starts_with("err\n"),
        "{exit:?}"
    );
    let input = "line\n".repeat(200_000);
    let counted = place.with_input(&["exec", "-i", "box", "--", "wc", "-l"], &input)?;
    ensure!(counted.success()?.text() == "200000");
    Ok(())
}

#[test]
fn files_are_copied_both_ways_without_a_change() -> Result<()> {
    const BYTES: usize = 100 * 1024 * 1024;
    let place = Place::new("streams-copy")?;
    place.script("box", "sleep 3600", "")?;
    let directory = tempfile::tempdir()?;
    let (there, back) = (
        directory.path().join("there"),
        directory.path().join("back"),
    );
    let mut content = vec![0; BYTES];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut content)?;
    std::fs::write(&there, &content)?;
    let path = there.to_string_lossy();
    place.kubectl(&["cp", &path, "box:/tmp/file"])?.success()?;
    let size = place.kubectl(&["exec", "box", "--", "stat", "-c", "%s", "/tmp/file"])?;
    ensure!(size.success()?.text() == BYTES.to_string());
    let path = back.to_string_lossy();
    place.kubectl(&["cp", "box:/tmp/file", &path])?.success()?;
    ensure!(std::fs::read(&back)? == content, "the copy differs");
    Ok(())
}

#[test]
fn logs_are_cut_as_asked() -> Result<()> {
    let place = Place::new("streams-logs")?;
    let script = "for i in 1 2 3 4 5; do echo line $i; done; sleep 3600";
    let more = "  - name: side
    image: skep.local/busybox
    imagePullPolicy: IfNotPresent
    command: [sh, -c, 'echo aside; sleep 3600']";
    place.script("talk", script, more)?;
    let logs = |words: &[&str]| -> Result<String> {
        let words = [&["logs", "talk"], words].concat();
        Ok(place.kubectl(&words)?.success()?.stdout)
    };
    ensure!(logs(&["-c", "main", "--tail=2"])? == "line 4\nline 5\n");
    ensure!(logs(&["-c", "main", "--limit-bytes=8"])? == "line 1\nl");
    ensure!(logs(&["-c", "main", "--since=1h"])?.lines().count() == 5);
    ensure!(logs(&["-c", "main", "--since-time=2100-01-01T00:00:00Z"])?.is_empty());
    let stamped = logs(&["-c", "main", "--timestamps", "--tail=1"])?;
    ensure!(
        stamped.starts_with("20") && stamped.ends_with(" line 5\n"),
        "{stamped}"
    );
    let all = logs(&["--all-containers", "--prefix"])?;
    ensure!(
        all.contains("[pod/talk/main] line 1\n") && all.contains("[pod/talk/side] aside\n"),
        "{all}"
    );
    let previous = place.kubectl(&["logs", "talk", "-c", "main", "--previous"])?;
    previous.failure_saying("previous terminated container \"main\" in pod \"talk\" not found")?;
    Ok(())
}

#[test]
fn the_log_of_a_run_before_and_of_one_to_come() -> Result<()> {
    let place = Place::new("streams-runs")?;
    place.script("again", "echo run $$ of many; sleep 1; exit 1", "")?;
    until(SOON, "the container runs again", || {
        let logs = place.kubectl(&["logs", "again", "--previous"])?.success()?;
        ensure!(logs.stdout.contains("of many"), "{}", logs.stdout);
        Ok(())
    })?;
    let run = [
        "run",
        "nothing",
        "--image=skep.local/no-such-image",
        "--image-pull-policy=Never",
    ];
    place.kubectl(&run)?.success()?;
    until(SOON, "the container waits", || {
        place
            .kubectl(&["logs", "nothing"])?
            .failure_saying("is waiting to start: ErrImageNeverPull")
            .map(drop)
    })
}

#[test]
fn debug_looks_into_a_running_pod() -> Result<()> {
    let place = Place::new("streams-debug")?;
    place.hello()?;
    let debug = [
        "debug",
        "hello",
        "--image=skep.local/busybox",
        "--image-pull-policy=IfNotPresent",
        "--target=hello",
        "--container=look",
        "--quiet",
        "-i",
        "--",
        "sh",
        "-c",
        "ps; echo looked; sleep 1",
    ];
    let output = place.with_input(&debug, "")?.success()?;
    let logs = until(SOON, "the debug container has said its piece", || {
        let logs = place.kubectl(&["logs", "hello", "-c", "look"])?.success()?;
        ensure!(logs.stdout.contains("looked"), "{}", logs.stdout);
        Ok(logs.stdout)
    })?;
    // It shares the process namespace of its target.
    ensure!(logs.contains("hello"), "{logs}\n{}", output.stdout);
    let pod = place.json(&["get", "pod", "hello"])?;
    let status = &pod["status"]["ephemeralContainerStatuses"][0];
    ensure!(status["name"] == "look", "{status}");
    until(SOON, "the debug container has ended", || {
        let pod = place.json(&["get", "pod", "hello"])?;
        let state = &pod["status"]["ephemeralContainerStatuses"][0]["state"];
        ensure!(state["terminated"]["exitCode"] == 0, "{state}");
        ensure!(
            pod["status"]["phase"] == "Running",
            "{}",
            pod["status"]["phase"]
        );
        Ok(())
    })
}

#[test]
fn a_running_container_gets_more_without_a_restart() -> Result<()> {
    let place = Place::new("streams-resize")?;
    place.script(
        "grow",
        "sleep 3600",
        "    resources: {requests: {cpu: 50m, memory: 32Mi}, limits: {cpu: 100m, memory: 64Mi}}",
    )?;
    let patch = r#"{"spec":{"containers":[{"name":"main","resources":
        {"requests":{"cpu":"60m","memory":"32Mi"},"limits":{"cpu":"200m","memory":"96Mi"}}}]}}"#;
    place
        .kubectl(&[
            "patch",
            "pod",
            "grow",
            "--subresource=resize",
            "--patch",
            patch,
        ])?
        .success()?;
    until(SOON, "the new limits are in force", || {
        let pod = place.json(&["get", "pod", "grow"])?;
        let status = &pod["status"]["containerStatuses"][0];
        ensure!(
            status["resources"]["limits"]["memory"] == "96Mi",
            "{status}"
        );
        ensure!(status["allocatedResources"]["cpu"] == "60m", "{status}");
        ensure!(status["restartCount"] == 0, "{status}");
        Ok(())
    })?;
    let read = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || \
        cat /sys/fs/cgroup/memory.max";
    let limit = place
        .kubectl(&["exec", "grow", "--", "sh", "-c", read])?
        .success()?;
    ensure!(
        limit.text() == (96 * 1024 * 1024).to_string(),
        "{}",
        limit.text()
    );
    let worse = r#"{"spec":{"containers":[{"name":"main","resources":
        {"requests":{"cpu":"200m","memory":"96Mi"}}}]}}"#;
    place
        .kubectl(&[
            "patch",
            "pod",
            "grow",
            "--subresource=resize",
            "--patch",
            worse,
        ])?
        .failure_saying("Pod QOS Class may not change as a result of resizing")?;
    Ok(())
}

#[test]
fn the_proxy_reaches_pods_services_and_agents() -> Result<()> {
    let place = Place::new("streams-proxy")?;
    place.hello()?;
    let service = ["expose", "pod", "hello", "--port=80", "--target-port=8080"];
    place.kubectl(&service)?.success()?;
    let raw = |path: &str| place.kubectl(&["get", "--raw", path]);
    let base = "/api/v1/namespaces/streams-proxy";
    for path in [
        "pods/hello/proxy/",
        "pods/hello:8080/proxy/",
        "pods/http:hello:8080/proxy/",
    ] {
        let answer = raw(&format!("{base}/{path}"))?.success()?;
        ensure!(
            answer.stdout.contains("pod hello"),
            "{path}: {}",
            answer.stdout
        );
    }
    until(SOON, "the service has an endpoint", || {
        let answer = raw(&format!("{base}/services/hello:80/proxy/any/path?x=y"))?.success()?;
        ensure!(answer.stdout.contains("pod hello"), "{}", answer.stdout);
        Ok(())
    })?;
    raw(&format!("{base}/services/hello:nope/proxy/"))?
        .failure_saying("no service port \"nope\" found for service \"hello\"")?;
    let health = raw("/api/v1/nodes/node-1/proxy/healthz")?.success()?;
    ensure!(health.text() == "ok", "{}", health.stdout);
    let node = place.json(&["get", "pod", "hello"])?["spec"]["nodeName"].clone();
    let node = node.as_str().unwrap_or_default().to_owned();
    let pods = raw(&format!("/api/v1/nodes/{node}/proxy/pods"))?.success()?;
    ensure!(pods.stdout.contains("streams-proxy"), "{}", pods.stdout);
    let log = format!("/api/v1/nodes/{node}/proxy/containerLogs/streams-proxy/hello/hello");
    let log = raw(&log)?.success()?;
    ensure!(log.stdout.contains("listening"), "{}", log.stdout);
    raw("/api/v1/nodes/node-1/proxy/nothing")?.failure_saying("404 page not found")?;
    Ok(())
}
