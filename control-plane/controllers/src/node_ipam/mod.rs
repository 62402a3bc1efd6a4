//! Each node's part of the pod ranges (`spec.podCIDRs`).

mod controller;
mod plan;

pub(crate) use controller::NodeIpamController;
