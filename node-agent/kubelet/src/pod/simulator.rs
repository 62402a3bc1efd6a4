//! A model runtime that is slow, loses answers, crashes containers and acts after giving up, and
//! properties that the decision must keep under all of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use proto_api::types::core::v1::{Pod, PodStatus};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::action::{Action, Failure, Outcome, StartContainer};
use super::backoff::BackoffPolicy;
use super::model::{Inputs, Target, Wanted};
use super::observed::{Observed, ObservedContainer, ObservedSandbox, RunState};
use super::{Facts, Memory, ProbeFacts, StatusInputs, StepPolicy, advance};

const TICK: SignedDuration = SignedDuration::from_millis(100);

/// Something that happens at the model runtime at a certain time.
enum Effect {
    SandboxReady { attempt: u32 },
    Created { id: String, wanted: StartContainer },
    Running { id: String },
    Exited { id: String, code: i32 },
    SandboxStopped { id: String },
    ContainerRemoved { id: String },
    SandboxRemoved { id: String },
    Answer(Outcome),
}

struct Simulation {
    rng: StdRng,
    now: Timestamp,
    faults: bool,
    sandboxes: Vec<ObservedSandbox>,
    containers: Vec<ObservedContainer>,
    /// Containers whose start is under way: the runtime refuses to remove them.
    starting: BTreeSet<String>,
    due: Vec<(Timestamp, Effect)>,
    memory: Memory,
    status: PodStatus,
    target: Target,
    attempts: BTreeSet<(String, u32)>,
    sandbox_attempts: BTreeSet<u32>,
    deadline: Option<Timestamp>,
    forgotten: bool,
    torn_down: bool,
}

impl Simulation {
    fn new(seed: u64, pod: serde_json::Value) -> Self {
        let pod: Pod = serde_json::from_value(pod).unwrap();
        Self {
            rng: StdRng::seed_from_u64(seed),
            now: Timestamp::from_second(1_000_000).unwrap(),
            faults: true,
            sandboxes: Vec::new(),
            containers: Vec::new(),
            starting: BTreeSet::new(),
            due: Vec::new(),
            memory: Memory::default(),
            status: PodStatus::default(),
            target: Target {
                pod: Arc::new(pod),
                wanted: Wanted::Run,
                inputs: Arc::new(Inputs::default()),
            },
            attempts: BTreeSet::new(),
            sandbox_attempts: BTreeSet::new(),
            deadline: None,
            forgotten: false,
            torn_down: false,
        }
    }

    fn later(&mut self, millis: std::ops::Range<i64>) -> Timestamp {
        let wait = SignedDuration::from_millis(self.rng.random_range(millis));
        self.now.checked_add(wait).unwrap()
    }

    fn goes_wrong(&mut self, chance: f64) -> bool {
        self.faults && self.rng.random_bool(chance)
    }

    fn run(&mut self, ticks: u32) {
        for _ in 0..ticks {
            if self.forgotten {
                return;
            }
            self.tick();
        }
    }

    fn tick(&mut self) {
        self.now = self.now.checked_add(TICK).unwrap();
        let (ready, rest) = std::mem::take(&mut self.due)
            .into_iter()
            .partition::<Vec<_>, _>(|(at, _)| *at <= self.now);
        self.due = rest;
        for (_, effect) in ready {
            self.happen(effect);
        }
        if self.goes_wrong(0.01) {
            self.crash_something();
        }
        // Duplicate, early and useless wake-ups change nothing: the step runs at every tick.
        if self.rng.random_bool(0.7) {
            self.step();
        }
        self.check();
    }

    fn happen(&mut self, effect: Effect) {
        match effect {
            Effect::SandboxReady { attempt } => self.sandboxes.push(ObservedSandbox {
                id: format!("s{attempt}"),
                attempt,
                created_at: self.now,
                ready: true,
                ips: Vec::new(),
            }),
            Effect::Created { id, wanted } => {
                if self
                    .sandboxes
                    .iter()
                    .any(|sandbox| sandbox.id == wanted.sandbox_id)
                {
                    self.containers.push(container(id, &wanted, self.now));
                }
            }
            Effect::Running { id } => {
                self.starting.remove(&id);
                let alive: Vec<&str> = self
                    .sandboxes
                    .iter()
                    .filter(|sandbox| sandbox.ready)
                    .map(|sandbox| sandbox.id.as_str())
                    .collect();
                for container in self.containers.iter_mut().filter(|c| c.id == id) {
                    let in_sandbox = alive.contains(&container.sandbox_id.as_str());
                    container.state = if in_sandbox {
                        RunState::Running
                    } else {
                        RunState::Exited
                    };
                    container.started_at = Some(self.now);
                }
            }
            Effect::Exited { id, code } => self.exit(|container| container.id == id, code),
            Effect::SandboxStopped { id } => {
                self.exit(|container| container.sandbox_id == id, 137);
                for sandbox in self.sandboxes.iter_mut().filter(|sandbox| sandbox.id == id) {
                    sandbox.ready = false;
                }
            }
            Effect::ContainerRemoved { id } => self.containers.retain(|c| c.id != id),
            Effect::SandboxRemoved { id } => {
                self.containers
                    .retain(|container| container.sandbox_id != id);
                self.sandboxes.retain(|sandbox| sandbox.id != id);
            }
            Effect::Answer(outcome) => self.memory.absorb(outcome, self.now),
        }
    }

    fn exit(&mut self, which: impl Fn(&ObservedContainer) -> bool, code: i32) {
        let now = self.now;
        for container in self
            .containers
            .iter_mut()
            .filter(|container| which(container))
        {
            if container.state == RunState::Running {
                container.state = RunState::Exited;
                container.finished_at = Some(now);
                container.exit_code = code;
            }
        }
    }

    fn crash_something(&mut self) {
        let running: Vec<String> = self
            .containers
            .iter()
            .filter(|container| container.state == RunState::Running)
            .map(|container| container.id.clone())
            .collect();
        if self.rng.random_bool(0.1) {
            for sandbox in &mut self.sandboxes {
                sandbox.ready = false;
            }
            self.exit(|_| true, 255);
        } else if !running.is_empty() {
            let index = self.rng.random_range(0..running.len());
            let code = self.rng.random_range(0..3);
            let id = running[index].clone();
            self.exit(|container| container.id == id, code);
        }
    }

    fn step(&mut self) {
        let observed = Observed::new(self.sandboxes.clone(), self.containers.clone());
        let running = observed
            .containers
            .iter()
            .filter(|c| c.state == RunState::Running);
        let facts_of = ProbeFacts {
            started: true,
            ready: true,
            ..ProbeFacts::default()
        };
        let probes: BTreeMap<_, _> = running.map(|c| (c.id.clone(), facts_of)).collect();
        let policy = StepPolicy {
            capacity: super::Capacity {
                cpu_milli: 4000,
                memory_bytes: 1 << 32,
            },
            restart_backoff: BackoffPolicy::restarts(SignedDuration::from_secs(5)),
        };
        let none = BTreeMap::new();
        let facts = Facts {
            target: &self.target,
            observed: &observed,
            probes: &probes,
            policy,
            reported_restarts: &none,
            now: self.now,
        };
        let messages = BTreeMap::new();
        let inputs = StatusInputs {
            previous: &self.status,
            host_ips: &[],
            termination_messages: &messages,
        };
        let (decision, status) = advance(&facts, &mut self.memory, inputs);
        let was = self.status.phase.clone();
        if matches!(was.as_deref(), Some("Succeeded" | "Failed")) {
            assert_eq!(status.phase, was, "a terminal phase never changes");
        }
        self.status = status;
        self.forgotten |= decision.forgotten;
        self.torn_down |= decision.torn_down;
        for action in decision.actions {
            self.begin(action);
        }
    }

    fn begin(&mut self, action: Action) {
        let ends = self.memory.termination.is_some();
        match action {
            Action::PrepareVolumes => {
                let failed = self.goes_wrong(0.2);
                let result = if failed {
                    Err("volume".to_owned())
                } else {
                    Ok(None)
                };
                self.answer(1..400, Outcome::Volumes(result));
            }
            Action::EnsureImage { container } => {
                let failure = Failure {
                    reason: "ErrImagePull",
                    message: "no".to_owned(),
                };
                let failed = self.goes_wrong(0.2);
                let result = if failed {
                    Err(failure)
                } else {
                    Ok("image".to_owned())
                };
                self.answer(1..400, Outcome::Image { container, result });
            }
            Action::RunSandbox { attempt } => {
                assert!(!ends, "an ending pod gets no sandbox");
                assert!(
                    self.sandbox_attempts.insert(attempt),
                    "sandbox attempt {attempt} twice"
                );
                self.run_sandbox(attempt);
            }
            Action::StartContainer(wanted) => {
                assert!(!ends, "an ending pod starts nothing");
                let fresh = self
                    .attempts
                    .insert((wanted.container.clone(), wanted.attempt));
                assert!(
                    fresh,
                    "attempt {} of {} twice",
                    wanted.attempt, wanted.container
                );
                self.check_order(&wanted);
                self.start_container(wanted);
            }
            other => self.end(other),
        }
    }

    /// Actions that take something away.
    fn end(&mut self, action: Action) {
        match action {
            Action::StopContainer { id, grace, .. } => {
                let most = i64::try_from(grace.as_millis()).unwrap().max(2);
                let at = self.later(1..most);
                self.due.push((
                    at,
                    Effect::Exited {
                        id: id.clone(),
                        code: 143,
                    },
                ));
                let lost = self.goes_wrong(0.2);
                let result = if lost { Err("lost".to_owned()) } else { Ok(()) };
                self.due
                    .push((at, Effect::Answer(Outcome::Stop { id, result })));
            }
            Action::RemoveContainer { id } => {
                let result = if self.starting.contains(&id) {
                    Err("container is in starting state".to_owned())
                } else {
                    let at = self.later(1..100);
                    self.due
                        .push((at, Effect::ContainerRemoved { id: id.clone() }));
                    Ok(())
                };
                self.answer(100..300, Outcome::Remove { id, result });
            }
            Action::ResizeContainer { .. } => unreachable!("no pod here is resized"),
            Action::StopSandbox { id } => {
                let at = self.later(1..200);
                self.due
                    .push((at, Effect::SandboxStopped { id: id.clone() }));
                let lost = self.goes_wrong(0.2);
                let result = if lost { Err("lost".to_owned()) } else { Ok(()) };
                self.answer(200..400, Outcome::SandboxStop { id, result });
            }
            Action::RemoveSandbox { id } => {
                let at = self.later(1..200);
                self.due
                    .push((at, Effect::SandboxRemoved { id: id.clone() }));
                self.answer(200..400, Outcome::SandboxRemove { id, result: Ok(()) });
            }
            Action::TearDown => {
                let alive = self.containers.iter().any(|c| c.state == RunState::Running);
                assert!(!alive, "volumes are given back while something runs");
                let failed = self.goes_wrong(0.3);
                let result = if failed {
                    Err("busy".to_owned())
                } else {
                    Ok(())
                };
                self.answer(1..100, Outcome::TearDown(result));
            }
            Action::Forget => {
                assert!(self.sandboxes.is_empty() && self.containers.is_empty());
                self.answer(1..100, Outcome::Forget(Ok(())));
            }
            other => panic!("{other:?} takes nothing away"),
        }
    }

    fn answer(&mut self, millis: std::ops::Range<i64>, outcome: Outcome) {
        let at = self.later(millis);
        self.due.push((at, Effect::Answer(outcome)));
    }

    fn run_sandbox(&mut self, attempt: u32) {
        let ready_at = self.later(10..500);
        let refused = self.goes_wrong(0.2);
        let lost = self.goes_wrong(0.2);
        if refused {
            let result = Err("refused".to_owned());
            self.answer(1..500, Outcome::Sandbox { attempt, result });
            return;
        }
        self.due.push((ready_at, Effect::SandboxReady { attempt }));
        if lost {
            // Given up before it took effect.
            let result = Err("deadline".to_owned());
            self.answer(1..10, Outcome::Sandbox { attempt, result });
        } else {
            let result = Ok(format!("s{attempt}"));
            self.due.push((
                ready_at,
                Effect::Answer(Outcome::Sandbox { attempt, result }),
            ));
        }
    }

    fn start_container(&mut self, wanted: StartContainer) {
        let id = format!("{}-{}", wanted.container, wanted.attempt);
        let container = wanted.container.clone();
        let lost = || {
            Err(Failure {
                reason: "CreateContainerError",
                message: "deadline".to_owned(),
            })
        };
        let created_at = self.later(1..100);
        let kind = if self.faults {
            self.rng.random_range(0..6)
        } else {
            5
        };
        match kind {
            0 => self.answer(
                1..100,
                Outcome::Start {
                    container,
                    result: lost(),
                },
            ),
            1 => {
                // The creation takes effect after it was given up; it is never started.
                let late = self.later(500..3000);
                self.due.push((late, Effect::Created { id, wanted }));
                self.answer(
                    1..400,
                    Outcome::Start {
                        container,
                        result: lost(),
                    },
                );
            }
            2 => {
                // The start takes effect after it was given up.
                let late = self.later(500..3000);
                self.due.push((
                    created_at,
                    Effect::Created {
                        id: id.clone(),
                        wanted,
                    },
                ));
                self.starting.insert(id.clone());
                self.due.push((late, Effect::Running { id }));
                self.answer(
                    150..400,
                    Outcome::Start {
                        container,
                        result: lost(),
                    },
                );
            }
            _ => {
                let running_at = self.later(100..400);
                self.due.push((
                    created_at,
                    Effect::Created {
                        id: id.clone(),
                        wanted,
                    },
                ));
                self.starting.insert(id.clone());
                self.due.push((running_at, Effect::Running { id }));
                let outcome = Outcome::Start {
                    container,
                    result: Ok(()),
                };
                self.due.push((running_at, Effect::Answer(outcome)));
            }
        }
    }

    /// Main containers start only behind init containers that succeeded in the same sandbox.
    fn check_order(&self, wanted: &StartContainer) {
        let spec = self.target.spec();
        if !spec
            .containers
            .iter()
            .any(|container| container.name == wanted.container)
        {
            return;
        }
        let past_init = self.containers.iter().any(|c| {
            c.sandbox_id == wanted.sandbox_id && spec.containers.iter().any(|m| m.name == c.name)
        });
        for init in spec
            .init_containers
            .iter()
            .filter(|init| init.restart_policy.is_none())
        {
            let passed = self.containers.iter().any(|container| {
                container.name == init.name
                    && container.sandbox_id == wanted.sandbox_id
                    && container.state == RunState::Exited
                    && container.exit_code == 0
            });
            assert!(
                passed || past_init,
                "{} before {}",
                wanted.container,
                init.name
            );
        }
    }

    fn check(&mut self) {
        let mut running: BTreeMap<&str, u32> = BTreeMap::new();
        for container in self
            .containers
            .iter()
            .filter(|c| c.state == RunState::Running)
        {
            *running.entry(&container.name).or_default() += 1;
        }
        assert!(
            running.values().all(|count| *count == 1),
            "two of one name run: {running:?}"
        );
        if let Some(termination) = self.memory.termination {
            assert!(
                self.deadline
                    .is_none_or(|before| termination.deadline <= before)
            );
            self.deadline = Some(termination.deadline);
        }
    }
}

fn container(id: String, wanted: &StartContainer, now: Timestamp) -> ObservedContainer {
    ObservedContainer {
        id,
        name: wanted.container.clone(),
        sandbox_id: wanted.sandbox_id.clone(),
        attempt: wanted.attempt,
        restart_count: wanted.restart_count,
        state: RunState::Created,
        created_at: now,
        started_at: None,
        finished_at: None,
        exit_code: 0,
        reason: String::new(),
        message: String::new(),
        image: "image".to_owned(),
        image_id: "id".to_owned(),
        spec_hash: String::new(),
    }
}

fn pod(policy: &str, init: bool) -> serde_json::Value {
    let inits = if init {
        serde_json::json!([{"name": "init"}, {"name": "side", "restartPolicy": "Always"}])
    } else {
        serde_json::json!([])
    };
    serde_json::json!({
        "metadata": {"name": "p", "namespace": "n", "uid": "u"},
        "spec": {"restartPolicy": policy, "terminationGracePeriodSeconds": 5,
                 "initContainers": inits, "containers": [{"name": "a"}, {"name": "b"}]},
    })
}

/// Ends init containers as programs do that have something to do and then are done.
fn finish_inits(simulation: &mut Simulation, ticks: u32) {
    for _ in 0..ticks {
        simulation.exit(|container| container.name == "init", 0);
        simulation.run(1);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_goes_wrong_a_pod_runs_once_it_stops_going_wrong(seed: u64, init: bool) {
        let mut simulation = Simulation::new(seed, pod("Always", init));
        finish_inits(&mut simulation, 600);
        simulation.faults = false;
        finish_inits(&mut simulation, 8000);
        let running = simulation.containers.iter().filter(|c| c.state == RunState::Running).count();
        prop_assert_eq!(running, if init { 3 } else { 2 });
        prop_assert_eq!(simulation.status.phase.as_deref(), Some("Running"));
        let created = simulation.containers.iter().filter(|c| c.state == RunState::Created).count();
        prop_assert_eq!(created, 0, "leftovers are removed");
        prop_assert!(simulation.containers.len() <= 8, "dead containers are swept");
    }

    #[test]
    fn whenever_it_is_deleted_a_pod_ends_and_leaves_nothing(
        seed: u64, init: bool, ticks in 0_u32..200, shorter in 0_u64..5, policy in 0_usize..3,
    ) {
        let policy = ["Always", "OnFailure", "Never"][policy];
        let mut simulation = Simulation::new(seed, pod(policy, init));
        finish_inits(&mut simulation, ticks);
        simulation.target.wanted = Wanted::Delete { grace: Duration::from_secs(5) };
        simulation.run(10);
        simulation.target.wanted = Wanted::Delete { grace: Duration::from_secs(shorter) };
        simulation.run(10);
        // Asking for more time again gives none.
        simulation.target.wanted = Wanted::Delete { grace: Duration::from_secs(60) };
        simulation.run(200);
        simulation.faults = false;
        simulation.run(3000);
        prop_assert!(simulation.torn_down);
        simulation.target.wanted = Wanted::Gone { grace: Duration::from_secs(1) };
        simulation.run(3000);
        prop_assert!(simulation.forgotten);
        prop_assert!(simulation.sandboxes.is_empty() && simulation.containers.is_empty());
    }

    #[test]
    fn an_agent_that_forgets_everything_goes_on_safely(seed: u64, init: bool, every in 5_u32..60) {
        let mut simulation = Simulation::new(seed, pod("Always", init));
        for _ in 0..20 {
            finish_inits(&mut simulation, every);
            // Calls of the process that died are over: what they began takes effect or not.
            simulation.due.retain(|(_, effect)| !matches!(effect, Effect::Answer(_)));
            let due = std::mem::take(&mut simulation.due);
            for (_, effect) in due {
                simulation.happen(effect);
            }
            simulation.memory = Memory::default();
            simulation.attempts = simulation
                .containers
                .iter()
                .map(|container| (container.name.clone(), container.attempt))
                .collect();
            simulation.sandbox_attempts =
                simulation.sandboxes.iter().map(|sandbox| sandbox.attempt).collect();
        }
        simulation.faults = false;
        finish_inits(&mut simulation, 8000);
        prop_assert_eq!(simulation.status.phase.as_deref(), Some("Running"));
    }
}
