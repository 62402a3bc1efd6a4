//! Pod conditions, in upstream's words. Pure.

use proto_api::types::Time;
use proto_api::types::core::v1::{ContainerStatus, PodCondition, PodStatus};

use super::model::{self, Role};
use super::resize;
use super::step::Facts;

const READY_TO_START: &str = "PodReadyToStartContainers";
const INITIALIZED: &str = "Initialized";
const READY: &str = "Ready";
const CONTAINERS_READY: &str = "ContainersReady";
const SCHEDULED: &str = "PodScheduled";
const OWN: [&str; 5] = [
    READY_TO_START,
    INITIALIZED,
    READY,
    CONTAINERS_READY,
    SCHEDULED,
];

struct Verdict {
    holds: bool,
    reason: Option<&'static str>,
    message: Option<String>,
}

impl Verdict {
    const TRUE: Self = Self {
        holds: true,
        reason: None,
        message: None,
    };

    fn no(reason: &'static str, message: Option<String>) -> Self {
        Self {
            holds: false,
            reason: Some(reason),
            message,
        }
    }
}

/// The agent's five conditions, then those of others as they were.
pub(super) fn conditions(
    facts: &Facts<'_>,
    status: &PodStatus,
    initialized: bool,
    previous: &[PodCondition],
    resizing: Option<resize::Told>,
) -> Vec<PodCondition> {
    let containers_ready = containers_ready(facts, status);
    let ready = ready(facts, &containers_ready, previous);
    let has_sandbox = facts.observed.sandbox().is_some();
    let to_start = Verdict {
        holds: has_sandbox,
        reason: None,
        message: None,
    };
    let verdicts = [
        (READY_TO_START, to_start),
        (INITIALIZED, initialized_verdict(facts, status, initialized)),
        (READY, ready),
        (CONTAINERS_READY, containers_ready),
        (SCHEDULED, Verdict::TRUE),
    ];
    let own = verdicts
        .into_iter()
        .map(|(kind, verdict)| condition(facts, kind, verdict, previous));
    // Others write their conditions to the object; the newest known object has them.
    let object = facts
        .target
        .pod
        .status
        .as_ref()
        .map(|status| status.conditions.as_slice());
    let foreign = object.unwrap_or(previous).iter();
    let foreign = foreign
        .filter(|condition| !OWN.contains(&condition.type_.as_str()))
        .filter(|condition| !resize::CONDITIONS.contains(&condition.type_.as_str()))
        .cloned();
    let resizing = resizing.map(|(kind, reason, message)| {
        let holds = Verdict {
            holds: true,
            reason,
            message,
        };
        condition(facts, kind, holds, previous)
    });
    own.chain(resizing).chain(foreign).collect()
}

fn condition(
    facts: &Facts<'_>,
    kind: &str,
    verdict: Verdict,
    previous: &[PodCondition],
) -> PodCondition {
    let status = if verdict.holds { "True" } else { "False" };
    let since = previous
        .iter()
        .find(|condition| condition.type_ == kind && condition.status == status)
        .and_then(|condition| condition.last_transition_time.clone())
        .unwrap_or_else(|| Time::from(facts.now));
    PodCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: verdict.reason.map(ToOwned::to_owned),
        message: verdict.message,
        last_transition_time: Some(since),
        observed_generation: facts.target.pod.metadata.generation,
        ..PodCondition::default()
    }
}

fn initialized_verdict(facts: &Facts<'_>, status: &PodStatus, initialized: bool) -> Verdict {
    let unready: Vec<&str> = model::containers(facts.target.spec())
        .filter(|(role, _)| *role != Role::Main)
        .zip(&status.init_container_statuses)
        .filter(|((role, _), status)| match role {
            Role::Sidecar => status.started != Some(true),
            Role::Init | Role::Main | Role::Ephemeral => !status.ready,
        })
        .map(|(_, status)| status.name.as_str())
        .collect();
    match status.phase.as_deref() {
        Some("Succeeded") => Verdict {
            holds: true,
            reason: Some("PodCompleted"),
            message: None,
        },
        _ if initialized || unready.is_empty() => Verdict::TRUE,
        _ => {
            let message = format!("containers with incomplete status: [{}]", unready.join(" "));
            Verdict::no("ContainersNotInitialized", Some(message))
        }
    }
}

fn containers_ready(facts: &Facts<'_>, status: &PodStatus) -> Verdict {
    match status.phase.as_deref() {
        Some("Succeeded") => return Verdict::no("PodCompleted", None),
        Some("Failed") => return Verdict::no("PodFailed", None),
        _ => {}
    }
    let sidecars = model::containers(facts.target.spec())
        .zip(&status.init_container_statuses)
        .filter(|((role, _), _)| *role == Role::Sidecar)
        .map(|(_, status)| status);
    let unready: Vec<&str> = sidecars
        .chain(&status.container_statuses)
        .filter(|status: &&ContainerStatus| !status.ready)
        .map(|status| status.name.as_str())
        .collect();
    if unready.is_empty() && !status.container_statuses.is_empty() {
        return Verdict::TRUE;
    }
    let message = format!("containers with unready status: [{}]", unready.join(" "));
    Verdict::no("ContainersNotReady", Some(message))
}

fn ready(facts: &Facts<'_>, containers: &Verdict, previous: &[PodCondition]) -> Verdict {
    if !containers.holds {
        return Verdict {
            holds: false,
            reason: containers.reason,
            message: containers.message.clone(),
        };
    }
    // Gates are set by others, on the object; the worker feeds them in with the last status.
    let gates: Vec<String> = facts
        .target
        .spec()
        .readiness_gates
        .iter()
        .filter_map(|gate| {
            let kind = &gate.condition_type;
            let object = facts
                .target
                .pod
                .status
                .as_ref()
                .map(|status| &status.conditions);
            let found = object
                .into_iter()
                .flatten()
                .chain(previous)
                .find(|condition| &condition.type_ == kind);
            match found {
                None => Some(format!(
                    "corresponding condition of pod readiness gate \"{kind}\" does not exist."
                )),
                Some(condition) if condition.status != "True" => Some(format!(
                    "the status of pod readiness gate \"{kind}\" is not \"True\", but {}",
                    condition.status
                )),
                Some(_) => None,
            }
        })
        .collect();
    if gates.is_empty() {
        Verdict::TRUE
    } else {
        Verdict::no("ReadinessGatesNotReady", Some(gates.join(", ")))
    }
}
