//! A pod's status as users read it: container states, phase, conditions. Pure.
//!
//! Reasons and messages are upstream's words, since people and tools match on them. Times of
//! transition move only when a condition's status does, so an unchanged pod reports equal bytes.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use proto_api::types::Time;
use proto_api::types::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated,
    ContainerStateWaiting, ContainerStatus, HostIP, PodIP, PodStatus,
};

use super::conditions;
use super::memory::Memory;
use super::model::{self, Role};
use super::observed::{ObservedContainer, RunState};
use super::resize;
use super::step::{Facts, ProbeFacts};

/// Exit code of a container that was lost: as if it had been killed.
const EXIT_CODE_LOST: i32 = 137;

/// The parts of a status that do not come from the pod's containers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StatusInputs<'a> {
    /// The status last reported (or read from the object at adoption).
    pub(crate) previous: &'a PodStatus,
    pub(crate) host_ips: &'a [IpAddr],
    /// Messages of ended containers, by container id.
    pub(crate) termination_messages: &'a BTreeMap<String, String>,
}

/// Builds the whole status.
pub(crate) fn pod_status(
    facts: &Facts<'_>,
    memory: &Memory,
    inputs: StatusInputs<'_>,
) -> PodStatus {
    let spec = facts.target.spec();
    let mut init_statuses = Vec::with_capacity(spec.init_containers.len());
    let mut main_statuses = Vec::with_capacity(spec.containers.len());
    let initialized = is_initialized(facts, memory);
    for (role, container) in model::containers(spec) {
        let status = container_status(facts, memory, inputs, (role, container), initialized);
        match role {
            Role::Init | Role::Sidecar => init_statuses.push(status),
            Role::Main | Role::Ephemeral => main_statuses.push(status),
        }
    }
    let (phase, reason, message) = match &memory.verdict {
        Some(verdict) => (
            verdict.phase,
            verdict.reason.clone(),
            verdict.message.clone(),
        ),
        None => {
            let ends = memory.termination.is_some();
            (
                phase(facts, &init_statuses, &main_statuses, ends),
                None,
                None,
            )
        }
    };
    let pod_ips = pod_ips(facts, inputs);
    let mut status = PodStatus {
        phase: Some(phase.to_owned()),
        reason,
        message,
        container_statuses: main_statuses,
        init_container_statuses: init_statuses,
        ephemeral_container_statuses: model::ephemeral(spec)
            .iter()
            .map(|one| container_status(facts, memory, inputs, (Role::Ephemeral, one), true))
            .collect(),
        host_ip: inputs.host_ips.first().map(ToString::to_string),
        host_ips: inputs
            .host_ips
            .iter()
            .map(|ip| HostIP { ip: ip.to_string() })
            .collect(),
        pod_ip: pod_ips.first().cloned(),
        pod_ips: pod_ips.into_iter().map(|ip| PodIP { ip }).collect(),
        qos_class: Some(model::qos_class(spec).to_owned()),
        start_time: Some(
            inputs
                .previous
                .start_time
                .clone()
                .unwrap_or_else(|| Time::from(facts.now)),
        ),
        observed_generation: facts.target.pod.metadata.generation,
        ..PodStatus::default()
    };
    status.conditions = conditions::conditions(
        facts,
        &status,
        initialized,
        &inputs.previous.conditions,
        resize::told(facts, memory),
    );
    status
}

/// The sandbox's addresses; the node's for a pod on the node's network; the last known ones after
/// the sandbox is gone.
fn pod_ips(facts: &Facts<'_>, inputs: StatusInputs<'_>) -> Vec<String> {
    let text = |ips: &[IpAddr]| ips.iter().map(ToString::to_string).collect::<Vec<_>>();
    let sandbox = facts.observed.sandboxes.first();
    if facts.target.spec().host_network.unwrap_or(false) {
        return if sandbox.is_some() {
            text(inputs.host_ips)
        } else {
            Vec::new()
        };
    }
    let ips = sandbox
        .map(|sandbox| text(&sandbox.ips))
        .unwrap_or_default();
    if ips.is_empty() && !sandbox.is_some_and(|sandbox| sandbox.ready) {
        inputs
            .previous
            .pod_ips
            .iter()
            .map(|ip| ip.ip.clone())
            .collect()
    } else {
        ips
    }
}

/// All init containers are through and all sidecars started, now or before.
fn is_initialized(facts: &Facts<'_>, memory: &Memory) -> bool {
    let Some(sandbox) = facts.observed.sandboxes.first() else {
        return false;
    };
    let spec = facts.target.spec();
    let past_init = spec
        .containers
        .iter()
        .any(|c| facts.observed.active(&sandbox.id, &c.name).is_some());
    past_init
        || model::containers(spec)
            .filter(|(role, _)| *role != Role::Main)
            .all(|(role, c)| {
                let active = facts.observed.active(&sandbox.id, &c.name);
                match role {
                    Role::Sidecar => active.is_some_and(|active| {
                        active.state == RunState::Running
                            && !memory.is_starting(&c.name)
                            && facts
                                .probes
                                .get(&active.id)
                                .is_some_and(|probes| probes.started)
                    }),
                    Role::Init | Role::Main | Role::Ephemeral => active.is_some_and(|active| {
                        active.state == RunState::Exited && active.exit_code == 0
                    }),
                }
            })
}

fn container_status(
    facts: &Facts<'_>,
    memory: &Memory,
    inputs: StatusInputs<'_>,
    (role, container): (Role, &Container),
    initialized: bool,
) -> ContainerStatus {
    let mut runs = facts
        .observed
        .containers
        .iter()
        .filter(|c| c.name == container.name);
    let Some(newest) = runs.next() else {
        return unseen_status(facts, memory, inputs, (role, container), initialized);
    };
    let before = runs.next();
    let state = state(
        facts,
        memory,
        inputs,
        (role, container),
        newest,
        initialized,
    );
    let shows_end = state.terminated.is_some();
    let last = if newest.state == RunState::Exited && !shows_end {
        Some(newest)
    } else {
        before
    };
    let probes = facts.probes.get(&newest.id).copied().unwrap_or_default();
    let running = state.running.is_some();
    let resources = container.resources.clone().filter(|_| running);
    let (allocated, resources) = resize::shown(memory, inputs.previous, newest, resources);
    ContainerStatus {
        name: container.name.clone(),
        ready: is_ready(role, &state, probes),
        started: Some(running && probes.started),
        last_state: Some(
            last.filter(|last| last.state == RunState::Exited)
                .map(|last| terminated(last, inputs))
                .unwrap_or_default(),
        ),
        state: Some(state),
        restart_count: i32::try_from(newest.restart_count).unwrap_or(i32::MAX),
        image: container.image.clone().unwrap_or_default(),
        image_id: newest.image_id.clone(),
        container_id: Some(format!("containerd://{}", newest.id)),
        allocated_resources: allocated,
        resources,
        ..ContainerStatus::default()
    }
}

fn is_ready(role: Role, state: &ContainerState, probes: ProbeFacts) -> bool {
    match role {
        Role::Init => state
            .terminated
            .as_ref()
            .is_some_and(|end| end.exit_code == 0),
        Role::Sidecar | Role::Main => state.running.is_some() && probes.started && probes.ready,
        Role::Ephemeral => false,
    }
}

fn state(
    facts: &Facts<'_>,
    memory: &Memory,
    inputs: StatusInputs<'_>,
    (role, container): (Role, &Container),
    newest: &ObservedContainer,
    initialized: bool,
) -> ContainerState {
    let remembered = memory.containers.get(&container.name);
    let starting = remembered.is_some_and(|remembered| remembered.starting);
    let ends = memory.termination.is_some();
    match newest.state {
        // The postStart hook is part of the start.
        RunState::Running if !starting => ContainerState {
            running: Some(ContainerStateRunning {
                started_at: Some(Time::from(newest.started_at.unwrap_or(newest.created_at))),
            }),
            ..ContainerState::default()
        },
        RunState::Created | RunState::Running | RunState::Unknown => {
            waiting(default_reason(facts, role, initialized), None)
        }
        RunState::Exited => {
            match remembered
                .and_then(|remembered| remembered.waiting.as_ref())
                .filter(|_| !ends)
            {
                Some(failure) => waiting(failure.reason, Some(failure.message.clone())),
                None => terminated(newest, inputs),
            }
        }
    }
}

fn waiting(reason: &str, message: Option<String>) -> ContainerState {
    ContainerState {
        waiting: Some(ContainerStateWaiting {
            reason: Some(reason.to_owned()),
            message,
        }),
        ..ContainerState::default()
    }
}

fn default_reason(facts: &Facts<'_>, role: Role, initialized: bool) -> &'static str {
    let has_init = !facts.target.spec().init_containers.is_empty();
    if has_init && !(role == Role::Main && initialized) {
        "PodInitializing"
    } else {
        "ContainerCreating"
    }
}

fn terminated(container: &ObservedContainer, inputs: StatusInputs<'_>) -> ContainerState {
    let reason = match (container.reason.as_str(), container.exit_code) {
        ("", 0) => "Completed",
        ("", _) => "Error",
        (reason, _) => reason,
    };
    let message = inputs
        .termination_messages
        .get(&container.id)
        .filter(|message| !message.is_empty())
        .cloned()
        .or_else(|| (!container.message.is_empty()).then(|| container.message.clone()));
    ContainerState {
        terminated: Some(Box::new(ContainerStateTerminated {
            container_id: Some(format!("containerd://{}", container.id)),
            exit_code: container.exit_code,
            finished_at: Some(time_or_null(container.finished_at)),
            message,
            reason: Some(reason.to_owned()),
            signal: None,
            started_at: Some(time_or_null(container.started_at)),
        })),
        ..ContainerState::default()
    }
}

fn time_or_null(at: Option<Timestamp>) -> Time {
    Time::from(at.unwrap_or(Timestamp::UNIX_EPOCH))
}

/// Status of a container that the runtime does not know.
fn unseen_status(
    facts: &Facts<'_>,
    memory: &Memory,
    inputs: StatusInputs<'_>,
    (role, container): (Role, &Container),
    initialized: bool,
) -> ContainerStatus {
    let previous = inputs
        .previous
        .container_statuses
        .iter()
        .chain(&inputs.previous.init_container_statuses)
        .chain(&inputs.previous.ephemeral_container_statuses)
        .find(|status| status.name == container.name);
    let failure = memory
        .containers
        .get(&container.name)
        .and_then(|remembered| remembered.waiting.as_ref());
    let mut status = ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        started: Some(false),
        state: Some(match failure {
            Some(failure) => waiting(failure.reason, Some(failure.message.clone())),
            None => waiting(default_reason(facts, role, initialized), None),
        }),
        last_state: Some(ContainerState::default()),
        ..ContainerStatus::default()
    };
    let Some(previous) = previous else {
        return status;
    };
    status.restart_count = previous.restart_count;
    if memory.verdict.is_some() || memory.termination.is_some() {
        // What was reported last stays true of an ended pod whose containers are swept away.
        let ended = previous
            .state
            .as_ref()
            .is_some_and(|state| state.terminated.is_some());
        if ended {
            return previous.clone();
        }
    }
    if previous.container_id.is_some() {
        let lost = lost_state(previous);
        status.container_id = previous.container_id.clone();
        if memory.termination.is_some() {
            status.state = Some(lost);
        } else {
            status.last_state = Some(lost);
        }
    }
    status
}

/// A container was reported and is gone: it ended, nobody knows how.
fn lost_state(previous: &ContainerStatus) -> ContainerState {
    if let Some(state) = previous
        .state
        .as_ref()
        .filter(|state| state.terminated.is_some())
    {
        return state.clone();
    }
    if previous
        .state
        .as_ref()
        .is_some_and(|state| state.waiting.is_some())
    {
        return previous.last_state.clone().unwrap_or_default();
    }
    ContainerState {
        terminated: Some(Box::new(ContainerStateTerminated {
            container_id: previous.container_id.clone(),
            exit_code: EXIT_CODE_LOST,
            finished_at: Some(Time::from(Timestamp::UNIX_EPOCH)),
            message: Some(
                "The container could not be located when the pod was deleted.  \
                 The container used to be Running"
                    .to_owned(),
            ),
            reason: Some("ContainerStatusUnknown".to_owned()),
            signal: None,
            started_at: Some(Time::from(Timestamp::UNIX_EPOCH)),
        })),
        ..ContainerState::default()
    }
}

/// The pod's phase from its containers' states. Of a pod that `ends` nothing runs again.
fn phase(
    facts: &Facts<'_>,
    init: &[ContainerStatus],
    main: &[ContainerStatus],
    ends: bool,
) -> &'static str {
    let spec = facts.target.spec();
    let started_before = main.iter().any(|status| status.container_id.is_some());
    let mut pending_init = false;
    let mut failed_init = false;
    for ((role, container), status) in model::containers(spec).zip(init) {
        let ended = |state: &Option<ContainerState>| -> Option<i32> {
            state.as_ref()?.terminated.as_ref().map(|end| end.exit_code)
        };
        let is_running = status
            .state
            .as_ref()
            .is_some_and(|state| state.running.is_some());
        match role {
            Role::Sidecar => {
                let is_started = is_running && status.started == Some(true);
                pending_init |= !(started_before || is_started);
            }
            Role::Init | Role::Main | Role::Ephemeral => match ended(&status.state) {
                Some(0) => {}
                Some(code) if !model::restarts(spec, role, container, code) => failed_init = true,
                Some(_) => pending_init = true,
                None => pending_init |= !started_before,
            },
        }
    }
    if failed_init {
        return "Failed";
    }
    let count = Counts::of(facts, main, ends);
    if pending_init && count.running == 0 && count.failed + count.succeeded == 0 {
        return "Pending";
    }
    match count {
        Counts { waiting, .. } if waiting > 0 => "Pending",
        Counts { running, .. } if running > 0 => "Running",
        Counts {
            restarting: 0,
            failed: 0,
            ..
        } => "Succeeded",
        Counts { restarting: 0, .. } => "Failed",
        Counts { .. } => "Running",
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    /// Never ran.
    waiting: usize,
    running: usize,
    /// Ended for good, exit code 0.
    succeeded: usize,
    /// Ended for good, another exit code.
    failed: usize,
    /// Ended and will run again.
    restarting: usize,
}

impl Counts {
    fn of(facts: &Facts<'_>, main: &[ContainerStatus], ends: bool) -> Self {
        let spec = facts.target.spec();
        let mut counts = Self::default();
        for (container, status) in spec.containers.iter().zip(main) {
            let state = status.state.clone().unwrap_or_default();
            let last = status.last_state.clone().unwrap_or_default();
            if state.running.is_some() {
                counts.running += 1;
                continue;
            }
            let waits = state.waiting.is_some();
            match state.terminated.or(last.terminated) {
                None => counts.waiting += 1,
                Some(_) if waits && !ends => counts.restarting += 1,
                Some(end)
                    if !ends && model::restarts(spec, Role::Main, container, end.exit_code) =>
                {
                    counts.restarting += 1;
                }
                Some(end) if end.exit_code == 0 => counts.succeeded += 1,
                Some(_) => counts.failed += 1,
            }
        }
        counts
    }
}
