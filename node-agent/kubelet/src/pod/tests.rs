//! Decisions and statuses as users know them: one situation in, actions and status out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use proto_api::types::core::v1::{Pod, PodStatus};
use serde_json::json;

use super::action::{Action, Failure, Outcome, StartContainer, StopReason};
use super::backoff::BackoffPolicy;
use super::model::{Inputs, Target, Wanted};
use super::observed::{Observed, ObservedContainer, ObservedSandbox, RunState};
use super::{Decision, Facts, Memory, ProbeFacts, Probes, StatusInputs, StepPolicy, advance};

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + seconds).unwrap()
}

/// A pod, what the runtime shows of it, and the worker's memory.
struct Scene {
    target: Target,
    sandboxes: Vec<ObservedSandbox>,
    containers: Vec<ObservedContainer>,
    probes: Probes,
    memory: Memory,
    status: PodStatus,
    reported: BTreeMap<String, u32>,
}

impl Scene {
    #[expect(clippy::needless_pass_by_value, reason = "literals at every call")]
    fn new(spec: serde_json::Value) -> Self {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u", "generation": 4}, "spec": spec}))
        .unwrap();
        Self {
            target: Target {
                pod: Arc::new(pod),
                wanted: Wanted::Run,
                inputs: Arc::new(Inputs::default()),
            },
            sandboxes: Vec::new(),
            containers: Vec::new(),
            probes: Probes::new(),
            memory: Memory::default(),
            status: PodStatus::default(),
            reported: BTreeMap::new(),
        }
    }

    /// The sandbox is up, volumes and images are there.
    fn prepared(mut self) -> Self {
        self.sandboxes.push(ObservedSandbox {
            id: "s0".to_owned(),
            attempt: 0,
            created_at: at(0),
            ready: true,
            ips: vec!["10.0.0.9".parse().unwrap()],
        });
        self.memory.absorb(Outcome::Volumes(Ok(None)), at(0));
        let names: Vec<String> = super::model::containers(self.target.spec())
            .map(|(_, container)| container.name.clone())
            .collect();
        for container in names {
            let result = Ok("image".to_owned());
            self.memory
                .absorb(Outcome::Image { container, result }, at(0));
        }
        self
    }

    fn container(mut self, name: &str, state: RunState, exit_code: i32) -> Self {
        let attempt = self.containers.iter().filter(|c| c.name == name).count();
        let attempt = u32::try_from(attempt).unwrap();
        self.containers.push(ObservedContainer {
            id: format!("{name}{attempt}"),
            name: name.to_owned(),
            sandbox_id: "s0".to_owned(),
            attempt,
            restart_count: attempt,
            state,
            created_at: at(1),
            started_at: Some(at(2)),
            finished_at: (state == RunState::Exited).then(|| at(3)),
            exit_code,
            reason: String::new(),
            message: String::new(),
            image: "i".to_owned(),
            image_id: "sha256:1".to_owned(),
            spec_hash: String::new(),
        });
        self
    }

    fn probed(mut self, id: &str, started: bool, ready: bool) -> Self {
        let facts = ProbeFacts {
            started,
            ready,
            ..ProbeFacts::default()
        };
        self.probes.insert(id.to_owned(), facts);
        self
    }

    fn advance(&mut self, now: Timestamp) -> Decision {
        let observed = Observed::new(self.sandboxes.clone(), self.containers.clone());
        let cap = SignedDuration::from_secs(300);
        let facts = Facts {
            target: &self.target,
            observed: &observed,
            probes: &self.probes,
            policy: StepPolicy {
                capacity: super::Capacity {
                    cpu_milli: 4000,
                    memory_bytes: 1 << 32,
                },
                restart_backoff: BackoffPolicy::restarts(cap),
            },
            reported_restarts: &self.reported,
            now,
        };
        let inputs = StatusInputs {
            previous: &self.status,
            host_ips: &["192.0.2.1".parse().unwrap()],
            termination_messages: &BTreeMap::new(),
        };
        let (decision, status) = advance(&facts, &mut self.memory, inputs);
        self.status = status;
        decision
    }

    fn phase(&mut self) -> String {
        self.advance(at(4));
        self.status.phase.clone().unwrap()
    }

    fn condition(&self, kind: &str) -> (String, String, String) {
        let found = self
            .status
            .conditions
            .iter()
            .find(|condition| condition.type_ == kind)
            .unwrap();
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        (
            found.status.clone(),
            text(&found.reason),
            text(&found.message),
        )
    }

    fn waiting(&self, index: usize) -> (String, String) {
        let state = self.status.container_statuses[index].state.clone().unwrap();
        let waiting = state.waiting.unwrap_or_default();
        (
            waiting.reason.unwrap_or_default(),
            waiting.message.unwrap_or_default(),
        )
    }
}

fn two(policy: &str) -> serde_json::Value {
    json!({"restartPolicy": policy, "containers": [{"name": "a"}, {"name": "b"}]})
}

fn starts(decision: &Decision) -> Vec<&StartContainer> {
    let mut found = Vec::new();
    for action in &decision.actions {
        if let Action::StartContainer(wanted) = action {
            found.push(wanted);
        }
    }
    found
}

#[test]
fn everything_a_new_pod_needs_is_begun_at_once() {
    let mut scene = Scene::new(two("Always"));
    let decision = scene.advance(at(0));
    assert_eq!(
        decision.actions,
        [
            Action::PrepareVolumes,
            Action::EnsureImage {
                container: "a".to_owned()
            },
            Action::EnsureImage {
                container: "b".to_owned()
            },
            Action::RunSandbox { attempt: 0 },
        ]
    );
    assert_eq!(scene.status.phase.as_deref(), Some("Pending"));
    assert_eq!(scene.waiting(0).0, "ContainerCreating");
    assert_eq!(scene.condition("PodReadyToStartContainers").0, "False");
    assert_eq!(scene.status.host_ip.as_deref(), Some("192.0.2.1"));
    assert_eq!(scene.status.observed_generation, Some(4));
    assert!(
        scene.advance(at(1)).actions.is_empty(),
        "nothing is begun twice"
    );
}

#[test]
fn phases_follow_upstreams_table() {
    use RunState::{Exited, Running};
    let scene = |policy: &str, a: Option<(RunState, i32)>, b: Option<(RunState, i32)>| {
        let mut scene = Scene::new(two(policy)).prepared();
        for (name, state) in [("a", a), ("b", b)] {
            if let Some((state, code)) = state {
                scene = scene.container(name, state, code);
            }
        }
        scene.phase()
    };
    let cases = [
        ("Always", None, None, "Pending"),
        ("Always", Some((Running, 0)), None, "Pending"),
        ("Always", Some((Running, 0)), Some((Running, 0)), "Running"),
        ("Always", Some((Exited, 0)), Some((Running, 0)), "Running"),
        ("Always", Some((Exited, 1)), Some((Exited, 0)), "Running"),
        (
            "OnFailure",
            Some((Exited, 0)),
            Some((Exited, 0)),
            "Succeeded",
        ),
        ("OnFailure", Some((Exited, 0)), Some((Exited, 1)), "Running"),
        ("Never", Some((Exited, 0)), Some((Exited, 0)), "Succeeded"),
        ("Never", Some((Exited, 0)), Some((Exited, 2)), "Failed"),
        ("Never", Some((Exited, 2)), Some((Running, 0)), "Running"),
    ];
    for (policy, a, b, phase) in cases {
        assert_eq!(scene(policy, a, b), phase, "{policy} {a:?} {b:?}");
    }
}

#[test]
fn a_failed_init_container_decides_by_the_restart_policy() {
    let spec = |policy: &str| json!({"restartPolicy": policy, "initContainers": [{"name": "i"}], "containers": [{"name": "a"}]});
    let phase = |policy: &str| {
        Scene::new(spec(policy))
            .prepared()
            .container("i", RunState::Exited, 1)
            .phase()
    };
    assert_eq!(phase("Never"), "Failed");
    assert_eq!(phase("OnFailure"), "Pending");
    assert_eq!(phase("Always"), "Pending");
    let mut scene = Scene::new(spec("Always")).prepared();
    scene.advance(at(1));
    assert_eq!(scene.waiting(0).0, "PodInitializing");
    assert_eq!(
        scene.condition("Initialized"),
        (
            "False".to_owned(),
            "ContainersNotInitialized".to_owned(),
            "containers with incomplete status: [i]".to_owned()
        )
    );
}

#[test]
fn init_containers_run_in_order_and_sidecars_hold_back_until_started() {
    let spec = json!({"initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}],
                      "containers": [{"name": "a"}]});
    let mut scene = Scene::new(spec).prepared();
    let names = |decision: &Decision| -> Vec<String> {
        starts(decision)
            .iter()
            .map(|start| start.container.clone())
            .collect()
    };
    assert_eq!(names(&scene.advance(at(1))), ["i"]);
    scene.memory.absorb(
        Outcome::Start {
            container: "i".to_owned(),
            result: Ok(()),
        },
        at(1),
    );
    scene = scene.container("i", RunState::Exited, 0);
    assert_eq!(names(&scene.advance(at(4))), ["s"]);
    scene.memory.absorb(
        Outcome::Start {
            container: "s".to_owned(),
            result: Ok(()),
        },
        at(4),
    );
    scene = scene
        .container("s", RunState::Running, 0)
        .probed("s0", false, false);
    assert!(
        names(&scene.advance(at(5))).is_empty(),
        "its startup probe has not passed"
    );
    scene = scene.probed("s0", true, true);
    assert_eq!(names(&scene.advance(at(6))), ["a"]);
}

#[test]
fn readiness_shows_in_status_and_conditions_with_stable_times() {
    let mut scene = Scene::new(json!({"containers": [{"name": "a"}]}))
        .prepared()
        .container("a", RunState::Running, 0)
        .probed("a0", true, false);
    scene.advance(at(5));
    let not_ready = (
        "False".to_owned(),
        "ContainersNotReady".to_owned(),
        "containers with unready status: [a]".to_owned(),
    );
    assert_eq!(scene.condition("Ready"), not_ready);
    assert_eq!(scene.condition("ContainersReady"), not_ready);
    scene = scene.probed("a0", true, true);
    scene.advance(at(6));
    assert_eq!(scene.condition("Ready").0, "True");
    let first = scene.status.clone();
    scene.advance(at(60));
    assert_eq!(scene.status, first, "an unchanged pod reports equal bytes");
}

#[test]
fn a_readiness_gate_holds_back_ready_only() {
    let mut scene = Scene::new(
        json!({"containers": [{"name": "a"}], "readinessGates": [{"conditionType": "lb"}]}),
    )
    .prepared()
    .container("a", RunState::Running, 0)
    .probed("a0", true, true);
    scene.advance(at(5));
    assert_eq!(scene.condition("ContainersReady").0, "True");
    assert_eq!(scene.condition("Ready").1, "ReadinessGatesNotReady");
    let mut pod = (*scene.target.pod).clone();
    pod.status =
        serde_json::from_value(json!({"conditions": [{"type": "lb", "status": "True"}]})).unwrap();
    scene.target.pod = Arc::new(pod);
    scene.advance(at(6));
    assert_eq!(scene.condition("Ready").0, "True");
    assert_eq!(
        scene.condition("lb").0,
        "True",
        "conditions of others are kept"
    );
}

#[test]
fn crashes_wait_longer_and_longer_and_say_so() {
    let mut scene = Scene::new(json!({"containers": [{"name": "a"}]}))
        .prepared()
        .container("a", RunState::Exited, 1);
    let decision = scene.advance(at(4));
    assert_eq!(
        starts(&decision)[0].restart_count,
        1,
        "the first restart is immediate"
    );
    scene.memory.absorb(
        Outcome::Start {
            container: "a".to_owned(),
            result: Ok(()),
        },
        at(4),
    );
    scene = scene.container("a", RunState::Exited, 1);
    scene.containers[1].finished_at = Some(at(5));
    let decision = scene.advance(at(6));
    assert!(starts(&decision).is_empty());
    assert_eq!(decision.wake_at, Some(at(15)));
    assert_eq!(decision.notices.len(), 1);
    assert_eq!(
        scene.waiting(0),
        (
            "CrashLoopBackOff".to_owned(),
            "back-off 10s restarting failed container=a pod=p_n(u)".to_owned()
        )
    );
    assert!(scene.advance(at(7)).notices.is_empty(), "told once");
    let image = Outcome::Image {
        container: "a".to_owned(),
        result: Ok("image".to_owned()),
    };
    scene.advance(at(15));
    scene.memory.absorb(image, at(15));
    assert_eq!(starts(&scene.advance(at(15)))[0].restart_count, 2);
}

#[test]
fn a_failed_pull_shows_itself_then_its_back_off() {
    let mut scene = Scene::new(json!({"containers": [{"name": "a", "image": "x"}]}));
    scene.advance(at(0));
    let failure = Failure {
        reason: "ErrImagePull",
        message: "why".to_owned(),
    };
    scene.memory.absorb(
        Outcome::Image {
            container: "a".to_owned(),
            result: Err(failure),
        },
        at(0),
    );
    scene.advance(at(1));
    assert_eq!(
        scene.waiting(0),
        ("ErrImagePull".to_owned(), "why".to_owned())
    );
    let decision = scene.advance(at(2));
    assert_eq!(
        scene.waiting(0),
        (
            "ImagePullBackOff".to_owned(),
            "Back-off pulling image \"x\": ErrImagePull: why".to_owned()
        )
    );
    assert_eq!(decision.notices.len(), 1);
    assert!(scene.advance(at(9)).actions.is_empty());
    assert_eq!(
        scene.advance(at(10)).actions,
        [Action::EnsureImage {
            container: "a".to_owned()
        }]
    );
}

#[test]
fn probes_and_a_new_image_stop_a_container() {
    let spec = json!({"terminationGracePeriodSeconds": 9, "containers": [{"name": "a", "image": "new",
        "livenessProbe": {"terminationGracePeriodSeconds": 4}}]});
    let stop = |change: &dyn Fn(&mut Scene)| {
        let mut scene = Scene::new(spec.clone())
            .prepared()
            .container("a", RunState::Running, 0)
            .probed("a0", true, true);
        change(&mut scene);
        scene.advance(at(5)).actions
    };
    let expected = |seconds: u64, why: StopReason| {
        vec![Action::StopContainer {
            id: "a0".to_owned(),
            container: "a".to_owned(),
            grace: Duration::from_secs(seconds),
            why,
        }]
    };
    let facts = |facts: ProbeFacts| {
        move |scene: &mut Scene| {
            scene.probes.insert("a0".to_owned(), facts);
        }
    };
    let fine = ProbeFacts {
        started: true,
        ready: true,
        ..ProbeFacts::default()
    };
    assert!(stop(&facts(fine)).is_empty());
    let dead = ProbeFacts {
        liveness_failed: true,
        ..fine
    };
    assert_eq!(stop(&facts(dead)), expected(4, StopReason::LivenessFailed));
    let never = ProbeFacts {
        startup_failed: true,
        ..fine
    };
    assert_eq!(stop(&facts(never)), expected(9, StopReason::StartupFailed));
    let old = |scene: &mut Scene| "of another image".clone_into(&mut scene.containers[0].spec_hash);
    assert_eq!(stop(&old), expected(9, StopReason::SpecChanged));
}

#[test]
fn a_deleted_pod_stops_main_containers_then_sidecars_in_reverse() {
    let side = |name: &str| json!({"name": name, "restartPolicy": "Always"});
    let mut scene = Scene::new(json!({"initContainers": [side("s"), side("t")],
        "containers": [{"name": "a"}]}))
    .prepared();
    for name in ["s", "t", "a"] {
        scene = scene
            .container(name, RunState::Running, 0)
            .probed(&format!("{name}0"), true, true);
    }
    scene.target.wanted = Wanted::Delete {
        grace: Duration::from_secs(30),
    };
    let mut order = Vec::new();
    for second in 0..4 {
        for action in scene.advance(at(10 + second)).actions {
            match action {
                Action::StopContainer {
                    id,
                    container,
                    grace,
                    ..
                } => {
                    order.push((container.clone(), grace.as_secs()));
                    scene.memory.absorb(
                        Outcome::Stop {
                            id: id.clone(),
                            result: Ok(()),
                        },
                        at(11),
                    );
                    let dead = scene.containers.iter_mut().find(|c| c.id == id).unwrap();
                    dead.state = RunState::Exited;
                }
                other => assert_eq!(
                    other,
                    Action::StopSandbox {
                        id: "s0".to_owned()
                    }
                ),
            }
        }
    }
    let expected = [("a", 30), ("t", 29), ("s", 28)];
    assert_eq!(
        order,
        expected.map(|(name, grace)| (name.to_owned(), grace))
    );
}

#[test]
fn a_shorter_grace_stops_again_without_the_hook_and_a_longer_one_does_nothing() {
    let mut scene = Scene::new(json!({"containers": [{"name": "a"}]}))
        .prepared()
        .container("a", RunState::Running, 0);
    let graces = |scene: &mut Scene, seconds: u64, now: i64| -> Vec<(u64, StopReason)> {
        scene.target.wanted = Wanted::Delete {
            grace: Duration::from_secs(seconds),
        };
        let actions = scene.advance(at(now)).actions;
        let stop = |action| match action {
            Action::StopContainer { grace, why, .. } => (grace.as_secs(), why),
            other => panic!("{other:?}"),
        };
        actions.into_iter().map(stop).collect()
    };
    assert_eq!(graces(&mut scene, 30, 0), [(30, StopReason::PodEnds)]);
    assert_eq!(graces(&mut scene, 60, 5), []);
    assert_eq!(graces(&mut scene, 10, 6), [(4, StopReason::GraceShrunk)]);
    assert_eq!(graces(&mut scene, 1, 9), [(2, StopReason::GraceShrunk)]);
}

#[test]
fn a_lost_container_is_told_and_counted() {
    let mut scene = Scene::new(json!({"containers": [{"name": "a"}]})).prepared();
    scene.status = serde_json::from_value(json!({"containerStatuses": [
        {"name": "a", "restartCount": 2, "containerID": "containerd://x", "state": {"running": {}},
         "image": "i", "imageID": "x", "ready": true}]}))
    .unwrap();
    scene.reported.insert("a".to_owned(), 2);
    let decision = scene.advance(at(5));
    assert_eq!(starts(&decision)[0].restart_count, 3);
    let last = scene.status.container_statuses[0]
        .last_state
        .clone()
        .unwrap()
        .terminated
        .unwrap();
    assert_eq!(
        (last.exit_code, last.reason.as_deref()),
        (137, Some("ContainerStatusUnknown"))
    );
}

#[test]
fn a_pod_past_its_deadline_fails_and_ends() {
    let mut scene = Scene::new(json!({"activeDeadlineSeconds": 10, "containers": [{"name": "a"}]}))
        .prepared()
        .container("a", RunState::Running, 0);
    scene.advance(at(0));
    assert_eq!(scene.advance(at(9)).wake_at, Some(at(10)));
    let decision = scene.advance(at(10));
    assert!(matches!(decision.actions[0], Action::StopContainer { .. }));
    assert_eq!(scene.status.phase.as_deref(), Some("Failed"));
    assert_eq!(scene.status.reason.as_deref(), Some("DeadlineExceeded"));
}
