//! Nodes that fall silent or report trouble: conditions, taints, pods marked not ready, evictions.

mod controller;
mod eviction;
mod heartbeat;
mod plan;
mod zones;

pub(crate) use controller::NodeLifecycleController;

#[cfg(test)]
mod tests;
