//! The plugins: each says which nodes a pod cannot be on, or how well it would be there.
//!
//! Owns: the seam between a decision and its rules. A filter is prepared once for a pod and then asked about
//! node after node; one that has nothing to say about a pod is not asked at all. Changes when a plugin
//! comes or goes.

pub(crate) mod affinity;
pub(crate) mod allocation;
pub(crate) mod fit;
pub(crate) mod node_name;
pub(crate) mod pod_affinity;
pub(crate) mod ports;
pub(crate) mod spread;
pub(crate) mod taints;
pub(crate) mod unschedulable;

use std::fmt;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::cache::{Freed, NodeId};

/// The highest score of a plugin before its weight.
pub(crate) const SCORE_MAX: i64 = 100;

/// Which plugins turned nodes down: by what a waiting pod may be helped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PluginSet(u16);

/// The plugins that filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plugin {
    NodeResourcesFit,
    NodeName,
    NodeAffinity,
    TaintToleration,
    NodeUnschedulable,
    NodePorts,
    PodTopologySpread,
    InterPodAffinity,
}

impl PluginSet {
    pub(crate) fn insert(&mut self, plugin: Plugin) {
        self.0 |= Self::bit(plugin);
    }

    fn bit(plugin: Plugin) -> u16 {
        1 << match plugin {
            Plugin::NodeResourcesFit => 0,
            Plugin::NodeName => 1,
            Plugin::NodeAffinity => 2,
            Plugin::TaintToleration => 3,
            Plugin::NodeUnschedulable => 4,
            Plugin::NodePorts => 5,
            Plugin::PodTopologySpread => 6,
            Plugin::InterPodAffinity => 7,
        }
    }

    fn has(self, plugin: Plugin) -> bool {
        self.0 & Self::bit(plugin) != 0
    }

    /// Whether what became free may let in a pod that these plugins turned down. A set without
    /// plugins (there was no node) is helped by everything.
    #[must_use]
    pub fn is_helped_by(self, freed: Freed) -> bool {
        let by_room = self.has(Plugin::NodeResourcesFit)
            || self.has(Plugin::NodePorts)
            || self.has(Plugin::PodTopologySpread)
            || self.has(Plugin::InterPodAffinity);
        let by_labels = self.has(Plugin::NodeAffinity)
            || self.has(Plugin::PodTopologySpread)
            || self.has(Plugin::InterPodAffinity)
            || self.has(Plugin::NodeName);
        let by_taints = self.has(Plugin::TaintToleration)
            || self.has(Plugin::NodeUnschedulable)
            || self.has(Plugin::PodTopologySpread);
        let by_pods = self.has(Plugin::PodTopologySpread) || self.has(Plugin::InterPodAffinity);
        let anything = freed.room || freed.labels || freed.taints;
        (self.0 == 0 && anything)
            || (freed.room && by_room)
            || (freed.labels && by_labels)
            || (freed.taints && by_taints)
            || (freed.pods && by_pods)
    }
}

/// Why a node was turned down, in the words of the pod's condition.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Reason {
    Insufficient(Arc<str>),
    TooManyPods,
    NodeName,
    Affinity,
    Taint { key: String, value: String },
    Unschedulable,
    Ports,
    Spread,
    SpreadLabel,
    PodAffinity,
    PodAntiAffinity,
    AntiAffinityOfOthers,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Insufficient(resource) => write!(f, "Insufficient {resource}"),
            Self::TooManyPods => f.write_str("Too many pods"),
            Self::NodeName => f.write_str("node(s) didn't match the requested node name"),
            Self::Affinity => f.write_str("node(s) didn't match Pod's node affinity/selector"),
            Self::Taint { key, value } => {
                write!(f, "node(s) had untolerated taint {{{key}: {value}}}")
            }
            Self::Unschedulable => f.write_str("node(s) were unschedulable"),
            Self::Ports => {
                f.write_str("node(s) didn't have free ports for the requested pod ports")
            }
            Self::Spread => f.write_str("node(s) didn't match pod topology spread constraints"),
            Self::SpreadLabel => f.write_str(
                "node(s) didn't match pod topology spread constraints (missing required label)",
            ),
            Self::PodAffinity => f.write_str("node(s) didn't match pod affinity rules"),
            Self::PodAntiAffinity => f.write_str("node(s) didn't match pod anti-affinity rules"),
            Self::AntiAffinityOfOthers => {
                f.write_str("node(s) didn't satisfy existing pods anti-affinity rules")
            }
        }
    }
}

pub(crate) type Reasons = SmallVec<[Reason; 2]>;

/// A plugin's rule for one pod.
pub(crate) trait Filter {
    /// Which plugin this is.
    fn plugin(&self) -> Plugin;
    /// Whether the pod may be on the node; otherwise adds why not.
    fn admits(&self, node: NodeId, why: &mut Reasons) -> bool;
}
