//! Which level and flow a request belongs to: upstream's suggested flow schemas, as a pure function.

use crate::auth::{MASTERS, NODES, User};

/// What counts of a request.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Request<'a> {
    /// API group, empty for core and for paths that name no resource.
    pub(crate) group: &'a str,
    /// Plural, empty for paths that name no resource.
    pub(crate) resource: &'a str,
    /// The path names no resource and only asks how the server is.
    pub(crate) probe: bool,
}

/// A priority level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Priority {
    /// Never waits.
    Exempt,
    /// Heartbeats of nodes.
    NodeHigh,
    /// Everything else that nodes ask.
    System,
    /// Who leads.
    LeaderElection,
    /// The cluster's own workloads.
    WorkloadHigh,
    /// Service accounts.
    WorkloadLow,
    /// Users.
    GlobalDefault,
    /// Nobody that is known.
    CatchAll,
}

impl Priority {
    /// Those with seats.
    pub(super) const LIMITED: [Self; 7] = [
        Self::NodeHigh,
        Self::System,
        Self::LeaderElection,
        Self::WorkloadHigh,
        Self::WorkloadLow,
        Self::GlobalDefault,
        Self::CatchAll,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Exempt => "exempt",
            Self::NodeHigh => "node-high",
            Self::System => "system",
            Self::LeaderElection => "leader-election",
            Self::WorkloadHigh => "workload-high",
            Self::WorkloadLow => "workload-low",
            Self::GlobalDefault => "global-default",
            Self::CatchAll => "catch-all",
        }
    }

    /// Requests that run at a time: upstream's shares of 600.
    pub(super) const fn seats(self) -> usize {
        match self {
            Self::Exempt => usize::MAX,
            Self::NodeHigh | Self::WorkloadHigh => 98,
            Self::System => 74,
            Self::LeaderElection => 25,
            Self::WorkloadLow => 245,
            Self::GlobalDefault => 49,
            Self::CatchAll => 13,
        }
    }
}

/// Where a request belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Class<'a> {
    pub(super) priority: Priority,
    /// The rule that said so.
    pub(super) schema: &'static str,
    /// Whose requests are served in turn with others'.
    pub(super) flow: &'a str,
}

const ACCOUNTS: &str = "system:serviceaccounts";
const OWN_ACCOUNTS: &str = "system:serviceaccounts:kube-system";

pub(super) fn classify<'a>(user: &'a User, request: Request<'_>) -> Class<'a> {
    let class = |priority, schema| Class {
        priority,
        schema,
        flow: user.name.as_str(),
    };
    let is = |group: &str, resource: &str| request.group == group && request.resource == resource;
    let lease = is("coordination.k8s.io", "leases");
    if user.in_group(MASTERS) {
        return class(Priority::Exempt, "exempt");
    }
    if request.probe {
        return class(Priority::Exempt, "probes");
    }
    if user.in_group(NODES) {
        let heartbeat = is("", "nodes") || lease;
        return if heartbeat {
            class(Priority::NodeHigh, "system-node-high")
        } else {
            class(Priority::System, "system-nodes")
        };
    }
    let component = matches!(
        user.name.as_str(),
        "system:kube-controller-manager" | "system:kube-scheduler"
    );
    let own = user.in_group(OWN_ACCOUNTS);
    if lease && component {
        return class(Priority::LeaderElection, "system-leader-election");
    }
    // Beyond upstream: leaders of every workload renew their leases, flooded or not.
    if lease && user.in_group(ACCOUNTS) {
        return class(Priority::LeaderElection, "workload-leader-election");
    }
    if component {
        return class(Priority::WorkloadHigh, "kube-components");
    }
    if own {
        return class(Priority::WorkloadHigh, "kube-system-service-accounts");
    }
    if user.in_group(ACCOUNTS) {
        return class(Priority::WorkloadLow, "service-accounts");
    }
    if user.in_group(crate::auth::AUTHENTICATED) {
        return class(Priority::GlobalDefault, "global-default");
    }
    class(Priority::CatchAll, "catch-all")
}
